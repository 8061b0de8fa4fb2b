"""The harness of the pictures: a browser that is the same everywhere, and a comparison that sees what people see."""

import io
from pathlib import Path
from typing import Any

import looks
import pytest
from browser import FONTS, BrowserError, Chrome, Font, find_font, find_program
from PIL import Image, ImageDraw
from services import Missing

LETTERS = "<p style='font: 16px {}'>AI 日报 — the quick brown fox 🔥</p>"


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


class TestBrowser:
    def test_a_page_is_drawn_the_same_way_twice(self, chrome: Chrome) -> None:
        page = f"<!doctype html><body>{LETTERS.format('sans-serif')}<img src='https://pictures.example/a.png' width=120>"
        first, second = (chrome.screenshot(page, width=400) for _ in range(2))
        assert first == second

    @pytest.mark.parametrize(("full", "height"), [(True, 1500), (False, 300)])
    def test_its_size_is_the_pages_or_the_windows(self, chrome: Chrome, full: bool, height: int) -> None:
        page = "<!doctype html><body style='margin:0'><div style='height:1500px'></div>"
        assert opened(chrome.screenshot(page, width=321, height=300, full_page=full)).size == (321, height)

    def test_one_element_below_the_window(self, chrome: Chrome) -> None:
        page = (
            "<!doctype html><body style='margin:0'><div style='height:2000px'></div>"
            "<b id='it' style='display:block;width:30px;height:20px;background:#00f'></b>"
        )
        image = opened(chrome.screenshot(page, width=300, selector="#it"))
        assert (image.size, image.getcolors()) == ((30, 20), [(600, (0, 0, 255))])
        with pytest.raises(BrowserError, match="no element is #other"):
            chrome.capture(selector="#other")

    def test_the_colour_scheme_is_the_tests_choice(self, chrome: Chrome) -> None:
        page = "<!doctype html><style>body { background: #fff } @media (prefers-color-scheme: dark) { body { background: #012 } }</style>"
        colours = [
            opened(chrome.screenshot(page, width=50, dark=dark)).getpixel((1, 1)) for dark in (False, True)
        ]
        assert colours == [(255, 255, 255), (0, 17, 34)]

    def test_all_families_are_the_pinned_fonts(self, chrome: Chrome) -> None:
        families = (
            "sans-serif",
            "serif",
            "system-ui",
            "Arial, sans-serif",
            '"PingFang SC", "DejaVu Sans", serif',
        )
        pictures = {
            chrome.screenshot(LETTERS.format(family.replace('"', "&quot;")), width=400) for family in families
        }
        assert len(pictures) == 1
        assert chrome.screenshot(LETTERS.format("monospace"), width=400) not in pictures

    def test_nothing_comes_from_outside(self, chrome: Chrome) -> None:
        chrome.show("<!doctype html><img id=a src='https://pictures.example/a.png'>", width=300)
        assert (
            chrome.evaluate("document.getElementById('a').naturalWidth") == 1200
        )  # the harness's own picture
        for address in ("https://example.com/", "http://192.0.2.1/"):
            with pytest.raises(BrowserError, match="Failed to fetch"):
                chrome.evaluate(f"fetch('{address}')")

    def test_a_mistake_in_a_script_is_told(self, chrome: Chrome) -> None:
        with pytest.raises(BrowserError, match="nobody is not defined"):
            chrome.evaluate("nobody()")

    def test_without_a_browser_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(Missing, match="apt-get install chromium"):
            find_program()

    def test_without_the_fonts_it_says_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr("browser.FONT_FOLDERS", [tmp_path])
        with pytest.raises(Missing, match=r"no NotoSansCJK-Regular.ttc: .*fonts-noto-cjk"):
            find_font(FONTS[0])
        (tmp_path / "a.ttf").write_bytes(b"other")
        with pytest.raises(Missing, match=r"a.ttf is another version: .*somewhere 1.0"):
            find_font(Font("a.ttf", "0" * 64, "somewhere 1.0"))


class TestLooks:
    @pytest.fixture(autouse=True)
    def folders(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        monkeypatch.setattr(looks, "APPROVED", tmp_path / "approved")
        monkeypatch.setattr(looks, "RECEIVED", tmp_path / "received")
        monkeypatch.delenv("APPROVE", raising=False)
        return tmp_path

    def approve(self, monkeypatch: pytest.MonkeyPatch, png: bytes) -> None:
        monkeypatch.setenv("APPROVE", "1")
        looks.assert_looks("page", png)
        monkeypatch.delenv("APPROVE")

    def names(self, folder: Path) -> set[str]:
        return {path.name for path in (folder / "received").glob("*")}

    def test_what_is_approved_passes(self, monkeypatch: pytest.MonkeyPatch, folders: Path) -> None:
        self.approve(monkeypatch, drawn())
        looks.assert_looks("page", drawn())
        assert self.names(folders) == set()

    def test_a_new_picture_must_be_approved(self, folders: Path) -> None:
        with pytest.raises(
            AssertionError, match=r"no picture is approved yet; .*APPROVE=1 pytest tests/test_looks.py"
        ):
            looks.assert_looks("page", drawn())
        assert self.names(folders) == {"page.received.png"}

    @pytest.mark.parametrize(
        "changed",
        [{"word": "Hells"}, {"ground": "#e9edf1"}, {"ink": "#1b6a30"}, {"shift": 1}],
        ids=["a word", "the ground", "the ink", "a pixel down"],
    )
    def test_a_change_that_people_see_is_found(
        self, monkeypatch: pytest.MonkeyPatch, folders: Path, changed: dict[str, Any]
    ) -> None:
        self.approve(monkeypatch, drawn())
        with pytest.raises(AssertionError, match=r"of the pixels from (0|1024) px down differ"):
            looks.assert_looks("page", drawn(**changed))
        assert self.names(folders) == {"page.received.png", "page.diff.png"}

    def test_a_speck_is_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.approve(monkeypatch, drawn())
        looks.assert_looks("page", drawn(speck=True))

    def test_another_size_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.approve(monkeypatch, drawn())
        with pytest.raises(AssertionError, match="375 x 2001 px instead of 375 x 2000"):
            looks.assert_looks("page", drawn(height=2001))

    def test_rare_colours_stay_what_they_are(self) -> None:
        image = Image.linear_gradient("L").resize((400, 400)).convert("RGB")
        image.paste((179, 38, 30), (10, 10, 14, 14))
        out = io.BytesIO()
        image.save(out, "PNG")
        assert looks.reduced(out.getvalue()).convert("RGB").getpixel((12, 12)) == (179, 38, 30)


WATCHED = """<!DOCTYPE html><title>watched</title><link rel="icon" href="data:,">
<meta http-equiv="Content-Security-Policy" content="script-src 'sha256-fLu3pzohtU0NdYX+ZMzqCPMh8mKkBQqpQnGl/Wqp8bQ='; img-src * data:">
%s<label>Name <input></label><a href="/next">next</a><button>Send</button>"""


class TestWatching:
    @pytest.mark.parametrize(
        ("what", "complaint"),
        [
            ("<script>document.title = 'ran'</script>", "Content Security Policy"),
            ('<link rel="stylesheet" href="https://elsewhere.example/a.css">', "ERR_BLOCKED_BY_CLIENT"),
            ("<b>quiet</b>", ""),
        ],
    )
    def test_what_a_page_does_that_it_should_not_is_written_down(
        self, chrome: Chrome, what: str, complaint: str
    ) -> None:
        chrome.forget()
        chrome.show(WATCHED % what, width=400)
        assert chrome.evaluate("document.title") == "watched"
        assert len(chrome.complaints) == bool(complaint)
        assert complaint in "".join(chrome.complaints)
        elsewhere = [asked for asked in chrome.requested if "elsewhere" in asked]
        assert elsewhere == (["https://elsewhere.example/a.css"] if "link" in what else [])

    def test_the_keyboard_walks_and_types(self, chrome: Chrome) -> None:
        chrome.show(WATCHED % "", width=400)
        chrome.tab_to("Name")
        chrome.type("李")
        assert chrome.evaluate("document.querySelector('input').value") == "李"
        chrome.tab_to("Send")
        assert chrome.evaluate("document.activeElement.tagName") == "BUTTON"
        with pytest.raises(BrowserError, match="leads to nothing"):
            chrome.tab_to("not there")


def drawn(
    *,
    word: str = "Hello",
    ground: str = "#ffffff",
    ink: str = "#1b2430",
    shift: int = 0,
    speck: bool = False,
    height: int = 2000,
) -> bytes:
    """A long page with one line of text, far down."""
    image = Image.new("RGB", (375, height), ground)
    draw = ImageDraw.Draw(image)
    draw.text((20, 1030 + shift), word, fill=ink, font_size=24)
    if speck:
        draw.rectangle((200, 500, 206, 506), fill=ink)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
