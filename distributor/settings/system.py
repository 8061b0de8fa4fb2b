"""The tables of `distributor.toml`."""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, IPvAnyNetwork, SecretStr, model_validator

from distributor.settings.fields import (
    Domain,
    Duration,
    Frozen,
    Name,
    OneLine,
    Url,
    http_url,
    mail_address,
    twice,
)
from distributor.standard_webhooks import key_of


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
    lanes: int = Field(
        2, ge=1, le=256, description="chunks a worker process has in hand at once, per channel"
    )
    connections: int = Field(2, ge=1, le=64, description="connections of each lane, used in turn")
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
    own_bounces: bool = Field(
        False,
        description="keep the newsletter's sender in the envelope: for relays that take no other (Aliyun, Tencent)",
    )


class MailRelay(Smtp):
    """`[[email.relays]]`: one of several mail relays. Its password comes from DISTRIBUTOR_RELAY_<NAME>_PASSWORD."""

    name: Name
    weight: int = Field(1, ge=1, le=1000, description="its share of what several relays may carry")
    rate: float = Field(0, ge=0, description="messages a second through it over all workers; 0: no limit")
    daily_cap: int = Field(0, ge=0, description="deliveries a day (UTC); 0: no cap")
    domains: tuple[Domain, ...] = Field((), description="recipient domains that it alone carries")


#: Keys that must not stand in a file.
SECRET_KEYS = frozenset(
    {
        "password",
        "token",
        "webhook_url",
        "dead_man_url",
        "access_key",
        "secret_key",
        "secret",
        "key",
        "webhook_secret",
    }
)
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
            if repeated := twice(names):
                raise ValueError(f"{what} stands there twice: {repeated}")
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
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(
        (), description="networks whose word on the client's address is taken; empty: nobody's"
    )
    proxy_header: Literal["X-Forwarded-For", "Forwarded"] = Field(
        "X-Forwarded-For", description="the one header they write; the other may be the client's own"
    )
    most_body: int = Field(1_000_000, ge=1000, le=100_000_000, description="bytes of a request's body")
    receive_time: Duration = Field(
        timedelta(seconds=15), description="for a request's head, and for its body"
    )


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
    letters: Duration = timedelta(days=90)
    webhooks: Duration = timedelta(days=30)


EventName = Literal[
    "subscription.subscribed",
    "subscription.unsubscribed",
    "delivery.sent",
    "delivery.failed",
    "delivery.unconfirmed",
    "delivery.delivered",
    "delivery.deferred",
    "delivery.bounced",
    "delivery.complained",
    "issue.finished",
]
#: What an endpoint gets that does not say: all but the one news a delivery that a large issue has by the million.
DEFAULT_EVENTS: tuple[EventName, ...] = (
    "subscription.subscribed",
    "subscription.unsubscribed",
    "delivery.failed",
    "delivery.unconfirmed",
    "delivery.bounced",
    "delivery.complained",
    "issue.finished",
)


class Endpoint(Frozen):
    """`[[webhooks.endpoints]]`: where our webhooks go, signed by the rules of Standard Webhooks.

    Its secret comes from DISTRIBUTOR_WEBHOOK_<NAME>_SECRET; several, separated by blanks, while one replaces another.
    """

    name: Name
    url: Url
    events: tuple[EventName, ...] = DEFAULT_EVENTS
    newsletters: tuple[Name, ...] = Field((), description="whose news it gets; empty: all")
    secrets: tuple[SecretStr, ...] = ()

    @model_validator(mode="after")
    def secrets_are_whole(self) -> "Endpoint":
        for secret in self.secrets:
            key_of(secret.get_secret_value())
        return self


def endpoints_of_their_own(endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """Raises ValueError."""
    if repeated := twice([endpoint.name for endpoint in endpoints]):
        raise ValueError(f"webhooks.endpoints: a name stands there twice: {repeated}")
    return endpoints


class WebhookSettings(Frozen):
    """`[webhooks]`."""

    endpoints: Annotated[tuple[Endpoint, ...], AfterValidator(endpoints_of_their_own)] = ()
