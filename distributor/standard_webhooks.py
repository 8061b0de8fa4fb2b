"""Who sent a call, by the rules of Standard Webhooks (spec 1.0.0), over its bytes as they came.

The library of that name decodes the body, so that it fails on what is no UTF-8, and has its tolerance built in; our
tests sign with it.
"""

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

PREFIX = "whsec_"
#: What an id may be: it is kept, and stands in the log.
ID = re.compile(r"[\x21-\x7e]{1,200}")
SECONDS = re.compile(r"[0-9]{1,12}")
#: Signatures that are looked at. A sender has one for each secret while it changes them.
MOST_SIGNATURES = 10


class NotSigned(Exception):
    """The call does not prove where it comes from; the text says what is missing and repeats nothing of it."""


@dataclass(frozen=True)
class Signed:
    """A call that has proven itself: its id, and whose secret it was signed with."""

    id: str
    source: str


class Signatures:
    """The secrets of several sources. Each call is held against all of them: how long it takes says nothing.

    secrets: source → its secrets as they are handed out, with or without "whsec_". Raises ValueError for a malformed one.
    """

    def __init__(
        self,
        secrets: Mapping[str, Sequence[str]],
        tolerance: timedelta,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = [(source, key_of(secret)) for source, each in secrets.items() for secret in each]
        self._tolerance, self._clock = tolerance.total_seconds(), clock

    def verify(self, headers: Mapping[str, str], body: bytes) -> Signed:
        """`headers` by names in lower case. Raises NotSigned."""
        number, moment, given = (
            headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")
        )
        if not (number and moment and given):
            raise NotSigned("the headers webhook-id, webhook-timestamp and webhook-signature are needed")
        if not ID.fullmatch(number):
            raise NotSigned("webhook-id: expected 1 to 200 visible ASCII characters")
        if not SECONDS.fullmatch(moment):
            raise NotSigned("webhook-timestamp: expected whole seconds since 1970")
        if abs(self._clock() - int(moment)) > self._tolerance:
            raise NotSigned(
                f"webhook-timestamp: more than {self._tolerance:.0f} seconds from our clock; sign each try anew"
            )
        source = self._source(f"{number}.{moment}.".encode() + body, _signatures(given))
        if source is None:
            raise NotSigned("webhook-signature: no secret of ours makes it, of this very body")
        return Signed(number, source)

    def _source(self, signed: bytes, signatures: Sequence[bytes]) -> str | None:
        found = None
        for source, key in self._keys:
            expected = hmac.digest(key, signed, hashlib.sha256)
            for signature in signatures:
                if hmac.compare_digest(expected, signature):
                    found = source
        return found


def key_of(secret: str) -> bytes:
    """The bytes of a secret: base64, 24 to 64 of them. Raises ValueError, which does not repeat it."""
    text = secret.removeprefix(PREFIX)
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise ValueError(
            'a secret: expected whsec_ and base64, as in "whsec_$(openssl rand -base64 32)"'
        ) from None
    if not 24 <= len(key) <= 64:
        raise ValueError(f"a secret: expected 24 to 64 bytes in base64, not {len(key)}")
    return key


def _signatures(header: str) -> Sequence[bytes]:
    """Those of version 1, as bytes; what is none is passed over."""
    found = []
    for one in header.split(" ")[:MOST_SIGNATURES]:
        version, _, text = one.partition(",")
        if version == "v1":
            try:
                found.append(base64.b64decode(text, validate=True))
            except (binascii.Error, ValueError):
                continue
    return found
