"""A reader's whole way, in a real browser and with the keyboard alone: from the form to goodbye, and back."""

import re
from collections.abc import Iterator
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from browser import Chrome
from reader_pages import Desk, desk_of, reader_settings
from services import Project, free_port

from distributor.dispatch import drain
from distributor.model import SubscriptionState
from distributor.sandbox.server import Sandbox
from distributor.web.words import WORDS, Words

READER = "li@readers.example"
#: What the focus shows, as everybody who has no mouse needs to see it.
OUTLINE = "getComputedStyle(document.activeElement).outlineStyle"
WIDER_THAN_THE_SCREEN = "document.documentElement.scrollWidth > innerWidth"


class Journey:
    """One reader, their browser and their mailbox."""

    def __init__(self, chrome: Chrome, desk: Desk, sandbox: Sandbox, language: str, width: int) -> None:
        self.chrome, self.desk, self.sandbox = chrome, desk, sandbox
        self.language, self.width = language, width
        self.words: Words = WORDS[language]

    def open(self, url: str) -> None:
        self.chrome.show(url, width=self.width)

    def sees(self, text: str) -> None:
        assert text in self.chrome.evaluate("document.body.innerText")
        assert self.chrome.evaluate("document.documentElement.lang") == self.language
        assert self.chrome.evaluate(WIDER_THAN_THE_SCREEN) is False

    def presses(self, name: str) -> None:
        """Walks to a button or link, and presses Enter."""
        self.chrome.tab_to(name)
        assert self.chrome.evaluate(OUTLINE) == "solid"
        self.chrome.follow()

    def mail(self) -> "Mail":
        """The newest in the reader's mailbox, after everything that waits was sent."""
        self.desk.distributor.post_room.send_due()
        drain(self.desk.distributor.engine, "email", seconds=10)
        entry = self.sandbox.inbox.entries("email", READER)[-1]
        assert not entry.violations
        return Mail(self.sandbox.inbox.mail(entry.id))

    def states(self) -> dict[str, SubscriptionState]:
        listed = {slug: self.desk.audience.listing(slug) for slug in ("ai-daily", "weekly")}
        return {slug: one.state for slug, found in listed.items() for one in found if one.address == READER}


class Mail:
    """A mail as its reader has it."""

    def __init__(self, raw: bytes) -> None:
        self.message = message_from_bytes(raw, policy=default)
        text = self.message.get_body(("plain",))
        assert text
        self.text: str = text.get_content()

    def link(self, path: str) -> str:
        """The address in it that begins so."""
        found = re.search(rf"http://\S+{path}[\w-]+", self.text)
        assert found, self.text
        return found[0]

    @property
    def one_click(self) -> str:
        """What the mail program's own button posts to."""
        assert self.message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        found = re.match(r"<(http[^>]+)>", self.message["List-Unsubscribe"])
        assert found
        return found[1]


@pytest.fixture(params=["zh-CN", "en"])
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[375, 1280])
def journey(
    request: pytest.FixtureRequest, chrome: Chrome, project: Project, tmp_path: Path, language: str
) -> Iterator[Journey]:
    port = free_port()
    with Sandbox(None) as sandbox:
        settings = reader_settings(
            project,
            web={"base_url": f"http://127.0.0.1:{port}", "port": port},
            email={"smtp": {"host": "127.0.0.1", "port": sandbox.smtp_port, "security": "none"}},
        )
        with desk_of(settings, port) as desk:
            chrome.show(
                "<!doctype html><p>", width=375
            )  # whatever stood there before may still ask for something
            chrome.forget()
            yield Journey(chrome, desk, sandbox, language, request.param)


def test_from_the_form_to_goodbye_and_back(journey: Journey, project: Project) -> None:
    chrome, words, url = journey.chrome, journey.words, journey.desk.url
    journey.desk.subscribe("somebody@readers.example")  # who gets the issue of today with everybody else
    journey.desk.send_issue(project)

    journey.open(f"{url}/subscribe/ai-daily?lang={journey.language}")
    journey.sees(words.agree)
    chrome.tab_to(words.address)
    chrome.type(READER)
    chrome.follow()
    journey.sees(words.look)
    assert journey.states() == {"ai-daily": SubscriptionState.PENDING}

    confirmation = journey.mail()
    assert "List-Unsubscribe" not in confirmation.message
    journey.open(confirmation.link("/confirm/"))
    journey.sees(words.confirm)
    assert journey.states() == {"ai-daily": SubscriptionState.PENDING}
    journey.presses(words.confirm_button)
    journey.sees(words.confirmed)
    assert journey.states() == {"ai-daily": SubscriptionState.ACTIVE}

    welcome = journey.mail()
    assert welcome.one_click == welcome.link("/u/")
    journey.presses(words.today_button)
    journey.sees(words.today_comes)
    issue = journey.mail()
    assert "都写在账上" in issue.text

    journey.open(issue.link("/p/"))
    journey.sees("l•••@readers.example")
    chrome.tab_to("Robots Weekly")
    chrome.press("Space")
    journey.presses(words.save)
    journey.sees(words.saved)
    assert journey.states() == {"ai-daily": SubscriptionState.ACTIVE, "weekly": SubscriptionState.ACTIVE}

    answer = httpx.post(issue.one_click, data={"List-Unsubscribe": "One-Click"}, timeout=10)
    assert (answer.status_code, answer.headers.get("set-cookie")) == (200, None)
    assert journey.states()["ai-daily"] is SubscriptionState.UNSUBSCRIBED

    journey.open(issue.link("/u/"))
    journey.sees(words.left)
    journey.presses(words.come_back)
    journey.sees(words.back)
    assert journey.states()["ai-daily"] is SubscriptionState.ACTIVE

    assert {urlsplit(asked).netloc for asked in chrome.requested} == {urlsplit(url).netloc}
    assert chrome.complaints == []


def test_what_is_wrong_is_told_at_the_field_and_mended_by_keyboard(journey: Journey) -> None:
    chrome, words = journey.chrome, journey.words
    journey.open(f"{journey.desk.url}/subscribe?lang={journey.language}")
    chrome.tab_to("AI 日报")
    chrome.tab_to(words.address)
    chrome.type("li@")
    chrome.follow()
    journey.sees(words.bad_address)
    assert chrome.evaluate("document.title").startswith(words.failed)
    field = "document.activeElement"
    assert chrome.evaluate(f"{field}.name") == "address"
    assert chrome.evaluate(f"{field}.value") == "li@"
    assert chrome.evaluate(f"{field}.getAttribute('aria-invalid')") == "true"
    told = f"document.getElementById({field}.getAttribute('aria-describedby')).textContent"
    assert chrome.evaluate(told) == words.bad_address
    chrome.evaluate(f"{field}.select()")
    chrome.type(READER)
    chrome.follow()
    journey.sees(words.look)


def test_a_form_on_a_foreign_page_leads_to_ours_and_one_more_press(chrome: Chrome, project: Project) -> None:
    """The copied snippet has no seal: our page asks once more, its script makes the proof meanwhile, and nobody types again."""
    port = free_port()
    settings = reader_settings(
        project,
        signup={"abuse": {"work": 1}},
        web={"base_url": f"http://127.0.0.1:{port}", "port": port},
    )
    with desk_of(settings, port) as desk:
        chrome.forget()
        chrome.show(f"{desk.url}/subscribe/ai-daily/embed?lang=en", width=375)
        snippet = chrome.evaluate("document.querySelector('textarea').value")
        icon = '<link rel="icon" href="data:,">'
        chrome.show(f"<!DOCTYPE html><html lang=en><title>A blog</title>{icon}{snippet}", width=375)
        chrome.tab_to("E-mail address")
        chrome.type(READER)
        chrome.follow()
        assert WORDS["en"].once_more in chrome.evaluate("document.body.innerText")
        assert chrome.evaluate("document.activeElement.tagName") == "BUTTON"
        assert desk.audience.listing("ai-daily") == []
        chrome.follow()
        assert WORDS["en"].look in chrome.evaluate("document.body.innerText")
        [asked] = desk.audience.listing("ai-daily")
        assert (asked.address, asked.state) == (READER, SubscriptionState.PENDING)
        assert chrome.complaints == []
