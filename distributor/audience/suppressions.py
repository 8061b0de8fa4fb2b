"""Addresses that must not be used."""

from typing import Any

from sqlalchemy import delete, update

from distributor.audience.store import Store
from distributor.db import insert_ignore
from distributor.errors import RequestRefused
from distributor.model import SuppressionReason
from distributor.tables import suppressions


class Suppressions(Store):
    """What nothing may be sent to."""

    def suppress(self, channel: str, address: str, reason: SuppressionReason, note: str = "") -> None:
        """From now on nothing is sent to this address. One that was erased is not written down again."""
        with self.database.write() as connection:
            kept = self._kept_spelling(connection, channel, address)
            if kept != address:
                erased = suppressions.c.reason == SuppressionReason.ERASED
                connection.execute(
                    update(suppressions).where(*_of(channel, kept), erased).values(reason=reason)
                )
                return
            row: dict[str, Any] = {"channel": channel, "address": address, "reason": reason, "note": note}
            row["created_at"] = self.database.now(connection)
            insert_ignore(self.database, suppressions, [row], connection)

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
            connection.execute(
                delete(suppressions).where(*of)
                if kept == address
                else update(suppressions).where(*of).values(reason=SuppressionReason.ERASED)
            )


def _of(channel: str, address: str) -> tuple[Any, ...]:
    return suppressions.c.channel == channel, suppressions.c.address == address
