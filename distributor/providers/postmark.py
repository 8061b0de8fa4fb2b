"""Postmark (postmarkapp.com/developer/webhooks): not signed; proven by basic authentication or the secret in the address."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from distributor.model import Event, EventKind, Permanence, SuppressionReason
from distributor.providers.judging import judge
from distributor.providers.reading import Table, address, identifier, json_of, moment, table, text
from distributor.providers.request import ProviderRequest, require_secret

#: A bounce's type → what it is. SpamNotification is a complaint; the others of its kind are no bounces at all.
TYPES: Mapping[str, tuple[EventKind, Permanence | None]] = {
    "HardBounce": (EventKind.BOUNCED, Permanence.PERMANENT),
    "BadEmailAddress": (EventKind.BOUNCED, Permanence.PERMANENT),
    "Transient": (EventKind.DEFERRED, Permanence.TEMPORARY),
    "SoftBounce": (EventKind.BOUNCED, Permanence.TEMPORARY),
    "DnsError": (EventKind.BOUNCED, Permanence.TEMPORARY),
    "Unknown": (EventKind.BOUNCED, Permanence.TEMPORARY),
    "Blocked": (EventKind.BOUNCED, Permanence.POLICY),
    "DMARCPolicy": (EventKind.BOUNCED, Permanence.POLICY),
    "VirusNotification": (EventKind.BOUNCED, Permanence.POLICY),
    "SpamNotification": (EventKind.COMPLAINED, None),
    "SpamComplaint": (EventKind.COMPLAINED, None),
    "Unsubscribe": (EventKind.UNSUBSCRIBED, None),
    "Subscribe": (EventKind.SUBSCRIBED, None),
    "AutoResponder": (EventKind.AUTORESPONDED, None),
    "AddressChange": (EventKind.AUTORESPONDED, None),
    "ChallengeVerification": (EventKind.AUTORESPONDED, None),
    "SMTPApiError": (EventKind.FAILED, None),
    "TemplateRenderingFailed": (EventKind.FAILED, None),
}
LISTED: Mapping[str, SuppressionReason] = {
    "HardBounce": SuppressionReason.BOUNCED,
    "SpamComplaint": SuppressionReason.COMPLAINED,
}


class Postmark:
    """`secret`: the password of basic authentication, or the last step of the address."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def events(self, request: ProviderRequest, now: datetime) -> Sequence[Event]:
        require_secret(request, self._secret)
        body = table(json_of(request.body), "the body")
        return [READERS.get(text(body.get("RecordType")), _other)(body, now)]


def _event(body: Table, who: object, when: object, now: datetime, **more: Any) -> Event:
    """Only bounces and complaints have an id of their own."""
    recipient = address(who)
    return Event(
        provider="postmark",
        event_id=identifier(body.get("RecordType"), body.get("ID") or body.get("MessageID"), recipient, when),
        address=recipient,
        occurred_at=moment(when, now),
        receipt=text(body.get("MessageID")),
        **more,
    )


def _bounce(body: Table, now: datetime) -> Event:
    kind, claimed = TYPES.get(text(body.get("Type")), (EventKind.UNKNOWN, None))
    said = text(body.get("Details")) or text(body.get("Description"))
    permanence = judge(claimed, said, text(body.get("Email"))) if claimed else None
    return _event(
        body,
        body.get("Email"),
        body.get("BouncedAt"),
        now,
        kind=kind,
        permanence=permanence,
        code=text(body.get("TypeCode")),
        detail=said,
    )


def _delivery(body: Table, now: datetime) -> Event:
    detail = text(body.get("Details"))
    return _event(
        body, body.get("Recipient"), body.get("DeliveredAt"), now, kind=EventKind.DELIVERED, detail=detail
    )


def _change(body: Table, now: datetime) -> Event:
    reason = text(body.get("SuppressionReason"))
    kind = EventKind.UNSUBSCRIBED if body.get("SuppressSending") is True else EventKind.SUBSCRIBED
    mirrors = LISTED.get(reason) if kind is EventKind.UNSUBSCRIBED else None
    return _event(
        body,
        body.get("Recipient"),
        body.get("ChangedAt"),
        now,
        kind=EventKind.REJECTED if mirrors else kind,
        detail=reason,
        mirrors=mirrors,
    )


def _other(body: Table, now: datetime) -> Event:
    kind = {"Open": EventKind.OPENED, "Click": EventKind.CLICKED}.get(
        text(body.get("RecordType")), EventKind.UNKNOWN
    )
    when = body.get("ReceivedAt") or now.isoformat()
    return _event(body, body.get("Recipient") or body.get("Email"), when, now, kind=kind)


READERS: Mapping[str, Callable[[Table, datetime], Event]] = {
    "Bounce": _bounce,
    "SpamComplaint": _bounce,
    "Delivery": _delivery,
    "SubscriptionChange": _change,
}
