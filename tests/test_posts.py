"""Posts: every kind of front matter, every mistake with its line, and whose day it is."""

import os
from contextlib import suppress
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distributor.errors import PostError
from distributor.model import Post
from distributor.posts import (
    LARGEST_POST,
    Mistake,
    PickVerdict,
    find_post,
    load_posts,
    parse_moment,
    parse_text,
    pick_post,
    read_post,
)

SHANGHAI = ZoneInfo("Asia/Shanghai")
ROOT = Path(__file__).parents[1]
SEEDS = ROOT.parent / "shared" / "posts"
DAY = date(2026, 11, 20)
NOW = datetime(2026, 11, 20, 7, 30, tzinfo=SHANGHAI)


def parse(text: str, name: str = "some-post.md") -> Post:
    return parse_text(text, Path(name), SHANGHAI)


def mistake(text: str) -> tuple[int | None, str]:
    with pytest.raises(Mistake) as caught:
        parse(text)
    return caught.value.line, caught.value.reason


def write(folder: Path, name: str, text: str | bytes, age: float = 3600) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    changed = NOW.timestamp() - age
    os.utime(path, (changed, changed))
    return path


def post(title: str = "News", when: str | None = "2026-11-20", body: str = "Text.", more: str = "") -> str:
    dated = f"date: {when}\n" if when else ""
    return f"---\ntitle: {title}\n{dated}{more}---\n\n{body}\n"


# Front matter

KINDS = {
    "yaml": '---\ntitle: "Model: news"\ndate: 2026-11-20 07:01:40\ncategories: [AI, Daily]\nnumber: 7\n---\n\nText.\n',
    "yaml closed by dots": "---\nTITLE: 'Model: news'\nDate: 2026-11-20 07:01:40\ncategories:\n- AI\n- Daily\nnumber: 7\n...\nText.\n",
    "yaml after a blank line": '\n---\ntitle: "Model: news"\ndate: 2026-11-20 07:01:40\ntags: AI, Daily\nnumber: 7\n---\nText.\n',
    "toml": '+++\ntitle = "Model: news"\ndate = 2026-11-20T07:01:40\ncategories = ["AI", "Daily"]\nnumber = "7"\n+++\nText.\n',
    "json": '{\n"title": "Model: news",\n"date": "2026-11-20 07:01:40",\n"categories": ["AI", "Daily"],\n"number": "7"\n}\nText.\n',
    "json of hexo": '"title": "Model: news",\n"date": "2026/11/20 07:01:40",\n"categories": [["AI"], ["Daily"]],\n"number": "7",\n;;;\nText.\n',
    "json of hexo, opened": ';;;\n{"title": "Model: news", "date": "2026-11-20 07:01:40", "tags": "AI,Daily", "number": "7"}\n;;;\nText.\n',
    "headers": "Title: Model: news\nDate: 2026-11-20 07:01:40\nTags: AI,\n      Daily\nNumber: 7\n\nText.\n",
    "headers with a line below": 'title: "Model: news"\ndate: 2026-11-20 07:01:40\ncategories: [AI, Daily]\nnumber: 7\n---\nText.\n',
}


@pytest.mark.parametrize("text", KINDS.values(), ids=KINDS.keys())
def test_every_kind_of_front_matter_says_the_same(text: str) -> None:
    seen = parse(text)
    assert seen.title == "Model: news"
    assert seen.date == datetime(2026, 11, 20, 7, 1, 40, tzinfo=SHANGHAI)
    assert seen.categories == ("AI", "Daily")
    assert seen.extra == {"number": "7"}
    assert seen.body == "Text.\n"
    assert text.split("\n")[seen.body_line - 1] == "Text."


@pytest.mark.parametrize("text", KINDS.values(), ids=KINDS.keys())
def test_line_ends_of_windows_change_nothing(tmp_path: Path, text: str) -> None:
    unix = read_post(write(tmp_path, "a.md", text), SHANGHAI)
    windows = read_post(
        write(tmp_path, "b.md", b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()), SHANGHAI
    )
    assert (windows.hash, windows.body_line) == (unix.hash, unix.body_line)


@pytest.mark.parametrize(
    "text",
    [
        "Note: hello\nTitle: no header\n\nText.",
        "Date: a fruit\n\nText.",
        "Title: a word\nand a paragraph.\n\nText.",
        "https://example.com/\n\nText.",
        "{{< figure >}}\n\nText.",
        "{% raw %}\n\nText.",
        '"Quoted": she said.\n\nText.',
    ],
)
def test_a_paragraph_that_looks_like_front_matter_is_kept(text: str) -> None:
    seen = parse(text)
    assert (seen.body, seen.title, seen.extra) == (text + "\n", "some post", {})


@pytest.mark.parametrize(
    "front",
    ["---\n---\n", "---\n# only a comment\n---\n", "+++\n+++\n", "{}\n", "---\ndate:\ndraft: ~\n---\n"],
)
def test_front_matter_may_say_nothing(front: str) -> None:
    seen = parse(front + "Text.", "2026-11-20-a-day.md")
    assert (seen.title, seen.body, seen.draft) == ("a day", "Text.\n", False)
    assert seen.date == datetime(2026, 11, 20, tzinfo=SHANGHAI)


def test_all_known_keys() -> None:
    seen = parse(
        "---\ntitle: T\nslug: My Slug\ndescription: A  short\n  text\nlang: en\nurl: <https://example.com/a>\n"
        "cover-image: <https://images.example.com/c.png>\ncategory: Law, and society\ntags: [x]\ndraft: yes\n"
        "Word Count: 12\n---\nText."
    )
    assert (seen.slug, seen.description, seen.language) == ("my-slug", "A short text", "en")
    assert (seen.url, seen.cover_image) == ("https://example.com/a", "https://images.example.com/c.png")
    assert (seen.categories, seen.draft) == (("Law, and society",), True)
    assert seen.extra == {"tags": ["x"], "word_count": "12"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cover: c.png", "c.png"),
        ("cover: {image: c.png, alt: x}", "c.png"),
        ("image: {path: c.png}", "c.png"),
        ("banner: [c.png, d.png]", "c.png"),
        ("cover: false\nthumbnail: c.png", "c.png"),
        ("featured_image: c.png", "c.png"),
        ("cover: {image: }", None),
        ("cover: []", None),
        ("cover:", None),
    ],
)
def test_covers(line: str, expected: str | None) -> None:
    assert parse(f"---\ntitle: T\n{line}\n---\nText.").cover_image == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("permalink: /a/", None),
        ("url: /a/\ncanonical_url: https://example.com/a", "https://example.com/a"),
        ("url: javascript:alert(1)", None),
        ("url: [a]", None),
    ],
)
def test_only_whole_web_addresses_become_the_url(line: str, expected: str | None) -> None:
    assert parse(f"---\ntitle: T\n{line}\n---\nText.").url == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("draft: true", True),
        ("draft: FALSE", False),
        ("draft:", False),
        ("published: false", True),
        ("published: 2026-11-20", False),
        ("status: draft", True),
        ("status: published", False),
    ],
)
def test_drafts(line: str, expected: bool) -> None:
    assert parse(f"---\ntitle: T\n{line}\n---\nText.").draft is expected


# Titles, headings, slugs


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ('"# AI日报：新模型"', "AI日报：新模型"),
        ('"## 🔥 Hot"', "🔥 Hot"),
        ('"#hashtag stays"', "#hashtag stays"),
        ("1.10", "1.10"),
        ("No", "No"),
        ("2026-11-20", "2026-11-20"),
        (">\n  two\n  lines", "two lines"),
        ('"bell\\a and \\0 nul"', "bell and nul"),
        ("C# and F#", "C# and F#"),
    ],
)
def test_titles(given: str, expected: str) -> None:
    assert parse(f"---\ntitle: {given}\n---\nText.").title == expected


@pytest.mark.parametrize(
    ("text", "title", "body", "line"),
    [
        ("# A **bold** [link](u)\n\nText.", "A bold link", "Text.\n", 3),
        ("A\n=\n\nText.", "A", "Text.\n", 4),
        ("```\n# no\n```\n## Yes `x` &amp; y\nText.", "Yes x & y", "```\n# no\n```\n\nText.\n", 1),
        ("<!-- # no -->\n> # no\n\n# Yes\nText.", "Yes", "<!-- # no -->\n> # no\n\n\nText.\n", 1),
        ("Text only.", "some post", "Text only.\n", 1),
        ("#\n\nText.", "some post", "#\n\nText.\n", 1),
        ("---\ntitle: A\n---\n\n# A\n\nText.", "A", "Text.\n", 7),
        ("---\ntitle: A\n---\n## A\n\nText.", "A", "## A\n\nText.\n", 4),
        ("---\ntitle: A\n---\n# B\n\nText.", "A", "# B\n\nText.\n", 4),
    ],
)
def test_the_title_does_not_stand_in_the_body_twice(text: str, title: str, body: str, line: int) -> None:
    seen = parse(text)
    assert (seen.title, seen.body, seen.body_line) == (title, body, line)


COVER = "https://images.example.com/c_(1).png?a=1&b=2"


@pytest.mark.parametrize(
    ("body", "expected", "line"),
    [
        (f"![Cover](<{COVER}>)\n\nText.", "Text.\n", 7),
        (f'![Cover]({COVER} "title")\n\nText.', "Text.\n", 7),
        (f"Intro ![c]({COVER}){{width=50%}} text.\n", "Intro  text.\n", 5),
        (f"Intro.\n\n![c](<{COVER}>)\n\nText.", "Intro.\n\n\n\nText.\n", 5),
        (f'<img alt="c" src="{COVER.replace("&", "&amp;")}" />\n\nText.', "Text.\n", 7),
        (
            f"```\n![c](<{COVER}>)\n```\n\n![c](<{COVER}>)\nText.",
            f"```\n![c](<{COVER}>)\n```\n\n\nText.\n",
            5,
        ),
        (f"![o](other.png)\n\n![c]({COVER})", f"![o](other.png)\n\n![c]({COVER})\n", 5),
        (f"[![c]({COVER})](https://example.com/) x", f"[![c]({COVER})](https://example.com/) x\n", 5),
    ],
)
def test_the_cover_does_not_stand_in_the_body_twice(body: str, expected: str, line: int) -> None:
    seen = parse(f"---\ntitle: T\ncover: {COVER}\n---\n{body}")
    assert (seen.body, seen.body_line) == (expected, line)


@pytest.mark.parametrize(
    ("path", "slug", "title"),
    [
        ("2026-11-20-Some News.md", "2026-11-20-some-news", "Some News"),
        ("AI_日报.markdown", "ai_日报", "AI 日报"),
        ("2026-11-20.md", "2026-11-20", "2026-11-20"),
        ("2026-11-20-bundle/index.md", "2026-11-20-bundle", "bundle"),
        ("50% more?.md", "50-more", "50% more?"),
    ],
)
def test_names_of_files(path: str, slug: str, title: str) -> None:
    seen = parse("Text.", path)
    assert (seen.slug, seen.title) == (slug, title)


# Dates

CHINA = timedelta(hours=8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-12-12", "2025-12-12T00:00:00+08:00"),
        ("2025/1/2", "2025-01-02T00:00:00+08:00"),
        ("20251212", "2025-12-12T00:00:00+08:00"),
        ("2025-12-12 7:01", "2025-12-12T07:01:00+08:00"),
        ("2025-12-12 07:01:40", "2025-12-12T07:01:40+08:00"),
        ("2025-12-12 07:01:40 +0900", "2025-12-12T07:01:40+09:00"),
        ("2025-12-12T07:01:40.615730Z", "2025-12-12T07:01:40+00:00"),
        ("2025-12-12t07:01:40-05:30", "2025-12-12T07:01:40-05:30"),
        ("20251016T013613+0000", "2025-10-16T01:36:13+00:00"),
        ("2025-12-12 07:01 UTC", "2025-12-12T07:01:00+00:00"),
        ("Fri, 12 Dec 2025 07:01:40 +0100", "2025-12-12T07:01:40+01:00"),
        ("12 Dec 2025 07:01:40 -0000", "2025-12-12T07:01:40+08:00"),
        ("2025年12月12日", "2025-12-12T00:00:00+08:00"),
        ("2025 年 1 月 2 日 07:30", "2025-01-02T07:30:00+08:00"),
    ],
)
def test_dates_as_people_write_them(text: str, expected: str) -> None:
    assert parse_moment(text, SHANGHAI).isoformat() == expected
    assert parse(f"---\ntitle: T\ndate: {text}\n---\nText.").date == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2025-12-12", "2025-12-12T00:00:00+08:00"),
        ("2025-12-12T07:01:40", "2025-12-12T07:01:40+08:00"),
        ("2025-12-12 07:01:40Z", "2025-12-12T07:01:40+00:00"),
        ("20251212", "2025-12-12T00:00:00+08:00"),
    ],
)
def test_dates_of_toml(value: str, expected: str) -> None:
    assert parse(f'+++\ntitle = "T"\ndate = {value}\n+++\nText.').date == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("2025-12-12-gpt.md", "2025-12-12T00:00:00+08:00"),
        ("20251212.md", "2025-12-12T00:00:00+08:00"),
        ("ai_2025_12_12.md", "2025-12-12T00:00:00+08:00"),
        ("briefing_20251016T013613+0000.md", "2025-10-16T01:36:13+00:00"),
        ("briefing_20250825T114825Z.md", "2025-08-25T11:48:25+00:00"),
        ("日报2025年1月2日.md", "2025-01-02T00:00:00+08:00"),
        ("12345678-2025-12-12.md", "2025-12-12T00:00:00+08:00"),
        ("2025-12-12-bundle/index.md", "2025-12-12T00:00:00+08:00"),
    ],
)
def test_dates_of_file_names(name: str, expected: str) -> None:
    seen = parse("Text.", name).date
    assert seen is not None
    assert seen.isoformat() == expected


@pytest.mark.parametrize("name", ["weekly-100.md", "2025-13-12.md", "2025120112.md"])
def test_names_without_a_date(name: str) -> None:
    assert parse("Text.", name).date is None


def test_the_front_matters_date_wins() -> None:
    seen = parse("---\ntitle: T\ndate: 2026-01-02\n---\nText.", "2025-12-12.md").date
    assert seen == datetime(2026, 1, 2, tzinfo=SHANGHAI)


# Mistakes

MISTAKES = [
    ("---\ntitle: AI: the news\n---\nText.", 2, "needs quotes"),
    ("---\ndate: 2026-01-02\ntitle: # AI\n---\nText.", 3, "for a comment"),
    ("---\ndate: 2026-01-02\ntitle: AI #1 news\n---\nText.", 3, "for a comment"),
    ("---\ntitle: T\nx:\n\ty: 1\n---\nText.", 4, "use spaces"),
    ('---\ntitle: "T\ndate: 2026-01-02\n---\nText.', 2, "not closed"),
    ('---\ntitle: "a" b\n---\nText.', 2, "need quotes"),
    ("---\ntitle: [AI] news\n---\nText.", 2, "need quotes"),
    ("---\ntitle: @home\n---\nText.", 2, "needs quotes"),
    ("---\ntitle: &bold x\nslug: *bold\n---\nText.", 3, "begins with *"),
    ("---\ntitle: & co\n---\nText.", 2, "begins with &"),
    ("---\ntitle: *bold*\n---\nText.", 2, "begins with *"),
    ("---\ndate: 2026-01-02\ntitle：AI\n---\nText.", 3, "full-width colon"),
    ("---\ntitle:AI\n---\nText.", 2, "key: value"),
    ("---\ntitle: T\ntitle:AI\nx: 1\n---\nText.", 3, "key: value"),
    ("---\ntitle: T\nslug: a\ntitle: U\n---\nText.", 4, "set twice, first on line 2"),
    ("---\nTitle: T\nslug: a\ntitle: U\n---\nText.", 4, "set twice, first on line 2"),
    ("---\ntitle: T\nx:\n  a: 1\n  a: 2\n---\nText.", 5, "a is set twice"),
    ("---\n- a\n- b\n---\nText.", 2, "key: value"),
    ("---\n--- a\n--- b\n---\nText.", 3, "not good YAML"),
    ('---\ntitle: "\\UFFFFFFFF"\n---\nText.', 2, "not YAML"),
    ("\n---\ntitle: T\n\nText.", 2, "never ends"),
    ('+++\ntitle = "T"\nText.', 1, "never ends"),
    ("---\ntitle: T\nx: " + "y" * 70_000 + "\n---\nText.", 1, "too long"),
    ("---\ntitle: T\ndate: 2026-02-30\n---\nText.", 3, "is no date"),
    ("---\ntitle: T\ndate: tomorrow\n---\nText.", 3, "is no date"),
    ("---\ntitle: T\ndate: 2026-01-02 25:00\n---\nText.", 3, "is no date"),
    ("---\ntitle: T\ndate: 2026-01-02 10:00 +09:75\n---\nText.", 3, "is no date"),
    ("---\ntitle: T\ndate: 0001-01-01\n---\nText.", 3, "is no date"),
    ("---\ntitle: T\ndate: 32 Dec 2025\n---\nText.", 3, "is no date"),
    ("---\ntitle: T\ndate: [a]\n---\nText.", 3, "is no date"),
    ("---\ntitle: T\ndraft: perhaps\n---\nText.", 3, "true or false"),
    ("---\nslug: a\ntitle: [a, b]\n---\nText.", 3, "must be text"),
    ("---\ntitle: T\nslug: //\n---\nText.", 3, "the slug is empty"),
    ("---\nslug: a\ntitle: ''\n---\nText.", 3, "the title is empty"),
    ("---\nslug: a\ntitle: " + "长" * 301 + "\n---\nText.", 3, "301 characters"),
    ("\n# " + "x" * 301 + "\n\nText.", 2, "301 characters"),
    ('+++\ntitle = "T"\nslug = a\n+++\nText.', 3, 'write key = "value"'),
    ('+++\ntitle = "T"\nslug = "a"\ntitle = "U"\n+++\nText.', 4, "not good TOML"),
    ('+++\ntitle = "T"\ndate = 07:30:00\n+++\nText.', 3, "is no date"),
    ('+++\ntitle = "T"\nx = [\n+++\nText.', 3, "not good TOML"),
    ('{\n"title": "T",\n"date": "soon"\n}\nText.', 3, "is no date"),
    ('{\n"title": "T",\n}\nText.', 3, "not good JSON"),
    ('{\n"title": "T",\n"title": "U"\n}\nText.', 3, "set twice"),
    ('{\n"title": "T"\n} Text.', 3, "begin a new line"),
    ('{\n"title": "\\ud83d"\n}\nText.', 2, "half of a character"),
    ('{\n"title": "T",\n"x": ' + "9" * 5000 + "\n}\nText.", 1, "not good JSON"),
    ('{"x": ' + "[" * 5000 + "\nText.", 1, "not good JSON"),
    (';;;\n"title": "T",\n"x" 1\n;;;\nText.', 3, "not good JSON"),
    (';;;\n{"title": "T"}\nmore\n;;;\nText.', 2, "text after its end"),
    ("Title: T\nDate: soon\n\nText.", 2, "is no date"),
    ("---\ntitle: T\n---\n \n<!-- nothing\n yet -->\n", 4, "empty body"),
    ("---\ntitle: T\n---", 3, "empty body"),
    ("# Only a title\n", 1, "empty body"),
    ("", 1, "empty body"),
]


@pytest.mark.parametrize(
    ("text", "line", "reason"), MISTAKES, ids=[f"{n}-{m[2]}" for n, m in enumerate(MISTAKES)]
)
def test_mistakes_name_their_line(text: str, line: int, reason: str) -> None:
    found = mistake(text)
    assert reason in found[1]
    assert found[0] == line


@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        ("# 标题\n\n这是正文。".encode("gb18030"), 1, "GB18030"),
        ("# Title\n\n正文。".encode("gb18030"), 3, "GB18030"),
        ("# 标题\n\n正文".encode("utf-16"), 1, "UTF-16"),
        ("# Title\n\nText".encode("utf-16-le"), 1, "NUL"),
        ("# 标题\n\n正文".encode()[:-1], 3, "inside a character"),
        (b"# Title\n\n\xff\xff\xff", 3, "not UTF-8 at byte 9"),
        (b"x" * (LARGEST_POST + 1), None, "larger than 2 MB"),
    ],
)
def test_bytes_that_are_no_text(tmp_path: Path, data: bytes, line: int | None, reason: str) -> None:
    path = write(tmp_path, "a.md", data)
    with pytest.raises(PostError, match=reason) as caught:
        read_post(path, SHANGHAI)
    assert (caught.value.path, caught.value.line) == (path, line)


def test_things_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "folder.md").mkdir()
    os.mkfifo(tmp_path / "pipe.md")
    (tmp_path / "nowhere.md").symlink_to("missing")
    (tmp_path / "loop.md").symlink_to("loop.md")
    (tmp_path / os.fsdecode(b"\xff.md")).write_text("Text.")
    reasons = {Path(error.path).name: error.reason for error in load_posts(tmp_path, SHANGHAI).errors}
    assert "is a folder" in reasons["folder.md"]
    assert "not an ordinary file" in reasons["pipe.md"]
    assert "No such file" in reasons["nowhere.md"]
    assert "symbolic links" in reasons["loop.md"]
    assert "not UTF-8" in reasons["�.md"]


def test_unseen_characters_are_dropped(tmp_path: Path) -> None:
    path = write(tmp_path, "a.md", "# A\x0bB\x9b\n\nTe\x7fx\ufefft\u2028more")
    seen = read_post(path, SHANGHAI)
    assert (seen.title, seen.body) == ("AB", "Text more\n")


# Folders

IGNORED = [
    ".hidden.md",
    ".git/a.md",
    "__MACOSX/a.md",
    ".#a.md",
    "#a.md#",
    "~a.md",
    "a.md~",
    "a~.md",
    ".a.md.swp",
    "a.md.tmp",
    "a.txt",
    "a.sync-conflict-20261120-073000-ABCDEFG.md",
    "a (conflicted copy 2026-11-20 073000).md",
    "b (Editor's conflicted copy 2026-11-20).md",
    "b (编辑的冲突副本 2026-11-20).md",
    "b_conflict-20261120-073000.md",
    "a 2.md",
    "a (1).md",
    "a(1).md",
    "a copy.md",
    "a - Copy (2).md",
    "a 副本.md",
    "a - 副本.md",
]
KEPT = ["a.md", "deep/er/c.markdown", "D.MD", "AI 2.md", "GPT (5).md", "deep/a 2.md", "hard copy.md"]


def test_leftovers_and_conflict_copies_are_never_loaded(tmp_path: Path) -> None:
    for name in (*IGNORED, *KEPT):
        write(tmp_path, name, post())
    content = load_posts(tmp_path, SHANGHAI)
    assert sorted(str(seen.path.relative_to(tmp_path)) for seen in content.posts) == sorted(KEPT)
    assert content.errors == ()


def test_bad_files_do_not_hide_the_good_ones(tmp_path: Path) -> None:
    good = write(tmp_path, "good.md", post())
    bad = write(tmp_path, "bad.md", "---\ntitle: a: b\n---\nText.")
    content = load_posts(tmp_path, SHANGHAI)
    assert [seen.path for seen in content.posts] == [good]
    assert [(error.path, error.line) for error in content.errors] == [(bad, 2)]
    assert str(content.errors[0]).startswith(f"{bad}:2: front matter is not good YAML")


def test_a_file_that_went_away_while_the_folder_was_read_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = write(tmp_path, "b.md", post())

    def walk(folder: Path, **_: object) -> list[tuple[str, list[str], list[str]]]:
        gone.unlink()
        return [(str(folder), [], ["b.md"])]

    monkeypatch.setattr(os, "walk", walk)
    assert load_posts(tmp_path, SHANGHAI).errors == ()


def test_a_missing_folder_is_one_error(tmp_path: Path) -> None:
    content = load_posts(tmp_path / "missing", SHANGHAI)
    assert [error.reason for error in content.errors] == [
        "this folder cannot be read: No such file or directory"
    ]


def test_folders_of_drafts_hold_drafts(tmp_path: Path) -> None:
    folder = tmp_path / "drafts" / "posts"  # what lies above the posts says nothing about them
    names = ["a.md", "_drafts/b.md", "2026/drafts/deep/c.md"]
    for name in names:
        write(folder, name, post())
    seen = {str(p.path.relative_to(folder)): p.draft for p in load_posts(folder, SHANGHAI).posts}
    assert seen == {"a.md": False, "_drafts/b.md": True, "2026/drafts/deep/c.md": True}
    assert read_post(folder / "_drafts/b.md", SHANGHAI).draft


# The day's post


@pytest.mark.parametrize(
    ("files", "verdict", "said"),
    [
        ({"a.md": post()}, "picked", "a.md is the post of 2026-11-20."),
        ({"2026-11-20.md": post(when=None)}, "picked", "2026-11-20.md is the post"),
        ({"a.md": post(when="2026-11-19T23:00:00Z")}, "picked", "a.md is the post"),
        ({"a.md": post(when="2026-11-20T23:00:00Z")}, "none", "No post is dated 2026-11-20."),
        ({"a.md": post(), "b.md": post(when="2026-11-21")}, "picked", "a.md"),
        ({}, "none", "No post is dated 2026-11-20."),
        ({"a.md": post(more="draft: true\n")}, "none", "Still a draft: a.md."),
        ({"a.md": post(more="published: false\n")}, "none", "Still a draft: a.md."),
        ({"_drafts/a.md": post()}, "none", "Still a draft: _drafts/a.md."),
        ({"a.md": post(when=None)}, "none", "Without a date, so never picked: a.md."),
        ({"a.md": post(), "b.md": post(body="Else.")}, "ambiguous", "dated 2026-11-20: a.md, b.md."),
        ({"a.md": post(), "b.md": post(body="Else.", more="draft: yes\n")}, "picked", "a.md"),
        ({"a.md": post(), "x/b.md": post()}, "picked", "The same text stands in x/b.md."),
        ({"a.md": post(), "2026-11-20-b.md": "---\n- \n"}, "picked", "Beside it, broken: "),
        ({"2026-11-20-b.md": "---\n- \n"}, "broken", "2026-11-20-b.md:1: front matter begins"),
        ({"2026-11-19-b.md": "---\n- \n"}, "none", "No post"),
        ({"_drafts/2026-11-20-b.md": "---\n- \n"}, "none", "No post"),
        ({"b.md": b"\xff"}, "broken", "not UTF-8"),
        ({"b.md": "---\ntitle: a: b\ndate: 2026-11-20 07:00\n---\n"}, "broken", "needs quotes"),
        ({"b.md": "---\ntitle: a: b\ndate: 2026-11-19 07:00\n---\n"}, "none", "No post"),
        ({"b.md": '{"title": 1, "date": "2026-11-19",\n}'}, "broken", "not good JSON"),
        ({"2026-11-19.md": "---\ntitle: a: b\ndate: 2026-11-20\n---\n"}, "broken", "needs quotes"),
        ({"b.md": "---\ntitle: a\ndate: soon\n---\nText."}, "broken", "is no date"),
    ],
)
def test_whose_day_it_is(tmp_path: Path, files: dict[str, str | bytes], verdict: str, said: str) -> None:
    for name, text in files.items():
        write(tmp_path, name, text)
    pick = pick_post(tmp_path, DAY, SHANGHAI, now=NOW)
    assert pick.verdict == verdict
    assert said in pick.detail
    assert (pick.post is not None) == (pick.verdict is PickVerdict.PICKED)
    assert all(path.is_relative_to(tmp_path) for path in pick.candidates)


@pytest.mark.parametrize(
    ("text", "age", "verdict"),
    [
        (post(), 29, "unsettled"),
        (post(), 31, "picked"),
        (post(), -1, "unsettled"),
        (post(), -86_400, "picked"),
        ("", 5, "unsettled"),
        ("", 31, "broken"),
        (post(when="2026-11-19"), 5, "none"),
        (post(more="draft: true\n"), 5, "none"),
    ],
)
def test_a_file_that_is_being_written_is_waited_for(
    tmp_path: Path, text: str, age: float, verdict: str
) -> None:
    path = write(tmp_path, "2026-11-20-a.md", text, age)
    pick = pick_post(tmp_path, DAY, SHANGHAI, now=NOW)
    assert pick.verdict == verdict
    assert list(pick.candidates) in ([path], [])


def test_a_second_file_being_written_holds_the_first(tmp_path: Path) -> None:
    write(tmp_path, "a.md", post())
    late = write(tmp_path, "b.md", post(body="Else."), age=61)
    pick = pick_post(tmp_path, DAY, SHANGHAI, now=NOW, settle=timedelta(seconds=62))
    assert (pick.verdict, pick.candidates) == (PickVerdict.UNSETTLED, [late])
    assert pick.detail == "Changed less than 62 s ago, so perhaps not finished: b.md."


def test_a_missing_folder_is_broken_not_an_empty_day(tmp_path: Path) -> None:
    pick = pick_post(tmp_path / "missing", DAY, SHANGHAI, now=NOW)
    assert pick.verdict is PickVerdict.BROKEN
    assert "cannot be read" in pick.detail


def test_many_names_are_cut_short(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path, f"{number}.md", post(body=str(number)))
    assert "0.md, 1.md, 2.md, and 2 more." in pick_post(tmp_path, DAY, SHANGHAI, now=NOW).detail


# By name


@pytest.mark.parametrize("name", ["a-b", "x/A B.md", "A B.md", "A B", "A-B"])
def test_posts_by_name(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, "x/A B.md", post())
    write(tmp_path, "other.md", post(more="slug: c\n"))
    assert find_post(tmp_path, name, SHANGHAI).path == path
    assert find_post(tmp_path, str(path), SHANGHAI).path == path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("news", 'several posts are called "news": a.md, x/news.md; give the path'),
        ("2026-11-19", "did you mean 2026-11-19-old?"),
        ("2026-11-19-odl", "did you mean 2026-11-19-old?"),
        ("zzz", "did you mean 2026-11-19-old, news?"),
        ("notes.txt", "did you mean"),
        ("bad", "bad.md:2: front matter"),
        ("n" * 5000, "no post is called"),
        ("nul\0", "no post is called"),
    ],
)
def test_names_that_fit_no_post_or_several(tmp_path: Path, name: str, said: str) -> None:
    write(tmp_path, "a.md", post(more="slug: news\n"))
    write(tmp_path, "x/news.md", post())
    write(tmp_path, "2026-11-19-old.md", post())
    write(tmp_path, "bad.md", "---\ntitle: a: b\n---\n")
    write(tmp_path, "notes.txt", "Text.")
    with pytest.raises(PostError) as caught:
        find_post(tmp_path, name, SHANGHAI)
    assert said in str(caught.value)


def test_a_name_in_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(PostError, match="no posts in this folder"):
        find_post(tmp_path, "a", SHANGHAI)


# Whatever comes

SIGNS = """--- ... +++ ;;; title= "title": Title: { } [ ] ![c]( <!-- --> ``` " ' *a | \\ud800 2026-11-20 ："""
FRAGMENTS = st.sampled_from(
    [
        *SIGNS.split(),
        "\n",
        "\r",
        "\t",
        " ",
        "\u2028",
        ": ",
        "title: ",
        "date: ",
        "# ",
        "- ",
        "? ",
        "&a ",
        "!!int ",
        "<img src=",
    ]
)


def outcome(text: str) -> Post | Mistake:
    try:
        return parse(text)
    except Mistake as error:
        return error


@given(st.lists(FRAGMENTS | st.text(max_size=8), max_size=25).map("".join))
def test_any_text_is_a_post_or_a_mistake(text: str) -> None:
    seen = outcome(text)
    if isinstance(seen, Mistake):
        assert seen.line is None or 1 <= seen.line <= text.count("\n") + 1
    else:
        assert seen.title
        assert seen.body.strip()
        assert len(seen.hash) == 64


@given(st.binary(max_size=200))
def test_any_bytes_are_a_post_or_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = write(tmp_path_factory.getbasetemp() / "any-bytes", "any.md", data)
    content = load_posts(path.parent, SHANGHAI)
    assert [seen.path for seen in content.posts] + [error.path for error in content.errors] == [path]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_date_is_read_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert parse_moment(text, SHANGHAI).tzinfo is not None


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=60))
def test_the_body_line_points_at_the_body(body: str) -> None:
    text = f"---\ntitle: A title that is nowhere else\n---\n\n\n{body}\n"
    seen = outcome(text)
    if isinstance(seen, Mistake):
        assert seen.reason.startswith("empty body")
    else:
        assert seen.body.split("\n")[0].rstrip() == text.split("\n")[seen.body_line - 1].rstrip()


# Real posts


def test_our_own_sample_posts_are_good() -> None:
    content = load_posts(ROOT / "posts", SHANGHAI)
    assert content.errors == ()
    days = [seen.date.date().isoformat() for seen in content.posts if seen.date and not seen.draft]
    assert days == ["2026-11-20", "2026-11-23", "2026-11-24"]
    for seen in content.posts:
        assert seen.categories == ("AI 日报",)
        assert seen.cover_image is not None
        assert seen.cover_image.startswith("https://images.example.com/")
        assert seen.cover_image not in seen.body


@pytest.mark.skipif(not SEEDS.is_dir(), reason="no shared/posts beside the repository")
def test_posts_of_others_all_load() -> None:
    content = load_posts(SEEDS, SHANGHAI)
    assert content.errors == ()
    seed = find_post(SEEDS, "2025-12-12-gpt-5-2", SHANGHAI)
    assert seed.title.startswith("AI日报：")
    assert seed.date == datetime(2025, 12, 12, 7, 1, 40, tzinfo=SHANGHAI)
    assert seed.cover_image is not None
    assert seed.cover_image not in seed.body
    assert seed.path.read_text().split("\n")[seed.body_line - 1] == seed.body.split("\n")[0]
    undated = {post.path.name for post in content.posts if post.date is None}
    assert all(name.startswith("weekly-") for name in undated)
