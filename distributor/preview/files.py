"""Messages as files to look at: what every channel would send, and how close it is to the limits."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from distributor.channels.email.mime import compose
from distributor.channels.email.render import TOO_LARGE
from distributor.channels.telegram.render import LIMIT, count_entities
from distributor.channels.wechat.fitting import MOST_BYTES, MOST_CHARACTERS
from distributor.channels.wecom.dialects import DIALECTS
from distributor.channels.wecom.render import NEWS_DESCRIPTION
from distributor.model import DeliveryId, Message, Parcel, Recipient
from distributor.rendering import utf8_bytes, utf16_units

Files = Mapping[str, bytes]

#: example.com is reserved for documents (RFC 2606): nobody gets a previewed mail, no link of it leads anywhere.
SAMPLE_RECIPIENT = "reader@example.com"
SAMPLE_DELIVERY = "12.345"
SAMPLE_SITE = "https://example.com/preview"


def write_preview(
    messages: Sequence[Message], out: Path, *, now: datetime | None = None
) -> list[dict[str, object]]:
    """Writes each part's files and `summary.json` into `out`; returns the summary, one entry a part.

    `now` is the date of the sample mail.
    """
    out.mkdir(parents=True, exist_ok=True)
    summary = []
    for message in messages:
        files = _WRITERS.get(message.channel, _unknown_files)(message, now or datetime.now(UTC))
        for name, data in files.items():
            (out / name).write_bytes(data)
        summary.append({**measured(message), "files": sorted(files)})
    text = json.dumps(summary, ensure_ascii=False, indent=2)
    (out / "summary.json").write_text(text + "\n", "utf-8")
    return summary


def sample_values(message: Message) -> dict[str, str]:
    """`__VIEW_URL__` → https://example.com/preview/view-url, and so on: a value for every placeholder."""
    return {
        name: f"{SAMPLE_SITE}/{name.strip('_').lower().replace('_', '-')}" for name in message.placeholders
    }


def filled(message: Message, key: str) -> str:
    """A text of the message as a reader gets it, with sample values in its placeholders."""
    text = message.content[key]
    for name, value in sample_values(message).items():
        text = text.replace(name, value)
    return text


def _email_files(message: Message, now: datetime) -> Files:
    parcel = Parcel(
        message=message,
        recipient=Recipient(channel="email", address=SAMPLE_RECIPIENT),
        identity=DeliveryId(0, 0),
        sent_date=now,
        values=sample_values(message),
    )
    return {
        "email.html": filled(message, "html").encode(),
        "email.txt": filled(message, "text").encode(),
        "email.eml": compose(parcel),
    }


def _telegram_files(message: Message, _: datetime) -> Files:
    page = (
        '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        '<body style="font:16px/1.5 sans-serif;max-width:34em;margin:2em auto;padding:0 1em">'
        f'{_cover(message)}<div style="white-space:pre-wrap">{filled(message, "html")}</div>'
    )
    variant = "" if message.variant == "default" else f"{message.variant}-"
    return {f"telegram-{variant}{message.part}.html": page.encode()}


def _cover(message: Message) -> str:
    address = message.content["preview_url"]
    return f'<img src="{escape(address)}" alt="" style="max-width:100%">' if address else ""


_WECOM_NAMES = {
    "markdown_v2": "wecom-{part}.md",
    "markdown": "wecom-markdown-{part}.md",
    "text": "wechat.txt",
    "news": "wecom-news.txt",
}


def _wecom_files(message: Message, _: datetime) -> Files:
    """A destination's own variant, such as "text+split", has files of its own."""
    mode, *asked = message.variant.split("+")
    own = f"wecom-{mode}-{'-'.join(asked)}-{{part}}.{'txt' if mode == 'text' else 'md'}"
    name = (own if asked else _WECOM_NAMES[mode]).format(part=message.part)
    lines = message.content.values() if mode == "news" else [main_text(message)]
    return {name: "\n".join(lines).encode()}


def _handoff_files(message: Message, _: datetime) -> Files:
    """What the person of each place gets, part by part."""
    settle = message.content.get("settle", "").format(delivery=SAMPLE_DELIVERY)
    text = message.content.get("text") or message.content["plain"]
    part = f"-{message.part}" if message.parts > 1 else ""
    return {f"handoff-{message.variant}{part}.txt": f"{text}\n\n{settle}".strip().encode()}


def _wechat_files(message: Message, _: datetime) -> Files:
    """The article in its column, between what WeChat shows above and below it."""
    content = message.content
    source = content["content_source_url"]
    link = (
        f'<p><a href="{escape(source)}" style="color:#576b95;text-decoration:none">阅读原文</a></p>'
        if source
        else ""
    )
    page = (
        '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(content['title'])}</title>"
        '<body style="font:16px/1.6 sans-serif;max-width:677px;margin:2em auto;padding:0 16px;background:#fff">'
        f'<h1 style="font-size:22px;line-height:1.4;margin:0 0 14px">{escape(content["title"])}</h1>'
        f'<p style="font-size:15px;color:#8c8c8c;margin:0 0 22px">{escape(content["author"])}</p>'
        f"{content['content']}{link}"
    )
    return {"wechat-article.html": page.encode()}


def _unknown_files(message: Message, _: datetime) -> Files:
    """Another package's channel: its content as it stands."""
    name = re.sub(r"[^\w.-]", "_", f"{message.channel}-{message.variant}-{message.part}.json")
    return {name: json.dumps(dict(message.content), ensure_ascii=False, indent=2).encode()}


_WRITERS: Mapping[str, Callable[[Message, datetime], Files]] = {
    "email": _email_files,
    "telegram": _telegram_files,
    "wecom": _wecom_files,
    "handoff": _handoff_files,
    "wechat": _wechat_files,
}

LIMITS: Mapping[tuple[str, str], Mapping[str, int]] = {
    ("email", "default"): {"utf8_bytes": TOO_LARGE},
    **{
        ("telegram", variant): {"utf16_units": LIMIT.units, "entities": LIMIT.entities}
        for variant in ("default", "public", "rich")
    },
    ("wechat", "article"): {"utf16_units": MOST_CHARACTERS, "utf8_bytes": MOST_BYTES},
    **{("wecom", variant): {"utf8_bytes": dialect.limit} for variant, dialect in DIALECTS.items()},
    ("wecom", "news"): {"utf8_bytes": NEWS_DESCRIPTION},
}


def main_text(message: Message) -> str:
    """The text that the channel's limit is about."""
    names = ("html", "markdown", "text", "description", "content")
    return next((message.content[name] for name in names if name in message.content), "")


def measured(message: Message) -> dict[str, object]:
    """One part's entry of the summary: its sizes, its channel's limits, its warnings."""
    visible = message.content.get("plain") or message.content.get("text") or main_text(message)
    return {
        "channel": message.channel,
        "variant": message.variant,
        "part": message.part,
        "parts": message.parts,
        "characters": len(visible),
        "utf16_units": utf16_units(visible),
        "entities": count_entities(message.content.get("html", "")) if message.channel == "telegram" else 0,
        "utf8_bytes": utf8_bytes(main_text(message)),
        "limits": dict(LIMITS.get((message.channel, message.variant.partition("+")[0]), {})),
        "hash": message.hash,
        "warnings": list(message.warnings),
    }
