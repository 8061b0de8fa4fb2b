"""Resend (resend.com/docs/webhooks): Standard Webhooks signatures in headers that are called svix-….

`created_at` is the event's time; the header's is that of the try, and changes with each.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook, WebhookVerificationError

from distributor.errors import ConfigError
from distributor.model import Event, EventKind, Permanence, SuppressionReason
from distributor.providers.judging import judge
from distributor.providers.reading import (
    Table,
    address,
    identifier,
    inner,
    items,
    json_of,
    moment,
    table,
    text,
    texts,
)
from distributor.providers.request import Forged, ProviderRequest

KINDS: Mapping[str, EventKind] = {
    "email.sent": EventKind.SENT,
    "email.scheduled": EventKind.QUEUED,
    "email.delivered": EventKind.DELIVERED,
    "email.delivery_delayed": EventKind.DEFERRED,
    "email.bounced": EventKind.BOUNCED,
    "email.complained": EventKind.COMPLAINED,
    "email.failed": EventKind.FAILED,
    "email.suppressed": EventKind.REJECTED,
    "email.opened": EventKind.OPENED,
    "email.clicked": EventKind.CLICKED,
}
SIGNED_HEADERS = ("id", "timestamp", "signature")


class Resend:
    """`secret`: whsec_…, as Resend shows it. Raises ConfigError when it is none."""

    def __init__(self, secret: str) -> None:
        try:
            self._webhook = Webhook(secret)
        except (ValueError, EmptyWebhookSecretError) as error:
            raise ConfigError(
                ["DISTRIBUTOR_RESEND_SECRET: expected the whsec_… that Resend shows"]
            ) from error

    def events(self, request: ProviderRequest, now: datetime) -> Sequence[Event]:
        self._verify(request)
        body = table(json_of(request.body), "the body")
        kind, data = text(body.get("type")), inner(body, "data")
        if not kind.startswith("email.") or kind == "email.received":
            return []
        said = text(inner(data, "bounce").get("message")) or text(inner(data, "failed").get("reason"))
        return [
            Event(
                provider="resend",
                event_id=identifier(request.headers["svix-id"], who),
                kind=KINDS.get(kind, EventKind.UNKNOWN),
                address=address(who),
                occurred_at=moment(body.get("created_at"), now),
                permanence=_permanence(data, kind, said, who),
                code=text(inner(data, "bounce").get("subType")),
                detail=said,
                message_id=_message_id(data),
                receipt=text(data.get("email_id")),
                mirrors=SuppressionReason.BOUNCED if kind == "email.suppressed" else None,
            )
            for who in texts(data.get("to"))
        ]

    def _verify(self, request: ProviderRequest) -> None:
        """The library takes the age of a signature from the clock: five minutes."""
        headers = {f"webhook-{name}": request.header(f"svix-{name}") for name in SIGNED_HEADERS}
        try:
            self._webhook.verify(request.body, headers, json_parse=False)
        except (WebhookVerificationError, ValueError) as error:
            # Its ValueErrors are those of a signature that is no base64, or of a body that is no UTF-8.
            raise Forged("the signature does not fit, or is too old") from error


def _permanence(data: Table, kind: str, said: str, recipient: str) -> Permanence | None:
    if kind == "email.delivery_delayed":
        return Permanence.TEMPORARY
    if kind != "email.bounced":
        return None
    permanent = text(inner(data, "bounce").get("type")) == "Permanent"
    return judge(Permanence.PERMANENT if permanent else Permanence.TEMPORARY, said, recipient)


def _message_id(data: Table) -> str:
    named = {
        text(header.get("name")).lower(): text(header.get("value")) for header in items(data.get("headers"))
    }
    return text(data.get("message_id")) or named.get("message-id", "")
