"""How things look, in a real browser: pictures that a person has approved (looks.py says how)."""

from collections.abc import Iterator, Mapping
from functools import cache
from shutil import copytree

import pytest
from browser import Chrome
from looks import assert_looks
from mails import html_of, sample_mails
from previewing import desk_of, serving
from rendering_samples import EVERYTHING
from services import ROOT, Project

SAMPLE = "2026-11-24-open-data-spring.md"
COVER = "https://images.example.com/cover.png"


@cache
def mails() -> Mapping[str, str]:
    return {name: html_of(message) for name, message in sample_mails().items()}


#: Mails of ours (tests/mails.py). Each is looked at in both widths and both schemes.
MAILS = ("issue", "everything", "confirm", "welcome", "goodbye", "alert")

#: The texts of the page whose contrast with what is painted behind them is below 4.5 (WCAG 2.2, 1.4.3).
UNREADABLE = """(() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = parts(getComputedStyle(element).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.getClientRects().length) continue;
    const [one, other] = [light(parts(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${walker.currentNode.data.trim().slice(0, 40)}`);
  }
  return found;
})()"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", MAILS)
def test_every_word_of_a_mail_can_be_read(chrome: Chrome, name: str, dark: bool) -> None:
    chrome.show(mails()[name], width=600, dark=dark)
    assert chrome.evaluate(UNREADABLE) == []


def test_a_word_that_cannot_be_read_is_found(chrome: Chrome) -> None:
    chrome.show('<!doctype html><p style="background:#fff;color:#999">pale</p><p>fine</p>', width=600)
    assert chrome.evaluate(UNREADABLE) == ["2.85 pale"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [600, 375])
@pytest.mark.parametrize("name", MAILS)
def test_a_mail(chrome: Chrome, name: str, width: int, dark: bool) -> None:
    png = chrome.screenshot(mails()[name], width=width, dark=dark)
    assert chrome.evaluate("document.documentElement.scrollWidth") == width
    assert_looks(f"mail-{name}-{width}-{'dark' if dark else 'light'}", png)


@pytest.fixture(scope="module")
def preview(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a preview of our sample posts, on our channels.

    They lie in a folder of their own: nobody saves a file there meanwhile.
    """
    project = Project(tmp_path_factory.mktemp("looks") / "project")
    for name in ("config", "posts"):
        copytree(ROOT / name, project.root / name)
    front = f"---\ntitle: 样刊：什么都有\ndate: 2026-03-05\ncover_image: {COVER}\n---\n"
    project.write_post("everything", front + EVERYTHING)
    with serving(desk_of(project, also=["wechat"])) as address:
        yield address


@pytest.mark.parametrize(
    ("width", "dark"),
    [(1440, False), (1440, True), (375, False)],
    ids=["1440-light", "1440-dark", "375-light"],
)
def test_the_preview_page(chrome: Chrome, preview: str, width: int, dark: bool) -> None:
    address = f"{preview}/?post={SAMPLE}"
    png = chrome.screenshot(address, width=width, dark=dark, ready="document.querySelector('#live.on')")
    assert chrome.evaluate("document.documentElement.scrollWidth") == width
    assert_looks(f"preview-{width}-{'dark' if dark else 'light'}", png)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telegram_message_with_everything(chrome: Chrome, preview: str, scheme: str) -> None:
    chrome.show(f"{preview}/?post=everything.md", width=1440)
    chrome.evaluate("document.querySelectorAll('.chat').forEach((chat) => { chat.style.height = 'auto'; })")
    assert_looks(f"telegram-{scheme}", chrome.capture(selector=f".chat.{scheme}"))
