"""Addresses: which lead somewhere, which stand in a text, and how a text shows one."""

import re
from urllib.parse import unquote, urlsplit

from markdown_it.common.utils import unescapeAll

#: ASCII alone: in Chinese, the sentence goes on right behind the address.
_BARE = re.compile(
    r"https?://(?:[!#-%'-)+-;=?-Z_a-z]|\*(?!\*)|~(?!~)|\\[_*~&]|&amp;|&(?![A-Za-z]+;))+", re.IGNORECASE
)
_TAIL = ".,:;!?'*_~"


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
    said = text.strip() in {"", bare} or unquote(text.strip()) == unquote(address)
    return bare if said else f"{text} ({bare})"


def bare_address(markdown: str, place: int) -> str:
    """The address that begins at `place`, as it stands in the Markdown; empty when none does.

    The punctuation of the sentence behind it is no part of it.
    """
    match = _BARE.match(markdown, place)
    address = _without_tail(match[0]) if match else ""
    return address if is_web(unescapeAll(address)) else ""


def _without_tail(address: str) -> str:
    """A closing bracket belongs to the address when it was opened there."""
    end, unopened = len(address), address.count(")") - address.count("(")
    while end and (address[end - 1] in _TAIL or (address[end - 1] == ")" and unopened > 0)):
        unopened -= address[end - 1] == ")"
        end -= 1
    return address[:end]
