"""What a person gets to paste, for each way it reaches them."""

from pathlib import Path

import pytest
from rendering_samples import DIGEST, SAMPLES, make_newsletter, make_post

from distributor.channels import Channel
from distributor.channels.handoff import HandoffChannel
from distributor.channels.handoff.render import LIMITS, render_handoff
from distributor.channels.wecom.render import render_wecom
from distributor.model import Message, Post
from distributor.settings import HandoffDestination, Newsletter, Settings

TO = {"email": "desk@example.com", "telegram": "4711", "wecom": "desk"}


def newsletter_of(*vias: str, **changes: object) -> Newsletter:
    places = [{"name": f"by-{via}", "title": "读者一群", "via": via, "to": TO[via]} for via in vias]
    return make_newsletter(channels={"handoff": {"destinations": places}}, **changes)


def packs(post: Post, *vias: str, **changes: object) -> list[Message]:
    return render_handoff(post, newsletter_of(*vias, **changes))


def test_a_mail_says_what_to_do_and_has_the_text_between_lines() -> None:
    post = make_post(DIGEST, cover_image="https://example.com/c.png", ai="assisted")
    (message,) = packs(post, "email")
    assert (message.channel, message.variant, message.parts) == ("handoff", "by-email", 1)
    assert message.content["subject"] == "请发到「读者一群」：样刊：一天的新闻"
    before, text, _ = message.content["text"].split("─" * 12)
    assert before == "请把横线之间的文字发到「读者一群」。\n配图：https://example.com/c.png\n\n"
    pasted = next(one for one in render_wecom(post, newsletter_of()) if one.variant == "text").content["text"]
    assert text.strip() == pasted
    assert pasted.endswith("本期内容由 AI 辅助生成")
    assert "阅读全文：https://brief.example.com/2026-03-05/sample/" in pasted


@pytest.mark.parametrize(("via", "key"), [("telegram", "plain"), ("wecom", "text")])
def test_in_a_chat_the_second_message_is_what_to_paste(via: str, key: str) -> None:
    first, second = packs(make_post(DIGEST), via)
    assert [(one.part, one.parts) for one in (first, second)] == [(1, 2), (2, 2)]
    assert first.content[key] == "请把下一条消息发到「读者一群」。"
    assert second.content[key].startswith("样刊：一天的新闻\n")
    assert ("settle" in first.content, "settle" in second.content) == (True, False)


def test_telegram_gets_its_markup_escaped() -> None:
    _, second = packs(make_post("- a < b & c"), "telegram")
    assert "a &lt; b &amp; c" in second.content["html"]
    assert "a < b & c" in second.content["plain"]


@pytest.mark.parametrize("via", LIMITS)
@pytest.mark.parametrize("body", [*SAMPLES.values()], ids=[*SAMPLES])
def test_the_text_fits(via: str, body: str) -> None:
    last = packs(make_post(body), via)[-1]
    text = (
        last.content["text"].split("─" * 12)[1]
        if via == "email"
        else last.content.get("text") or last.content["plain"]
    )
    assert 0 < len(text.strip().encode()) <= LIMITS[via]


def test_the_longest_instruction_fits_into_a_robot_s_message() -> None:
    place = {"name": "a", "title": "群" * 64, "via": "wecom", "to": "desk"}
    newsletter = make_newsletter(channels={"handoff": {"destinations": [place]}})
    for length, shown in ((1000, True), (1200, False)):
        post = make_post(DIGEST, cover_image=f"https://example.com/{'c' * length}")
        first, _ = render_handoff(post, newsletter)
        told = first.content["text"] + first.content["settle"].format(delivery="123456789.123456789")
        assert len(told.encode()) < LIMITS["wecom"]
        assert ("配图" in told) is shown


def test_in_english() -> None:
    first, _ = packs(make_post(DIGEST), "wecom", language="en")
    assert first.content["text"] == "Please post the next message in “读者一群”."
    assert (
        first.content["settle"]
        .format(delivery="7.1")
        .startswith("Once it is out:\n  distributor resolve 7.1 --sent\n")
    )


def test_each_place_is_a_destination_called_by_its_name() -> None:
    channel: Channel = HandoffChannel(Settings.model_construct(root=Path()))
    assert isinstance(channel, Channel)
    places = channel.destinations(newsletter_of("email", "wecom"))
    assert [(place.address, place.variant, place.destination) for place in places] == [
        ("by-email", "by-email", "by-email"),
        ("by-wecom", "by-wecom", "by-wecom"),
    ]
    assert channel.destinations(make_newsletter()) == []


def test_a_newsletter_knows_the_robots_of_its_packs() -> None:
    newsletter = newsletter_of("email", "wecom")
    assert newsletter.channels == ("handoff",)
    assert newsletter.robots == {"desk"}


@pytest.mark.parametrize(
    ("via", "to", "mistake"),
    [
        ("email", "desk", "expected an e-mail address"),
        ("telegram", "the desk", "String should match pattern"),
        ("wecom", "Desk!", "String should match pattern"),
    ],
)
def test_a_person_must_be_reachable(via: str, to: str, mistake: str) -> None:
    with pytest.raises(ValueError, match=mistake):
        HandoffDestination.model_validate({"name": "a", "title": "一群", "via": via, "to": to})
