"""POST /events/<provider>: from the wire to the ledger, and every refusal as a problem."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import calls
import httpx
import pytest
import uvicorn
from calls import NAMES, Call, Fetched, forged
from fakes import empty
from services import Project, free_port

from distributor.audience import NewSubscriber
from distributor.bootstrap import Distributor, build, prepare
from distributor.db import Database
from distributor.errors import ConfigError, ServiceDown
from distributor.providers import load_providers
from distributor.settings import EventsSettings
from distributor.web import create_app
from distributor.web import events as web_events

READER = "reader@readers.example"


def environment() -> dict[str, str]:
    shared = {
        f"DISTRIBUTOR_{name.upper()}_SECRET": calls.SECRET
        for name in ("mailgun", "postmark", "aliyun", "tencent")
    }
    return {**shared, "DISTRIBUTOR_RESEND_SECRET": calls.RESEND_SECRET}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Distributor]:
    project = Project(tmp_path_factory.mktemp("project"))
    key = calls.settings().sendgrid.verification_key
    settings = project.settings(
        environment=environment(),
        web={"base_url": "https://news.example.com"},
        events={
            "providers": [*NAMES],
            "ses": {"topics": [calls.TOPIC]},
            "sendgrid": {"verification_key": key},
        },
    )
    distributor = build(settings)
    prepare(distributor)
    yield distributor
    distributor.close()


@pytest.fixture
def distributor(built: Distributor) -> Distributor:
    """With one reader, and nothing heard of yet."""
    empty(built.database)
    built.audience.add("ai-daily", NewSubscriber(channel="email", address=READER, source="test"))
    return built


@contextmanager
def served(distributor: Distributor) -> Iterator[httpx.Client]:
    """A real server of the app, which knows itself by another address, as behind a proxy."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(distributor), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def client(built: Distributor) -> Iterator[httpx.Client]:
    def with_our_web(settings: EventsSettings) -> Any:
        return load_providers(settings, Fetched())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web_events, "load_providers", with_our_web)
        with served(built) as client:
            yield client


#: A complaint about the reader, by each provider, made now: the providers' clocks are those of this test.
def complaint(name: str) -> Call:
    now = datetime.now(UTC)
    made = {
        "ses": lambda: calls.ses("Complaint", {"complainedRecipients": [{"emailAddress": READER}]}),
        "mailgun": lambda: calls.mailgun({"event": "complained"}, at=now),
        "sendgrid": lambda: calls.sendgrid({"event": "spamreport", "sg_event_id": "e"}, at=now),
        "postmark": lambda: calls.postmark_bounce("SpamComplaint"),
        "resend": lambda: calls.resend("email.complained", {}, at=now),
        "aliyun": lambda: calls.aliyun("dm:Feedback:FblReport", {"block_email": READER}, at=now),
        "tencent": lambda: calls.tencent("spamreport"),
    }
    return made[name]()


def post(client: httpx.Client, name: str, call: Call) -> Any:
    path = f"/events/{name}" + (f"/{call.secret}" if call.secret else "")
    return client.post(path, content=call.body, headers=dict(call.headers))


def state(distributor: Distributor) -> object:
    (reader,) = distributor.audience.listing("ai-daily")
    return str(reader.state), reader.suppressed, len(distributor.ledger.events())


@pytest.mark.parametrize("name", NAMES)
def test_a_complaint_ends_everything_and_comes_in_once(
    client: httpx.Client, distributor: Distributor, name: str
) -> None:
    call = complaint(name)
    first, again = post(client, name, call), post(client, name, call)
    assert (first.status_code, first.json()) == (200, {"recorded": 1})
    assert (again.status_code, again.json()) == (200, {"recorded": 0})
    assert state(distributor) == ("unsubscribed", "complained", 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_forged_call_changes_nothing(client: httpx.Client, distributor: Distributor, name: str) -> None:
    before = state(distributor)
    for fake in forged(complaint(name)):
        secret = "guess" if fake.secret else ""
        answer = post(client, name, Call(headers=fake.headers, body=fake.body, secret=secret))
        assert answer.status_code == (422 if fake.body == b"\x00" and name in {"ses", "mailgun"} else 401)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code
        assert calls.SECRET not in answer.text
    assert state(distributor) == before


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/events/nobody", 404),
        ("POST", "/events/nobody/secret", 404),
        ("GET", "/events/ses", 405),
        ("POST", "/events/ses/%00", 401),
    ],
)
def test_what_is_not_there(client: httpx.Client, method: str, path: str, status: int) -> None:
    headers = {"x-amz-sns-message-type": "Notification"}
    assert client.request(method, path, content=b'{"Type": "Other"}', headers=headers).status_code == status


def test_a_provider_that_is_not_set_up_is_not_there(project: Project) -> None:
    distributor = build(project.settings())
    prepare(distributor)
    with served(distributor) as client:
        answer = client.post("/events/ses", content=b"{}")
    assert (answer.status_code, answer.json()["title"]) == (404, "Not Found")
    distributor.close()


@pytest.mark.parametrize("told", [True, False], ids=["length told", "in pieces"])
def test_a_call_that_is_too_large(client: httpx.Client, distributor: Distributor, told: bool) -> None:
    before = state(distributor)
    large = b" " * 1_000_001
    answer = client.post(
        f"/events/tencent/{calls.SECRET}", content=large if told else iter([large[:600_000], large[600_000:]])
    )
    assert (answer.status_code, answer.json()["status"]) == (413, 413)
    assert state(distributor) == before


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"event": "bounce"}',
        b'{"email": "reader@readers.example"}',
        b"[" * 100_000,
    ],
)
def test_a_call_that_is_not_as_documented(
    client: httpx.Client, distributor: Distributor, body: bytes
) -> None:
    before = state(distributor)
    answer = client.post(f"/events/tencent/{calls.SECRET}", content=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert state(distributor) == before


def test_a_database_that_is_away_asks_the_provider_to_come_again(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_self: Database) -> None:
        raise ServiceDown("the database postgresql://somebody:secret@db does not answer")

    monkeypatch.setattr(Database, "write", away)
    answer = post(client, "tencent", complaint("tencent"))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
    assert "postgresql" not in answer.text


@pytest.mark.parametrize(
    ("events", "environment", "said"),
    [
        ({"providers": ["mailgun"]}, {}, "DISTRIBUTOR_MAILGUN_SECRET"),
        ({"providers": ["ses"]}, {}, "events.ses.topics"),
        ({"providers": ["sendgrid"]}, {}, "events.sendgrid.verification_key"),
        ({"providers": ["sparkpost"]}, {}, "sparkpost|literal|Input should be"),
        ({"mailgun": {"secret": "x"}}, {}, "must not stand in a file"),
        ({"bounces": {"key": "x"}}, {}, "must not stand in a file"),
        ({"bounces": {"host": "imap.example.com"}}, {}, "needs `address`"),
        ({"bounces": {"address": "bounce@bounces.example.com"}}, {}, "DISTRIBUTOR_BOUNCE_KEY"),
        ({"bounces": {"folder": "A", "done": "A"}}, {}, "another folder"),
        ({"bounces": {"folder": "信箱"}}, {}, "folder"),
    ],
)
def test_settings_that_could_not_work_stop_the_start(
    project: Project, events: dict[str, Any], environment: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        project.settings(environment=environment, events=events)


def test_secrets_come_from_the_environment(project: Project, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from a file\n")
    settings = project.settings(
        environment={
            "DISTRIBUTOR_MAILGUN_SECRET": "m",
            "DISTRIBUTOR_BOUNCE_KEY_FILE": str(tmp_path / "key"),
            "DISTRIBUTOR_BOUNCE_PASSWORD": "p",
        },
        events={"providers": ["mailgun"], "bounces": {"address": "bounce@bounces.example.com"}},
    )
    bounces = settings.events.bounces
    assert settings.events.mailgun.secret.get_secret_value() == "m"
    assert (bounces.key.get_secret_value(), bounces.password.get_secret_value()) == ("from a file", "p")
    assert "from a file" not in repr(settings)
    assert json.loads(settings.events.model_dump_json())["bounces"]["password"] == "**********"
