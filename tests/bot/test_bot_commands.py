"""`distributor bot …`, the bot's line of `doctor`, its settings, and a process that is told to stop."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from services import Project, free_port

from distributor.channels.telegram.transport import close_bots
from distributor.cli import main
from distributor.doctor import Finding, Level, examine
from distributor.errors import ConfigError
from distributor.sandbox.limits import UNLIMITED
from distributor.sandbox.server import Sandbox
from distributor.settings import Settings

TOKEN, SECRET, LI = "123456:sandbox-token-0001", "s3cret_of-ours", "42001"


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    for name in [name for name in os.environ if name.startswith("DISTRIBUTOR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("DISTRIBUTOR_TELEGRAM_TOKEN", TOKEN)
    monkeypatch.setenv("DISTRIBUTOR_TELEGRAM_WEBHOOK_SECRET", SECRET)
    with Sandbox(None, limits=UNLIMITED) as running:
        running.talking.met("123456")
        yield running
    close_bots()


def configured(project: Project, sandbox: Sandbox, *, secret: str = SECRET, **bot: Any) -> Settings:
    port = free_port()
    return project.settings(
        newsletter={"channels": {"telegram": {}}},
        environment={"DISTRIBUTOR_TELEGRAM_TOKEN": TOKEN, "DISTRIBUTOR_TELEGRAM_WEBHOOK_SECRET": secret},
        telegram={"api": sandbox.url, "read_timeout": "5s"},
        web={"port": port, "base_url": f"http://127.0.0.1:{port}"},
        bot=bot,
    )


class Shell:
    """The command line, in this process."""

    def __init__(self, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
        self.argv, self._capsys = ["distributor", "-C", str(project.root)], capsys

    def run(self, *words: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        before, sys.argv = sys.argv, [*self.argv, *words]
        try:
            with pytest.raises(SystemExit) as end:
                main()
        finally:
            sys.argv = before
        out, err = self._capsys.readouterr()
        assert "Traceback" not in out + err
        assert TOKEN not in out + err
        assert SECRET not in out + err
        return int(end.value.code or 0), out, err


@pytest.fixture
def shell(project: Project, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(project, capsys)


class TestCommands:
    def test_set_look_take_away(self, project: Project, sandbox: Sandbox, shell: Shell) -> None:
        settings = configured(project, sandbox, mode="webhook", username="sandbox_bot")
        hook = f"{settings.web.base_url}/telegram/webhook"
        status, out, _ = shell.run("bot", "set-webhook")
        assert (status, hook in out) == (0, True)
        assert sandbox.talking._listeners["123456"].secret == SECRET
        status, out, _ = shell.run("bot", "status", "--json")
        found = json.loads(out)
        assert (status, found["mode"], found["username"], found["url"]) == (0, "webhook", "sandbox_bot", hook)
        assert shell.run("bot", "delete-webhook")[0] == 0
        assert "none" in shell.run("bot", "status")[1]

    def test_what_cannot_work_says_why(self, project: Project, sandbox: Sandbox, shell: Shell) -> None:
        configured(project, sandbox, mode="off")
        status, _, err = shell.run("bot", "set-webhook")
        assert (status, 'bot.mode is "off"' in err) == (2, True)
        status, _, err = shell.run("bot", "poll")
        assert (status, 'set it to "polling"' in err) == (2, True)

    def test_a_server_that_is_away_is_told(self, project: Project, sandbox: Sandbox, shell: Shell) -> None:
        configured(project, sandbox, mode="webhook")
        path = project.root / "config" / "distributor.toml"
        path.write_text(path.read_text("utf-8").replace(sandbox.url, "http://127.0.0.1:9"), "utf-8")
        status, _, err = shell.run("bot", "status")
        assert (status, "check telegram.api" in err) == (1, True)

    @pytest.mark.parametrize("words", [("run",), ("bot", "poll")])
    def test_a_process_hears_readers_and_ends_when_told(
        self, project: Project, sandbox: Sandbox, words: tuple[str, ...]
    ) -> None:
        configured(project, sandbox, mode="polling")
        sandbox.talking.say(LI, "/start")
        argv = [sys.executable, "-m", "distributor", "-C", str(project.root), *words]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + 60
            while not sandbox.inbox.entries("telegram", LI):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=30)
        assert (process.returncode, "Traceback" in out + err) == (0, False)
        assert TOKEN not in out + err
        assert LI not in out + err
        assert time.monotonic() - began < 10
        (entry,) = sandbox.inbox.entries("telegram", LI)
        assert "已为你订阅" in entry.content["text"]


class TestDoctor:
    def look(self, settings: Settings) -> list[Finding]:
        found = examine(settings, probe_database=lambda: "SQLite", now=lambda: datetime.now(UTC), timeout=2)
        return [one for one in found if one.check == "bot"]

    @pytest.mark.parametrize(
        ("bot", "hook", "level", "words"),
        [
            ({"mode": "off"}, "", Level.OK, "do not talk"),
            ({"mode": "webhook", "username": "Sandbox_Bot"}, "ours", Level.OK, "heard by webhook"),
            ({"mode": "polling"}, "", Level.OK, "heard by polling"),
            ({"mode": "polling"}, "ours", Level.FAIL, "delete-webhook"),
            ({"mode": "webhook"}, "", Level.FAIL, "set-webhook"),
            ({"mode": "webhook"}, "https://old.example/x", Level.FAIL, "old.example"),
            ({"mode": "polling", "username": "other_bot"}, "", Level.FAIL, "a stranger's"),
        ],
    )
    def test_it_says_whether_telegram_means_the_same(
        self, project: Project, sandbox: Sandbox, bot: dict[str, str], hook: str, level: Level, words: str
    ) -> None:
        settings = configured(project, sandbox, **bot)
        url = f"{settings.web.base_url}/telegram/webhook" if hook == "ours" else hook
        sandbox.talking.set_webhook("123456", url, "", (), drop=False)
        found = self.look(settings)
        assert any(one.level is level and words in one.text + one.fix for one in found), found
        assert level is not Level.OK or len(found) == 1

    def test_a_webhook_that_fails_is_told(self, project: Project, sandbox: Sandbox) -> None:
        settings = configured(project, sandbox, mode="webhook")
        sandbox.talking.set_webhook("123456", f"{settings.web.base_url}/telegram/webhook", "", (), drop=False)
        sandbox.talking.say(LI, "x")
        while not sandbox.talking._listeners["123456"].last_error:
            time.sleep(0.01)
        (finding,) = self.look(settings)
        assert (finding.level, "Connection failed" in finding.text) == (Level.WARN, True)

    def test_what_is_missing(self, project: Project, sandbox: Sandbox) -> None:
        settings = configured(project, sandbox, secret="", mode="webhook")
        assert any("no secret" in one.text for one in self.look(settings))
        nothing = project.settings(bot={"mode": "polling"})
        assert [one.level for one in self.look(nothing)] == [Level.WARN, Level.FAIL]
        away = settings.model_copy(
            update={"telegram": settings.telegram.model_copy(update={"api": "http://127.0.0.1:9"})}
        )
        assert any("cannot be asked" in one.text for one in self.look(away))


class TestSettings:
    @pytest.mark.parametrize(
        ("bot", "words"),
        [
            ({"mode": "webhooks"}, "bot.mode"),
            ({"username": "@morning_bot"}, "bot.username"),
            ({"newsletters": ["nobody"]}, "no newsletter is called 'nobody'"),
            ({"newsletters": ["ai-daily"]}, "'ai-daily' has no [channels.telegram] with subscribers"),
            ({"webhook_secret": "x"}, "DISTRIBUTOR_TELEGRAM_WEBHOOK_SECRET"),
        ],
    )
    def test_a_mistake_is_told(self, project: Project, bot: dict[str, Any], words: str) -> None:
        with pytest.raises(ConfigError) as error:
            project.settings(bot=bot)
        assert words in str(error.value)

    @pytest.mark.parametrize("secret", ["a b", "x" * 257, "早"])
    def test_a_secret_that_telegram_refuses(self, project: Project, secret: str) -> None:
        with pytest.raises(ConfigError, match="A-Z, a-z, 0-9") as error:
            project.settings(environment={"DISTRIBUTOR_TELEGRAM_WEBHOOK_SECRET": secret})
        assert secret not in str(error.value)
