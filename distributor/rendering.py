"""Markdown to HTML, plain text and a short outline; the template environment; measuring and cutting text.

`parse(post)` reads the Markdown once; every channel renders the same `Document`, so that what is checked here (no link
to nowhere, no control characters) and what is tidied here (no blank between Han characters) holds everywhere.
No platform is known here.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import nh3
from jinja2 import BaseLoader, ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment
from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.state_inline import Delimiter
from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode
from mdit_py_plugins.footnote import footnote_plugin

from distributor.errors import PostError
from distributor.model import Post
from distributor.settings import Newsletter, packaged

#: Controls a reader cannot see: C0 except tab and newline, DEL, C1 (Gmail clips mail that has them), and surrogates.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
HAN = re.compile(
    r"[\u2e80-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffee\U00020000-\U0003ffff“”‘’—…]"
)
#: After a sentence: CJK marks end one anywhere, Latin marks only before white space.
SENTENCE_END = re.compile(r"(?<=[。！？；])|(?<=[.!?;])(?=\s)|(?<=\n)")


# --- words a reader sees -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Wording:
    """What stands around a post on every channel, in one language."""

    read_on_web: str
    items_in_all: str
    joint: str
    date: Callable[[date], str]


# strftime would follow the server's locale, not the newsletter's language
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)

WORDING: Mapping[str, Wording] = {
    "zh-CN": Wording(
        read_on_web="阅读全文",
        items_in_all="……等 {count} 条",
        joint="：",
        date=lambda day: f"{day.year} 年 {day.month} 月 {day.day} 日 星期{'一二三四五六日'[day.weekday()]}",
    ),
    "en": Wording(
        read_on_web="Read on the web",
        items_in_all="… {count} items in all",
        joint=": ",
        date=lambda day: f"{_DAYS[day.weekday()]}, {day.day} {_MONTHS[day.month - 1]} {day.year}",
    ),
}


def language_of(post: Post, newsletter: Newsletter) -> str:
    """The post's language when its words exist, else the newsletter's."""
    return post.language if post.language and post.language in WORDING else newsletter.language


def headline(post: Post) -> str:
    """The title on one line, without control characters."""
    return " ".join(CONTROLS.sub(" ", post.title).split())


def local_day(post: Post, newsletter: Newsletter) -> date | None:
    """The post's date in the newsletter's time zone."""
    return post.date.astimezone(newsletter.zone).date() if post.date else None


def web_address(post: Post, newsletter: Newsletter) -> str | None:
    """Where the full text lives: the post's `url`, else by the newsletter's `url_pattern`. Percent-encoded."""
    address = post.url or newsletter.post_url(slug=post.slug, day=local_day(post, newsletter))
    return quote(address, safe=":/?#[]@!$&'()*+,;=%~") if address else None


# --- Markdown ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Document:
    """A parsed post: block tokens with tidied inline children, and what an editor should know."""

    tokens: Sequence[Token]
    warnings: Sequence[str]

    @property
    def tree(self) -> SyntaxTreeNode:
        return SyntaxTreeNode(self.tokens)


class _Markdown(MarkdownIt):
    """Parses every link as one, so that a forbidden scheme is refused with its line instead of shown as source."""

    def validateLink(self, url: str) -> bool:  # noqa: ARG002, N802 - the parser's own signature
        return True


def _emphasis(state: StateInline, silent: bool) -> bool:
    """CommonMark's rule, made to work beside Han characters: in `**“词”**后`, the second `**` closes.

    CommonMark asks for a blank or punctuation there, which Chinese does not write.
    """
    marker = state.src[state.pos]
    if silent or marker not in "_*":
        return False
    scanned = state.scanDelims(state.pos, marker == "*")
    before = state.src[state.pos - 1 : state.pos] or " "
    after = state.src[state.pos + scanned.length : state.pos + scanned.length + 1] or " "
    can_open, can_close = scanned.can_open, scanned.can_close
    if marker == "*":
        can_open = can_open or bool(HAN.match(before) and not after.isspace())
        can_close = can_close or bool(HAN.match(after) and not before.isspace())
    for _ in range(scanned.length):
        state.push("text", "", 0).content = marker
        state.delimiters.append(
            Delimiter(ord(marker), scanned.length, len(state.tokens) - 1, -1, can_open, can_close)
        )
    state.pos += scanned.length
    return True


def _fixed(html: str) -> Callable[..., str]:
    return lambda *_: html


def _footnote_number(_: object, tokens: Sequence[Token], index: int, *__: object) -> str:
    return f"<sup>[{tokens[index].meta['id'] + 1}]</sup>"


def _picture(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    alt = renderer.renderInlineAsText(token.children, options, env)
    return f'<img src="{escape(str(token.attrs["src"]))}" alt="{escape(alt)}" width="{env["picture_width"]}">'


def _raw_html(_: object, tokens: Sequence[Token], index: int, __: object, env: Any) -> str:
    img = f'<img width="{env["picture_width"]}"'
    return re.sub(r"<img\b(?![^>]*\swidth\s*=)", img, tokens[index].content, flags=re.IGNORECASE)


def _build_markdown() -> MarkdownIt:
    markdown = _Markdown("commonmark", {"html": True}).enable(["table", "strikethrough"]).use(footnote_plugin)
    markdown.inline.ruler.at("emphasis", _emphasis)
    markdown.add_render_rule("image", _picture)
    markdown.add_render_rule("html_inline", _raw_html)
    markdown.add_render_rule("html_block", _raw_html)
    # Links inside a mail lead nowhere: footnotes are numbers, without anchors.
    markdown.add_render_rule("footnote_ref", _footnote_number)
    markdown.add_render_rule("footnote_block_open", _fixed("<hr>\n<ol>\n"))
    markdown.add_render_rule("footnote_block_close", _fixed("</ol>\n"))
    markdown.add_render_rule("footnote_open", _fixed("<li>"))
    markdown.add_render_rule("footnote_close", _fixed("</li>\n"))
    markdown.add_render_rule("footnote_anchor", _fixed(""))
    return markdown


_MARKDOWN = _build_markdown()


def parse(post: Post) -> Document:
    """Reads the post's Markdown and checks every address in it.

    Raises:
        PostError: a link or picture that leads nowhere outside the author's own computer, with its line.
    """
    for name, address in (("cover_image", post.cover_image), ("url", post.url)):
        if address and not is_web(address):
            raise PostError(
                post.path, f"{name}: {address!r} leads nowhere: a full https:// address is expected"
            )
    tokens = _MARKDOWN.parse(CONTROLS.sub("", post.body.replace("\r\n", "\n").replace("\r", "\n")))
    tidier = _Tidier(post)
    for token in tokens:
        tidier.tidy(token)
    return Document(_demoted(tokens), tuple(dict.fromkeys(tidier.warnings)))


class _Tidier:
    """Walks the tokens in order: addresses are checked, line breaks become what a reader should see."""

    def __init__(self, post: Post) -> None:
        self.post, self.line, self.warnings = post, post.body_line, list[str]()

    def tidy(self, token: Token) -> None:
        if token.map:
            self.line = self.post.body_line + token.map[0]
        if token.type == "html_block":
            self.check_html(token)
        if align := re.search(r"text-align:(\w+)", str(token.attrs.pop("style", ""))):
            token.attrs["align"] = align[1]
        if token.children is not None:
            token.children = _joined_lines(list(self.checked(token.children)))

    def checked(self, children: Sequence[Token]) -> Iterator[Token]:
        unlinked = False
        for token in _without_scripts(children):
            if token.type == "link_open":
                unlinked = self.is_anchor(str(token.attrs.get("href", "")))
            if token.type == "image":
                self.check_picture(str(token.attrs.get("src", "")))
            if token.type == "html_inline":
                self.check_html(token)
            if not (unlinked and token.type in {"link_open", "link_close"}):
                yield token
            if token.type in {"softbreak", "hardbreak"}:
                self.line += 1

    def is_anchor(self, address: str) -> bool:
        """Whether the link must become plain text. Raises PostError for one that leads nowhere."""
        if address.startswith("#"):
            self.warnings.append(
                f"{self.post.path}:{self.line}: the link {address!r} leads into the page and is shown as text"
            )
            return True
        if not (is_web(address) or re.fullmatch(r"mailto:[^@\s]+@[^@\s]+", address, re.IGNORECASE)):
            self.refuse("link", address)
        return False

    def check_picture(self, address: str) -> None:
        if not is_web(address):
            self.refuse("picture", address)

    def check_html(self, token: Token) -> None:
        reader = HtmlReader(token.content)
        for address in reader.links:
            self.is_anchor(address)
        for address in reader.pictures:
            self.check_picture(address)

    def refuse(self, what: str, address: str) -> None:
        reason = f"a {what} to nowhere: {address!r}; readers need a full https:// (or mailto:) address"
        raise PostError(self.post.path, reason, self.line)


def _without_scripts(children: Sequence[Token]) -> Iterator[Token]:
    """What stands inside an inline <script> or <style> is no text for readers."""
    hidden = ""
    for token in children:
        tag = (
            re.match(r"<(/?)(script|style)\b", token.content, re.IGNORECASE)
            if token.type == "html_inline"
            else None
        )
        if tag:
            hidden = "" if tag[1] else tag[2]
        elif token.nesting or not hidden:  # tags stay, so that they stay paired
            yield token


def is_web(address: str) -> bool:
    """Whether it is a full http(s) address."""
    try:
        parts = urlsplit(address)
        return parts.scheme in {"http", "https"} and bool(re.fullmatch(r"[\w.:-]+", parts.hostname or ""))
    except ValueError:
        return False


def _joined_lines(children: Sequence[Token]) -> list[Token]:
    """A line break in the source is a blank, but nothing between Han characters, and stays one after a bold first line."""
    for index, token in enumerate(children):
        if token.type == "softbreak":
            before, after = _visible(children[index - 1 :: -1]), _visible(children[index + 1 :])
            if _is_one_strong(children[:index]):
                token.type, token.tag = "hardbreak", "br"
            else:
                joined = HAN.match(before[-1:]) and HAN.match(after[:1])
                token.type, token.content = "text", "" if joined else " "
    return list(children)


def _visible(children: Sequence[Token]) -> str:
    return next((token.content for token in children if token.content), "")


def _is_one_strong(children: Sequence[Token]) -> bool:
    """Whether exactly one bold span, and nothing beside it, is there."""
    seen = [token for token in children if token.type != "text" or token.content.strip()]
    kinds = [token.type for token in seen]
    return (
        bool(kinds)
        and (kinds[0], kinds[-1]) == ("strong_open", "strong_close")
        and kinds.count("strong_open") == 1
    )


def _demoted(tokens: Sequence[Token]) -> Sequence[Token]:
    """The post's title is the only heading of the first level."""
    if any(token.tag == "h1" for token in tokens):
        for token in tokens:
            if token.type.startswith("heading_"):
                token.tag = f"h{min(int(token.tag[1]) + 1, 6)}"
    return tokens


# --- HTML --------------------------------------------------------------------------------------------------------

TAGS = frozenset(
    (
        *("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "a", "img"),
        *("ul", "ol", "li", "dl", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td"),
        *("code", "em", "strong", "b", "i", "u", "s", "del", "small", "sub", "sup", "kbd", "mark"),
    )
)
ATTRIBUTES = {
    "a": {"href", "title"},
    "img": {"src", "alt", "title", "width"},
    "ol": {"start"},
    "th": {"align"},
    "td": {"align"},
}


def to_html(document: Document, *, picture_width: int) -> str:
    """The post's body as a sanitised HTML fragment: no style, class, script or frame; only http, https and mailto links.

    Every picture has a width of at most `picture_width` pixels (for clients that know no CSS).
    """
    html = _MARKDOWN.renderer.render(document.tokens, _MARKDOWN.options, {"picture_width": picture_width})

    def narrowed(tag: str, name: str, value: str) -> str | None:
        if (tag, name) == ("img", "width"):
            return (
                str(min(int(value), picture_width)) if re.fullmatch(r"\d{1,5}", value) else str(picture_width)
            )
        return value

    return nh3.clean(
        html,
        tags=set(TAGS),
        attributes=ATTRIBUTES,
        attribute_filter=narrowed,
        url_schemes={"http", "https", "mailto"},
        url_relative="deny",
        link_rel=None,
    )


class HtmlReader(HTMLParser):
    """Raw HTML inside Markdown: its `text` (comments, scripts and styles vanish), `links` and `pictures`."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.pieces, self.links, self.pictures = list[str](), list[str](), list[str]()
        self.hidden = ""
        self.feed(html)
        self.close()

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """`<![anything]` is a comment to browsers; the parser of Python 3.11 raises AssertionError."""
        return self.parse_bogus_comment(i, report)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in {"script", "style"}:
            self.hidden = tag
        if tag == "a" and "href" in values:
            self.links.append((values["href"] or "").strip())
        if tag == "img":
            self.pictures.append((values.get("src") or "").strip())
            self.pieces.append(values.get("alt") or "")
        if tag in {"br", "p", "div", "tr", "li"}:
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == self.hidden:
            self.hidden = ""

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.pieces.append(data)


# --- plain text --------------------------------------------------------------------------------------------------

LinkWriter = Callable[[str, str], str]


def text_only(text: str, address: str) -> str:  # noqa: ARG001 - a LinkWriter that leaves the address out
    return text


def text_and_address(text: str, address: str) -> str:
    """ "text (address)"; the address alone when the text says the same."""
    bare = address.removeprefix("mailto:")
    return bare if text.strip() in {"", bare, address} else f"{text} ({bare})"


def inline_text(node: SyntaxTreeNode, link: LinkWriter = text_only) -> str:
    """What a reader sees of an inline node, as plain text."""
    write = _INLINE.get(node.type)
    return write(node, link) if write else "".join(inline_text(child, link) for child in node.children)


def _link_text(node: SyntaxTreeNode, link: LinkWriter) -> str:
    text = "".join(inline_text(child, text_only) for child in node.children)
    return link(text, str(node.attrs.get("href", "")))


def _picture_text(node: SyntaxTreeNode, link: LinkWriter) -> str:
    return link(f"🖼 {picture_alt(node)}".strip(), str(node.attrs.get("src", "")))


def picture_alt(node: SyntaxTreeNode) -> str:
    return "".join(inline_text(child) for child in node.children) or node.content


_INLINE: Mapping[str, Callable[[SyntaxTreeNode, LinkWriter], str]] = {
    "text": lambda node, _: node.content,
    "code_inline": lambda node, _: node.content,
    "hardbreak": lambda *_: "\n",
    "html_inline": lambda node, _: HtmlReader(node.content).text,
    "footnote_ref": lambda node, _: f"[{node.meta['id'] + 1}]",
    "footnote_anchor": lambda *_: "",
    "image": _picture_text,
    "link": _link_text,
}


def to_text(document: Document, *, columns: int = 76) -> str:
    """The post's body as plain text, every address included, wrapped at `columns` (a Han character fills two)."""
    return "\n\n".join(_text_blocks(document.tree, columns))


def _text_blocks(node: SyntaxTreeNode, columns: int) -> list[str]:
    blocks = (_TEXT.get(child.type, _text_inner)(child, columns) for child in node.children)
    return [block for block in blocks if block.strip()]


def _text_inner(node: SyntaxTreeNode, columns: int) -> str:
    if node.type == "inline" or not node.children:
        return wrap(inline_text(node, text_and_address), columns)
    return "\n\n".join(_text_blocks(node, columns))


def _text_heading(node: SyntaxTreeNode, columns: int) -> str:
    text = _text_inner(node, columns)
    widest = max(map(display_width, text.split("\n")))
    return f"{text}\n{('=' if node.tag in {'h1', 'h2'} else '-') * widest}"


def _text_list(node: SyntaxTreeNode, columns: int) -> str:
    items = []
    for item, bullet in zip(node.children, list_bullets(node), strict=True):
        blocks = _text_blocks(item, columns - len(bullet) - 1)
        items.append(indent(("\n" if is_tight(node) else "\n\n").join(blocks), f"{bullet} "))
    return ("\n" if is_tight(node) else "\n\n").join(items)


def _text_table(node: SyntaxTreeNode, columns: int) -> str:
    return "\n".join(wrap(" | ".join(row), columns) for row in table_rows(node, text_and_address))


def _text_footnote(node: SyntaxTreeNode, columns: int) -> str:
    return indent(_text_inner(node, columns - 5), f"[{node.meta['id'] + 1}] ")


_TEXT: Mapping[str, Callable[[SyntaxTreeNode, int], str]] = {
    "heading": _text_heading,
    "bullet_list": _text_list,
    "ordered_list": _text_list,
    "blockquote": lambda node, columns: indent(_text_inner(node, columns - 2), "> ", "> "),
    "code_block": lambda node, _: indent(node.content.rstrip("\n"), "    ", "    "),
    "fence": lambda node, _: indent(node.content.rstrip("\n"), "    ", "    "),
    "hr": lambda *_: "-" * 20,
    "html_block": lambda node, columns: wrap(squeeze(HtmlReader(node.content).text), columns),
    "table": _text_table,
    "footnote": _text_footnote,
}


def is_tight(node: SyntaxTreeNode) -> bool:
    """Whether a list's items stand close together."""
    return not any(
        child.type == "paragraph" and not child.hidden for item in node.children for child in item.children
    )


def list_bullets(node: SyntaxTreeNode) -> list[str]:
    """One a list item: "•", or its number."""
    if node.type == "bullet_list":
        return ["•"] * len(node.children)
    start = int(node.attrs.get("start", 1))
    return [f"{number}." for number in range(start, start + len(node.children))]


def table_rows(node: SyntaxTreeNode, link: LinkWriter = text_only) -> list[list[str]]:
    """The cells' texts; the first row is the head."""
    rows = [row for part in node.children for row in part.children]
    return [[squeeze(inline_text(cell, link)) for cell in row.children] for row in rows]


def squeeze(text: str) -> str:
    """White space that means nothing becomes one blank."""
    return " ".join(text.split())


def indent(text: str, first: str, others: str | None = None) -> str:
    others = " " * len(first) if others is None else others
    lines = text.split("\n")
    return "\n".join([first + lines[0], *((others + line).rstrip() for line in lines[1:])])


# --- outline -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Item:
    """One piece of news: a list item, or a bold line with the paragraph below it."""

    title: str
    body: str = ""
    links: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and its items; the heading is empty before the first one."""

    heading: str
    items: Sequence[Item]


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A post's skeleton, for forms that have no room for it all."""

    lead: str
    sections: Sequence[Section]
    links: Sequence[str]

    @property
    def items(self) -> Sequence[Item]:
        """Every item; the section headings when the post has none."""
        items = [item for section in self.sections for item in section.items]
        return items or [Item(title=section.heading) for section in self.sections if section.heading]


def outline(document: Document) -> Outline:
    """The lead paragraph, sections with their items, and all links in order."""
    lead, heading, items = "", "", list[Item]()
    sections, title = list[Section](), None
    for node in document.tree.children:
        if node.type == "heading":
            sections.append(Section(heading=heading, items=items))
            heading, items = squeeze(inline_text(node)), []
        elif node.type in {"bullet_list", "ordered_list"}:
            items.extend(item for child in node.children if (item := _list_item(child)).title)
        elif node.type == "paragraph":
            text = squeeze(_text_without_pictures(node))
            if _is_bold_line(node):
                items.append(Item(title=text, links=links_in(node)))
            elif title is not None:
                items[-1] = Item(title=title.title, body=text, links=[*title.links, *links_in(node)])
            lead = lead or ("" if _is_bold_line(node) else text)
        title = items[-1] if node.type == "paragraph" and _is_bold_line(node) else None
    sections.append(Section(heading=heading, items=items))
    kept = [section for section in sections if section.heading or section.items]
    return Outline(lead=lead, sections=kept, links=links_in(document.tree))


def links_in(node: SyntaxTreeNode) -> list[str]:
    return [str(found.attrs["href"]) for found in node.walk() if found.type == "link"]


def _is_bold_line(node: SyntaxTreeNode) -> bool:
    inline = node.children[0].children
    return [child.type for child in inline if child.type != "text" or child.content.strip()] == ["strong"]


def _text_without_pictures(node: SyntaxTreeNode) -> str:
    if node.type == "image":
        return ""
    return (
        inline_text(node)
        if not node.children or node.type == "link"
        else "".join(map(_text_without_pictures, node.children))
    )


def _list_item(node: SyntaxTreeNode) -> Item:
    """A bold beginning is the title; else the first sentence is."""
    paragraphs = [child.children[0] for child in node.children if child.type == "paragraph"]
    if not paragraphs:
        return Item(title="")
    text = squeeze(_text_without_pictures(paragraphs[0]))
    parts = [child for child in paragraphs[0].children if child.type != "text" or child.content.strip()]
    bold = squeeze(inline_text(parts[0])) if parts and parts[0].type == "strong" else ""
    title = bold or first_sentence(text)
    rest = [text[len(title) :] if text.startswith(title) else "", *map(inline_text, paragraphs[1:])]
    body = squeeze(" ".join(rest)).lstrip("：:。 ")
    if body == squeeze(" ".join(inline_text(found) for found in node.walk() if found.type == "link")):
        body = ""  # a source at the end of the line; its link is kept
    return Item(title=title.rstrip("：:。 "), body=body, links=links_in(node))


def first_sentence(text: str) -> str:
    return next((part.strip() for part in SENTENCE_END.split(text) if part.strip()), "")


# --- templates ---------------------------------------------------------------------------------------------------


def template_environment(project: Path | None = None) -> Environment:
    """Templates by name, such as `email/issue.html.j2`: the project's `templates/` first, then the packaged ones."""
    folders = [project / "templates"] if project else []
    loaders: list[BaseLoader] = [FileSystemLoader(folder) for folder in [*folders, packaged("templates")]]
    return SandboxedEnvironment(
        loader=ChoiceLoader(loaders),
        autoescape=lambda name: name is not None and name.endswith((".html.j2", ".html")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


# --- measuring and cutting ---------------------------------------------------------------------------------------


def utf16_units(text: str) -> int:
    return len(text) + sum(character > "\uffff" for character in text)


def utf8_bytes(text: str) -> int:
    return len(text.encode())


def display_width(text: str) -> int:
    """Columns in a fixed-width font: wide characters fill two, combining ones none."""
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def safe_cut(text: str, length: int) -> int:
    """The longest cut ≤ `length` (in characters) that separates no accent, joiner or emoji from what it belongs to."""
    while 0 < length < len(text) and (_clings(text[length]) or text[length - 1] == "\u200d"):
        length -= 1
    return length


def _clings(character: str) -> bool:
    return (
        character == "\u200d"
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or unicodedata.category(character) in {"Mn", "Mc", "Me"}
    )


def cut(text: str, limit: int, measure: Callable[[str], int] = len, *, mark: str = "…") -> str:
    """`text` when it measures at most `limit`; else its beginning with `mark`. Empty when not even the mark fits."""
    if measure(text) <= limit:
        return text
    room = limit - measure(mark)
    if room < 0:
        return ""
    length = longest_prefix(len(text), lambda count: measure(text[:count]) <= room)
    return text[: safe_cut(text, length)].rstrip() + mark


def longest_prefix(length: int, fits: Callable[[int], bool]) -> int:
    """The largest count ≤ `length` that fits, when fitting only ever gets harder."""
    low, high = 0, length
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


#: What a line may not be broken inside: an address, a Latin word, a Han character with the punctuation around it.
_UNBREAKABLE = re.compile(
    r"\s+|[（《“‘「『【(]*(?:https?://[^\s)）]+|[^\s\u2e80-\u9fff\uac00-\ud7af\uff00-\uffef]+|\S)"
    r"[)）》”’」』】，。、；：！？,.;:!?…]*"
)


def wrap(text: str, columns: int) -> str:
    """Breaks lines at blanks and between Han characters; never inside a word or an address."""
    return "\n".join(line for paragraph in text.split("\n") for line in _wrapped(paragraph, max(columns, 10)))


def _wrapped(paragraph: str, columns: int) -> Iterator[str]:
    line, width = "", 0
    for piece in _UNBREAKABLE.findall(paragraph.strip()):
        size = display_width(piece)
        if line and width + size > columns and not piece.isspace():
            yield line.rstrip()
            line, width = "", 0
        line, width = (line + piece, width + size) if line or not piece.isspace() else ("", 0)
    yield line.rstrip()


def escape_text(text: str) -> str:
    """`&`, `<`, `>` only: the entities every HTML dialect knows."""
    return escape(text, quote=False)
