"""What the preview page shows: the posts of a folder, and one of them on every channel.

The project is read anew whenever one of its files has changed. What cannot be read or rendered is told as a trouble, and
the last good rendering stays.
"""

import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from hashlib import sha256
from importlib.metadata import entry_points
from pathlib import Path
from zoneinfo import ZoneInfo

from jinja2 import TemplateError, TemplateSyntaxError

from distributor.channels import ENTRY_POINTS, Channel
from distributor.channels.wechat.render import DIGEST, TITLE
from distributor.channels.wecom.render import NEWS_TITLE
from distributor.errors import ConfigError, DistributorError, PostError
from distributor.model import Message, Post
from distributor.posts import PostFolder, find_post, load_posts, read_post
from distributor.preview.files import filled, measured
from distributor.preview.watching import Watch, posts_in, project_files
from distributor.rendering import headline, language_of, local_day, utf8_bytes, utf16_units, web_address
from distributor.settings import Newsletter, Settings, load_settings

#: From this share of a limit on, a meter warns.
NEAR = 0.7
#: Boards that are kept, by when they were last asked for: each holds every channel's rendering, pictures and all.
MOST_BOARDS = 16
#: A post's slug is not unique and its path is: the page names a post by the path below the folder.
Key = str
Channels = Mapping[str, "Channel | Exception"]

#: Limits of single texts, which `LIMITS` (of the main text) has no place for: key of the content, unit, limit.
FIELDS: Mapping[tuple[str, str], Sequence[tuple[str, str, int]]] = {
    ("wecom", "news"): (("title", "utf8_bytes", NEWS_TITLE),),
    ("wechat", "article"): (
        ("title", "utf16_units", TITLE),
        ("digest", "utf16_units", DIGEST),
    ),
}
MEASURES: Mapping[str, Callable[[str], int]] = {"utf16_units": utf16_units, "utf8_bytes": utf8_bytes}


@dataclass(frozen=True, kw_only=True)
class Meter:
    """One size against its limit."""

    name: str
    value: int
    limit: int

    @property
    def share(self) -> float:
        return self.value / self.limit

    @property
    def level(self) -> str:
        """fine, near (from NEAR of the limit on), or over."""
        if self.value > self.limit:
            return "over"
        return "near" if self.share >= NEAR else "fine"


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Why something cannot be shown: where (a file from the project's folder, its line and that line's text), and why."""

    reason: str
    file: str = ""
    line: int | None = None
    source: str = ""


class Texts(dict[str, str]):
    """A message's content; a text that it does not have reads as empty."""

    def __missing__(self, _name: str) -> str:
        return ""


@dataclass(frozen=True, kw_only=True)
class View:
    """One message, its placeholders filled with samples, and how close it is to its limits."""

    message: Message
    content: Texts
    meters: Sequence[Meter]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A channel. `views` are the last good ones when there is trouble."""

    channel: str
    used: bool
    views: Sequence[View] = ()
    troubles: Sequence[Trouble] = ()

    @property
    def fullest(self) -> Meter | None:
        """The meter that is closest to its limit."""
        return max(
            (meter for view in self.views for meter in view.meters), key=lambda m: m.share, default=None
        )

    @property
    def hash(self) -> str:
        """Changes with what the panel shows."""
        return sha256("".join(view.message.hash for view in self.views).encode()).hexdigest()[:16]

    def view(self, variant: str) -> View | None:
        return next((view for view in self.views if view.message.variant == variant), None)


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A post in the chooser."""

    key: Key
    title: str
    day: date | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Board:
    """The page's content. Without a newsletter or a post there has never been a good rendering."""

    stamp: str
    key: Key = ""
    newsletter: Newsletter | None = None
    posts: Sequence[Listed] = ()
    post: Post | None = None
    language: str = "en"
    facts: Sequence[tuple[str, str]] = ()
    send_time: str = ""
    panels: Sequence[Panel] = ()
    troubles: Sequence[Trouble] = ()

    def panel(self, channel: str) -> Panel | None:
        return next((panel for panel in self.panels if panel.channel == channel), None)

    def has(self, key: Key) -> bool:
        """Whether a post of that key is there, or is what the board shows."""
        shown = self.post is not None and key == self.key
        return shown or any(key == post.key for post in self.posts)

    @property
    def warnings(self) -> Sequence[tuple[str, Sequence[str]]]:
        """(warning, the channels it came from)."""
        found: dict[str, dict[str, None]] = {}
        for panel in self.panels:
            for view in panel.views if panel.used else ():
                for warning in view.message.warnings:
                    found.setdefault(warning, {})[panel.channel] = None
        return [(warning, list(channels)) for warning, channels in found.items()]


def installed_channels(settings: Settings) -> Channels:
    """Every channel that can be built here, used or not; the reason for one that cannot."""
    found: dict[str, Channel | Exception] = {}
    for point in entry_points(group=ENTRY_POINTS):
        try:
            found[point.name] = point.load()(settings)
        except Exception as error:  # another package's code: whatever it raises, the other channels are shown
            found[point.name] = error
    return found


def named_post(folder: Path, name: str, zone: ZoneInfo) -> Path:
    """The file of the post that a person names; one that is broken will be shown as such. Raises PostError."""
    try:
        path = find_post(folder, name, zone).path
    except PostError as error:
        path = Path(error.path)
        if not path.is_file():
            raise
    return path.resolve()


@dataclass
class Desk:
    """The boards of one newsletter, by post; `opened` is the post that was named when it was started."""

    root: Path
    newsletter: str | None = None
    opened: Path | None = None
    channels: Callable[[Settings], Channels] = installed_channels
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _boards: dict[Key, Board] = field(default_factory=dict)
    _folder: Path | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.watch = Watch(self._watched)

    def board(self, key: Key = "") -> Board:
        """The post of that key, of today, or the newest one; rendered anew when a file has changed."""
        with self._lock:  # premailer is slow, and not thread-safe
            before = self._boards.get(key)
            stamp = self.watch.stamp(now=True)
            if before and before.stamp == stamp:
                board = before
            else:
                board = self._read(key, stamp, before or Board(stamp=stamp, key=key))
            self._keep(key, board)
            return board

    def _keep(self, key: Key, board: Board) -> None:
        """As the latest. A key that is no post's leaves nothing behind: whoever makes some up must not fill the memory."""
        if key and key not in self._boards and not board.has(key):
            return
        for name in (board.key, key):
            self._boards.pop(name, None)
            self._boards[name] = board
        while len(self._boards) > MOST_BOARDS:
            del self._boards[next(iter(self._boards))]

    def _watched(self) -> Iterator[Path]:
        yield from project_files(self.root)
        if self._folder:
            yield from posts_in(self._folder)
        if self.opened:
            yield self.opened

    def _read(self, key: Key, stamp: str, before: Board) -> Board:
        try:
            settings = load_settings(self.root)
            newsletter = settings.newsletter(self.newsletter)
        except ConfigError as error:
            return replace(before, stamp=stamp, troubles=self._troubles(error))
        self._folder = settings.path(newsletter.posts).resolve()
        stamp = self.watch.stamp(now=True)  # with the folder, which may be another one now
        content = load_posts(self._folder, newsletter.zone)
        listed = list(self._listed(content, newsletter))
        base = replace(before, stamp=stamp, newsletter=newsletter, posts=listed, troubles=())
        return self._choose(base, content, settings, key)

    def _choose(self, base: Board, content: PostFolder, settings: Settings, key: Key) -> Board:
        assert base.newsletter
        try:
            post = self._post(content, base.newsletter, key)
        except PostError as error:
            return replace(base, troubles=self._troubles(error))
        return self._rendered(base, settings, base.newsletter, post)

    def _post(self, content: PostFolder, newsletter: Newsletter, key: Key) -> Post:
        """Raises PostError."""
        if self.opened and key in {"", self._key(self.opened)}:
            return read_post(self.opened, newsletter.zone)
        if not key:
            return newest(content.posts, newsletter, self.now(), self._folder)
        for post in content.posts:
            if self._key(post.path) == key:
                return post
        for error in content.errors:
            if self._key(Path(error.path)) == key:
                raise error
        raise PostError(self._folder or self.root, f'there is no post "{key}"; choose another')

    def _rendered(self, base: Board, settings: Settings, newsletter: Newsletter, post: Post) -> Board:
        channels = self.channels(settings)
        names = sorted({*channels, *newsletter.channels}, key=lambda name: place(name, newsletter))
        last = base if base.post and base.post.path == post.path else replace(base, panels=())
        panels = [self._panel(name, channels.get(name), post, newsletter, last) for name in names]
        return replace(
            base,
            key=self._key(post.path),
            post=post,
            language=language_of(post, newsletter),
            facts=facts(post, newsletter, self._short(post.path)),
            send_time=send_time(post, newsletter),
            panels=panels,
            troubles=list(dict.fromkeys(each for panel in panels if panel.used for each in panel.troubles)),
        )

    def _panel(
        self, name: str, channel: Channel | Exception | None, post: Post, newsletter: Newsletter, last: Board
    ) -> Panel:
        used = name in newsletter.channels
        try:
            views = rendered(name, channel, post, newsletter)
        except Exception as error:  # a template, or another package's code, may raise anything
            before = last.panel(name)
            return Panel(
                channel=name, used=used, views=before.views if before else (), troubles=self._troubles(error)
            )
        return Panel(channel=name, used=used, views=views)

    def _listed(self, content: PostFolder, newsletter: Newsletter) -> Iterator[Listed]:
        """Newest first, then what has no date, then what cannot be read."""
        dated = sorted(
            content.posts,
            key=lambda post: post.date.timestamp() if post.date else 0,
            reverse=True,
        )
        for post in dated:
            yield Listed(
                key=self._key(post.path),
                title=headline(post),
                day=local_day(post, newsletter),
                note="draft" if post.draft else "",
            )
        for error in content.errors:
            path = Path(error.path)
            yield Listed(key=self._key(path), title=path.name, note="cannot be read")

    def _key(self, path: Path) -> Key:
        folder = self._folder
        return str(path.relative_to(folder) if folder and path.is_relative_to(folder) else path)

    def _short(self, path: Path | str) -> str:
        path = Path(path)
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    def _troubles(self, error: Exception) -> list[Trouble]:
        """With paths as seen from the project's folder."""
        return [
            replace(
                trouble,
                file=self._short(trouble.file) if trouble.file else "",
                reason=trouble.reason.replace(f"{self.root}/", ""),
            )
            for trouble in troubles_of(error)
        ]


def place(name: str, newsletter: Newsletter) -> tuple[int, int, str]:
    """Channels in the order of the page: those that are used, as in the settings, then the others."""
    order = ("email", "telegram", "wecom", "wechat")
    known = order.index(name) if name in order else len(order)
    return (0 if name in newsletter.channels else 1, known, name)


def rendered(
    name: str, channel: Channel | Exception | None, post: Post, newsletter: Newsletter
) -> Sequence[View]:
    """Raises what the channel raises, or why there is none."""
    if channel is None:
        raise ConfigError([f"no channel is called {name!r}"])
    if isinstance(channel, Exception):
        raise channel
    return [view_of(message) for message in channel.render(post, newsletter)]


def view_of(message: Message) -> View:
    return View(
        message=message,
        content=Texts({key: filled(message, key) for key in message.content}),
        meters=[*main_meters(message), *field_meters(message)],
    )


def main_meters(message: Message) -> Iterator[Meter]:
    entry = measured(message)
    limits = entry["limits"]
    assert isinstance(limits, dict)
    for unit, limit in limits.items():
        value = entry[unit]
        assert isinstance(value, int)
        yield Meter(name=unit, value=value, limit=limit)


def field_meters(message: Message) -> Iterator[Meter]:
    for key, unit, limit in FIELDS.get((message.channel, message.variant), ()):
        text = message.content.get(key, "")
        yield Meter(name=f"{key} {unit}", value=MEASURES[unit](text), limit=limit)


def newest(posts: Sequence[Post], newsletter: Newsletter, now: datetime, folder: Path | None) -> Post:
    """Today's post, else the one with the latest date. Raises PostError when there is none."""
    today = now.astimezone(newsletter.zone).date()
    for post in posts:
        if local_day(post, newsletter) == today and not post.draft:
            return post
    if not posts:
        raise PostError(folder or ".", "no post is here yet: write one, and it shows up")
    return max(posts, key=lambda post: post.date.timestamp() if post.date else 0)


def facts(post: Post, newsletter: Newsletter, file: str) -> list[tuple[str, str]]:
    """What the front matter, and its defaults, say; an empty value for what is not said."""
    ai = post.ai or newsletter.ai
    return [
        ("file", file),
        ("slug", post.slug),
        ("date", f"{post.date.astimezone(newsletter.zone):%Y-%m-%d %H:%M}" if post.date else ""),
        ("language", language_of(post, newsletter)),
        ("categories", ", ".join(post.categories)),
        ("description", post.description or ""),
        ("cover", post.cover_image or ""),
        ("address", web_address(post, newsletter) or ""),
        ("AI", f"{ai}" + ("" if post.ai else " (of the newsletter)")),
    ]


def send_time(post: Post, newsletter: Newsletter) -> str:
    """When the scheduler would send it, or why it would not."""
    day, schedule = local_day(post, newsletter), newsletter.schedule
    if post.draft:
        return "only when a person sends it by name: it is a draft"
    if day is None:
        return "only when a person sends it by name: it has no date"
    if not schedule.sends_on(day):
        return f"only when a person sends it: {day:%a %Y-%m-%d} is a day without an issue"
    about = " at the earliest" if schedule.jitter or schedule.approval == "required" else ""
    asks = ", after approval" if schedule.approval != "auto" else ""
    return f"{day:%a %Y-%m-%d} {schedule.time:%H:%M} {newsletter.timezone}{about}{asks}"


def troubles_of(error: Exception) -> Iterator[Trouble]:
    """An error as a person reads it."""
    if isinstance(error, ConfigError):
        for mistake in error.mistakes:
            yield Trouble(reason=mistake)
    elif isinstance(error, PostError):
        yield at_line(error.path, error.line, error.reason)
    elif isinstance(error, TemplateError):
        file, line = template_place(error)
        yield at_line(file, line, f"the template cannot be used: {error.message or type(error).__name__}")
    elif isinstance(error, DistributorError):
        yield Trouble(reason=str(error))
    elif isinstance(error, ImportError):
        yield Trouble(reason=f"what this channel needs is not installed: {error}")
    else:
        yield Trouble(reason=f"{type(error).__name__}: {error}")


def template_place(error: TemplateError) -> tuple[str, int | None]:
    """File and line of the template: what Jinja2 tells, else the innermost template on the way to the error."""
    if isinstance(error, TemplateSyntaxError):
        return error.filename or error.name or "", error.lineno
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".j2")]
    return (frames[-1].filename, frames[-1].lineno) if frames else ("", None)


def at_line(path: Path | str, line: int | None, reason: str) -> Trouble:
    return Trouble(reason=reason, file=str(path), line=line, source=line_of(Path(path), line))


def line_of(path: Path, line: int | None) -> str:
    try:
        lines = path.read_text("utf-8").splitlines() if line else []
    except (OSError, UnicodeDecodeError):
        return ""
    return lines[line - 1].strip() if line and line <= len(lines) else ""
