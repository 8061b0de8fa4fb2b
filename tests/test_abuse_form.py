"""The form in a real browser: what a reader sees of the guard, and the proof of work that nobody sees."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs

import httpx
import pytest
import uvicorn
from browser import Chrome
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from services import free_port

from distributor.abuse import Outcome, SignupAttempt, SignupGuard
from distributor.rendering import template_environment
from distributor.settings import AbuseSettings
from distributor.web.pages import POLICY, PROOF_POLICY
from distributor.web.proof import SCRIPT, add_proof_script

PAGE = """<!doctype html><html lang="{{ language }}"><meta charset="utf-8"><title>{{ outcome }}</title>
{% from "web/guard.html.j2" import guard_attributes, guard_fields, guard_script %}
<h1>{{ outcome }}</h1>
<form method="post" action="/" {{ guard_attributes(form, insists) }}>
<input type="email" name="address" value="{{ address }}" required>
{{ guard_fields(form, language) }}
<button>OK</button></form>
{{ guard_script(form) }}</html>"""

#: What our pages with a form have, but for the style sheet's hash.
SERVED = POLICY.format(style="'unsafe-inline'") + PROOF_POLICY


@dataclass
class Desk:
    """A form, and what came of it."""

    guard: SignupGuard
    language: str = "zh-CN"
    posts: list[dict[str, str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def app(self) -> FastAPI:
        app = FastAPI()
        add_proof_script(app, template_environment())
        app.add_api_route("/", self.show, methods=["GET"])
        app.add_api_route("/", self.take, methods=["POST"])
        return app

    def show(self) -> HTMLResponse:
        return self.page("open")

    async def take(self, request: Request) -> HTMLResponse:
        fields = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        self.posts.append(fields)
        verdict = self.guard.judge(
            SignupAttempt(
                ip="203.0.113.7",
                address=fields["address"],
                seal=fields.get("seal", ""),
                proof=fields.get("proof", ""),
                trap=fields.get("homepage", ""),
            )
        )
        insists = verdict.outcome is Outcome.CHALLENGE
        return self.page(verdict.outcome, fields["address"], insists=insists)

    def page(self, outcome: str, address: str = "", *, insists: bool = False) -> HTMLResponse:
        page = template_environment().from_string(PAGE)
        form = self.guard.form("203.0.113.7", insist=insists)
        text = page.render(
            language=self.language, outcome=outcome, form=form, insists=insists, address=address
        )
        return HTMLResponse(text, headers={"Content-Security-Policy": SERVED})


@contextlib.contextmanager
def open_desk(language: str = "zh-CN", **changes: object) -> Iterator[Desk]:
    settings = AbuseSettings(**{"work": 50, "quickest": "0s", **changes})
    desk = Desk(SignupGuard(settings, secret=lambda: b"secret"), language, port=free_port())
    server = uvicorn.Server(uvicorn.Config(desk.app(), port=desk.port, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield desk
    finally:
        server.should_exit = True
        thread.join()


FILL_IN = "document.querySelector('[type=email]').focus(); document.querySelector('[type=email]').value = 'li@readers.example'"
PRESS = "document.querySelector('button').click()"


class TestTheForm:
    def test_on_an_ordinary_day_there_is_no_script(self, chrome: Chrome) -> None:
        with open_desk() as desk:
            chrome.show(desk.url, width=400)
            assert chrome.evaluate("document.scripts.length") == 0
            chrome.evaluate(f"{FILL_IN}; {PRESS}")
            chrome.wait_until("document.title === 'allowed'")
            assert desk.posts[0].get("proof") is None

    @pytest.mark.parametrize(("language", "told"), [("zh-CN", "不是机器程序"), ("en", "you are no program")])
    def test_in_an_attack_the_browser_works_and_the_reader_only_presses(
        self, chrome: Chrome, language: str, told: str
    ) -> None:
        with open_desk(language, attack_mode="on") as desk:
            chrome.show(desk.url, width=400)
            assert (
                chrome.evaluate("getComputedStyle(document.querySelector('[role=status]')).display")
                == "block"
            )
            assert told in chrome.evaluate("document.querySelector('[role=status]').dataset.working")
            chrome.evaluate(f"{FILL_IN}; {PRESS}; {PRESS}; {PRESS}")
            chrome.wait_until("document.title === 'allowed'")
            assert len(desk.posts) == 1, "pressed three times, sent once"
            assert desk.posts[0]["proof"]

    def test_the_page_that_asks_once_more_has_its_proof_before_anybody_presses(self, chrome: Chrome) -> None:
        with open_desk(quickest="1h") as desk:
            chrome.show(desk.url, width=400)
            chrome.evaluate(f"{FILL_IN}; {PRESS}")
            chrome.wait_until("document.title === 'challenge' && document.readyState === 'complete'")
            assert chrome.evaluate("document.querySelector('[type=email]').value") == "li@readers.example"
            chrome.evaluate(PRESS)
            chrome.wait_until("document.title === 'allowed'")

    def test_without_webcrypto_the_form_goes_all_the_same(self, chrome: Chrome) -> None:
        """As on a page without TLS."""
        with open_desk(attack_mode="on", without_script_wait="0s") as desk:
            chrome.show(desk.url, width=400)
            chrome.evaluate("Object.defineProperty(crypto, 'subtle', { value: undefined })")
            chrome.evaluate(f"{FILL_IN}; {PRESS}")
            chrome.wait_until("document.title === 'allowed'")
            assert "proof" not in desk.posts[0]

    def test_the_trap_is_for_nobody_who_looks(self, chrome: Chrome) -> None:
        with open_desk() as desk:
            chrome.show(desk.url, width=400)
            trap = "document.querySelector('[name=homepage]')"
            assert chrome.evaluate(f"{trap}.offsetParent") is None
            assert chrome.evaluate(f"({trap}.focus(), document.activeElement === {trap})") is False
            chrome.evaluate(f"{trap}.value = 'https://spam.example'; {FILL_IN}; {PRESS}")
            chrome.wait_until("document.title === 'dropped'")

    def test_the_page_stays_alive_meanwhile(self, chrome: Chrome) -> None:
        """With real work; a tenth of a second is what a person feels."""
        with open_desk(attack_mode="on", work=5000) as desk:
            chrome.show(desk.url, width=400)
            chrome.evaluate(
                "window.gaps = []; let last = performance.now();"
                "const tick = (now) => { gaps.push(now - last); last = now; requestAnimationFrame(tick); };"
                "requestAnimationFrame(tick); 0"
            )
            chrome.evaluate(f"{FILL_IN}; window.done = begin().then((proof) => proof.length); 0")
            assert chrome.evaluate("done") > 400
            gaps = sorted(chrome.evaluate("gaps"))
            assert gaps, "not one frame was drawn"
            assert gaps[len(gaps) // 2] < 100

    def test_it_asks_nobody_but_us(self) -> None:
        with open_desk(attack_mode="on") as desk:
            page = httpx.get(desk.url)
            script = httpx.get(desk.url.rstrip("/") + SCRIPT)
            assert script.headers["content-type"].startswith("text/javascript")
            for text in (page.text, script.text):
                assert "http://" not in text
                assert "https://" not in text
            assert "fetch(" not in script.text
            assert "unsafe-inline" not in SERVED.partition("script-src")[2].partition(";")[0]

    @pytest.mark.parametrize(
        ("language", "words"), [("zh-CN", "20 秒之后"), ("en", "no earlier than 20 seconds")]
    )
    def test_without_javascript_it_says_how(self, language: str, words: str) -> None:
        with open_desk(language, attack_mode="on") as desk:
            assert words in httpx.get(desk.url).text
        with open_desk(language) as desk:
            assert "noscript" not in httpx.get(desk.url).text
