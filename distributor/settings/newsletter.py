"""The tables of `newsletters/<slug>.toml`."""

import hashlib
import re
from datetime import date, time, timedelta
from pathlib import Path
from typing import Annotated, Literal, Protocol, TypeVar
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from distributor.model import AiUse
from distributor.settings.fields import (
    WEEKDAYS,
    Duration,
    FilterText,
    Frozen,
    LocalTime,
    MailAddress,
    Name,
    OneLine,
    TextColour,
    Weekday,
    Zone,
    font_list,
    known_pattern,
    mail_address,
    picture_address,
    twice,
)


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
    filter: FilterText = Field("", description="only those subscribers, besides audience.filter")
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
    if repeated := twice([place.name for place in places]):
        raise ValueError(f"a name stands there twice: {repeated}; each destination needs one of its own")
    return places


def chats_of_their_own(places: tuple[TelegramDestination, ...]) -> tuple[TelegramDestination, ...]:
    """Raises ValueError: a chat (or topic) would get every issue twice, or a part of the destinations none."""
    if repeated := twice([place.place for place in places]):
        raise ValueError(f"a chat stands there twice: {repeated}; a chat or topic is one destination")
    return places


class TelegramChannelSettings(Frozen):
    """`[channels.telegram]` of a newsletter."""

    subscribers: bool = True
    filter: FilterText = Field("", description="only those subscribers, besides audience.filter")
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


class AudienceSettings(Frozen):
    """`[audience]`: who gets it, and when to stop and ask instead of sending."""

    filter: FilterText = Field("", description="only those subscribers, on every channel (docs/segments.md)")
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
    public: bool = Field(True, description="whether anybody may sign up for it on the public page")
    list_id: Annotated[str, Field(pattern=r"^([A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+)?$")] = ""
    sender: Sender
    theme: Theme = Theme()
    schedule: Schedule = Schedule()
    audience: AudienceSettings = AudienceSettings()
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

    def filters(self, channel: str) -> tuple[str, ...]:
        """What all holds for the subscribers of a channel who get it."""
        own = getattr(getattr(self.channel_settings, channel, None), "filter", "")
        return tuple(text for text in (self.audience.filter, own) if text)

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
