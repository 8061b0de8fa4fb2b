"""SendGrid's Event Webhook (docs.sendgrid.com: "Event Webhook Reference", "… Security Features"): ECDSA over time and body."""

import base64
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from distributor.errors import ConfigError
from distributor.model import Event, EventKind, Permanence, SuppressionReason
from distributor.providers.judging import judge
from distributor.providers.reading import Table, address, identifier, items, json_of, moment, text
from distributor.providers.request import Forged, Malformed, ProviderRequest

log = logging.getLogger(__name__)

SIGNATURE = "x-twilio-email-event-webhook-signature"
TIMESTAMP = "x-twilio-email-event-webhook-timestamp"

KINDS: Mapping[str, EventKind] = {
    "processed": EventKind.QUEUED,
    "dropped": EventKind.REJECTED,
    "delivered": EventKind.DELIVERED,
    "deferred": EventKind.DEFERRED,
    "bounce": EventKind.BOUNCED,
    "open": EventKind.OPENED,
    "click": EventKind.CLICKED,
    "spamreport": EventKind.COMPLAINED,
    "unsubscribe": EventKind.UNSUBSCRIBED,
    "group_unsubscribe": EventKind.UNSUBSCRIBED,
    "group_resubscribe": EventKind.SUBSCRIBED,
}
#: The reasons of "dropped" that SendGrid's own lists are.
LISTED: Mapping[str, SuppressionReason] = {
    "bounced address": SuppressionReason.BOUNCED,
    "invalid": SuppressionReason.BOUNCED,
    "spam reporting address": SuppressionReason.COMPLAINED,
}


class Sendgrid:
    """`verification_key`: base64, as SendGrid shows it. Raises ConfigError when it is none."""

    def __init__(self, verification_key: str, oldest: timedelta) -> None:
        self._key, self._oldest = _public_key(verification_key), oldest

    def events(self, request: ProviderRequest, now: datetime) -> Sequence[Event]:
        self._verify(request, now)
        body = json_of(request.body)
        if not isinstance(body, list):
            raise Malformed("the body is not an array")
        return _readable(items(body), now)

    def _verify(self, request: ProviderRequest, now: datetime) -> None:
        written = request.header(TIMESTAMP)
        try:
            signature = base64.b64decode(request.header(SIGNATURE), validate=True)
            self._key.verify(signature, written.encode() + request.body, ECDSA(SHA256()))
        except (InvalidSignature, ValueError):
            raise Forged("the signature does not fit the body") from None
        if now - moment(written, now) > self._oldest:
            raise Forged("the signature is too old")


def _readable(found: Iterable[Table], now: datetime) -> Sequence[Event]:
    """One that cannot be read does not take the others with it. Raises Malformed when none can."""
    events: list[Event] = []
    troubles: list[Malformed] = []
    for item in found:
        try:
            events.append(_event(item, now))
        except Malformed as error:
            log.warning("event_left_out provider=sendgrid why=%s", error)
            troubles.append(error)
    if troubles and not events:
        raise troubles[0]
    return events


def _public_key(written: str) -> EllipticCurvePublicKey:
    try:
        key = load_der_public_key(base64.b64decode(written, validate=True))
    except ValueError:
        key = None
    if not isinstance(key, EllipticCurvePublicKey):
        raise ConfigError(
            ["events.sendgrid.verification_key: expected the key that SendGrid shows for signed webhooks"]
        )
    return key


def _event(item: Table, now: datetime) -> Event:
    recipient, kind = address(item.get("email")), KINDS.get(text(item.get("event")), EventKind.UNKNOWN)
    reason = text(item.get("reason")) or text(item.get("response"))
    mirrors = LISTED.get(reason.lower()) if kind is EventKind.REJECTED else None
    if kind is EventKind.REJECTED and reason.lower() == "unsubscribed address":
        kind = EventKind.UNSUBSCRIBED
    return Event(
        provider="sendgrid",
        event_id=identifier(item.get("sg_event_id"))
        or identifier(item.get("event"), recipient, item.get("timestamp")),
        kind=kind,
        address=recipient,
        occurred_at=moment(item.get("timestamp"), now),
        permanence=_permanence(item, kind, reason, recipient),
        code=text(item.get("status")),
        detail=reason,
        message_id=text(item.get("smtp-id")),
        receipt=text(item.get("sg_message_id")).partition(".filter")[0].partition(".recvd")[0],
        mirrors=mirrors,
    )


def _permanence(item: Table, kind: EventKind, reason: str, recipient: str) -> Permanence | None:
    said = f"{text(item.get('status'))} {reason}".strip()
    if kind is EventKind.BOUNCED:
        # "blocked": refused for now, or for what we are; SendGrid does not put the address on its list.
        claimed = Permanence.TEMPORARY if item.get("type") == "blocked" else Permanence.PERMANENT
        return judge(claimed, said, recipient)
    return judge(Permanence.TEMPORARY, said, recipient) if kind is EventKind.DEFERRED else None
