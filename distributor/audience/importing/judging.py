"""What becomes of a line, from what is known of its address: nobody is revived, nothing is asked twice."""

from collections.abc import Mapping, MutableMapping, Sequence
from datetime import datetime
from typing import NamedTuple

from distributor.audience.importing.values import SUPPRESSING, Line, Standing, Verdict
from distributor.audience.suppressions import outweighs
from distributor.model import SubscriptionState, SuppressionReason

Key = tuple[str, str]  # channel, address


class Known(NamedTuple):
    """A subscriber, and its subscription to the newsletter where it has one (`state`)."""

    subscriber_id: int
    subscription_id: int | None = None
    state: str | None = None
    token: str = ""
    consent_at: datetime | None = None
    import_id: int | None = None


class Barred(NamedTuple):
    """Why nothing may be sent to an address, and which import said so."""

    reason: str
    import_id: int | None = None


class Judged(NamedTuple):
    """A line, what becomes of it, and what was known. `stronger`: of two reasons to send nothing, the line has the one that stands."""

    line: Line
    verdict: Verdict
    known: Known | None
    stronger: bool = False


def judge_all(
    lines: Sequence[Line],
    known: Mapping[Key, Known],
    barred: MutableMapping[Key, Barred],
    import_id: int,
) -> Sequence[Judged]:
    """Line by line, in order: what one of them brings, the next one finds."""
    brought: dict[Key, Standing] = {}
    judged = []
    for line in lines:
        key = (line.channel, line.address)
        found = known.get(key)
        if key in brought:
            found = _as_known(found, brought[key], import_id)
        bars = barred.get(key)
        plain = found is None and bars is None and line.standing is Standing.ACTIVE  # nearly all
        verdict = Verdict.ADDED if plain else judge(line, found, bars, import_id)
        if verdict is Verdict.ADDED:
            if line.standing in SUPPRESSING:
                barred[key] = Barred(SUPPRESSING[line.standing], import_id)
            else:
                brought[key] = line.standing
        stronger = bars is not None and _is_stronger(line, bars)
        if bars and stronger:
            barred[key] = bars._replace(reason=SUPPRESSING[line.standing])
        judged.append(Judged(line, verdict, found, stronger))
    return judged


def judge(line: Line, found: Known | None, barred: Barred | None, import_id: int) -> Verdict:
    """What becomes of a line."""
    if line.standing is Standing.UNCONFIRMED:
        return Verdict.OMITTED
    if barred and barred.reason == SuppressionReason.ERASED:
        return Verdict.SUPPRESSED  # the person asked to be forgotten: not even their leaving is noted
    if line.standing in SUPPRESSING:
        return _again(barred.import_id, import_id) if barred else Verdict.ADDED
    if line.standing is Standing.ACTIVE and barred:
        return Verdict.SUPPRESSED
    return _of_subscription(line, found, import_id) if found and found.state else Verdict.ADDED


def _is_stronger(line: Line, bars: Barred) -> bool:
    return line.standing in SUPPRESSING and outweighs(SUPPRESSING[line.standing], bars.reason)


def _of_subscription(line: Line, found: Known, import_id: int) -> Verdict:
    if found.state == SubscriptionState.UNSUBSCRIBED:
        return Verdict.LEFT if line.standing is Standing.ACTIVE else _again(found.import_id, import_id)
    ended = line.standing is Standing.UNSUBSCRIBED and _left_since(line, found, import_id)
    return Verdict.ENDED if ended else _again(found.import_id, import_id)


def _again(by: int | None, import_id: int) -> Verdict:
    return Verdict.DUPLICATE if by == import_id else Verdict.KNOWN


def _left_since(line: Line, found: Known, import_id: int) -> bool:
    """Whether the reader left there after what we have of them: they came with an import, or it is newer by the clock.

    Whoever signed up here after leaving there stays.
    """
    if found.import_id == import_id:
        return False
    if line.ended_at is None:
        return found.import_id is not None
    return found.consent_at is not None and line.ended_at > found.consent_at


def _as_known(found: Known | None, brought: Standing, import_id: int) -> Known:
    state = SubscriptionState.ACTIVE if brought is Standing.ACTIVE else SubscriptionState.UNSUBSCRIBED
    return Known(found.subscriber_id if found else 0, None, state, import_id=import_id)
