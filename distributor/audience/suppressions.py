"""Addresses that must not be used."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, update

from distributor.audience.addresses import HASHED
from distributor.audience.store import Store
from distributor.db import insert_ignore
from distributor.errors import RequestRefused
from distributor.model import EventKind, SuppressionReason
from distributor.tables import events, suppressions

#: A reason → those that it replaces: what is heard first and what later must not matter.
WEAKER: Mapping[SuppressionReason, Sequence[SuppressionReason]] = {
    SuppressionReason.BOUNCED: (SuppressionReason.UNDELIVERABLE,),
    SuppressionReason.MANUAL: (SuppressionReason.UNDELIVERABLE,),
    SuppressionReason.COMPLAINED: (
        SuppressionReason.UNDELIVERABLE,
        SuppressionReason.BOUNCED,
        SuppressionReason.BLOCKED,
        SuppressionReason.MANUAL,
    ),
}


def outweighs(reason: SuppressionReason, other: str) -> bool:
    """Whether a reason takes the place of another one."""
    return other in WEAKER.get(reason, ())


class Suppressions(Store):
    """What nothing may be sent to."""

    def suppress(self, channel: str, address: str, reason: SuppressionReason, note: str = "") -> None:
        """From now on nothing is sent to this address. One that was erased is not written down again."""
        with self.database.write() as connection:
            kept = self._kept_spelling(connection, channel, address)
            if kept == address:
                self.suppress_within(connection, channel, address, reason, note)
                return
            weaker = suppressions.c.reason.in_([SuppressionReason.ERASED, *WEAKER.get(reason, ())])
            connection.execute(update(suppressions).where(*_of(channel, kept), weaker).values(reason=reason))

    def suppress_within(
        self, connection: Connection, channel: str, address: str, reason: SuppressionReason, note: str
    ) -> None:
        """The same within a transaction, for an address that was not erased. Of two reasons the stronger one stands."""
        row: dict[str, Any] = {"channel": channel, "address": address, "reason": reason, "note": note}
        row["created_at"] = self.database.now(connection)
        if not insert_ignore(self.database, suppressions, [row], connection):
            weaker = suppressions.c.reason.in_(WEAKER.get(reason, ()))
            connection.execute(
                update(suppressions).where(*_of(channel, address), weaker).values(reason=reason, note=note)
            )

    def unsuppress(self, channel: str, address: str) -> None:
        """The address may be used again; of one that was erased, its reader may sign up again.

        Raises RequestRefused when it is not suppressed, its reader complained, or there is no other reason than that.
        """
        with self.database.write() as connection:
            reason = self._suppression(connection, channel, address)
            if reason is None:
                raise RequestRefused(f"{address} is not suppressed")
            if reason == SuppressionReason.COMPLAINED:
                raise RequestRefused(f"{address} complained about our mail; that is final")
            if reason == SuppressionReason.ERASED:
                raise RequestRefused(
                    f"{address} was erased on request; only its reader can come back, by signing up"
                )
            kept = self._kept_spelling(connection, channel, address)
            of = _of(channel, kept)
            if kept == address:
                connection.execute(delete(suppressions).where(*of))
                self._record_lifting(connection, channel, address, reason)
            else:
                connection.execute(update(suppressions).where(*of).values(reason=SuppressionReason.ERASED))

    def lift_counted(self, connection: Connection, channel: str, address: str) -> None:
        """Failures that were counted turn out not to be too many. What an import brought was not counted here."""
        counted = suppressions.c.reason == SuppressionReason.UNDELIVERABLE
        ours = suppressions.c.import_id.is_(None)
        connection.execute(delete(suppressions).where(*_of(channel, address), counted, ours))

    def is_erased(self, connection: Connection, channel: str, address: str) -> bool:
        """Whether this is somebody who asked to be forgotten: nothing more is written down about them.

        `address` may be what is left of it: a bounce is about a delivery, and that has no other.
        """
        return address.startswith(HASHED) or self._kept_spelling(connection, channel, address) != address

    def _record_lifting(self, connection: Connection, channel: str, address: str, reason: str) -> None:
        """Failures are counted anew from here on."""
        now = self.database.now(connection)
        row = {
            "provider": "distributor",
            "provider_event_id": f"unsuppressed {channel} {address} {now.isoformat()}",
            "kind": EventKind.UNSUPPRESSED,
            "channel": channel,
            "address": address,
            "occurred_at": now,
            "received_at": now,
            "detail": f"was: {reason}",
        }
        insert_ignore(self.database, events, [row], connection)


def _of(channel: str, address: str) -> tuple[Any, ...]:
    return suppressions.c.channel == channel, suppressions.c.address == address
