"""Parcels for the channels' tests, in our own words."""

from collections.abc import Mapping
from datetime import UTC, datetime

from distributor.model import DeliveryId, Message, Parcel, Recipient

SENT_DATE = datetime(2026, 11, 24, 7, 30, tzinfo=UTC)
UNSUBSCRIBE = "https://news.example.com/u/k3J9x0QmT4aB7cD1eF2gH5"
VIEW = "https://news.example.com/v/1?a=1&b=2"

MAIL: Mapping[str, str] = {
    "subject": "AI 日报：OpenAI 开源了一个新模型",
    "html": '<!doctype html><html lang="zh-CN"><body><p>早上好，这里是今天的消息。</p>'
    '<a href="__VIEW_URL__">在浏览器中查看</a> <a href="__UNSUBSCRIBE_URL__">退订</a></body></html>',
    "text": "早上好，这里是今天的消息。\n\n在浏览器中查看：__VIEW_URL__\n退订：__UNSUBSCRIBE_URL__\n",
    "language": "zh-CN",
    "list_id": "",
    "newsletter": "ai-daily",
    "title": "AI 日报",
    "from_name": "AI 日报",
    "from_address": "daily@news.example.com",
    "reply_to": "editor@example.com",
    "slug": "2026-11-24",
}


def mail(
    *,
    address: str = "reader@example.net",
    identity: DeliveryId = DeliveryId(7, 42),  # noqa: B008 - frozen
    values: Mapping[str, str] | None = None,
    placeholders: tuple[str, ...] = ("__UNSUBSCRIBE_URL__", "__VIEW_URL__"),
    **content: str,
) -> Parcel:
    """A mail to one reader; keywords replace texts of the message, an empty `html` leaves it out."""
    texts = {key: text for key, text in {**MAIL, **content}.items() if text or key != "html"}
    return Parcel(
        message=Message(channel="email", variant="default", content=texts, placeholders=placeholders),
        recipient=Recipient(channel="email", address=address, subscriber_id=1),
        identity=identity,
        sent_date=SENT_DATE,
        values={"__UNSUBSCRIBE_URL__": UNSUBSCRIBE, "__VIEW_URL__": VIEW} if values is None else values,
    )


def notice(text: str = "发送完成：共 500 封。\n") -> Parcel:
    """A text-only mail without placeholders."""
    return mail(html="", text=text, values={}, placeholders=())


def telegram(
    *, address: str = "@ai_daily", values: Mapping[str, str] | None = None, **content: str
) -> Parcel:
    texts = {
        "html": "<b>AI 日报</b>\n今天的消息",
        "plain": "AI 日报\n今天的消息",
        "preview_url": "",
        **content,
    }
    return Parcel(
        message=Message(
            channel="telegram", variant="default", content=texts, placeholders=tuple(values or ())
        ),
        recipient=Recipient(channel="telegram", address=address),
        identity=DeliveryId(7, 1),
        sent_date=SENT_DATE,
        values=values or {},
    )


def wecom(*, robot: str = "ai-group", mode: str = "markdown_v2", text: str = "# AI 日报\n早上好") -> Parcel:
    return Parcel(
        message=Message(
            channel="wecom", variant=mode, content={"text" if mode == "text" else "markdown": text}
        ),
        recipient=Recipient(channel="wecom", address=robot, variant=mode, destination=robot),
        identity=DeliveryId(7, 2),
        sent_date=SENT_DATE,
    )


def resent(parcel: Parcel) -> Parcel:
    """The same delivery, resent by a person."""
    return parcel._replace(identity=parcel.identity._replace(resend=parcel.identity.resend + 1))
