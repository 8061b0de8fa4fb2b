"""Calls of every provider, written from its documentation and signed as it signs, with keys of our own."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import cache
from typing import Any, Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.x509.oid import NameOID
from standardwebhooks.webhooks import Webhook

from distributor.providers import Provider, ProviderRequest, load_providers
from distributor.settings import EventsSettings

TOPIC = "arn:aws:sns:eu-west-1:123456789012:bounces"
CERTIFICATE = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123abcd.pem"
ALIYUN_CERTIFICATE = "https://cn-hangzhou-eventbridge.oss-accelerate.aliyuncs.com/x509_public_certificate.pem"
ALIYUN_URL = "https://news.example.com/events/aliyun"
SECRET = "a secret of thirty-two characters"
RESEND_SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
#: When the events of the calls happened, and when the calls come.
AT = datetime(2026, 3, 2, 7, 31, 5, tzinfo=UTC)
NAMES = ("ses", "mailgun", "sendgrid", "postmark", "resend", "aliyun", "tencent")

Call = ProviderRequest
Words = Mapping[str, Any]


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def certificate() -> bytes:
    """Self-signed: whose it is, is proven by the host it comes from."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(rsa_key().public_key())
        .serial_number(1)
        .not_valid_before(AT - timedelta(days=1))
        .not_valid_after(AT + timedelta(days=3650))
        .sign(rsa_key(), hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(autouse=True)
def resends_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of Resend's library stands at AT, for the modules that import this."""

    class Standing(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(AT.timestamp(), tz)

    monkeypatch.setattr("standardwebhooks.webhooks.datetime", Standing)


class Fetched:
    """The web, of which there is only Amazon's and Aliyun's host; it remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, url: str) -> bytes:
        self.asked.append(url)
        return certificate()


def settings() -> EventsSettings:
    verification_key = (
        ec_key()
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    shared = {name: {"secret": SECRET} for name in ("mailgun", "postmark", "aliyun", "tencent")}
    return EventsSettings.model_validate(
        {
            "providers": NAMES,
            "ses": {"topics": [TOPIC]},
            "sendgrid": {"verification_key": base64.b64encode(verification_key).decode()},
            "resend": {"secret": RESEND_SECRET},
            **shared,
        }
    )


def providers(fetched: Fetched | None = None) -> Mapping[str, Provider]:
    return load_providers(settings(), fetched or Fetched())


def body_of(words: object) -> bytes:
    return json.dumps(words).encode()


# ── SES ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def sns(envelope: Words, *, version: str = "2", **changes: Any) -> Call:
    """An SNS message. `changes` are made after it was signed; None takes a field away."""
    full = {
        "Type": "Notification",
        "MessageId": hashlib.sha256(repr(sorted(envelope.items())).encode()).hexdigest()[:32],
        "TopicArn": TOPIC,
        "Timestamp": "2026-03-02T07:31:06.000Z",
        "SignatureVersion": version,
        "SigningCertURL": CERTIFICATE,
        **envelope,
    }
    names = (
        ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
        if full["Type"] == "Notification"
        else ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
    )
    signed = "".join(f"{name}\n{full[name]}\n" for name in names if name in full)
    algorithm = hashes.SHA1() if version == "1" else hashes.SHA256()
    full["Signature"] = base64.b64encode(rsa_key().sign(signed.encode(), PKCS1v15(), algorithm)).decode()
    header = {"x-amz-sns-message-type": full["Type"]}
    full.update(changes)
    left = {name: value for name, value in full.items() if value is not None}
    return Call(headers=header, body=body_of(left))


def ses_message(
    kind: str,
    part: Words,
    *,
    message_id: str = "",
    address: str = "reader@readers.example",
    form: str = "eventType",
) -> Words:
    places = {
        "Delivery Delay": "deliveryDelay",
        "DeliveryDelay": "deliveryDelay",
        "Rendering Failure": "failure",
    }
    return {
        form: kind,
        "mail": {
            "timestamp": "2026-03-02T07:31:00.000Z",
            "messageId": "0102018e-ses-000000",
            "source": "paper@news.example.com",
            "destination": [address],
            "headersTruncated": False,
            "headers": [
                {"name": "From", "value": "paper@news.example.com"},
                {
                    "name": "Message-ID",
                    "value": message_id or "<0102018e-ses-000000@eu-west-1.amazonses.com>",
                },
            ],
        },
        places.get(kind, kind.lower()): part,
    }


def ses(kind: str, part: Words, **more: Any) -> Call:
    return sns({"Message": json.dumps(ses_message(kind, part, **more))})


def ses_bounce(
    kind: str = "Permanent",
    why: str = "General",
    said: str = "smtp; 550 5.1.1 user unknown",
    status: str = "5.1.1",
    address: str = "reader@readers.example",
    at: str = "2026-03-02T07:31:05.000Z",
    **more: Any,
) -> Call:
    who = {"emailAddress": address, "action": "failed", "status": status, "diagnosticCode": said}
    part = {
        "bounceType": kind,
        "bounceSubType": why,
        "bouncedRecipients": [who],
        "timestamp": at,
        "feedbackId": "f-1",
    }
    return ses("Bounce", part, address=address, **more)


# ── the others ───────────────────────────────────────────────────────────────────────────────────────────────────────


def mailgun(data: Words, *, token: str = "", at: datetime = AT, key: str = SECRET) -> Call:
    token = token or hashlib.sha256(repr(sorted(data.items())).encode()).hexdigest()[:50]
    stamp = str(int(at.timestamp()))
    signature = hmac.new(key.encode(), f"{stamp}{token}".encode(), hashlib.sha256).hexdigest()
    words = {
        "signature": {"timestamp": stamp, "token": token, "signature": signature},
        "event-data": {
            "id": "G9Bn5sl1TC6nu79C8C0bwg",
            "timestamp": AT.timestamp(),
            "recipient": "reader@readers.example",
            **data,
        },
    }
    return Call(headers={"content-type": "application/json"}, body=body_of(words))


def mailgun_failed(
    severity: str, reason: str = "generic", said: str = "", code: int = 550, **more: Any
) -> Call:
    status = {"code": code, "message": said, "attempt-no": 1}
    return mailgun(
        {"event": "failed", "severity": severity, "reason": reason, "delivery-status": status, **more}
    )


def sendgrid(*events: Words, at: datetime = AT, body: bytes | None = None) -> Call:
    filled = [
        {"email": "reader@readers.example", "timestamp": int(AT.timestamp()), **event} for event in events
    ]
    body = body_of(filled) if body is None else body
    stamp = str(int(at.timestamp()))
    signature = ec_key().sign(stamp.encode() + body, ec.ECDSA(hashes.SHA256()))
    return Call(
        headers={
            "x-twilio-email-event-webhook-timestamp": stamp,
            "x-twilio-email-event-webhook-signature": base64.b64encode(signature).decode(),
        },
        body=body,
    )


def postmark(words: Words, *, secret: str = SECRET) -> Call:
    return Call(headers={"content-type": "application/json"}, body=body_of(words), secret=secret)


def postmark_bounce(
    kind: str,
    said: str = "",
    number: int = 42,
    at: str = "2026-03-02T07:31:05Z",
    address: str = "reader@readers.example",
    **more: Any,
) -> Call:
    return postmark(
        {
            "RecordType": "SpamComplaint" if kind == "SpamComplaint" else "Bounce",
            "ID": number,
            "Type": kind,
            "TypeCode": 1,
            "Email": address,
            "BouncedAt": at,
            "Details": said,
            "MessageID": "883953f4-6105-42a2-a16a-77a8eac79483",
            "Inactive": True,
            **more,
        }
    )


def resend(
    kind: str,
    data: Words,
    *,
    number: str = "msg_1",
    at: datetime = AT,
    secret: str = RESEND_SECRET,
    created: datetime = AT,
) -> Call:
    """`created_at` is the event's time. Its library reads the clock, which `resends_clock` sets."""
    words = {
        "type": kind,
        "created_at": created.isoformat(),
        "data": {
            "email_id": "56761188-7520-42d8-8898-ff6fc54ce618",
            "to": ["reader@readers.example"],
            **data,
        },
    }
    body, moment = body_of(words), at
    return Call(
        headers={
            "svix-id": number,
            "svix-timestamp": str(int(moment.timestamp())),
            "svix-signature": Webhook(secret).sign(number, moment, body.decode()),
        },
        body=body,
    )


def tencent(kind: str, words: Words | None = None, *, secret: str = SECRET) -> Call:
    full = {
        "event": kind,
        "email": "reader@readers.example",
        "bulkId": "qcloudses-30-251200670-date-20260302153105-8jolHvR2XcXC1",
        "timestamp": int(AT.timestamp()),
        "username": "251200670",
        "from": "paper@news.example.com",
        **(words or {}),
    }
    return Call(headers={}, body=body_of(full), secret=secret)


def aliyun(
    kind: str,
    data: Words,
    *,
    number: str = "",
    at: datetime | None = None,
    token: str = SECRET,
    where: str = ALIYUN_CERTIFICATE,
    url: str = ALIYUN_URL,
    happened: datetime = AT,
) -> Call:
    words = {
        "id": number or hashlib.sha256(repr((kind, sorted(data.items()))).encode()).hexdigest()[:20],
        "source": "acs.dm",
        "specversion": "1.0",
        "type": kind,
        "time": happened.astimezone(timezone(timedelta(hours=8))).isoformat(),
        "data": {
            "env_id": "600000123456",
            "rcpt": "reader@readers.example",
            "from": "paper@news.example.com",
            **data,
        },
    }
    body = body_of(words)
    headers = {
        "x-eventbridge-signature-timestamp": str(int((at or AT).timestamp() * 1000)),
        "x-eventbridge-hash-method": "SHA256",
        "x-eventbridge-signature-version": "1.0",
        "x-eventbridge-signature-url": where,
        "x-eventbridge-signature-token": token,
    }
    signed = "\n".join([url, *(f"{name}: {value}" for name, value in headers.items()), ""]).encode() + body
    signature = base64.b64encode(rsa_key().sign(signed, PKCS1v15(), hashes.SHA256())).decode()
    return Call(headers={**headers, "x-eventbridge-signature-v2": signature}, body=body, url=url)


def aliyun_failed(why: str, said: str = "550 5.1.1 user unknown", **more: Any) -> Call:
    return aliyun(
        "dm:Deliver:Fail", {"status": "2", "err_code": "550", "err_msg": said, "failed_type": why, **more}
    )


def forged(call: Call) -> Sequence[Call]:
    """The same call with another body, without its proofs, and with a proof that is none."""
    bare = {name: value for name, value in call.headers.items() if "signature" not in name}
    nonsense = {
        name: "AAAA" if "signature" in name and "timestamp" not in name else value
        for name, value in call.headers.items()
    }
    other = call.body.replace(b"@readers.example", b"@victims.example")
    calls = [
        Call(headers=call.headers, body=other, url=call.url, secret="guess"),
        Call(
            headers=bare,
            body=call.body.replace(b'"signature"', b'"sign"').replace(b'"Signature"', b'"Sign"'),
            url=call.url,
            secret="",
        ),
        Call(
            headers=nonsense,
            body=call.body.replace(b'"signature": "', b'"signature": "f').replace(
                b'"Signature": "', b'"Signature": "AAAA'
            ),
            url=call.url,
            secret="\xe9",
        ),
        Call(headers={**call.headers, "authorization": "Basic !!"}, body=b"\x00", url=call.url),
    ]
    # Mailgun signs no body at all: another body under a signature that was not used yet is the one thing it lets through.
    return calls[1:] if b"event-data" in call.body else calls


# ── a story ──────────────────────────────────────────────────────────────────────────────────────────────────────────

#: What each provider tells in a story: (what, who, how many days after AT).
STORY = (
    ("delivered", "delivered", 0.0),
    ("temporary", "full", 0.0),
    ("temporary", "full", 1.0),
    ("temporary", "full", 2.0),
    ("temporary", "slow", 0.0),
    ("temporary", "slow", 1.0),
    ("delivered", "slow", 1.5),
    ("temporary", "slow", 2.0),
    ("policy", "limited", 0.0),
    ("policy", "limited", 1.0),
    ("policy", "limited", 2.0),
    ("permanent", "gone", 1.0),
    ("temporary", "gone", 0.0),
    ("complaint", "angry", 2.0),
    ("delivered", "angry", 1.0),
    ("permanent", "angry", 3.0),
)
GONE, FULL, LIMITED = "550 5.1.1 no such user", "452 4.2.2 mailbox full", "550 Domain frequency limited"


def story(name: str) -> Sequence[Call]:
    """The calls of a provider that tell it. Its signatures are as old as its events, where they have an age."""
    tell = TELLERS[name]
    return [
        tell(what, f"{who}@readers.example", AT + timedelta(days=days), number)
        for number, (what, who, days) in enumerate(STORY)
    ]


def _tell_ses(what: str, who: str, at: datetime, _number: int) -> Call:
    stamp = at.isoformat()
    if what == "delivered":
        return ses("Delivery", {"recipients": [who], "timestamp": stamp}, address=who)
    if what == "complaint":
        return ses(
            "Complaint", {"complainedRecipients": [{"emailAddress": who}], "timestamp": stamp}, address=who
        )
    said = {"permanent": GONE, "temporary": FULL, "policy": LIMITED}[what]
    kind = "Transient" if what == "temporary" else "Permanent"
    return ses_bounce(kind, said=f"smtp; {said}", status="", address=who, at=stamp)


def _tell_mailgun(what: str, who: str, at: datetime, number: int) -> Call:
    more: Words = {"recipient": who, "timestamp": at.timestamp(), "id": str(number)}
    if what in {"delivered", "complaint"}:
        return mailgun({"event": "delivered" if what == "delivered" else "complained", **more}, at=at)
    said = {"permanent": GONE, "temporary": FULL, "policy": LIMITED}[what]
    severity = "temporary" if what == "temporary" else "permanent"
    status = {"code": int(said[:3]), "message": said[4:]}
    return mailgun(
        {"event": "failed", "severity": severity, "reason": "generic", "delivery-status": status, **more},
        at=at,
    )


def _tell_sendgrid(what: str, who: str, at: datetime, number: int) -> Call:
    more: Words = {"email": who, "timestamp": int(at.timestamp()), "sg_event_id": f"event-{number}"}
    if what in {"delivered", "complaint"}:
        return sendgrid({"event": "delivered" if what == "delivered" else "spamreport", **more}, at=at)
    said = {"permanent": GONE, "temporary": FULL, "policy": LIMITED}[what]
    kind = (
        {"event": "deferred", "response": said}
        if what == "temporary"
        else {"event": "bounce", "type": "bounce", "reason": said}
    )
    return sendgrid({**kind, **more}, at=at)


def _tell_postmark(what: str, who: str, at: datetime, number: int) -> Call:
    if what == "delivered":
        return postmark(
            {
                "RecordType": "Delivery",
                "Recipient": who,
                "DeliveredAt": at.isoformat(),
                "MessageID": str(number),
            }
        )
    kinds = {
        "complaint": "SpamComplaint",
        "permanent": "HardBounce",
        "temporary": "SoftBounce",
        "policy": "HardBounce",
    }
    said = {"permanent": GONE, "temporary": FULL, "policy": LIMITED}.get(what, "")
    return postmark_bounce(kinds[what], said, number, at.isoformat(), who, MessageID=str(number))


def _tell_resend(what: str, who: str, at: datetime, number: int) -> Call:
    data: dict[str, Any] = {"to": [who], "email_id": str(number)}
    if what in {"delivered", "complaint"}:
        kind = "email.delivered" if what == "delivered" else "email.complained"
        return resend(kind, data, number=f"msg_{number}", created=at)
    said = {"permanent": GONE, "temporary": FULL, "policy": LIMITED}[what]
    data["bounce"] = {"type": "Transient" if what == "temporary" else "Permanent", "message": said}
    return resend("email.bounced", data, number=f"msg_{number}", created=at)


def _tell_aliyun(what: str, who: str, at: datetime, number: int) -> Call:
    name, now = str(number), at
    if what == "delivered":
        return aliyun("dm:Deliver:Succeed", {"rcpt": who}, number=name, at=now, happened=at)
    if what == "complaint":
        return aliyun("dm:Feedback:FblReport", {"block_email": who}, number=name, at=now, happened=at)
    why = {"permanent": "SmtpNxBox", "temporary": "SmtpMbFull", "policy": "SmtpMfdFreq"}[what]
    said = {"permanent": GONE, "temporary": FULL, "policy": LIMITED}[what]
    data = {"rcpt": who, "failed_type": why, "err_msg": said}
    return aliyun("dm:Deliver:Fail", data, number=name, at=now, happened=at)


def _tell_tencent(what: str, who: str, at: datetime, _number: int) -> Call:
    more: Words = {"email": who, "timestamp": int(at.timestamp())}
    if what in {"delivered", "complaint"}:
        return tencent("delivered" if what == "delivered" else "spamreport", more)
    said = {"permanent": GONE, "temporary": FULL, "policy": LIMITED}[what]
    return tencent(
        "bounce",
        {"reason": said, "bounceType": "soft_bounce" if what == "temporary" else "hard_bounce", **more},
    )


TELLERS: Mapping[str, Callable[[str, str, datetime, int], Call]] = {
    "ses": _tell_ses,
    "mailgun": _tell_mailgun,
    "sendgrid": _tell_sendgrid,
    "postmark": _tell_postmark,
    "resend": _tell_resend,
    "aliyun": _tell_aliyun,
    "tencent": _tell_tencent,
}
