"""How an issue stands, once or again and again: numbers, rate, when it is done, and what will miss the deadline."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Group as Stack
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from distributor.cli.context import hint, stopping_on_signals
from distributor.cli.deliver import waiting_lines
from distributor.cli.output import out, plain, print_json, print_table, say, wide
from distributor.errors import ServiceDown
from distributor.model import OVER, DeliveryState, Issue, IssueState, Tally

if TYPE_CHECKING:
    from distributor.bootstrap import Distributor
    from distributor.ledger import ChannelStop, LogEntry
    from distributor.ledger.reports import Group, GroupKey

#: Seconds between two looks, and over which the rate is taken.
LOOK_EVERY, WINDOW = 1.0, 20.0
#: Up to so many deliveries the rows of an issue are read for the rate; of a larger one the counters, twice.
SMALL = 20_000
GOING = frozenset({IssueState.OPENING, IssueState.SENDING})
COLUMNS = ("planned", "sent", "failed", "skipped", "unconfirmed", "open", "rate", "ETA")
GROUP_COLUMNS = ("sent", "failed", "unconfirmed", "open", "retrying", "throttled", "rate")


@dataclass(frozen=True, kw_only=True)
class Line:
    """A channel's numbers. `rate`: settled a second; `eta`: seconds; `misses`: still open at the deadline.

    None: not known yet, or nothing is open.
    """

    tally: Tally
    rate: float | None = None
    eta: float | None = None
    misses: int | None = None

    @property
    def open(self) -> int:
        """What is not settled, and what is still to be written down."""
        # Of an issue that only begins to open, some are written down before all are counted.
        return max(self.tally.planned, self.tally.counted) - settled(self.tally)


@dataclass(frozen=True, kw_only=True)
class View:
    """How an issue stands at a moment of the database's clock."""

    issue: Issue
    at: datetime
    lines: Mapping[str, Line]
    stops: Mapping[str, ChannelStop]
    awaiting: Sequence[LogEntry] = ()

    @property
    def going(self) -> bool:
        return self.issue.state in GOING

    @property
    def over(self) -> bool:
        """Nothing more will change by itself. A sweeper calls it finished a little later than it is."""
        done = self.issue.state is IssueState.SENDING and not self.total.open
        return self.issue.state in OVER or done

    @property
    def total(self) -> Line:
        """Channels do not wait for each other: the slowest one says when all is done."""
        lines = self.lines.values()
        rates = [line.rate for line in lines if line.rate is not None]
        etas = [line.eta for line in lines if line.open]
        misses = [line.misses for line in lines if line.misses is not None]
        return Line(
            tally=sum((line.tally for line in lines), Tally()),
            rate=sum(rates) if rates else None,
            eta=max((eta for eta in etas if eta is not None), default=None) if None not in etas else None,
            misses=sum(misses) if misses else None,
        )


def settled(tally: Tally) -> int:
    return tally.sent + tally.failed + tally.skipped + tally.unconfirmed


def line_of(tally: Tally, rate: float | None, left: timedelta) -> Line:
    """A channel's numbers with what follows from its rate; `left` until the deadline."""
    line = Line(tally=tally, rate=rate)
    if rate is None or not line.open:
        return line
    in_time = int(rate * max(0.0, left.total_seconds()))
    return replace(line, eta=line.open / rate if rate else None, misses=max(0, line.open - in_time))


class Pace:
    """Rates from the change of the counters over the last WINDOW seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, Mapping[str, int]]] = deque()

    def add(self, moment: float, tallies: Mapping[str, Tally]) -> None:
        now = {name: settled(tally) for name, tally in tallies.items()}
        if self._seen and any(number < self._seen[-1][1].get(name, 0) for name, number in now.items()):
            self._seen.clear()  # a resend made some of them open again
        self._seen.append((moment, now))
        while len(self._seen) > 1 and self._seen[1][0] <= moment - WINDOW:
            self._seen.popleft()

    def rates(self) -> Mapping[str, float]:
        """Channel → settled a second; nothing before the second look."""
        (first, before), (last, now) = self._seen[0], self._seen[-1]
        if last <= first:
            return {}
        return {name: (number - before.get(name, 0)) / (last - first) for name, number in now.items()}


def look(distributor: Distributor, issue_id: int, rates: Mapping[str, float] | None = None) -> View:
    """Reads counters alone: as quick for a million deliveries as for one."""
    ledger = distributor.ledger
    issue, at = ledger.issue(issue_id), ledger.moment()
    left = issue.expires_at - at
    going = (rates or {}) if issue.state in GOING else {}
    lines = {name: line_of(tally, going.get(name), left) for name, tally in ledger.tallies(issue_id).items()}
    return View(
        issue=issue, at=at, lines=lines, stops=ledger.stopped_channels(), awaiting=ledger.awaiting(issue_id)
    )


def look_once(distributor: Distributor, issue_id: int) -> View:
    """With a rate, if anything is on its way: of a large issue that takes a second."""
    view = look(distributor, issue_id)
    if not view.going or view.over:
        return view
    if view.total.tally.planned <= SMALL:
        lately = distributor.ledger.settled_lately(issue_id)
        return look(distributor, issue_id, {name: lately.get(name, 0.0) for name in view.lines})
    pace = Pace()
    pace.add(time.monotonic(), distributor.ledger.tallies(issue_id))
    time.sleep(LOOK_EVERY)
    pace.add(time.monotonic(), distributor.ledger.tallies(issue_id))
    return look(distributor, issue_id, pace.rates())


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────


def state_of(issue: Issue) -> str:
    """The state, or what keeps it from going on."""
    if issue.state in OVER:
        return str(issue.state)
    return "held" if issue.hold else "paused" if issue.paused else str(issue.state)


def day_of(issue: Issue) -> str:
    return f"{issue.local_date}" + (f" +{issue.extra}" if issue.extra else "")


def title_of(issue: Issue) -> str:
    return f"issue {issue.id} · {issue.newsletter} {day_of(issue)} · {state_of(issue)} · {issue.title}"


def rows_of(view: View) -> Iterator[Sequence[object]]:
    """A row a channel, and the total of several."""
    named = [*view.lines.items()]
    for name, line in [*named, ("total", view.total)] if len(named) > 1 else named:
        tally = line.tally
        numbers = (tally.planned, tally.sent, tally.failed, tally.skipped, tally.unconfirmed, line.open)
        yield (name, *numbers, _rate(line.rate) if line.open else "", _time(line.eta))


def notes_of(distributor: Distributor, view: View) -> Iterator[str]:
    """What keeps an issue from being sent, one line each, with what to do about it."""
    issue = view.issue
    if issue.state not in OVER and issue.hold:
        yield f"held: {issue.hold}"
    elif issue.state not in OVER and issue.paused:
        yield f"paused; go on with: {hint(distributor.settings, f'resume {issue.id}')}"
    yield from waiting_lines(distributor.settings, view.awaiting)
    for name, stop in view.stops.items():
        yield f"{name} {_stopped(stop, view.at)}: {stop.reason}"
    if issue.state is not IssueState.OPENING:
        wrong = [name for name, line in view.lines.items() if not line.tally.balanced]
        if wrong:
            yield (
                f"THE SUM DOES NOT HOLD on {', '.join(wrong)}: planned ≠ the sum of the states. Please report this."
            )


def deadline_of(view: View) -> Iterator[str]:
    """When the issue expires, and what will not be sent by then."""
    if view.going and not view.over:
        misses, left = view.total.misses, (view.issue.expires_at - view.at).total_seconds()
        will = "" if misses is None else f"; at this rate {misses} deliveries will miss it"
        yield f"deadline: {view.issue.expires_at:%Y-%m-%d %H:%M:%S} UTC, in {_time(max(0.0, left))}{will}"


def _stopped(stop: ChannelStop, at: datetime) -> str:
    if stop.until > at:
        return f"is stopped until {stop.until:%Y-%m-%d %H:%M:%S} UTC"
    return "was stopped and is being tried again"


def _rate(rate: float | None) -> str:
    """Few digits are enough."""
    if rate is None:
        return ""
    return f"{rate:.0f}/s" if rate >= 100 or not rate else f"{rate:.1f}/s" if rate >= 1 else f"{rate:.2g}/s"


def _time(seconds: float | None) -> str:
    """The two largest units."""
    if seconds is None:
        return ""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    units = [f"{days} d", f"{hour} h", f"{minute} min", f"{second} s"]
    first = next((place for place, number in enumerate((days, hour, minute)) if number), 3)
    return " ".join(units[first : first + 2])


# ── one report ───────────────────────────────────────────────────────────────────────────────────────────────────


def print_report(distributor: Distributor, view: View, groups: Sequence[Group] | None) -> None:
    say(title_of(view.issue))
    wide.print(_table(view))
    for channel, filters in distributor.ledger.filters(view.issue.id).items():
        say(f"  {channel}: only subscribers with {' and '.join(f'({text})' for text in filters)}")
    for line in (*deadline_of(view), *notes_of(distributor, view)):
        say(f"  {line}")
    for state, found in reasons(distributor, view).items():
        for channel, reason, number in found[:5]:
            say(f"  {state}: {number} × {channel}: {reason}")
        if view.total.tally.planned > SMALL and found:
            say(
                f"  {state}: all of them: {hint(distributor.settings, f'log {view.issue.id} --state {state}')}"
            )
    if heard := distributor.ledger.heard(view.issue.id):
        say("  heard of them: " + ", ".join(f"{number} {kind}" for kind, number in heard.items()))
    if groups is not None:
        say()
        print_groups(groups)


def print_groups(groups: Sequence[Group]) -> None:
    keys = [key for key in ("domain", "relay") if any(getattr(group, key) is not None for group in groups)]
    rows = [
        (
            *(getattr(group, key) for key in keys),
            *(getattr(group, name) for name in GROUP_COLUMNS[:-1]),
            _rate(group.rate),
        )
        for group in groups
    ]
    print_table([*keys, *GROUP_COLUMNS], rows, numbers=GROUP_COLUMNS)


def reasons(distributor: Distributor, view: View) -> Mapping[DeliveryState, Sequence[tuple[str, str, int]]]:
    """Why deliveries failed or were skipped; of a large issue, a sample."""
    among = SMALL if view.total.tally.planned > SMALL else None
    return {
        state: distributor.ledger.why(view.issue.id, state, among=among)
        for state in (DeliveryState.FAILED, DeliveryState.SKIPPED)
    }


def facts_of(view: View) -> Mapping[str, Any]:
    """A view for programs. Times in seconds, rates a second."""
    total = view.total
    return {
        **plain(view.issue),
        "at": view.at,
        "channels": {name: _facts(line) for name, line in view.lines.items()},
        "total": _facts(total),
        "balanced": total.tally.balanced,
        "stopped_channels": view.stops,
        "awaiting": [f"{entry.issue_id}.{entry.seq}" for entry in view.awaiting],
    }


def _facts(line: Line) -> Mapping[str, Any]:
    known = {"open": line.open, "rate": line.rate, "eta": line.eta, "misses": line.misses}
    return {**plain(line.tally), "balanced": line.tally.balanced, **known}


def print_facts(distributor: Distributor, view: View, groups: Sequence[Group] | None) -> None:
    more = {} if groups is None else {"groups": groups}
    why = {str(state): found for state, found in reasons(distributor, view).items()}
    decisions = distributor.ledger.ticks(view.issue.newsletter, limit=5)
    known = {
        "filters": distributor.ledger.filters(view.issue.id),
        "heard": distributor.ledger.heard(view.issue.id),
    }
    print_json({**facts_of(view), **known, "reasons": why, "scheduler": decisions, **more})


def group_keys(written: Sequence[str]) -> Sequence[GroupKey]:
    """`--by domain --by relay` and `--by domain,relay` alike."""
    known: Mapping[str, GroupKey] = {"domain": "domain", "relay": "relay"}
    words = [word.strip() for words in written for word in words.split(",")]
    if unknown := [word for word in words if word not in known]:
        raise typer.BadParameter(f"{unknown[0]!r} is none of: {', '.join(known)}", param_hint="--by")
    return [known[word] for word in dict.fromkeys(words)]


# ── again and again ──────────────────────────────────────────────────────────────────────────────────────────────

Show = Callable[[View], None]


def watch(distributor: Distributor, issue_id: int, *, as_json: bool) -> View:
    """Shows an issue until it is over, or Ctrl-C; returns how it stands then. A database that is away is waited for."""
    stop, pace = threading.Event(), Pace()
    view = look(distributor, issue_id)
    with stopping_on_signals(stop), _shown(distributor, as_json=as_json) as show:
        while True:
            pace.add(time.monotonic(), {name: line.tally for name, line in view.lines.items()})
            show(view)
            if view.over or stop.wait(LOOK_EVERY):
                return view
            view = _look_again(distributor, view, pace.rates(), stop)


def _look_again(
    distributor: Distributor, before: View, rates: Mapping[str, float], stop: threading.Event
) -> View:
    while True:
        try:
            return look(distributor, before.issue.id, rates)
        except ServiceDown:
            if stop.wait(LOOK_EVERY):
                return before


@contextmanager
def _shown(distributor: Distributor, *, as_json: bool) -> Iterator[Show]:
    """In place on a terminal; elsewhere a line each time something changed."""
    if as_json or not out.is_terminal:
        yield _Changes(distributor, as_json=as_json)
        return
    from rich.live import Live  # noqa: PLC0415 - cli/__init__.py

    with Live(auto_refresh=False) as live:
        yield lambda view: live.update(_screen(distributor, view), refresh=True)


def _screen(distributor: Distributor, view: View) -> RenderableType:
    lines = (*deadline_of(view), *notes_of(distributor, view))
    return Stack(Text(title_of(view.issue)), _table(view), *(Text(f"  {line}") for line in lines))


class _Changes:
    """Says what is new since the last call."""

    def __init__(self, distributor: Distributor, *, as_json: bool) -> None:
        self.distributor, self.as_json = distributor, as_json
        self._told: Mapping[str, object] = {}

    def __call__(self, view: View) -> None:
        notes = (state_of(view.issue), *notes_of(self.distributor, view))
        now: dict[str, object] = {"": notes, **{name: line.tally for name, line in view.lines.items()}}
        new = [key for key, what in now.items() if self._told.get(key) != what]
        self._told = now
        if self.as_json and new:
            sys.stdout.write(json.dumps(plain(facts_of(view)), ensure_ascii=False) + "\n")
            sys.stdout.flush()
        elif not self.as_json:
            for key in new:
                say(_in_a_line(view, key) if key else f"{view.at:%H:%M:%S} {' · '.join(map(str, notes))}")


def _in_a_line(view: View, channel: str) -> str:
    line = view.lines[channel]
    tally = line.tally
    parts = [
        f"{settled(tally)} of {tally.planned} settled",
        *(f"{getattr(tally, name)} {name}" for name in ("sent", "failed", "skipped", "unconfirmed")),
        f"{line.open} open",
        *([_rate(line.rate)] if line.rate is not None and line.open else []),
        *([f"ETA {_time(line.eta)}"] if line.eta is not None else []),
        *([f"{line.misses} will miss the deadline"] if line.misses else []),
    ]
    return f"{view.at:%H:%M:%S} {channel}: {' · '.join(parts)}"


def _table(view: View) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("channel")
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows_of(view):
        table.add_row(*map(str, row))
    return table
