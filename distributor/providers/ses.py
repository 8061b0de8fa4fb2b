"""Amazon SES by SNS (docs.aws.amazon.com: "Amazon SNS message signature", "Amazon SES notification contents").

SNS signs for every topic of every customer, so a signature alone proves nothing: the topic must be one of ours. The
certificate comes from Amazon's host of that topic's region; the address that confirms a subscription is built from the
topic and the token, and the one in the message is never followed.
"""

import base64
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from distributor.model import Event, EventKind, Permanence, SuppressionReason
from distributor.providers.fetching import Fetch
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
from distributor.providers.request import Forged, Malformed, ProviderRequest

SIGNED: Mapping[str, Sequence[str]] = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": (
        "Message",
        "MessageId",
        "SubscribeURL",
        "Timestamp",
        "Token",
        "TopicArn",
        "Type",
    ),
    "UnsubscribeConfirmation": (
        "Message",
        "MessageId",
        "SubscribeURL",
        "Timestamp",
        "Token",
        "TopicArn",
        "Type",
    ),
}
HASHES: Mapping[str, Callable[[], hashes.HashAlgorithm]] = {"1": hashes.SHA1, "2": hashes.SHA256}
CERTIFICATE = re.compile(r"https://(sns\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?)/[A-Za-z0-9_-]+\.pem")
TOPIC = re.compile(r"arn:(aws[a-z-]*):sns:([a-z0-9-]+):\d+:\S+")
KEPT = 8  # certificates

#: Of a bounce that SES calls transient, and of a delay: not the mailbox's fault.
OUR_FAULT = frozenset(
    {
        "MessageTooLarge",
        "ContentRejected",
        "AttachmentRejected",
        "SpamDetected",
        "IPFailure",
        "InternalFailure",
    }
)
CLAIMS: Mapping[str, Permanence] = {"Permanent": Permanence.PERMANENT}
#: SES did not try: the address is on its own list.
LISTED = frozenset({"Suppressed", "OnAccountSuppressionList"})


class Ses:
    """Both forms: notifications of an identity, and events of a configuration set."""

    def __init__(self, topics: Collection[str], fetch: Fetch) -> None:
        self._topics, self._fetch = frozenset(topics), fetch
        self._keys: dict[str, RSAPublicKey] = {}

    def events(self, request: ProviderRequest, now: datetime) -> Sequence[Event]:
        envelope = table(json_of(request.body), "the message")
        kind = text(envelope.get("Type"))
        if kind not in SIGNED or request.header("x-amz-sns-message-type") != kind:
            raise Forged("the type in the header is not that of the message")
        self._verify(envelope, kind)
        if kind == "SubscriptionConfirmation":
            self._confirm(envelope)
        if kind != "Notification":
            return []
        message = json_of(str(envelope["Message"]))
        if not isinstance(message, dict) or "mail" not in message:
            return []  # "Successfully validated SNS topic …", which is text
        return list(_events(message, text(envelope.get("MessageId")), now))

    def _verify(self, envelope: Table, kind: str) -> None:
        topic, where = str(envelope.get("TopicArn")), str(envelope.get("SigningCertURL"))
        if topic not in self._topics:
            raise Forged("the topic is none of events.ses.topics")
        found = CERTIFICATE.fullmatch(where)
        if found is None or found[1] != _host(topic):
            raise Forged("the certificate's address is not Amazon's")
        algorithm = HASHES.get(str(envelope.get("SignatureVersion")))
        if algorithm is None:
            raise Forged("the version of the signature is not known")
        signed = "".join(f"{name}\n{envelope[name]}\n" for name in SIGNED[kind] if name in envelope)
        try:
            signature = base64.b64decode(str(envelope.get("Signature")), validate=True)
            self._key(where).verify(
                signature, signed.encode("utf-8", "surrogatepass"), padding.PKCS1v15(), algorithm()
            )
        except (InvalidSignature, ValueError):
            raise Forged("the signature does not fit the message") from None

    def _key(self, where: str) -> RSAPublicKey:
        if where not in self._keys:
            try:
                key = x509.load_pem_x509_certificate(self._fetch(where)).public_key()
            except ValueError:
                raise Forged("the certificate cannot be read") from None
            if not isinstance(key, RSAPublicKey):
                raise Forged("the certificate is of another kind")
            if len(self._keys) >= KEPT:
                self._keys.clear()
            self._keys[where] = key
        return self._keys[where]

    def _confirm(self, envelope: Table) -> None:
        topic, token = str(envelope["TopicArn"]), str(envelope.get("Token"))
        asked = urlencode({"Action": "ConfirmSubscription", "TopicArn": topic, "Token": token})
        self._fetch(f"https://{_host(topic)}/?{asked}")


def _host(topic: str) -> str:
    """Amazon's host for a topic's region. Raises Forged for what is no topic."""
    found = TOPIC.fullmatch(topic)
    if found is None:
        raise Forged("the topic cannot be read")
    return f"sns.{found[2]}.amazonaws.com" + (".cn" if found[1] == "aws-cn" else "")


def _events(message: Table, sns_id: str, now: datetime) -> Iterator[Event]:
    kind = text(message.get("notificationType") or message.get("eventType"))
    mail = table(message["mail"], "mail")
    for found in READERS.get(kind, _read_other)(message, mail, kind):
        recipient = address(found.pop("to"))
        yield Event(
            provider="ses",
            event_id=identifier(sns_id, recipient),
            address=recipient,
            occurred_at=moment(found.pop("at", None) or mail.get("timestamp"), now),
            message_id=_message_id(mail),
            receipt=text(mail.get("messageId")),
            **found,
        )


def _message_id(mail: Table) -> str:
    """Ours, when SES is told to send the original headers along; it puts its own into the mail."""
    named = {
        text(header.get("name")).lower(): text(header.get("value")) for header in items(mail.get("headers"))
    }
    return named.get("message-id") or text(inner(mail, "commonHeaders").get("messageId"))


_Found = dict[str, Any]


def _read_bounce(message: Table, _mail: Table, _kind: str) -> Iterator[_Found]:
    bounce = table(message.get("bounce"), "bounce")
    why, claimed = (
        text(bounce.get("bounceSubType")),
        CLAIMS.get(text(bounce.get("bounceType")), Permanence.TEMPORARY),
    )
    for who in items(bounce.get("bouncedRecipients")):
        said = text(who.get("diagnosticCode"))
        found = {
            "to": who.get("emailAddress"),
            "at": bounce.get("timestamp"),
            "code": text(who.get("status")),
            "detail": said or why,
        }
        if why in LISTED:
            yield {
                **found,
                "kind": EventKind.REJECTED,
                "permanence": Permanence.PERMANENT,
                "mirrors": SuppressionReason.BOUNCED,
            }
        else:
            permanence = judge(
                Permanence.POLICY if why in OUR_FAULT else claimed, said, text(who.get("emailAddress"))
            )
            yield {**found, "kind": EventKind.BOUNCED, "permanence": permanence}


def _read_complaint(message: Table, _mail: Table, _kind: str) -> Iterator[_Found]:
    complaint = table(message.get("complaint"), "complaint")
    form, listed = (
        text(complaint.get("complaintFeedbackType")),
        text(complaint.get("complaintSubType")) in LISTED,
    )
    for who in items(complaint.get("complainedRecipients")):
        found = {"to": who.get("emailAddress"), "at": complaint.get("timestamp"), "detail": form}
        if listed:
            yield {**found, "kind": EventKind.REJECTED, "mirrors": SuppressionReason.COMPLAINED}
        else:  # "not-spam": the reader took it out of the spam folder
            yield {**found, "kind": EventKind.UNKNOWN if form == "not-spam" else EventKind.COMPLAINED}


def _read_delivery(message: Table, _mail: Table, _kind: str) -> Iterator[_Found]:
    delivery = table(message.get("delivery"), "delivery")
    for who in texts(delivery.get("recipients")):
        yield {
            "to": who,
            "at": delivery.get("timestamp"),
            "kind": EventKind.DELIVERED,
            "detail": text(delivery.get("smtpResponse")),
        }


def _read_delay(message: Table, _mail: Table, _kind: str) -> Iterator[_Found]:
    delay = table(message.get("deliveryDelay"), "deliveryDelay")
    why = text(delay.get("delayType"))
    for who in items(delay.get("delayedRecipients")):
        said = text(who.get("diagnosticCode"))
        claimed = Permanence.POLICY if why in OUR_FAULT else Permanence.TEMPORARY
        yield {
            "to": who.get("emailAddress"),
            "at": delay.get("timestamp"),
            "kind": EventKind.DEFERRED,
            "permanence": judge(claimed, said, text(who.get("emailAddress"))),
            "code": text(who.get("status")),
            "detail": said or why,
        }


def _read_subscription(message: Table, mail: Table, _kind: str) -> Iterator[_Found]:
    change = inner(message, "subscription")
    wanted = inner(change, "newTopicPreferences")
    left = wanted.get("unsubscribeAll") is True or any(
        topic.get("subscriptionStatus") == "OptOut" for topic in items(wanted.get("topicSubscriptionStatus"))
    )
    kind = EventKind.UNSUBSCRIBED if left else EventKind.SUBSCRIBED
    for who in texts(mail.get("destination")):
        yield {"to": who, "at": change.get("timestamp"), "kind": kind, "detail": text(change.get("source"))}


#: SES's word → ours, for what has no more to say than that it happened, and where its reason stands.
OTHERS: Mapping[str, tuple[EventKind, Permanence | None, str, str]] = {
    "Send": (EventKind.SENT, None, "send", ""),
    "Reject": (EventKind.REJECTED, Permanence.POLICY, "reject", "reason"),
    "Rendering Failure": (EventKind.FAILED, None, "failure", "errorMessage"),
    "Open": (EventKind.OPENED, None, "open", ""),
    "Click": (EventKind.CLICKED, None, "click", ""),
}


def _read_other(message: Table, mail: Table, kind: str) -> Iterator[_Found]:
    if not kind:
        raise Malformed("the message has neither notificationType nor eventType")
    ours, permanence, place, reason = OTHERS.get(kind, (EventKind.UNKNOWN, None, "", ""))
    more = inner(message, place)
    for who in texts(mail.get("destination")):
        yield {
            "to": who,
            "at": more.get("timestamp"),
            "kind": ours,
            "permanence": permanence,
            "detail": text(more.get(reason)) or kind,
        }


READERS: Mapping[str, Callable[[Table, Table, str], Iterator[_Found]]] = {
    "Bounce": _read_bounce,
    "Complaint": _read_complaint,
    "Delivery": _read_delivery,
    "DeliveryDelay": _read_delay,
    "Subscription": _read_subscription,
}
