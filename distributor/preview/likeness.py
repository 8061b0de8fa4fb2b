"""Messages as the other side shows them. Nothing of a message's own markup reaches the page that shows it.

Telegram's and WeCom's texts go through the sandbox's readers, which know what the real ones make of them. A mail and an
article keep their HTML, and are shown in frames that run no script.
"""

import re
from collections.abc import Mapping

from markupsafe import Markup

from distributor.rendering import HtmlReader
from distributor.sandbox.markup import MarkupError, parse_html
from distributor.sandbox.pages import telegram_html, wecom_html

#: What a client's inbox row has room for, in characters.
INBOX_ROW = 140
#: Invisible characters that mails put behind their preheader, so that no other text follows it in the inbox row.
_PADDING = re.compile("[\u00ad\u034f\u200b\u200c\u2007\ufeff]")
_STYLE = re.compile(r"(<style\b[^>]*>)(.*?)(</style>)", re.IGNORECASE | re.DOTALL)
_MEDIA = re.compile(r"""(\bmedia\s*=\s*)("[^"]*"|'[^']*')""", re.IGNORECASE)
_SCHEME = re.compile(r"\(\s*prefers-color-scheme\s*:\s*(light|dark)\s*\)", re.IGNORECASE)
#: A block ends its line; Telegram counts the line break behind it as that end, a browser as another one.
_AFTER_BLOCK = re.compile(r"(</(?:pre|blockquote)>)\n")
_HEAD = re.compile(r"<head\b[^>]*>", re.IGNORECASE)
#: Media features that always, and never, hold: they stand where a question about the colour scheme stood.
_HOLDS, _NEVER = "(min-width: 0)", "(max-width: 0)"


def mail(html: str, *, dark: bool) -> str:
    """The mail as a client in that colour scheme shows it, whatever the scheme of the browser that looks.

    Its own `prefers-color-scheme` rules are settled here; links open a new window.
    """
    wanted = "dark" if dark else "light"

    def settle(css: str) -> str:
        return _SCHEME.sub(lambda match: _HOLDS if match[1].lower() == wanted else _NEVER, css)

    html = _STYLE.sub(lambda match: settle(match[1]) + settle(match[2]) + match[3], html)
    html = _MEDIA.sub(lambda match: match[1] + settle(match[2]), html)
    extra = f'<base target="_blank"><style>:root {{ color-scheme: only {wanted}; }}</style>'
    head = _HEAD.search(html)
    return html[: head.end()] + extra + html[head.end() :] if head else extra + html


def preheader(html: str) -> str:
    """What an inbox shows behind the subject: the mail's first words, hidden ones included."""
    body = html[max(html.lower().find("<body"), 0) :]
    text = " ".join(HtmlReader(body).text.split())
    return _PADDING.split(text, maxsplit=1)[0].strip()[:INBOX_ROW]


def bubble(html: str) -> Markup:
    """A Telegram part as its server reads it; the raw text, and why, when it would refuse it."""
    try:
        parsed = parse_html(html)
    except MarkupError as error:
        return Markup("<strong>Telegram would refuse this: {}</strong>\n{}").format(error, html)
    shown = telegram_html(parsed.text, [entity.to_json() for entity in parsed.entities])
    return Markup(_AFTER_BLOCK.sub(r"\1", str(shown)))  # noqa: S704 - a line break less, of what is safe already


def card(variant: str, content: Mapping[str, str]) -> Markup:
    """A WeCom robot's text as the group sees it."""
    kind = "text" if "text" in content else variant
    return wecom_html({"msgtype": kind, "content": content.get("markdown") or content.get("text") or ""})


def plain(content: Mapping[str, str]) -> Markup:
    """Whatever else: each text of the content under its name."""
    pieces = [Markup("<dt>{}</dt><dd>{}</dd>").format(name, text) for name, text in content.items()]
    return Markup("").join(pieces)
