"""Whether a message keeps what its post says: every word in order, every link, no markup left over."""

import re
from collections.abc import Iterable, Iterator
from unicodedata import normalize
from urllib.parse import unquote, urlsplit

from .source import INVISIBLE, Source, without_tail

#: What renderers may add or take away inside a word: white space, invisible marks, and the signs of quotation and
#: emphasis (whose reading beside Han characters the project improves on). `test_corpus` looks for those signs itself.
_NOISE = re.compile(r"[\s*>\u200b-\u200f\u202a-\u202e\u2060-\u2069\u00ad\u034f]|" + INVISIBLE.pattern)
ADDRESS = re.compile(r"https?://[!-;=?-~]+")
#: With Han in it as well, which some write and others encode.
_ANY_ADDRESS = re.compile(r"(?:https?|mailto):\S+", re.IGNORECASE)
SHOWN = 40

#: Markdown or HTML that a reader should not see, unless the post itself shows it.
MARKERS = {
    "**": re.compile(r"\*\*"),
    "~~": re.compile(r"~~"),
    "](": re.compile(r"\]\("),
    "```": re.compile(r"```"),
    "[^note]": re.compile(r"\[\^[\w-]+\]"),
    "a tag": re.compile(
        r"</?(?:p|br|div|span|b|i|u|a|img|table|tr|td|th|sub|sup|kbd|mark|details|summary)(?:[ \t][^<>\n]*)?/?>"
    ),
    "an entity": re.compile(r"&(?:nbsp|amp|lt|gt|quot|copy|#\d+|#x[0-9a-fA-F]+);"),
}


def squeezed(text: str) -> str:
    """Comparable: addresses decoded, H₂O as H2O, no noise."""
    text = _ANY_ADDRESS.sub(lambda found: unquote(found[0]), text.removeprefix("mailto:"))
    return _NOISE.sub("", normalize("NFKC", text))


def lost_text(source: Source, visible: str) -> Iterator[str]:
    """The first word of the post that the message does not have behind the words before it."""
    text, place = squeezed(visible), 0
    for piece in source.pieces:
        word = squeezed(piece.text)
        found = text.find(word, place if piece.ordered else 0)
        if found < 0:
            before = text[max(place - SHOWN, 0) : place]
            yield f"text: {piece.text[:SHOWN]!r} is missing after {before!r}"
            return
        if piece.ordered:
            place = found + len(word)


def shown_secrets(source: Source, visible: str) -> Iterator[str]:
    """Script or style that became text."""
    for word in source.hidden:
        if len(word) > 4 and word in visible and word not in source.text:
            yield f"hidden: {word[:SHOWN]!r} of a script or style is shown"


def leftovers(source: Source, visible: str) -> Iterator[str]:
    """Markers that the message shows and the post does not."""
    shown, written = (ADDRESS.sub(" ", text) for text in (visible, source.text))
    for name, pattern in MARKERS.items():
        extra = set(pattern.findall(shown)) - {*pattern.findall(written), *pattern.findall(source.text)}
        if extra and not (
            name == "**" and "*" in written
        ):  # which of several stars pair is a matter of dialect
            yield f"markup: {name} is left over: {min(extra)[:SHOWN]!r}"


def canonical(address: str) -> str:
    """One spelling for addresses that mean the same: percent-encoding undone, host in ASCII; of mailto: the address."""
    address = address.strip()
    if address.lower().startswith("mailto:"):
        return unquote(address[len("mailto:") :].partition("?")[0])
    try:
        host = urlsplit(address).hostname or ""
        ascii_host = host.encode("idna").decode()
    except (ValueError, UnicodeError):
        return unquote(address)
    if host:
        address = re.sub(re.escape(host), ascii_host, address, count=1, flags=re.IGNORECASE)
    return unquote(address)


def lost_links(source: Source, kept: Iterable[str]) -> list[str]:
    """Links of the post that are not among `kept`."""
    have = {canonical(address) for address in kept}
    return [link for link in dict.fromkeys(source.links) if canonical(link) not in have]


def links_not_in_text(source: Source, text: str) -> list[str]:
    """Links of the post whose address does not stand in `text` as a whole."""
    plain = unquote(text)
    return [link for link in dict.fromkeys(source.links) if not _stands_in(link, text, plain)]


def _stands_in(link: str, text: str, plain: str) -> bool:
    forms = {(link, text), (canonical(link), plain)}
    end = r"(?![A-Za-z0-9/?=&%#_-])" if "://" in link else r"(?![A-Za-z0-9_-])"
    return any(re.search(re.escape(address) + end, place) for address, place in forms)


def foreign_links(source: Source, found: Iterable[str], also: Iterable[str]) -> Iterator[str]:
    """Addresses of a message that neither the post has nor `also`."""
    known = {canonical(address) for address in (*source.addresses, *also)}
    known |= {
        canonical(without_tail(address)) for address in source.links
    }  # found in the open, it ends sooner
    # of broken Markdown, what stands between two pairs of tildes is struck through, also in an address
    known |= {canonical(address.partition("~~")[0]) for address in source.links}
    for address in dict.fromkeys(found):
        if canonical(address) not in known:
            yield f"links: {address[:120]!r} is none of the post's"
