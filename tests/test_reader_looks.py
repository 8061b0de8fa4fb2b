"""How readers' pages look and read: pictures that a person has approved, contrast, and the HTML before a judge."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from browser import Chrome
from looks import assert_looks
from quality.judges import html_judgements
from reader_pages import sample_pages
from services import Project, started_or_skipped
from test_looks import UNREADABLE

from distributor.rendering import template_environment

#: Templates that are no page of their own, and the one for programmers.
PARTS = {"base", "guard", "titles", "message", "docs"}
#: Of each page that differs from the others by more than its words.
PICTURES = [
    ("subscribe-any zh-CN", 375, False),
    ("subscribe-wrong zh-CN", 375, True),
    ("subscribe-again en", 375, False),
    ("subscribe en", 1280, False),
    ("look zh-CN", 375, False),
    ("embed en", 375, False),
    ("confirm zh-CN", 375, False),
    ("confirmed en", 375, True),
    ("gone zh-CN", 375, False),
    ("unsubscribe zh-CN", 375, False),
    ("unsubscribed en", 375, False),
    ("preferences zh-CN", 375, False),
    ("preferences-saved en", 1280, True),
    ("preferences-suppressed zh-CN", 375, False),
]
#: html-validate's rules that our pages break, and why.
ALLOWED_RULES = {
    "require-sri": "the script of the proof of work comes from ourselves, like the page",
    "form-dup-name": "several boxes of one name are how a form sends a list",
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    return sample_pages(Project(tmp_path_factory.mktemp("pages") / "project"))


def test_every_template_is_sampled(pages: Mapping[str, str]) -> None:
    names = [name for name in template_environment().list_templates() if name.startswith("web/")]
    templates = {Path(name).name.removesuffix(".html.j2") for name in names if name.endswith(".html.j2")}
    sampled = {name.split(" ")[0] for name in pages}
    assert {name for name in templates - PARTS if not any(each.startswith(name) for each in sampled)} == set()


@pytest.mark.parametrize(("name", "width", "dark"), PICTURES, ids=[f"{n}-{w}" for n, w, _ in PICTURES])
def test_a_page(chrome: Chrome, pages: Mapping[str, str], name: str, width: int, dark: bool) -> None:
    png = chrome.screenshot(pages[name], width=width, height=600, dark=dark)
    assert chrome.evaluate("document.documentElement.scrollWidth") == width
    scheme = "dark" if dark else "light"
    assert_looks(f"page-{name.replace(' ', '-')}-{width}-{scheme}", png)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_word_of_a_page_can_be_read_and_none_is_cut(
    chrome: Chrome, pages: Mapping[str, str], dark: bool
) -> None:
    for name, page in pages.items():
        if dark and name.endswith(" en"):  # no other colours than those of the Chinese one
            continue
        chrome.show(page.replace("<details>", "<details open>"), width=320, dark=dark)
        assert chrome.evaluate(UNREADABLE) == [], name
        assert chrome.evaluate("document.documentElement.scrollWidth") == 320, name


#: What can be pressed and is smaller than 24 x 24 px (WCAG 2.2, 2.5.8); a link in a line of text may be.
SMALL = """[...document.querySelectorAll('button, input:not([type=hidden]), select, summary, .button')]
  .filter((element) => element.offsetParent && !element.closest('.choice'))
  .concat([...document.querySelectorAll('.choice')])
  .map((element) => [element.textContent.trim(), element.getBoundingClientRect()])
  .filter(([, box]) => box.width < 24 || box.height < 40)
  .map(([text]) => text)"""


def test_whatever_can_be_pressed_is_large_enough_for_a_thumb(
    chrome: Chrome, pages: Mapping[str, str]
) -> None:
    for name in ("subscribe-any zh-CN", "unsubscribe zh-CN", "preferences zh-CN", "confirmed zh-CN"):
        chrome.show(pages[name], width=375)
        assert chrome.evaluate(SMALL) == [], name


def test_html_validate_finds_nothing_that_is_not_meant(pages: Mapping[str, str]) -> None:
    judged = started_or_skipped(lambda: html_judgements(pages))
    found = {
        f"{name}:{m['line']}:{m['column']} {m['rule']}: {m['message']}"
        for name, judgement in judged.items()
        for m in judgement["validate"]
        if m["rule"] not in ALLOWED_RULES
    }
    assert not found
