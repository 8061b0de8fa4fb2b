"""Addresses: which lead somewhere, which stand in a text, and how a text shows one."""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

#: ASCII alone: in Chinese, the sentence goes on right behind the address.
_BARE = re.compile(r"https?://[!#-;=?-\[\]_a-z{-~]+", re.IGNORECASE)
_TAIL = ".,:;!?'*_~|]}"


def is_web(address: str) -> bool:
    """Whether it is a full http(s) address."""
    try:
        parts = urlsplit(address)
        return parts.scheme in {"http", "https"} and bool(re.fullmatch(r"[\w.:-]+", parts.hostname or ""))
    except ValueError:
        return False


def text_and_address(text: str, address: str) -> str:
    """ "text (address)"; the address alone when the text says the same. Of a mailto: link, the bare mail address."""
    bare = address.removeprefix("mailto:").partition("?")[0] if address.startswith("mailto:") else address
    return bare if text.strip() in {"", bare, address} else f"{text} ({bare})"


def bare_addresses(text: str) -> Iterator[tuple[int, int]]:
    """Where addresses stand in a text, without the punctuation of the sentence behind them."""
    for match in _BARE.finditer(text):
        address = _without_tail(match[0])
        if is_web(address):
            yield match.start(), match.start() + len(address)


def _without_tail(address: str) -> str:
    """A closing bracket belongs to the address when it was opened there."""
    while address:
        if address[-1] in _TAIL or (address[-1] == ")" and address.count(")") > address.count("(")):
            address = address[:-1]
        else:
            break
    return address
