"""Sending an issue from a command: drain here when this process may, else watch the one that does."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from distributor.cli.context import hint, stopping_on_signals
from distributor.cli.output import out, print_tallies, say
from distributor.errors import ServiceDown
from distributor.model import OVER, DeliveryState, Issue, IssueState, Tally

if TYPE_CHECKING:
    from rich.progress import Progress

    from distributor.bootstrap import Distributor
    from distributor.ledger import LogEntry
    from distributor.settings import Settings

#: Plain progress lines, for logs and pipes, come this often.
LINE_EVERY = 5.0
#: What is to be said of an issue that is neither finished nor on its way, and the command that helps.
STANDS: Mapping[IssueState, tuple[str, str]] = {
    IssueState.WAITING: ("waits for approval", "approve {0}"),
    IssueState.OPENING: ("is still being opened: its audience is not all written down", ""),
    IssueState.CANCELLED: ("was cancelled", ""),
    IssueState.EXPIRED: ("expired before it was all sent", "resend {0} --only expired --reason …"),
}


def deliver(distributor: Distributor, issue: Issue, *, patience: timedelta, kept: bool = True) -> int:
    """Sends what is pending and shows it; returns the exit status. Stops waiting after `patience`, or on Ctrl-C.

    `kept`: the database outlives this command, so that others can be pointed to.
    """
    from distributor.bootstrap import sole_sender  # noqa: PLC0415 - cli/__init__.py
    from distributor.dispatch import write_audience  # noqa: PLC0415 - cli/__init__.py

    stop = threading.Event()
    with stopping_on_signals(stop), sole_sender(distributor.settings) as may_send:
        if distributor.settings.broker.configured:
            waker = _Waker(distributor, issue)
            write_audience(replace(distributor.engine, wake=waker.wake), issue)
            if waker.wake_all():
                _watch(distributor, issue, stop, patience)
        elif not may_send:
            write_audience(distributor.engine, issue)
            say("`distributor run` is at work on this database and delivers it; this command only watches.")
            _watch(distributor, issue, stop, patience)
        else:
            _send_here(distributor, issue, stop, patience)
    return conclude(distributor, issue, kept=kept)


def conclude(distributor: Distributor, issue: Issue, *, kept: bool = True) -> int:
    """Prints how an issue stands; 0 when all of it is settled and nothing is in doubt."""
    issue = distributor.ledger.issue(issue.id)
    tallies = distributor.ledger.tallies(issue.id)
    total = sum(tallies.values(), Tally())
    print_tallies(tallies)
    if issue.state in STANDS:
        says, helps = STANDS[issue.state]
        command = f": {hint(distributor.settings, helps.format(issue.id))}" if helps else ""
        say(f"issue {issue.id} {says}{command}")
    awaiting = distributor.ledger.awaiting(issue.id)
    for line in waiting_lines(distributor.settings, awaiting, kept=kept):
        say(line)
    for state, number in (
        (DeliveryState.UNCONFIRMED, total.unconfirmed - len(awaiting)),
        (DeliveryState.FAILED, total.failed),
    ):
        if number:
            _say_where(distributor, issue, state, number, kept=kept)
    if total.open:
        say(
            _still_open(distributor, issue, total.open) if kept else f"it ended before {total.open} were sent"
        )
    for channel, stop in distributor.ledger.stopped_channels().items():
        say(f"{channel} is stopped: {stop.reason}\n  look: {hint(distributor.settings, 'doctor')}")
    done = total.balanced and not total.open and not total.unconfirmed and issue.state not in STANDS
    return 0 if done else 1


def waiting_lines(settings: Settings, awaiting: Sequence[LogEntry], *, kept: bool = True) -> Iterator[str]:
    """What persons have in hand, and how to say that it is out; of a rehearsal there is nothing to say."""
    if awaiting:
        yield f"awaiting a person: {len(awaiting)}" + ("" if kept else " (a rehearsal: nothing to settle)")
    for entry in awaiting if kept else ():
        command = hint(settings, f"resolve {entry.issue_id}.{entry.seq} --sent")
        yield f"  {entry.destination}: when it is posted: {command}"


def _say_where(
    distributor: Distributor, issue: Issue, state: DeliveryState, number: int, *, kept: bool
) -> None:
    """Where to read about each one; of a database that is gone by then, the reasons themselves."""
    if kept:
        words = f"log {issue.id} --state {state}"
        say(f"{f'{number} {state}:':<14} {hint(distributor.settings, words)}")
        return
    for channel, reason, times in distributor.ledger.why(issue.id, state):
        say(f"{times} {state}: {channel}: {reason}")


def _still_open(distributor: Distributor, issue: Issue, number: int) -> str:
    if issue.paused:
        command = hint(distributor.settings, f"resume {issue.id}")
        return f"{number} still open: issue {issue.id} is paused; go on with: {command}"
    command = hint(distributor.settings, "run")
    return f"{number} still open: `{command}` (or this command again) goes on with them"


def _send_here(distributor: Distributor, issue: Issue, stop: threading.Event, patience: timedelta) -> None:
    from distributor.bootstrap import tune_interpreter  # noqa: PLC0415 - cli/__init__.py
    from distributor.dispatch import write_audience  # noqa: PLC0415 - cli/__init__.py
    from distributor.runner import Runner  # noqa: PLC0415 - cli/__init__.py

    tune_interpreter()
    runner = Runner(distributor, scheduled=False)
    with _stops_told_once():
        runner.start()
        try:
            write_audience(distributor.engine, issue)
            _watch(distributor, issue, stop, patience)
        finally:
            runner.stop.set()
            runner.join()
            distributor.alerts.send_due()


@contextmanager
def _stops_told_once() -> Iterator[None]:
    """Keeps a channel's stop out of the log on the terminal: `_Lines` and `conclude` tell it. With --verbose it stays."""
    stories = logging.getLogger("distributor.dispatch.lane")
    verbose = logging.getLogger().isEnabledFor(logging.INFO)

    def told_elsewhere(record: logging.LogRecord) -> bool:
        return verbose or not record.getMessage().startswith("channel_stopped ")

    stories.addFilter(told_elsewhere)
    try:
        yield
    finally:
        stories.removeFilter(told_elsewhere)


class _Waker:
    """Wakes the workers; without a broker they find the issue by themselves once it is back."""

    def __init__(self, distributor: Distributor, issue: Issue) -> None:
        from distributor.tasks import configure, signal  # noqa: PLC0415 - Celery: 0.3 s that only a broker needs

        configure(distributor.settings)
        self.distributor, self.issue = distributor, issue
        self._signal = signal
        self._broken = False

    def wake(self, channel: str, times: int = 2) -> None:
        """For each window of the audience: the first message leaves while the rest is still being written."""
        if self._broken:
            return
        try:
            self._signal(channel, times)
        except ServiceDown as error:
            self._broken = True
            say(
                f"{error}\nNothing is lost: issue {self.issue.id} stands in the database, and the workers deliver it "
                "as soon as the broker is back. Is it running, and is DISTRIBUTOR_BROKER_URL right?"
            )

    def wake_all(self) -> bool:
        """Whether workers could be told."""
        for channel, due in self.distributor.ledger.due_channels().items():
            self.wake(channel, due)
        return not self._broken


def _watch(distributor: Distributor, issue: Issue, stop: threading.Event, patience: timedelta) -> None:
    bar = _bar()
    until = time.monotonic() + patience.total_seconds()
    lines = _Lines(distributor)
    with bar:
        task = bar.add_task(f"issue {issue.id}")
        while not stop.is_set() and time.monotonic() < until:
            total = sum(distributor.ledger.tallies(issue.id).values(), Tally())
            bar.update(task, total=max(total.planned, total.counted), completed=total.counted - total.open)
            if _is_over(distributor, issue, total):
                return
            lines.stops()
            if bar.disable:
                lines.progress(total)
            stop.wait(0.2)


def _bar() -> Progress:
    from rich.progress import (  # noqa: PLC0415 - cli/__init__.py
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=out,
        disable=not sys.stdout.isatty(),
    )


def _is_over(distributor: Distributor, issue: Issue, total: Tally) -> bool:
    from distributor.schedule import look_after  # noqa: PLC0415 - cli/__init__.py

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
