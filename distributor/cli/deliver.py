"""Sending an issue from a command: drain here when this process may, else watch the one that does."""

import sys
import threading
import time
from datetime import timedelta

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from distributor.bootstrap import Distributor, sole_sender
from distributor.cli.context import stopping_on_signals
from distributor.cli.output import out, print_tallies, say
from distributor.dispatch import write_audience
from distributor.model import Issue, IssueState, Tally
from distributor.runner import Runner
from distributor.tasks import configure, signal

#: Plain progress lines, for logs and pipes, come this often.
LINE_EVERY = 5.0
OVER = {IssueState.FINISHED, IssueState.CANCELLED, IssueState.EXPIRED}


def deliver(distributor: Distributor, issue: Issue, *, patience: timedelta) -> int:
    """Sends what is pending and shows it; returns the exit status. Stops waiting after `patience`, or on Ctrl-C."""
    write_audience(distributor.engine, issue)
    stop = threading.Event()
    with stopping_on_signals(stop), sole_sender(distributor.settings) as may_send:
        runner = Runner(distributor, scheduled=False)
        if distributor.settings.broker.configured:
            _wake(distributor)
            _watch(distributor, issue, stop, patience)
        elif not may_send:
            say("`distributor run` is at work on this database and delivers it; this command only watches.")
            _watch(distributor, issue, stop, patience)
        else:
            runner.start()
            try:
                _watch(distributor, issue, stop, patience)
            finally:
                runner.stop.set()
                runner.join()
                distributor.alerts.send_due()
    return conclude(distributor, issue)


def conclude(distributor: Distributor, issue: Issue) -> int:
    """Prints how an issue stands; 0 when all of it is settled and nothing is in doubt."""
    tallies = distributor.ledger.tallies(issue.id)
    total = sum(tallies.values(), Tally())
    print_tallies(tallies)
    if total.unconfirmed:
        say(f"{total.unconfirmed} unconfirmed: distributor log {issue.id} --state unconfirmed")
    if total.failed:
        say(f"{total.failed} failed:      distributor log {issue.id} --state failed")
    if total.open:
        say(f"{total.open} still open: `distributor run` (or this command again) goes on with them")
    for channel, stop in distributor.ledger.stopped_channels().items():
        say(f"{channel} is stopped: {stop.reason}\n  look: distributor doctor")
    done = total.balanced and not total.open and not total.unconfirmed
    return 0 if done else 1


def _wake(distributor: Distributor) -> None:
    configure(distributor.settings)
    for channel, due in distributor.ledger.due_channels().items():
        signal(channel, due)


def _watch(distributor: Distributor, issue: Issue, stop: threading.Event, patience: timedelta) -> None:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=out,
        disable=not sys.stdout.isatty(),
    )
    until = time.monotonic() + patience.total_seconds()
    next_line, last = time.monotonic() + LINE_EVERY, -1
    with bar:
        task = bar.add_task(f"issue {issue.id}")
        while not stop.is_set() and time.monotonic() < until:
            total = sum(distributor.ledger.tallies(issue.id).values(), Tally())
            bar.update(task, total=total.planned, completed=total.planned - total.open)
            if distributor.ledger.issue(issue.id).state in OVER:
                return
            settled = total.planned - total.open
            if bar.disable and time.monotonic() >= next_line and settled != last:
                say(f"{settled} of {total.planned} settled")
                last, next_line = settled, time.monotonic() + LINE_EVERY
            stop.wait(0.2)
