"""A post as one mail: HTML that is complete with inline styles alone, and a text part that says the same.

Everything here runs once per issue, in one process: premailer is slow and its caches are not thread-safe.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from threading import Lock
from typing import NamedTuple

from jinja2 import Environment
from markdown_it.token import Token

from distributor.channels.email.layout import lay_out
from distributor.channels.email.theme import theme_facts
from distributor.channels.email.words import WORDS
from distributor.errors import ConfigError, PostError
from distributor.model import Hosted, Message, Post
from distributor.rendering import (
    HAN,
    WORDING,
    Document,
    ai_label,
    headline,
    inline_text,
    language_of,
    local_day,
    longest_prefix,
    parse,
    squeeze,
    summary,
    to_html,
    to_text,
    utf8_bytes,
    web_address,
    wrap,
)
from distributor.settings import EmailChannelSettings, Newsletter

_LATIN_BESIDE_HAN = re.compile(rf"(?<=[!-~])\s+(?={HAN.pattern})|(?<={HAN.pattern})\s+(?=[!-~])")

UNSUBSCRIBE_URL = "__UNSUBSCRIBE_URL__"
PREFERENCES_URL = "__PREFERENCES_URL__"
VIEW_URL = "__VIEW_URL__"
PLACEHOLDERS = (UNSUBSCRIBE_URL, PREFERENCES_URL, VIEW_URL)
#: What no template may leave out.
REQUIRED = (UNSUBSCRIBE_URL, VIEW_URL)

#: Gmail clips near 102 KB of HTML; whether it counts it encoded (a third more) is disputed: 75 KB are safe either way.
LARGE, TOO_LARGE = 70_000, 100_000
COLUMN = 536  # the sheet's 600 px without its padding
COVER = 600
PREHEADER = 110  # characters; phones show fewer
SUMMARY = 400  # characters, of a post whose first block is too large for a mail
#: premailer's caches and cssutils are not made for threads: 1 wrong output in 320, measured under forced switching.
_INLINER = Lock()
#: A post with fewer sections, or less text (characters), is seen at a glance and needs no table of contents.
CONTENTS_SECTIONS, CONTENTS_TEXT = 3, 1500


@dataclass(frozen=True, kw_only=True)
class _Rendered:
    """Both parts of a mail."""

    html: str
    text: str


def render_email(post: Post, newsletter: Newsletter, templates: Environment) -> Message:
    """One message with the placeholders of PLACEHOLDERS in both parts.

    A mail above TOO_LARGE becomes a teaser with a link to the whole, where there is one, or what `over_size` says.

    Raises:
        PostError: a link to nowhere, a post that contains the name of a placeholder, or one that is too large.
    """
    _refuse_placeholders(post)
    document = parse(post)
    rendered = _rendered(post, newsletter, templates, document)
    size, warnings = utf8_bytes(rendered.html), list(document.warnings)
    if size > TOO_LARGE:
        rendered, told = _made_to_fit(post, newsletter, templates, document, rendered)
        warnings.append(told)
    elif size > LARGE:
        warnings.append(f"{post.path}: the mail has {_kb(size)} of HTML; Gmail clips at 102 KB")
    return Message(
        channel="email",
        variant="default",
        content=_content(post, newsletter, rendered),
        placeholders=PLACEHOLDERS,
        warnings=warnings,
    )


def inline_css(html: str) -> str:
    """Moves the style sheet of a full document into its elements; `<style data-premailer="ignore">` stays as it is.

    The function form and these options are the ones that change nothing else: no network, no white space, no
    width or colour attributes of premailer's own.
    """
    from premailer import transform  # noqa: PLC0415 - 0.2 s that only rendering needs

    with _INLINER:
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


def _rendered(
    post: Post, newsletter: Newsletter, templates: Environment, document: Document, *, shortened: bool = False
) -> _Rendered:
    """Raises ConfigError for a template without the way out."""
    facts = {**_facts(post, newsletter, document), "shortened": shortened}
    footnotes = any(token.type == "footnote_block_open" for token in document.tokens)
    body = lay_out(
        to_html(document, picture_width=COLUMN),
        joint=WORDING[language_of(post, newsletter)].joint,
        footnotes=footnotes,
    )
    plain = to_text(document)
    _refuse_rendered_placeholders(post, [body, plain, *map(str, _authors_facts(facts).values())])
    text = templates.get_template("email/issue.txt.j2").render(facts, body=plain)
    html = templates.get_template("email/issue.html.j2").render(facts, body=body)
    inlined = inline_css(html)
    _require_placeholders({"html": html, "text": text}, inlined)
    return _Rendered(html=inlined, text=text)


# --- size --------------------------------------------------------------------------------------------------------


def _made_to_fit(
    post: Post, newsletter: Newsletter, templates: Environment, document: Document, whole: _Rendered
) -> tuple[_Rendered, str]:
    """What is sent instead of a mail that Gmail would clip, and what the editor is told."""
    size = f"the mail has {_kb(utf8_bytes(whole.html))} of HTML, and Gmail clips at 102 KB"
    policy = (newsletter.channel_settings.email or EmailChannelSettings()).over_size
    if policy == "refuse":
        raise PostError(post.path, f"{size}: shorten the post, or set over_size of [channels.email]")
    if policy == "send":
        return whole, f"{post.path}: {size}; it is sent whole (over_size)"
    if not web_address(post, newsletter):
        return whole, f"{post.path}: {size}; it is sent whole, since the full text has no address on the web"
    ends = _ends(document.tokens)

    @cache  # the last look is the one that is sent
    def teaser(count: int) -> _Rendered:
        shown = _beginning(document, ends[count - 1]) if count else parse(_summarised(post, document))
        return _rendered(post, newsletter, templates, shown, shortened=True)

    # A block and its share of the whole tell about where to look: each look costs a rendering.
    most = min(len(ends), len(ends) * 2 * LARGE // utf8_bytes(whole.html))
    count = longest_prefix(most, lambda count: utf8_bytes(teaser(count).html) <= LARGE)
    told = f"{post.path}: {size}; the mail is shortened to a teaser with a link to the full text"
    return teaser(count), told


def _summarised(post: Post, document: Document) -> Post:
    return replace(post, body=summary(post, document, SUMMARY))


class _End(NamedTuple):
    """Where the post may be cut: behind so many tokens; inside a list, `closing` ends it."""

    tokens: int
    closing: Token | None = None


def _ends(tokens: Sequence[Token]) -> Sequence[_End]:
    """Behind blocks and items of lists, up to the footnotes."""
    ends, opened = list[_End](), Token("", "", 0)
    for count, token in enumerate(tokens, 1):
        if token.type == "footnote_block_open":
            break
        if token.level == 0 and token.nesting > 0:
            opened = token
        elif token.level == 0:
            ends.append(_End(count))
        elif token.level == 1 and token.type == "list_item_close":
            ends.append(
                _End(count, Token(opened.type.replace("_open", "_close"), opened.tag, -1, block=True))
            )
    return ends


def _beginning(document: Document, end: _End) -> Document:
    closing = [end.closing] if end.closing else []
    return Document(_without_notes([*document.tokens[: end.tokens], *closing]), document.warnings)


def _without_notes(tokens: Sequence[Token]) -> Sequence[Token]:
    """Without a heading at the foot, and without marks of footnotes, which stand at the end of the whole."""
    while len(tokens) > 2 and tokens[-1].type == "heading_close":
        tokens = tokens[:-3]
    return [_without_marks(token) for token in tokens]


def _without_marks(token: Token) -> Token:
    children = [child for child in token.children or () if child.type != "footnote_ref"]
    return token if len(children) == len(token.children or ()) else token.copy(children=children)


def _kb(size: int) -> str:
    return f"{size / 1000:.0f} KB"


# --- facts -------------------------------------------------------------------------------------------------------


def frame_facts(newsletter: Newsletter, language: str) -> Mapping[str, object]:
    """What every mail of a newsletter shows around its text."""
    sender = newsletter.sender
    return {
        **theme_facts(newsletter.theme),
        "language": language,
        "words": WORDS[language],
        "wording": WORDING[language],
        "newsletter": newsletter.title,
        "postal_address": sender.postal_address,
        "contact": sender.contact or sender.reply_to or sender.address,
        "wrap": wrap,
    }


def envelope_content(newsletter: Newsletter, language: str) -> Mapping[str, str]:
    """What the transport needs of every mail of a newsletter, beside its subject, texts and slug."""
    sender = newsletter.sender
    return {
        "language": language,
        "list_id": newsletter.list_id,
        "newsletter": newsletter.slug,
        "title": newsletter.title,
        "from_name": sender.name,
        "from_address": sender.address,
        "reply_to": sender.reply_to or "",
    }


def _facts(post: Post, newsletter: Newsletter, document: Document) -> Mapping[str, object]:
    """What the templates of an issue know."""
    language = language_of(post, newsletter)
    day = local_day(post, newsletter)
    return {
        **frame_facts(newsletter, language),
        "subject": _subject(post, newsletter),
        "title": headline(post),
        "date": WORDING[language].date(day) if day else "",
        "categories": post.categories,
        "cover": post.cover_image,
        "cover_size": post.pictures.get(post.cover_image or "", Hosted("")).within(COVER),
        "preheader": summary(post, document, PREHEADER, len),
        "sections": _contents(document, language) if len(post.body) >= CONTENTS_TEXT else [],
        "ai": ai_label(post, newsletter),
        "why": WORDS[language].why.format(title=newsletter.title),
        "original_url": web_address(post, newsletter),
        "unsubscribe_url": UNSUBSCRIBE_URL,
        "preferences_url": PREFERENCES_URL,
        "view_url": VIEW_URL,
    }


def _contents(document: Document, language: str) -> Sequence[Mapping[str, str]]:
    """The headings of the highest level with how many list items stand below each, when there are several.

    Without links: a third of the readers' programs (Gmail on iOS, Outlook and Samsung on phones) do not follow a link
    inside a mail, as caniemail's html-anchor-links has it.
    """
    nodes = document.tree.children
    top = min((node.tag for node in nodes if node.type == "heading"), default="")
    headings, counts = list[str](), list[int]()
    for node in nodes:
        if node.type == "heading" and node.tag == top:
            headings.append(squeeze(inline_text(node)))
            counts.append(0)
        elif node.type in {"bullet_list", "ordered_list"} and counts:
            counts[-1] += len(node.children)
    note = WORDS[language].items
    entries = [
        {"heading": heading, "note": note.format(count=count) if count > 1 else ""}
        for heading, count in zip(headings, counts, strict=True)
        if heading
    ]
    return entries if len(entries) >= CONTENTS_SECTIONS else []


def _subject(post: Post, newsletter: Newsletter) -> str:
    prefix = (newsletter.channel_settings.email or EmailChannelSettings()).subject_prefix
    return subject_line(f"{prefix}{headline(post)}")


def subject_line(text: str) -> str:
    """The subject, without what SpamAssassin's SUBJ_ALL_CAPS (0.5 points) takes for shouting.

    A Chinese subject whose only Latin letters are an "AI" has no lower-case ones; the rule asks for a blank as well,
    and one between Han and Latin is mere typography. What has blanks between Latin words is left as it is.
    """
    letters = re.sub("[^A-Za-z]", "", text)
    shouts = bool(letters) and letters == letters.upper()
    return _LATIN_BESIDE_HAN.sub("", text) if shouts else text


def _content(post: Post, newsletter: Newsletter, rendered: _Rendered) -> Mapping[str, str]:
    return {
        **envelope_content(newsletter, language_of(post, newsletter)),
        "subject": _subject(post, newsletter),
        "html": rendered.html,
        "text": rendered.text,
        "slug": post.slug,
    }


# --- placeholders ------------------------------------------------------------------------------------------------


def _refuse_placeholders(post: Post) -> None:
    """A placeholder written by the author would give every reader's own unsubscribe link a second, public place."""
    texts = [(None, str(field)) for field in (post.title, post.description, post.url, post.cover_image)]
    lines = [(number, line) for number, line in enumerate(post.body.splitlines(), post.body_line)]
    for number, line in [*texts, *lines]:
        for name in PLACEHOLDERS:
            if name in line:
                raise PostError(post.path, f"{name} is a reserved word; write it differently", number)


def _authors_facts(facts: Mapping[str, object]) -> Mapping[str, object]:
    return {name: fact for name, fact in facts.items() if fact not in PLACEHOLDERS}


def _refuse_rendered_placeholders(post: Post, texts: Sequence[str]) -> None:
    """The same of what the author's text became: an escape or an entity in the source may hide the name."""
    for name in PLACEHOLDERS:
        if any(name in text for text in texts):
            raise PostError(post.path, f"{name} is a reserved word, also when it is written with escapes")


def _require_placeholders(before: Mapping[str, str], inlined: str) -> None:
    """Raises ConfigError when a template lost a placeholder, or premailer changed one: then nobody could unsubscribe."""
    for name in PLACEHOLDERS:
        missing = [part for part, content in before.items() if name not in content]
        if missing and name in REQUIRED:
            raise ConfigError([f"templates/email: {name} does not occur in the {' and '.join(missing)} part"])
        if inlined.count(name) != before["html"].count(name):
            raise ConfigError([f"templates/email: {name} was changed while the styles were inlined"])
