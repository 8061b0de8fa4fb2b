"""`config/*.toml` and the environment, read once into one frozen `Settings`. Every mistake is reported, together.

Files: `distributor.toml` for the system, `newsletters/<slug>.toml` for each newsletter. Secrets never stand in a file:
they come from the environment, as `NAME` or, for a mounted secret, `NAME_FILE`. Paths are relative to the project's
folder (the one that holds `config/`).
"""

import hashlib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from email_validator import EmailNotValidError, validate_email
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from distributor.colours import HEX, PAPER, READABLE, contrast
from distributor.errors import ConfigError
from distributor.model import AiUse

PREFIX = "DISTRIBUTOR_"
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

ModelT = TypeVar("ModelT", bound=BaseModel)

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(value: object) -> object:
    """ "90s", "15m", "2h", "30d" → timedelta; anything else is left for pydantic to refuse."""
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"(\d+)\s*([smhd])", value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError('expected a duration such as "90s", "15m", "2h" or "30d"')
    return timedelta(seconds=int(match[1]) * UNITS[match[2]])


def parse_local_time(value: object) -> object:
    """ "07:30" → time; TOML's own local time is taken as it is."""
    if isinstance(value, time):
        return value
    if isinstance(value, str) and re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value):
        return time.fromisoformat(value)
    raise ValueError('expected a time of day such as "07:30"')


def known_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError('expected an IANA time zone such as "Asia/Shanghai"')
    return name


def mail_address(value: str) -> str:
    try:
        return validate_email(value, check_deliverability=False, allow_smtputf8=False).normalized
    except EmailNotValidError as error:
        raise ValueError(f"expected an e-mail address: {error}") from None


def one_line(value: str) -> str:
    if re.search(r"[\x00-\x1f\x7f]", value):
        raise ValueError("expected one line without control characters")
    return value


def http_url(value: str) -> str:
    if not re.match(r"https?://[^\s/]+", value):
        raise ValueError("expected a URL that begins with https:// or http://")
    return value.rstrip("/")


def known_pattern(value: str) -> str:
    """A URL with {slug}, {date}, {year}, {month}, {day} in it, or nothing."""
    parts = dict.fromkeys(("slug", "date", "year", "month", "day"), "")
    try:
        value.format(**parts)
    except (LookupError, ValueError, AttributeError):
        known = ", ".join(f"{{{name}}}" for name in parts)
        raise ValueError(f"expected a URL in which nothing but {known} stands in braces") from None
    if value:
        http_url(value)
    return value


def domain_name(value: str) -> str:
    """Domains are written in any case, and compared in lower case."""
    return value.strip().lower()


def text_colour(value: str) -> str:
    """A colour that can be read on a light sheet, and on the tint behind tables and numbers."""
    colour = value.strip().lower()
    if not HEX.fullmatch(colour):
        raise ValueError('expected a colour such as "#b3261e"')
    if (ratio := contrast(colour, PAPER)) < READABLE:
        raise ValueError(f"too pale to read: contrast {ratio:.1f}, at least {READABLE} is needed")
    return colour


def picture_address(value: str) -> str:
    if value and not re.match(r"https://[^\s/]+/\S+$", value):
        raise ValueError("expected the picture's full https:// address")
    return value


def font_list(value: str) -> str:
    """Nothing that could end a style's declaration."""
    if not re.fullmatch(r"[\w \-,\"]+", value):
        raise ValueError("expected names of fonts, separated by commas")
    return value


Domain = Annotated[str, AfterValidator(domain_name), Field(min_length=1)]
Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
LocalTime = Annotated[time, BeforeValidator(parse_local_time)]
Zone = Annotated[str, AfterValidator(known_zone)]
MailAddress = Annotated[str, AfterValidator(mail_address)]
OneLine = Annotated[str, AfterValidator(one_line), Field(min_length=1)]
Url = Annotated[str, AfterValidator(http_url)]
TextColour = Annotated[str, AfterValidator(text_colour)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class Frozen(BaseModel):
    """A table of the configuration: unknown keys are mistakes, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Database(Frozen):
    """`[database]`. The URL is taken from DISTRIBUTOR_DATABASE_URL when set (it may hold a password)."""

    url: SecretStr = SecretStr("sqlite:///var/distributor.sqlite3")

    @property
    def embedded(self) -> bool:
        return self.url.get_secret_value().startswith("sqlite")


class Broker(Frozen):
    """`[broker]`. Empty: no broker, the same engine runs in process. DISTRIBUTOR_BROKER_URL overrides it."""

    url: SecretStr = SecretStr("")

    @property
    def configured(self) -> bool:
        return bool(self.url.get_secret_value())


class EngineSettings(Frozen):
    """`[engine]`."""

    chunk: int = Field(500, ge=1, le=10_000, description="deliveries a worker leases at once")
    slice: int = Field(100, ge=1, le=500, description="deliveries whose intent is committed together")
    lanes: int = Field(4, ge=1, le=256, description="connections a worker process opens per channel")
    lease: Duration = timedelta(seconds=60)
    sweep: Duration = timedelta(seconds=15)
    processes: int = Field(
        2, ge=1, le=1000, description="processes that send: each one's share without Redis"
    )
    journal: str = Field("var/journal", description="folder the workers of a host share; empty: no journals")


class Smtp(Frozen):
    """`[email.smtp]`. The password comes from DISTRIBUTOR_SMTP_PASSWORD."""

    host: OneLine = "127.0.0.1"
    port: int = Field(2525, ge=1, le=65535)
    security: Literal["none", "starttls", "tls"] = "none"
    username: str = ""
    password: SecretStr = SecretStr("")
    timeout: Duration = timedelta(seconds=60)
    helo: str = ""


class MailRelay(Smtp):
    """`[[email.relays]]`: one of several mail relays. Its password comes from DISTRIBUTOR_RELAY_<NAME>_PASSWORD."""

    name: Name
    weight: int = Field(1, ge=1, le=1000, description="its share of what several relays may carry")
    rate: float = Field(0, ge=0, description="messages a second through it over all workers; 0: no limit")
    daily_cap: int = Field(0, ge=0, description="deliveries a day (UTC); 0: no cap")
    domains: tuple[Domain, ...] = Field((), description="recipient domains that it alone carries")


#: Keys that must not stand in a file.
SECRET_KEYS = frozenset({"password", "token", "webhook_url", "dead_man_url", "access_key", "secret_key"})
#: What the relay of `[email.smtp]` is called.
ONLY_RELAY = "smtp"


class DomainGroup(Frozen):
    """`[[email.domains]]`: recipient domains of one provider, which share a limit."""

    name: Name
    domains: tuple[Domain, ...] = Field(min_length=1)
    rate: float = Field(
        0, ge=0, description="messages a second over all workers; 0: none until it slows us down"
    )


#: Providers that slow a sender down by their own count: each has chunks of its own, so that one never holds the others.
DOMAIN_GROUPS = (
    DomainGroup(name="qq", domains=("qq.com", "vip.qq.com", "foxmail.com")),
    DomainGroup(name="netease", domains=("163.com", "126.com", "yeah.net", "188.com", "vip.163.com")),
    DomainGroup(name="gmail", domains=("gmail.com", "googlemail.com")),
    DomainGroup(name="outlook", domains=("outlook.com", "hotmail.com", "live.com", "msn.com")),
)


class Retry(Frozen):
    """A channel's retry policy: full jitter between 0 and `first` × 2ⁿ, never above `longest`."""

    tries: int = Field(6, ge=1, le=50)
    first: Duration = timedelta(seconds=60)
    longest: Duration = timedelta(hours=1)
    max_age: Duration = timedelta(hours=6)


class EmailSettings(Frozen):
    """`[email]`."""

    smtp: Smtp = Smtp()
    relays: tuple[MailRelay, ...] = ()
    domains: tuple[DomainGroup, ...] = DOMAIN_GROUPS
    rate: float = Field(0, ge=0, description="messages a second over all workers; 0: no limit")
    retry: Retry = Retry()
    on_unconfirmed: Literal["hold", "resend"] = "hold"

    @property
    def all_relays(self) -> tuple[MailRelay, ...]:
        """The relays of `[[email.relays]]`; without any, the one of `[email.smtp]`, under the name "smtp"."""
        return self.relays or (MailRelay(name=ONLY_RELAY, **dict(self.smtp)),)

    @model_validator(mode="after")
    def names_are_their_own(self) -> "EmailSettings":
        for what, names in (
            ("email.relays: a name", [relay.name for relay in self.relays]),
            ("email.domains: a name", [group.name for group in self.domains]),
            ("email.domains: a domain", [domain for group in self.domains for domain in group.domains]),
        ):
            if twice := _twice(names):
                raise ValueError(f"{what} stands there twice: {twice}")
        if self.relays and all(relay.domains for relay in self.relays):
            raise ValueError("email.relays: one of them must carry everybody else: leave its `domains` out")
        return self


class TelegramSettings(Frozen):
    """`[telegram]`. The bot's token comes from DISTRIBUTOR_TELEGRAM_TOKEN."""

    token: SecretStr = SecretStr("")
    api: Url = "https://api.telegram.org"
    proxy: str = ""
    rate: float = Field(30, gt=0, le=1000, description="messages a second, evenly; Telegram allows about 30")
    per_chat_minute: int = Field(20, ge=1, description="messages a minute into one group or channel")
    read_timeout: Duration = timedelta(seconds=30)
    retry: Retry = Retry(first=timedelta(seconds=10))
    on_unconfirmed: Literal["hold", "resend"] = "hold"


class WecomSettings(Frozen):
    """`[wecom]`. Each robot's key comes from DISTRIBUTOR_WECOM_<NAME>_KEY."""

    api: Url = "https://qyapi.weixin.qq.com"
    per_robot_minute: int = Field(20, ge=1, description="messages a minute a robot accepts")
    timeout: Duration = timedelta(seconds=20)
    retry: Retry = Retry(first=timedelta(seconds=60))
    on_unconfirmed: Literal["hold", "resend"] = "hold"


class WechatSettings(Frozen):
    """`[wechat]`. Each account's id and secret come from DISTRIBUTOR_WECHAT_<NAME>_APPID and …_SECRET."""

    api: Url = "https://api.weixin.qq.com"
    timeout: Duration = timedelta(seconds=30)
    publish_patience: Duration = Field(
        timedelta(seconds=10),
        description="how long a publication's result is waited for; a worker that is told to stop waits as long",
    )
    retry: Retry = Retry(first=timedelta(seconds=60))
    on_unconfirmed: Literal["hold", "resend"] = "hold"


class WechatAccount(Frozen):
    """What a WeChat Official Account's login is made of, from the environment."""

    appid: str = ""
    secret: SecretStr = SecretStr("")

    @property
    def complete(self) -> bool:
        return bool(self.appid and self.secret.get_secret_value())


class Web(Frozen):
    """`[web]`: what the mail's links point to."""

    base_url: Url = "http://127.0.0.1:8025"
    host: str = "127.0.0.1"
    port: int = Field(8025, ge=1, le=65535)


class S3Settings(Frozen):
    """`[pictures.s3]`: a store that speaks S3. Its keys come from DISTRIBUTOR_S3_ACCESS_KEY and DISTRIBUTOR_S3_SECRET_KEY.

    Without keys, those of the environment that boto3 knows (a role of the machine) are used.
    """

    endpoint: str = Field("", description="empty: Amazon's own")
    region: str = ""
    bucket: str = ""
    prefix: str = Field("", description="folder within the bucket, such as pictures/")
    addressing: Literal["auto", "path", "virtual"] = Field(
        "auto", description="where the bucket's name stands: in the path, or before the host"
    )
    access_key: SecretStr = SecretStr("")
    secret_key: SecretStr = SecretStr("")


class PictureSettings(Frozen):
    """`[pictures]`: whether the pictures of posts are fetched once and shown from a place of the operator's."""

    rehost: Literal["off", "folder", "s3"] = "off"
    on_error: Literal["keep", "refuse"] = Field(
        "keep", description="a picture that cannot be had: keep its own address and warn, or refuse the post"
    )
    base_url: str = Field("", description="where readers reach the store; empty: [web] base_url + /pictures")
    folder: str = "var/pictures"
    index: str = Field("var/picture-index", description="folder with what was fetched when")
    most_width: int = Field(1200, ge=320, le=4000, description="pixels across, of a hosted picture")
    most_bytes: int = Field(1_000_000, ge=50_000, le=10_000_000, description="of a hosted picture")
    fetch_bytes: int = Field(10_000_000, ge=100_000, le=100_000_000, description="of a picture as fetched")
    fetch_time: Duration = timedelta(seconds=10)
    post_time: Duration = Field(timedelta(seconds=60), description="for all pictures of a post together")
    fresh: Duration = Field(
        timedelta(hours=12), description="then an address is fetched again: another picture may stand there"
    )
    allow_private: bool = Field(False, description="fetch from private networks as well (SSRF!)")
    s3: S3Settings = S3Settings()

    @model_validator(mode="after")
    def has_a_place(self) -> "PictureSettings":
        if self.base_url:
            http_url(self.base_url)
        if self.rehost == "s3" and not (self.s3.bucket and self.base_url):
            raise ValueError('rehost = "s3" needs `base_url` and `s3.bucket`')
        return self


class SiteSettings(Frozen):
    """`[site]`: the home of the full text, a page for each post that went out, an index and a feed."""

    serve: bool = Field(True, description="whether the web app answers /archive/")
    folder: str = Field("", description="folder that the pages are written into as well; empty: none")
    base_url: Url | Literal[""] = Field("", description="where readers reach it; empty: web.base_url/archive")
    index: bool = Field(True, description="whether search engines may list the pages")


class AlertRoute(Frozen):
    """`[[operator.routes]]`: a way to reach the operator; two independent ones are wanted.

    email → `to`; telegram → `to` (a chat id); wecom → `robot` (a name with a key); webhook → URL from
    DISTRIBUTOR_ALERT_WEBHOOK_URL.
    """

    kind: Literal["email", "telegram", "wecom", "webhook"]
    to: str = ""
    robot: str = ""

    @model_validator(mode="after")
    def has_an_address(self) -> "AlertRoute":
        if self.kind in {"email", "telegram"} and not self.to:
            raise ValueError(f'a route of kind "{self.kind}" needs `to`')
        if self.kind == "wecom" and not self.robot:
            raise ValueError('a route of kind "wecom" needs `robot`')
        if self.kind == "email":
            mail_address(self.to)
        return self


class Operator(Frozen):
    """`[operator]`: whom to tell, and how."""

    routes: tuple[AlertRoute, ...] = ()
    sender: str = ""
    webhook_url: SecretStr = SecretStr("")
    dead_man_url: SecretStr = SecretStr("")


class Retention(Frozen):
    """`[retention]`: how long each table keeps what it holds."""

    deliveries: Duration = timedelta(days=180)
    attempts: Duration = timedelta(days=180)
    events: Duration = timedelta(days=365)
    ticks: Duration = timedelta(days=90)
    notices: Duration = timedelta(days=90)


class Schedule(Frozen):
    """`[schedule]` of a newsletter, in the newsletter's time zone."""

    time: LocalTime = time(7, 30)
    days: tuple[Weekday, ...] = WEEKDAYS
    skip: tuple[date, ...] = ()
    extra: tuple[date, ...] = ()
    grace: Duration = timedelta(hours=2)
    wait_for_post: Duration = timedelta(hours=1)
    jitter: Duration = timedelta(0)
    approval: Literal["auto", "required", "auto-at-deadline"] = "auto"
    approval_deadline: Duration = timedelta(minutes=30)
    expires: Duration = timedelta(hours=12)

    def sends_on(self, day: date) -> bool:
        """Whether an issue goes out on this local date: `skip` wins over `extra`, `extra` over `days` (调休)."""
        if day in self.skip:
            return False
        return day in self.extra or WEEKDAYS[day.weekday()] in self.days


class Sender(Frozen):
    """`[sender]` of a newsletter: whom the mail is from, and the address the law asks for."""

    name: OneLine
    address: MailAddress
    reply_to: MailAddress | None = None
    postal_address: str = ""
    contact: str = ""


class TelegramDestination(Frozen):
    """`[[channels.telegram.destinations]]`: a channel, group or topic the bot may write into."""

    name: Name
    chat: Annotated[str, BeforeValidator(str), Field(pattern=r"^(@[A-Za-z0-9_]{4,32}|-?\d{1,20})$")]
    thread: int | None = None
    format: Literal["classic", "rich"] = Field(
        "classic",
        description="rich: one message of Bot API 10.1, blank in some clients; else, and in need, parts",
    )

    @property
    def place(self) -> str:
        """The chat, or chat/topic, in one spelling: Telegram reads names in any case."""
        return f"{self.chat}/{self.thread}".lower() if self.thread else self.chat.lower()


class WecomDestination(Frozen):
    """`[[channels.wecom.destinations]]`: a group robot, and how it speaks."""

    name: Name
    mode: Literal["markdown_v2", "markdown", "news", "text"] = "markdown_v2"
    mention_all: bool = Field(False, description="@all, in mode text alone: everybody's telephone rings")
    overflow: Literal["fit", "split"] = Field(
        "fit", description="too long for one message: shorten, or parts"
    )

    @model_validator(mode="after")
    def asks_for_what_its_mode_has(self) -> "WecomDestination":
        if self.mention_all and self.mode != "text":
            raise ValueError(
                f'`mention_all` needs mode = "text": WeCom\'s {self.mode} mentions nobody by @all'
            )
        if self.overflow == "split" and self.mode == "news":
            raise ValueError('`overflow = "split"` goes with texts: a card is one message')
        return self


class WechatDestination(Frozen):
    """`[[channels.wechat.destinations]]`: a WeChat Official Account (公众号)."""

    name: Name
    mode: Literal["draft", "publish", "mass"] = Field(
        "draft",
        description="draft: an editor publishes; publish: on the account's page; mass: also sent to all followers",
    )
    author: str = Field("", max_length=16, description="empty: the sender's name")
    default_cover: str = Field(
        "", description="a file of the project, or an https address, for posts without a cover"
    )


class EmailChannelSettings(Frozen):
    """`[channels.email]` of a newsletter."""

    subscribers: bool = True
    subject_prefix: str = Field("", description="in front of every subject: 广告 where the law asks for it")
    over_size: Literal["teaser", "refuse", "send"] = Field(
        "teaser", description="what to do with a mail that Gmail would clip"
    )


class Theme(Frozen):
    """`[theme]` of a newsletter: how its mails and pages look."""

    accent: TextColour = "#b3261e"
    link: TextColour = "#0b57d0"
    logo: Annotated[str, AfterValidator(picture_address)] = ""
    logo_width: int = Field(120, ge=16, le=536, description="pixels")
    font: Annotated[str, AfterValidator(font_list)] = (
        '-apple-system, "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", Arial, sans-serif'
    )


class _Place(Protocol):
    @property
    def name(self) -> str: ...


PlaceT = TypeVar("PlaceT", bound=_Place)


def names_of_their_own(places: tuple[PlaceT, ...]) -> tuple[PlaceT, ...]:
    """A name says which place a message is for. Raises ValueError."""
    if twice := _twice([place.name for place in places]):
        raise ValueError(f"a name stands there twice: {twice}; each destination needs one of its own")
    return places


def chats_of_their_own(places: tuple[TelegramDestination, ...]) -> tuple[TelegramDestination, ...]:
    """Raises ValueError: a chat (or topic) would get every issue twice, or a part of the destinations none."""
    if twice := _twice([place.place for place in places]):
        raise ValueError(f"a chat stands there twice: {twice}; a chat or topic is one destination")
    return places


def _twice(values: Sequence[str]) -> str:
    return ", ".join(sorted({value for value in values if values.count(value) > 1}))


class TelegramChannelSettings(Frozen):
    """`[channels.telegram]` of a newsletter."""

    subscribers: bool = True
    destinations: Annotated[
        tuple[TelegramDestination, ...],
        AfterValidator(names_of_their_own),
        AfterValidator(chats_of_their_own),
    ] = ()


class WecomChannelSettings(Frozen):
    """`[channels.wecom]` of a newsletter."""

    destinations: Annotated[tuple[WecomDestination, ...], AfterValidator(names_of_their_own)] = ()


class WechatChannelSettings(Frozen):
    """`[channels.wechat]` of a newsletter."""

    destinations: Annotated[tuple[WechatDestination, ...], AfterValidator(names_of_their_own)] = ()


class HandoffDestination(Frozen):
    """`[[channels.handoff.destinations]]`: a place that a person posts into, and how that person gets the pack.

    `to`: an e-mail address, a Telegram chat id, or a robot's name (with a key), as `via` says. A pack goes out when the
    issue opens; for one that comes earlier, give the places a newsletter of their own with an earlier schedule.
    """

    name: Name
    title: Annotated[OneLine, Field(max_length=64)]
    via: Literal["email", "telegram", "wecom"] = "email"
    to: OneLine

    @model_validator(mode="after")
    def leads_to_a_person(self) -> "HandoffDestination":
        if self.via == "email":
            mail_address(self.to)
        if self.via == "telegram":
            TelegramDestination(name=self.name, chat=self.to)
        if self.via == "wecom":
            WecomDestination(name=self.to)
        return self


class HandoffChannelSettings(Frozen):
    """`[channels.handoff]` of a newsletter."""

    destinations: Annotated[tuple[HandoffDestination, ...], AfterValidator(names_of_their_own)] = ()


#: The channels with a table of their own, in the order they are sent.
BUILT_IN = ("email", "telegram", "wecom", "wechat", "handoff")


class Channels(BaseModel):
    """`[channels.*]`: a table for each channel the newsletter uses; another package's channel keeps its own keys."""

    model_config = ConfigDict(frozen=True, extra="allow")

    email: EmailChannelSettings | None = None
    telegram: TelegramChannelSettings | None = None
    wecom: WecomChannelSettings | None = None
    handoff: HandoffChannelSettings | None = None
    wechat: WechatChannelSettings | None = None


class Canary(Frozen):
    """`[canary]`: a share of every issue goes first, and the rest only if that went well."""

    share: float = Field(0, ge=0, le=0.5, description="of the recipients of a channel; 0: no canary")
    largest_failed: float = Field(0.05, ge=0, le=1, description="share of it that may fail")
    largest_deferred: float = Field(0.30, ge=0, le=1, description="share of it that may have to wait")
    patience: Duration = timedelta(minutes=2)


class AudienceGuard(Frozen):
    """`[audience]`: when to stop and ask instead of sending."""

    smallest: int = Field(1, ge=0)
    largest_drop: float = Field(
        0.30, ge=0, le=1, description="share the audience may shrink since the last issue"
    )


class PreflightSettings(Frozen):
    """`[preflight]`: checks of `distributor check`, by name, that this newsletter does without."""

    ignore: tuple[OneLine, ...] = ()


class Newsletter(Frozen):
    """`newsletters/<slug>.toml`."""

    slug: Name
    title: OneLine
    language: Literal["zh-CN", "en"] = "zh-CN"
    timezone: Zone = "Asia/Shanghai"
    posts: Path = Path("posts")
    url_pattern: Annotated[str, AfterValidator(known_pattern)] = ""
    ai: AiUse = Field(
        AiUse.NONE, description="how much of the posts a machine writes; a post may say otherwise"
    )
    list_id: Annotated[str, Field(pattern=r"^([A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+)?$")] = ""
    sender: Sender
    theme: Theme = Theme()
    schedule: Schedule = Schedule()
    audience: AudienceGuard = AudienceGuard()
    canary: Canary = Canary()
    preflight: PreflightSettings = PreflightSettings()
    channel_settings: Channels = Field(Channels(), alias="channels")

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels this newsletter uses."""
        tables = self.channel_settings
        known = [name for name in BUILT_IN if getattr(tables, name) is not None]
        return (*known, *(tables.model_extra or {}))

    @property
    def robots(self) -> set[str]:
        """The WeCom robots it needs a key for: those it sends to, and those that hand a pack to a person."""
        tables = self.channel_settings
        groups = tables.wecom.destinations if tables.wecom else ()
        places = tables.handoff.destinations if tables.handoff else ()
        return {group.name for group in groups} | {place.to for place in places if place.via == "wecom"}

    def post_url(self, *, slug: str, day: date | None) -> str | None:
        """The post's address on the web by `url_pattern` ({slug}, {date}, {year}, {month}, {day}); None without one."""
        if not self.url_pattern or (
            day is None and re.search(r"\{(date|year|month|day)\}", self.url_pattern)
        ):
            return None
        parts = (
            {}
            if day is None
            else {"date": day, "year": f"{day:%Y}", "month": f"{day:%m}", "day": f"{day:%d}"}
        )
        return self.url_pattern.format(slug=slug, page=page_name(slug), **parts)


#: Files beside the pages, which no page may be called after.
SITE_FILES = frozenset({"index.html", "feed.xml"})
LONGEST_PAGE_NAME = 160  # bytes of UTF-8; file systems allow 255 for a folder's name


def page_name(slug: str) -> str:
    """A post's folder on the site, and the last step of its address: the slug, when it can be both.

    A slug with other characters, too long, or with a meaning of its own for a file system becomes one with a hash behind
    it, so that no two posts share a page.
    """
    kept = re.sub(r"[^\w.-]+", "-", slug).strip(".-")
    kept = kept.encode()[:LONGEST_PAGE_NAME].decode(errors="ignore")
    if kept == slug and kept not in SITE_FILES:
        return slug
    return f"{kept or 'post'}-{hashlib.sha256(slug.encode()).hexdigest()[:8]}"


class Settings(Frozen):
    """Everything, frozen. `root` is the project's folder."""

    root: Path
    database: Database = Database()
    broker: Broker = Broker()
    engine: EngineSettings = EngineSettings()
    email: EmailSettings = EmailSettings()
    telegram: TelegramSettings = TelegramSettings()
    wecom: WecomSettings = WecomSettings()
    wechat: WechatSettings = WechatSettings()
    web: Web = Web()
    pictures: PictureSettings = PictureSettings()
    site: SiteSettings = SiteSettings()
    operator: Operator = Operator()
    retention: Retention = Retention()
    newsletters: Mapping[str, Newsletter] = Field(default_factory=dict)
    wecom_keys: Mapping[str, SecretStr] = Field(default_factory=dict)
    wechat_accounts: Mapping[str, WechatAccount] = Field(default_factory=dict)

    def path(self, relative: Path | str) -> Path:
        return self.root / relative

    @property
    def pictures_url(self) -> str:
        """Where readers get hosted pictures from; without `pictures.base_url`, from our own web app."""
        return self.pictures.base_url.rstrip("/") or f"{self.web.base_url}/pictures"

    @property
    def site_url(self) -> str:
        """Where readers reach the site."""
        return self.site.base_url or f"{self.web.base_url}/archive"

    @property
    def site_is_reached(self) -> bool:
        """Whether there is a site, and not for this computer alone: a link to such an address must not be mailed."""
        return (self.site.serve or bool(self.site.folder)) and not _is_loopback(self.site_url)

    def page_pattern(self, newsletter: str) -> str:
        """The `url_pattern` of a newsletter whose full text lives on the site; empty when readers do not reach it."""
        if not self.site_is_reached:
            return ""
        return self.site_url.replace("{", "{{").replace("}", "}}") + f"/{newsletter}/{{page}}/"

    def newsletter(self, slug: str | None) -> Newsletter:
        """The newsletter of that name; the only one when none is named. Raises ConfigError otherwise."""
        names = ", ".join(sorted(self.newsletters))
        if slug is None and len(self.newsletters) == 1:
            return next(iter(self.newsletters.values()))
        if slug is None:
            raise ConfigError([f"name a newsletter with --newsletter; there are: {names or 'none'}"])
        if slug not in self.newsletters:
            raise ConfigError(
                [
                    f"no newsletter is called {slug!r} (config/newsletters/{slug}.toml); there are: {names or 'none'}"
                ]
            )
        return self.newsletters[slug]


def load_settings(root: Path, environment: Mapping[str, str] | None = None) -> Settings:
    """Reads `root/config/`. Raises ConfigError with every mistake: file, line, key, what was expected."""
    environment = os.environ if environment is None else environment
    mistakes: list[str] = []
    config = root / "config"
    system = _read_toml(config / "distributor.toml", mistakes) or {}
    _refuse_secrets_in_file(system, config / "distributor.toml", mistakes)
    newsletters: dict[str, Newsletter] = {}
    for path in sorted((config / "newsletters").glob("*.toml")):
        if newsletter := _read_newsletter(path, mistakes):
            if newsletter.slug in newsletters:
                mistakes.append(f"{path}: slug: another newsletter is called {newsletter.slug!r} already")
            newsletters[newsletter.slug] = newsletter
    secrets = _Secrets(environment, mistakes)
    secrets.put_into(system)
    secrets.put_into_relays(system)
    keys = {
        name: SecretStr(key)
        for name in _robots(system, newsletters)
        if (key := secrets.read(wecom_key_name(name)))
    }
    accounts = {name: secrets.read_account(name) for name in wechat_names(newsletters)}
    settings = _validate(
        Settings,
        config / "distributor.toml",
        mistakes,
        {
            **system,
            "root": root,
            "newsletters": newsletters,
            "wecom_keys": keys,
            "wechat_accounts": accounts,
        },
    )
    if mistakes or settings is None:
        raise ConfigError(mistakes)
    _check_together(settings)
    return _with_homes(settings)


def _with_homes(settings: Settings) -> Settings:
    """A newsletter that names no other home of its full text has it on the site, when readers reach that."""
    homes = {
        slug: newsletter
        if newsletter.url_pattern
        else newsletter.model_copy(update={"url_pattern": settings.page_pattern(slug)})
        for slug, newsletter in settings.newsletters.items()
    }
    return settings.model_copy(update={"newsletters": homes})


def _is_loopback(url: str) -> bool:
    """Whether an address is reached from this computer alone."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def packaged(name: str) -> Path:
    """A folder that comes with the package (`templates`, `config`, `posts`); in a checkout, the one beside it."""
    inside = Path(__file__).parent / "defaults" / name
    return inside if inside.is_dir() else Path(__file__).parent.parent / name


def wecom_key_name(robot: str) -> str:
    """The environment variable that holds a robot's key."""
    return f"{PREFIX}WECOM_{robot.upper().replace('-', '_')}_KEY"


def wechat_secret_names(account: str) -> tuple[str, str]:
    """The environment variables that hold an account's AppID and AppSecret."""
    stem = f"{PREFIX}WECHAT_{account.upper().replace('-', '_')}"
    return f"{stem}_APPID", f"{stem}_SECRET"


def wechat_names(newsletters: Mapping[str, Newsletter]) -> list[str]:
    """Every Official Account that a newsletter names."""
    tables = [newsletter.channel_settings.wechat for newsletter in newsletters.values()]
    return sorted({place.name for table in tables if table for place in table.destinations})


def relay_password_name(relay: str) -> str:
    """The environment variable that holds a relay's password."""
    return f"{PREFIX}RELAY_{relay.upper().replace('-', '_')}_PASSWORD"


def _relay_tables(system: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    """The tables of `[[email.relays]]`, as far as they are tables."""
    email = system.get("email")
    relays = email.get("relays") if isinstance(email, dict) else None
    return [relay for relay in relays if isinstance(relay, dict)] if isinstance(relays, list) else []


def _read_newsletter(path: Path, mistakes: list[str]) -> Newsletter | None:
    table = _read_toml(path, mistakes)
    return None if table is None else _validate(Newsletter, path, mistakes, {"slug": path.stem, **table})


def _read_toml(path: Path, mistakes: list[str]) -> dict[str, Any] | None:
    """None, and a mistake, when it cannot be read. A byte order mark, as Windows' editors write it, is no mistake."""
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        mistakes.append(
            f"{path}: not found; run the command in the folder that holds config/, or name it with --project"
        )
    except (OSError, UnicodeDecodeError) as error:
        mistakes.append(f"{path}: cannot be read: {error}")
    except tomllib.TOMLDecodeError as error:
        mistakes.append(f"{path}: not valid TOML: {error}")
    return None


def _validate(kind: type[ModelT], path: Path, mistakes: list[str], table: dict[str, Any]) -> ModelT | None:
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        mistakes.extend(_explain(error, path))
        return None


def _explain(error: ValidationError, path: Path) -> Iterator[str]:
    """One line a mistake: file:line, dotted key, what was expected."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    for detail in error.errors(include_url=False, include_input=False):
        key = ".".join(str(step) for step in detail["loc"])
        line = find_line(lines, [str(step) for step in detail["loc"]])
        where = f"{path}:{line}" if line else str(path)
        if detail["type"] == "extra_forbidden":
            yield f"{where}: {key}: unknown key (a typing mistake?)"
        elif detail["type"] == "missing":
            yield f"{where}: {key}: missing"
        else:
            yield f"{where}: {key or 'file'}: {detail['msg'].removeprefix('Value error, ')}"


def find_line(lines: Sequence[str], loc: Sequence[str]) -> int | None:
    """The line (from 1) of a dotted key, by table headers and keys; tomllib keeps no positions."""
    wanted = [step for step in loc if not step.isdigit()]
    #: how many `[[…]]` of the array come before the one that is meant
    before = next((int(step) for step in loc if step.isdigit()), 0)
    table: list[str] = []
    best = None
    for number, text in enumerate(lines, 1):
        if header := re.match(r"\s*(\[+)\s*([^\]]+?)\s*\]+", text):
            table = header[2].split(".")
            if table != wanted[: len(table)]:
                continue
            if header[1] == "[[" and before:
                before, table = before - 1, ["another entry of the array"]
                continue
            best = number
        elif (pair := re.match(r"\s*([\w.-]+)\s*=", text)) and _names([*table, *pair[1].split(".")], wanted):
            return number
    return best


def _names(key: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether a key is the wanted one, or a table in one line that holds it."""
    return list(key) == list(wanted[: len(key)])


class _Secrets:
    """Reads `NAME` or `NAME_FILE` from the environment."""

    #: environment name (without prefix) → where the value goes
    PLACES: Mapping[str, tuple[str, ...]] = {
        "DATABASE_URL": ("database", "url"),
        "BROKER_URL": ("broker", "url"),
        "SMTP_PASSWORD": ("email", "smtp", "password"),
        "TELEGRAM_TOKEN": ("telegram", "token"),
        "ALERT_WEBHOOK_URL": ("operator", "webhook_url"),
        "DEAD_MAN_URL": ("operator", "dead_man_url"),
        "S3_ACCESS_KEY": ("pictures", "s3", "access_key"),
        "S3_SECRET_KEY": ("pictures", "s3", "secret_key"),
        # Not secrets, but what differs between a laptop and a container:
        "SMTP_HOST": ("email", "smtp", "host"),
        "SMTP_PORT": ("email", "smtp", "port"),
        "TELEGRAM_API": ("telegram", "api"),
        "WECOM_API": ("wecom", "api"),
        "WECHAT_API": ("wechat", "api"),
        "WEB_BASE_URL": ("web", "base_url"),
        "WEB_HOST": ("web", "host"),
        "WEB_PORT": ("web", "port"),
    }

    def __init__(self, environment: Mapping[str, str], mistakes: list[str]) -> None:
        self.environment, self.mistakes = environment, mistakes

    def put_into(self, table: dict[str, Any]) -> None:
        for name, place in self.PLACES.items():
            value = self.read(PREFIX + name)
            if value is None:
                continue
            target = table
            for step in place[:-1]:
                target = target.setdefault(step, {}) if isinstance(target, dict) else None
            if isinstance(
                target, dict
            ):  # else the file has something else there, and that is told as a mistake
                target[place[-1]] = value

    def put_into_relays(self, table: Mapping[str, Any]) -> None:
        for relay in _relay_tables(table):
            if password := self.read(relay_password_name(str(relay.get("name", "")))):
                relay["password"] = password

    def read_account(self, name: str) -> WechatAccount:
        appid, secret = map(self.read, wechat_secret_names(name))
        return WechatAccount(appid=appid or "", secret=SecretStr(secret or ""))

    def read(self, name: str) -> str | None:
        path = self.environment.get(f"{name}_FILE")
        if not path:
            return self.environment.get(name) or None
        try:
            return Path(path).read_text("utf-8").strip() or None
        except OSError as error:
            self.mistakes.append(f"environment {name}_FILE: cannot read {path}: {error.strerror}")
        except UnicodeDecodeError:
            self.mistakes.append(f"environment {name}_FILE: {path} holds no UTF-8 text")
        return None


def _refuse_secrets_in_file(system: Mapping[str, Any], path: Path, mistakes: list[str]) -> None:
    lines = path.read_text("utf-8-sig").splitlines() if system else []
    for name, place in _Secrets.PLACES.items():
        if place[-1] not in SECRET_KEYS:
            continue
        table: Any = system
        for step in place[:-1]:
            table = table.get(step, {}) if isinstance(table, dict) else {}
        if isinstance(table, dict) and place[-1] in table:
            line = find_line(lines, place)
            mistakes.append(
                f"{path}:{line}: {'.'.join(place)}: a secret must not stand in a file; set {PREFIX}{name} (or {PREFIX}{name}_FILE)"
            )

    for number, relay in enumerate(_relay_tables(system)):
        if "password" in relay:
            line = find_line(lines, ("email", "relays", str(number), "password"))
            mistakes.append(
                f"{path}:{line}: email.relays.password: a secret must not stand in a file; set {relay_password_name(str(relay.get('name', '')))}"
            )


def _robots(system: Mapping[str, Any], newsletters: Mapping[str, Newsletter]) -> set[str]:
    """Every robot named anywhere: as a destination or as a route to the operator."""
    operator = system.get("operator")
    routes = operator.get("routes") if isinstance(operator, dict) else None
    names = {
        str(route.get("robot"))
        for route in (routes if isinstance(routes, list) else ())
        if isinstance(route, dict) and route.get("robot")
    }
    return names.union(*(newsletter.robots for newsletter in newsletters.values()))


def _check_together(settings: Settings) -> None:
    """What no single table can know."""
    mistakes = []
    if not settings.newsletters:
        mistakes.append(
            f"{settings.root / 'config/newsletters'}: no newsletter: one .toml file each is expected here"
        )
    if settings.broker.configured and settings.database.embedded:
        mistakes.append(
            "broker.url: workers on a broker need PostgreSQL: set DISTRIBUTOR_DATABASE_URL=postgresql://…, or leave the broker out"
        )
    if mistakes:
        raise ConfigError(mistakes)
