"""A post as one mail: HTML that is complete with inline styles alone, and a text part that says the same.

Everything here runs once per issue, in one process: premailer is slow and its caches are not thread-safe.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from jinja2 import Environment

from distributor.errors import ConfigError, PostError
from distributor.model import Hosted, Message, Post
from distributor.rendering import (
    WORDING,
    Document,
    cut,
    headline,
    language_of,
    local_day,
    outline,
    parse,
    to_html,
    to_text,
    utf8_bytes,
    web_address,
    wrap,
)
from distributor.settings import Newsletter

UNSUBSCRIBE_URL = "__UNSUBSCRIBE_URL__"
VIEW_URL = "__VIEW_URL__"
PLACEHOLDERS = (UNSUBSCRIBE_URL, VIEW_URL)

#: Gmail clips near 102 KB. Such a mail is still sent: the clipped rest is one click away.
CLIPPED_ABOVE = 100_000
COLUMN = 536  # the sheet's 600 px without its padding
COVER = 600
PREHEADER = 110  # characters; phones show fewer


@dataclass(frozen=True, kw_only=True)
class Words:
    """What a mail says around the post."""

    why: str
    unsubscribe: str
    view: str
    original: str
    contact: str


WORDS: Mapping[str, Words] = {
    "zh-CN": Words(
        why="您收到这封邮件，是因为您订阅了《{title}》。",
        unsubscribe="退订",
        view="在浏览器中查看",
        original="阅读原文",
        contact="联系我们",
    ),
    "en": Words(
        why="You receive this mail because you subscribed to {title}.",
        unsubscribe="Unsubscribe",
        view="View in browser",
        original="Read the original",
        contact="Contact",
    ),
}


def render_email(post: Post, newsletter: Newsletter, templates: Environment) -> Message:
    """One message with the placeholders of PLACEHOLDERS in both parts.

    Raises:
        PostError: a link to nowhere, or a post that contains the name of a placeholder.
    """
    _refuse_placeholders(post)
    document = parse(post)
    facts = _facts(post, newsletter, document)
    text = templates.get_template("email/issue.txt.j2").render(facts, body=to_text(document))
    html = templates.get_template("email/issue.html.j2").render(
        facts, body=to_html(document, picture_width=COLUMN)
    )
    inlined = inline_css(html)
    _require_placeholders({"html": html, "text": text}, inlined)
    return Message(
        channel="email",
        variant="default",
        content=_content(post, newsletter, html=inlined, text=text),
        placeholders=PLACEHOLDERS,
        warnings=[*document.warnings, *_size_warnings(inlined)],
    )


def inline_css(html: str) -> str:
    """Moves the style sheet of a full document into its elements; `<style data-premailer="ignore">` stays as it is.

    The function form and these options are the ones that change nothing else: no network, no white space, no
    width or colour attributes of premailer's own.
    """
    from premailer import transform  # noqa: PLC0415 - 0.2 s that only rendering needs

    inlined: str = transform(
        html,
        allow_network=False,
        allow_loading_external_files=False,
        disable_validation=True,
        strip_important=True,
        remove_classes=False,
        disable_basic_attributes=["width", "height", "align", "valign", "bgcolor"],
        # cssutils reports every property it does not know (mso-…); our style sheets are tested instead
        cssutils_logging_level=logging.CRITICAL,
    )
    return inlined


def _facts(post: Post, newsletter: Newsletter, document: Document) -> Mapping[str, object]:
    """What the templates know."""
    language = language_of(post, newsletter)
    day, sender = local_day(post, newsletter), newsletter.sender
    return {
        "language": language,
        "words": WORDS[language],
        "newsletter": newsletter.title,
        "title": headline(post),
        "date": WORDING[language].date(day) if day else "",
        "categories": post.categories,
        "cover": post.cover_image,
        "cover_size": post.pictures.get(post.cover_image or "", Hosted("")).within(COVER),
        "preheader": cut(post.description or outline(document).lead, PREHEADER),
        "why": WORDS[language].why.format(title=newsletter.title),
        "original_url": web_address(post, newsletter),
        "postal_address": sender.postal_address,
        "contact": sender.contact or sender.reply_to or sender.address,
        "unsubscribe_url": UNSUBSCRIBE_URL,
        "view_url": VIEW_URL,
        "wrap": wrap,
    }


def _content(post: Post, newsletter: Newsletter, *, html: str, text: str) -> Mapping[str, str]:
    sender = newsletter.sender
    return {
        "subject": headline(post),
        "html": html,
        "text": text,
        "language": language_of(post, newsletter),
        "list_id": newsletter.list_id,
        "newsletter": newsletter.slug,
        "title": newsletter.title,
        "from_name": sender.name,
        "from_address": sender.address,
        "reply_to": sender.reply_to or "",
        "slug": post.slug,
    }


def _refuse_placeholders(post: Post) -> None:
    """A placeholder written by the author would give every reader's own unsubscribe link a second, public place."""
    texts = [(None, str(field)) for field in (post.title, post.description, post.url, post.cover_image)]
    lines = [(number, line) for number, line in enumerate(post.body.splitlines(), post.body_line)]
    for number, line in [*texts, *lines]:
        for name in PLACEHOLDERS:
            if name in line:
                raise PostError(post.path, f"{name} is a reserved word; write it differently", number)


def _require_placeholders(before: Mapping[str, str], inlined: str) -> None:
    """Raises ConfigError when a template lost a placeholder, or premailer changed one: then nobody could unsubscribe."""
    for name in PLACEHOLDERS:
        if missing := [part for part, content in before.items() if name not in content]:
            raise ConfigError([f"templates/email: {name} does not occur in the {' and '.join(missing)} part"])
        if inlined.count(name) != before["html"].count(name):
            raise ConfigError([f"templates/email: {name} was changed while the styles were inlined"])


def _size_warnings(html: str) -> list[str]:
    size = utf8_bytes(html)
    if size <= CLIPPED_ABOVE:
        return []
    return [f"the mail has {size // 1000} KB of HTML: Gmail clips at 102 KB and shows a link to the rest"]
