"""The inbox to look at: no script, nothing from outside, and no trust in what was sent."""

import base64
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import unescape
from importlib.resources import files
from itertools import pairwise
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from jinja2 import Environment, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from distributor.sandbox.checks import first_text, header, parse_mail
from distributor.sandbox.inbox import CHANNELS, Entry, Inbox
from distributor.sandbox.talking import Talking

PAGE_SIZE = 50
#: The mail's own frame inherits this too: no image, font or script is ever fetched.
CSP = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "form-action 'self'; base-uri 'self'; frame-ancestors 'none'"
)
#: entity type → the element that shows it
ELEMENTS = {
    "bold": "b",
    "italic": "i",
    "underline": "u",
    "strikethrough": "s",
    "code": "code",
    "pre": "pre",
    "blockquote": "blockquote",
    "expandable_blockquote": "blockquote",
}
COLOURS = re.compile(r"&lt;font color=&quot;(info|comment|warning)&quot;&gt;(.*?)&lt;/font&gt;", re.DOTALL)
PRIVATE = re.compile(r"[1-9]\d{0,18}")
URL = re.compile(r"https?://[^\s<>\"'，。；、）】]+")


def inbox_page(
    inbox: Inbox, *, channel: str = "", search: str = "", page: int = 1, talks: bool = False
) -> str:
    """The list, newest first. `talks`: a bot is there to talk to."""
    found = inbox.entries(channel or None, search=search)[::-1]
    pages = max(1, -(-len(found) // PAGE_SIZE))
    page = min(max(page, 1), pages)
    shown = found[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
    return _render(
        view="list",
        title="Inbox",
        counts=inbox.counts(),
        rows=[_row(entry) for entry in shown],
        channel=channel,
        search=search,
        page=page,
        pages=pages,
        total=len(found),
        talks=talks,
    )


def mail_page(inbox: Inbox, number: int) -> str:
    """One mail: as HTML, as text, its headers, its source. Raises KeyError when there is none."""
    entry = inbox.entry(number)
    raw = inbox.mail(number)
    message = parse_mail(raw)
    return _render(
        view="mail",
        title=header(message, "Subject") or "(no subject)",
        entry=entry,
        html=_new_window(first_text(message, "text/html")),
        text=first_text(message, "text/plain"),
        headers=[(name, header(message, name)) for name in dict.fromkeys(message.keys())],
        source=raw.decode("utf-8", "replace"),
        size=len(raw),
    )


def chat_page(inbox: Inbox, address: str, talking: Talking) -> str:
    """A Telegram chat, with what its user said. Raises KeyError when nothing was sent there, unless it can be begun."""
    private = bool(PRIVATE.fullmatch(address) and talking.is_heard)
    said = [{"entry": one, "mine": one.text} for one in talking.said[address]] if private else []
    if not (private and not inbox.entries("telegram", address)):
        said += _cards(inbox, "telegram", address)
    return _render(
        view="chat",
        title=f"Telegram {address}",
        address=address,
        talks=private,
        blocked=private and talking.is_blocked(talking.bots[-1], address),
        toast=next((text for chat, text in reversed(talking.toasts) if chat == address), ""),
        cards=sorted(said, key=lambda card: card["entry"].at),
    )


def robot_page(inbox: Inbox, address: str) -> str:
    """A WeCom group, by its robot's masked key. Raises KeyError when nothing was sent there."""
    return _render(
        view="robot", title=f"WeCom robot {address}", talks=False, cards=_cards(inbox, "wecom", address)
    )


def article_page(inbox: Inbox, number: int, pictures: Mapping[str, bytes]) -> str:
    """One article of an Official Account, with the pictures that were uploaded. Raises KeyError when there is none."""
    entry = inbox.entry(number)
    if entry.channel != "wechat" or not entry.accepted:
        raise KeyError(number)
    return _render(
        view="article",
        title=str(entry.content["title"]),
        entry=entry,
        html=_shown_pictures(str(entry.content["content"]), pictures),
        source=str(entry.content["content"]),
        size=len(str(entry.content["content"])),
    )


def _shown_pictures(html: str, pictures: Mapping[str, bytes]) -> str:
    """Nothing is fetched: a picture that we have stands in the page itself."""

    def shown(found: re.Match[str]) -> str:
        data = pictures.get(unescape(found[1]))
        if data is None:
            return found[0]
        kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
        return f'src="data:image/{kind};base64,{base64.b64encode(data).decode()}"'

    return re.sub(r'src="([^"]*)"', shown, html)


def missing_page(what: str) -> str:
    return _render(view="missing", title="Not here", what=what)


def telegram_html(text: str, entities: Sequence[Mapping[str, Any]]) -> Markup:
    """A bubble's text. Built from text and entities, so that nothing of the sender's markup gets through."""
    units = text.encode("utf-16-le")
    cuts = sorted({0, len(units) // 2, *(cut for entity in entities for cut in _ends(entity))})
    parts: list[Markup] = []
    for start, end in pairwise(cuts):
        parts += [_close(entity) for entity in reversed(entities) if _ends(entity)[1] == start]
        parts += [_open(entity) for entity in entities if _ends(entity)[0] == start]
        parts.append(escape(units[start * 2 : end * 2].decode("utf-16-le", "replace")))
    parts += [_close(entity) for entity in reversed(entities) if _ends(entity)[1] == cuts[-1]]
    return Markup("").join(parts)


def wecom_html(content: Mapping[str, Any]) -> Markup:
    """A card's text, as the group's members see it."""
    text = str(content.get("content", ""))
    if content["msgtype"] == "text":
        return Markup("<p class=plain>{}</p>").format(_links(text))
    # Safe: raw HTML is off in the renderer, and only the three colours come back as elements.
    return Markup(COLOURS.sub(r'<span class="\1">\2</span>', _MARKDOWN.render(text)))  # noqa: S704


def _ends(entity: Mapping[str, Any]) -> tuple[int, int]:
    return entity["offset"], entity["offset"] + entity["length"]


def _open(entity: Mapping[str, Any]) -> Markup:
    if entity["type"] == "text_link":
        return Markup('<a href="{}" rel="noreferrer">').format(_safe_url(entity.get("url", "")))
    if entity["type"] == "spoiler":
        return Markup('<span class="spoiler">')
    return Markup("<{}>").format(_element(entity))


def _close(entity: Mapping[str, Any]) -> Markup:
    return Markup("</{}>").format("a" if entity["type"] == "text_link" else _element(entity))


def _element(entity: Mapping[str, Any]) -> str:
    return ELEMENTS.get(entity["type"], "span")


def _safe_url(url: str) -> str:
    return url if re.match(r"(?:https?|tg)://", url) else f"http://{url}"


def _links(text: str) -> Markup:
    """Plain text with its addresses clickable."""
    parts, position = [], 0
    for match in URL.finditer(text):
        link = Markup('<a href="{0}" rel="noreferrer">{0}</a>').format(match[0])
        parts += [escape(text[position : match.start()]), link]
        position = match.end()
    return Markup("").join([*parts, escape(text[position:])])


def _new_window(html: str | None) -> str | None:
    """A frame without scripts cannot follow its own links; a new window can."""
    if html is None:
        return None
    base = '<base target="_blank">'
    with_head = re.sub(r"(<head[^>]*>)", rf"\1{base}", html, count=1, flags=re.IGNORECASE)
    return with_head if with_head != html else base + html


def _row(entry: Entry) -> dict[str, Any]:
    return {"entry": entry, "summary": _summary(entry), "link": _link(entry)}


def _summary(entry: Entry) -> str:
    content = entry.content
    articles = content.get("articles") or [{}]
    texts = (content.get(name) for name in ("subject", "title", "text", "content", "source"))
    text = next((text for text in texts if text), articles[0].get("title", ""))
    return " ".join(str(text).split())[:140]


def _link(entry: Entry) -> str:
    address = quote(entry.address, safe="@*-")
    if entry.channel == "email":
        return f"/mail/{entry.id}" if entry.content.get("message_id") is not None else ""
    if entry.channel == "wechat":
        return f"/article/{entry.id}" if entry.accepted else ""
    folder = {"telegram": "chat", "wecom": "robot"}[entry.channel]
    return f"/{folder}/{address}#m{entry.id}"


def _cards(inbox: Inbox, channel: str, address: str) -> list[dict[str, Any]]:
    entries = inbox.entries(channel, address)
    if not entries:
        raise KeyError(address)
    body = {"telegram": _bubble, "wecom": _robot_card}[channel]
    edits = {entry.revises: entry for entry in entries if entry.revises}
    shown = [entry for entry in entries if not entry.revises][-PAGE_SIZE:]
    return [
        {"entry": entry, "body": body(edits.get(entry.id, entry)) if entry.accepted else None}
        for entry in shown
    ]


def _bubble(entry: Entry) -> dict[str, Any]:
    content = entry.content
    return {
        "html": telegram_html(content["text"], content["entities"]),
        "preview": _preview(content),
        "above": bool(content["preview"].get("show_above_text")),
        "large": bool(content["preview"].get("prefer_large_media")),
        "keyboard": content.get("keyboard", []),
    }


def _preview(content: Mapping[str, Any]) -> dict[str, str] | None:
    if content["preview"].get("is_disabled"):
        return None
    links = [entity["url"] for entity in content["entities"] if entity.get("url")]
    url = content["preview"].get("url") or next(iter(links), None)
    parts = urlsplit(_safe_url(str(url))) if url else None
    return {"host": parts.hostname or "", "path": parts.path} if parts else None


def _robot_card(entry: Entry) -> dict[str, Any]:
    return {"html": wecom_html(entry.content), "articles": entry.content.get("articles") or []}


def _markdown() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table")
    parser.add_render_rule("image", lambda _, tokens, index, *__: escape(f"🖼 {tokens[index].content}"))
    return parser


def _clock(at: str) -> str:
    return f"{datetime.fromisoformat(at).astimezone():%H:%M:%S}"


def _query(**values: object) -> str:
    return "/?" + urlencode({name: value for name, value in values.items() if value})


def _render(**values: Any) -> str:
    return _PAGE.render(channels=CHANNELS, **values)


_MARKDOWN = _markdown()
_ENVIRONMENT = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
_ENVIRONMENT.filters.update(clock=_clock, links=_links)
_ENVIRONMENT.globals.update(query=_query)
_PAGE = _ENVIRONMENT.from_string(files(__package__).joinpath("page.html.j2").read_text("utf-8"))
