"""The one spelling of an address on a channel, and its fingerprint when the address itself is gone."""

import hashlib
import hmac
import re
from functools import lru_cache

from email_validator import EmailNotValidError, validate_email

from distributor.errors import RequestRefused


def normalise(channel: str, address: str) -> str:
    """The one spelling of an address on a channel. Raises RequestRefused for what cannot be one."""
    address = address.strip()
    if channel == "email":
        return _mailbox(address)
    if channel == "telegram" and not re.fullmatch(r"-?\d{1,20}", address):
        raise RequestRefused(f"{address!r} is not a Telegram chat id (a number)")
    if not re.fullmatch(r"[\x21-\x7e]{1,200}", address):
        raise RequestRefused(f"{address!r} is not an address")
    return address


@lru_cache(maxsize=1024)
def _mailbox(address: str) -> str:
    """Kept for a moment: a sign-up is looked at by the page and by the story, and 80 µs are a tenth of it."""
    try:
        found = validate_email(address, check_deliverability=False, allow_smtputf8=False)
    except EmailNotValidError as error:
        raise RequestRefused(f"{address!r} is not an e-mail address: {error}") from None
    return f"{found.local_part}@{found.ascii_domain}".lower()


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
