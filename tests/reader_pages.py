"""The pages that readers see, from the app itself, in both languages: for tests of what they say and how they look."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from services import Project
from web_site import Site

from distributor.audience import Audience, SignUp
from distributor.dispatch import open_issue, write_audience
from distributor.model import Issue, OpenedBy, SuppressionReason
from distributor.posts import read_post
from distributor.settings import Settings
from distributor.web.pages import Pages

LANGUAGES = ("zh-CN", "en")
WEEKLY = """
title = "Robots Weekly"
language = "en"
[sender]
name = "Robots Weekly"
address = "weekly@news.example.com"
contact = "desk@example.com"
[channels.email]
[channels.telegram]
"""
INTERNAL = """
title = "内部通讯"
public = false
[sender]
name = "AI 日报"
address = "daily@news.example.com"
[channels.email]
"""
#: No waiting in tests.
UNGUARDED = {"abuse": {"quickest": "0s", "per_ip": "100000/hour", "attack_mode": "off"}}
POST = "---\ntitle: {title}\n---\n\n谁收到了，谁没有收到，都写在账上。\n"


def reader_settings(project: Project, **changes: Any) -> Settings:
    """Two public newsletters, `ai-daily` and `weekly`, and `internal`, which is not."""
    folder = project.root / "config/newsletters"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weekly.toml").write_text(WEEKLY, "utf-8")
    (folder / "internal.toml").write_text(INTERNAL, "utf-8")
    return project.settings(**{"signup": UNGUARDED, **changes})


class Desk(Site):
    """The app, two newsletters, and what a test does behind its back."""

    @property
    def audience(self) -> Audience:
        return self.distributor.audience

    def fields(self, path: str = "/subscribe/ai-daily", **fields: str | list[str]) -> dict[str, Any]:
        """What a browser would send with the form of that page."""
        return {**sealed(self.client.get(path).text), **fields}

    def waiting(
        self, address: str = "li@readers.example", language: str = "zh-CN", newsletters: Any = ("ai-daily",)
    ) -> str:
        """The token of a confirmation of somebody who has signed up."""
        asked = SignUp(address=address, newsletters=newsletters, language=language, source="form")
        self.distributor.audience.sign_up(asked)
        return self.confirmation(address)

    def confirmation(self, address: str) -> str:
        with self.distributor.database.read() as connection:
            row = connection.exec_driver_sql(f"SELECT id FROM subscribers WHERE address = '{address}'").one()
            now = self.distributor.database.now(connection)
        token = self.distributor.audience.open_confirmation(row.id, now, reminder=False)
        assert token
        return token

    def confirm(self, token: str) -> Any:
        page = self.client.get(f"/confirm/{token}").text
        wording = page.partition('name="wording" value="')[2].partition('"')[0]
        return self.client.post(f"/confirm/{token}", data={"wording": wording})

    def send_issue(self, project: Project, slug: str = "receipts") -> Issue:
        """Today's issue, out and on its way."""
        newsletter = self.distributor.settings.newsletters["ai-daily"]
        path = project.write_post(slug, POST.format(title="今天的收据"))
        day = self.distributor.ledger.moment().astimezone(newsletter.zone).date()
        post = read_post(path, newsletter.zone)
        issue, _ = open_issue(self.distributor.engine, newsletter, post, day, by=OpenedBy.PERSON)
        write_audience(self.distributor.engine, issue)
        return issue


def sealed(page: str) -> dict[str, str]:
    """The fields of a page's form that no reader sees."""
    seal = page.partition('name="seal" value="')[2].partition('"')[0]
    return {"seal": seal, "proof": "", "homepage": ""}


@contextmanager
def desk_of(settings: Settings, port: int = 0) -> Iterator[Desk]:
    desk = Desk(settings, port)
    try:
        yield desk
    finally:
        desk.close()


def sample_pages(project: Project) -> Mapping[str, str]:
    """ "confirm en" → its HTML, for every page there is."""
    pages: dict[str, str] = {}
    with desk_of(reader_settings(project)) as desk:
        desk.subscribe("zhou@readers.example")
        desk.send_issue(project)
        for language in LANGUAGES:
            for samples in (_coming, _staying, _outside):
                made = samples(desk, language)
                pages.update({f"{name} {language}": page for name, page in made.items()})
    with desk_of(reader_settings(project, signup={"abuse": {"quickest": "1h", "per_ip": "2/hour"}})) as desk:
        for name in ("subscribe-again", "limited"):
            for language in LANGUAGES:
                sent = {"address": "li@readers.example", "language": language}
                pages[f"{name} {language}"] = desk.client.post("/subscribe/ai-daily", data=sent).text
    return pages


def _coming(desk: Desk, language: str) -> Mapping[str, str]:
    """From the form to the confirmation."""
    client, lang = desk.client, {"lang": language}
    token = desk.waiting(_address(language), language, ["ai-daily", "weekly"])
    today = [{"newsletter": slug} for slug in ("ai-daily", "ai-daily", "weekly")]
    sent = {"address": "wu@readers.example", "language": language}
    return {
        "subscribe": client.get("/subscribe/ai-daily", params=lang).text,
        "subscribe-any": client.get("/subscribe", params=lang).text,
        "subscribe-wrong": client.post("/subscribe", data={**sent, "address": "li@"}).text,
        "look": client.post("/subscribe/ai-daily", data=desk.fields(**sent)).text,
        "embed": client.get("/subscribe/ai-daily/embed", params=lang).text,
        "confirm": client.get(f"/confirm/{token}").text,
        "confirmed": desk.confirm(token).text,
        "today-comes": client.post(f"/confirm/{token}/today", data=today[0]).text,
        "today-sent": client.post(f"/confirm/{token}/today", data=today[1]).text,
        "today-none": client.post(f"/confirm/{token}/today", data=today[2]).text,
        "gone": client.get("/confirm/nobody-has-this", params=lang).text,
    }


def _staying(desk: Desk, language: str) -> Mapping[str, str]:
    """Of the reader who has come: choices, goodbye, and back."""
    client = desk.client
    listed = desk.audience.listing("ai-daily")
    token = next(one.token for one in listed if one.address == _address(language))
    made = {
        "preferences": client.get(f"/p/{token}").text,
        "preferences-saved": client.post(f"/p/{token}").text,
        "unsubscribe": client.get(f"/u/{token}").text,
        "unsubscribed": client.post(f"/u/{token}", data={"page": "yes", "reason": "too many"}).text,
        "resubscribed": client.post(f"/u/{token}/resubscribe").text,
        "preferences-none": client.post(f"/p/{token}/leave").text,
    }
    desk.audience.suppress("email", _address(language), SuppressionReason.BOUNCED)
    return {
        **made,
        "unsubscribed-suppressed": client.post(f"/u/{token}").text,
        "preferences-suppressed": client.get(f"/p/{token}").text,
    }


def _outside(desk: Desk, language: str) -> Mapping[str, str]:
    """What no reader's link leads to; in the language of the first newsletter, whatever was asked."""
    chat = Pages.of(desk.distributor.settings).show(
        "telegram", None, language, link="https://t.me/daily_bot?start=x", preferences="/p/x"
    )
    return {
        "telegram": bytes(chat.body).decode(),
        "unknown": desk.client.get("/u/nobody-has-this").text,
        "explain": desk.client.get("/u").text,
    }


def _address(language: str) -> str:
    return f"li-{language.lower()}@readers.example"
