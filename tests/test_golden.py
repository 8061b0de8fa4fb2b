"""Golden renderings: what five posts of the corpus look like on every channel, for a person to read when it changes.

`APPROVE=1 .venv/bin/pytest tests/test_golden.py` writes what is rendered now; read `git diff tests/golden` before a commit.
"""

import os
from collections.abc import Mapping
from difflib import unified_diff
from pathlib import Path

import pytest
from corpus.rendered import channels, corpus_posts, renderings
from golden_forms import forms, pretty

FOLDER = Path(__file__).parent / "golden"
POSTS = ("digest-plain", "kitchen-sink", "english-weekly", "html-inline", "tables")
HOW = "If this is as it should be: APPROVE=1 .venv/bin/pytest tests/test_golden.py, and read `git diff tests/golden`."
MOST_LINES = 200  # of a difference that is shown


def rendered(post: str, channel: str) -> Mapping[str, str]:
    files: dict[str, str] = {}
    for rendering in renderings(corpus_posts()[post], channel):
        files |= forms(rendering)
    return files


def difference(approved: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What changed, file by file, as `diff -u` tells it; empty when nothing did."""
    lines = [
        line
        for name in sorted({*approved, *now})
        for line in unified_diff(
            approved.get(name, "").splitlines(),
            now.get(name, "").splitlines(),
            f"approved/{name}",
            f"rendered/{name}",
            lineterm="",
        )
    ]
    more = [f"… and {len(lines) - MOST_LINES} lines more"] if len(lines) > MOST_LINES else []
    return "\n".join([*lines[:MOST_LINES], *more])


def approve(folder: Path, channel: str, files: Mapping[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(f"{channel}-*"):
        path.unlink()
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")


def read(folder: Path, channel: str) -> Mapping[str, str]:
    return {path.name: path.read_text("utf-8") for path in sorted(folder.glob(f"{channel}-*"))}


@pytest.mark.parametrize("channel", tuple(channels()))
@pytest.mark.parametrize("post", POSTS)
def test_a_rendering_is_the_approved_one(post: str, channel: str) -> None:
    files = rendered(post, channel)
    if os.environ.get("APPROVE"):
        approve(FOLDER / post, channel, files)
    changed = difference(read(FOLDER / post, channel), files)
    assert not changed, f"{changed}\n{HOW}"


# The form itself


def test_every_element_and_text_has_a_line_and_styles_are_named_once() -> None:
    html = (
        '<!doctype html><p style="margin:0;color:#111">a <b>b</b>&nbsp;<br></p><p style="color:#111; margin:0">c</p>'
        '<h2 id="x" class="y" style="margin: 0">d</h2><pre>  e\n  f</pre><!--[if mso]>e<![endif]-->'
    )
    assert pretty(html) == (
        "<!doctype html>\n<p style=p-1>\n  a\n  <b>\n    b\n  &nbsp;\n  <br>\n<p style=p-1>\n  c\n"
        '<h2 class="y" id="x" style=h2-1>\n  d\n<pre>\n  |  e\n  |  f\n<!--[if mso]>e<![endif]-->\n\n'
        "p-1:\n    color:#111\n    margin:0\nh2-1:\n    margin: 0\n"
    )


def test_a_difference_names_the_file_and_the_line(tmp_path: Path) -> None:
    approve(tmp_path, "email", {"email-a.txt": "one\ntwo\n", "email-b.txt": "gone\n"})
    changed = difference(read(tmp_path, "email"), {"email-a.txt": "one\nthree\n"})
    assert "--- approved/email-a.txt\n+++ rendered/email-a.txt" in changed
    assert "-two\n+three" in changed
    assert "-gone" in changed
    assert not difference(read(tmp_path, "email"), read(tmp_path, "email"))


def test_approving_takes_away_what_is_no_longer_rendered(tmp_path: Path) -> None:
    approve(tmp_path, "email", {"email-a.txt": "one\n"})
    approve(tmp_path, "telegram", {"telegram-a.txt": "one\n"})
    approve(tmp_path, "email", {"email-b.txt": "two\n"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["email-b.txt", "telegram-a.txt"]
