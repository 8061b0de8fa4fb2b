"""A post's body for a page: headings that can be linked to, footnotes that lead there and back, tables that scroll."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

import nh3
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

from distributor.rendering import ATTRIBUTES, TAGS, Document, HtmlReader
from distributor.rendering.markdown import MARKDOWN
from distributor.rendering.raw_html import HIDDEN

#: Fewer headings, or less text (in characters), need no table of contents.
FEWEST_HEADINGS, SHORTEST = 3, 1200
#: The anchors that the page's templates have themselves and a heading could get.
PAGE_ANCHORS = frozenset({"text"})

NOTE = re.compile(r"fn(?:ref)?:\d+(?::\d+)?")
HEADING = re.compile(r"<(h[2-6])>(.*?)</\1>", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Heading:
    """A heading of the body: its level from 2, its text, the anchor it bears; whether it stands below another listed one."""

    level: int
    text: str
    anchor: str
    nested: bool = False


@dataclass(frozen=True, kw_only=True)
class Body:
    """A sanitised HTML fragment, and the headings worth a table of contents (none when the post is short)."""

    html: str
    contents: Sequence[Heading]


def render_body(document: Document, *, back: str) -> Body:
    """No style, class, script or frame of the post's; links to http, https, mailto and its own footnotes alone.

    `back` names the link from a footnote to where it is mentioned.
    """
    html = _RENDERER.render(document.tokens, MARKDOWN.options, {"back": back})
    # Twice: where the first drops an element (a <select>, say), what stood in it may stand where it must not (<p> in <p>).
    html = _sanitised(_sanitised(html))
    html, headings = _anchored(_arranged(html))
    return Body(html=html, contents=_contents(headings, html))


class _Renderer(RendererHTML):
    """The parser's own renderer, with footnotes that lead there and back; it finds its rules by their names."""

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        token = tokens[idx]
        alt = self.renderInlineAsText(token.children, options, env)
        return f'<img src="{escape(str(token.attrs["src"]))}" alt="{escape(alt)}">'

    def footnote_ref(self, tokens: Sequence[Token], idx: int, _options: OptionsDict, _env: EnvType) -> str:
        token = tokens[idx]
        return f'<sup><a href="#fn:{_note(token)}" id="fnref:{_mention(token)}">[{_note(token)}]</a></sup>'

    def footnote_block_open(self, *_: object) -> str:
        return "<hr>\n<ol>\n"

    def footnote_block_close(self, *_: object) -> str:
        return "</ol>\n"

    def footnote_open(self, tokens: Sequence[Token], idx: int, _options: OptionsDict, _env: EnvType) -> str:
        return f'<li id="fn:{_note(tokens[idx])}">'

    def footnote_close(self, *_: object) -> str:
        return "</li>\n"

    def footnote_anchor(self, tokens: Sequence[Token], idx: int, _options: OptionsDict, env: EnvType) -> str:
        # The variation selector keeps phones from making an emoji of the arrow.
        return f' <a href="#fnref:{_mention(tokens[idx])}" title="{escape(env["back"])}">↩\ufe0e</a>'


_RENDERER = _Renderer()


def _note(token: Token) -> int:
    return int(token.meta["id"]) + 1


def _mention(token: Token) -> str:
    """A footnote's number, and which of several mentions this is."""
    again = token.meta.get("subId", 0)
    return f"{_note(token)}:{again}" if again > 0 else f"{_note(token)}"


def _sanitised(html: str) -> str:
    return nh3.clean(
        html,
        tags=set(TAGS),
        clean_content_tags=set(HIDDEN),
        attributes={**ATTRIBUTES, "a": {*ATTRIBUTES["a"], "id"}, "li": {"id"}},
        attribute_filter=lambda _tag, name, value: value if name != "id" or NOTE.fullmatch(value) else None,
        set_tag_attribute_values={"img": {"loading": "lazy", "decoding": "async"}},
        url_schemes={"http", "https", "mailto"},
        url_relative=lambda url: url if NOTE.fullmatch(url.removeprefix("#")) else None,
        link_rel=None,
    )


def _arranged(html: str) -> str:
    """What only a page can do. The sanitiser wrote every tag, and no `<` that is none, not even in an attribute."""
    html = re.sub(r"(</?)h1>", r"\1h2>", html)  # the title is the page's only heading of the first level
    html = re.sub(r'<(t[hd]) align="(left|center|right)">', r'<\1 class="\2">', html)
    return html.replace("<table>", '<div class="wide" tabindex="0"><table>').replace(
        "</table>", "</table></div>"
    )


def _anchored(html: str) -> tuple[str, Sequence[Heading]]:
    headings: list[Heading] = []

    def anchor(match: re.Match[str]) -> str:
        tag, inner = match[1], match[2]
        text = " ".join(HtmlReader(inner).text.split())
        if not text:
            return match[0]
        heading = Heading(level=int(tag[1]), text=text, anchor=_free(text, headings))
        headings.append(heading)
        return f'<{tag} id="{heading.anchor}">{inner}</{tag}>'

    return HEADING.sub(anchor, html), headings


def _free(text: str, taken: Sequence[Heading]) -> str:
    """By the heading's words, so that a link to it survives a new section above; never the page's own, nor a footnote's (they have colons)."""
    words = re.sub(r"[^\w]+", "-", text.lower()).strip("-") or "section"
    used = PAGE_ANCHORS | {heading.anchor for heading in taken}
    return next(name for number in range(1, len(used) + 2) if (name := _numbered(words, number)) not in used)


def _numbered(words: str, number: int) -> str:
    return words if number == 1 else f"{words}-{number}"


def _contents(headings: Sequence[Heading], html: str) -> Sequence[Heading]:
    """The two uppermost levels."""
    levels = sorted({heading.level for heading in headings})[:2]
    shown = [heading for heading in headings if heading.level in levels]
    if len(shown) < FEWEST_HEADINGS or len(HtmlReader(html).text) <= SHORTEST:
        return ()
    first = next(number for number, heading in enumerate(shown) if heading.level == levels[0])
    return [
        replace(heading, nested=number > first and heading.level > levels[0])
        for number, heading in enumerate(shown)
    ]
