"""Sink and ledger side by side: what was lost, doubled, in doubt, or told wrongly."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .world import Row, World

Arrivals = Mapping[str, tuple[int, int, int, list[str]]]
NOTHING = (0, 0, 0, list[str]())
#: States in which a delivery may be left; the first two have been tried for certain.
SETTLED = ("sent", "failed", "skipped", "unconfirmed")
COLUMNS = (
    "scenario", "policy", "planned", "sent", "failed", "unconfirmed", "arrived", "lost", "duplicated", "wrong",
    "kills", "hits", "open", "allowed", "seconds",
)  # fmt: skip


@dataclass
class Result:
    """How a scenario ended."""

    scenario: str
    policy: str
    seed: int
    planned: int
    sent: int = 0
    failed: int = 0
    unconfirmed: int = 0
    #: Of the unconfirmed: the sink has them.
    arrived: int = 0
    lost: int = 0
    duplicated: int = 0
    #: The state says what the sink denies.
    wrong: int = 0
    kills: int = 0
    hits: int = 0
    open: int = 0
    #: So many may be unconfirmed (policy hold) or doubled (policy resend).
    allowed: int = 0
    seconds: float = 0.0
    sink: Mapping[str, int] = field(default_factory=dict)
    #: What a scenario says of itself.
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def count(world: World, scenario: str, *, needs_hit: bool) -> Result:
    """Counts when everything is over."""
    rows, arrivals = world.rows(), world.sink.readers()
    states = Counter(row.state for row in rows.values())
    toll, totals = world.toll, world.sink.ask()
    cut = sum(totals.get(name, 0) for name in ("drop", "nonsense", "hang", "dropped_before"))
    result = Result(
        scenario=scenario,
        policy=world.setup.on_unconfirmed,
        seed=world.seed,
        planned=world.setup.readers,
        sent=states["sent"],
        failed=states["failed"],
        unconfirmed=states["unconfirmed"],
        arrived=len([a for a, row in rows.items() if row.state == "unconfirmed" and got(arrivals, a)]),
        kills=toll.kills,
        hits=toll.hits,
        open=toll.open,
        allowed=toll.allowed + cut,
        sink=totals,
        notes=world.notes,
    )
    _judge_rows(result, world, rows, arrivals)
    _judge_bounds(result, needs_hit)
    _judge_books(result, world, rows)
    return result


def got(arrivals: Arrivals, address: str) -> int:
    """How many messages are there for this recipient, whether their sender was told or not."""
    accepted, unanswered, *_ = arrivals.get(address, NOTHING)
    return accepted + unanswered


def _judge_rows(result: Result, world: World, rows: Mapping[str, Row], arrivals: Arrivals) -> None:
    everybody = {f"reader-{number}@d{number % 20}.example" for number in range(1, world.setup.readers + 1)}
    missing = sorted(everybody - set(rows))
    open_ = sorted(address for address, row in rows.items() if row.state not in SETTLED)
    unsent = sorted(a for a, row in rows.items() if row.state == "sent" and not got(arrivals, a))
    there = sorted(a for a, row in rows.items() if row.state in {"failed", "skipped"} and got(arrivals, a))
    double = sorted(address for address in arrivals if got(arrivals, address) > 1)
    strange = sorted(a for a, each in arrivals.items() if len(set(each[3])) > 1)
    result.lost = len(missing) + len(open_) + len(unsent)
    result.duplicated, result.wrong = len(double), len(unsent) + len(there)
    for what, which in (
        ("without a delivery", missing),
        ("open at the end", open_),
        ("sent by the ledger, not at the sink", unsent),
        ("refused by the ledger, at the sink", there),
        ("with two Message-IDs", strange),
        ("beyond the audience", sorted(set(arrivals) - everybody)),
    ):
        _tell(result, what, which, rows, arrivals)
    if result.policy == "hold":
        _tell(result, "doubled", double, rows, arrivals)


def _judge_bounds(result: Result, needs_hit: bool) -> None:
    doubtful = result.unconfirmed if result.policy == "hold" else result.duplicated
    if doubtful > result.allowed:
        result.problems.append(f"{doubtful} in doubt or doubled, {result.allowed} allowed")
    if result.policy == "resend" and result.unconfirmed:
        result.problems.append(f"{result.unconfirmed} unconfirmed although the policy is to resend")
    if needs_hit and not result.hits:
        result.problems.append(f"none of {result.kills} kills found a message open: this run proves nothing")


def _judge_books(result: Result, world: World, rows: Mapping[str, Row]) -> None:
    untold = sorted(a for a, row in rows.items() if row.state in SETTLED[:2] and not row.logged)
    miscounted = sorted(a for a, row in rows.items() if row.logged != row.attempts)
    _tell(result, "tried without an attempt", untold, rows, {})
    _tell(result, "whose attempts are not as many as counted", miscounted, rows, {})
    if wrong := world.wrong_chunks():
        result.problems.append(f"{len(wrong)} chunks whose counters are not their rows, such as {wrong[0]}")
    if left := world.journals():
        result.problems.append(f"{len(left)} journals left, such as {left[0]}")
    result.problems += [*world.problems, *world.unexpected()]


def _tell(
    result: Result, what: str, which: Sequence[str], rows: Mapping[str, Row], arrivals: Arrivals
) -> None:
    if which:
        first = which[0]
        result.problems.append(
            f"{len(which)} {what}, such as {first}: {rows.get(first)}, at the sink {arrivals.get(first, NOTHING)[:3]}"
        )


def table(results: Sequence[Result]) -> str:
    """One line a scenario, and its notes and problems under it."""
    lines = [[*map(_cell, (getattr(result, name) for name in COLUMNS))] for result in results]
    widths = [max(map(len, column)) for column in zip(COLUMNS, *lines, strict=True)]
    shown = ["  ".join(name.rjust(width) for name, width in zip(COLUMNS, widths, strict=True))]
    for line, result in zip(lines, results, strict=True):
        shown.append("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
        shown += [f"    · {note}" for note in result.notes]
        shown += [f"    ! {problem}" for problem in result.problems]
    return "\n".join(shown)


def _cell(value: object) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value)
