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
#: No waiting in tests; forms without a seal are taken for somebody's in a hurry all the same.
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
        seal = self.client.get(path).text.partition('name="seal" value="')[2].partition('"')[0]
        return {"seal": seal, "proof": "", "homepage": "", **fields}

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
    settings = reader_settings(project, site={"serve": True})
    with desk_of(settings) as desk:
        desk.subscribe("zhou@readers.example")
        desk.send_issue(project)
        for language in LANGUAGES:
            made = _pages(desk, language)
            pages.update({f"{name} {language}": page for name, page in made.items()})
    return pages


def _pages(desk: Desk, language: str) -> Mapping[str, str]:
    client, name = desk.client, f"li-{language.lower()}"
    lang = {"lang": language}
    token = desk.waiting(f"{name}@readers.example", language, ["ai-daily", "weekly"])
    confirm = client.get(f"/confirm/{token}").text
    confirmed = desk.confirm(token).text
    today = [
        client.post(f"/confirm/{token}/today", data={"newsletter": slug}).text
        for slug in ("ai-daily", "ai-daily", "weekly")
    ]
    mail = desk.audience.asked(token).tokens["ai-daily"]
    preferences = client.get(f"/p/{mail}").text
    saved = client.post(f"/p/{mail}", data={"shown": "0:none"}).text
    unsubscribe = client.get(f"/u/{mail}").text
    unsubscribed = client.post(f"/u/{mail}", data={"page": "yes", "reason": "too many"}).text
    resubscribed = client.post(f"/u/{mail}/resubscribe").text
    none = client.post(f"/p/{mail}/leave").text
    desk.audience.suppress("email", f"{name}@readers.example", SuppressionReason.BOUNCED)
    wrong = {"address": "li@", "language": language}
    return {
        "subscribe": client.get("/subscribe/ai-daily", params=lang).text,
        "subscribe-any": client.get("/subscribe", params=lang).text,
        "subscribe-wrong": client.post("/subscribe", data=wrong).text,
        "subscribe-again": client.post(
            "/subscribe/ai-daily", data={**wrong, "address": "li@example.com"}
        ).text,
        "embed": client.get("/subscribe/ai-daily/embed", params=lang).text,
        "look": client.post(
            "/subscribe/ai-daily", data=desk.fields(address="wu@example.com", language=language)
        ).text,
        "confirm": confirm,
        "confirmed": confirmed,
        "today-comes": today[0],
        "today-sent": today[1],
        "today-none": today[2],
        "gone": client.get("/confirm/nobody-has-this", params=lang).text,
        "unsubscribe": unsubscribe,
        "unsubscribed": unsubscribed,
        "unsubscribed-suppressed": client.post(f"/u/{mail}").text,
        "resubscribed": resubscribed,
        "preferences": preferences,
        "preferences-saved": saved,
        "preferences-none": none,
        "preferences-suppressed": client.get(f"/p/{mail}").text,
        "unknown": client.get("/u/nobody-has-this", params=lang).text,
        "explain": client.get("/u", params=lang).text,
    }
