"""Real posts through the transport into the WeCom simulator, which knows the platform's rules and none of our code."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr
from rendering_samples import DIGEST, MANY_LINKS, SAMPLES, make_newsletter, make_post, shared_posts

from distributor.channels.wecom.render import render_wecom
from distributor.channels.wecom.transport import WecomTransport
from distributor.model import DeliveryId, Message, Parcel, Post, Recipient
from distributor.sandbox.limits import UNLIMITED
from distributor.sandbox.server import Sandbox
from distributor.settings import WecomSettings

KEY = "693a91f6-7a0c-4bc4-97a0-0ec2c1f2aaaa"
ROBOTS = [
    {"name": "parts", "overflow": "split"},
    {"name": "old-parts", "mode": "markdown", "overflow": "split"},
    {"name": "loud", "mode": "text", "mention_all": True},
    {"name": "card", "mode": "news"},
]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def messages_of(post: Post) -> list[Message]:
    return render_wecom(
        post,
        make_newsletter(
            url_pattern="https://example.com/{slug}", channels={"wecom": {"destinations": ROBOTS}}
        ),
    )


def sent(messages: list[Message]) -> Iterator[tuple[Message, dict[str, object], list[str]]]:
    """(message, what the robot took, what its readers would have seen as bare characters)."""
    with Sandbox(None, limits=UNLIMITED) as sandbox:
        settings = WecomSettings(api=sandbox.url)
        with WecomTransport(settings, {"group": SecretStr(KEY)}) as opened:
            for message in messages:
                recipient = Recipient(channel="wecom", address="group", variant=message.variant)
                opened.send(Parcel(message, recipient, DeliveryId(1, 1), datetime.now(UTC)))
        for number, message in enumerate(messages, 1):
            entry = sandbox.inbox.entry(number)
            assert entry.accepted
            yield message, dict(entry.content), list(entry.violations)


@pytest.mark.parametrize("body", [*SAMPLES.values()], ids=[*SAMPLES])
def test_samples_are_taken_in_every_mode(body: str) -> None:
    post = make_post(body, cover_image="https://example.com/c.png", ai="generated")
    for message, content, violations in sent(messages_of(post)):
        assert content["msgtype"] == message.variant.partition("+")[0]
        assert violations == []


def test_real_posts_are_taken_in_every_mode() -> None:
    messages = [message for post in shared_posts() for message in messages_of(post)]
    for message, _, violations in sent(messages):
        assert violations == [], message.content


def test_everybody_is_mentioned_as_a_field_and_a_card_is_one_article() -> None:
    post = make_post(DIGEST, cover_image="https://example.com/c.png")
    taken = {message.variant: content for message, content, _ in sent(messages_of(post))}
    assert taken["text+all"]["mentioned_list"] == ["@all"]
    assert "mentioned_list" not in taken["text"]
    assert taken["news"]["articles"] == [
        {
            "title": "样刊：一天的新闻",
            "description": "导语写在最前面。后面还有一句。",
            "url": "https://example.com/sample",
            "picurl": "https://example.com/c.png",
        }
    ]


def test_parts_arrive_as_messages_of_their_own() -> None:
    parts = [
        message for message in messages_of(make_post(MANY_LINKS)) if message.variant == "markdown_v2+split"
    ]
    assert [content["msgtype"] for _, content, _ in sent(parts)] == ["markdown_v2"] * len(parts)
    assert len(parts) > 1
