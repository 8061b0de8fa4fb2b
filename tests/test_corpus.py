"""Any real post, on every channel: within the platform's rules, its text in order, its links kept."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from checkers import Rendering, check_rendering, read_source
from checkers.dom import Page
from checkers.source import html_of
from checkers.telegram import parse_html
from corpus.rendered import channels, corpus_posts, renderings, shared_names
from corpus.table import main
from rendering_samples import SHARED, ZONE, make_post, shared_posts

from distributor.errors import PostError
from distributor.posts import read_post

POSTS = {**corpus_posts(), **shared_names()}
CHANNELS = tuple(channels())

#: What a post of special characters says must stand there as written, on every channel that shows the whole post.
VERBATIM = (
    *(
        "a < b",
        "c > d",
        "x && y",
        "AT&T",
        "2 * 3 = 6",
        "my_file_name.txt",
        "a[0]",
        "b[i][j]",
        "cat | grep",
        "~/bin",
    ),
    *(
        "#话题",
        "C#",
        "@someone",
        "*不是斜体*",
        "_不是_",
        "[不是链接]",
        "# 不是标题",
        "> 不是第二层引用",
        "(0, 1]",
    ),
    *(r"D:\data\new", r"[a-z]+\d*$", "$5", "100%", "{a: 1}", "<div>", "<b>", "&nbsp;", "3 > 2 > 1"),
)


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("name", POSTS)
def test_a_post_keeps_every_rule_of_the_channel(name: str, channel: str) -> None:
    source = read_source(POSTS[name].body)
    for rendering in renderings(POSTS[name], channel):
        report = check_rendering(rendering, source)
        assert list(report.violations) == [], f"{name} on {channel}/{rendering.variant}"


def test_real_posts_are_among_them() -> None:
    assert {post.path.stem for post in shared_posts()} <= POSTS.keys(), SHARED


def test_the_corpus_is_large_and_uses_everything() -> None:
    assert len(corpus_posts()) >= 34
    tags = {element.tag for post in corpus_posts().values() for element in _source_page(post.body).elements()}
    wanted = "h1 h2 h3 h4 h5 h6 p br hr ul ol li blockquote pre code em strong s a img table th td sup sub kbd mark u"
    assert set(wanted.split()) <= tags


def _source_page(body: str) -> Page:

    return Page(html_of(body), fragment=True)


def visible(rendering: Rendering) -> Sequence[str]:
    """The texts that a reader sees of the whole post."""
    content = rendering.parts[0]
    if rendering.channel == "email":
        return [Page(content["html"]).text, content["text"]]
    if rendering.channel == "telegram":
        return ["\n".join(parse_html(part["html"]).text for part in rendering.parts)]
    return [Page(content["content"], fragment=True).text]


@pytest.mark.parametrize("channel", [name for name in CHANNELS if name != "wecom"])
def test_special_characters_are_shown_as_they_are_written(channel: str) -> None:
    for rendering in renderings(corpus_posts()["specials"], channel):
        for text in visible(rendering):
            line = " ".join(text.split())
            assert [sign for sign in VERBATIM if sign not in line] == []


@pytest.mark.parametrize("channel", CHANNELS)
def test_nothing_of_a_dangerous_paste_comes_through(channel: str) -> None:
    for rendering in renderings(corpus_posts()["html-dangerous"], channel):
        sent = json.dumps(list(rendering.parts), ensure_ascii=False)
        for trace in (
            "secret",
            "Secret",
            "evilClick",
            "onerror",
            "onclick",
            "paste-style",
            "<iframe",
            "<form",
            "<svg",
        ):
            assert trace not in sent


def test_a_file_that_holds_nul_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "nul.md"
    path.write_bytes(b"---\ntitle: x\n---\n\none\ntwo\x00\n")
    with pytest.raises(PostError, match=r"nul\.md:6: .*NUL"):
        read_post(path, ZONE)


# The command


def test_the_command_prints_a_line_for_each_channel_and_the_totals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "post.md"
    path.write_text("---\ntitle: 标题\n---\n\n一段，[链接](https://example.com/1)。\n", "utf-8")
    assert main([str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["post", "channel", "verdict"]
    assert [line.split()[1].partition("/")[0] for line in lines[1:3]] == list(CHANNELS)[:2]
    assert lines[-1].startswith("1 posts, ")
    assert "0 violations" in lines[-1]


def test_the_command_tells_a_violation_and_ends_with_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "post.md"
    path.write_text("---\ntitle: 标题\n---\n\n一段，[链接](nowhere.md)。\n", "utf-8")
    assert main([str(path), "--json"]) == 1
    [first, *_] = json.loads(capsys.readouterr().out)
    assert first["post"] == "post"
    assert "refused" in first["report"]["violations"][0]


def test_every_installed_channel_of_the_table_is_in_the_run() -> None:
    assert {"email", "telegram", "wecom"} <= set(CHANNELS)
    for channel in CHANNELS:
        assert list(renderings(make_post("一段。"), channel))
