"""What is in force, and whether a send would work: the configuration with secrets masked, and a table of checks.

Only hosts that the configuration names are contacted, and the system's own name server. Nothing is sent to a reader.
"""

import ipaddress
import re
import shutil
import smtplib
import socket
import sqlite3
import ssl
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

import dns.exception
import dns.name
import dns.resolver
import httpx
import redis
import redis.backoff
import redis.retry
from pydantic import BaseModel, SecretStr
from sqlalchemy.engine import make_url

from distributor.bounces import Mailbox
from distributor.channels.email.smtp import connect
from distributor.channels.http import quiet
from distributor.channels.wechat.uploads import picture_of_project
from distributor.errors import DistributorError, PictureError, ServiceDown, Unavailable
from distributor.posts import load_posts
from distributor.providers import load_providers
from distributor.rendering import is_web
from distributor.schedule import next_due
from distributor.settings import (
    ONLY_RELAY,
    PREFIX,
    UNITS,
    MailRelay,
    Newsletter,
    Settings,
    SignupSource,
    Smtp,
    WechatAccount,
    relay_password_name,
    signup_secret_name,
    webhook_secret_name,
    wechat_names,
    wechat_secret_names,
    wecom_key_name,
)

MASK = "********"
NOT_SET = "(not set)"
TELEGRAM_HOST = "api.telegram.org"
MOUNTS = Path("/proc/mounts")

#: Network file systems, as /proc/mounts calls them: SQLite's locks and shared memory are not safe on any of them.
NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb", "smb3", "smbfs", "9p", "fuse.sshfs"})
#: What a container writes to where no volume is mounted.
CONTAINER_LAYERS = frozenset({"overlay", "aufs", "fuse.fuse-overlayfs"})
#: Bytes; a journal has some 70 KB, and the sent log a hundred bytes a delivery.
JOURNAL_ROOM = 100_000_000
#: Where the WAL-reset race ends: fixed in 3.51.3, ported back to these (sqlite.org/wal.html).
SQLITE_FIXED = (3, 51, 3)
SQLITE_BACKPORTS: Mapping[tuple[int, int], int] = {(3, 50): 7, (3, 44): 6}
REDIS_SERVER = (6, 2)  # what Celery 5.7 asks for
CLOCK_TOLERANCE = timedelta(seconds=2)
#: Domains nobody can own: RFC 2606 and RFC 6761.
RESERVED_DOMAINS = ("example.com", "example.net", "example.org", "example", "test", "invalid", "localhost")
#: A selector cannot be listed, only guessed: what relays and mail servers commonly choose.
DKIM_SELECTORS = ("default", "mail", "dkim", "selector1", "selector2", "s1", "s2", "k1", "google")
WECHAT_APPID, WECHAT_SECRET = re.compile(r"wx[0-9a-f]{16}"), re.compile(r"[0-9a-f]{32}", re.IGNORECASE)
WECOM_KEY = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

URL_KEYS = frozenset({"database.url", "broker.url", "telegram.proxy"})
SECRET_KEY = re.compile(r"(password|secret|token|(^|[._])key)$", re.IGNORECASE)
#: Up to the last "@", so that a password with an unescaped "@" or "/" never shows.
URL_PASSWORD = re.compile(r"(?<=://)(?P<user>[^:/@]*):(?P<password>.*)@", re.DOTALL)
URL_QUERY_SECRET = re.compile(
    r"(?P<name>[?&][^=&]*(?:password|secret|token|key)[^=&]*)=(?P<value>[^&#]*)", re.IGNORECASE
)


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"  # a send works, something is not as it should be
    FAIL = "fail"  # a send would not work


@dataclass(frozen=True)
class Finding:
    """What one check saw, and what to do about it."""

    check: str
    level: Level
    text: str
    fix: str = ""


class Said(NamedTuple):
    """A finding before it has the name of its check."""

    level: Level
    text: str
    fix: str = ""


def ok(text: str) -> Said:
    return Said(Level.OK, text)


def warn(text: str, fix: str) -> Said:
    return Said(Level.WARN, text, fix)


def fail(text: str, fix: str) -> Said:
    return Said(Level.FAIL, text, fix)


class LookupFailed(DistributorError):
    """The name server did not answer: nothing is known about the name."""


class Resolver(Protocol):
    """What the checks ask the domain name system. Both answer an empty list for "no such record"."""

    def txt(self, name: str) -> list[str]:
        """TXT records, each joined into one text. Raises LookupFailed."""

    def hosts(self, name: str) -> list[str]:
        """Who takes mail for the name: its MX, else its addresses. Raises LookupFailed."""


class DnsResolver:
    """The system's name server, or the one given."""

    def __init__(self, timeout: float, resolver: dns.resolver.Resolver | None = None) -> None:
        self.timeout, self.resolver = timeout, resolver

    def txt(self, name: str) -> list[str]:
        return [b"".join(record.strings).decode("utf-8", "replace") for record in self._ask(name, "TXT")]

    def hosts(self, name: str) -> list[str]:
        if exchanges := self._ask(name, "MX"):
            return [str(record.exchange.to_text(omit_final_dot=True)) for record in exchanges]
        return [str(record.address) for kind in ("A", "AAAA") for record in self._ask(name, kind)]

    def _ask(self, name: str, kind: str) -> list[Any]:
        try:
            resolver = self.resolver or dns.resolver.Resolver()
            return list(resolver.resolve(name, kind, lifetime=self.timeout, search=False))
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except (dns.exception.DNSException, OSError) as error:
            raise LookupFailed(f"{kind} of {name}: {error or type(error).__name__}") from error


@dataclass(frozen=True)
class Context:
    """What a check may use."""

    settings: Settings
    probe_database: Callable[[], str]
    now: Callable[[], datetime]
    resolver: Resolver
    timeout: float = 5


Check = Callable[[Context], Iterator[Said]]


# ── what is in force ─────────────────────────────────────────────────────────────────────────────────────────────


def effective(settings: Settings) -> list[tuple[str, str]]:
    """Every dotted key with its value as config/ would write it; secrets masked, hosts of URLs visible."""
    missing = [robot for robot in robots(settings) if robot not in settings.wecom_keys]
    return [*_walk("", settings), *((f"wecom_keys.{robot}", NOT_SET) for robot in missing)]


def _walk(key: str, value: object) -> Iterator[tuple[str, str]]:
    for step, inner in _inner(value):
        yield from _walk(f"{key}{step}" if step.startswith("[") or not key else f"{key}.{step}", inner)
    if not _is_table(value):
        yield key, _show(key, value)


def _inner(value: object) -> list[tuple[str, object]]:
    if isinstance(value, BaseModel):
        named = [(f.alias or name, getattr(value, name)) for name, f in type(value).model_fields.items()]
        return [*named, *(value.model_extra or {}).items()]
    if isinstance(value, Mapping):
        return sorted(value.items())
    if _is_table(value) and isinstance(value, Sequence):
        return [(f"[{number}]", item) for number, item in enumerate(value)]
    return []


def _is_table(value: object) -> bool:
    """Whether it has keys of its own: a table, or an array of tables."""
    return isinstance(value, BaseModel | Mapping) or (
        isinstance(value, list | tuple) and any(isinstance(item, BaseModel | Mapping) for item in value)
    )


def _show(key: str, value: object) -> str:
    plain = value.get_secret_value() if isinstance(value, SecretStr) else value
    if plain in (None, "", ()):
        return NOT_SET
    if key in URL_KEYS:
        return mask_url(str(plain))
    if isinstance(value, SecretStr) or SECRET_KEY.search(key):
        return MASK
    return next((show(plain) for kind, show in SHOWN.items() if isinstance(plain, kind)), str(plain))


def _duration(value: timedelta) -> str:
    seconds = int(value.total_seconds())
    largest_first = sorted(UNITS.items(), key=lambda pair: -pair[1])
    unit, size = next(pair for pair in largest_first if seconds % pair[1] == 0 and (seconds or pair[1] == 1))
    return f"{seconds // size}{unit}"


SHOWN: Mapping[type, Callable[[Any], str]] = {
    bool: lambda value: str(value).lower(),
    timedelta: _duration,
    time: lambda value: f"{value:%H:%M}",
    tuple: lambda value: ", ".join(map(str, value)),
    list: lambda value: ", ".join(map(str, value)),
}


def mask_url(url: str) -> str:
    """The URL with its password, and any query value that looks like one, masked."""
    return URL_QUERY_SECRET.sub(rf"\g<name>={MASK}", URL_PASSWORD.sub(rf"\g<user>:{MASK}@", url))


def _secrets(settings: Settings) -> set[str]:
    """Every text that must not be printed, in each spelling an error might repeat it in."""
    operator = settings.operator
    whole = (
        settings.email.smtp.password,
        *(relay.password for relay in settings.email.relays),
        settings.telegram.token,
        settings.bot.webhook_secret,
        operator.webhook_url,
        operator.dead_man_url,
        settings.pictures.s3.access_key,
        settings.pictures.s3.secret_key,
    )
    accounts = (account.secret for account in settings.wechat_accounts.values())
    found = [secret.get_secret_value() for secret in (*whole, *settings.wecom_keys.values(), *accounts)]
    urls = (
        settings.database.url.get_secret_value(),
        settings.broker.url.get_secret_value(),
        settings.telegram.proxy,
    )
    for url in urls:
        found += [match["password"] for match in URL_PASSWORD.finditer(url)]
        found += [match["value"] for match in URL_QUERY_SECRET.finditer(url)]
    return {spelling for secret in found for spelling in (secret, unquote(secret)) if spelling}


# ── running the checks ───────────────────────────────────────────────────────────────────────────────────────────


def examine(
    settings: Settings,
    *,
    probe_database: Callable[[], str],
    now: Callable[[], datetime],
    resolver: Resolver | None = None,
    timeout: float = 5,
) -> Iterator[Finding]:
    """Runs every check of `CHECKS`, one after the other. Never raises: a check that breaks is a finding.

    `probe_database` answers with the server's version or raises ServiceDown; `timeout` (seconds) holds for each
    connection. No finding holds a secret.
    """
    context = Context(settings, probe_database, now, resolver or DnsResolver(timeout), timeout)
    secrets = sorted(_secrets(settings), key=len, reverse=True)
    for name, check in CHECKS.items():
        for level, text, fix in _run(check, context):
            yield Finding(name, level, _redact(text, secrets), _redact(fix, secrets))


def _run(check: Check, context: Context) -> Iterator[Said]:
    try:
        yield from check(context)
    except DistributorError as error:
        yield fail(str(error), "mend this first; the other checks ran all the same")
    except Exception as error:  # a broken check is a finding, and must not hide the others
        yield fail(
            f"the check itself broke: {type(error).__name__}: {error}",
            "nothing is known about this part: try it by hand before the send, and report the line above",
        )


def _redact(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


class Fault(NamedTuple):
    """An error of a library, what it means, and what to do. `{error}` and the caller's facts are filled in."""

    error: type[Exception]
    text: str
    fix: str


def explain(faults: Sequence[Fault], error: Exception, **facts: object) -> Said:
    """The first fault of the table that fits; the last row must fit everything."""
    fault = next(fault for fault in faults if isinstance(error, fault.error))
    return fail(fault.text.format(error=_words(error), **facts), fault.fix.format(**facts))


def _words(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        reply = error.smtp_error
        return f"{error.smtp_code} {reply.decode('utf-8', 'replace') if isinstance(reply, bytes) else reply}"
    return str(error) or type(error).__name__


def is_loopback(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost") or _ip_is(host, "is_loopback")


def _ip_is(host: str, question: str) -> bool:
    """Answers a question of `ipaddress` (such as "is_global"); False for a name."""
    try:
        return bool(getattr(ipaddress.ip_address(host), question))
    except ValueError:
        return False


def _uses(settings: Settings, kind: str) -> bool:
    """Whether a newsletter, a pack for a person or a route to the operator goes over this channel."""
    newsletters = settings.newsletters.values()
    handoffs = [newsletter.channel_settings.handoff for newsletter in newsletters]
    return (
        any(kind in newsletter.channels for newsletter in newsletters)
        or any(place.via == kind for table in handoffs if table for place in table.destinations)
        or any(route.kind == kind for route in settings.operator.routes)
    )


# ── database and broker ──────────────────────────────────────────────────────────────────────────────────────────


def check_database(context: Context) -> Iterator[Said]:
    try:
        yield ok(context.probe_database())
    except ServiceDown as error:
        yield fail(
            f"{mask_url(context.settings.database.url.get_secret_value())} does not answer: {error}",
            f"start the server, check {PREFIX}DATABASE_URL, then run `distributor db upgrade`",
        )


def check_sqlite(context: Context) -> Iterator[Said]:
    if not context.settings.database.embedded:
        return
    yield sqlite_version(sqlite3.sqlite_version_info)
    database = make_url(context.settings.database.url.get_secret_value()).database
    if database and database != ":memory:":
        yield file_system(context.settings.path(database).resolve(), MOUNTS)


def sqlite_version(version: tuple[int, ...]) -> Said:
    """Whether this SQLite has the WAL-reset race (3.7.0 to 3.51.2, without the back-ports)."""
    number = ".".join(map(str, version))
    backport = SQLITE_BACKPORTS.get((version[0], version[1]))
    if version >= SQLITE_FIXED or (backport is not None and version[2] >= backport):
        return ok(f"SQLite {number}")
    return warn(
        f"SQLite {number} can corrupt a database when two connections checkpoint at the same moment (WAL-reset race)",
        "let only one `distributor run` use the file and open it with no other program meanwhile; for good: a Python "
        "linked to SQLite 3.51.3, 3.50.7 or 3.44.6 or later, or PostgreSQL",
    )


def file_system(path: Path, mounts: Path) -> Said:
    """Whether the file lies on a network file system, by the table of mounts (best effort: Linux only)."""
    try:
        kind = mounted_on(path, mounts.read_text("utf-8", "replace"))
    except OSError:
        return ok(f"{path}: file system not checked on this system")
    if kind not in NETWORK_FILE_SYSTEMS:
        return ok(f"{path} on {kind or 'an unknown file system'}")
    return warn(
        f"{path} lies on a network file system ({kind}): SQLite's locks do not hold there and the file may break",
        "move it to a local disk (database.url), or use PostgreSQL",
    )


def mounted_on(path: Path, mounts: str) -> str:
    """The type of the file system that holds an absolute path; "" when the table does not tell."""
    rows = [line.split() for line in mounts.splitlines()]
    kinds = {_mount_point(row[1]): row[2] for row in rows if len(row) > 2}
    return next((kinds[folder] for folder in map(str, (path, *path.parents)) if folder in kinds), "")


def _mount_point(text: str) -> str:
    """/proc/mounts writes blanks as octal escapes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def check_journal(context: Context) -> Iterator[Said]:
    named = context.settings.engine.journal
    if not named:
        yield warn(
            "none: a worker that is lost leaves all of its slice in doubt, and nobody notices a database that was set back",
            "name a local folder in engine.journal",
        )
        return
    folder = context.settings.path(named).resolve()
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    try:
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
    except OSError as error:
        yield fail(
            f"{folder} cannot be written: {error.strerror}; nothing is sent without a journal",
            "mend the rights of the folder, or name another one in engine.journal",
        )
        return
    yield journal_room(folder, free)
    yield journal_place(folder, MOUNTS)


def journal_room(folder: Path, free: int) -> Said:
    """Whether a few journals more fit onto the disk (`free`: bytes)."""
    if free >= JOURNAL_ROOM:
        return ok(f"{folder} can be written, {free // 1_000_000} MB free")
    return warn(
        f"{folder} has {free // 1_000_000} MB left: once the disk is full, nothing more is sent",
        "make room, or name a folder on another disk in engine.journal",
    )


def journal_place(folder: Path, mounts: Path) -> Said:
    """Whether the folder is local, outlives its process, and can be shared by the workers of a host."""
    try:
        kind = mounted_on(folder, mounts.read_text("utf-8", "replace"))
    except OSError:
        return ok("its file system was not checked on this system")
    if kind in NETWORK_FILE_SYSTEMS:
        return warn(
            f"{folder} lies on a network file system ({kind}): locks and mapped memory do not hold there, and hosts "
            "would take each other's journals for their own",
            "name a local folder in engine.journal; each host has its own",
        )
    if kind in CONTAINER_LAYERS:
        return warn(
            f"{folder} lies in the layer of this container ({kind}): it ends with the container, and the other workers "
            "of this host do not see it",
            "mount one volume there in all containers that send on this host, or name a "
            "folder on such a volume in engine.journal",
        )
    return ok(f"on {kind or 'an unknown file system'}; all workers of this host must name this same folder")


BROKER_FAULTS = (
    Fault(
        redis.AuthenticationError,
        "{url} refuses the login: {error}",
        f"put user and password into {PREFIX}BROKER_URL",
    ),
    Fault(redis.TimeoutError, "{url} does not answer in time", "check the host, the port and the firewall"),
    Fault(
        redis.ConnectionError,
        "{url} cannot be reached: {error}",
        f"start Redis or Valkey, or check {PREFIX}BROKER_URL",
    ),
    Fault(
        ValueError,
        "{url} is not a Redis URL",
        'write broker.url as "redis://host:6379/0", or "rediss://…" with TLS',
    ),
    Fault(redis.RedisError, "{url} answers with an error: {error}", "look into the server's log"),
)


def check_broker(context: Context) -> Iterator[Said]:
    if not context.settings.broker.configured:
        yield ok("none: the engine runs in process")
        return
    try:
        yield from _broker(context)
    except (redis.RedisError, ValueError) as error:
        url = mask_url(context.settings.broker.url.get_secret_value())
        yield explain(BROKER_FAULTS, error, url=url)


def _broker(context: Context) -> Iterator[Said]:
    with _redis(context) as server:
        server.ping()
        facts = server.info()
    yield broker_version(facts)
    yield memory_policy(str(facts.get("maxmemory_policy", "")))
    if not int(facts.get("aof_enabled", 0)):
        yield ok(
            "append-only file is off: a restart of the broker loses wake-ups, the sweeper signals them anew; "
            "`appendonly yes` spares that wait"
        )


def _redis(context: Context) -> redis.Redis:
    return redis.Redis.from_url(
        context.settings.broker.url.get_secret_value(),
        socket_timeout=context.timeout,
        socket_connect_timeout=context.timeout,
        retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),
        protocol=2,  # spares a HELLO, which proxies in front of Redis do not always know
    )


def broker_version(facts: Mapping[str, Any]) -> Said:
    """Valkey tells the Redis version it stands for beside its own."""
    version = str(facts.get("redis_version", "0"))
    name = f"Valkey {facts['valkey_version']}" if "valkey_version" in facts else f"Redis {version}"
    if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) >= REDIS_SERVER:
        return ok(name)
    return fail(f"{name} is too old for Celery", "use Redis 6.2 or later, or Valkey")


def memory_policy(policy: str) -> Said:
    if policy == "noeviction":
        return ok("maxmemory-policy noeviction")
    return warn(
        f"maxmemory-policy is {policy or 'unknown'}: when memory runs out, wake-ups and pacing limits may be thrown away",
        "set `maxmemory-policy noeviction` on the broker",
    )


# ── channels ─────────────────────────────────────────────────────────────────────────────────────────────────────

SMTP_FAULTS = (
    Fault(
        smtplib.SMTPAuthenticationError,
        "{host}:{port} refuses the login of {user}: {error}",
        f"check email.smtp.username and {PREFIX}SMTP_PASSWORD; QQ, 163 and Gmail want an authorisation code "
        "(授权码, app password) instead of the password",
    ),
    Fault(
        smtplib.SMTPNotSupportedError,
        "{host}:{port} does not offer what email.smtp asks for: {error}",
        'choose another email.smtp.security; ports are usually 587 with "starttls", 465 with "tls"',
    ),
    Fault(
        smtplib.SMTPServerDisconnected,
        "{host}:{port} closed the connection or does not speak SMTP: {error}",
        'is email.smtp.security right for this port? 587 with "starttls", 465 with "tls"',
    ),
    Fault(
        smtplib.SMTPException,
        "{host}:{port} answers with an error: {error}",
        "ask the relay's operator, with this answer",
    ),
    Fault(
        ssl.SSLCertVerificationError,
        "{host}:{port} shows a certificate that does not hold: {error}",
        "write email.smtp.host as the certificate does, or renew the relay's certificate",
    ),
    Fault(
        ssl.SSLError,
        "{host}:{port} does not speak TLS as configured: {error}",
        'set email.smtp.security to fit the port: 587 with "starttls", 465 with "tls"',
    ),
    Fault(
        socket.gaierror,
        "the name {host} cannot be resolved: {error}",
        "check email.smtp.host and this machine's DNS",
    ),
    Fault(
        ConnectionRefusedError,
        "{host}:{port} refuses connections",
        "is the relay running, and email.smtp.port right? The sandbox starts with `distributor sandbox`",
    ),
    Fault(
        TimeoutError,
        "{host}:{port} does not answer in time",
        'check host and firewall; most clouds and home networks block port 25: use 587 with "starttls" or 465 with "tls"',
    ),
    Fault(
        Exception,
        "{host}:{port} cannot be reached: {error}",
        "check email.smtp.host, the network and the firewall",
    ),
)


def check_smtp(context: Context) -> Iterator[Said]:
    if not _uses(context.settings, "email"):
        yield ok("not used")
        return
    for relay in context.settings.email.all_relays:
        yield from _check_relay(context, relay)


def _check_relay(context: Context, smtp: MailRelay) -> Iterator[Said]:
    yield from smtp_settings(smtp)
    try:
        yield ok(_smtp_talk(smtp, context.timeout))
    except (
        OSError,
        Unavailable,
    ) as error:  # smtplib's errors are OSErrors; `connect` keeps them as the cause
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        yield explain(SMTP_FAULTS, cause, host=smtp.host, port=smtp.port, user=smtp.username)


def smtp_settings(smtp: Smtp) -> Iterator[Said]:
    """What can be said without a connection."""
    if smtp.security == "none" and not is_loopback(smtp.host):
        carried = "mail and password" if smtp.username else "mail"
        yield warn(
            f"{carried} travel to {smtp.host} unencrypted",
            'set email.smtp.security to "starttls" (port 587) or "tls" (port 465)',
        )
    if smtp.username and not smtp.password.get_secret_value():
        variable = f"{PREFIX}SMTP_PASSWORD"
        if isinstance(smtp, MailRelay) and smtp.name != ONLY_RELAY:
            variable = relay_password_name(smtp.name)
        yield warn(f"no password for {smtp.username}", f"set {variable}")


def _smtp_talk(smtp: Smtp, timeout: float) -> str:
    """Greets and logs in with a lane's own connection, and hangs up."""
    with connect(smtp.model_copy(update={"timeout": timedelta(seconds=timeout)})) as relay:
        return _relay_facts(relay, smtp)


def _relay_facts(relay: smtplib.SMTP, smtp: Smtp) -> str:
    login = f"logged in as {smtp.username}" if smtp.username else "no login"
    pipelining = "PIPELINING" if relay.has_extn("pipelining") else "no PIPELINING (slower)"
    return f"{smtp.host}:{smtp.port}, security {smtp.security}, {login}, {pipelining}"


TELEGRAM_FAULTS = (
    Fault(
        ImportError,
        "telegram.proxy {proxy} needs a package that is not installed: {error}",
        'run `pip install "httpx[socks]"`, or use an "http://…" proxy',
    ),
    Fault(
        ValueError,
        "telegram.proxy {proxy} is no proxy address: {error}",
        'write it as "socks5://host:1080" or "http://host:8080"',
    ),
    Fault(
        httpx.ProxyError,
        "telegram.proxy {proxy} does not let us through: {error}",
        "check telegram.proxy: scheme, host, port, login",
    ),
    Fault(Exception, "{api} cannot be reached: {error}", "{fix}"),
)
TELEGRAM_BLOCKED = (
    "from mainland China Telegram is reached through a proxy only: set telegram.proxy, or telegram.api "
    "to a Bot API server of your own outside"
)


def check_telegram(context: Context) -> Iterator[Said]:
    telegram = context.settings.telegram
    if not _uses(context.settings, "telegram"):
        yield ok("not used")
    elif not telegram.token.get_secret_value():
        yield fail("no token for the bot", f"ask @BotFather for one and set {PREFIX}TELEGRAM_TOKEN")
    else:
        yield _get_me(context)


def _get_me(context: Context) -> Said:
    telegram = context.settings.telegram
    try:
        with _http(context, telegram.proxy) as client:
            return bot_answer(client.get(f"{telegram.api}/bot{telegram.token.get_secret_value()}/getMe"))
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError, OSError) as error:
        blocked = urlsplit(telegram.api).hostname == TELEGRAM_HOST
        fix = TELEGRAM_BLOCKED if blocked else "is telegram.api right, and that server running?"
        facts = {"api": mask_url(telegram.api), "proxy": mask_url(telegram.proxy), "fix": fix}
        return explain(TELEGRAM_FAULTS, error, **facts)


def check_bot(context: Context) -> Iterator[Said]:
    """The bot that readers talk to: whether Telegram and the settings mean the same by it."""
    settings = context.settings
    if settings.bot.mode == "off":
        yield ok("readers do not talk to it (bot.mode)")
        return
    if not _bot_newsletters(settings):
        yield warn(
            "there is nothing that a reader could subscribe to in Telegram",
            "give a public newsletter a [channels.telegram] with subscribers",
        )
    if settings.bot.mode == "webhook" and not settings.bot.webhook_secret.get_secret_value():
        yield fail(
            "the webhook has no secret, so it is off",
            f"set {PREFIX}TELEGRAM_WEBHOOK_SECRET to 32 or more random letters and digits, then run "
            "`distributor bot set-webhook`",
        )
    if not settings.telegram.token.get_secret_value():
        yield fail("no token for the bot", f"ask @BotFather for one and set {PREFIX}TELEGRAM_TOKEN")
        return
    try:
        yield from _bot_said(settings, _asked_bot(context, "getMe"), _asked_bot(context, "getWebhookInfo"))
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError, OSError) as error:
        yield fail(
            f"cannot be asked about its webhook: {type(error).__name__}", "see the line above on Telegram"
        )


def _bot_newsletters(settings: Settings) -> list[str]:
    tables = {slug: one.channel_settings.telegram for slug, one in settings.newsletters.items() if one.public}
    return [slug for slug, table in tables.items() if table and table.subscribers]


def _asked_bot(context: Context, method: str) -> Mapping[str, Any]:
    telegram = context.settings.telegram
    with _http(context, telegram.proxy) as client:
        told = _json_table(client.get(f"{telegram.api}/bot{telegram.token.get_secret_value()}/{method}"))
    found = told.get("result")
    if not isinstance(found, dict):
        raise ValueError("no answer of the Bot API")  # noqa: TRY004 - callers treat every odd answer alike
    return found


def _bot_said(settings: Settings, me: Mapping[str, Any], info: Mapping[str, Any]) -> Iterator[Said]:
    username, url = str(me.get("username", "")), str(info.get("url", ""))
    wanted = f"{settings.web.base_url}/telegram/webhook" if settings.bot.mode == "webhook" else ""
    if settings.bot.username and settings.bot.username.lower() != username.lower():
        yield fail(
            f"bot.username is {settings.bot.username}, and the token's bot is @{username}: readers would connect to a stranger's",
            f'set bot.username = "{username}", or the other bot\'s token',
        )
    if url != wanted:
        yield fail(
            f"Telegram brings what readers say to {url or 'nobody'}, not to {wanted or 'whoever polls'}",
            "run `distributor bot set-webhook`" if wanted else "run `distributor bot delete-webhook`",
        )
    elif info.get("last_error_message"):
        yield warn(
            f"Telegram could not bring an update lately: {info['last_error_message']}",
            "look at the web pages' log, and at the proxy before them",
        )
    else:
        waiting = f", {info.get('pending_update_count', 0)} updates wait" if wanted else ""
        yield ok(f"@{username} is heard by {settings.bot.mode}{waiting}")


def bot_answer(answer: httpx.Response) -> Said:
    """What getMe said."""
    told = _json_table(answer)
    if told.get("ok") is True:
        return ok(f"bot @{told.get('result', {}).get('username', '?')}")
    if "ok" not in told:
        return fail(
            f"telegram.api does not answer as the Bot API does (HTTP {answer.status_code})",
            f'check telegram.api and telegram.proxy; Telegram itself is "https://{TELEGRAM_HOST}"',
        )
    if answer.status_code in {401, 404}:
        return fail(
            f"the bot's token is not accepted ({answer.status_code})",
            f"ask @BotFather for the token and set {PREFIX}TELEGRAM_TOKEN",
        )
    return fail(
        f"the Bot API answers {answer.status_code}: {told.get('description', '')}", "try again in a minute"
    )


def _json_table(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        told = answer.json()
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _http(context: Context, proxy: str = "") -> httpx.Client:
    quiet("httpx")  # Telegram's URL holds the token
    return httpx.Client(proxy=proxy or None, timeout=context.timeout)


def check_wecom(context: Context) -> Iterator[Said]:
    names = robots(context.settings)
    if not names:
        yield ok("not used")
    for robot in names:
        key = context.settings.wecom_keys.get(robot)
        yield robot_key(robot, key.get_secret_value() if key else "")


def robots(settings: Settings) -> list[str]:
    """Every robot that a newsletter or a route to the operator names."""
    named = {name for newsletter in settings.newsletters.values() for name in newsletter.robots}
    return sorted(named | {route.robot for route in settings.operator.routes if route.kind == "wecom"})


def robot_key(robot: str, key: str) -> Said:
    """Only the shape is looked at: the one way to try a key is to post into the group."""
    variable = wecom_key_name(robot)
    if not key:
        return fail(
            f"no key for the robot {robot}", f"set {variable} to what follows key= in its webhook address"
        )
    if not WECOM_KEY.fullmatch(key):
        return warn(
            f"the key of the robot {robot} does not look like xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx",
            f"set {variable} to what follows key= in its webhook address, and no more",
        )
    return ok(f"robot {robot} has a key")


def check_wechat(context: Context) -> Iterator[Said]:
    names = wechat_names(context.settings.newsletters)
    if not names:
        yield ok("not used")
    for name in names:
        yield account_login(name, context.settings.wechat_accounts.get(name, WechatAccount()))
    for newsletter in context.settings.newsletters.values():
        yield from default_covers(context.settings.root, newsletter)


def default_covers(root: Path, newsletter: Newsletter) -> Iterator[Said]:
    """Those that are files; one on the web is fetched with each send."""
    table = newsletter.channel_settings.wechat
    for place in table.destinations if table else ():
        if not place.default_cover or is_web(place.default_cover):
            continue
        try:
            picture_of_project(root, place.default_cover)
        except PictureError as error:
            yield fail(
                f"{newsletter.slug}: the default cover for {place.name} is of no use: {error}",
                f"put a JPEG or PNG there, or change `default_cover` in config/newsletters/{newsletter.slug}.toml: "
                "WeChat takes no article without a cover",
            )


def account_login(name: str, account: WechatAccount) -> Said:
    """Only the shape is looked at: each login counts, and may end a token that another system holds."""
    appid, secret = wechat_secret_names(name)
    missing = [
        variable
        for variable, value in ((appid, account.appid), (secret, account.secret.get_secret_value()))
        if not value
    ]
    if missing:
        return fail(
            f"the Official Account {name} has no login",
            f"set {' and '.join(missing)}: mp.weixin.qq.com, 设置与开发 → 基本配置; put this server on the IP list there",
        )
    if not WECHAT_APPID.fullmatch(account.appid):
        return warn(
            f"the AppID of the Official Account {name} does not look like wx0123456789abcdef",
            f"set {appid} to the one on mp.weixin.qq.com",
        )
    if not WECHAT_SECRET.fullmatch(account.secret.get_secret_value()):
        return warn(
            f"the AppSecret of the Official Account {name} is not 32 hexadecimal digits",
            f"set {secret} to the one on mp.weixin.qq.com",
        )
    return ok(f"the Official Account {name} has a login")


# ── posts, time, operator, web ───────────────────────────────────────────────────────────────────────────────────


def check_posts(context: Context) -> Iterator[Said]:
    for newsletter in context.settings.newsletters.values():
        yield from _folder(context.settings.path(newsletter.posts), newsletter)


def _folder(folder: Path, newsletter: Newsletter) -> Iterator[Said]:
    if not folder.is_dir():
        fix = f"create it, or set `posts` in config/newsletters/{newsletter.slug}.toml"
        yield fail(f"{newsletter.slug}: the folder {folder} does not exist", fix)
        return
    found = load_posts(folder, newsletter.zone)
    for broken in found.errors:
        yield warn(f"{newsletter.slug}: {broken}", "mend it; as it is, it cannot go out")
    if found.posts:
        drafts = sum(post.draft for post in found.posts)
        yield ok(f"{newsletter.slug}: {folder} holds {len(found.posts)} posts, {drafts} of them drafts")
    else:
        yield warn(f"{newsletter.slug}: {folder} holds no post that can go out", "put a Markdown file there")


class Reading(NamedTuple):
    """Another clock against ours: how far it is ahead, and how long the question took."""

    clock: str
    ahead: timedelta
    took: timedelta


def check_clock(context: Context) -> Iterator[Said]:
    readings = [reading for read in CLOCKS if (reading := _try_clock(read, context))]
    if not readings:
        yield ok("not checked against another clock: neither Redis, Telegram nor WeCom told the time")
    for reading in readings:
        yield judge_clock(reading)


def judge_clock(reading: Reading) -> Said:
    """Half of the round trip is in doubt, so it does not count as a deviation."""
    seconds = abs(reading.ahead).total_seconds()
    if abs(reading.ahead) - reading.took / 2 <= CLOCK_TOLERANCE:
        return ok(f"within {CLOCK_TOLERANCE.seconds} s of {reading.clock}")
    return warn(
        f"this machine's clock is {seconds:.0f} s {'behind' if reading.ahead > timedelta(0) else 'ahead of'} {reading.clock}",
        "turn time synchronisation on (`timedatectl set-ntp true`): tokens, dates of mails and schedules go by it",
    )


def _try_clock(read: Callable[[Context], tuple[str, datetime] | None], context: Context) -> Reading | None:
    """None when that clock is not there; whether its server should be is another check's business."""
    before = context.now()
    try:
        told = read(context)
    except (OSError, ValueError, ImportError, redis.RedisError, httpx.HTTPError, httpx.InvalidURL):
        return None
    took = context.now() - before
    return told and Reading(told[0], told[1] - (before + took / 2), took)


def _redis_clock(context: Context) -> tuple[str, datetime] | None:
    if not context.settings.broker.configured:
        return None
    with _redis(context) as server:
        seconds, microseconds = server.time()
    return "the broker", datetime.fromtimestamp(int(seconds), UTC) + timedelta(microseconds=int(microseconds))


def _telegram_clock(context: Context) -> tuple[str, datetime] | None:
    telegram = context.settings.telegram
    used = _uses(context.settings, "telegram")
    return _http_clock(context, telegram.api, telegram.proxy) if used else None


def _wecom_clock(context: Context) -> tuple[str, datetime] | None:
    return _http_clock(context, context.settings.wecom.api) if robots(context.settings) else None


def _http_clock(context: Context, url: str, proxy: str = "") -> tuple[str, datetime] | None:
    """The Date header of whatever the server answers; it is cut to the second, so half a second is added."""
    with _http(context, proxy) as client:
        told = client.head(url).headers.get("date")
    return (
        (urlsplit(url).hostname or url, parsedate_to_datetime(told) + timedelta(seconds=0.5))
        if told
        else None
    )


CLOCKS = (_redis_clock, _telegram_clock, _wecom_clock)


def check_zone(context: Context) -> Iterator[Said]:
    now = context.now()
    here = now.astimezone()
    for newsletter in context.settings.newsletters.values():
        there = now.astimezone(newsletter.zone)
        yield ok(
            f"{newsletter.slug}: {newsletter.timezone}, where it is {there:%H:%M} (UTC{there:%z}); "
            f"this machine: {here.tzname()}, {here:%H:%M} (UTC{here:%z})"
        )


def check_next_send(context: Context) -> Iterator[Said]:
    now = context.now()
    for newsletter in context.settings.newsletters.values():
        if due := next_due(newsletter, now):
            yield ok(f"{newsletter.slug}: {_when(due, newsletter)}, in {_hours(due - now)}")
        else:
            yield warn(
                f"{newsletter.slug}: no send in the next 12 months",
                f"check [schedule] days, skip and extra in config/newsletters/{newsletter.slug}.toml",
            )


def _when(moment: datetime, newsletter: Newsletter) -> str:
    there, here = moment.astimezone(newsletter.zone), moment.astimezone()
    return (
        f"{there:%a %Y-%m-%d %H:%M} {newsletter.timezone}, "
        f"{here:%a %Y-%m-%d %H:%M} {here.tzname()} on this machine"
    )


def _hours(wait: timedelta) -> str:
    return f"{wait // timedelta(hours=1)} h {wait // timedelta(minutes=1) % 60} min"


def check_operator(context: Context) -> Iterator[Said]:
    operator = context.settings.operator
    kinds = sorted({route.kind for route in operator.routes})
    if "webhook" in kinds and not operator.webhook_url.get_secret_value():
        yield fail("a route of kind webhook has no address", f"set {PREFIX}ALERT_WEBHOOK_URL")
    if len(kinds) >= 2:
        yield ok(f"you are told by {', '.join(kinds)}")
        return
    yield warn(
        f"you are told by {kinds[0]} alone" if kinds else "nobody is told when a send fails",
        "add [[operator.routes]] of another kind: an alarm must not depend on what is down",
    )


def check_events(context: Context) -> Iterator[Said]:
    """Whether the providers' keys can be used, and whether they can reach us. None of them is asked."""
    table = context.settings.events
    if not table.providers:
        yield ok("none: bounces and complaints that providers see are not told to us")
        return
    load_providers(table)
    url = context.settings.web.base_url
    if is_loopback(urlsplit(url).hostname or ""):
        yield warn(
            f"no provider reaches {url}/events/{table.providers[0]}",
            "set web.base_url (or DISTRIBUTOR_WEB_BASE_URL) to the address the world reaches",
        )
    elif not url.startswith("https:"):
        yield warn(
            f"{url} is not https: secrets in the addresses of providers can be read on the way", "use https"
        )
    else:
        yield ok(", ".join(f"{url}/events/{name}" for name in table.providers))


def check_bounces(context: Context) -> Iterator[Said]:
    table = context.settings.events.bounces
    if not table.address:
        yield ok("bounces go to the newsletter's sender; nobody reads them")
        return
    yield from _bounce_domain(context, table.address.rpartition("@")[2])
    stubborn = [relay.name for relay in context.settings.email.all_relays if relay.own_bounces]
    if stubborn:
        yield ok(
            f"over {', '.join(stubborn)} the sender stays: what bounces is told as events, or not at all"
        )
    if not table.host:
        yield warn(f"bounces go to {table.address}, and no mailbox is read", "set events.bounces.host")
        return
    quick = table.model_copy(update={"timeout": timedelta(seconds=context.timeout)})
    with Mailbox(quick) as mailbox:
        yield ok(
            f"{table.username} at {table.host}:{table.port}: {mailbox.count()} mails wait in {table.folder}"
        )


def _bounce_domain(context: Context, domain: str) -> Iterator[Said]:
    """The envelope's domain: bounces are sent there, and receivers ask it for SPF."""
    if is_reserved(domain):
        yield warn(f"{domain} is reserved for examples", "change events.bounces.address before a real send")
        return
    try:
        yield domain_hosts(domain, context.resolver.hosts(domain))
        yield spf(domain, context.resolver.txt(domain), context.settings.email.smtp.host)
    except LookupFailed as error:
        yield warn(
            f"could not look up {error}", "check this machine's DNS and run `distributor doctor` again"
        )


def check_web(context: Context) -> Iterator[Said]:
    url = context.settings.web.base_url
    host = urlsplit(url).hostname or ""
    domains = [domain for domain in sender_domains(context.settings) if not is_reserved(domain)]
    fix = "set web.base_url (or DISTRIBUTOR_WEB_BASE_URL) to the https address readers reach"
    if domains and (is_loopback(host) or _ip_is(host, "is_private")):
        yield warn(f"links in mail from {domains[0]} would be dead: {url} is reached from here alone", fix)
    elif domains and not url.startswith("https:"):
        yield warn(f"{url} is not https: mail providers want https for one-click unsubscribe", fix)
    else:
        yield ok(url)
    # We speak no TLS ourselves.
    if url.startswith("https:") and not context.settings.web.trusted_proxies:
        yield warn(
            "a proxy stands in front and is not trusted: to the limits of sign-up, all readers have its address",
            'set web.trusted_proxies to the networks it comes from, such as ["127.0.0.1/32"]',
        )


def check_signup(context: Context) -> Iterator[Said]:
    if not context.settings.signup.sources:
        yield ok("no system signs readers up by webhook")
    for source in context.settings.signup.sources:
        yield signup_source(source)


def signup_source(source: SignupSource) -> Said:
    if not source.secrets:
        return warn(
            f"{source.name} has no secret: none of its calls is taken",
            f'set {signup_secret_name(source.name)} to "whsec_" and 24 to 64 random bytes in base64',
        )
    what = "vouches for its readers" if source.scope == "confirmed" else "has its readers asked"
    return ok(f"{source.name} {what}; secrets: {len(source.secrets)}")


def check_webhooks(context: Context) -> Iterator[Said]:
    if not context.settings.webhooks.endpoints:
        yield ok("nobody is told")
    for endpoint in context.settings.webhooks.endpoints:
        if endpoint.secrets:
            yield ok(f"{endpoint.name} is told; secrets: {len(endpoint.secrets)}")
        else:
            yield warn(
                f"{endpoint.name} has no secret: its calls are not signed, and anybody could make them up",
                f'set {webhook_secret_name(endpoint.name)} to "whsec_" and 24 to 64 random bytes in base64',
            )


def check_site(context: Context) -> Iterator[Said]:
    settings = context.settings
    if settings.site.folder:
        yield from site_folder(settings.path(settings.site.folder).resolve())
    if not (settings.site.serve or settings.site.folder):
        yield ok("none: the full text is not on the web, unless a post's url or url_pattern says where")
    elif settings.site_is_reached:
        yield ok(f"{settings.site_url}/")
    else:
        yield ok(f"{settings.site_url}/ is reached from here alone, so no message links to it")


def site_folder(folder: Path) -> Iterator[Said]:
    """Whether the pages can be written there."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            return
    except OSError as error:
        yield fail(
            f"{folder} cannot be written: {error.strerror}; the pages that messages link to would be missing",
            "mend the rights of the folder, or name another one in site.folder",
        )


# ── the sender's domain ──────────────────────────────────────────────────────────────────────────────────────────


def sender_domains(settings: Settings) -> list[str]:
    """Domains that newsletters with e-mail send from, in ASCII, each once."""
    by_mail = [newsletter for newsletter in settings.newsletters.values() if "email" in newsletter.channels]
    domains = [newsletter.sender.address.rpartition("@")[2] for newsletter in by_mail]
    return sorted({dns.name.from_text(domain).to_text(omit_final_dot=True) for domain in domains})


def is_reserved(domain: str) -> bool:
    return any(domain == name or domain.endswith(f".{name}") for name in RESERVED_DOMAINS)


def check_domain(context: Context) -> Iterator[Said]:
    for domain in sender_domains(context.settings):
        if is_reserved(domain):
            yield warn(
                f"{domain} is reserved for examples: no mail from it is accepted anywhere",
                "change sender.address before a real send",
            )
        else:
            yield from _domain(context, domain)


def _domain(context: Context, domain: str) -> Iterator[Said]:
    """The records one after the other; a name server that is silent once is not asked four times over."""
    try:
        yield domain_hosts(domain, context.resolver.hosts(domain))
        yield spf(domain, context.resolver.txt(domain), context.settings.email.smtp.host)
        yield dmarc(domain, find_dmarc(domain, context.resolver))
        yield dkim(domain, find_dkim(domain, context.resolver))
    except LookupFailed as error:
        yield warn(
            f"could not look up {error}; what follows of MX, SPF, DMARC and DKIM of {domain} is not checked",
            "check this machine's DNS and run `distributor doctor` again",
        )


def domain_hosts(domain: str, hosts: Sequence[str]) -> Said:
    if list(hosts) == ["."]:  # RFC 7505
        return warn(
            f"{domain} declares that it takes no mail (null MX): replies and bounces are lost",
            "remove the null MX, or send from a domain that takes mail",
        )
    if hosts:
        return ok(f"{domain} takes mail at {', '.join(hosts)}")
    return fail(
        f"{domain} has neither MX nor address: many providers refuse mail from it",
        f"add an MX record such as: {domain}. IN MX 10 <your mail host>.",
    )


def spf(domain: str, records: Sequence[str], relay: str) -> Said:
    """RFC 7208: exactly one record; with two, receivers report a permanent error."""
    found = [record for record in records if record.lower().split()[:1] == ["v=spf1"]]
    if len(found) == 1:
        return ok(f"{domain} SPF: {found[0]}")
    line = f'{domain}. IN TXT "v=spf1 {_spf_source(relay)} -all"'
    if found:
        return fail(
            f"{domain} has {len(found)} SPF records, so none counts", f"merge them into one, such as: {line}"
        )
    return warn(f"{domain} has no SPF record: mail from it is filed as spam or refused", f"add: {line}")


def _spf_source(relay: str) -> str:
    """How SPF names a relay; one on this machine hands over to another that we do not know."""
    if is_loopback(relay):
        return "include:<your relay>"
    if _ip_is(relay, "version"):
        return f"ip{ipaddress.ip_address(relay).version}:{relay}"
    return f"a:{relay}"


class DmarcRecords(NamedTuple):
    """Where DMARC records were found, and which."""

    name: str
    records: Sequence[str]


def find_dmarc(domain: str, resolver: Resolver) -> DmarcRecords:
    """Walks from the domain up to its two last labels: a parent's policy holds for its children (RFC 9989)."""
    labels = domain.split(".")
    parents = [".".join(labels[start:]) for start in range(max(len(labels) - 1, 1))]
    for name in (f"_dmarc.{parent}" for parent in parents):
        if found := [text for text in resolver.txt(name) if re.match(r"v\s*=\s*DMARC1\s*(;|$)", text)]:
            return DmarcRecords(name, found)
    return DmarcRecords(f"_dmarc.{domain}", ())


def dmarc(domain: str, found: DmarcRecords) -> Said:
    if len(found.records) == 1:
        return ok(f"{domain} DMARC at {found.name}: {found.records[0]}")
    line = f'_dmarc.{domain}. IN TXT "v=DMARC1; p=none; rua=mailto:dmarc@{domain}"'
    if found.records:
        return fail(
            f"{found.name} has {len(found.records)} DMARC records, so none counts", "keep one of them"
        )
    return warn(
        f"{domain} has no DMARC record: Gmail, Yahoo and Outlook want one from bulk senders", f"add: {line}"
    )


def find_dkim(domain: str, resolver: Resolver) -> str:
    """The first known selector with a key that is not revoked (an empty p=); "" for none."""
    for selector in DKIM_SELECTORS:
        records = resolver.txt(f"{selector}._domainkey.{domain}")
        if any(re.search(r"(^|;)\s*p\s*=\s*[^\s;]", record) for record in records):
            return selector
    return ""


def dkim(domain: str, selector: str) -> Said:
    if selector:
        return ok(f"{domain} DKIM: selector {selector}")
    return warn(
        f"{domain} has no DKIM key under the usual selectors ({', '.join(DKIM_SELECTORS)})",
        "unless the relay chose another selector, ask it for the record; it looks like: "
        f'<selector>._domainkey.{domain}. IN TXT "v=DKIM1; k=rsa; p=<public key>"',
    )


def check_pictures(context: Context) -> Iterator[Said]:
    """Whether the store of `[pictures]` takes pictures, and readers may load them from there."""
    table, address = context.settings.pictures, context.settings.pictures_url
    if table.rehost == "off":
        yield ok("stay where the posts have them")
        return
    yield _picture_bucket(context.settings) if table.rehost == "s3" else _picture_folder(context.settings)
    if urlsplit(address).scheme != "https":
        yield warn(
            f"readers get them from {address}: many mail programs load nothing over http://",
            "set pictures.base_url to an https:// address",
        )


def _picture_folder(settings: Settings) -> Said:
    folder = settings.path(settings.pictures.folder)
    there = next(path for path in (folder, *folder.resolve().parents) if path.is_dir())
    try:
        with tempfile.TemporaryFile(dir=there):
            return ok(f"{folder} can be written")
    except OSError as error:
        return fail(
            f"{folder} cannot be written: {error.strerror}",
            "mend the rights of the folder, or name another one in pictures.folder",
        )


def _picture_bucket(settings: Settings) -> Said:
    from distributor.pictures import S3Store  # noqa: PLC0415 - an optional extra, 0.3 s

    store = S3Store(settings.pictures.s3, settings.pictures_url)
    if store.status(f"{0:016}.png") == "403":
        return warn(
            f"{store.place} answers 403: the keys are wrong, or may not list the bucket",
            "look at DISTRIBUTOR_S3_ACCESS_KEY and _SECRET_KEY; they need to read, write and list",
        )
    return ok(f"{store.place} answers")


CHECKS: Mapping[str, Check] = {
    "database": check_database,
    "sqlite": check_sqlite,
    "journal": check_journal,
    "broker": check_broker,
    "smtp": check_smtp,
    "telegram": check_telegram,
    "bot": check_bot,
    "wecom": check_wecom,
    "wechat": check_wechat,
    "posts": check_posts,
    "time zone": check_zone,
    "next send": check_next_send,
    "clock": check_clock,
    "operator": check_operator,
    "web": check_web,
    "sign-up": check_signup,
    "webhooks": check_webhooks,
    "events": check_events,
    "bounces": check_bounces,
    "site": check_site,
    "sender domain": check_domain,
    "pictures": check_pictures,
}
