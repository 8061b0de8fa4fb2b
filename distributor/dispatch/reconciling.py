"""A database that was set back in time has forgotten what was sent: its issues wait until they are reconciled."""

import logging
from collections.abc import Iterator, Sequence
from itertools import islice

from distributor.dispatch.engine import Engine
from distributor.errors import RequestRefused
from distributor.model import Issue, IssueState
from distributor.sentlog import Handed, SentLog

log = logging.getLogger(__name__)

#: Lines of the sent log that are written into the ledger in one transaction.
BATCH = 5_000
#: Before all its deliveries are written down, what the sent log knows of the others could not be put right.
TOO_EARLY = frozenset({IssueState.WAITING, IssueState.OPENING})


def hold_if_set_back(engine: Engine, issue: Issue) -> str | None:
    """Holds an issue that would be sent again to somebody who has it; returns what to tell the operator, once.

    Raises SentLogBroken when nobody could tell, now or the next time.
    """
    if engine.sent_log is None or issue.hold:
        return None
    engine.sent_log.check(issue)
    forgotten = engine.ledger.forgot(issue, engine.sent_log.ends(issue))
    if not forgotten:
        return None
    why = (
        f"issue {issue.id} ({issue.slug}): the database has forgotten deliveries that the sent log in "
        f"{engine.sent_log.folder} knows, as after a fail-over or a restored backup. Nothing more of it is sent until "
        f"you run: distributor reconcile {issue.id} (where several hosts send: on each of them, with --keep-held on all "
        "but the last)"
    )
    if not engine.ledger.hold(issue.id, why):
        return None
    log.error("issue_held issue=%s forgotten=%s", issue.id, forgotten)
    return why


def reconcile(engine: Engine, issue_id: int, *, keep_held: bool) -> int:
    """Writes into the ledger what this host's sent log knows; then the issue goes on, unless `keep_held`.

    Returns how many deliveries were put right. Raises RequestRefused without a sent log, while the audience is being
    written down, and while workers are at it; SentLogBroken.
    """
    if engine.sent_log is None:
        raise RequestRefused("there is no sent log here: engine.journal is empty")
    issue = engine.ledger.issue(issue_id)
    if issue.state in TOO_EARLY:
        raise RequestRefused(
            f"issue {issue_id} is {issue.state}: not all its deliveries are written down yet; try again when it is sending"
        )
    if issue.hold or issue.paused:
        done = _reconcile(engine, engine.sent_log, issue)
    else:
        done = _reconcile_while_held(engine, engine.sent_log, issue)
    if issue.hold and not keep_held:
        engine.ledger.release_hold(issue_id)
    return done


def _reconcile_while_held(engine: Engine, sent_log: SentLog, issue: Issue) -> int:
    """Nobody must begin to send between two batches."""
    engine.ledger.hold(issue.id, f"it is being reconciled; if that was interrupted: reconcile {issue.id}")
    try:
        return _reconcile(engine, sent_log, issue)
    finally:
        engine.ledger.release_hold(issue.id)


def _reconcile(engine: Engine, sent_log: SentLog, issue: Issue) -> int:
    return sum(engine.ledger.reconcile(issue, batch) for batch in _batches(sent_log.all(issue)))


def _batches(handed: Iterator[Handed]) -> Iterator[Sequence[Handed]]:
    while batch := list(islice(handed, BATCH)):
        yield batch
