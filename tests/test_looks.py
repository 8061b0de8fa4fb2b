"""How things look, in a real browser: pictures that a person has approved (looks.py says how)."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from shutil import copytree

import pytest
from browser import Chrome
from looks import assert_looks
from previewing import ARTICLE, Scripted, desk_of, serving
from rendering_samples import EVERYTHING
from services import ROOT, Project

from distributor.channels.email.render import render_email
from distributor.model import Post
from distributor.posts import read_post
from distributor.preview import sample_values
from distributor.rendering import template_environment
from distributor.settings import Newsletter, load_settings

SAMPLE = "2026-11-24-open-data-spring.md"
COVER = "https://images.example.com/cover.png"


@cache
def newsletter() -> Newsletter:
    return load_settings(ROOT, {}).newsletter("ai-daily")


@cache
def sample() -> Post:
    return read_post(ROOT / "posts" / SAMPLE, newsletter().zone)


def issue() -> str:
    message = render_email(sample(), newsletter(), template_environment())
    html = message.content["html"]
    for name, value in sample_values(message).items():
        html = html.replace(name, value)
    return html


#: A mail of ours: name of its pictures → its HTML. Each is looked at in both widths and both schemes.
MAILS: Mapping[str, Callable[[], str]] = {
    "mail-issue": issue,
}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [600, 375])
@pytest.mark.parametrize("name", MAILS)
def test_a_mail(chrome: Chrome, name: str, width: int, dark: bool) -> None:
    png = chrome.screenshot(MAILS[name](), width=width, dark=dark)
    assert chrome.evaluate("document.documentElement.scrollWidth") == width
    assert_looks(f"{name}-{width}-{'dark' if dark else 'light'}", png)


@pytest.fixture(scope="module")
def preview(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a preview of our sample posts, on our channels and, as their channel makes them, articles.

    They lie in a folder of their own: nobody saves a file there meanwhile.
    """
    project = Project(tmp_path_factory.mktemp("looks") / "project")
    for name in ("config", "posts"):
        copytree(ROOT / name, project.root / name)
    front = f"---\ntitle: 样刊：什么都有\ndate: 2026-03-05\ncover_image: {COVER}\n---\n"
    project.write_post("everything", front + EVERYTHING)
    with serving(desk_of(project, Scripted("wechat", ("article", ARTICLE)))) as address:
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
