"""A post's Markdown, read once: addresses are checked, what Markdown means for Chinese is put right."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from markdown_it import MarkdownIt
from markdown_it.common.utils import unescapeAll
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.state_inline import Delimiter
from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode
from mdit_py_plugins.footnote import footnote_plugin

from distributor.errors import PostError
from distributor.model import Post
from distributor.rendering.addresses import bare_address, is_web
from distributor.rendering.cutting import CONTROLS, HAN, SHARED_MARKS
from distributor.rendering.pictures import host_html, host_picture, picture_doubts, write_html, write_picture
from distributor.rendering.raw_html import HIDDEN, TAG, HtmlReader
from distributor.rendering.tokens import close_up_headings, with_html_links, without_hidden


@dataclass(frozen=True)
class Document:
    """A parsed post: block tokens with tidied inline children, and what an editor should know."""

    tokens: Sequence[Token]
    warnings: Sequence[str]
    #: Address as the post has it → the line it stands in first; None for the cover.
    pictures: Mapping[str, int | None] = field(default_factory=dict)

    @cached_property
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


def _bare_link(state: StateInline, silent: bool) -> bool:
    """An address in the open is a link. It is read here, before emphasis could take `_` and `*` out of it."""
    if silent or state.src[state.pos] != ":" or state.linkLevel:
        return False
    scheme = re.search(r"(?<![A-Za-z0-9])https?$", state.pending[-6:], re.IGNORECASE)
    start = state.pos - len(scheme[0]) if scheme else state.pos
    address = bare_address(state.src, start)
    if not address:
        return False
    state.pending = state.pending[: start - state.pos]
    state.push("link_open", "a", 1).attrs = {"href": state.md.normalizeLink(unescapeAll(address))}
    state.push("text", "", 0).content = unescapeAll(address)
    state.push("link_close", "a", -1)
    state.pos = start + len(address)
    return True


def _fixed(html: str) -> Callable[..., str]:
    return lambda *_: html


def _footnote_number(_: object, tokens: Sequence[Token], index: int, *__: object) -> str:
    return f"<sup>[{tokens[index].meta['id'] + 1}]</sup>"


#: Levels of blocks and marks; a list item takes two. Renderers walk the tree, a few calls a level.
MOST_NESTED = 100


def build_markdown() -> MarkdownIt:
    # With CommonMark's own 20, a list ten levels deep ends the post without a word.
    markdown = (
        _Markdown("commonmark", {"html": True, "maxNesting": MOST_NESTED})
        .enable(["table", "strikethrough"])
        .use(footnote_plugin)
    )
    markdown.inline.ruler.at("emphasis", _emphasis)
    markdown.inline.ruler.after("text", "bare_link", _bare_link)
    markdown.add_render_rule("image", write_picture)
    markdown.add_render_rule("html_inline", write_html)
    markdown.add_render_rule("html_block", write_html)
    # Links inside a mail lead nowhere: footnotes are numbers, without anchors.
    markdown.add_render_rule("footnote_ref", _footnote_number)
    markdown.add_render_rule("footnote_block_open", _fixed("<hr>\n<ol>\n"))
    markdown.add_render_rule("footnote_block_close", _fixed("</ol>\n"))
    markdown.add_render_rule("footnote_open", _fixed("<li>"))
    markdown.add_render_rule("footnote_close", _fixed("</li>\n"))
    markdown.add_render_rule("footnote_anchor", _fixed(""))
    return markdown


MARKDOWN = build_markdown()


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
    source = CONTROLS.sub("", post.body.replace("\r\n", "\n").replace("\r", "\n"))
    tokens = without_hidden(MARKDOWN.parse(source))
    tidier = _Tidier(post)
    if post.cover_image:
        tidier.note_picture(post.cover_image, None)
    for token in tokens:
        tidier.tidy(token)
    close_up_headings(tokens)
    return Document(tokens, tuple(dict.fromkeys(tidier.warnings)), tidier.pictures)


class _Tidier:
    """Walks the tokens in order: addresses are checked, line breaks become what a reader should see."""

    def __init__(self, post: Post) -> None:
        self.post, self.line, self.warnings = post, post.body_line, list[str]()
        self.pictures = dict[str, int | None]()

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
        for token in with_html_links(list(_without_scripts(children))):
            if token.type == "link_open":
                unlinked = self.is_anchor(str(token.attrs.get("href", "")))
            if token.type == "image":
                self.check_picture(str(token.attrs.get("src", "")))
                host_picture(token, self.post.pictures)
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
        self.note_picture(address, self.line)

    def note_picture(self, address: str, line: int | None) -> None:
        self.pictures.setdefault(address, line)
        hosted = self.post.pictures.get(address)
        where = f"{self.post.path}:{line}" if line else f"{self.post.path}: cover_image"
        doubts = picture_doubts(address) if hosted is None else [hosted.trouble]
        self.warnings.extend(f"{where}: {doubt}" for doubt in doubts if doubt)

    def check_html(self, token: Token) -> None:
        reader = HtmlReader(token.content)
        for address in reader.links:
            self.is_anchor(address)
        for address in reader.pictures:
            self.check_picture(address)
        token.content = host_html(token.content, self.post.pictures)

    def refuse(self, what: str, address: str) -> None:
        reason = f"a {what} to nowhere: {address!r}; readers need a full https:// (or mailto:) address"
        raise PostError(self.post.path, reason, self.line)


def _without_scripts(children: Sequence[Token]) -> Iterator[Token]:
    """What stands inside an inline <script>, or another that hides its content, is no text for readers."""
    hidden = ""
    for token in children:
        tag = TAG.match(token.content) if token.type == "html_inline" else None
        if tag and tag[2].lower() in HIDDEN:
            hidden = "" if tag[1] else tag[2]
        elif token.nesting or not hidden:  # tags stay, so that they stay paired
            yield token


def _joined_lines(children: Sequence[Token]) -> list[Token]:
    """A line break in the source is a blank, but nothing between Han characters, and stays one after a bold first line."""
    first = next((index for index, token in enumerate(children) if token.type == "softbreak"), None)
    if first is not None and _is_one_strong(children[:first]):
        children[first].type, children[first].tag = "hardbreak", "br"
    for index, token in enumerate(children):
        if token.type == "softbreak":
            before = _visible(children[place] for place in range(index - 1, -1, -1))
            after = _visible(children[place] for place in range(index + 1, len(children)))
            token.type, token.content = "text", "" if _are_joined(before[-1:], after[:1]) else " "
    return list(children)


def _are_joined(before: str, after: str) -> bool:
    """Quotation marks and dashes are both languages': one of the two must be Han's own."""
    both = HAN.match(before) and HAN.match(after)
    return bool(both) and not (before in SHARED_MARKS and after in SHARED_MARKS)


def _visible(children: Iterable[Token]) -> str:
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
