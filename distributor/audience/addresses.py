"""The one spelling of an address on a channel, and its fingerprint when the address itself is gone."""

import hashlib
import hmac
import re
from functools import lru_cache

from email_validator import EmailNotValidError, validate_email

from distributor.errors import RequestRefused

#: What nearly all addresses are made of; of these the library's verdict on the part before the @ is known (RFC 5322's
#: dot-atom: always good), and the domain's is asked for once.
PLAIN_LOCAL = re.compile(r"[\w!#$%&'*+\-/=?^`{|}~]+(?:\.[\w!#$%&'*+\-/=?^`{|}~]+)*", re.ASCII)
PLAIN_DOMAIN = re.compile(r"[A-Za-z0-9.-]+")
LONGEST = 254  # bytes, in every spelling of it (RFC 5321 §4.5.3.1.3)


def normalise(channel: str, address: str) -> str:
    """The one spelling of an address on a channel. Raises RequestRefused for what cannot be one."""
    address = address.strip()
    if channel == "email":
        return _plain(address) or _mailbox(address)
    if channel == "telegram" and not re.fullmatch(r"-?\d{1,20}", address):
        raise RequestRefused(f"{address!r} is not a Telegram chat id (a number)")
    if not re.fullmatch(r"[\x21-\x7e]{1,200}", address):
        raise RequestRefused(f"{address!r} is not an address")
    return address


def _mailbox(address: str) -> str:
    try:
        found = validate_email(address, check_deliverability=False, allow_smtputf8=False)
    except EmailNotValidError as error:
        raise RequestRefused(f"{address!r} is not an e-mail address: {error}") from None
    return f"{found.local_part}@{found.ascii_domain}".lower()


def _plain(address: str) -> str | None:
    """What the library makes of a plain address, thirty times as fast: an import has a million. None: ask the library."""
    local, _, domain = address.partition("@")
    known = _domain(domain)
    if known is None or not PLAIN_LOCAL.fullmatch(local):
        return None
    ascii_domain, longest = known
    return f"{local}@{ascii_domain}".lower() if len(local) + 1 + longest <= LONGEST else None


@lru_cache(maxsize=50_000)
def _domain(domain: str) -> tuple[str, int] | None:
    """(its ASCII form, the bytes of its longest spelling). None for what is no plain, good domain."""
    if not PLAIN_DOMAIN.fullmatch(domain):
        return None
    try:
        found = validate_email(f"a@{domain}", check_deliverability=False, allow_smtputf8=False)
    except EmailNotValidError:
        return None
    spellings = (domain, found.domain, found.ascii_domain)
    return found.ascii_domain, max(len(one.encode()) for one in spellings)


def domain_of(channel: str, address: str) -> str:
    """The recipient domain of an e-mail address; empty on other channels."""
    return address.rpartition("@")[2] if channel == "email" else ""


def masked(address: str) -> str:
    """Enough for its reader to recognise it, too little for anybody else: l•••@example.com, •••789 for a chat."""
    name, at, domain = address.rpartition("@")
    return f"{name[:1]}•••{at}{domain}" if at else f"•••{address[-3:]}"


def fingerprint(key: str, channel: str, address: str) -> str:
    """What is kept of an address that was erased: enough to recognise it, by who has the installation's key."""
    digest = hmac.new(key.encode(), f"{channel}\0{address}".encode(), hashlib.sha256).hexdigest()
    return f"{HASHED}{digest[:40]}"


#: How a fingerprint begins; no address does.
HASHED = "erased:"


def mention(address: str) -> re.Pattern[str]:
    """Finds an address in a text, in whatever case, and not as a part of a longer one."""
    return re.compile(rf"(?<![\w.+-]){re.escape(address)}(?![\w+@-]|\.\w)", re.IGNORECASE)
