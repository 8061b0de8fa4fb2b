"""What a provider's call is, and the two ways in which it can be refused."""

import base64
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from distributor.errors import DistributorError
from distributor.model import Event


class Forged(DistributorError):
    """The call does not prove that it comes from the provider. Answered with 401; nothing of it is read."""


class Malformed(DistributorError):
    """The call is the provider's, and not what its documentation says. Answered with 422."""


@dataclass(frozen=True, kw_only=True)
class ProviderRequest:
    """A POST of a provider.

    `headers` have lower-case names. `url` is the address as the provider knows it, query included; `secret` is its last
    step, of POST /events/<provider>/<secret>.
    """

    headers: Mapping[str, str]
    body: bytes
    url: str = ""
    secret: str = ""

    def header(self, name: str) -> str:
        """A header that the proof needs. Raises Forged without it."""
        try:
            return self.headers[name]
        except KeyError:
            raise Forged(f"the header {name} is missing") from None


class Provider(Protocol):
    """A company that tells us what became of our mail."""

    def events(self, request: ProviderRequest, now: datetime) -> Sequence[Event]:
        """What a call says. Raises Forged, Malformed; ServiceDown when its proof cannot be had right now."""


def require_same(given: str, expected: str, what: str) -> None:
    """Raises Forged unless two secrets are the same; how long that takes says nothing about them."""
    if not hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode()):
        raise Forged(f"{what} is not ours")


def require_secret(request: ProviderRequest, secret: str) -> None:
    """The secret in the address, or as the password of basic authentication with any name. Raises Forged."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic" and not request.secret:
        require_same(_password(encoded), secret, "the password")
    else:
        require_same(request.secret, secret, "the secret in the address")


def _password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")[2]
    except ValueError:
        raise Forged("the basic authentication cannot be read") from None
