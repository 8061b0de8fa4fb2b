"""Today's issue for one reader who asks for it: after signing up, or in a chat."""

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


def todays_issue(engine: Engine, newsletter: Newsletter) -> Issue | None:
    """The newest of the newsletter's day that goes out, or has gone."""
    day = engine.ledger.moment().astimezone(newsletter.zone).date()
    latest = engine.ledger.issues(newsletter.slug, states=OUT, limit=LATEST)
    going = (issue for issue in latest if not issue.paused and not issue.hold)
    return next((issue for issue in going if issue.local_date == day), None)


def send_today(engine: Engine, newsletter: Newsletter, channel: str, address: str, *, reason: str) -> Today:
    """Sends today's issue to one active subscriber, once, however often they ask."""
    issue = todays_issue(engine, newsletter)
    if issue is None:
        return Today.NONE
    asked = ResendRequest(
        scope=ResendScope.MISSING, channel=channel, address=address, reason=reason, by=READER
    )
    try:
        added = resend(engine, issue.id, asked)
    except RequestRefused:  # nobody can say who has it (retention), or it has been stopped meanwhile
        return Today.NONE
    if not added:
        return Today.SENT
    engine.wake(channel)
    return Today.COMES
