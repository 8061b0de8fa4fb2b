"""A post as an article of a WeChat Official Account: title, digest, content, all within what `draft/add` takes.

Limits: developers.weixin.qq.com, "新增草稿". They count characters; UTF-16 units are never fewer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from jinja2 import Environment

from distributor.channels.wechat.article import Article, Block, write_article
from distributor.channels.wechat.fitting import MOST_CHARACTERS, Sheet, fits, teaser
from distributor.errors import ConfigError, PostError
from distributor.model import Message, Post
from distributor.rendering import (
    WORDING,
    Document,
    ai_label,
    cut,
    headline,
    language_of,
    parse,
    summary,
    utf8_bytes,
    utf16_units,
    web_address,
)
from distributor.settings import Newsletter

TITLE, TITLE_SHOWN = 64, 32  # WeChat takes 64 characters; its lists, and its newer pages, know 32
AUTHOR, DIGEST, SOURCE_BYTES = 16, 128, 1024
#: Between blocks without styles: four characters for what a margin needs thirty.
BLANK_LINE = "<br>"


@dataclass(frozen=True, kw_only=True)
class Words:
    """What an article says around the post."""

    links: str
    notes: str
    both: str

    def heading(self, article: Article) -> str:
        """Of the notes below an article."""
        if article.has_links and article.has_footnotes:
            return self.both
        return self.links if article.has_links else self.notes


WORDS: Mapping[str, Words] = {
    "zh-CN": Words(links="参考链接", notes="注释", both="注释与参考链接"),
    "en": Words(links="Links", notes="Notes", both="Notes and links"),
}


@dataclass(frozen=True, kw_only=True)
class Theme:
    """Styles by element, from `templates/wechat/theme.j2`; `essential` are those kept when room is short."""

    styles: Mapping[str, str]
    essential: Sequence[str]

    @property
    def lean(self) -> Mapping[str, str]:
        return {name: style for name, style in self.styles.items() if name in self.essential}

    @property
    def bare(self) -> Mapping[str, str]:
        return {name: style for name, style in self.styles.items() if name == "article"}


def load_theme(templates: Environment) -> Theme:
    """Raises ConfigError when the template does not set both tables."""
    module = templates.get_template("wechat/theme.j2").module
    styles, essential = getattr(module, "styles", None), getattr(module, "essential", None)
    if not isinstance(styles, dict) or not isinstance(essential, list):
        raise ConfigError(["templates/wechat/theme.j2: it must set the tables `styles` and `essential`"])
    return Theme(styles=styles, essential=essential)


def render_wechat(post: Post, newsletter: Newsletter, templates: Environment) -> Message:
    """One message. Raises PostError for a link to nowhere, for a post in which nothing can be seen, and for want of a cover."""
    document = parse(post)
    _require_cover(post, newsletter)
    warnings = list(document.warnings)
    title = _title(post, warnings)
    address = _source_address(post, newsletter, warnings)
    content = _content(post, newsletter, document, load_theme(templates), address)
    if not content.html:
        raise PostError(post.path, "nothing of this post can be seen in an article: write a text")
    if content.cut:
        warnings.append(f"{post.path}: {content.cut}")
    return Message(
        channel="wechat",
        variant="article",
        content={
            "newsletter": newsletter.slug,
            "title": title,
            "author": cut(newsletter.sender.name, AUTHOR, utf16_units),
            "digest": summary(post, document, DIGEST, utf16_units),
            "content": content.html,
            "content_source_url": address,
            "cover": post.cover_image or "",
        },
        warnings=warnings,
    )


def _require_cover(post: Post, newsletter: Newsletter) -> None:
    table = newsletter.channel_settings.wechat
    bare = [place.name for place in (table.destinations if table else ()) if not place.default_cover]
    if bare and not post.cover_image:
        raise PostError(
            post.path,
            "no cover, and WeChat takes no article without one: give the post a `cover_image`, or set `default_cover` for "
            f"{', '.join(bare)} under [[channels.wechat.destinations]] in config/newsletters/{newsletter.slug}.toml",
        )


class Content(NamedTuple):
    """An article's HTML, and what an editor should know when it is not all of the post."""

    html: str
    cut: str = ""


def _content(post: Post, newsletter: Newsletter, document: Document, theme: Theme, address: str) -> Content:
    """The article with all its styles; else with the essential ones; else with next to none; else a teaser."""
    language = language_of(post, newsletter)

    def sheet_with(styles: Mapping[str, str], gap: str = "") -> Sheet:
        article = write_article(document, post.cover_image or "", styles, WORDING[language].joint)
        heading, label = WORDS[language].heading(article), ai_label(post, newsletter)
        return Sheet(article=article, styles=styles, heading=heading, label=label, gap=gap)

    if fits(html := sheet_with(theme.styles).html()):
        return Content(html)
    if fits(html := (lean := sheet_with(theme.lean)).html()):
        return Content(html)
    if fits(html := sheet_with(theme.bare, BLANK_LINE).html()):
        return Content(html)
    more = f"{WORDING[language].read_on_web}{WORDING[language].joint}{address}" if address else "……"
    blocks = teaser(sheet := replace(lean, more=more))
    return Content(sheet.html(blocks), _told(blocks, lean.article.blocks, address))


def _told(kept: Sequence[Block], whole: Sequence[Block], address: str) -> str:
    share = sum(len(block.text) for block in kept) / max(sum(len(block.text) for block in whole), 1)
    return (
        f"the article is over WeChat's {MOST_CHARACTERS + 1:,} characters: its first {share:.0%} go out as a teaser"
        + ("" if address else "; give the post a `url`, so that readers find the rest")
    )


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
