"""A copy of an issue for one reader who asks for it: today's after signing up, the newest in a chat (bot/latest.py)."""

from collections.abc import Iterator
from enum import StrEnum

from distributor.dispatch.engine import Engine
from distributor.dispatch.resending import resend
from distributor.errors import RequestRefused
from distributor.ledger import READER, ResendRequest
from distributor.model import Issue, IssueState, ResendScope
from distributor.settings import Newsletter

#: Of which issues a reader may have a copy: out, and stopped by nobody.
OUT = (IssueState.SENDING, IssueState.FINISHED)
#: More issues than a newsletter has on one day.
LATEST = 10


class Today(StrEnum):
    """What a reader is told."""

    COMES = "comes"  # it is on its way from now on
    SENT = "sent"  # they have it, or get it with everybody else
    NONE = "none"  # none has gone out


def newest_issues(engine: Engine, newsletter: str) -> Iterator[Issue]:
    """Those that go out, or have gone, and that nobody has stopped; the newest first."""
    latest = engine.ledger.issues(newsletter, states=OUT, limit=LATEST)
    return (issue for issue in latest if not issue.paused and not issue.hold)


def send_copy(engine: Engine, issue: Issue, channel: str, address: str, *, reason: str) -> bool:
    """Sends an issue to one active subscriber who has asked for it; False when they were meant to have it already.

    Raises RequestRefused when nobody can say who has it (retention), or it has been stopped meanwhile.
    """
    asked = ResendRequest(
        scope=ResendScope.MISSING, channel=channel, address=address, reason=reason, by=READER
    )
    if not resend(engine, issue.id, asked):
        return False
    engine.wake(channel)
    return True


def todays_issue(engine: Engine, newsletter: Newsletter) -> Issue | None:
    """The newest of the newsletter's day that goes out, or has gone."""
    day = engine.ledger.moment().astimezone(newsletter.zone).date()
    return next((issue for issue in newest_issues(engine, newsletter.slug) if issue.local_date == day), None)


def send_today(engine: Engine, newsletter: Newsletter, channel: str, address: str, *, reason: str) -> Today:
    """Sends today's issue to one active subscriber, once, however often they ask."""
    issue = todays_issue(engine, newsletter)
    if issue is None:
        return Today.NONE
    try:
        return Today.COMES if send_copy(engine, issue, channel, address, reason=reason) else Today.SENT
    except RequestRefused:
        return Today.NONE
