"""Calls about what our webhooks told."""

from distributor.bootstrap import Distributor
from distributor.model import DeliveryState
from distributor.web.api.bodies import CallOut, Word
from distributor.web.api.paging import USUAL, CursorText, Listing, Page, PageSize
from distributor.webhooks import Call

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
