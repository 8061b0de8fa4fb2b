"""Judging the canary: a bad start stops the rest of an issue before it has reached everybody."""

import logging
from datetime import UTC, datetime

from distributor.dispatch.engine import Engine
from distributor.ledger import CanaryCount
from distributor.model import Issue
from distributor.settings import Canary

log = logging.getLogger(__name__)


def judge_canaries(engine: Engine) -> list[str]:
    """Lets the rest of those issues go whose canary went well; pauses the others. Returns what a person should know."""
    told = []
    for issue in engine.ledger.with_canary():
        newsletter = engine.newsletters.get(issue.newsletter)
        rules = newsletter.canary if newsletter else Canary()
        count = engine.ledger.canary_count(issue.id)
        if fault := _fault(count, rules):
            if engine.ledger.release_held(issue.id, paused=True):
                told.append(_paused(issue, count, fault))
        elif _is_over(issue, count, rules) and engine.ledger.release_held(issue.id, paused=False):
            log.info("canary_passed issue=%s canary=%s", issue.id, count.planned)
    return told


def _fault(count: CanaryCount, rules: Canary) -> str | None:
    if count.failed > rules.largest_failed * count.planned:
        return (
            f"{count.failed} of {count.planned} failed (canary.largest_failed is {rules.largest_failed:.0%})"
        )
    if count.deferred > rules.largest_deferred * count.planned:
        return (
            f"{count.deferred} of {count.planned} were put off (canary.largest_deferred is "
            f"{rules.largest_deferred:.0%})"
        )
    return None


def _is_over(issue: Issue, count: CanaryCount, rules: Canary) -> bool:
    """All of it is settled, or it has had its time."""
    since = issue.frozen_at or issue.opened_at
    return count.settled >= count.planned or datetime.now(UTC) - since > rules.patience


def _paused(issue: Issue, count: CanaryCount, fault: str) -> str:
    return (
        f"{issue.newsletter} {issue.local_date}: issue {issue.id} is paused: its canary went badly\n"
        f"{fault}. The other recipients have not been sent anything yet; {count.settled} are settled.\n"
        f"Why: distributor log {issue.id} --state failed\n"
        f"Go on all the same: distributor resume {issue.id}     give up: distributor cancel {issue.id}"
    )
