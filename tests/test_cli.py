"""The command line: what it says, its exit status, and that no traceback reaches a person.

Most commands run in this process (a process costs a second); signals and the module's own start get one of their own.
"""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import default
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NoReturn
from zoneinfo import ZoneInfo

import httpx
import pytest
import typer
from services import Project, free_port
from sqlalchemy import select

from distributor import doctor
from distributor.channels.email import EmailChannel
from distributor.cli import main, output, watching
from distributor.cli.app import app
from distributor.db import Database
from distributor.ledger import Ledger
from distributor.model import Tally
from distributor.rehearsal import SANDBOX_KEY, SANDBOX_TOKEN
from distributor.sandbox.faults import Fault
from distributor.sandbox.server import Sandbox
from distributor.tables import chunks

POST = "---\ntitle: 每封信都有收据\ndate: 2026-03-05\n---\n\n谁收到了，谁没有收到，都写在账上。\n"
DAY = "2026-03-05"
WECOM = {"wecom": {"destinations": [{"name": "ai-group"}]}}
#: A dead end for a server that is down: nobody listens on port 1.
DEAD_DATABASE = "postgresql://somebody:hush-hush@127.0.0.1:1/nowhere"
DEAD_BROKER = "redis://:hush-hush@127.0.0.1:1/0"


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Shop:
    """A project whose channels lead into a sandbox, and its command line."""

    def __init__(self, project: Project, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
        self.project, self.sandbox, self._capsys = project, sandbox, capsys
        self.smtp_port = sandbox.smtp_port
        self.web_port = free_port()
        self.configure()

    def configure(self, newsletter: dict[str, Any] | None = None, **system: Any) -> None:
        base: dict[str, Any] = {
            "engine": {"sweep": "1s", "lanes": 2},
            "email": {
                "smtp": {"host": "127.0.0.1", "port": self.smtp_port},
                "retry": {"first": "1s", "longest": "1s"},
            },
            "telegram": {"api": self.sandbox.url},
            "wecom": {"api": self.sandbox.url},
            "web": {"port": self.web_port},
        }
        self.project.settings(newsletter=newsletter or {}, **{**base, **system})

    def run(self, *words: str) -> Done:
        """`distributor -C PROJECT words…`, in this process."""
        self._capsys.readouterr()
        before = sys.argv
        sys.argv = ["distributor", "-C", str(self.project.root), *words]
        try:
            with pytest.raises(SystemExit) as end:
                main()
        finally:
            sys.argv = before
        out, err = self._capsys.readouterr()
        assert "Traceback" not in out + err
        code = end.value.code
        return Done(code if isinstance(code, int) else 0, out, err)

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """The same, as a process."""
        argv = [sys.executable, "-m", "distributor", "-C", str(self.project.root), *words]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def add(self, *addresses: str) -> None:
        """Readers by e-mail, from a CSV."""
        path = self.project.root / "readers.csv"
        path.write_text("email\n" + "\n".join(addresses) + "\n", "utf-8")
        assert self.run("subscribers", "import", str(path), "--consent", "the tests").status == 0

    def send(self, *words: str) -> Done:
        """`send` of the sample day; the last `--wait` counts, and nothing here needs the usual ten minutes."""
        return self.run("send", "--date", DAY, "--wait", "30s", *words)

    @property
    def inbox(self) -> dict[str, int]:
        return dict(self.sandbox.inbox.addresses("email"))


@pytest.fixture
def shop(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shop]:
    for name in [name for name in os.environ if name.startswith("DISTRIBUTOR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DISTRIBUTOR_TELEGRAM_TOKEN", SANDBOX_TOKEN)
    monkeypatch.setenv("DISTRIBUTOR_WECOM_AI_GROUP_KEY", SANDBOX_KEY.format(1))
    # Issues of a few readers: no second between two looks for more, and no heap of a test run to be looked through.
    monkeypatch.setattr("distributor.runner.IDLE", 0.05)
    monkeypatch.setattr("distributor.dispatch.lane.IDLE_NAP", 0.05)
    monkeypatch.setattr("distributor.bootstrap.tune_interpreter", lambda: None)
    project.write_post("receipts", POST)
    with Sandbox(None) as sandbox:
        yield Shop(project, sandbox, capsys)


def finish(process: "subprocess.Popen[str]", seconds: float = 40) -> Done:
    """Waits for a process; one that stays longer is killed, and the test fails."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"it did not end within {seconds} s:\n{out}\n{err}")
    assert "Traceback" not in out + err, err
    return Done(process.returncode, out, err)


def until(what: Callable[[], object], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def readers(number: int) -> list[str]:
    return [f"reader-{n}@readers.example" for n in range(number)]


def every_command() -> Iterator[tuple[str, Any]]:
    def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        yield path, command
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, f"{path} {name}".strip())

    yield from walk(typer.main.get_command(app), "")


COMMANDS = dict(every_command())


class TestHelp:
    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_command_and_option_explains_itself(self, name: str) -> None:
        command = COMMANDS[name]
        assert command.help
        assert [parameter.name for parameter in command.params if not parameter.help] == []

    def test_the_words_of_the_design_are_there(self) -> None:
        words = "demo preview send rehearse resend issues status log approve pause resume cancel resolve "
        words += "reconcile subscribers run worker beat web sandbox doctor db"
        assert set(words.split()) <= set(COMMANDS)

    def test_help_is_printed(self, shop: Shop) -> None:
        done = shop.run("resend", "--help")
        assert done.status == 0
        assert "A dry run until --yes" in done.out

    def test_as_a_module(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "distributor", "--version"], capture_output=True, text=True, check=True
        )
        assert re.fullmatch(r"distributor \d+\.\d+\.\d+\n", done.stdout)


#: Up to half a second each, and not for every command. (pydantic is: typer itself imports it.)
HEAVY = {"alembic", "celery", "fastapi", "httpx", "kombu", "premailer", "sqlalchemy", "telegram", "uvicorn"}


class TestStart:
    """A command that is slow to begin is typed less often: what it does not need, it does not import."""

    @pytest.mark.parametrize(
        ("words", "needs"),
        [
            (["--help"], set()),
            (["send", "--help"], set()),
            (["check", "--help"], set()),
            (["ping", "cat"], set()),
            (["status"], {"httpx", "sqlalchemy"}),
            (["send", "--date", DAY, "--dry-run"], {"httpx", "premailer", "sqlalchemy"}),
        ],
        ids=["help", "a command's help", "another's", "wrong use", "status", "send"],
    )
    def test_what_is_imported(self, shop: Shop, words: list[str], needs: set[str]) -> None:
        code = (
            "import atexit, sys\n"
            "atexit.register(lambda: print('imported:', *sys.modules))\n"
            "from distributor.cli import main\n"
            "main()"
        )
        argv = [sys.executable, "-c", code, "-C", str(shop.project.root)]
        subprocess.run([*argv, "db", "upgrade"], capture_output=True, check=True)
        done = subprocess.run([*argv, *words], capture_output=True, text=True, check=False)
        imported = done.stdout.rpartition("imported:")[2].split()
        assert "distributor.cli.app" in imported
        assert HEAVY.intersection(imported) <= needs


class TestHints:
    """What a command tells to type next works from where the user stands."""

    def failed(self, shop: Shop) -> None:
        shop.sandbox.faults.add(Fault("email", "gone@*", "refuse"))
        shop.add("gone@readers.example")

    @pytest.mark.parametrize(
        ("folder", "said"), [(".", "distributor log 1"), ("..", "distributor -C project log 1")]
    )
    def test_the_project_is_named_when_it_must_be(
        self, shop: Shop, folder: str, said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.failed(shop)
        monkeypatch.chdir(shop.project.root / folder)
        said = said.replace("project", shop.project.root.name)
        assert f"1 failed:      {said} --state failed\n" in shop.send().out

    def test_the_environment_names_it_too(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failed(shop)
        monkeypatch.setenv("DISTRIBUTOR_PROJECT", str(shop.project.root))
        assert "  distributor log 1 --state failed" in shop.send().out

    def test_a_path_is_quoted(self, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        moved = tmp_path / "my news"
        shop.project.root.rename(moved)
        shop.project = replace(shop.project, root=moved)
        shop.configure()
        self.failed(shop)
        monkeypatch.chdir(tmp_path)
        assert "distributor -C 'my news' log 1 --state failed" in shop.send().out

    def test_a_rehearsal_tells_the_reasons_itself(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its database is gone afterwards: no command could show them."""
        shop.add("gone@readers.example", "here@readers.example")
        faulty = partial(Sandbox, faults=[Fault("email", "gone@*", "refuse")])
        monkeypatch.setattr("distributor.sandbox.server.Sandbox", faulty)
        done = shop.run("rehearse", "receipts")
        assert done.status == 0
        assert "1 failed: email: 550 5.1.1" in done.out
        assert "--state" not in done.out


class TestWrongUse:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["sned"], "No such command 'sned'"),
            (["send", "--wait", "soon"], "expected a duration such as"),
            (["send", "--date", "tomorrow"], "tomorrow"),
            (["resend"], "Missing argument"),
            (["resend", "1", "--only", "everything"], "everything"),
            (["resolve", "12"], "write ISSUE.NUMBER"),
            (["resolve", "1.1"], "say --sent or --not-sent"),
            (["ping", "cat"], "worker or beat"),
            (["status", "99"], "99"),
            (["log", "99"], "99"),
            (["pause", "99"], "99"),
            (["cancel", "99", "--yes"], "99"),
            (["resend", "99", "--reason", "x"], "99"),
            (["resolve", "99.1", "--sent"], "99.1"),
            (["status"], "no issue was opened yet: `distributor send`"),
            (["log"], "no issue was opened yet"),
            (["approve"], "no issue was opened yet"),
            (["send", "-n", "weekly"], "no newsletter is called 'weekly'"),
            (["subscribers", "list", "-n", "weekly"], "there are: ai-daily"),
            (["send", "no-such-post"], 'no post is called "no-such-post"'),
            (["check", "no-such-post"], 'no post is called "no-such-post"'),
            (["check"], "or later in"),
            (["preview", "no-such-post"], 'no post is called "no-such-post"'),
            (["send", "receipts", "--test-to", "a@b.example", "--channel", "fax"], "has no channel 'fax'"),
            (["send", "receipts", "--test-to", "nobody"], "is not an e-mail address"),
            (["worker"], "workers need a broker: set DISTRIBUTOR_BROKER_URL"),
            (["beat"], "workers need a broker"),
        ],
    )
    def test_it_is_told_and_ends_with_2(self, shop: Shop, words: list[str], said: str) -> None:
        done = shop.run(*words)
        assert (done.status, done.out) == (2, "")
        assert said in " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.err).split())

    def test_nothing_is_opened_by_it(self, shop: Shop) -> None:
        shop.add("a@readers.example")
        shop.run("send", "receipts", "--wait", "soon")
        assert shop.run("issues", "--json").json == []

    def test_no_configuration(self, shop: Shop, tmp_path: Path) -> None:
        done = shop.run("-C", str(tmp_path / "nowhere"), "status")
        assert done.status == 2
        assert "nowhere/config/distributor.toml: not found" in done.err
        assert "--project" in done.err

    def test_a_wrong_key_is_told_with_its_place(self, shop: Shop) -> None:
        path = shop.project.root / "config/distributor.toml"
        path.write_text("[engine]\nchunk = 5\nlanse = 2\n", "utf-8")
        done = shop.run("status")
        assert (done.status, done.err) == (
            2,
            f"error: {path}:3: engine.lanse: unknown key (a typing mistake?)\n",
        )

    def test_a_broken_post_is_told_with_its_place(self, shop: Shop) -> None:
        path = shop.project.write_post("broken", "---\ntitle: x\ndate: soon\n---\n\nx\n")
        for command in (["send", "broken"], ["preview", "broken"], ["rehearse", "broken"]):
            done = shop.run(*command)
            assert done.status == 2
            assert f"{path}:3: " in done.err

    def test_without_the_token_a_send_says_what_to_set(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("DISTRIBUTOR_TELEGRAM_TOKEN")
        telegram = {"destinations": [{"name": "room", "chat": "-100500"}]}
        shop.configure({"channels": {"telegram": telegram}})
        done = shop.send("--wait", "1s")
        assert done.status == 1
        assert "DISTRIBUTOR_TELEGRAM_TOKEN" in done.out
        assert "1 still open" in done.out
        monkeypatch.setenv("DISTRIBUTOR_TELEGRAM_TOKEN", SANDBOX_TOKEN)
        shop.run("resume", "telegram")
        assert shop.send().status == 0
        assert shop.sandbox.inbox.count("telegram") == 1

    def test_a_test_send_without_the_token_is_wrong_configuration(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("DISTRIBUTOR_TELEGRAM_TOKEN")
        shop.configure({"channels": {"telegram": {"subscribers": True}}})
        done = shop.send("--test-to", "100500", "--channel", "telegram")
        assert (done.status, done.out) == (2, "")
        assert "\nerror: no bot token: set DISTRIBUTOR_TELEGRAM_TOKEN" in done.err

    def test_a_missing_extra_is_told_with_the_command(self, shop: Shop) -> None:
        """An installation without the sandbox has every other command."""
        code = "import sys; sys.modules['aiosmtpd.smtp'] = None; from distributor.cli import main; main()"
        argv = [sys.executable, "-c", code, "-C", str(shop.project.root)]
        works = subprocess.run([*argv, "issues"], capture_output=True, text=True, check=False)
        fails = subprocess.run([*argv, "demo"], capture_output=True, text=True, check=False)
        assert (works.returncode, works.stderr) == (0, "")
        assert fails.returncode == 1
        assert fails.stderr == ("error: the sandbox needs aiosmtpd: run pip install 'distributor[sandbox]'\n")


class TestServersThatAreDown:
    def test_the_database(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DISTRIBUTOR_DATABASE_URL", DEAD_DATABASE)
        for words in (["status"], ["send", "receipts"], ["db", "upgrade"], ["subscribers", "list"], ["run"]):
            done = shop.run(*words)
            assert done.status == 1
            assert "the database postgresql" in done.err
            assert "does not answer" in done.err
            assert "hush" not in done.err

    @pytest.mark.services
    def test_tables_that_are_not_there_yet(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch, postgres_url: str
    ) -> None:
        monkeypatch.setenv("DISTRIBUTOR_DATABASE_URL", postgres_url)
        done = shop.run("status")
        assert done.status == 1
        assert "run `distributor db upgrade`" in done.err
        for _again in range(2):
            done = shop.run("db", "upgrade")
            assert done.status == 0
            assert "is at revision" in done.out
        assert "no issue was opened yet" in shop.run("status").err

    @pytest.mark.services
    def test_the_broker(self, shop: Shop, monkeypatch: pytest.MonkeyPatch, postgres_url: str) -> None:
        """The issue is opened; workers find it in the database once the broker is back."""
        monkeypatch.setenv("DISTRIBUTOR_DATABASE_URL", postgres_url)
        monkeypatch.setenv("DISTRIBUTOR_BROKER_URL", DEAD_BROKER)
        shop.run("db", "upgrade")
        shop.add("a@readers.example")
        began = time.monotonic()
        done = shop.send()
        assert time.monotonic() - began < 10
        assert done.status == 1
        assert "the broker does not answer" in done.out
        assert "issue 1 stands in the database" in done.out
        assert "1 still open" in done.out
        assert "hush" not in done.out + done.err
        [issue] = shop.run("issues", "--json").json
        assert (issue["state"], issue["deliveries"]["pending"]) == ("sending", 1)

    @pytest.mark.services
    def test_a_worker_waits_for_its_broker_and_says_so(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch, postgres_url: str
    ) -> None:
        monkeypatch.setenv("DISTRIBUTOR_DATABASE_URL", postgres_url)
        monkeypatch.setenv("DISTRIBUTOR_BROKER_URL", DEAD_BROKER)
        shop.run("db", "upgrade")
        process = shop.start("worker", "--concurrency", "1")
        assert process.stderr
        said = ""
        while "Trying again" not in said and (line := process.stderr.readline()):
            said += line
        process.terminate()
        process.communicate(timeout=15)
        assert "Cannot connect to redis://" in said
        assert "127.0.0.1:1" in said
        assert "hush" not in said

    @pytest.mark.parametrize(("verbose", "logged"), [([], False), (["--verbose"], True)])
    def test_a_stopped_channel_is_told_once(self, shop: Shop, verbose: list[str], logged: bool) -> None:
        shop.smtp_port = free_port()
        shop.configure()
        shop.add("a@readers.example")
        done = finish(shop.start(*verbose, "send", "--date", DAY, "--wait", "1s"))
        assert done.status == 1
        assert "email is stopped: " in done.out
        assert ("channel_stopped" in done.err) is logged

    def test_the_relay_stops_the_channel_and_nothing_is_lost(self, shop: Shop) -> None:
        shop.smtp_port = free_port()
        shop.configure()
        shop.add(*readers(3))
        done = shop.send("--wait", "1s")
        assert done.status == 1
        assert f"email is stopped: mail server 127.0.0.1:{shop.smtp_port}" in done.out.replace("  ", " ")
        assert "3 still open" in done.out
        stood = shop.run("status", "--json")
        assert stood.status == 1
        assert list(stood.json["stopped_channels"]) == ["email"]
        assert [entry["tries"] for entry in shop.run("log", "--json").json] == [0, 0, 0]
        with Sandbox(None, smtp_port=shop.smtp_port) as mended:
            assert shop.run("resume", "email").out == "email is used again\n"
            done = shop.send()
            assert done.status == 0
            assert mended.inbox.addresses("email") == dict.fromkeys(readers(3), 1)
        assert shop.run("status").status == 0


class TestSend:
    def test_the_day_s_post_goes_out_once(self, shop: Shop) -> None:
        shop.configure({"channels": WECOM})
        shop.add(*readers(3))
        done = shop.send()
        assert done.status == 0
        assert f"ai-daily {DAY}: issue 1: 每封信都有收据" in done.out
        assert done.out.splitlines()[-1].split() == ["total", "4", "4", "0", "0", "0", "0", "0"]
        again = shop.send()
        assert again.status == 0
        assert "issue 1 (每封信都有收据) was already opened; nothing is sent twice" in again.out
        assert shop.inbox == dict.fromkeys(readers(3), 1)
        assert shop.sandbox.inbox.count("wecom") == 1
        status = shop.run("status", "--json").json
        assert (status["state"], status["balanced"]) == ("finished", True)
        assert status["channels"]["email"]["sent"] == 3

    def test_a_dry_run_changes_nothing(self, shop: Shop) -> None:
        shop.add(*readers(3))
        done = shop.send("--dry-run")
        assert done.status == 0
        assert "nothing was sent (dry run)" in done.out
        assert ["email", "3"] in [line.split() for line in done.out.splitlines()]
        assert shop.inbox == {}
        assert shop.run("issues", "--json").json == []

    def test_a_test_send_reaches_one_address_and_opens_no_issue(self, shop: Shop) -> None:
        shop.add(*readers(3))
        done = shop.send("--test-to", "editor@example.com")
        assert done.status == 0
        assert shop.inbox == {"editor@example.com": 1}
        [entry] = shop.sandbox.inbox.entries("email")
        assert entry.content["subject"].startswith("[TEST] ")
        assert shop.run("issues", "--json").json == []

    def test_a_test_send_to_a_robot_goes_by_its_name(self, shop: Shop) -> None:
        robot = {"name": "ai-group", "mode": "text", "mention_all": True}
        shop.configure({"channels": {"wecom": {"destinations": [robot]}}})
        done = shop.send("--test-to", "ai-group", "--channel", "wecom")
        assert done.status == 0, done.err
        assert shop.sandbox.inbox.count("wecom") == 1
        assert "mentioned_list" not in shop.sandbox.inbox.entry(1).content  # a test rings for nobody
        unknown = shop.send("--test-to", "nobody", "--channel", "wecom")
        assert unknown.status == 2
        assert "has no destination 'nobody'" in unknown.err

    def test_a_test_send_with_the_relay_down(self, shop: Shop) -> None:
        shop.sandbox.faults.add(Fault("email", "*", "down"))
        done = shop.send("--test-to", "editor@example.com")
        assert (done.status, done.out) == (1, "")
        assert "\nerror: 421 " in done.err

    def test_a_second_issue_of_a_day_is_asked_for_by_name(self, shop: Shop) -> None:
        shop.add("a@readers.example")
        shop.send()
        assert "already has issue 1" in shop.send("receipts", "--extra").err
        shop.project.write_post("evening", POST.replace("账上", "晚报里"))
        assert shop.send("evening", "--extra").status == 0
        assert shop.inbox == {"a@readers.example": 2}
        days = [(issue["local_date"], issue["extra"]) for issue in shop.run("issues", "--json").json]
        assert days == [(DAY, 1), (DAY, 0)]

    def test_another_post_is_not_taken_for_the_one_that_has_the_day(self, shop: Shop) -> None:
        shop.add("a@readers.example")
        shop.send()
        shop.project.write_post("second", POST.replace("title: ", "title: 又 ", 1))
        other = shop.send("second")
        assert other.status == 2
        assert "the day belongs to issue 1 (receipts); second was not sent" in other.err
        assert "send --extra second" in other.err
        assert shop.send("no-such-post").status == 2
        assert shop.send("receipts").status == 0
        assert shop.inbox == {"a@readers.example": 1}

    def test_an_extra_issue_that_is_under_way_goes_on(self, shop: Shop) -> None:
        shop.add("a@readers.example")
        shop.send()
        shop.project.write_post("second", POST.replace("title: ", "title: 又 ", 1))
        shop.sandbox.faults.add(Fault("email", "*", "down"))
        assert shop.send("--extra", "second", "--wait", "2s").status == 1
        shop.sandbox.faults.clear()
        shop.run("resume", "email")
        assert shop.send("--extra", "second").status == 0
        assert shop.inbox == {"a@readers.example": 2}

    def test_a_dry_run_promises_nothing_that_a_send_refuses(self, shop: Shop) -> None:
        shop.add("a@readers.example")
        shop.send()
        again = shop.run("send", "receipts", "--date", "2026-12-30", "--dry-run")
        assert again.status == 2
        assert "already has issue 1" in again.err

    def test_two_posts_of_a_day_are_for_a_person_to_choose_from(self, shop: Shop) -> None:
        shop.add("a@readers.example")
        shop.project.write_post("evening", POST.replace("账上", "晚报里"))
        done = shop.send()
        assert done.status == 2
        assert "evening.md" in done.err
        assert f"distributor -C {shop.project.root} send POST" in done.err
        assert shop.send("evening").status == 0

    def test_an_empty_audience_is_asked_about(self, shop: Shop) -> None:
        done = shop.send()
        assert done.status == 2
        assert "only 0 recipients" in done.err
        assert shop.send("--anyway").status == 0

    def test_refused_recipients_are_normal(self, shop: Shop) -> None:
        shop.sandbox.faults.add(Fault("email", "gone@*", "refuse"))
        shop.add("gone@readers.example", "here@readers.example")
        done = shop.send()
        assert done.status == 0
        assert "1 failed:" in done.out
        assert f"distributor -C {shop.project.root} log 1 --state failed" in done.out
        assert "550 5.1.1" in shop.run("log", "--state", "failed").out

    def test_one_unconfirmed_is_not_done_until_a_person_says_so(self, shop: Shop) -> None:
        shop.sandbox.faults.add(Fault("email", "lost@*", "drop-after-dot"))
        shop.add("lost@readers.example", "here@readers.example")
        done = shop.send()
        assert done.status == 1
        assert f"1 unconfirmed: distributor -C {shop.project.root} log 1 --state unconfirmed" in done.out
        [entry] = shop.run("log", "--state", "unconfirmed", "--json").json
        assert entry["address"] == "lost@readers.example"
        assert shop.run("resolve", entry["delivery"], "--sent").status == 0
        assert shop.run("status").status == 0
        assert shop.run("resolve", entry["delivery"], "--sent").status == 2
        assert shop.inbox["lost@readers.example"] == 1

    def test_rehearse_reaches_nobody(self, shop: Shop) -> None:
        shop.add(*readers(3))
        done = shop.run("rehearse", "receipts", "--inbox", str(shop.project.root / "rehearsed"))
        assert done.status == 0
        assert "nobody got anything" in done.out
        assert shop.inbox == {}
        assert shop.run("issues", "--json").json == []
        lines = (shop.project.root / "rehearsed/inbox.jsonl").read_text("utf-8").splitlines()
        assert sum("@readers.example" in line for line in lines) == 3


class TestPauseApproveCancel:
    def test_a_paused_issue_goes_on_when_resumed(self, shop: Shop) -> None:
        shop.sandbox.faults.add(Fault("email", "*", "down"))
        shop.add("a@readers.example")
        shop.send("--wait", "1s")
        shop.sandbox.faults.clear()
        assert shop.run("pause").status == 0
        shop.run("resume", "email")
        done = shop.send()
        assert done.status == 1
        assert f"issue 1 is paused; go on with: distributor -C {shop.project.root} resume 1" in done.out
        assert shop.inbox == {}
        assert shop.run("resume", "1").out == "issue 1 goes on\n"
        assert shop.send().status == 0
        assert shop.inbox == {"a@readers.example": 1}
        assert "issue 1 is finished already" in shop.run("pause").err

    def test_a_cancelled_issue_stays_cancelled(self, shop: Shop) -> None:
        shop.sandbox.faults.add(Fault("email", "*", "down"))
        shop.add("a@readers.example")
        shop.send("--wait", "1s")
        shop.sandbox.faults.clear()
        done = shop.run("cancel", "1", "--yes")
        assert (done.status, done.out) == (0, "issue 1 is cancelled; 1 deliveries are skipped\n")
        assert "cancelled already" in shop.run("cancel", "1", "--yes").err
        shop.run("resume", "email")
        done = shop.send()
        assert done.status == 1
        assert "issue 1 was cancelled" in done.out
        assert shop.inbox == {}

    def test_an_issue_that_waits_for_approval_is_not_sent_by_a_second_send(self, shop: Shop) -> None:
        zone_day = datetime.now(UTC).astimezone().date()
        shop.configure(
            {"timezone": "UTC", "schedule": {"approval": "required", "time": "00:00", "grace": "1d"}}
        )
        shop.add("a@readers.example")
        path = shop.project.write_post("receipts", POST.replace(DAY, str(zone_day)))
        os.utime(path, (time.time() - 60, time.time() - 60))
        process = shop.start("run")
        until(lambda: shop.run("issues", "--json").json)
        process.send_signal(signal.SIGINT)
        assert finish(process).status == 0
        done = shop.run("send")
        assert done.status == 1
        assert f"issue 1 waits for approval: distributor -C {shop.project.root} approve 1" in done.out
        assert "issue 1 is approved by" in shop.run("approve").out
        assert shop.run("send").status == 0
        assert shop.inbox == {"a@readers.example": 1}


class TestHandoff:
    PLACE: ClassVar = {"name": "readers-one", "title": "读者一群", "to": "desk@example.com"}

    @pytest.fixture
    def place(self, shop: Shop) -> Shop:
        """A newsletter for a WeChat group alone: its pack goes to a person by mail."""
        none = {"email": None, "telegram": None, "wecom": None}
        shop.configure({"channels": {**none, "handoff": {"destinations": [self.PLACE]}}})
        return shop

    def packs(self, shop: Shop) -> list[str]:
        """The text of each mail the person got."""
        mails = [shop.sandbox.inbox.mail(entry.id) for entry in shop.sandbox.inbox.entries("email")]
        bodies = [message_from_bytes(mail, policy=default).get_body() for mail in mails]
        return [body.get_content() for body in bodies if body is not None]

    def test_a_person_gets_the_pack_and_settles_it(self, place: Shop) -> None:
        done = place.send()
        assert done.status == 1  # it is not out yet
        assert "awaiting a person: 1" in done.out
        assert "1 unconfirmed:" not in done.out
        [pack] = self.packs(place)
        assert "谁收到了，谁没有收到，都写在账上。" in pack
        assert "  distributor resolve 1.1 --sent" in pack.splitlines()

        status = place.run("status")
        assert status.status == 1
        assert "awaiting a person: 1" in status.out
        assert "readers-one: when it is posted:" in status.out
        assert place.run("status", "--json").json["awaiting"] == ["1.1"]
        log = place.run("log", "1").out
        assert "1.1  handoff  readers-one  unconfirmed (awaiting a person)" in log

        again = place.send()
        assert "nothing is sent twice" in again.out
        assert len(self.packs(place)) == 1

        settled = place.run("resolve", "1.1", "--sent")
        assert settled.status == 0
        assert "awaiting" not in settled.out
        status = place.run("status", "--json")
        assert (status.status, status.json["awaiting"]) == (0, [])
        assert status.json["channels"]["handoff"]["sent"] == 1

    def test_a_pack_is_sent_again_when_it_is_asked_for_by_name(self, place: Shop) -> None:
        place.send()
        nothing = place.run("resend", "1", "--only", "unconfirmed", "--reason", "a relay was ill", "--yes")
        assert "nothing to resend" in nothing.out + nothing.err
        named = place.run(
            *("resend", "1", "--only", "unconfirmed", "--channel", "handoff"),
            *("--reason", "the mail got lost", "--yes", "--wait", "30s"),
        )
        assert named.status == 1
        assert "awaiting a person: 1" in named.out
        assert len(self.packs(place)) == 2

    def test_what_was_not_posted_may_be_handed_over_again(self, place: Shop) -> None:
        place.send()
        place.run("resolve", "1.1", "--not-sent")
        again = place.run(
            "resend", "1", "--only", "failed", "--reason", "on second thoughts", "--yes", "--wait", "30s"
        )
        assert again.status == 1
        assert len(self.packs(place)) == 2

    def test_a_test_send_hands_over_and_waits_for_nobody(self, place: Shop) -> None:
        done = place.send("--test-to", "readers-one", "--channel", "handoff")
        assert done.status == 0, done.err
        [pack] = self.packs(place)
        assert "resolve" not in pack
        assert place.run("issues", "--json").json == []


class TestResend:
    def test_what_failed_is_repaired_exactly(self, shop: Shop) -> None:
        """Must-show: a fault, the repair that reaches exactly those it hit, and the log with both reasons."""
        bad = ["broken-1@readers.example", "broken-2@other.example"]
        shop.sandbox.faults.add(Fault("email", "broken-*", "spam"))
        shop.add(*readers(4), *bad)
        assert shop.send().status == 0
        assert shop.inbox == dict.fromkeys(readers(4), 1)

        refused = shop.run("resend", "1", "--only", "failed")
        assert refused.status == 2
        assert "a resend needs a reason" in refused.err
        dry = shop.run("resend", "1", "--only", "failed", "--reason", "filter mended")
        assert dry.status == 0
        assert ["email", "2"] in [line.split() for line in dry.out.splitlines()]
        assert "nothing was changed (dry run); add --yes" in dry.out
        assert shop.inbox == dict.fromkeys(readers(4), 1)

        shop.sandbox.faults.clear()
        done = shop.run("resend", "1", "--only", "failed", "--reason", "filter mended", "--yes")
        assert done.status == 0
        assert "2 deliveries of issue 1 go out again: filter mended" in done.out
        assert shop.inbox == dict.fromkeys([*readers(4), *bad], 1)

        for entry in shop.run("log", "1", "--json").json:
            tried = [(each["trigger"], each["outcome"], each["reason"]) for each in entry["attempts"]]
            first = ("scheduled", "failed" if entry["address"] in bad else "sent", None)
            again = [("resend", "sent", "filter mended")] if entry["address"] in bad else []
            assert tried == [first, *again]
        text = shop.run("log", "1", "--to", bad[0]).out
        assert re.search(r"scheduled: failed  554 .*DT:SPM", text)
        assert "resend “filter mended”: sent" in text
        assert "nothing to resend" in shop.run("resend", "1", "--reason", "again", "--yes").out

    def test_what_was_sent_is_refused_unless_asked_for_by_name(self, shop: Shop) -> None:
        shop.add(*readers(2))
        shop.send()
        to = ["--to", readers(1)[0], "--reason", "lost it", "--yes"]
        assert "was already sent to; --only all" in shop.run("resend", "1", *to).out
        assert shop.run("resend", "1", "--only", "all", *to).status == 0
        assert shop.inbox == {readers(2)[0]: 2, readers(2)[1]: 1}

    def test_who_came_later_is_missing(self, shop: Shop) -> None:
        shop.add("early@readers.example")
        shop.send()
        shop.add("late@readers.example")
        done = shop.run("resend", "1", "--only", "missing", "--reason", "signed up late", "--yes")
        assert done.status == 0
        assert shop.inbox == {"early@readers.example": 1, "late@readers.example": 1}

    def test_who_has_left_is_never_reached(self, shop: Shop) -> None:
        shop.sandbox.faults.add(Fault("email", "broken-*", "spam"))
        shop.add("broken-1@readers.example")
        shop.send()
        shop.sandbox.faults.clear()
        shop.run("subscribers", "suppress", "broken-1@readers.example")
        done = shop.run("resend", "1", "--reason", "filter mended", "--yes")
        assert done.status == 0
        assert shop.inbox == {}


class TestOutput:
    def test_what_people_wrote_is_printed_as_it_stands(self, capsys: pytest.CaptureFixture[str]) -> None:
        output.say("posts/x.md:100: from 2001:db8:a:1")
        output.complain("x.toml:100: bad")
        output.print_table(["name", "said"], [["[red]x", "550 [/b] :x:"], ["日报", "long " * 5]])
        told = capsys.readouterr()
        assert told.out.splitlines()[0] == "posts/x.md:100: from 2001:db8:a:1"
        assert told.err == "error: x.toml:100: bad\n"
        assert told.out.splitlines()[1:3] == ["name    said", "[red]x  550 [/b] :x:"]


class TestListings:
    def test_json_of_every_listing(self, shop: Shop) -> None:
        shop.add("a@readers.example")
        shop.send()
        for words in (
            ["issues"],
            ["status"],
            ["log"],
            ["notices"],
            ["doctor"],
            ["subscribers", "list"],
            ["preview", "receipts", "--out", str(shop.project.root / "out")],
        ):
            done = shop.run(*words, "--json")
            assert json.loads(done.out), words

    def test_the_log_goes_on_behind_a_number(self, shop: Shop) -> None:
        shop.add(*readers(3))
        shop.send()
        assert "… more: --after 2" in shop.run("log", "--limit", "2").out
        assert [entry["seq"] for entry in shop.run("log", "--after", "2", "--json").json] == [3]

    def test_a_long_address_is_not_cut(self, shop: Shop) -> None:
        address = f"{'a' * 60}@{'b' * 60}.{'c' * 60}.example"
        shop.add(address)
        assert address in shop.run("subscribers", "list").out

    def test_ping(self, shop: Shop) -> None:
        done = shop.run("ping", "worker")
        assert (done.status, done.out) == (1, f"no worker of {socket.gethostname()} was heard of yet\n")
        shop.add("a@readers.example")
        shop.send()
        assert shop.run("ping", "worker").status == 0

    def test_ping_looks_at_this_host_unless_any_will_do(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shop.add("a@readers.example")
        shop.send()
        monkeypatch.setattr(socket, "gethostname", lambda: "another")
        done = shop.run("ping", "worker")
        assert (done.status, done.out) == (1, "no worker of another was heard of yet\n")
        assert shop.run("ping", "worker", "--any").status == 0


def database_of(shop: Shop) -> Database:
    return Database(f"sqlite:///{shop.project.root}/var/distributor.sqlite3")


class TestStatus:
    def under_way(self, shop: Shop, *addresses: str) -> None:
        """An issue that stands still after its first message: the relay is down."""
        shop.add(*(addresses or readers(3)))
        shop.sandbox.faults.add(Fault("email", "*", "down"))
        assert shop.send("--wait", "1s").status == 1
        shop.sandbox.faults.clear()

    def test_what_will_miss_the_deadline(self, shop: Shop) -> None:
        self.under_way(shop)
        done = shop.run("status")
        assert done.status == 1
        header, email = (line.split() for line in done.out.splitlines()[1:3])
        assert header == [
            "channel",
            "planned",
            "sent",
            "failed",
            "skipped",
            "unconfirmed",
            "open",
            "rate",
            "ETA",
        ]
        assert email == ["email", "3", "0", "0", "0", "0", "3", "0/s"]
        assert "; at this rate 3 deliveries will miss it" in done.out
        assert re.search(r"email is stopped until \d{4}-.* UTC: 421 ", done.out)
        facts = shop.run("status", "--json").json
        assert facts["expires_at"] > facts["at"]
        told = {name: facts["channels"]["email"][name] for name in ("open", "rate", "eta", "misses")}
        assert told == {"open": 3, "rate": 0.0, "eta": None, "misses": 3}
        assert facts["total"]["misses"] == 3

    def test_paused_and_held_are_told_with_what_to_do(self, shop: Shop) -> None:
        self.under_way(shop)
        shop.run("pause")
        assert "  paused; go on with: " in shop.run("status").out
        shop.run("resume", "1")
        database = database_of(shop)
        Ledger(database).hold(1, "the database has forgotten deliveries")
        assert "· held ·" in shop.run("status").out
        assert "  held: the database has forgotten deliveries\n" in shop.run("status").out
        assert shop.run("status", "--json").json["hold"] == "the database has forgotten deliveries"
        listed = shop.run("issues").out
        assert " held " in listed
        assert "1 is held: the database has forgotten deliveries\n" in listed
        refused = shop.run("resume", "1")
        assert refused.status == 2
        assert f"issue 1 is held; first: distributor -C {shop.project.root} reconcile 1\n" in refused.err
        shop.run("cancel", "1", "--yes")
        assert "held" not in shop.run("status").out
        database.close()

    def test_by_domain_and_relay(self, shop: Shop) -> None:
        shop.configure({"channels": {**WECOM, "email": {}}})
        shop.sandbox.faults.add(Fault("email", "gone@*", "refuse"))
        shop.add("a@one.example", "b@one.example", "gone@two.example")
        shop.send()
        rows = [line.split() for line in shop.run("status", "--by", "domain").out.splitlines()]
        assert ["domain", "sent", "failed", "unconfirmed", "open", "retrying", "throttled", "rate"] in rows
        for row in (["one.example", "2", "0"], ["two.example", "0", "1"], ["-", "1", "0"]):
            assert row in [found[:3] for found in rows]
        both = shop.run("status", "--by", "domain,relay", "--json").json["groups"]
        assert [(row["domain"], row["sent"]) for row in both] == [
            ("one.example", 2),
            ("-", 1),
            ("two.example", 0),
        ]
        assert all(row["relay"] not in {"", "-", None} for row in both)
        again = shop.run("status", "--by", "relay", "--by", "domain", "--json").json["groups"]
        assert [row["domain"] for row in again] == [row["domain"] for row in both]
        assert "groups" not in shop.run("status", "--json").json

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--by", "country"], "'country' is none of: domain, relay"),
            (["--by", "domain", "--watch"], "does not go with --watch"),
        ],
    )
    def test_wrong_use(self, shop: Shop, words: list[str], said: str) -> None:
        done = shop.run("status", *words)
        assert done.status == 2
        assert said in " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.err).split())

    def test_the_reasons_of_a_large_issue_are_a_sample_and_say_so(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watching, "SMALL", 1)
        shop.sandbox.faults.add(Fault("email", "gone@*", "refuse"))
        shop.add("gone@one.example", "gone@two.example")
        shop.send()
        said = shop.run("status").out
        assert "failed: 1 × email: 550 5.1.1" in said
        assert f"failed: all of them: distributor -C {shop.project.root} log 1 --state failed" in said

    def test_a_large_issue_is_looked_at_twice(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.under_way(shop)
        monkeypatch.setattr(watching, "SMALL", 1)
        monkeypatch.setattr(watching, "LOOK_EVERY", 0.01)
        assert shop.run("status", "--json").json["channels"]["email"]["rate"] == 0.0


class TestForecast:
    """Rate, ETA and what will miss the deadline, from counters alone."""

    @pytest.mark.parametrize(
        ("sent", "rate", "left", "eta", "misses"),
        [
            (40, 2.0, 20, 30, 20),
            (40, 2.0, 30, 30, 0),
            (40, 0.0, 20, None, 60),
            (40, 2.0, -5, 30, 60),
            (40, None, 20, None, None),
            (100, 2.0, 20, None, None),
        ],
        ids=["too slow", "just in time", "it stands still", "too late", "not known yet", "done"],
    )
    def test_a_channel(
        self, sent: int, rate: float | None, left: int, eta: float | None, misses: int | None
    ) -> None:
        tally = Tally(planned=100, sent=sent, pending=100 - sent)
        line = watching.line_of(tally, rate, timedelta(seconds=left))
        assert (line.eta, line.misses) == (eta, misses)

    def test_a_rate_is_that_of_the_last_twenty_seconds(self) -> None:
        pace = watching.Pace()
        pace.add(0, {"email": Tally(planned=900)})
        assert pace.rates() == {}
        pace.add(10, {"email": Tally(planned=900, sent=40, failed=10)})
        assert pace.rates() == {"email": 5.0}
        for second in range(11, 41):
            pace.add(second, {"email": Tally(planned=900, sent=second * 10)})
        assert pace.rates() == {"email": 10.0}

    def test_a_resend_begins_anew(self) -> None:
        pace = watching.Pace()
        pace.add(0, {"email": Tally(planned=9, sent=9)})
        pace.add(1, {"email": Tally(planned=9, pending=9)})
        assert pace.rates() == {}
        pace.add(2, {"email": Tally(planned=9, sent=3, pending=6)})
        assert pace.rates() == {"email": 3.0}


class TestWatch:
    def test_what_is_over_is_shown_once(self, shop: Shop) -> None:
        shop.add(*readers(2))
        shop.send()
        done = shop.run("status", "--watch")
        assert done.status == 0
        state, email = done.out.splitlines()
        assert state[9:] == "finished"
        assert email[9:] == "email: 2 of 2 settled · 2 sent · 0 failed · 0 skipped · 0 unconfirmed · 0 open"

    @pytest.mark.parametrize("words", [[], ["--json"]], ids=["lines", "json"])
    def test_a_line_each_time_something_changed(self, shop: Shop, words: list[str]) -> None:
        shop.sandbox.faults.add(Fault("email", "*", "slow", value=1))
        shop.add(*readers(120))
        sending = shop.start("send", "--date", DAY, "--wait", "90s")
        until(lambda: len(shop.inbox) >= 1)
        watching = shop.start("status", "--watch", *words)
        assert watching.stdout
        said = ""
        while not re.search('settled|"open"', said):
            said += (line := watching.stdout.readline())
            assert line
        shop.sandbox.faults.clear()  # it has seen the issue under way
        done = finish(watching)
        finish(sending)
        said += done.out
        assert done.status == 0
        if not words:
            numbers = [int(found) for found in re.findall(r"email: (\d+) of 120 settled", said)]
        else:
            told = [json.loads(line) for line in said.splitlines()]
            numbers = [120 - facts["channels"]["email"]["open"] for facts in told]
            assert told[-1]["state"] in {"sending", "finished"}
        assert numbers[-1] == 120
        assert numbers == sorted(numbers)
        assert len(set(numbers)) > 1

    def test_on_a_terminal_it_is_drawn_in_place_until_ctrl_c(self, shop: Shop) -> None:
        TestStatus().under_way(shop)
        terminal, end = pty.openpty()
        argv = [sys.executable, "-m", "distributor", "-C", str(shop.project.root), "status", "--watch"]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
        with subprocess.Popen(argv, stdout=end, stderr=end, stdin=end, env=environment) as process:
            os.close(end)
            drawn = b""
            while drawn.count(b"unconfirmed") < 3:
                drawn += os.read(terminal, 65_536)
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 1
        os.close(terminal)
        assert b"\x1b[1A" in drawn  # up again, over what was there
        assert b"stopped" in drawn
        assert b"Traceback" not in drawn


class TestReconcile:
    def test_a_backup_that_was_put_back(self, shop: Shop) -> None:
        shop.configure(engine={"sweep": "1s", "lanes": 1, "journal": "var/journal"})
        path = shop.project.root / "var/distributor.sqlite3"
        shop.add(*readers(8))
        shop.sandbox.faults.add(Fault("email", "*", "slow", value=0.3))
        process = shop.start("send", "--date", DAY)
        until(lambda: len(shop.inbox) >= 2)
        process.send_signal(signal.SIGINT)
        assert finish(process).status == 1
        shop.sandbox.faults.clear()
        backup, before = path.read_bytes(), len(shop.inbox)
        assert shop.send().status == 0
        everybody = dict.fromkeys(readers(8), 1)
        assert shop.inbox == everybody
        for beside in path.parent.glob(f"{path.name}-*"):
            beside.unlink()
        path.write_bytes(backup)
        held = shop.send("--wait", "2s")
        assert held.status == 1
        assert shop.inbox == everybody
        assert "the database has forgotten deliveries" in shop.run("status").out
        done = shop.run("reconcile", "1", "--keep-held")
        assert done.status == 0
        told = f"{8 - before} deliveries of issue 1 are put right from the sent log of this host\n"
        assert told in done.out
        assert "issue 1 is still held: now the same on the other hosts" in done.out
        done = shop.run("reconcile", "1")
        assert "0 deliveries of issue 1 are put right" in done.out
        assert "nothing of issue 1 is open\n" in done.out
        assert shop.send().status == 0
        assert shop.inbox == everybody

    def test_what_comes_next(self, shop: Shop) -> None:
        TestStatus().under_way(shop)
        done = shop.run("reconcile", "1")
        assert done.status == 0
        assert "issue 1 goes on with 3 open deliveries, as soon as a worker is there; see: " in done.out

    def test_refused_without_a_sent_log(self, shop: Shop) -> None:
        TestStatus().under_way(shop)
        shop.configure(engine={"journal": ""})
        done = shop.run("reconcile", "1")
        assert (done.status, done.out) == (2, "")
        assert "there is no sent log here: engine.journal is empty" in done.err


class TestDoctorLooksAtTheJournal:
    def findings(self, shop: Shop) -> list[tuple[str, str, str]]:
        found = shop.run("doctor", "--json").json["findings"]
        return [(row["level"], row["text"], row["fix"]) for row in found if row["check"] == "journal"]

    def test_a_folder_that_can_be_used(
        self, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mounts = tmp_path / "mounts"
        mounts.write_text("/dev/sda1 / ext4 rw 0 0\n")
        monkeypatch.setattr(doctor, "MOUNTS", mounts)
        levels = {level for level, _text, _fix in self.findings(shop)}
        assert levels == {"ok"}
        assert not (shop.project.root / "var/journal").exists()  # it only looks

    def test_a_place_that_cannot_be_written(self, shop: Shop) -> None:
        (shop.project.root / "var").mkdir(exist_ok=True)
        shop.configure(engine={"journal": "/proc/journal"})
        [(level, text, fix)] = self.findings(shop)
        assert (level, text[:35]) == ("fail", "/proc/journal cannot be written: No")
        assert "engine.journal" in fix

    def test_none_at_all(self, shop: Shop) -> None:
        shop.configure(engine={"journal": ""})
        [(level, _text, fix)] = self.findings(shop)
        assert (level, fix) == ("warn", "name a local folder in engine.journal")

    @pytest.mark.parametrize(
        ("kind", "level", "said"),
        [
            ("ext4", "ok", "all workers of this host must name this same folder"),
            ("nfs4", "warn", "network file system (nfs4)"),
            ("cifs", "warn", "network file system (cifs)"),
            ("overlay", "warn", "the other workers of this host do not see it"),
        ],
    )
    def test_where_it_lies(self, tmp_path: Path, kind: str, level: str, said: str) -> None:
        mounts = tmp_path / "mounts"
        mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/x /srv/var {kind} rw 0 0\n")
        found = doctor.journal_place(Path("/srv/var/journal"), mounts)
        assert found.level == level
        assert said in found.text

    def test_how_much_room_there_is(self) -> None:
        assert doctor.journal_room(Path("/x"), 100_000_000).level == "ok"
        little = doctor.journal_room(Path("/x"), 99_999_999)
        assert (little.level, little.text[:19]) == ("warn", "/x has 99 MB left: ")


class TestPreview:
    def test_its_files(self, shop: Shop) -> None:
        shop.configure({"channels": {**WECOM, "telegram": {"subscribers": True}}})
        out = shop.project.root / "out"
        done = shop.run("preview", "receipts", "--out", str(out))
        assert done.status == 0
        assert f"written to {out}/" in done.out
        names = {path.name for path in out.iterdir()}
        assert {"email.html", "email.txt", "email.eml", "telegram-1.html", "summary.json"} <= names
        assert "都写在账上" in (out / "email.html").read_text("utf-8")
        assert shop.sandbox.inbox.count() == 0

    def test_new_pictures_are_fetched_on_demand_alone(self, shop: Shop) -> None:
        shop.configure(pictures={"rehost": "folder"})
        shop.project.write_post("receipts", f"{POST}\n![图](http://127.0.0.1:{shop.web_port}/a.png)\n")
        words = ("preview", "receipts", "--out", str(shop.project.root / "out"))
        assert "a.png: leads" not in shop.run(*words).out
        asked = shop.run(*words, "--pictures")
        assert asked.status == 0
        assert "a.png: leads into a private network" in asked.out

    def test_a_folder_that_cannot_be_written(self, shop: Shop) -> None:
        (shop.project.root / "out").write_text("a file\n", "utf-8")
        done = shop.run("preview", "receipts", "--out", str(shop.project.root / "out"))
        assert done.status == 1
        assert f"{shop.project.root}/out: " in done.err

    def test_old_news_goes_out_when_a_person_wants_it(self, shop: Shop) -> None:
        shop.configure({"schedule": {"expires": "2s"}})
        shop.sandbox.faults.add(Fault("email", "*", "down"))
        shop.add(*readers(3))
        late = shop.send("--wait", "20s")
        assert late.status == 1
        assert "expired before it was all sent" in late.out + late.err
        assert shop.run("status", "1", "--json").json["channels"]["email"]["skipped"] == 3
        shop.sandbox.faults.clear()
        shop.run("resume", "email")
        done = shop.run("resend", "1", "--only", "expired", "--reason", "the relay was down", "--yes")
        assert done.status == 0
        assert shop.inbox == dict.fromkeys(readers(3), 1)


UNFIT = """---
title: 今天的三件小事
date: 2026-03-05
---

今天的第一条（待补）。

![](https://images.example.com/a.png)

[第二条](notes/second.html)见[这里](https://bit.ly/receipts)。
"""
#: What every way of sending says of it, under `posts/unfit.md`.
UNFIT_ERRORS = [
    'posts/unfit.md:6: error: placeholder: "（待补）" was left for later → write it, or take it out',
    (
        "posts/unfit.md:10: error: link-nowhere: a link to nowhere: 'notes/second.html' → "
        "readers need a full https:// (or mailto:) address"
    ),
]


class TestCheck:
    @pytest.fixture(autouse=True)
    def _at_home(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(shop.project.root)
        shop.project.write_post("unfit", UNFIT)

    def test_a_line_a_finding_and_their_number(self, shop: Shop) -> None:
        done = shop.run("check", "unfit")
        *findings, last = done.out.splitlines()
        assert (done.status, done.err) == (1, "")
        assert findings[:2] == UNFIT_ERRORS
        assert (
            "posts/unfit.md:10: warning: link-shortened: https://bit.ly/receipts hides where it leads"
            in done.out
        )
        assert [line.split(": ")[1] for line in findings] == ["error"] * 2 + ["warning"] * 3 + ["note"] * 2
        assert last == "2 errors, 3 warnings, 2 notes in 1 post"

    def test_what_a_renderer_did_not_foresee_is_a_finding(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def render(*_: object) -> NoReturn:
            raise RecursionError("too deep")

        monkeypatch.setattr(EmailChannel, "render", render)
        done = shop.run("check", "receipts")
        assert (done.status, done.err) == (1, "")
        said = "posts/receipts.md: error: refused: it cannot be shown on email (RecursionError: too deep): is something"
        assert done.out.startswith(said)
        done = shop.run("preview", "receipts")
        assert done.status == 2
        assert "posts/receipts.md: it cannot be shown on email (RecursionError: too deep): " in done.err

    def test_a_post_that_may_go_out(self, shop: Shop) -> None:
        done = shop.run("check", "receipts")
        assert done.status == 0
        assert done.out.splitlines()[-1] == "no errors, 1 warning, 1 note in 1 post"
        assert shop.run("check", "--strict", "receipts").status == 1
        shop.configure({"preflight": {"ignore": ["words-few", "cover-missing"]}})
        done = shop.run("check", "--strict", "receipts")
        assert (done.status, done.out) == (0, "no errors, no warnings, no notes in 1 post\n")

    def test_several_as_json(self, shop: Shop) -> None:
        done = shop.run("check", "--json", "receipts", "posts/unfit.md")
        assert done.status == 1
        assert {name: done.json[name] for name in ("errors", "warnings", "notes")} == {
            "errors": 2,
            "warnings": 4,
            "notes": 3,
        }
        assert [entry["post"] for entry in done.json["posts"]] == ["receipts", "posts/unfit.md"]
        assert done.json["posts"][1]["findings"][0] == {
            "check": "placeholder",
            "severity": "error",
            "path": "posts/unfit.md",
            "line": 6,
            "text": '"（待补）" was left for later',
            "fix": "write it, or take it out",
        }

    def test_a_file_that_cannot_be_read_is_an_error_in_its_place(self, shop: Shop) -> None:
        shop.project.write_post("broken", "---\ntitle: x\ndate: soon\n---\n\nx\n")
        done = shop.run("check", "broken", "receipts")
        assert done.status == 1
        assert done.out.startswith('posts/broken.md:3: error: refused: date "soon" is no date')
        assert done.out.splitlines()[-1] == "1 error, 1 warning, 1 note in 2 posts"

    def test_without_a_name_it_is_today_s_post_or_the_next(self, shop: Shop) -> None:
        today = datetime.now(ZoneInfo("Asia/Shanghai")).date()
        for days in (5, 3):
            day = today + timedelta(days=days)
            shop.project.write_post(f"in-{days}", POST.replace(DAY, str(day)))
        assert "posts/in-3.md:3: warning: date-ahead: " in shop.run("check").out
        shop.project.write_post("today", POST.replace(DAY, str(today)))
        assert "posts/today.md:6: warning: words-few: " in shop.run("check").out

    def test_links_are_asked_only_when_wanted(self, shop: Shop) -> None:
        shop.project.write_post("linked", POST + "\n[一](http://127.0.0.1:1/x)\n")
        assert "private network" not in shop.run("check", "linked").out
        done = shop.run("check", "linked", "--online")
        assert (
            "posts/linked.md:8: note: link-unsure: http://127.0.0.1:1/x: 127.0.0.1 lies in a private"
            in done.out
        )

    @pytest.mark.parametrize(
        "words",
        [
            ["send", "unfit"],
            ["send", "unfit", "--test-to", "a@b.example"],
            ["send", "unfit", "--dry-run"],
            ["rehearse", "unfit"],
        ],
        ids=["send", "test send", "dry run", "rehearsal"],
    )
    def test_errors_stop_whatever_would_send_it(self, shop: Shop, words: list[str]) -> None:
        shop.add(*readers(2))
        done = shop.run(*words)
        assert done.status == 2
        said = done.err.replace(f"{shop.project.root}/", "").removeprefix("error: ").splitlines()
        assert said == UNFIT_ERRORS
        assert (shop.inbox, shop.run("issues", "--json").json) == ({}, [])

    def test_a_check_that_is_wrong_is_switched_off_and_the_post_goes_out(self, shop: Shop) -> None:
        shop.configure({"preflight": {"ignore": ["placeholder"]}})
        shop.project.write_post("unfit", UNFIT.replace("(notes/second.html)", "(https://news.example.com/2)"))
        shop.add(*readers(2))
        done = shop.send("unfit")
        assert done.status == 0
        assert sorted(shop.inbox) == readers(2)
        assert "posts/unfit.md:8: warning: picture-alt: " in done.err

    def test_a_preview_is_made_of_anything_that_can_be_rendered(self, shop: Shop) -> None:
        shop.project.write_post("unfit", UNFIT.replace("(notes/second.html)", "(https://news.example.com/2)"))
        done = shop.run("preview", "unfit")
        assert done.status == 0
        assert 'posts/unfit.md:6: error: placeholder: "（待补）"' in done.out


class TestSite:
    def test_it_writes_what_went_out_and_says_how_much(self, shop: Shop) -> None:
        shop.add("li@readers.example")
        assert shop.send().status == 0
        out = shop.project.root / "public"
        first = shop.run("site", "build", "--out", str(out))
        assert (first.status, "written to" in first.out) == (0, True)
        assert (out / "ai-daily/receipts/index.html").is_file()
        again = shop.run("site", "build", "--out", str(out), "--json")
        assert again.json["newsletters"] == [
            {
                "newsletter": "ai-daily",
                "pages": 1,
                "written": 0,
                "missing": [],
                "broken": [],
                "withdrawn": [],
            }
        ]

    def test_what_never_went_out_needs_to_be_asked_for(self, shop: Shop) -> None:
        out = shop.project.root / "public"
        assert shop.run("site", "build", "-o", str(out), "--json").json["newsletters"][0]["pages"] == 0
        everything = shop.run("site", "build", "-o", str(out), "--json", "--all-posts")
        assert everything.json["newsletters"][0]["pages"] == 1

    def test_what_cannot_be_built_is_named(self, shop: Shop) -> None:
        shop.add("li@readers.example")
        shop.send()
        shop.configure(site={"folder": "var/site"})
        path = shop.project.root / "posts/receipts.md"
        path.write_text(POST + "\n[dead](nowhere.html)\n", "utf-8")
        broken = shop.run("site", "build")
        assert broken.status == 1
        assert "receipts.md:8: a link to nowhere" in broken.out
        path.write_text(POST, "utf-8")
        assert shop.run("site", "build").status == 0
        path.write_text(POST.replace("title:", "draft: true\ntitle:"), "utf-8")
        withdrawn = shop.run("site", "build")
        assert f"remove {shop.project.root}/var/site/ai-daily/receipts/" in withdrawn.out
        path.unlink()
        assert "no file is left of it: receipts" in shop.run("site", "build").out

    def test_without_a_folder_it_says_how_to_name_one(self, shop: Shop) -> None:
        done = shop.run("site", "build")
        assert done.status == 2
        assert "--out DIR" in done.err
        assert shop.run("site", "build", "-n", "nothing", "-o", "x").status == 2

    def test_a_folder_that_cannot_be_written_is_no_traceback(self, shop: Shop) -> None:
        (shop.project.root / "taken").write_text("a file", "utf-8")
        done = shop.run("site", "build", "--all-posts", "-o", str(shop.project.root / "taken"))
        assert done.status == 1
        assert "taken" in done.err


class TestTypingMistakes:
    def test_a_channel_that_nobody_provides(self, shop: Shop) -> None:
        shop.add("a@readers.example")
        shop.send()
        for words in (["resume", "emial"], ["log", "1", "--channel", "bogus"]):
            done = shop.run(*words)
            assert done.status == 2
            assert "no channel is called" in done.err
        assert "no deliveries match" in shop.run("log", "1", "--to", "nobody@x.example").out


class TestSubscribers:
    def write(self, shop: Shop, data: bytes) -> str:
        path = shop.project.root / "readers.csv"
        path.write_bytes(data)
        return str(path)

    def test_add_list_suppress(self, shop: Shop) -> None:
        assert shop.run("subscribers", "add", " Li@Readers.example ", "--name", "李").status == 0
        assert shop.run("subscribers", "add", "100500", "--channel", "telegram").status == 0
        found = shop.run("subscribers", "list", "--json").json
        assert [(row["channel"], row["address"], row["state"]) for row in found] == [
            ("email", "li@readers.example", "active"),
            ("telegram", "100500", "active"),
        ]
        assert shop.run("subscribers", "suppress", "LI@readers.example", "--note", "asked").status == 0
        again = shop.run("subscribers", "add", "li@readers.example")
        assert again.status == 2
        assert "is suppressed (manual)" in again.err
        assert shop.run("subscribers", "add", "not a chat", "--channel", "telegram").status == 2

    def test_a_suppression_is_lifted(self, shop: Shop) -> None:
        shop.add("li@readers.example")
        shop.run("subscribers", "suppress", "li@readers.example")
        assert shop.run("subscribers", "unsuppress", "LI@readers.example").status == 0
        assert shop.run("subscribers", "list", "--json").json[0]["suppressed"] is None
        again = shop.run("subscribers", "unsuppress", "li@readers.example")
        assert (again.status, again.err) == (2, "error: li@readers.example is not suppressed\n")

    def test_who_is_suppressed_is_not_brought_back_by_an_import(self, shop: Shop) -> None:
        shop.add("a@readers.example")
        shop.run("subscribers", "suppress", "a@readers.example")
        shop.add("a@readers.example")
        [row] = shop.run("subscribers", "list", "--json").json
        assert row["suppressed"] == "manual"


def leases(shop: Shop) -> Sequence[Any]:
    """What is still in somebody's hands: lease tokens, and deliveries being sent."""
    database = database_of(shop)
    with database.read() as connection:
        rows = connection.execute(select(chunks.c.lease_token, chunks.c.sending)).all()
    database.close()
    return [row for row in rows if row.lease_token is not None or row.sending]


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_send_finishes_what_it_holds_and_leaves_the_rest(
        self, shop: Shop, number: signal.Signals
    ) -> None:
        shop.sandbox.faults.add(Fault("email", "*", "slow", value=0.3))
        shop.add(*readers(40))
        process = shop.start("send", "--date", DAY)
        until(lambda: len(shop.inbox) >= 2)
        began = time.monotonic()
        process.send_signal(number)
        done = finish(process)
        assert time.monotonic() - began < 5
        assert done.status == 1
        assert "still open" in done.out
        assert leases(shop) == []
        assert 2 <= len(shop.inbox) < 40
        shop.sandbox.faults.clear()
        assert shop.send().status == 0
        assert shop.inbox == dict.fromkeys(readers(40), 1)

    def test_run_sends_the_day_s_issue_serves_pages_and_ends_in_order(self, shop: Shop) -> None:
        today = datetime.now(UTC).date()
        shop.configure(
            {"timezone": "UTC", "schedule": {"time": "00:00", "grace": "1d"}},
            operator={"routes": [{"kind": "email", "to": "editor@example.com"}]},
        )
        shop.add(*readers(3))
        path = shop.project.write_post("receipts", POST.replace(DAY, str(today)))
        os.utime(path, (time.time() - 60, time.time() - 60))
        process = shop.start("run")
        until(lambda: "editor@example.com" in shop.inbox)
        page = httpx.get(f"http://127.0.0.1:{shop.web_port}/issues/1", timeout=5)
        assert (page.status_code, "都写在账上" in page.text) == (200, True)
        second = shop.run("run")
        assert second.status == 2
        assert "is at work on this database already" in second.err
        watching = shop.run("send", "--wait", "1s")
        assert "nothing is sent twice" in watching.out
        assert shop.run("ping", "beat").status == 0
        began = time.monotonic()
        process.terminate()
        done = finish(process)
        assert time.monotonic() - began < 5
        assert done.status == 0
        assert "stopping: messages in hand are finished first" in done.out
        assert shop.inbox == {**dict.fromkeys(readers(3), 1), "editor@example.com": 1}

    def test_a_port_that_is_taken_is_told(self, shop: Shop) -> None:
        shop.web_port = shop.sandbox.http_port
        shop.configure()
        for command in ("run", "web"):
            done = shop.run(command)
            assert done.status == 2
            assert f"cannot listen on 127.0.0.1:{shop.web_port}: Address already in use" in done.err
        done = shop.run("sandbox", "--inbox", str(shop.project.root / "i"), "--http-port", str(shop.web_port))
        assert done.status == 2
        assert "is in use" in done.err
        assert "--http-port" in done.err

    def test_web_ends_in_order(self, shop: Shop) -> None:
        process = shop.start("web")

        def answers() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{shop.web_port}/healthz").status_code == 200
            except httpx.TransportError:
                return False

        until(answers)
        process.terminate()
        assert finish(process).status == 0


def test_a_number_that_no_row_can_have_is_told(shop: Shop) -> None:
    for arguments in (("events", "--before", str(2**63)), ("subscribers", "undo-import", str(2**63))):
        done = shop.run(*arguments)
        assert done.status == 2
        assert "Traceback" not in done.err
