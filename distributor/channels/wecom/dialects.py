"""A robot's message types: their limits, and how post text is written so that readers see it as its author wrote it.

Source: developer.work.weixin.qq.com, path/99110. WeCom describes no backslash escape, so what would be markup is
replaced by its full-width twin, which looks the same.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Write = Callable[[str], str]


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One message type. `limit` is in UTF-8 bytes; the texts with {} are patterns for what is escaped already."""

    key: str  # of its text in the frozen message
    limit: int
    escape: Write
    link: Callable[[str, str], str]
    title: str
    date: str
    lead: str
    heading: str
    number: str
    label: str
    bare: bool = False  # addresses stand in the open, at the end of the line


#: Markup wherever it stands.
_TWINS = str.maketrans("[]<>*`|", "【】＜＞＊｀｜")
_ADDRESS = re.compile(r"(https?://[\w\-.~:/?#@!$&'()*+,;=%]+)")
#: An underscore inside a word is none, as in snake_case.
_UNDERSCORE = re.compile(r"(?<![^\W_])_+|_+(?![^\W_])")
_PAIRED = re.compile(r"~~|\$\$")
_BACKSLASH = re.compile(r"\\(?=[!-/:-@\[-`{-~＊｀｜＜＞【】])")
_ENTITY = re.compile(r"&(?=#?\w{1,12};)")
#: What makes a block where a line begins: a heading, a list, a rule. (Quotes and tables are twins already.)
_BLOCK = re.compile(r"^\s*(?:#{1,6}|[-+=~]+(?=\s|$|[-=~])|\d{1,9}[.)](?=\s|$))")
_FULL_WIDTH = {ord(mark): ord(mark) + 0xFEE0 for mark in "#-+=~.)_$&\\"}


def escape_markdown(text: str) -> str:
    """One line of text that neither dialect of Markdown takes for markup. Addresses are left as they are."""
    pieces = _ADDRESS.split(text)  # every second one is an address
    written = "".join(piece if number % 2 else _escaped(piece) for number, piece in enumerate(pieces))
    return _BLOCK.sub(_widened, written)


def _escaped(text: str) -> str:
    text = text.translate(_TWINS).replace("】 ", "】")  # a full-width bracket has its blank in it
    for markup in (_UNDERSCORE, _PAIRED, _BACKSLASH, _ENTITY):
        text = markup.sub(_widened, text)
    return text


def _widened(match: re.Match[str]) -> str:
    return match[0].translate(_FULL_WIDTH)


def shown_address(address: str) -> str:
    """An address that ends neither its link nor its line."""
    return re.sub(r"[()<>\[\]\s\\*`|]", lambda found: f"%{ord(found[0]):02X}", address)


def _markdown_link(text: str, address: str) -> str:
    return f"[{text}]({shown_address(address)})"


DIALECTS: Mapping[str, Dialect] = {
    "markdown_v2": Dialect(
        key="markdown",
        limit=4096,
        escape=escape_markdown,
        link=_markdown_link,
        title="# {}",
        date="*{}*",
        lead="> {}",
        heading="**{}**",
        number="{}. ",
        label="*{}*",
    ),
    "markdown": Dialect(  # it has no lists: "1. " is what it does not know, and shows
        key="markdown",
        limit=4096,
        escape=escape_markdown,
        link=_markdown_link,
        title="# {}",
        date='<font color="comment">{}</font>',
        lead="> {}",
        heading="**{}**",
        number="{}) ",
        label='<font color="comment">{}</font>',
    ),
    "text": Dialect(
        key="text",
        limit=2048,
        escape=str,
        link=lambda text, address: f"{text} {address}",
        title="{}",
        date="{}",
        lead="{}",
        heading="▍{}",
        number="{}. ",
        label="{}",
        bare=True,
    ),
}
