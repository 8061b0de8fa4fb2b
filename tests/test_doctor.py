"""The doctor against small real servers on 127.0.0.1: SMTP, a Bot API, a broker, a name server."""

import json
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rdatatype
import dns.resolver
import dns.rrset
import pytest
from PIL import Image
from services import free_port

from distributor import doctor
from distributor.doctor import DnsResolver, Finding, Level, LookupFailed, Reading, effective, examine
from distributor.errors import ServiceDown
from distributor.settings import Settings

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)  # a Tuesday; 20:00 in Shanghai
DOMAIN = "news.daily.internal"
TOKEN = "4242:bot-token-nobody-may-see"
KEY = "0a1b2c3d-0000-4000-8000-123456789abc"


@pytest.fixture(autouse=True)
def no_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


# ── helpers ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Names:
    """A resolver that knows what it is told."""

    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    mail: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def txt(self, name: str) -> list[str]:
        return list(self.texts.get(name, ()))

    def hosts(self, name: str) -> list[str]:
        return list(self.mail.get(name, ()))


class SilentNames:
    """A resolver without a network; counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def txt(self, name: str) -> list[str]:
        self.asked += 1
        raise LookupFailed(f"TXT of {name}: no answer")

    def hosts(self, name: str) -> list[str]:
        self.asked += 1
        raise LookupFailed(f"MX of {name}: no answer")


def make_settings(root: Path, *, sender: str = f"daily@{DOMAIN}", **tables: Any) -> Settings:
    newsletter = {
        "slug": "daily",
        "title": "Morning Notes",
        "sender": {"name": "Morning Notes", "address": sender},
        "channels": tables.pop("channels", {}),
        **tables.pop("newsletter", {}),
    }
    return Settings.model_validate({"root": root, "newsletters": {"daily": newsletter}, **tables})


def look(settings: Settings, check: str, **collaborators: Any) -> list[Finding]:
    chosen = {"probe_database": lambda: "SQLite", "now": lambda: NOW, "resolver": Names(), "timeout": 1}
    findings = examine(settings, **{**chosen, **collaborators})
    return [finding for finding in findings if finding.check == check]


def only(findings: Sequence[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[int]:
    """Runs a server in a thread; yields its port."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield int(server.server_address[1])  # type: ignore[index]  # an (address, port) pair: all are on 127.0.0.1
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True


# ── the effective configuration ──────────────────────────────────────────────────────────────────────────────────


def test_effective_masks_every_secret_and_keeps_hosts_visible(tmp_path: Path) -> None:
    settings = make_settings(
        tmp_path,
        database={"url": "postgresql://app:p@ss/word@db.internal/news?sslpassword=third"},
        broker={"url": "redis://:hunter2@cache.internal:6379/0"},
        telegram={"token": TOKEN, "proxy": "socks5://me:fourth@proxy.internal:1080"},
        operator={"dead_man_url": "https://hc.internal/ping/fifth"},
        wecom_keys={"desk": KEY},
        channels={
            "wecom": {"destinations": [{"name": "desk"}, {"name": "hall"}]},
            "pager": {"api_key": "sixth"},
        },
    )

    values = dict(effective(settings))

    assert values["database.url"] == "postgresql://app:********@db.internal/news?sslpassword=********"
    assert values["broker.url"] == "redis://:********@cache.internal:6379/0"
    assert values["telegram.proxy"] == "socks5://me:********@proxy.internal:1080"
    assert (
        values["telegram.token"] == values["operator.dead_man_url"] == values["wecom_keys.desk"] == "********"
    )
    assert values["newsletters.daily.channels.pager.api_key"] == "********"
    assert values["wecom_keys.hall"] == values["email.smtp.password"] == "(not set)"


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("engine.lease", "1m"),
        ("engine.sweep", "15s"),
        ("newsletters.daily.schedule.jitter", "0s"),
        ("newsletters.daily.schedule.time", "07:30"),
        ("newsletters.daily.schedule.days", "mon, fri"),
        ("newsletters.daily.channels.email.subscribers", "true"),
        ("newsletters.daily.channels.telegram.destinations[0].chat", "@morning_notes"),
        ("newsletters.daily.sender.reply_to", "(not set)"),
        ("telegram.retry.longest", "1h"),
    ],
)
def test_effective_writes_values_as_the_configuration_does(tmp_path: Path, key: str, shown: str) -> None:
    channels = {"email": {}, "telegram": {"destinations": [{"name": "main", "chat": "@morning_notes"}]}}
    settings = make_settings(
        tmp_path, channels=channels, newsletter={"schedule": {"days": ["mon", "fri"], "jitter": "0s"}}
    )
    assert dict(effective(settings))[key] == shown


# ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_check_that_breaks_hides_neither_the_others_nor_a_secret(tmp_path: Path) -> None:
    def probe() -> str:
        raise KeyError(f"postgresql://app:hunter2@db/{TOKEN}")

    settings = make_settings(
        tmp_path, database={"url": "postgresql://app:hunter2@db/news"}, telegram={"token": TOKEN}
    )
    findings = list(examine(settings, probe_database=probe, now=lambda: NOW, resolver=Names(), timeout=1))

    broken = next(finding for finding in findings if finding.check == "database")
    assert broken.level is Level.FAIL
    assert "KeyError" in broken.text
    assert {finding.check for finding in findings} == set(doctor.CHECKS) - {"sqlite", "sender domain"}
    assert not any(secret in str(findings) for secret in ("hunter2", TOKEN))


# ── database ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_database_tells_its_version_or_what_to_do(tmp_path: Path) -> None:
    def down() -> str:
        raise ServiceDown("connection refused")

    settings = make_settings(tmp_path, database={"url": "postgresql://app:hunter2@db/news"})
    assert (
        only(look(settings, "database", probe_database=lambda: "PostgreSQL 18.6")).text == "PostgreSQL 18.6"
    )
    broken = only(look(settings, "database", probe_database=down))
    assert broken.level is Level.FAIL
    assert broken.text == "postgresql://app:********@db/news does not answer: connection refused"
    assert "DISTRIBUTOR_DATABASE_URL" in broken.fix


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ((3, 40, 1), Level.WARN),
        ((3, 44, 5), Level.WARN),
        ((3, 44, 6), Level.OK),
        ((3, 45, 9), Level.WARN),
        ((3, 50, 6), Level.WARN),
        ((3, 50, 7), Level.OK),
        ((3, 51, 2), Level.WARN),
        ((3, 51, 3), Level.OK),
        ((3, 52, 0), Level.OK),
    ],
)
def test_sqlite_versions_with_the_wal_reset_race_are_named(version: tuple[int, ...], level: Level) -> None:
    said = doctor.sqlite_version(version)
    assert said.level is level
    assert ".".join(map(str, version)) in said.text


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/export /srv/data nfs4 rw 0 0
//nas/share /mnt/my\\040share cifs rw 0 0
/dev/sdb1 /srv/data/local xfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "level", "kind"),
    [
        ("/var/lib/news.sqlite3", Level.OK, "ext4"),
        ("/srv/data/news.sqlite3", Level.WARN, "nfs4"),
        ("/srv/data/local/news.sqlite3", Level.OK, "xfs"),
        ("/srv/database/news.sqlite3", Level.OK, "ext4"),
        ("/mnt/my share/news.sqlite3", Level.WARN, "cifs"),
    ],
)
def test_sqlite_on_a_network_file_system_is_warned_about(
    tmp_path: Path, path: str, level: Level, kind: str
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS, "utf-8")
    said = doctor.file_system(Path(path), mounts)
    assert said.level is level
    assert kind in said.text


def test_file_system_says_when_it_cannot_know(tmp_path: Path) -> None:
    said = doctor.file_system(Path("/var/news.sqlite3"), tmp_path / "absent")
    assert said == (Level.OK, "/var/news.sqlite3: file system not checked on this system", "")


def test_sqlite_is_looked_at_only_when_embedded(tmp_path: Path) -> None:
    assert len(look(make_settings(tmp_path), "sqlite")) == 2
    assert not look(make_settings(tmp_path, database={"url": "postgresql://db/news"}), "sqlite")


# ── broker ───────────────────────────────────────────────────────────────────────────────────────────────────────


class RespServer(TcpServer):
    """Just enough of Redis: PING, INFO, TIME, AUTH."""

    def __init__(self, *, password: str = "", ahead: timedelta = timedelta(0), **facts: object) -> None:
        self.password, self.ahead = password, ahead
        self.facts = {"redis_version": "7.2.4", "maxmemory_policy": "noeviction", "aof_enabled": 1, **facts}
        super().__init__(("127.0.0.1", 0), RespHandler)


class RespHandler(socketserver.StreamRequestHandler):
    server: RespServer

    def handle(self) -> None:
        self.welcome = not self.server.password
        while header := self.rfile.readline():
            words = [self.word() for _ in range(int(header[1:]))]
            self.wfile.write(self.answer(words).encode())

    def word(self) -> str:
        size = int(self.rfile.readline()[1:])
        return self.rfile.read(size + 2)[:-2].decode()

    def answer(self, words: Sequence[str]) -> str:
        command = words[0].upper()
        if command == "AUTH":
            self.welcome = words[-1] == self.server.password
            return "+OK\r\n" if self.welcome else "-WRONGPASS invalid username-password pair\r\n"
        if not self.welcome:
            return "-NOAUTH Authentication required.\r\n"
        return {"PING": self.ping, "INFO": self.info, "TIME": self.time}.get(command, self.unknown)()

    def ping(self) -> str:
        return "+PONG\r\n"

    def info(self) -> str:
        text = "\r\n".join(f"{name}:{value}" for name, value in self.server.facts.items())
        return f"${len(text)}\r\n{text}\r\n"

    def time(self) -> str:
        seconds = str(int((NOW + self.server.ahead).timestamp()))
        return f"*2\r\n${len(seconds)}\r\n{seconds}\r\n$1\r\n0\r\n"

    def unknown(self) -> str:
        return "-ERR unknown command\r\n"


def broker_findings(root: Path, url: str, check: str = "broker") -> list[Finding]:
    settings = make_settings(root, database={"url": "postgresql://db/news"}, broker={"url": url})
    return look(settings, check)


def test_no_broker_is_fine(tmp_path: Path) -> None:
    assert only(look(make_settings(tmp_path), "broker")).text == "none: the engine runs in process"


@pytest.mark.parametrize(
    ("facts", "level", "part"),
    [
        ({}, Level.OK, "Redis 7.2.4"),
        ({"valkey_version": "9.1.2"}, Level.OK, "Valkey 9.1.2"),
        ({"redis_version": "6.2.0"}, Level.OK, "Redis 6.2.0"),
        ({"redis_version": "6.0.16"}, Level.FAIL, "Redis 6.0.16 is too old"),
        ({"maxmemory_policy": "allkeys-lru"}, Level.WARN, "maxmemory-policy is allkeys-lru"),
        ({"aof_enabled": 0}, Level.OK, "append-only file is off"),
    ],
)
def test_broker_facts(tmp_path: Path, facts: Mapping[str, Any], level: Level, part: str) -> None:
    with serving(RespServer(**facts)) as port:
        findings = broker_findings(tmp_path, f"redis://127.0.0.1:{port}/0")
    assert any(finding.level is level and part in finding.text for finding in findings), findings


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("redis://:guess@127.0.0.1:{port}/0", "refuses the login"),
        ("redis://127.0.0.1:{port}/0", "refuses the login"),
        ("redis://:guess@127.0.0.1:{closed}/0", "cannot be reached"),
        ("amqp://me:guess@127.0.0.1:{closed}/", "is not a Redis URL"),
    ],
)
def test_broker_faults_say_what_is_wrong_without_the_password(tmp_path: Path, url: str, part: str) -> None:
    with serving(RespServer(password="right")) as port:
        finding = only(broker_findings(tmp_path, url.format(port=port, closed=free_port())))
    assert finding.level is Level.FAIL
    assert part in finding.text
    assert "guess" not in str(finding)


@pytest.mark.services
def test_broker_checks_hold_against_a_real_server(tmp_path: Path, redis_url: str) -> None:
    findings = broker_findings(tmp_path, redis_url)
    assert all(finding.level is Level.OK for finding in findings), findings
    assert findings[0].text.startswith(("Redis ", "Valkey "))


# ── SMTP ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class SmtpServer(TcpServer):
    """Greets, and lets in with AUTH PLAIN whoever ends its line with the right word."""

    def __init__(self, *, accepts: bool = True, greeting: str = "220 relay ready") -> None:
        self.accepts, self.greeting = accepts, greeting
        super().__init__(("127.0.0.1", 0), SmtpHandler)


class SmtpHandler(socketserver.StreamRequestHandler):
    server: SmtpServer

    def handle(self) -> None:
        self.say(self.server.greeting)
        for line in self.rfile:
            command = line.split()[0].upper().decode("latin-1") if line.split() else ""
            self.say(self.replies().get(command, "502 not here"))
            if command == "QUIT":
                return

    def replies(self) -> Mapping[str, str]:
        login = "235 welcome" if self.server.accepts else "535 5.7.8 wrong password"
        return {"EHLO": "250-relay\r\n250-PIPELINING\r\n250 AUTH PLAIN", "AUTH": login, "QUIT": "221 bye"}

    def say(self, reply: str) -> None:
        self.wfile.write(f"{reply}\r\n".encode())


def smtp_findings(root: Path, port: int, **smtp: object) -> list[Finding]:
    table = {"host": "127.0.0.1", "port": port, **smtp}
    return look(make_settings(root, channels={"email": {}}, email={"smtp": table}), "smtp")


def test_smtp_is_not_contacted_when_no_newsletter_sends_mail(tmp_path: Path) -> None:
    assert only(look(make_settings(tmp_path), "smtp")).text == "not used"


def test_smtp_logs_in_and_tells_what_the_relay_can(tmp_path: Path) -> None:
    with serving(SmtpServer()) as port:
        finding = only(smtp_findings(tmp_path, port, username="daily", password="hunter2"))
    assert finding.level is Level.OK
    assert finding.text == f"127.0.0.1:{port}, security none, logged in as daily, PIPELINING"


def test_smtp_wrong_password_names_the_variable_and_hides_the_password(tmp_path: Path) -> None:
    with serving(SmtpServer(accepts=False)) as port:
        finding = only(smtp_findings(tmp_path, port, username="daily", password="hunter2"))
    assert finding.level is Level.FAIL
    assert "refuses the login of daily: 535 5.7.8 wrong password" in finding.text
    assert "DISTRIBUTOR_SMTP_PASSWORD" in finding.fix
    assert "hunter2" not in str(finding)


@pytest.mark.parametrize(
    ("security", "greeting", "part"),
    [
        ("starttls", "220 relay ready", "does not offer what email.smtp asks for"),
        ("tls", "220 relay ready", "does not speak TLS as configured"),
        ("none", "554 no service for you", "answers with an error: 554 no service for you"),
    ],
)
def test_smtp_faults(tmp_path: Path, security: str, greeting: str, part: str) -> None:
    with serving(SmtpServer(greeting=greeting)) as port:
        finding = only(smtp_findings(tmp_path, port, security=security))
    assert finding.level is Level.FAIL
    assert part in finding.text


def test_smtp_refused_connection_points_at_the_sandbox(tmp_path: Path) -> None:
    finding = only(smtp_findings(tmp_path, free_port()))
    assert finding.level is Level.FAIL
    assert "refuses connections" in finding.text
    assert "distributor sandbox" in finding.fix


def test_smtp_that_is_silent_is_given_up_in_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = make_settings(
            tmp_path, channels={"email": {}}, email={"smtp": {"port": silent.getsockname()[1]}}
        )
        finding = only(look(settings, "smtp", timeout=0.2))
    assert finding.level is Level.FAIL
    assert "timed out" in finding.text


def test_smtp_port_25_that_times_out_suggests_the_submission_ports() -> None:
    said = doctor.explain(
        doctor.SMTP_FAULTS, TimeoutError("timed out"), host="relay.internal", port=25, user=""
    )
    assert "relay.internal:25 does not answer in time" in said.text
    assert "465" in said.fix
    assert "587" in said.fix


def test_smtp_without_tls_to_another_host_is_warned_about(tmp_path: Path) -> None:
    smtp = {"host": "relay.internal", "username": "daily"}
    settings = make_settings(tmp_path, email={"smtp": smtp})
    said = list(doctor.smtp_settings(settings.email.smtp))
    assert [finding.level for finding in said] == [Level.WARN, Level.WARN]
    assert said[0].text == "mail and password travel to relay.internal unencrypted"
    assert said[1].fix == "set DISTRIBUTOR_SMTP_PASSWORD"


# ── Telegram, WeCom, clock ───────────────────────────────────────────────────────────────────────────────────────


class BotApi(HTTPServer):
    """Answers getMe for one token, and tells a time of its choice."""

    def __init__(self, *, ahead: timedelta = timedelta(0), page: bytes | None = None) -> None:
        self.ahead, self.page = ahead, page
        super().__init__(("127.0.0.1", 0), BotHandler)


class BotHandler(BaseHTTPRequestHandler):
    server: BotApi

    def do_GET(self) -> None:
        known = self.path == f"/bot{TOKEN}/getMe"
        answer = (
            {"ok": True, "result": {"username": "notes_bot"}} if known else {"ok": False, "error_code": 401}
        )
        body = self.server.page or json.dumps(answer).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.send_response(302)
        self.end_headers()

    def date_time_string(self, timestamp: float | None = None) -> str:  # noqa: ARG002 - ours is the only time
        return super().date_time_string((NOW + self.server.ahead).timestamp())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name http.server gave it
        """Stays quiet."""


def telegram_settings(root: Path, port: int, token: str = TOKEN, **telegram: object) -> Settings:
    table = {"api": f"http://127.0.0.1:{port}", "token": token, **telegram}
    return make_settings(root, channels={"telegram": {}}, telegram=table)


def test_telegram_is_not_contacted_when_nothing_uses_it(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, telegram={"api": f"http://127.0.0.1:{free_port()}", "token": TOKEN})
    assert only(look(settings, "telegram")).text == "not used"


def test_telegram_without_a_token_names_the_variable(tmp_path: Path) -> None:
    finding = only(look(telegram_settings(tmp_path, free_port(), token=""), "telegram"))
    assert finding.level is Level.FAIL
    assert "DISTRIBUTOR_TELEGRAM_TOKEN" in finding.fix


def test_telegram_tells_the_bot_and_keeps_the_token_out_of_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(BotApi()) as port:
        finding = only(look(telegram_settings(tmp_path, port), "telegram"))
    assert (finding.level, finding.text) == (Level.OK, "bot @notes_bot")
    assert TOKEN not in caplog.text


def test_telegram_refuses_a_wrong_token(tmp_path: Path) -> None:
    with serving(BotApi()) as port:
        finding = only(look(telegram_settings(tmp_path, port, token="1:wrong"), "telegram"))
    assert finding.level is Level.FAIL
    assert finding.text == "the bot's token is not accepted (401)"
    assert "1:wrong" not in str(finding)


def test_telegram_api_that_is_something_else(tmp_path: Path) -> None:
    with serving(BotApi(page=b"<h1>It works</h1>")) as port:
        finding = only(look(telegram_settings(tmp_path, port), "telegram"))
    assert finding.level is Level.FAIL
    assert "does not answer as the Bot API does (HTTP 200)" in finding.text


def test_telegram_out_of_reach_speaks_of_proxy_and_api(tmp_path: Path) -> None:
    """A proxy that hangs up, so that the blocked host itself is never contacted."""
    proxy = f"http://me:hunter2@127.0.0.1:{free_port()}"
    settings = telegram_settings(tmp_path, 1, api="https://api.telegram.org", proxy=proxy)
    finding = only(look(settings, "telegram"))
    assert finding.level is Level.FAIL
    assert "telegram.proxy" in finding.fix
    assert "telegram.api" in finding.fix
    assert "hunter2" not in str(finding)
    assert TOKEN not in str(finding)


def test_telegram_proxy_of_an_unknown_kind(tmp_path: Path) -> None:
    finding = only(look(telegram_settings(tmp_path, 1, proxy="gopher://me:hunter2@127.0.0.1:1"), "telegram"))
    assert finding.level is Level.FAIL
    assert "is no proxy address" in finding.text
    assert "hunter2" not in str(finding)


@pytest.mark.parametrize(
    ("key", "level"),
    [(KEY, Level.OK), (KEY.upper(), Level.OK), (f"https://x/?key={KEY}", Level.WARN), ("", Level.FAIL)],
)
def test_wecom_key_shape(tmp_path: Path, key: str, level: Level) -> None:
    settings = make_settings(
        tmp_path,
        wecom_keys={"night-desk": key} if key else {},
        operator={"routes": [{"kind": "wecom", "robot": "night-desk"}]},
        wecom={"api": f"http://127.0.0.1:{free_port()}"},
    )
    finding = only(look(settings, "wecom"))
    assert finding.level is level
    assert level is Level.OK or "DISTRIBUTOR_WECOM_NIGHT_DESK_KEY" in finding.fix
    assert not key or key not in str(finding)


@pytest.mark.parametrize(
    ("appid", "secret", "level"),
    [
        ("wx0123456789abcdef", "0123456789abcdef" * 2, Level.OK),
        ("gh_0123456789ab", "0123456789abcdef" * 2, Level.WARN),
        ("wx0123456789abcdef", "too-short-to-be-one", Level.WARN),
        ("wx0123456789abcdef", "", Level.FAIL),
        ("", "0123456789abcdef" * 2, Level.FAIL),
    ],
)
def test_wechat_login_shape(tmp_path: Path, appid: str, secret: str, level: Level) -> None:
    settings = make_settings(
        tmp_path,
        channels={"wechat": {"destinations": [{"name": "main-desk"}]}},
        wechat_accounts={"main-desk": {"appid": appid, "secret": secret}},
    )
    finding = only(look(settings, "wechat"))
    assert finding.level is level
    assert level is Level.OK or "DISTRIBUTOR_WECHAT_MAIN_DESK_" in finding.fix
    assert not secret or secret not in str(finding)
    shown = dict(effective(settings))
    assert shown["wechat_accounts.main-desk.secret"] == ("********" if secret else "(not set)")


@pytest.mark.parametrize(
    ("cover", "said"),
    [
        ("cover.png", ""),
        ("https://e.org/cover.png", ""),
        ("", ""),
        ("gone.png", "gone.png: cannot be read"),
        ("page.png", "a web page, not a picture"),
        ("cut.png", "broken or cut short"),
        ("../outside.png", "outside the project"),
    ],
)
def test_wechat_default_cover(tmp_path: Path, cover: str, said: str) -> None:
    file = BytesIO()
    Image.new("RGB", (900, 383)).save(file, "PNG")
    root = tmp_path / "project"
    root.mkdir()
    (root / "cover.png").write_bytes(file.getvalue())
    (root / "cut.png").write_bytes(file.getvalue()[:200])
    (root / "page.png").write_bytes(b"<!doctype html><p>no picture")
    (tmp_path / "outside.png").write_bytes(file.getvalue())
    settings = make_settings(
        root,
        channels={"wechat": {"destinations": [{"name": "main-desk", "default_cover": cover}]}},
        wechat_accounts={"main-desk": {"appid": "wx0123456789abcdef", "secret": "0123456789abcdef" * 2}},
    )
    _, *covers = look(settings, "wechat")
    assert [finding.level for finding in covers] == ([Level.FAIL] if said else [])
    assert not said or (said in covers[0].text and "config/newsletters/daily.toml" in covers[0].fix)


def test_wechat_accounts_that_nobody_uses(tmp_path: Path) -> None:
    assert only(look(make_settings(tmp_path), "wechat")).text == "not used"


@pytest.mark.parametrize(
    ("ahead", "level", "part"),
    [
        (0, Level.OK, "within 2 s of 127.0.0.1"),
        (90, Level.WARN, "clock is 90 s behind 127.0.0.1"),
        (-90, Level.WARN, "clock is 90 s ahead of 127.0.0.1"),
    ],
)
def test_clock_goes_by_the_date_of_an_answer(tmp_path: Path, ahead: int, level: Level, part: str) -> None:
    with serving(BotApi(ahead=timedelta(seconds=ahead))) as port:
        finding = only(look(telegram_settings(tmp_path, port), "clock"))
    assert finding.level is level
    assert part in finding.text


def test_clock_goes_by_the_broker(tmp_path: Path) -> None:
    with serving(RespServer(ahead=timedelta(seconds=-5))) as port:
        finding = only(broker_findings(tmp_path, f"redis://127.0.0.1:{port}/0", "clock"))
    assert finding.level is Level.WARN
    assert finding.text == "this machine's clock is 5 s ahead of the broker"


def test_clock_gives_a_slow_answer_the_benefit_of_the_doubt() -> None:
    slow = Reading("the broker", ahead=timedelta(seconds=3), took=timedelta(seconds=4))
    assert doctor.judge_clock(slow).level is Level.OK


def test_clock_says_when_nobody_told_the_time(tmp_path: Path) -> None:
    finding = only(look(telegram_settings(tmp_path, free_port()), "clock"))
    assert finding.level is Level.OK
    assert finding.text.startswith("not checked against another clock")


# ── posts, schedule, operator, web ───────────────────────────────────────────────────────────────────────────────


def test_posts_are_counted_and_broken_ones_listed(tmp_path: Path) -> None:
    (tmp_path / "posts").mkdir()
    good = "---\ntitle: Rain stops\ndate: 2026-11-24\n---\nIt stopped.\n"
    (tmp_path / "posts" / "rain.md").write_text(good, "utf-8")
    (tmp_path / "posts" / "fog.md").write_text("---\ntitle: [unclosed\n---\nFog.\n", "utf-8")

    findings = look(make_settings(tmp_path), "posts")

    assert [finding.level for finding in findings] == [Level.WARN, Level.OK]
    assert "fog.md" in findings[0].text
    assert "1 posts, 0 of them drafts" in findings[1].text


def test_posts_folder_that_is_missing_or_empty(tmp_path: Path) -> None:
    missing = only(look(make_settings(tmp_path), "posts"))
    assert missing.level is Level.FAIL
    assert "config/newsletters/daily.toml" in missing.fix
    (tmp_path / "posts").mkdir()
    assert only(look(make_settings(tmp_path), "posts")).level is Level.WARN


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({}, "Wed 2026-11-25 07:30 Asia/Shanghai"),
        ({"time": "20:30"}, "Tue 2026-11-24 20:30 Asia/Shanghai"),
        ({"time": "20:00"}, "Wed 2026-11-25 20:00 Asia/Shanghai"),
        ({"days": ["mon"]}, "Mon 2026-11-30 07:30 Asia/Shanghai"),
        ({"skip": ["2026-11-25"]}, "Thu 2026-11-26 07:30 Asia/Shanghai"),
        ({"days": [], "extra": ["2026-12-05"]}, "Sat 2026-12-05 07:30 Asia/Shanghai"),
    ],
)
def test_next_send_is_told_in_the_newsletters_zone(
    tmp_path: Path, schedule: Mapping[str, object], expected: str
) -> None:
    finding = only(look(make_settings(tmp_path, newsletter={"schedule": schedule}), "next send"))
    assert finding.level is Level.OK
    assert expected in finding.text


def test_next_send_that_never_comes_is_warned_about(tmp_path: Path) -> None:
    finding = only(look(make_settings(tmp_path, newsletter={"schedule": {"days": []}}), "next send"))
    assert finding.level is Level.WARN


def test_time_zone_tells_the_hour_there(tmp_path: Path) -> None:
    assert (
        "Asia/Shanghai, where it is 20:00 (UTC+0800)" in only(look(make_settings(tmp_path), "time zone")).text
    )


MAIL_ROUTE = {"kind": "email", "to": "editor@daily.internal"}
CHAT_ROUTE = {"kind": "telegram", "to": "42"}
HOOK_ROUTE = {"kind": "webhook"}


@pytest.mark.parametrize(
    ("routes", "levels"),
    [
        ([], [Level.WARN]),
        ([MAIL_ROUTE, MAIL_ROUTE], [Level.WARN]),
        ([MAIL_ROUTE, CHAT_ROUTE], [Level.OK]),
        ([MAIL_ROUTE, HOOK_ROUTE], [Level.FAIL, Level.OK]),
    ],
)
def test_operator_wants_two_kinds_of_routes(
    tmp_path: Path, routes: Sequence[object], levels: Sequence[Level]
) -> None:
    smtp = {"smtp": {"port": free_port()}}
    telegram = {"api": f"http://127.0.0.1:{free_port()}", "token": TOKEN}
    settings = make_settings(tmp_path, operator={"routes": routes}, email=smtp, telegram=telegram)
    assert [finding.level for finding in look(settings, "operator")] == levels


@pytest.mark.parametrize(
    ("base_url", "sender", "level"),
    [
        ("http://127.0.0.1:8025", f"daily@{DOMAIN}", Level.WARN),
        ("https://192.168.1.4", f"daily@{DOMAIN}", Level.WARN),
        ("http://daily.internal", f"daily@{DOMAIN}", Level.WARN),
        ("https://daily.internal", f"daily@{DOMAIN}", Level.OK),
        ("http://127.0.0.1:8025", "daily@news.example.com", Level.OK),
    ],
)
def test_web_links_must_work_for_readers(tmp_path: Path, base_url: str, sender: str, level: Level) -> None:
    settings = make_settings(
        tmp_path,
        sender=sender,
        channels={"email": {}},
        email={"smtp": {"port": free_port()}},
        web={"base_url": base_url, "trusted_proxies": ["192.0.2.0/24"]},
    )
    assert only(look(settings, "web")).level is level


def test_a_proxy_in_front_must_be_trusted(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, web={"base_url": "https://daily.internal"})
    reached, proxy = look(settings, "web")
    assert (reached.level, proxy.level) == (Level.OK, Level.WARN)
    assert "web.trusted_proxies" in proxy.fix


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"web": {"base_url": "https://daily.internal"}}, "https://daily.internal/archive/"),
        ({}, "reached from here alone, so no message links to it"),
        ({"site": {"serve": False}}, "the full text is not on the web"),
    ],
)
def test_site_says_where_the_full_text_lives(tmp_path: Path, tables: Any, said: str) -> None:
    finding = only(look(make_settings(tmp_path, **tables), "site"))
    assert finding.level is Level.OK
    assert said in finding.text


def test_site_needs_a_folder_that_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file", "utf-8")
    settings = make_settings(tmp_path, site={"folder": "taken/site"})
    fail, _ = look(settings, "site")
    assert fail.level is Level.FAIL
    assert "taken/site cannot be written" in fail.text
    assert "site.folder" in fail.fix


# ── the sender's domain ──────────────────────────────────────────────────────────────────────────────────────────

WELL_SET_UP = {
    DOMAIN: ["some-site-verification=1", "v=spf1 include:relay.internal -all"],
    "_dmarc.daily.internal": ["v=DMARC1; p=none"],
    f"s1._domainkey.{DOMAIN}": ["v=DKIM1; k=rsa; p=MIIBIjANBg"],
}


def domain_findings(root: Path, resolver: doctor.Resolver, **settings: Any) -> list[Finding]:
    tables = {"channels": {"email": {}}, "email": {"smtp": {"port": free_port()}}, **settings}
    return look(make_settings(root, **tables), "sender domain", resolver=resolver)


def test_domain_that_is_well_set_up(tmp_path: Path) -> None:
    findings = domain_findings(tmp_path, Names(WELL_SET_UP, {DOMAIN: ["mx.daily.internal"]}))
    assert [finding.level for finding in findings] == [Level.OK] * 4
    assert "_dmarc.daily.internal" in findings[2].text
    assert "selector s1" in findings[3].text


def test_domain_without_records_gets_the_lines_to_add(tmp_path: Path) -> None:
    findings = domain_findings(tmp_path, Names())
    assert [finding.level for finding in findings] == [Level.FAIL, Level.WARN, Level.WARN, Level.WARN]
    assert f'{DOMAIN}. IN TXT "v=spf1 include:<your relay> -all"' in findings[1].fix
    assert f'_dmarc.{DOMAIN}. IN TXT "v=DMARC1; p=none; rua=mailto:dmarc@{DOMAIN}"' in findings[2].fix
    assert f'<selector>._domainkey.{DOMAIN}. IN TXT "v=DKIM1; k=rsa; p=<public key>"' in findings[3].fix


@pytest.mark.parametrize(
    ("records", "relay", "level", "part"),
    [
        ([], "relay.internal", Level.WARN, '"v=spf1 a:relay.internal -all"'),
        ([], "10.1.2.3", Level.WARN, '"v=spf1 ip4:10.1.2.3 -all"'),
        ([], "fd00::1", Level.WARN, '"v=spf1 ip6:fd00::1 -all"'),
        ([], "localhost", Level.WARN, '"v=spf1 include:<your relay> -all"'),
        (["v=spf1 -all", "V=SPF1 mx -all"], "relay.internal", Level.FAIL, "merge them into one"),
        (["v=spf10 -all"], "relay.internal", Level.WARN, "add: "),
        (["v=spf1 mx -all"], "relay.internal", Level.OK, ""),
    ],
)
def test_spf(records: Sequence[str], relay: str, level: Level, part: str) -> None:
    said = doctor.spf(DOMAIN, records, relay)
    assert said.level is level
    assert part in said.fix


def test_dmarc_twice_counts_as_none() -> None:
    twice = Names({f"_dmarc.{DOMAIN}": ["v=DMARC1; p=none", "v=DMARC1; p=reject"]})
    assert doctor.dmarc(DOMAIN, doctor.find_dmarc(DOMAIN, twice)).level is Level.FAIL


@pytest.mark.parametrize("record", ["v=DKIM1; k=rsa; p=", "v=DKIM1; p=;", "sp=x"])
def test_dkim_key_that_is_revoked_or_no_key_does_not_count(record: str) -> None:
    assert doctor.find_dkim(DOMAIN, Names({f"default._domainkey.{DOMAIN}": [record]})) == ""


def test_null_mx_is_warned_about() -> None:
    assert doctor.domain_hosts(DOMAIN, ["."]).level is Level.WARN


@pytest.mark.parametrize("domain", ["news.example.com", "example.org", "daily.test", "a.b.invalid"])
def test_reserved_domain_is_named_and_not_looked_up(tmp_path: Path, domain: str) -> None:
    resolver = SilentNames()
    # test and invalid are refused by the settings already, so the sender is put in behind their back
    settings = make_settings(tmp_path, channels={"email": {}}, email={"smtp": {"port": free_port()}})
    newsletter = settings.newsletters["daily"]
    sender = newsletter.sender.model_copy(update={"address": f"daily@{domain}"})
    changed = settings.model_copy(
        update={"newsletters": {"d": newsletter.model_copy(update={"sender": sender})}}
    )

    finding = only(look(changed, "sender domain", resolver=resolver))

    assert finding.level is Level.WARN
    assert finding.fix == "change sender.address before a real send"
    assert resolver.asked == 0


def test_domain_without_a_name_server_is_a_warning_and_asked_once(tmp_path: Path) -> None:
    resolver = SilentNames()
    finding = only(domain_findings(tmp_path, resolver))
    assert finding.level is Level.WARN
    assert finding.text.startswith(f"could not look up MX of {DOMAIN}: no answer")
    assert resolver.asked == 1


def test_domain_in_chinese_is_asked_for_in_ascii(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, sender="daily@新闻.internal", channels={"email": {}})
    assert doctor.sender_domains(settings) == ["xn--efvy88h.internal"]


class NameServer(socketserver.UDPServer):
    """A name server over UDP with the records of a table; a name that is not there does not exist."""

    def __init__(self, records: Mapping[tuple[str, str], Sequence[str]]) -> None:
        self.records = records
        super().__init__(("127.0.0.1", 0), NameHandler)


class NameHandler(socketserver.BaseRequestHandler):
    server: NameServer

    def handle(self) -> None:
        data, answer_socket = self.request
        query = dns.message.from_wire(data)
        answer_socket.sendto(self.reply(query).to_wire(), self.client_address)

    def reply(self, query: dns.message.Message) -> dns.message.Message:
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if not any(name == known for known, _ in self.server.records):
            response.set_rcode(dns.rcode.NXDOMAIN)
        if texts := self.server.records.get((name, kind)):
            response.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *texts))
        return response


Asker = Callable[[int], DnsResolver]


@pytest.fixture
def asking() -> Asker:
    def at(port: int) -> DnsResolver:
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], port
        return DnsResolver(0.3, resolver)

    return at


def name_server() -> AbstractContextManager[int]:
    records = {
        (DOMAIN, "TXT"): ['"v=spf1 include:relay" ".internal -all"'],
        (DOMAIN, "MX"): ["10 mx.daily.internal."],
        ("web.daily.internal", "A"): ["10.1.2.3"],
        ("none.daily.internal", "MX"): ["0 ."],
        (f"mail._domainkey.{DOMAIN}", "TXT"): ['"v=DKIM1; p=MIIB"'],
    }
    return serving(NameServer(records))


def test_a_real_name_server_is_read_right(asking: Asker) -> None:
    with name_server() as port:
        resolver = asking(port)
        assert resolver.txt(DOMAIN) == ["v=spf1 include:relay.internal -all"]
        assert resolver.hosts(DOMAIN) == ["mx.daily.internal"]
        assert resolver.hosts("web.daily.internal") == ["10.1.2.3"]
        assert resolver.hosts("none.daily.internal") == ["."]
        assert resolver.txt("absent.daily.internal") == resolver.hosts("absent.daily.internal") == []


def test_domain_by_a_real_name_server(tmp_path: Path, asking: Asker) -> None:
    with name_server() as port:
        findings = domain_findings(tmp_path, asking(port))
    assert [finding.level for finding in findings] == [Level.OK, Level.OK, Level.WARN, Level.OK]


def test_a_silent_name_server_is_given_up_in_time(asking: Asker) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(LookupFailed, match=f"TXT of {DOMAIN}"):
            asking(silent.getsockname()[1]).txt(DOMAIN)
