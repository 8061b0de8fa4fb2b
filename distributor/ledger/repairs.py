"""A person's choices: resend, resolve."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Connection,
    Select,
    and_,
    case,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from distributor.errors import AWAITING, RequestRefused
from distributor.ledger.rows import chunk_of, new_delivery
from distributor.ledger.tables import Tables
from distributor.ledger.values import READER, ResendRequest
from distributor.model import (
    DeliveryState,
    Issue,
    IssueState,
    Recipient,
    ResendScope,
    SkipReason,
    SubscriptionState,
)
from distributor.tables import (
    chunks,
    deliveries,
    issue_channels,
    issues,
    resends,
    subscriptions,
    suppressions,
)


class Repairs(Tables):
    """What a person puts out again, or settles by their word."""

    def resend_count(self, issue: Issue, asked: ResendRequest) -> Mapping[str, int]:
        """Channel → how many a resend of existing deliveries would reach."""
        with self.database.read() as connection:
            query = _resendable(issue, asked)
            counted = select(query.c.channel, func.count()).group_by(query.c.channel)
            return {row[0]: row[1] for row in connection.execute(counted)}

    def resend(self, issue: Issue, asked: ResendRequest, grace: timedelta) -> int:
        """Makes failed, unconfirmed, expired or (scope all) sent deliveries pending again, under a new resend number.

        A failed or unconfirmed one resumes at the part it stopped at; a sent one starts anew. Returns how many.
        """
        with self.database.write() as connection:
            self._lock(connection, issue.id)
            now = self.database.now(connection)
            found = [row.seq for row in connection.execute(select(_resendable(issue, asked)))]
            if not found:
                return 0
            resend_id = self._record_resend(connection, issue, asked, len(found), now)
            # A person who has all of a pack in hand needs all of it again.
            anew = or_(deliveries.c.state == DeliveryState.SENT, deliveries.c.code == AWAITING)
            none = literal([], deliveries.c.receipts.type)
            for start in range(0, len(found), 500):
                connection.execute(
                    update(deliveries)
                    .where(
                        deliveries.c.issue_id == issue.id, deliveries.c.seq.in_(found[start : start + 500])
                    )
                    .values(
                        state=DeliveryState.PENDING,
                        reason=None,
                        parts_sent=case((anew, 0), else_=deliveries.c.parts_sent),
                        receipts=case((anew, none), else_=deliveries.c.receipts),
                        resend=deliveries.c.resend + 1,
                        resend_id=resend_id,
                        tries=0,
                        first_try_at=None,
                        due_at=None,
                        updated_at=now,
                    )
                )
            self._reopen(connection, issue, now, grace)
            return len(found)

    def add_missing(
        self,
        issue: Issue,
        asked: ResendRequest,
        audiences: Mapping[str, Select[Any]],
        *,
        chunk: int,
        grace: timedelta,
    ) -> int:
        """Plans deliveries to those who are in the audience now and were not when it was frozen. Returns how many."""
        with self.database.write() as connection:
            self._lock(connection, issue.id)
            now = self.database.now(connection)
            found = {
                channel: connection.execute(self._missing(issue, channel, audience)).all()
                for channel, audience in audiences.items()
            }
            added = sum(len(rows) for rows in found.values())
            if not added:
                return 0
            resend_id = self._record_resend(connection, issue, asked, added, now)
            for channel, rows in found.items():
                first = self._next_seq(connection, issue.id)
                new = [
                    new_delivery(
                        issue.id,
                        first + number,
                        Recipient(channel=channel, address=row.address, subscriber_id=row.subscriber_id),
                        resend_id,
                    )
                    for number, row in enumerate(rows)
                ]
                if not new:
                    continue
                connection.execute(insert(deliveries), new)
                self._add_chunks(
                    connection, issue.id, channel, "missing", first, first + len(new) - 1, chunk, None
                )
                connection.execute(
                    update(issue_channels)
                    .where(issue_channels.c.issue_id == issue.id, issue_channels.c.channel == channel)
                    .values(planned=issue_channels.c.planned + len(new))
                )
            self._reopen(connection, issue, now, grace)
            return added

    def missing_count(self, issue: Issue, channel: str, audience: Select[Any]) -> int:
        with self.database.read() as connection:
            missing = self._missing(issue, channel, audience).subquery()
            return connection.execute(select(func.count()).select_from(missing)).scalar_one()

    def _missing(self, issue: Issue, channel: str, audience: Select[Any]) -> Select[Any]:
        who = audience.subquery("who")
        there = exists().where(
            deliveries.c.issue_id == issue.id,
            deliveries.c.channel == channel,
            deliveries.c.address == who.c.address,
        )
        return select(who.c.subscriber_id, who.c.address).where(~there).order_by(who.c.subscriber_id)

    def resolve(self, issue_id: int, seq: int, *, sent: bool, by: str) -> None:
        """Settles an unconfirmed delivery by a person's word. Raises RequestRefused when it is not unconfirmed.

        What a person had in hand and did not post has reached nobody: a resend of it starts anew.
        """
        with self.database.write() as connection:
            self._lock(connection, issue_id)
            changed = connection.execute(
                update(deliveries)
                .where(
                    deliveries.c.issue_id == issue_id,
                    deliveries.c.seq == seq,
                    deliveries.c.state == DeliveryState.UNCONFIRMED,
                )
                .values(
                    state=DeliveryState.SENT if sent else DeliveryState.FAILED,
                    parts_sent=deliveries.c.parts_sent
                    if sent
                    else case((deliveries.c.code == AWAITING, 0), else_=deliveries.c.parts_sent),
                    code="resolved",
                    text=f"{by} says it was {'sent' if sent else 'not sent'}",
                    updated_at=self.database.now(connection),
                )
            ).rowcount
            if not changed:
                raise RequestRefused(
                    f"delivery {issue_id}.{seq} is not unconfirmed; "
                    f"`distributor log {issue_id} --state unconfirmed` lists those that are"
                )
            self._recount(connection, chunk_of(issue_id, seq))

    def asked_at(self, resend_id: int) -> datetime:
        """When a resend was asked for."""
        with self.database.read() as connection:
            asked: datetime = connection.execute(
                select(resends.c.asked_at).where(resends.c.id == resend_id)
            ).scalar_one()
            return asked

    def resends_by_persons(self, issue_ids: Collection[int]) -> Mapping[int, int]:
        """Issue → how many resends of it a person asked for; readers who wanted a copy are left out."""
        query = (
            select(resends.c.issue_id, func.count())
            .where(resends.c.issue_id.in_(issue_ids), resends.c.asked_by != READER)
            .group_by(resends.c.issue_id)
        )
        with self.database.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def _record_resend(
        self, connection: Connection, issue: Issue, asked: ResendRequest, number: int, now: datetime
    ) -> int:
        row = connection.execute(
            insert(resends)
            .values(
                issue_id=issue.id,
                scope=asked.scope,
                channel=asked.channel,
                address=asked.address,
                reason=asked.reason,
                asked_by=asked.by,
                asked_at=now,
                deliveries=number,
            )
            .returning(resends.c.id)
        )
        return int(row.scalar_one())

    def _reopen(self, connection: Connection, issue: Issue, now: datetime, grace: timedelta) -> None:
        self._recount(connection, chunks.c.issue_id == issue.id)
        connection.execute(
            update(chunks)
            .where(chunks.c.issue_id == issue.id, chunks.c.pending > 0, chunks.c.lease_token.is_(None))
            .values(due_at=now)
        )
        connection.execute(
            update(issues)
            .where(issues.c.id == issue.id)
            .values(
                state=case(
                    (issues.c.state == IssueState.OPENING, IssueState.OPENING), else_=IssueState.SENDING
                ),
                expires_at=now + grace,
                finished_at=None,
            )
        )


def _resendable(issue: Issue, asked: ResendRequest) -> Any:
    """Deliveries a resend may touch: in the right state, and neither left nor suppressed."""
    states = {
        ResendScope.FAILED: [DeliveryState.FAILED],
        ResendScope.UNCONFIRMED: [DeliveryState.UNCONFIRMED],
        ResendScope.EXPIRED: [DeliveryState.SKIPPED],
        ResendScope.ALL: [DeliveryState.FAILED, DeliveryState.UNCONFIRMED, DeliveryState.SENT],
    }[asked.scope]
    stays = exists().where(
        subscriptions.c.subscriber_id == deliveries.c.subscriber_id,
        subscriptions.c.newsletter == issue.newsletter,
        subscriptions.c.state == SubscriptionState.ACTIVE,
    )
    barred = exists().where(
        suppressions.c.channel == deliveries.c.channel, suppressions.c.address == deliveries.c.address
    )
    query = select(deliveries.c.seq, deliveries.c.channel, deliveries.c.address, deliveries.c.state).where(
        deliveries.c.issue_id == issue.id,
        deliveries.c.state.in_(states),
        or_(deliveries.c.state != DeliveryState.SKIPPED, deliveries.c.reason == SkipReason.EXPIRED),
        or_(deliveries.c.subscriber_id.is_(None), and_(stays, ~barred)),
    )
    if asked.scope is ResendScope.UNCONFIRMED and not (asked.channel or asked.address):
        # What a person has in hand is not in doubt: it is sent again when it is asked for by name.
        query = query.where(deliveries.c.code != AWAITING)
    if asked.channel:
        query = query.where(deliveries.c.channel == asked.channel)
    if asked.address:
        query = query.where(deliveries.c.address == asked.address)
    return query.subquery()
