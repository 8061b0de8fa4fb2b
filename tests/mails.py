"""One of each mail that leaves us, by name; what judges mails (validators, browsers, spam filters) takes them from here."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from rendering_samples import EVERYTHING, ZONE, make_newsletter, make_post

from distributor.channels.email.letters import render_alert, render_letter
from distributor.channels.email.mime import compose
from distributor.channels.email.render import render_email
from distributor.model import AiUse, DeliveryId, Letter, Message, Parcel, Recipient
from distributor.posts import load_posts
from distributor.preview import sample_values
from distributor.rendering import template_environment

POSTS = Path(__file__).parents[1] / "posts"
TEMPLATES = template_environment()
WIDE_TABLE = """
| 型号 | 上下文 | 输入价 | 输出价 | 发布日期 | 说明 |
|---|--:|--:|--:|---|---|
| 甲 5 | 400k | 1.25 | 10 | 2026-03-01 | 推理更强，见[公告](https://example.com/a) |
| 乙 3 | 1M | 2.00 | 12 | 2026-02-11 |  |
"""
CARDS = """
1. **第一条新闻的标题**
   说明写在标题下面，可以有[链接](https://example.com/news/1)。

2. **第二条，标题后面直接跟着说明** 也可以。

   - 里面还有列表
   - 和第二项
"""
ALERT = """Issue 12 of ai-daily (2026-03-05) is over after 3 min 12 s.

email     5,000 planned, 4,981 sent, 12 failed, 7 skipped
telegram  1 planned, 1 sent

Look: distributor log 12 --state failed
Repair: distributor resend 12 --only failed --yes"""


def sample_mails() -> Mapping[str, Message]:
    """The project's newest sample post, everything Markdown has, each letter, and an alert."""
    newsletter = make_newsletter(ai="assisted", title="AI 日报")
    everything = make_post(EVERYTHING + WIDE_TABLE + CARDS, ai=AiUse.GENERATED, categories=["样刊"])
    ready = [post for post in load_posts(POSTS, ZONE).posts if not post.draft]
    newest = max(ready, key=lambda post: str(post.date))
    english = make_newsletter(language="en", title="AI Daily")
    return {
        "issue": render_email(newest, newsletter, TEMPLATES),
        "everything": render_email(everything, newsletter, TEMPLATES),
        **{letter.value: render_letter(letter, newsletter, TEMPLATES) for letter in Letter},
        "confirm-en": render_letter(Letter.CONFIRM, english, TEMPLATES),
        "alert": _alert(),
    }


def html_of(message: Message) -> str:
    """The HTML part as a reader gets it."""
    html = message.content["html"]
    for name, value in sample_values(message).items():
        html = html.replace(name, value)
    return html


def mail_of(message: Message, moment: datetime | None = None) -> bytes:
    """The whole mail as it goes over the wire."""
    parcel = Parcel(
        message=message,
        recipient=Recipient(channel="email", address="reader@example.com"),
        identity=DeliveryId(1, 1),
        sent_date=moment or datetime.now(UTC),
        values=sample_values(message),
    )
    return compose(parcel)


def _alert() -> Message:
    subject = "Issue 12 of ai-daily is over: 4,981 sent, 12 failed"
    addresses = {"from_name": "distributor", "from_address": "alerts@example.com", "reply_to": ""}
    names = {
        "newsletter": "operator",
        "title": "distributor",
        "list_id": "",
        "slug": "alert",
        "language": "en",
    }
    content = {
        "subject": f"[distributor] {subject}",
        **render_alert(subject, ALERT, TEMPLATES),
        **addresses,
        **names,
    }
    return Message(channel="email", variant="alert", content=content)
