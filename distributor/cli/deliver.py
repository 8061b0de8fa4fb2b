"""Sending an issue from a command: drain here when this process may, else watch the one that does."""

import sys
import threading
import time
from collections.abc import Mapping
from datetime import timedelta

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from distributor.bootstrap import Distributor, sole_sender
from distributor.cli.context import stopping_on_signals
from distributor.cli.output import out, print_tallies, say
from distributor.dispatch import write_audience
from distributor.errors import ServiceDown
from distributor.model import Issue, IssueState, Tally
from distributor.runner import Runner
from distributor.schedule import look_after
from distributor.tasks import configure, signal

#: Plain progress lines, for logs and pipes, come this often.
LINE_EVERY = 5.0
OVER = {IssueState.FINISHED, IssueState.CANCELLED, IssueState.EXPIRED}
#: What is to be said of an issue that is neither finished nor on its way.
STANDS: Mapping[IssueState, str] = {
    IssueState.WAITING: "waits for approval: distributor approve {0}",
    IssueState.OPENING: "is still being opened: its audience is not all written down",
    IssueState.CANCELLED: "was cancelled",
    IssueState.EXPIRED: "expired before it was all sent: distributor resend {0} --only expired --reason …",
}


def deliver(distributor: Distributor, issue: Issue, *, patience: timedelta) -> int:
    """Sends what is pending and shows it; returns the exit status. Stops waiting after `patience`, or on Ctrl-C."""
    write_audience(distributor.engine, issue)
    stop = threading.Event()
    with stopping_on_signals(stop), sole_sender(distributor.settings) as may_send:
        if distributor.settings.broker.configured:
            if _wake(distributor, issue):
                _watch(distributor, issue, stop, patience)
        elif not may_send:
            say("`distributor run` is at work on this database and delivers it; this command only watches.")
            _watch(distributor, issue, stop, patience)
        else:
            _send_here(distributor, issue, stop, patience)
    return conclude(distributor, issue)


def conclude(distributor: Distributor, issue: Issue) -> int:
    """Prints how an issue stands; 0 when all of it is settled and nothing is in doubt."""
    issue = distributor.ledger.issue(issue.id)
    tallies = distributor.ledger.tallies(issue.id)
    total = sum(tallies.values(), Tally())
    print_tallies(tallies)
    if issue.state in STANDS:
        say(f"issue {issue.id} {STANDS[issue.state].format(issue.id)}")
    if total.unconfirmed:
        say(f"{total.unconfirmed} unconfirmed: distributor log {issue.id} --state unconfirmed")
    if total.failed:
        say(f"{total.failed} failed:      distributor log {issue.id} --state failed")
    if total.open:
        say(_still_open(issue, total.open))
    for channel, stop in distributor.ledger.stopped_channels().items():
        say(f"{channel} is stopped: {stop.reason}\n  look: distributor doctor")
    done = total.balanced and not total.open and not total.unconfirmed and issue.state not in STANDS
    return 0 if done else 1


def _still_open(issue: Issue, number: int) -> str:
    if issue.paused:
        return f"{number} still open: issue {issue.id} is paused; go on with: distributor resume {issue.id}"
    return f"{number} still open: `distributor run` (or this command again) goes on with them"


def _send_here(distributor: Distributor, issue: Issue, stop: threading.Event, patience: timedelta) -> None:
    runner = Runner(distributor, scheduled=False)
    runner.start()
    try:
        _watch(distributor, issue, stop, patience)
    finally:
        runner.stop.set()
        runner.join()
        distributor.alerts.send_due()


def _wake(distributor: Distributor, issue: Issue) -> bool:
    """Whether workers could be told; without a broker they find the issue by themselves once it is back."""
    configure(distributor.settings)
    try:
        for channel, due in distributor.ledger.due_channels().items():
            signal(channel, due)
    except ServiceDown as error:
        say(
            f"{error}\nNothing is lost: issue {issue.id} stands in the database, and the workers deliver it "
            "as soon as the broker is back. Is it running, and is DISTRIBUTOR_BROKER_URL right?"
        )
        return False
    return True


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
    lines = _Lines(distributor)
    with bar:
        task = bar.add_task(f"issue {issue.id}")
        while not stop.is_set() and time.monotonic() < until:
            total = sum(distributor.ledger.tallies(issue.id).values(), Tally())
            bar.update(task, total=total.planned, completed=total.planned - total.open)
            if _is_over(distributor, issue, total):
                return
            lines.stops()
            if bar.disable:
                lines.progress(total)
            stop.wait(0.2)


def _is_over(distributor: Distributor, issue: Issue, total: Tally) -> bool:
    state = distributor.ledger.issue(issue.id).state
    if state is IssueState.SENDING and not total.open:
        look_after(distributor.engine, distributor.alerts)  # closes it now; the next sweep may be far
    return state in OVER


class _Lines:
    """What is said beside the bar: each stop of a channel once, and progress now and then."""

    def __init__(self, distributor: Distributor) -> None:
        self.distributor = distributor
        self._told: set[str] = set()
        self._next, self._last = time.monotonic() + LINE_EVERY, -1

    def stops(self) -> None:
        for channel, stop in self.distributor.ledger.stopped_channels().items():
            if channel not in self._told:
                self._told.add(channel)
                say(
                    f"{channel} is stopped: {stop.reason}; it is tried again by itself, and nobody loses a try"
                )

    def progress(self, total: Tally) -> None:
        settled = total.planned - total.open
        if time.monotonic() >= self._next and settled != self._last:
            say(f"{settled} of {total.planned} settled")
            self._last, self._next = settled, time.monotonic() + LINE_EVERY
