"""Messages as files to look at: what every channel would send, and how close it is to the limits."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from distributor.channels.email.mime import compose
from distributor.channels.email.render import CLIPPED_ABOVE
from distributor.channels.telegram.render import LIMIT, count_entities
from distributor.channels.wecom.render import DIALECTS
from distributor.model import DeliveryId, Message, Parcel, Recipient
from distributor.rendering import utf8_bytes, utf16_units

Files = Mapping[str, bytes]

#: example.com is reserved for documents (RFC 2606): nobody gets a previewed mail, no link of it leads anywhere.
SAMPLE_RECIPIENT = "reader@example.com"
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
        summary.append({**_measured(message), "files": sorted(files)})
    text = json.dumps(summary, ensure_ascii=False, indent=2)
    (out / "summary.json").write_text(text + "\n", "utf-8")
    return summary


def sample_values(message: Message) -> dict[str, str]:
    """`__VIEW_URL__` → https://example.com/preview/view-url, and so on: a value for every placeholder."""
    return {
        name: f"{SAMPLE_SITE}/{name.strip('_').lower().replace('_', '-')}" for name in message.placeholders
    }


def _filled(message: Message, key: str) -> str:
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
        "email.html": _filled(message, "html").encode(),
        "email.txt": _filled(message, "text").encode(),
        "email.eml": compose(parcel),
    }


def _telegram_files(message: Message, _: datetime) -> Files:
    page = (
        '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        '<body style="font:16px/1.5 sans-serif;max-width:34em;margin:2em auto;padding:0 1em">'
        f'{_cover(message)}<div style="white-space:pre-wrap">{_filled(message, "html")}</div>'
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
}


def _wecom_files(message: Message, _: datetime) -> Files:
    name = _WECOM_NAMES[message.variant].format(part=message.part)
    return {name: _main_text(message).encode()}


def _unknown_files(message: Message, _: datetime) -> Files:
    """Another package's channel: its content as it stands."""
    name = re.sub(r"[^\w.-]", "_", f"{message.channel}-{message.variant}-{message.part}.json")
    return {name: json.dumps(dict(message.content), ensure_ascii=False, indent=2).encode()}


_WRITERS: Mapping[str, Callable[[Message, datetime], Files]] = {
    "email": _email_files,
    "telegram": _telegram_files,
    "wecom": _wecom_files,
}

LIMITS: Mapping[tuple[str, str], Mapping[str, int]] = {
    ("email", "default"): {"utf8_bytes": CLIPPED_ABOVE},
    **{
        ("telegram", variant): {"utf16_units": LIMIT.units, "entities": LIMIT.entities}
        for variant in ("default", "public", "rich")
    },
    **{("wecom", variant): {"utf8_bytes": dialect.limit} for variant, dialect in DIALECTS.items()},
}


def _main_text(message: Message) -> str:
    """The text that the channel's limit is about."""
    names = ("html", "markdown", "text")
    return next((message.content[name] for name in names if name in message.content), "")


def _measured(message: Message) -> dict[str, object]:
    visible = message.content.get("plain") or message.content.get("text") or _main_text(message)
    return {
        "channel": message.channel,
        "variant": message.variant,
        "part": message.part,
        "parts": message.parts,
        "characters": len(visible),
        "utf16_units": utf16_units(visible),
        "entities": count_entities(message.content["html"]) if message.channel == "telegram" else 0,
        "utf8_bytes": utf8_bytes(_main_text(message)),
        "limits": dict(LIMITS.get((message.channel, message.variant), {})),
        "hash": message.hash,
        "warnings": list(message.warnings),
    }
