"""A database that was set back in time has forgotten what was sent: its issues wait until they are reconciled."""

import logging
from collections.abc import Iterator, Sequence
from itertools import islice

from distributor.dispatch.engine import Engine
from distributor.errors import RequestRefused
from distributor.model import Issue
from distributor.sentlog import Handed

log = logging.getLogger(__name__)

#: Lines of the sent log that are written into the ledger in one transaction.
BATCH = 5_000


def hold_if_set_back(engine: Engine, issue: Issue) -> str | None:
    """Holds an issue that would be sent again to somebody who has it; returns what to tell the operator, once."""
    if engine.sent_log is None or issue.hold:
        return None
    forgotten = engine.ledger.forgot(issue, engine.sent_log.ends(issue))
    if not forgotten:
        return None
    why = (
        f"issue {issue.id} ({issue.slug}): the database has forgotten deliveries that the sent log in "
        f"{engine.sent_log.folder} knows, as after a fail-over or a restored backup. Nothing more of it is sent. "
        f"Run on every host that sends: distributor reconcile {issue.id}"
    )
    if not engine.ledger.hold(issue.id, why):
        return None
    log.error("issue_held issue=%s forgotten=%s", issue.id, forgotten)
    return why


def reconcile(engine: Engine, issue_id: int, *, keep_held: bool) -> int:
    """Writes into the ledger what this host's sent log knows; then the issue goes on, unless `keep_held`.

    Returns how many deliveries were put right. Raises RequestRefused without a sent log, and while workers are at it.
    """
    if engine.sent_log is None:
        raise RequestRefused("there is no sent log here: engine.journal is empty")
    issue = engine.ledger.issue(issue_id)
    done = sum(engine.ledger.reconcile(issue, batch) for batch in _batches(engine.sent_log.all(issue)))
    if issue.hold and not keep_held:
        engine.ledger.release_hold(issue_id)
    return done


def _batches(handed: Iterator[Handed]) -> Iterator[Sequence[Handed]]:
    while batch := list(islice(handed, BATCH)):
        yield batch
