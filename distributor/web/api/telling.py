"""Calls about what was heard from outside, and what our webhooks told."""

from typing import Annotated

from fastapi import Query

from distributor.bootstrap import Distributor
from distributor.ledger import RecordedEvent
from distributor.model import DeliveryState, EventKind
from distributor.web.api.bodies import CallOut, EventOut, Word
from distributor.web.api.paging import USUAL, CursorText, Listing, Page, PageSize
from distributor.web.api.refusing import address_of
from distributor.webhooks import Call

EVENTS = Listing[RecordedEvent]("events", lambda event: (event.id,))
CALLS = Listing[Call]("webhook-calls", lambda call: (call.id,))


class WebhookCalls:
    """One method a call."""

    def __init__(self, distributor: Distributor) -> None:
        self.webhooks = distributor.caller.webhooks

    def list_webhook_calls(
        self,
        endpoint: Word = None,
        state: DeliveryState | None = None,
        cursor: CursorText = None,
        limit: PageSize = USUAL,
    ) -> Page[CallOut]:
        """List the calls of our webhooks, the newest first."""
        before = CALLS.read(cursor)
        found = self.webhooks.listing(
            endpoint=endpoint, state=state, before=before[0] if before else None, limit=limit + 1
        )
        return CALLS.page(found, limit, CallOut.model_validate)


class EventCalls:
    """One method a call."""

    def __init__(self, distributor: Distributor) -> None:
        self.ledger = distributor.ledger

    def list_events(
        self,
        address: Annotated[str | None, Query(max_length=254)] = None,
        channel: Word = None,
        newsletter: Word = None,
        kind: Annotated[tuple[EventKind, ...], Query(description="several are alternatives")] = (),
        cursor: CursorText = None,
        limit: PageSize = USUAL,
    ) -> Page[EventOut]:
        """List what was heard from outside, and who came and left, the newest first.

        `address` is of the channel `email` when none is named.
        """
        if address is not None:
            channel = channel or "email"
            address = address_of(channel, address, parameter=True)
        before = EVENTS.read(cursor)
        found = self.ledger.events(
            address=address,
            channel=channel,
            newsletter=newsletter,
            kinds=kind,
            before=before[0] if before else None,
            limit=limit + 1,
        )
        return EVENTS.page(found, limit, EventOut.model_validate)
