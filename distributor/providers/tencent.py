"""Tencent Cloud SES (cloud.tencent.com/document/product/1288: "邮件通知事件", "回调地址").

Documented: one JSON object a call, its fields and its events; calls go to ports 8080, 8081 and 8082 alone. Not signed, so
the secret stands in the address. There is no id of an event: its parts make one. Not documented: whether and how often a
call is repeated, and from which addresses it comes.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from distributor.model import Event, EventKind, Permanence
from distributor.providers.judging import judge
from distributor.providers.reading import Table, address, identifier, json_of, moment, table, text
from distributor.providers.request import ProviderRequest, require_secret

KINDS: Mapping[str, EventKind] = {
    "processed": EventKind.QUEUED,
    "deferred": EventKind.DEFERRED,
    "delivered": EventKind.DELIVERED,
    "dropped": EventKind.REJECTED,
    "bounce": EventKind.BOUNCED,
    "open": EventKind.OPENED,
    "click": EventKind.CLICKED,
    "spamreport": EventKind.COMPLAINED,
    "unsubscribe": EventKind.UNSUBSCRIBED,
}
#: Old and new spelling.
HARD = frozenset({"hard", "hard_bounce"})


class Tencent:
    """`secret`: the last step of the address."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def events(self, request: ProviderRequest, now: datetime) -> Sequence[Event]:
        require_secret(request, self._secret)
        body = table(json_of(request.body), "the body")
        recipient, kind = address(body.get("email")), text(body.get("event"))
        mail = text(body.get("bulkId")) or text(body.get("bulkid"))
        return [
            Event(
                provider="tencent",
                event_id=identifier(kind, mail or body.get("messageId"), recipient, body.get("timestamp")),
                kind=KINDS.get(kind, EventKind.UNKNOWN),
                address=recipient,
                occurred_at=moment(body.get("timestamp"), now),
                permanence=_permanence(body, kind, recipient),
                detail=text(body.get("reason")),
                message_id=text(body.get("messageId")),
                receipt=mail,
            )
        ]


def _permanence(body: Table, kind: str, recipient: str) -> Permanence | None:
    said = text(body.get("reason"))
    if kind == "bounce":
        hard = text(body.get("bounceType")) in HARD
        return judge(Permanence.PERMANENT if hard else Permanence.TEMPORARY, said, recipient)
    if kind == "deferred":
        return judge(Permanence.TEMPORARY, said, recipient)
    # Why a mail is dropped is told in words alone, which are not documented: nobody is suppressed for it.
    return Permanence.POLICY if kind == "dropped" else None
