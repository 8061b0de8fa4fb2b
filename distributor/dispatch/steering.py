"""A person, or a program of theirs, holds an issue up, lets it go on, or ends it."""

from distributor.errors import RequestRefused
from distributor.ledger import Ledger
from distributor.model import OVER, Issue, IssueState, SkipReason


def pause(ledger: Ledger, issue_id: int) -> None:
    """Nothing more of it goes out, two seconds from now. Raises RequestRefused for an issue that is over."""
    refuse_over(ledger.issue(issue_id))
    ledger.set_paused(issue_id, paused=True)


def resume(ledger: Ledger, issue_id: int) -> None:
    """A paused issue goes on. Raises RequestRefused for one that is over, or held."""
    issue = ledger.issue(issue_id)
    refuse_over(issue)
    if issue.hold:
        raise RequestRefused(f"issue {issue_id} is held, until somebody reconciles it: {issue.hold}")
    ledger.set_paused(issue_id, paused=False)


def cancel(ledger: Ledger, issue_id: int) -> int:
    """Skips for good what is pending; returns how many. Raises RequestRefused for an issue that is over."""
    refuse_over(ledger.issue(issue_id))
    skipped = ledger.stop_issue(issue_id, IssueState.CANCELLED, SkipReason.CANCELLED)
    issue = ledger.issue(issue_id)
    if issue.state is not IssueState.CANCELLED:  # it ended by itself just now
        refuse_over(issue)
    return skipped


def refuse_over(issue: Issue) -> None:
    """Raises RequestRefused for an issue that is over."""
    if issue.state in OVER:
        raise RequestRefused(f"issue {issue.id} is {issue.state} already")
