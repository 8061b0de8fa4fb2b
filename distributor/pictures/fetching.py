"""Fetching a picture that a post names: from the public network alone, so much and so long, and nothing but a picture.

Who writes a post must not make this server read its own network (SSRF). So the host is resolved here, each of its
addresses is checked, and the connection goes to the very address that was checked: a second answer of the name server
("DNS rebinding") changes nothing. Each redirect goes the same way. Host and SNI stay the name's. No proxy is used.
"""

import ipaddress
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urljoin

import dns.exception
import dns.resolver
import httpcore
import httpx

from distributor.errors import PictureError
from distributor.pictures.picture import MOST_PIXELS, require_picture
from distributor.tls import trust

#: (host, seconds) → its addresses. Raises OSError when there are none.
Resolve = Callable[[str, float], Sequence[str]]

HEADERS = {
    "User-Agent": "Mozilla/5.0 (compatible; distributor; newsletter pictures)",
    # A server that chooses by this sends what mail programs show; those that choose WebP or AVIF are converted.
    "Accept": "image/jpeg,image/png,image/gif,image/webp;q=0.5,image/avif;q=0.4,*/*;q=0.1",
    "Accept-Encoding": "identity",
}


@dataclass(frozen=True)
class FetchRules:
    """What one picture may cost.

    `seconds` is the whole time, from the name server's answer to the last byte; `most_pixels` is for whoever decodes it.
    """

    most_bytes: int = 10_000_000
    seconds: float = 10
    most_redirects: int = 3
    allow_private: bool = False
    most_pixels: int = MOST_PIXELS


class Fetched(NamedTuple):
    """A file as it came, and what it is by its first bytes ("jpeg", "webp", …), whatever its header says."""

    data: bytes
    kind: str


def fetch(
    address: str,
    rules: FetchRules = FetchRules(),
    *,
    resolve: Resolve | None = None,
    network: httpcore.NetworkBackend | None = None,
) -> Fetched:
    """The file behind a full http(s) address. `resolve` and `network`: who else answers for names, and connects.

    Raises:
        PictureError: a private address, a redirect too many or to http, too large, too slow, not there, no picture.
    """
    backend = _CheckedBackend(rules, resolve or by_name_server, network or httpcore.SyncBackend())
    try:
        with httpcore.ConnectionPool(trust(), network_backend=backend) as pool:
            data = _follow(pool, address, rules)
    except _Refused as refusal:
        raise PictureError(address, str(refusal)) from None
    except httpcore.TimeoutException:
        reason = f"took longer than {rules.seconds:g} s: try again, or keep a copy elsewhere"
        raise PictureError(address, reason) from None
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        raise PictureError(address, f"cannot be fetched ({error}): is the address right?") from None
    return Fetched(data, require_picture(data, address))


class _Refused(Exception):
    """A rule says no; the text is the reason."""


def _follow(pool: httpcore.ConnectionPool, address: str, rules: FetchRules) -> bytes:
    url = _web(address)
    for _ in range(rules.most_redirects + 1):
        answer = _get(pool, url, rules)
        if isinstance(answer, bytes):
            return answer
        there = _web(_joined(url, answer))
        if (url.scheme, there.scheme) == ("https", "http"):
            raise _Refused("leads from https to http, where anybody may change it: link an https picture")
        url = there
    raise _Refused(f"more than {rules.most_redirects} redirects: link the picture itself")


def _joined(url: httpx.URL, location: str) -> str:
    """Where a redirect leads. Refuses what cannot be told."""
    try:
        return urljoin(str(url), location)
    except ValueError:  # such as `http://[`
        raise _Refused("leads to no address: link the picture itself") from None


def _web(address: str) -> httpx.URL:
    """The address, its host in IDNA. Refuses what is no plain http(s) one."""
    try:
        url = httpx.URL(address)
    except (httpx.InvalidURL, ValueError):
        raise _Refused("no address: a full https:// one is expected") from None
    if url.scheme not in {"http", "https"} or not url.host or (url.port or 0) > 65535:
        raise _Refused("a full https:// address is expected")
    if url.userinfo:
        raise _Refused("a password in an address would reach every reader: put the picture elsewhere")
    return url


def _get(pool: httpcore.ConnectionPool, url: httpx.URL, rules: FetchRules) -> bytes | str:
    """The body, or where a redirect leads."""
    headers = [("Host", url.netloc.decode()), *HEADERS.items()]
    wire = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    with pool.stream("GET", wire, headers=headers, extensions={"timeout": _timeouts(rules)}) as response:
        said = {name.lower(): value.decode("utf-8", "replace") for name, value in response.headers}
        if response.status in {301, 302, 303, 307, 308} and b"location" in said:
            return said[b"location"]
        if response.status != 200:
            raise _Refused(
                f"the server answered {response.status}: is the picture still there, for everybody?"
            )
        length = said.get(b"content-length", "0")
        if length.isdigit() and int(length) > rules.most_bytes:
            raise _Refused(_too_large(rules))
        return _read(response.iter_stream(), rules)


def _timeouts(rules: FetchRules) -> dict[str, float]:
    return dict.fromkeys(("connect", "read", "write", "pool"), rules.seconds)


def _read(chunks: Iterable[bytes], rules: FetchRules) -> bytes:
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > rules.most_bytes:
            raise _Refused(_too_large(rules))
    return bytes(data)


def _too_large(rules: FetchRules) -> str:
    return f"larger than {rules.most_bytes / 1_000_000:g} MB: scale it down (1200 across are enough)"


class _CheckedBackend(httpcore.NetworkBackend):
    """Connects to addresses that were checked, and to nothing else; all of it ends when the time is over."""

    def __init__(self, rules: FetchRules, resolve: Resolve, network: httpcore.NetworkBackend) -> None:
        self.rules, self.resolve, self.network = rules, resolve, network
        self.deadline = time.monotonic() + rules.seconds

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the deadline is the stricter one
        local_address: str | None = None,  # noqa: ARG002 - httpcore's signature
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002 - likewise
    ) -> httpcore.NetworkStream:
        """Tries the host's addresses in turn, each for its share of the time.

        None of them may be private: half a name is not to be trusted.
        """
        addresses = self.addresses(host)
        for others, address in zip(reversed(range(len(addresses))), addresses, strict=True):
            left = _left(self.deadline, httpcore.ConnectTimeout)
            try:
                stream = self.network.connect_tcp(address, port, left / (others + 1))
                return _TimedStream(stream, self.deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if not others:
                    raise
        raise httpcore.ConnectError("the host has no address")

    def addresses(self, host: str) -> Sequence[str]:
        found = (
            [host] if _is_literal(host) else self.resolve(host, _left(self.deadline, httpcore.ConnectTimeout))
        )
        if not self.rules.allow_private and not all(map(is_public, found)):
            raise _Refused("leads into a private network, which no reader reaches: link a public address")
        return found


class _TimedStream(httpcore.NetworkStream):
    """A connection whose every step ends at the deadline: a byte now and then does not keep it open."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self.stream, self.deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self.stream.read(max_bytes, _left(self.deadline, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self.stream.write(buffer, _left(self.deadline, httpcore.WriteTimeout))

    def close(self) -> None:
        self.stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        left = _left(self.deadline, httpcore.ConnectTimeout)
        return _TimedStream(self.stream.start_tls(ssl_context, server_hostname, left), self.deadline)

    def get_extra_info(self, info: str) -> object:
        return self.stream.get_extra_info(info)


def _left(deadline: float, over: type[httpcore.TimeoutException]) -> float:
    """Seconds until the deadline. Raises `over` behind it."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise over("the deadline has passed")
    return left


def by_name_server(host: str, seconds: float, resolver: dns.resolver.Resolver | None = None) -> Sequence[str]:
    """The host's addresses, IPv4 first, by the system's name servers; unlike getaddrinfo it keeps to the time.

    Raises:
        httpcore.ConnectTimeout: no answer in time.
        OSError: the name is not known.
    """
    try:
        answers = (resolver or dns.resolver.Resolver()).resolve_name(host, lifetime=seconds, search=False)
    except dns.exception.Timeout:
        raise httpcore.ConnectTimeout("the name server did not answer") from None
    except dns.exception.DNSException:
        raise OSError(f"the host {host} is not known") from None
    return sorted(answers.addresses(), key=lambda address: ":" in address)


#: IPv6: what is in use for hosts of the public network.
_UNICAST = ipaddress.ip_network("2000::/3")
#: An IPv4 address stands in these: the first leads to it, through the network's translator; the others are tunnels.
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
_TUNNELS = (ipaddress.ip_network("2002::/16"), ipaddress.ip_network("2001::/32"))
#: What the standard library of 3.11 calls global and no host of the public network has: protocol assignments (RFC 6890),
#: the relays of 6to4 (RFC 7526), and documentation (RFC 9637).
_SPECIAL = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20")))


def is_public(address: str) -> bool:
    """Whether an IP address belongs to a host of the public network; what is no IP address does not."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if inner := found.ipv4_mapped or _translated(found):
            return is_public(str(inner))
        if found not in _UNICAST or any(found in tunnel for tunnel in _TUNNELS):
            return False
    if any(found in network for network in _SPECIAL):
        return False
    return found.is_global and not (found.is_multicast or found.is_reserved or found.is_unspecified)


def _translated(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF) if address in _TRANSLATED else None


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
