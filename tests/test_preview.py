"""Messages as files to look at."""

import json
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

from rendering_samples import EVERYTHING, LONG_PARAGRAPHS, MANY_LINKS, make_newsletter, make_post

from distributor.channels.email.render import PLACEHOLDERS, render_email
from distributor.channels.handoff.render import render_handoff
from distributor.channels.telegram.render import render_telegram
from distributor.channels.wechat.render import render_wechat
from distributor.channels.wecom.render import render_wecom
from distributor.model import Message
from distributor.preview import write_preview
from distributor.rendering import template_environment

NOW = datetime(2026, 3, 5, 7, 30, tzinfo=UTC)


def messages_of(body: str) -> list[Message]:
    post, newsletter = make_post(body, cover_image="https://example.com/c.jpg"), make_newsletter()
    return [
        render_email(post, newsletter, template_environment()),
        *render_telegram(post, newsletter),
        *render_wecom(post, newsletter),
        render_wechat(post, newsletter, template_environment()),
    ]


def test_every_channel_has_its_files(tmp_path: Path) -> None:
    summary = write_preview(messages_of(EVERYTHING), tmp_path / "new" / "folder", now=NOW)
    names = {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    assert names == {
        *("email.html", "email.txt", "email.eml", "telegram-1.html", "wecom-1.md", "wecom-markdown-1.md"),
        *("wechat.txt", "wecom-news.txt", "wechat-article.html", "summary.json"),
    }
    written = json.loads((tmp_path / "new" / "folder" / "summary.json").read_text("utf-8"))
    assert written == summary


def test_the_article_stands_in_its_column(tmp_path: Path) -> None:
    write_preview(messages_of("文"), tmp_path, now=NOW)
    page = (tmp_path / "wechat-article.html").read_text("utf-8")
    assert "max-width:677px" in page
    assert "<h1" in page
    assert ">文</p>" in page
    assert 'href="https://brief.example.com/2026-03-05/sample/"' in page


def test_the_mail_is_filled_with_sample_addresses(tmp_path: Path) -> None:
    write_preview(messages_of("text"), tmp_path, now=NOW)
    mail = message_from_bytes((tmp_path / "email.eml").read_bytes(), policy=default)
    assert mail["To"] == "reader@example.com"
    assert mail["Date"].datetime == NOW
    for name in ("email.html", "email.txt"):
        text = (tmp_path / name).read_text("utf-8")
        assert "https://example.com/preview/unsubscribe-url" in text
        assert "https://example.com/preview/view-url" in text
        assert not any(placeholder in text for placeholder in PLACEHOLDERS)


def test_the_summary_measures_every_part_against_its_limits(tmp_path: Path) -> None:
    messages = messages_of(LONG_PARAGRAPHS)
    summary = write_preview(messages, tmp_path, now=NOW)
    assert len(summary) == len(messages)
    for entry, message in zip(summary, messages, strict=True):
        assert (entry["channel"], entry["part"], entry["hash"]) == (
            message.channel,
            message.part,
            message.hash,
        )
        limits = entry["limits"]
        assert isinstance(limits, dict)
        assert limits
        for unit, limit in limits.items():
            measured = entry[unit]
            assert isinstance(measured, int)
            assert 0 < measured <= limit
    telegram = [entry for entry in summary if entry["channel"] == "telegram"]
    assert [entry["files"] for entry in telegram] == [
        [f"telegram-{part}.html"] for part in range(1, len(telegram) + 1)
    ]


def test_another_packages_channel_is_shown_as_it_stands(tmp_path: Path) -> None:
    message = Message(channel="pigeon", variant="a/b", content={"note": "coo"}, warnings=["far"])
    [entry] = write_preview([message], tmp_path, now=NOW)
    assert json.loads((tmp_path / "pigeon-a_b-1.json").read_text("utf-8")) == {"note": "coo"}
    assert (entry["warnings"], entry["limits"]) == (["far"], {})


def test_what_destinations_ask_for_has_files_of_its_own(tmp_path: Path) -> None:
    robots = [{"name": "long", "overflow": "split"}, {"name": "loud", "mode": "text", "mention_all": True}]
    places = [
        {"name": "by-mail", "title": "读者一群", "to": "desk@example.com"},
        {"name": "by-robot", "title": "读者二群", "via": "wecom", "to": "desk"},
    ]
    channels = {"wecom": {"destinations": robots}, "handoff": {"destinations": places}}
    newsletter, post = make_newsletter(channels=channels), make_post(MANY_LINKS)
    wecom, packs = render_wecom(post, newsletter), render_handoff(post, newsletter)
    summary: list[dict[str, Any]] = write_preview([*wecom, *packs], tmp_path, now=NOW)
    files = [name for entry in summary for name in entry["files"]]
    assert len(files) == len(set(files)) == len(wecom) + len(packs)
    assert {"wecom-markdown_v2-split-1.md", "wecom-text-all-1.txt", "wecom-1.md", "wechat.txt"} <= set(files)
    assert {"handoff-by-mail.txt", "handoff-by-robot-1.txt", "handoff-by-robot-2.txt"} <= set(files)
    for entry in summary:
        if entry["channel"] == "wecom":
            assert entry["utf8_bytes"] <= entry["limits"]["utf8_bytes"]
    pack = (tmp_path / "handoff-by-robot-1.txt").read_text("utf-8")
    assert "distributor resolve 12.345 --sent" in pack
