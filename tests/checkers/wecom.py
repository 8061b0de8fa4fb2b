"""WeCom robots' four message types: byte limits and dialects (developer.work.weixin.qq.com, path 99110)."""

import re
from collections.abc import Callable, Iterator, Mapping

from .compare import ADDRESS, foreign_links, shown_secrets
from .rendering import Rendering, Report
from .source import INVISIBLE, Source, bare_addresses

MARKDOWN, TEXT = 4096, 2048
NEWS = {"title": 128, "description": 512}

_LINK = re.compile(r"\[([^\[\]\n]+)\]\((https?://[^\s()<>\"\\]+)\)")
_FONT = re.compile(r'<font color="(?:info|comment|warning)">[^<>\n]*</font>')
#: What the old dialect shows as it is written.
_UNKNOWN_TO_MARKDOWN = {
    "a list": re.compile(r"^\s*[-*+•] ", re.MULTILINE),
    "a table": re.compile(r"^\s*\|.*\|\s*$", re.MULTILINE),
    "a picture": re.compile(r"!\["),
    "a code block": re.compile(r"^\s*```", re.MULTILINE),
    "a rule": re.compile(r"^\s*(?:-{3,}|\*{3,}|_{3,})\s*$", re.MULTILINE),
    "italics": re.compile(r"(?<![*\w])\*(?!\*)[^*\n]+\*(?!\*)"),
}
_UNKNOWN_TO_V2 = {"a colour or a mention": re.compile(r"<(?:font|/font|@)")}


def check_wecom(rendering: Rendering, source: Source) -> Report:
    mode, _, asked = rendering.variant.partition("+")
    measured = [_CHECKS[mode](content) for content in rendering.parts]
    violations = [found for one in measured for found in one[0]]
    visible = "\n".join(text for part in rendering.parts for text in part.values())
    found = _addresses(rendering)
    known = {*found}
    violations += foreign_links(source, found, [rendering.address, *_cover(rendering)])
    violations += shown_secrets(source, visible)
    violations += ["strikethrough: no dialect knows it"] * (
        "~~" in ADDRESS.sub("", visible) and "~~" not in source.text
    )
    violations += ["a control character"] * bool(INVISIBLE.search(visible))
    violations += [f"{len(rendering.parts)} parts: a digest is one"] * (
        len(rendering.parts) > 1 and "split" not in asked
    )
    links = list(dict.fromkeys(source.links))
    return Report(
        violations=violations,
        bytes=sum(size for _, size, _ in measured),
        share=max(share for *_, share in measured),
        links=(sum(link in known for link in links), len(links)),
        parts=len(rendering.parts),
        teaser=True,
    )


Content = Mapping[str, str]
Measured = tuple[list[str], int, float]


def _markdown(content: Content, unknown: Mapping[str, re.Pattern[str]], *, fonts: bool) -> Measured:
    text = content.get("markdown", "")
    size = len(text.encode())
    violations = [*_sized(text, size, MARKDOWN), *_shape(text, fonts=fonts)]
    # An address in the open may hold any mark: what a robot makes of it is not described, and it must be copied as it is.
    shown = re.sub(r"https?://\S+", "…", _LINK.sub(r"[\1](…)", text))
    violations += [
        f"{name}: {found[0]!r}" for name, pattern in unknown.items() if (found := pattern.search(shown))
    ]
    return violations, size, size / MARKDOWN


def _shape(text: str, *, fonts: bool) -> Iterator[str]:
    """Links are whole, tags are the three of the dialect, headings are headings."""
    rest = _LINK.sub("", text)
    if stray := re.search(r".{0,20}(?:\]\(|[\[\]]).{0,20}", rest):
        yield f"a broken link: {stray[0]!r}"
    rest = _FONT.sub("", rest) if fonts else rest
    if stray := re.search(r"</?[A-Za-z@!][^\n]{0,20}", rest):
        yield f"a tag: {stray[0]!r}"
    if rest.count("`") % 2:
        yield "a code mark that never closes"
    if heading := re.search(r"^#{7,}|^#{1,6}[^#\s][^\n]{0,20}", rest, re.MULTILINE):
        yield f"a heading that is none: {heading[0]!r}"


def _text(content: Content) -> Measured:
    text = content.get("text", "")
    size = len(text.encode())
    return list(_sized(text, size, TEXT)), size, size / TEXT


def _news(content: Content) -> Measured:
    violations, share = list[str](), 0.0
    for key, limit in NEWS.items():
        size = len(content.get(key, "").encode())
        share = max(share, size / limit)
        violations += [f"{key}: {size} bytes, at most {limit}"] * (size > limit)
    violations += ["the title is empty"] * (not content.get("title", "").strip())
    for key in ("url", "picurl"):
        address = content.get(key, "")
        violations += [f"{key}: {address!r} is no web address"] * bool(address and not _is_web(address))
    violations += ["no url: the card leads nowhere"] * (not content.get("url"))
    return violations, sum(len(text.encode()) for text in content.values()), share


def _is_web(address: str) -> bool:
    return bool(re.fullmatch(r"https?://[^\s<>\"]+", address)) and address.isascii()


def _sized(text: str, size: int, limit: int) -> Iterator[str]:
    if size > limit:
        yield f"{size} bytes, at most {limit}"
    if not text.strip():
        yield "the text is empty"


def _addresses(rendering: Rendering) -> list[str]:
    texts = [text for part in rendering.parts for text in part.values()]
    linked = [address for text in texts for _, address in _LINK.findall(text)]
    return [*linked, *(address for text in texts for address in bare_addresses(_LINK.sub("", text)))]


def _cover(rendering: Rendering) -> list[str]:
    """The picture of a news card is the post's cover."""
    return [part["picurl"] for part in rendering.parts if part.get("picurl")]


_CHECKS: Mapping[str, Callable[[Content], Measured]] = {
    "markdown_v2": lambda content: _markdown(content, _UNKNOWN_TO_V2, fonts=False),
    "markdown": lambda content: _markdown(content, _UNKNOWN_TO_MARKDOWN, fonts=True),
    "text": _text,
    "news": _news,
}
VARIANTS = frozenset(_CHECKS)
