"""Builds everything from the settings: the only place that chooses real things."""

import fcntl
import gc
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from distributor.access import Access
from distributor.alerts import Alerts, route_channels
from distributor.audience import Audience
from distributor.channels import Channel, load_channels
from distributor.channels.email.identity import bounce_addresses
from distributor.db import Clock, Database
from distributor.dispatch import Caller, Engine, Policy, PostRoom, Reception
from distributor.dispatch.engine import HostPictures, leave_pictures
from distributor.errors import ServiceDown
from distributor.events import Events
from distributor.journal import Journals
from distributor.ledger import Ledger
from distributor.model import Post
from distributor.notices import Notices
from distributor.outbox import Outbox
from distributor.pacing import MemoryPacer, Pacer
from distributor.preflight import Facts, recent_posts
from distributor.rendering import template_environment
from distributor.schedule import Scheduler
from distributor.sentlog import SentLog
from distributor.settings import Newsletter, Retention, Settings
from distributor.site import Site
from distributor.webhooks import Webhooks

if TYPE_CHECKING:
    from distributor.abuse import SignupGuard
    from distributor.bot import Listener, Poller
    from distributor.doctor import Finding


#: New objects between two looks for garbage, of which there is hardly any: cycles are of errors and of the libraries'.
GARBAGE = 20_000
#: Seconds that a thread may keep the interpreter while others wait. With Python's 0.005, messages of lanes that start
#: together came some 30 ms late, close to the next ones: Telegram counts what comes in a second. The rate is the same.
SWITCH = 0.0005


#: How long the ids of webhooks are known: longer than any sender tries again.
RECEIVED = timedelta(days=7)


@dataclass(frozen=True, kw_only=True)
class Distributor:
    """Everything a command, a task or a page may need."""

    settings: Settings
    database: Database
    ledger: Ledger
    audience: Audience
    notices: Notices
    channels: Mapping[str, Channel]
    engine: Engine
    alerts: Alerts
    scheduler: Scheduler
    site: Site
    reception: Reception
    post_room: PostRoom
    caller: Caller
    access: Access
    events: Events
    #: One look into the bounce mailbox; None where there is none. Raises MailboxDown, ServiceDown.
    collect_bounces: Callable[[], object] | None

    @cached_property
    def guard(self) -> "SignupGuard":
        """What keeps sign-ups from being used against others; the web pages alone need it."""
        from distributor.abuse import guard_of  # noqa: PLC0415 - 0.1 s that only they need

        return guard_of(self.settings, self.alerts.tell, self.audience.secret)

    def close(self) -> None:
        self.database.close()


def build(
    settings: Settings, *, clock: Clock | None = None, wake: Callable[[str], None] = lambda _channel: None
) -> Distributor:
    """Everything, wired. Raises ConfigError for a channel that is not there; connects to nothing yet."""
    database = Database(database_url(settings), clock=clock)
    webhooks = Webhooks(database, settings.webhooks.endpoints)
    ledger, audience = Ledger(database, webhooks), Audience(database, webhooks)
    notices = Notices(database)
    outbox = Outbox(database)
    channels = load_channels(settings, route_channels(settings))
    alerts = Alerts(settings=settings, channels=channels, notices=notices)
    site = Site(settings, ledger, tell=alerts.tell)
    sent_log = SentLog(settings.path(settings.engine.journal) / "sent") if settings.engine.journal else None
    engine = Engine(
        ledger=ledger,
        audience=audience,
        channels=channels,
        policies={name: policy_of(settings, name) for name in channels},
        newsletters=settings.newsletters,
        pacer=_pacer(settings),
        settings=settings.engine,
        base_url=settings.web.base_url,
        journals=Journals(settings.path(settings.engine.journal)) if settings.engine.journal else None,
        sent_log=sent_log,
        host_pictures=_host_pictures(settings),
        wake=wake,
        facts=lambda newsletter, post, day: facts_of(settings, newsletter, post, day),
        publish=site.publish,
        page_of=site.page_of,
        worker=f"{socket.gethostname()}:{os.getpid()}",
    )
    events = Events(database, ledger, audience, alerts.tell)
    scheduler = Scheduler(
        engine,
        alerts,
        folder=lambda newsletter: settings.path(newsletter.posts),
        check=lambda: wrong(settings, database),
        forget=lambda: forget(settings.retention, ledger, audience, notices, outbox, webhooks, sent_log),
    )
    return Distributor(
        settings=settings,
        database=database,
        ledger=ledger,
        audience=audience,
        notices=notices,
        channels=channels,
        engine=engine,
        alerts=alerts,
        scheduler=scheduler,
        site=site,
        reception=Reception(
            audience=audience,
            newsletters=settings.newsletters,
            settings=settings.signup,
            templates=template_environment(settings.root),
        ),
        caller=Caller(webhooks=webhooks),
        access=Access(database),
        post_room=PostRoom(engine=engine, outbox=outbox, templates=template_environment(settings.root)),
        events=events,
        collect_bounces=bounce_collector(settings, events),
    )


def listener_of(distributor: Distributor) -> "Listener":
    """Does what readers say to the Telegram bot, and answers at the pace of the channel."""
    from distributor.bot import Bot, Listener, Speaker  # noqa: PLC0415 - 0.3 s, python-telegram-bot, that few commands need

    settings = distributor.settings
    bot = Bot(
        settings=settings.bot,
        reception=distributor.reception,
        engine=distributor.engine,
        tell=distributor.alerts.tell,
    )
    speaker = Speaker(settings, distributor.engine.pacer)
    return Listener(bot=bot, speaker=speaker, username=settings.bot.username)


def poller_of(distributor: Distributor) -> "Poller":
    """Asks Telegram for what readers say."""
    from distributor.bot import Poller  # noqa: PLC0415 - as above

    return Poller(distributor.settings, listener_of(distributor), distributor.alerts.tell)


def bounce_collector(settings: Settings, events: Events) -> Callable[[], object] | None:
    """A look into the mailbox of `[events.bounces]`, when there is one."""
    if not settings.events.bounces.host:
        return None

    def look() -> object:
        from distributor.bounces import Mailbox, collect  # noqa: PLC0415 - only whoever looks needs it

        addresses = bounce_addresses(settings)
        assert addresses is not None  # a mailbox has an address: the settings see to it
        return collect(Mailbox(settings.events.bounces), addresses, events.record)

    return look


def tune_interpreter() -> None:
    """For a process that is built and will send: what is there now stays for good.

    Looking through all of it for garbage holds every thread up for 80 ms, measured with all libraries loaded.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE)
    sys.setswitchinterval(SWITCH)


def database_url(settings: Settings) -> str:
    """The database's URL; a relative SQLite path is meant from the project's folder."""
    url = make_url(settings.database.url.get_secret_value())
    if url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:":
        url = url.set(database=str(settings.path(url.database)))
    return url.render_as_string(hide_password=False)


def prepare(distributor: Distributor) -> None:
    """Makes sure the tables are there: the embedded database is brought up to date, a server's is only looked at."""
    if distributor.settings.database.embedded:
        distributor.database.upgrade()
        return
    has, brings = distributor.database.revision()
    if has is None:
        raise ServiceDown(
            f"the database {distributor.database.name} has no tables yet: run `distributor db upgrade`"
        )
    if has != brings and not distributor.database.is_ahead():
        raise ServiceDown(
            f"the database {distributor.database.name} is at revision {has}, this program brings {brings}: "
            "run `distributor db upgrade`"
        )


def policy_of(settings: Settings, channel: str) -> Policy:
    """A built-in channel's table in the settings; the defaults for a channel of another package."""
    table = getattr(settings, channel, None)
    if table is None:
        return Policy()
    return Policy(retry=table.retry, on_unconfirmed=table.on_unconfirmed)


def facts_of(settings: Settings, newsletter: Newsletter, post: Post, day: date) -> Facts:
    """What the checks of a post know besides it."""
    return Facts(
        recent=recent_posts(settings.path(newsletter.posts), post, newsletter, day),
        mail_hosts=[relay.host for relay in settings.email.all_relays if "email" in newsletter.channels],
    )


def findings(settings: Settings, database: Database) -> Iterator["Finding"]:
    """The doctor's findings."""
    from distributor.doctor import examine  # noqa: PLC0415 - DNS and more: 0.15 s that few commands need

    return examine(settings, probe_database=database.version, now=lambda: datetime.now(UTC))


def wrong(settings: Settings, database: Database) -> Sequence[str]:
    """What would make a send fail, one line each."""
    from distributor.doctor import Level  # noqa: PLC0415 - as above

    return [
        f"{finding.check}: {finding.text}" + (f" ({finding.fix})" if finding.fix else "")
        for finding in findings(settings, database)
        if finding.level is Level.FAIL
    ]


def forget(
    retention: Retention,
    ledger: Ledger,
    audience: Audience,
    notices: Notices,
    outbox: Outbox,
    webhooks: Webhooks,
    sent_log: SentLog | None,
) -> None:
    """Drops what is older than each table, and this host's sent log, may keep."""
    ledger.forget(
        deliveries_after=retention.deliveries, attempts_after=retention.attempts, ticks_after=retention.ticks
    )
    audience.forget_events(retention.events)
    audience.forget_pending()
    audience.forget_received(RECEIVED)
    notices.forget(retention.notices)
    outbox.forget(retention.letters)
    webhooks.forget(retention.webhooks)
    if sent_log:
        sent_log.forget(datetime.now(UTC) - retention.deliveries)


@contextmanager
def sole_sender(settings: Settings) -> Iterator[bool]:
    """Whether this process may drain: with SQLite one process does (True inside), with PostgreSQL everybody may."""
    if not settings.database.embedded:
        yield True
        return
    path = Path(make_url(database_url(settings)).database or "distributor").with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def _host_pictures(settings: Settings) -> HostPictures:
    """What becomes of a post's pictures. Raises ConfigError when their store cannot be used."""
    if settings.pictures.rehost == "off":
        return leave_pictures
    from distributor.pictures import hosting_of  # noqa: PLC0415 - 0.1 s that only hosted pictures need

    return hosting_of(settings).host


def _pacer(settings: Settings) -> Pacer:
    if not settings.broker.configured:
        return MemoryPacer()
    from distributor.pacing_redis import RedisPacer  # noqa: PLC0415 - 0.2 s that only a broker needs
    from distributor.redis_link import open_redis  # noqa: PLC0415 - likewise

    redis = open_redis(settings.broker.url.get_secret_value())
    return RedisPacer(redis, workers=settings.engine.processes)
