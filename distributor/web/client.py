"""Who asks: the client's address, behind proxies that are trusted, and nobody else's word for it."""

import ipaddress
import re
from collections.abc import Iterator, Sequence

from starlette.requests import HTTPConnection

from distributor.settings import Settings

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: `for=` of a Forwarded element (RFC 7239), quoted when it is IPv6 or has a port.
FORWARDED_FOR = re.compile(r'(?:^|;)\s*for="?([^";]*)"?', re.IGNORECASE)
#: An address with its port: 192.0.2.1:80, [2001:db8::1]:80, or with brackets alone.
WITH_PORT = re.compile(r"\[([0-9a-fA-F:.]+)\](?::\d+)?|(\d+\.\d+\.\d+\.\d+):\d+")


class ClientAddress:
    """Reads `header`, "X-Forwarded-For" or "Forwarded", from the right, and no further than `trusted` proxies wrote it.

    Only one of the two, by setting: a proxy that writes the one lets through what a client put into the other.
    """

    def __init__(self, trusted: Sequence[Network] = (), header: str = "X-Forwarded-For") -> None:
        self._trusted, self._header = tuple(trusted), header

    def of(self, request: HTTPConnection) -> str:
        """The address, in its usual spelling; empty when the connection has none (a Unix socket)."""
        address = _address(request.client.host) if request.client else None
        if address is None:
            return ""
        for hop in reversed(list(self._hops(request))):
            # What we cannot read ends it as well: left of it stands whatever the client liked.
            if not self._trusts(address) or (before := _address(hop)) is None:
                break
            address = before
        return str(address)

    def _trusts(self, address: IP) -> bool:
        return any(address in network for network in self._trusted)

    def _hops(self, request: HTTPConnection) -> Iterator[str]:
        for line in request.headers.getlist(self._header) if self._trusted else ():
            for element in line.split(","):
                if self._header == "X-Forwarded-For":
                    yield element.strip()
                else:
                    found = FORWARDED_FOR.search(element)
                    yield found[1].strip() if found else ""


def client_address_of(settings: Settings) -> ClientAddress:
    return ClientAddress(settings.web.trusted_proxies, settings.web.proxy_header)


def _address(text: str) -> IP | None:
    if found := WITH_PORT.fullmatch(text):
        text = found[1] or found[2]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
