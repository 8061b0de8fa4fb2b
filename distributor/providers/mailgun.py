"""Mailgun (documentation.mailgun.com: "Webhooks", "Securing webhooks", "Event structure").

Its signature covers a time and a token and nothing else: whoever has seen one could put any body under it. So the token
is the event's id, and works once.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from distributor.model import Event, EventKind, Permanence, SuppressionReason
from distributor.providers.judging import judge
from distributor.providers.reading import Table, address, identifier, inner, json_of, moment, table, text
from distributor.providers.request import Forged, ProviderRequest, require_same

KINDS: Mapping[str, EventKind] = {
    "accepted": EventKind.QUEUED,
    "delivered": EventKind.DELIVERED,
    "opened": EventKind.OPENED,
    "clicked": EventKind.CLICKED,
    "complained": EventKind.COMPLAINED,
    "unsubscribed": EventKind.UNSUBSCRIBED,
    "rejected": EventKind.REJECTED,
}
#: The reasons of a failure that Mailgun's own lists are.
LISTED: Mapping[str, SuppressionReason] = {
    "suppress-bounce": SuppressionReason.BOUNCED,
    "suppress-complaint": SuppressionReason.COMPLAINED,
}


class Mailgun:
    """`oldest`: the age at which a signature is refused."""

    def __init__(self, signing_key: str, oldest: timedelta) -> None:
        self._key, self._oldest = signing_key.encode(), oldest

    def events(self, request: ProviderRequest, now: datetime) -> Sequence[Event]:
        body = table(json_of(request.body), "the body")
        token = self._verify(inner(body, "signature"), now)
        data = table(body.get("event-data"), "event-data")
        recipient = address(data.get("recipient"))
        kind, permanence, mirrors = _meaning(data, recipient)
        headers = inner(inner(data, "message"), "headers")
        return [
            Event(
                provider="mailgun",
                event_id=identifier(token),
                kind=kind,
                address=recipient,
                occurred_at=moment(data.get("timestamp"), now),
                permanence=permanence,
                code=_code(inner(data, "delivery-status")),
                detail=_said(data) or text(data.get("reason")),
                message_id=text(headers.get("message-id")),
                mirrors=mirrors,
            )
        ]

    def _verify(self, signature: Table, now: datetime) -> str:
        written, token = text(signature.get("timestamp")), text(signature.get("token"))
        expected = hmac.new(self._key, f"{written}{token}".encode(), hashlib.sha256).hexdigest()
        require_same(text(signature.get("signature")), expected, "the signature")
        if not token or now - moment(written, now) > self._oldest:
            raise Forged("the signature is too old")
        return token


def _meaning(data: Table, recipient: str) -> tuple[EventKind, Permanence | None, SuppressionReason | None]:
    kind, reason = text(data.get("event")), text(data.get("reason"))
    if kind == "rejected":
        return EventKind.REJECTED, Permanence.POLICY, None
    if kind != "failed":
        return KINDS.get(kind, EventKind.UNKNOWN), None, None
    if reason == "suppress-unsubscribe":
        return EventKind.UNSUBSCRIBED, None, None
    if reason in LISTED:
        return EventKind.REJECTED, None, LISTED[reason]
    if text(data.get("severity")) == "temporary":
        return EventKind.DEFERRED, judge(Permanence.TEMPORARY, _said(data), recipient), None
    # "old": the temporary failures lasted for too long; nobody has said that the mailbox is gone.
    claimed = Permanence.TEMPORARY if reason == "old" else Permanence.PERMANENT
    return EventKind.BOUNCED, judge(claimed, _said(data), recipient), None


def _code(status: Table) -> str:
    return text(status.get("enhanced-code")) or text(status.get("code"))


def _said(data: Table) -> str:
    status = inner(data, "delivery-status")
    said = text(status.get("message")) or text(status.get("description"))
    return text(f"{text(status.get('code'))} {said}") if said else ""
