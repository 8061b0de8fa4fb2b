"""The arithmetic of the results, and how they are printed."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Rate:
    """One way of sending: how many messages, in how many seconds from the first arrival to the last."""

    name: str
    messages: int
    per_second: float
    note: str = ""


def best(rates: Iterable[Rate]) -> Rate:
    return max(rates, key=lambda rate: rate.per_second)


def ratios(ours: float, peers: Mapping[str, float]) -> dict[str, float]:
    """Ours divided by each peer's, without the peers that sent nothing."""
    return {name: ours / theirs for name, theirs in peers.items() if theirs > 0}


def whole_seconds(histogram: Sequence[int]) -> Sequence[int]:
    """Without the last second, which has not run to its end."""
    return histogram[:-1]


def active_span(histogram: Sequence[int]) -> tuple[int, int]:
    """From the first second with an arrival to behind the last one; (0, 0) without any."""
    seconds = [second for second, number in enumerate(histogram) if number]
    return (seconds[0], seconds[-1] + 1) if seconds else (0, 0)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the standard deviation (of the population); zeros for nothing."""
    if not values:
        return 0.0, 0.0
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))


def by_tenths(histogram: Sequence[int]) -> list[float]:
    """The rate in each tenth of the time: flat, or falling?"""
    seconds = whole_seconds(histogram)
    if len(seconds) < 10:
        return []
    cuts = [round(len(seconds) * tenth / 10) for tenth in range(11)]
    return [sum(seconds[begin:end]) / (end - begin) for begin, end in pairwise(cuts)]


def allowed_by_round_trips(connections: int, delay_ms: int, trips: int) -> float:
    """Messages a second that so many connections can carry when each message takes so many round trips."""
    return connections * 1000 / (delay_ms * trips)


def length_for(target: int, small: tuple[int, int], large: tuple[int, int]) -> int:
    """The length that gives `target` bytes on the wire, from two measured pairs (length, bytes): a straight line."""
    (short, few), (long, many) = small, large
    return round(short + (target - few) * (long - short) / (many - few))


def call_difference(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Calls by command between two looks, the most frequent first; those that were not called are left out."""
    calls = {name: number - before.get(name, 0) for name, number in after.items()}
    return dict(sorted(((n, c) for n, c in calls.items() if c), key=lambda item: -item[1]))


def number(value: object) -> str:
    """For a table: thousands apart; small fractions keep three digits."""
    if not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned text: a column whose first value is a number to the right, the others to the left."""
    values = [tuple(row) for row in rows]
    right = [isinstance(value, int | float) for value in values[0]] if values else [False] * len(head)
    lines = [list(head), *([number(value) for value in row] for row in values)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_the_right else cell.ljust(width)
            for cell, width, to_the_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )
