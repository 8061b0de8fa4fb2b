"""A post as an article of a WeChat Official Account: title, digest, content, all within what `draft/add` takes.

Limits: developers.weixin.qq.com, "新增草稿". They count characters; UTF-16 units are never fewer.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment

from distributor.channels.wechat.article import (
    ITEM,
    PARAGRAPH,
    SECTION,
    Article,
    Block,
    attribute,
    write_article,
)
from distributor.errors import ConfigError
from distributor.model import Message, Post
from distributor.rendering import (
    SENTENCE_END,
    WORDING,
    ai_label,
    cut,
    escape_text,
    headline,
    language_of,
    longest_prefix,
    outline,
    parse,
    squeeze,
    utf8_bytes,
    utf16_units,
    web_address,
)
from distributor.settings import Newsletter

TITLE, TITLE_SHOWN = 64, 32  # WeChat takes 64 characters; its lists, and its newer pages, know 32
AUTHOR, DIGEST, SOURCE_BYTES = 16, 128, 1024
MOST_CHARACTERS = 19_999
MOST_BYTES = 1_000_000
#: Characters of the address that a picture gets when WeChat hosts it; some 150 were seen.
HOSTED_ADDRESS = 160
#: A cut between sections or items is taken when it leaves at least this share of what there is room for.
GOOD_CUT = {SECTION: 0.75, ITEM: 0.5, PARAGRAPH: 0.0}


@dataclass(frozen=True, kw_only=True)
class Words:
    """What an article says around the post."""

    links: str
    notes: str
    both: str
    source: str


WORDS: Mapping[str, Words] = {
    "zh-CN": Words(links="参考链接", notes="注释", both="注释与参考链接", source="阅读原文"),
    "en": Words(links="Links", notes="Notes", both="Notes and links", source="Read the original"),
}


@dataclass(frozen=True, kw_only=True)
class Theme:
    """Styles by element, from `templates/wechat/theme.j2`; `essential` are those kept when room is short."""

    styles: Mapping[str, str]
    essential: Sequence[str]

    @property
    def lean(self) -> Mapping[str, str]:
        return {name: style for name, style in self.styles.items() if name in self.essential}


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What stands below the blocks, whatever is cut."""

    heading: str
    more: str
    label: str


def load_theme(templates: Environment) -> Theme:
    """Raises ConfigError when the template does not set both tables."""
    module = templates.get_template("wechat/theme.j2").module
    styles, essential = getattr(module, "styles", None), getattr(module, "essential", None)
    if not isinstance(styles, dict) or not isinstance(essential, list):
        raise ConfigError(["templates/wechat/theme.j2: it must set the tables `styles` and `essential`"])
    return Theme(styles=styles, essential=essential)


def render_wechat(post: Post, newsletter: Newsletter, templates: Environment) -> Message:
    """One message. Raises PostError for a link to nowhere."""
    document = parse(post)
    warnings = list(document.warnings)
    title = _title(post, warnings)
    address = _source_address(post, newsletter, warnings)
    lead = outline(document).lead
    theme = load_theme(templates)
    joint = WORDING[language_of(post, newsletter)].joint
    articles = (  # the second one is written only when the first is too long
        (styles, write_article(document, post.cover_image or "", styles, joint))
        for styles in (theme.styles, theme.lean)
    )
    content = _fitted(post, newsletter, articles, address, warnings)
    return Message(
        channel="wechat",
        variant="article",
        content={
            "newsletter": newsletter.slug,
            "title": title,
            "author": cut(newsletter.sender.name, AUTHOR, utf16_units),
            "digest": shortened(post.description or lead, DIGEST),
            "content": content,
            "content_source_url": address,
            "cover": post.cover_image or "",
        },
        warnings=warnings,
    )


def size(html: str) -> int:
    """Characters of a content once WeChat hosts its pictures."""
    addresses = re.findall(r'<img src="([^"]*)"', html)
    return utf16_units(html) + sum(max(HOSTED_ADDRESS - len(address), 0) for address in addresses)


def shortened(text: str, limit: int) -> str:
    """At most `limit` UTF-16 units: whole sentences, when they fill half of it; else whole words and "…"."""
    text = squeeze(text)
    if utf16_units(text) <= limit:
        return text
    sentences = [text[: found.start()].rstrip() for found in SENTENCE_END.finditer(text)]
    whole = max((part for part in sentences if utf16_units(part) <= limit), key=len, default="")
    if utf16_units(whole) * 2 >= limit:
        return whole
    beginning = cut(text, limit, utf16_units)
    if re.match(r"\w", text[len(beginning) - 1 : len(beginning)], re.ASCII):
        beginning = re.sub(r"(?<=\W)[\w'-]+…$", "…", beginning, flags=re.ASCII)
    return re.sub(r"[\s，、：；,:;]*…$", "…", beginning)


def _title(post: Post, warnings: list[str]) -> str:
    title = headline(post)
    if utf16_units(title) > TITLE:
        warnings.append(f"{post.path}: the title has more than {TITLE} characters and is cut for WeChat")
    elif utf16_units(title) > TITLE_SHOWN:
        warnings.append(
            f"{post.path}: the title has more than {TITLE_SHOWN} characters: WeChat may refuse it"
        )
    return cut(title, TITLE, utf16_units)


def _source_address(post: Post, newsletter: Newsletter, warnings: list[str]) -> str:
    address = web_address(post, newsletter) or ""
    if utf8_bytes(address) <= SOURCE_BYTES:
        return address
    warnings.append(f"{post.path}: the address of the full text is over {SOURCE_BYTES} bytes and left out")
    return ""


# ── fitting ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _fitted(
    post: Post,
    newsletter: Newsletter,
    articles: Iterator[tuple[Mapping[str, str], Article]],
    address: str,
    warnings: list[str],
) -> str:
    """The article with all its styles; else with the essential ones; else a teaser."""
    language = language_of(post, newsletter)
    for styles, article in articles:
        frame = Frame(heading=_heading(article, language), more="", label=ai_label(post, newsletter))
        content = _assembled(article.blocks, article, frame, styles)
        if _fits(content):
            return content
    more = f"{WORDING[language].read_on_web}{WORDING[language].joint}{address}" if address else "……"
    frame = Frame(heading=frame.heading, more=more, label=frame.label)
    blocks = _teaser(article, frame, styles)
    kept = sum(len(block.text) for block in blocks)
    whole = sum(len(block.text) for block in article.blocks)
    warnings.append(
        f"{post.path}: the article is over WeChat's {MOST_CHARACTERS + 1:,} characters: its first {kept / max(whole, 1):.0%} go out as a teaser"
        + ("" if address else "; give the post a `url`, so that readers find the rest")
    )
    return _assembled(blocks, article, frame, styles)


def _heading(article: Article, language: str) -> str:
    words = WORDS[language]
    if article.has_links and article.has_footnotes:
        return words.both
    return words.links if article.has_links else words.notes


def _fits(content: str) -> bool:
    return size(content) <= MOST_CHARACTERS and utf8_bytes(content) < MOST_BYTES


def _assembled(blocks: Sequence[Block], article: Article, frame: Frame, styles: Mapping[str, str]) -> str:
    def styled(tag: str, name: str, inner: str) -> str:
        return f"<{tag}{attribute('style', styles.get(name, ''))}>{inner}</{tag}>" if inner else ""

    # of the whole article, the notes of footnotes' own links too
    whole = len(blocks) == len(article.blocks) and blocks == article.blocks
    notes = article.notes if whole else article.notes[: blocks[-1].notes if blocks else 0]
    title = styled("p", "notes-title", escape_text(frame.heading))
    return styled(
        "section",
        "article",
        "".join(block.html for block in blocks)
        + styled("p", "more", escape_text(frame.more))
        + (styled("section", "notes", title + "".join(notes)) if notes else "")
        + styled("p", "label", escape_text(frame.label)),
    )


def _teaser(article: Article, frame: Frame, styles: Mapping[str, str]) -> Sequence[Block]:
    """As many blocks as there is room for, cut before a section, else an item, else a paragraph."""

    def fits(count: int) -> bool:
        return _fits(_assembled(article.blocks[:count], article, frame, styles))

    most = longest_prefix(len(article.blocks), fits)
    for level, share in GOOD_CUT.items():
        for count in range(most, int(most * share), -1):
            if article.blocks[count].level <= level and article.blocks[count - 1].level != SECTION:
                return article.blocks[:count]
    return [*article.blocks[:most], *_piece(article, most, frame, styles)]


def _piece(article: Article, most: int, frame: Frame, styles: Mapping[str, str]) -> Sequence[Block]:
    """The beginning of a block that is too long by itself, as plain text up to a sentence's end."""
    block, before = article.blocks[most], article.blocks[:most]

    def written(length: int) -> Block:
        text = block.text[:length]
        ends = [found.start() for found in SENTENCE_END.finditer(text) if found.start() * 2 > length]
        text = text[: ends[-1]] if ends else cut(block.text, max(length, 1))
        html = f"<p{attribute('style', styles.get('p', ''))}>{escape_text(text)}</p>"
        return Block(html, text, PARAGRAPH, before[-1].notes if before else 0)

    length = longest_prefix(
        len(block.text), lambda count: _fits(_assembled([*before, written(count)], article, frame, styles))
    )
    return [written(length)] if length else []
