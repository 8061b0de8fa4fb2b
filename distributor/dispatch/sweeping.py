"""Sweeping: whatever was left lying is taken up again. Any process may do it at any time, several at once."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from distributor.dispatch.canary import judge_canaries
from distributor.dispatch.engine import Engine, Policy
from distributor.dispatch.opening import write_audience
from distributor.dispatch.reconciling import hold_if_set_back
from distributor.errors import RequestRefused
from distributor.journal import JournalBroken, Journals, Record
from distributor.ledger import Lapsed
from distributor.model import Issue, IssueState, SkipReason
from distributor.sentlog import SentLogBroken

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What a sweep found. `troubles` are for the operator: what, where, what to do."""

    finished: Sequence[Issue] = ()
    expired: Sequence[Issue] = ()
    recovered: int = 0
    due: Mapping[str, int] = field(default_factory=dict)
    troubles: Sequence[str] = ()


def sweep(engine: Engine) -> Swept:
    """Takes over lost leases, goes on with what was being opened, expires stale news, closes what is finished.

    Each step is a conditional change of the database.
    """
    ledger = engine.ledger
    recovered, troubles = take_over(engine)
    troubles += _look_for_set_backs(engine)
    troubles += judge_canaries(engine)
    for identity, who in ledger.proven_late():
        ledger.prove_sent(identity, who)
    ledger.approve_overdue()
    finished = list(ledger.close_finished())  # first: what is all settled has not expired
    expired = ledger.overdue()
    for issue in expired:
        ledger.stop_issue(issue.id, IssueState.EXPIRED, SkipReason.EXPIRED)
    for issue in ledger.left_pending():
        ledger.stop_issue(issue.id, issue.state, SkipReason(issue.state))
    for issue in ledger.issues(states=[IssueState.OPENING]):
        try:
            write_audience(engine, issue, troubles.append)
        except (KeyError, RequestRefused):
            # Its newsletter or a channel has left the configuration: the other issues must not wait for that.
            log.exception("opening_failed issue=%s newsletter=%s", issue.id, issue.newsletter)
    finished += ledger.close_finished()
    return Swept(
        finished=finished,
        expired=expired,
        recovered=recovered,
        due=ledger.due_channels(),
        troubles=troubles,
    )


def _look_for_set_backs(engine: Engine) -> list[str]:
    going = engine.ledger.issues(states=[IssueState.OPENING, IssueState.SENDING])
    found = []
    for issue in going:
        try:
            told = hold_if_set_back(engine, issue)
        except SentLogBroken as error:
            told = str(error)
        found += [told] if told else []
    return found


def take_over(engine: Engine) -> tuple[int, list[str]]:
    """Takes back the chunks of workers that stopped answering, with what their journals tell.

    A worker of this host whose process has ended is taken over at once: its journal is locked by nobody. Returns how
    many chunks, and what a person should know.
    """
    troubles: list[str] = []
    journals = _usable(engine.journals, troubles)
    dead = journals.abandoned() if journals else ()
    lapsed = engine.ledger.lapsed(journals.host if journals else None, dead, engine.settings.lease)
    for lease in lapsed:
        known = _read(journals, lease, troubles)
        outcomes = engine.ledger.recover(
            lease, known, resend=_policy(engine, lease).on_unconfirmed == "resend"
        )
        if engine.sent_log:
            engine.sent_log.append(engine.ledger.issue(lease.chunk.issue_id), outcomes)
        doubtful = sum(outcome.code == "lease" for outcome in outcomes)
        log.warning(
            "lease_taken_over chunk=%s issue=%s channel=%s in_doubt=%s",
            lease.chunk.id,
            lease.chunk.issue_id,
            lease.chunk.channel,
            doubtful,
        )
    if journals:
        _fold_leftovers(engine, journals, troubles)
    return len(lapsed), troubles


def _usable(journals: Journals | None, troubles: list[str]) -> Journals | None:
    """The journals, if their folder is there; without it the leases of this host wait as those of another do."""
    try:
        return journals if journals and journals.host else None
    except JournalBroken as error:
        troubles.append(str(error))
        return None


def _policy(engine: Engine, lease: Lapsed) -> Policy:
    """The channel may have left the configuration meanwhile."""
    return engine.policies.get(lease.chunk.channel, Policy())


def _read(journals: Journals | None, lease: Lapsed, troubles: list[str]) -> Mapping[int, Record] | None:
    """Number of a delivery → what the lease's holder noted of it; None when nobody can tell."""
    if journals is None or lease.host is None or lease.host != journals.host:
        return None
    try:
        records = journals.read(lease.chunk.token)
    except JournalBroken as error:
        troubles.append(
            f"{error}\nWhat its worker had in hand is unconfirmed; the file is kept for you to look at."
        )
        journals.set_aside(lease.chunk.token)
        return None
    return None if records is None else {record.identity.seq: record for record in records}


def _fold_leftovers(engine: Engine, journals: Journals, troubles: list[str]) -> None:
    """Journals without a process and without a lease: what they prove is written, then they go."""
    tokens = journals.abandoned()
    held = engine.ledger.leased(tokens)
    for token in tokens:
        if token in held:
            continue
        try:
            settled = engine.ledger.settle_late(journals.read(token) or (), engine.worker)
        except JournalBroken as error:
            troubles.append(f"{error}\nThe file is kept for you to look at.")
            journals.set_aside(token)
            continue
        if settled:
            log.info("journal_found token=%s settled=%s", token, settled)
        journals.discard(token)
