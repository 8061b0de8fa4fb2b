"""Resend: a person puts out again what failed, is in doubt, expired, or never reached somebody."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from distributor.audience import AudienceQuery, active
from distributor.dispatch.engine import Engine
from distributor.dispatch.opening import frozen_segments, takes_subscribers
from distributor.errors import RequestRefused
from distributor.ledger import ResendRequest
from distributor.model import Issue, IssueState, ResendScope

#: How long an issue that a person reopened may still be sent.
RESEND_GRACE = timedelta(hours=12)


@dataclass(frozen=True)
class ResendPlan:
    """Channel → deliveries a resend reaches (or, done, has reached)."""

    issue: Issue
    by_channel: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.by_channel.values())


def plan_resend(engine: Engine, issue_id: int, asked: ResendRequest) -> ResendPlan:
    """What a resend would do; changes nothing."""
    issue = engine.ledger.issue(issue_id)
    _refuse_unfit(engine, issue, asked)
    if asked.scope is ResendScope.MISSING:
        counts = {
            name: engine.ledger.missing_count(issue, name, audience)
            for name, audience in _current_audiences(engine, issue, asked).items()
        }
        return ResendPlan(issue, {name: number for name, number in counts.items() if number})
    return ResendPlan(issue, engine.ledger.resend_count(issue, asked))


def resend(engine: Engine, issue_id: int, asked: ResendRequest) -> int:
    """Makes what the request names pending again, under a new resend number and with the person's reason."""
    issue = engine.ledger.issue(issue_id)
    _refuse_unfit(engine, issue, asked)
    if asked.scope is ResendScope.MISSING:
        audiences = _current_audiences(engine, issue, asked)
        return engine.ledger.add_missing(
            issue, asked, audiences, chunk=engine.settings.chunk, grace=RESEND_GRACE
        )
    return engine.ledger.resend(issue, asked, RESEND_GRACE)


def _refuse_unfit(engine: Engine, issue: Issue, asked: ResendRequest) -> None:
    if issue.state in {IssueState.WAITING, IssueState.OPENING}:
        raise RequestRefused(f"issue {issue.id} is {issue.state}: it has not been sent yet")
    if not asked.reason.strip():
        raise RequestRefused('a resend needs a reason: --reason "why"')
    if asked.scope is ResendScope.MISSING and not engine.ledger.log(issue.id, limit=1):
        raise RequestRefused(
            f"the deliveries of issue {issue.id} are kept no more (retention): nobody can say who is missing"
        )


def _current_audiences(engine: Engine, issue: Issue, asked: ResendRequest) -> Mapping[str, AudienceQuery]:
    newsletter = engine.newsletters[issue.newsletter]
    now = datetime.now(UTC) + timedelta(seconds=1)
    segments = frozen_segments(engine, newsletter, issue)
    found = {}
    for name in newsletter.channels:
        if takes_subscribers(newsletter, name) and asked.channel in {None, name}:
            found[name] = active(newsletter.slug, name, now, only=asked.address, segment=segments.get(name))
    return found
