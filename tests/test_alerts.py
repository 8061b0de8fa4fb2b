"""What the operator is told, as it arrives: over two routes that do not depend on each other, and without a secret."""

import json
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from services import Project

from distributor.alerts import WAITS, Alerts
from distributor.audience import NewSubscriber
from distributor.bootstrap import Distributor, build, prepare
from distributor.channels import OneWay
from distributor.dispatch import drain, open_issue, write_audience
from distributor.model import Issue, Message, OpenedBy, Post, Recipient
from distributor.notices import Notice
from distributor.pacing import Limit
from distributor.posts import read_post
from distributor.rehearsal import into_sandbox
from distributor.sandbox.faults import Fault
from distributor.sandbox.server import Sandbox
from distributor.schedule import look_after
from distributor.settings import AlertRoute, Newsletter

EDITOR = "editor@example.com"
SECRET_PATH = "/hooks/4f9a-secret-path"
POST = "---\ntitle: 收据\ndate: 2026-03-05\n---\n\n谁收到了，谁没有收到。\n"


class Watchdog:
    """A server that notes what it is asked, and answers with a status that can be switched."""

    def __init__(self) -> None:
        self.status = 200
        self.seen: list[tuple[str, str, bytes]] = []
        watchdog = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                watchdog.seen.append((self.command, self.path, body))
                self.send_response(watchdog.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST  # noqa: N815 - the server finds the method by this name

            def log_message(self, *_arguments: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}{SECRET_PATH}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Stage:
    """A distributor whose channels and routes lead into the sandbox; its database's clock can be moved on."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.offset = timedelta()
        self.distributor: Distributor

    def clock(self) -> datetime:
        return datetime.now(UTC) + self.offset

    @property
    def alerts(self) -> Alerts:
        return self.distributor.alerts

    def with_urls(self, **urls: str) -> Alerts:
        """The same alerts, with these URLs of the operator's."""
        settings = self.distributor.settings
        operator = settings.operator.model_copy(update={name: SecretStr(url) for name, url in urls.items()})
        return replace(self.alerts, settings=settings.model_copy(update={"operator": operator}))

    def try_again(self, wait: timedelta = timedelta(hours=1)) -> None:
        self.offset += wait
        self.alerts.send_due()

    def notice(self, route: str) -> Notice:
        [found] = [notice for notice in self.distributor.notices.listing() if notice.route == route]
        return found

    @property
    def mails(self) -> list[EmailMessage]:
        """The operator's mails, the oldest first."""
        entries = self.sandbox.inbox.entries("email", EDITOR)
        raw = [self.sandbox.inbox.mail(entry.id) for entry in entries if entry.accepted]
        return [message_from_bytes(data, policy=default) for data in raw]

    @property
    def robot(self) -> list[str]:
        """What the operator's robot wrote into its group."""
        entries = self.sandbox.inbox.entries("wecom")
        return [entry.content["content"] for entry in entries if entry.accepted]

    def send_issue(self, *addresses: str) -> Issue:
        """Opens an issue for these readers and sends it, as far as it goes."""
        for address in addresses:
            new = NewSubscriber(channel="email", address=address, source="test")
            self.distributor.audience.add("ai-daily", new)
        newsletter = self.distributor.settings.newsletters["ai-daily"]
        post = read_post(self.distributor.settings.root / "posts/receipts.md", newsletter.zone)
        engine = self.distributor.engine
        issue, _ = open_issue(engine, newsletter, post, datetime.now(UTC).date(), by=OpenedBy.PERSON)
        write_audience(engine, issue)
        drain(engine, "email", seconds=10)
        return issue


@pytest.fixture
def stage(project: Project, tmp_path: Path) -> Iterator[Stage]:
    project.write_post("receipts", POST)
    settings = project.settings(
        engine={"lanes": 1},
        operator={
            "sender": "alerts@example.com",
            "routes": [{"kind": "email", "to": EDITOR}, {"kind": "wecom", "robot": "ops"}],
        },
    )
    with Sandbox(None) as sandbox:
        stage = Stage(sandbox)
        stage.distributor = build(
            into_sandbox(settings, sandbox, tmp_path / "stage.sqlite3"), clock=stage.clock
        )
        prepare(stage.distributor)
        yield stage
        stage.distributor.close()


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    watchdog = Watchdog()
    yield watchdog
    watchdog.close()


def only_route(alerts: Alerts, **route: str) -> Alerts:
    settings = alerts.settings
    operator = settings.operator.model_copy(update={"routes": (AlertRoute.model_validate(route),)})
    return replace(alerts, settings=settings.model_copy(update={"operator": operator}))


def text_of(mail: EmailMessage) -> str:
    body = mail.get_body(("plain",))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")


class TestRoutes:
    def test_a_broken_template_does_not_keep_an_alarm_from_going_out(self, stage: Stage) -> None:
        own = stage.distributor.settings.root / "templates" / "email"
        own.mkdir(parents=True)
        (own / "alert.html.j2").write_text("{{ nothing_of_this_name }}")
        stage.alerts.tell("k", "the post is late", "Look at posts/.")
        assert stage.alerts.send_due() == 2
        assert text_of(stage.mails[0]).strip() == "Look at posts/."

    def test_a_notice_goes_over_all_of_them_once(self, stage: Stage) -> None:
        assert stage.alerts.tell("k", "the post is late", "Look at posts/.")
        assert not stage.alerts.tell("k", "the post is late", "Look at posts/.")
        assert stage.alerts.send_due() == 2
        assert stage.alerts.send_due() == 0
        [mail] = stage.mails
        assert mail["Subject"] == "[distributor] the post is late"
        assert mail["From"].addresses[0].addr_spec == "alerts@example.com"
        assert "the post is late\n\nLook at posts/.\n" in text_of(mail)
        assert stage.robot == ["the post is late\n\nLook at posts/."]

    def test_what_arrives_is_well_formed(self, stage: Stage) -> None:
        stage.alerts.tell("k", "Betreff mit ü und 日报", "<b>1 < 2 & 3</b>\n__UNSUBSCRIBE_URL__ \n.\nzwei")
        stage.alerts.send_due()
        for entry in stage.sandbox.inbox.entries():
            found = [text for text in entry.violations if "placeholder" not in text]
            assert found == [], entry.channel
        assert "<b>1 < 2 & 3</b>" in text_of(stage.mails[0])

    def test_the_relay_is_down_and_the_robot_still_writes(self, stage: Stage) -> None:
        stage.sandbox.faults.add(Fault("email", "*", "down"))
        stage.alerts.tell("k", "the post is late", "Look.")
        assert stage.alerts.send_due() == 1
        assert (len(stage.mails), len(stage.robot)) == (0, 1)
        assert stage.notice("wecom:ops").state == "sent"
        late = stage.notice(f"email:{EDITOR}")
        assert (late.state, late.tries) == ("pending", 1)
        assert "421" in late.error
        stage.sandbox.faults.clear()
        stage.try_again()
        assert (len(stage.mails), len(stage.robot)) == (1, 1)
        assert stage.notice(f"email:{EDITOR}").state == "sent"

    def test_the_robot_is_disabled_and_the_mail_still_comes(self, stage: Stage) -> None:
        stage.sandbox.faults.add(Fault("wecom", "*", "disabled"))
        stage.alerts.tell("k", "the post is late", "Look.")
        assert stage.alerts.send_due() == 1
        assert (len(stage.mails), stage.robot) == (1, [])
        assert "93000" in stage.notice("wecom:ops").error

    def test_it_is_tried_again_with_longer_waits_and_then_given_up(self, stage: Stage) -> None:
        stage.sandbox.faults.add(Fault("email", "*", "down"))
        stage.alerts.tell("k", "the post is late", "Look.")
        stage.alerts.send_due()
        for tries, wait in enumerate(WAITS, 1):
            stage.try_again(wait - timedelta(seconds=3))
            assert stage.notice(f"email:{EDITOR}").tries == tries, "too early"
            stage.try_again(timedelta(seconds=4))
            assert stage.notice(f"email:{EDITOR}").tries == tries + 1
        assert stage.notice(f"email:{EDITOR}").state == "failed"
        stage.sandbox.faults.clear()
        stage.try_again()
        assert stage.mails == []

    def test_a_bug_of_one_route_does_not_silence_the_others(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Buggy(OneWay):
            name = "email"

            def render(self, _post: Post, _newsletter: Newsletter) -> Sequence[Message]:
                return []

            def destinations(self, _newsletter: Newsletter) -> Sequence[Recipient]:
                return []

            def limits(self, _recipient: Recipient, _relay: str, /) -> Sequence[Limit]:
                return []

            def open(self, _relay: str, /) -> AbstractContextManager[Any]:
                raise RuntimeError("a token may stand here: hush")

        alerts = replace(stage.alerts, channels={**stage.alerts.channels, "email": Buggy()})
        alerts.tell("k", "the post is late", "Look.")
        assert alerts.send_due() == 1
        assert len(stage.robot) == 1
        assert "RuntimeError" in stage.notice(f"email:{EDITOR}").error
        assert "hush" not in caplog.text

    def test_a_route_without_its_key_says_what_to_set(self, stage: Stage) -> None:
        alerts = only_route(stage.alerts, kind="wecom", robot="night-shift")
        alerts.tell("k", "x", "y")
        assert alerts.send_due() == 0
        assert "set DISTRIBUTOR_WECOM_NIGHT_SHIFT_KEY" in stage.notice("wecom:night-shift").error

    def test_two_processes_send_a_notice_once(self, stage: Stage) -> None:
        for number in range(6):
            stage.alerts.tell(f"k{number}", f"notice {number}", "x")
        gate = threading.Barrier(2)
        sent: list[int] = []

        def run() -> None:
            gate.wait(10)
            sent.append(stage.alerts.send_due())

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(sent) == 12
        assert sorted(mail["Subject"] for mail in stage.mails) == [
            f"[distributor] notice {number}" for number in range(6)
        ]

    def test_long_texts_are_cut_to_what_a_route_takes(self, stage: Stage) -> None:
        stage.alerts.tell("k", "long", "汉字" * 3000)
        assert stage.alerts.send_due() == 2
        assert 1990 <= len(stage.robot[0].encode()) <= 2048
        assert text_of(stage.mails[0]).count("汉字") == 3000

    def test_without_any_route_the_log_has_it(self, stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
        operator = stage.distributor.settings.operator.model_copy(update={"routes": ()})
        settings = stage.distributor.settings.model_copy(update={"operator": operator})
        alerts = replace(stage.alerts, settings=settings)
        assert alerts.tell("k", "the post is late", "Look.")
        assert alerts.send_due() == 1
        assert "operator_notice key=k the post is late" in caplog.text


class TestWebhook:
    def test_it_gets_json(self, stage: Stage, watchdog: Watchdog) -> None:
        alerts = only_route(stage.with_urls(webhook_url=watchdog.url), kind="webhook")
        alerts.tell("k", "迟到", "看看。")
        assert alerts.send_due() == 1
        [(method, path, body)] = watchdog.seen
        assert (method, path) == ("POST", SECRET_PATH)
        assert json.loads(body) == {"key": "k", "subject": "迟到", "text": "看看。"}

    @pytest.mark.parametrize("trouble", ["status", "closed port", "no URL at all"])
    def test_its_address_is_never_repeated(
        self, stage: Stage, watchdog: Watchdog, caplog: pytest.LogCaptureFixture, trouble: str
    ) -> None:
        caplog.set_level(logging.DEBUG)
        watchdog.status = 500
        url = {
            "status": watchdog.url,
            "closed port": f"http://127.0.0.1:1{SECRET_PATH}",
            "no URL at all": f"http://[::1{SECRET_PATH}",
        }[trouble]
        alerts = only_route(stage.with_urls(webhook_url=url, dead_man_url=url), kind="webhook")
        alerts.tell("k", "late", "x")
        assert alerts.send_due() == 0
        alerts.dead_man()
        error = stage.notice("webhook:webhook").error
        assert error.startswith("the alert webhook failed: ")
        assert "dead_man_ping failed" in caplog.text
        assert "secret-path" not in caplog.text + error

    def test_a_robot_s_key_is_never_repeated(self, stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        key = stage.distributor.settings.wecom_keys["ops"].get_secret_value()
        for fault in ("disabled", "busy", "drop-after-accept"):
            stage.sandbox.faults.clear()
            stage.sandbox.faults.add(Fault("wecom", "*", fault))
            stage.alerts.tell(fault, "late", "x")
            stage.alerts.send_due()
        errors = [notice.error for notice in stage.distributor.notices.listing()]
        assert len([error for error in errors if error]) == 3
        assert key not in caplog.text + " ".join(errors)


class TestTelegramRoute:
    def test_its_text_is_escaped_and_short_enough(self, stage: Stage, project: Project) -> None:
        settings = project.settings(operator={"routes": [{"kind": "telegram", "to": "-100500"}]})
        distributor = build(into_sandbox(settings, stage.sandbox, project.root / "t.sqlite3"))
        prepare(distributor)
        distributor.alerts.tell("k", "1 < 2 & <b>", "x" * 5000)
        assert distributor.alerts.send_due() == 1
        distributor.close()
        [entry] = stage.sandbox.inbox.entries("telegram", "-100500")
        assert "1 < 2 & <b>" in entry.content["text"]
        assert entry.violations == ()


class TestEndOfASend:
    def test_the_numbers_and_the_dead_man_s_ping(self, stage: Stage, watchdog: Watchdog) -> None:
        stage.send_issue("a@x.example", "b@x.example", "c@y.example")
        look_after(stage.distributor.engine, stage.with_urls(dead_man_url=watchdog.url))
        [mail] = stage.mails
        issue = stage.distributor.ledger.issue(1)
        assert mail["Subject"] == f"[distributor] ai-daily {issue.local_date}: done, 3 sent"
        assert self.row(mail) == ["email", "3", "3", "0", "0", "0", "0"]
        assert "收据" in text_of(mail)
        assert [(method, path) for method, path, _ in watchdog.seen] == [("GET", SECRET_PATH)]
        assert "done, 3 sent" in stage.robot[0]
        look_after(stage.distributor.engine, stage.with_urls(dead_man_url=watchdog.url))
        assert (len(stage.mails), len(watchdog.seen)) == (1, 1)

    def test_failed_ones_come_with_their_reasons_and_the_command(
        self, stage: Stage, watchdog: Watchdog
    ) -> None:
        stage.sandbox.faults.add(Fault("email", "no-*", "refuse-bare"))
        stage.send_issue("no-1@x.example", "no-2@x.example", "c@y.example")
        look_after(stage.distributor.engine, stage.with_urls(dead_man_url=watchdog.url))
        [mail] = stage.mails
        text = text_of(mail)
        assert mail["Subject"].endswith("done, 1 sent, 2 failed")
        assert self.row(mail) == ["email", "3", "1", "2", "0", "0", "0"]
        assert "2 × email: 550 Mailbox not found" in text
        assert "distributor resend 1 --only failed --reason" in text
        assert len(watchdog.seen) == 1, "refused recipients are normal"

    def test_unconfirmed_ones_ask_for_a_person_and_do_not_ping(
        self, stage: Stage, watchdog: Watchdog
    ) -> None:
        stage.sandbox.faults.add(Fault("email", "lost@*", "drop-after-dot"))
        stage.send_issue("lost@x.example", "b@x.example")
        look_after(stage.distributor.engine, stage.with_urls(dead_man_url=watchdog.url))
        [mail] = stage.mails
        text = text_of(mail)
        assert mail["Subject"].endswith(": 1 unconfirmed, please look")
        assert self.row(mail) == ["email", "2", "1", "0", "0", "1", "0"]
        for command in (
            "distributor log 1 --state unconfirmed",
            "distributor resolve 1.<number> --sent",
            "distributor resend 1 --only unconfirmed --reason",
        ):
            assert command in text
        assert watchdog.seen == []

    def test_when_nothing_at_all_got_through_the_watchdog_is_left_to_bark(
        self, stage: Stage, watchdog: Watchdog
    ) -> None:
        stage.sandbox.faults.add(Fault("email", "*@x.example", "refuse-bare"))
        stage.send_issue("a@x.example", "b@x.example")
        look_after(stage.distributor.engine, stage.with_urls(dead_man_url=watchdog.url))
        assert stage.mails[0]["Subject"].endswith("done, 0 sent, 2 failed")
        assert watchdog.seen == []

    def test_a_stopped_channel_is_told_over_the_other_route(self, stage: Stage) -> None:
        stage.sandbox.faults.add(Fault("email", "*", "down"))
        stage.send_issue("a@x.example", "b@x.example")
        for _ in range(2):
            look_after(stage.distributor.engine, stage.alerts)
        [text] = stage.robot
        assert text.startswith("the channel email is stopped\n\n421 ")
        for words in (
            "No recipient has paid for it with a try",
            "distributor doctor",
            "distributor resume email",
        ):
            assert words in text
        assert stage.distributor.ledger.tallies(1)["email"].pending == 2
        [entry, _] = stage.distributor.ledger.log(1)
        assert (entry.state, entry.attempts) == ("pending", ())

    def test_an_expired_issue_is_told_with_what_is_left(self, stage: Stage) -> None:
        stage.sandbox.faults.add(Fault("email", "*", "down"))
        stage.send_issue("a@x.example")
        stage.sandbox.faults.clear()
        stage.offset = timedelta(hours=13)
        look_after(stage.distributor.engine, stage.alerts)
        mail = stage.mails[0]
        assert mail["Subject"].endswith("issue 1 expired before it was all sent")
        assert self.row(mail) == ["email", "1", "0", "0", "1", "0", "0"]
        assert "distributor resend 1 --only expired --reason" in text_of(mail)

    def row(self, mail: EmailMessage) -> list[str]:
        """The numbers of the channel email, as the mail shows them."""
        [line] = [line for line in text_of(mail).splitlines() if line.startswith("email ")]
        return line.split()
