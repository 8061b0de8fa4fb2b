"""Who an attempt comes from and whom it is for, as keys to count by."""

import hashlib
import ipaddress
from dataclasses import dataclass

#: Names of one mailbox at Google: dots mean nothing there.
DOTLESS = frozenset({"gmail.com", "googlemail.com"})


@dataclass(frozen=True)
class Source:
    """A client: `host` is what one of them has for itself, `network` what one company or one attacker has."""

    host: str
    network: str


UNKNOWN = Source("unknown", "unknown")


def source_of(ip: str) -> Source:
    """An IPv4 address and its /24; an IPv6 /64, which every subscriber line has whole, and its /48."""
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return UNKNOWN
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if isinstance(address, ipaddress.IPv4Address):
        return Source(str(address), _network(address, 24))
    return Source(_network(address, 64), _network(address, 48))


def mailbox_of(address: str) -> str:
    """One spelling for all addresses that arrive in one mailbox: lower case, nothing after "+", Google's dots."""
    name, _, domain = address.strip().lower().rpartition("@")
    name = name.partition("+")[0] or name
    if domain in DOTLESS:
        name, domain = name.replace(".", ""), "gmail.com"
    return f"{name}@{domain}"


def domain_of(address: str) -> str:
    return address.strip().lower().rpartition("@")[2].rstrip(".")


def key_of(kind: str, value: str, secret: bytes) -> str:
    """A key that says nothing of whom it stands for: addresses do not lie about in Redis."""
    digest = hashlib.blake2b(value.encode(errors="replace"), key=secret[:64], digest_size=16)
    return f"{kind}:{digest.hexdigest()}"


def _network(address: ipaddress.IPv4Address | ipaddress.IPv6Address, length: int) -> str:
    return str(ipaddress.ip_network(f"{address}/{length}", strict=False))
