"""Aliyun DirectMail by EventBridge (help.aliyun.com/zh/eventbridge: "签名算法", "邮件推送事件").

Documented: CloudEvents with `data`, their types, and a signature: RSA-SHA256, base64 in x-eventbridge-signature-v2, with
a key from https://<region>-eventbridge.oss-accelerate.aliyuncs.com, over the address, the signature's headers and the
body, each behind a line end; 60 seconds old at most. EventBridge signs for every customer, so the token of our rule
(x-eventbridge-signature-token) is asked for as well. The order of the headers in what is signed is documented for the
version before (HMAC-SHA1); that of version 2, with `hash-method` in the place of `method`, is what receivers in use
agree on, and not confirmed by a call of Aliyun's own.
Not documented: what each `failed_type` means; those below are named by its console and by receivers in use.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from distributor.model import Event, EventKind, Permanence, SuppressionReason
from distributor.providers.fetching import Fetch
from distributor.providers.judging import judge
from distributor.providers.reading import Table, address, identifier, inner, json_of, moment, table, text
from distributor.providers.request import Forged, ProviderRequest, require_same

STEM = "x-eventbridge-"
SIGNED = ("signature-timestamp", "hash-method", "signature-version", "signature-url", "signature-token")
OLDEST = timedelta(seconds=60)
CERTIFICATE = re.compile(r"https://[a-z0-9-]+-eventbridge\.oss-accelerate\.aliyuncs\.com/[A-Za-z0-9_./-]+")
KEPT = 8  # keys
#: Times in `data` name no zone.
BEIJING = timezone(timedelta(hours=8))

KINDS: Mapping[str, EventKind] = {
    "dm:Deliver:Succeed": EventKind.DELIVERED,
    "dm:Deliver:Fail": EventKind.BOUNCED,
    "dm:Feedback:FblReport": EventKind.COMPLAINED,
    "dm:Feedback:UnSubscribe": EventKind.UNSUBSCRIBED,
    "dm:Feedback:Subscribe": EventKind.SUBSCRIBED,
    "dm:Trace:Open": EventKind.OPENED,
    "dm:Trace:Click": EventKind.CLICKED,
}
#: `failed_type`: no such mailbox.
GONE = frozenset({"SmtpNxBox", "SysOutInvRcpt", "SysIncomingInvRcpt"})
#: Reputation, content, pace: ours.
OURS = re.compile(r"Smtp\w*(Spam|Freq|Limit|Spf|Dma|AuthFail|MfBad|Dbl)\w*")
#: Aliyun did not try: its own list has the address.
LISTED: Mapping[str, SuppressionReason] = {
    "SysOutRcptOnAccountLevelBounceList": SuppressionReason.BOUNCED,
    "SysOutRecipientReportedSpam": SuppressionReason.COMPLAINED,
}


class Aliyun:
    """`token`: the one of the rule's HTTP target in EventBridge."""

    def __init__(self, token: str, fetch: Fetch) -> None:
        self._token, self._fetch = token, fetch
        self._keys: dict[str, RSAPublicKey] = {}

    def events(self, request: ProviderRequest, now: datetime) -> Sequence[Event]:
        self._verify(request, now)
        body = table(json_of(request.body), "the body")
        kind = text(body.get("type"))
        if not kind.startswith("dm:"):
            return []
        return [_event(body, kind, table(body.get("data"), "data"), now)]

    def _verify(self, request: ProviderRequest, now: datetime) -> None:
        require_same(request.header(f"{STEM}signature-token"), self._token, "the token")
        written = request.header(f"{STEM}signature-timestamp")
        if abs(now - _signed_at(written)) > OLDEST:
            raise Forged("the signature is too old")
        where = request.header(f"{STEM}signature-url")
        if not CERTIFICATE.fullmatch(where):
            raise Forged("the certificate's address is not Aliyun's")
        names = (f"{STEM}{name}" for name in SIGNED)
        lines = [
            request.url,
            *(f"{name}: {request.headers[name]}" for name in names if name in request.headers),
        ]
        signed = "".join(f"{line}\n" for line in lines).encode() + request.body
        try:
            signature = base64.b64decode(request.header(f"{STEM}signature-v2"), validate=True)
            self._key(where).verify(signature, signed, PKCS1v15(), SHA256())
        except (InvalidSignature, ValueError):
            raise Forged(
                "the signature does not fit the call: is web.base_url the address of the rule?"
            ) from None

    def _key(self, where: str) -> RSAPublicKey:
        if where not in self._keys:
            if len(self._keys) >= KEPT:
                self._keys.clear()
            self._keys[where] = _rsa_key(self._fetch(where))
        return self._keys[where]


def _signed_at(written: str) -> datetime:
    """Milliseconds or seconds since 1970."""
    if not re.fullmatch(r"\d{10}(\d{3})?", written):
        raise Forged("the time of the signature cannot be read")
    return datetime.fromtimestamp(int(written) / (1000 if len(written) > 10 else 1), UTC)


def _rsa_key(pem: bytes) -> RSAPublicKey:
    """Of a certificate, or as it is."""
    try:
        found = (
            x509.load_pem_x509_certificate(pem).public_key()
            if b"BEGIN CERTIFICATE" in pem
            else load_pem_public_key(pem)
        )
    except ValueError:
        found = None
    if not isinstance(found, RSAPublicKey):
        raise Forged("the certificate cannot be read")
    return found


def _event(body: Table, kind: str, data: Table, now: datetime) -> Event:
    recipient = address(data.get("block_email") or data.get("rcpt"))
    why = text(data.get("failed_type"))
    ours, permanence, mirrors = _meaning(kind, why, data, recipient)
    return Event(
        provider="aliyun",
        event_id=identifier(body.get("id"))
        or identifier(kind, data.get("env_id"), recipient, body.get("time")),
        kind=ours,
        address=recipient,
        occurred_at=moment(body.get("time") or data.get("deliver_time"), now, BEIJING),
        permanence=permanence,
        code=text(data.get("err_code")),
        detail=text(f"{text(data.get('err_msg'))} {f'[{why}]' if why else ''}"),
        message_id=text(inner(data, "header").get("X-Notify-Message-ID"))
        or text(data.get("message_id") or data.get("msg_id")),
        receipt=text(data.get("env_id") or data.get("envid")),
        mirrors=mirrors,
    )


def _meaning(
    kind: str, why: str, data: Table, recipient: str
) -> tuple[EventKind, Permanence | None, SuppressionReason | None]:
    ours = KINDS.get(kind, EventKind.UNKNOWN)
    if ours is not EventKind.BOUNCED:
        return ours, None, None
    if why in LISTED:
        return EventKind.REJECTED, None, LISTED[why]
    if why == "SysOutRecipientUnsubscribed":
        return EventKind.UNSUBSCRIBED, None, None
    if why in GONE:
        return ours, Permanence.PERMANENT, None
    claimed = Permanence.POLICY if OURS.fullmatch(why) else Permanence.TEMPORARY
    return ours, judge(claimed, text(data.get("err_msg")), recipient), None
