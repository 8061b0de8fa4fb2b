"""The corpus as posts, and what every channel makes of a post."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import entry_points
from itertools import groupby
from pathlib import Path

from checkers import CHANNELS, Rendering
from pydantic import ValidationError
from rendering_samples import SHARED, ZONE, make_newsletter

from distributor.channels import ENTRY_POINTS, Channel
from distributor.channels.email.mime import compose
from distributor.model import DeliveryId, Message, Parcel, Post, Recipient
from distributor.posts import load_posts
from distributor.rendering import web_address
from distributor.settings import Newsletter, Settings

from .generated import GENERATED

FOLDER = Path(__file__).parent
#: Destinations whose wishes make variants of their own.
WISHES: Mapping[str, Sequence[Mapping[str, object]]] = {
    "telegram": [
        {"name": "group", "chat": "-1001"},
        {"name": "channel", "chat": "@brief_daily"},
        {"name": "rich", "chat": "-1002", "format": "rich"},
    ],
    "wecom": [
        {"name": "robot"},
        *(
            {"name": f"parts-{number}", "mode": mode, "overflow": "split"}
            for number, mode in enumerate(("markdown_v2", "markdown", "text"))
        ),
        {"name": "everybody", "mode": "text", "mention_all": True},
    ],
}
SENT = datetime(2026, 11, 27, 7, 30, tzinfo=UTC)


@cache
def corpus_posts() -> Mapping[str, Post]:
    """By name: the files beside this module, and the huge ones that are made by `generated.py`."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in GENERATED.items():
            (Path(folder) / f"{name}.md").write_bytes(text().encode())
        made = read_folder(Path(folder))
    return {**read_folder(FOLDER), **made}


def read_folder(folder: Path) -> Mapping[str, Post]:
    """Every post below `folder`; a file that cannot be read is a mistake of the corpus."""
    found = load_posts(folder, ZONE)
    if found.errors:
        raise found.errors[0]
    return {post.path.stem: post for post in found.posts}


def shared_names() -> Mapping[str, Post]:
    """Real posts beside the repository; none where there are none."""
    return read_folder(SHARED) if SHARED.is_dir() else {}


@cache
def channels() -> Mapping[str, Channel]:
    """The installed channels that a checker stands ready for."""
    settings = Settings(root=FOLDER)
    points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    return {name: channel for name in CHANNELS if (channel := _built(points.get(name), settings))}


def _built(point: object, settings: Settings) -> Channel | None:
    """A channel that the installed package announces and this tree does not have yet is left out."""
    try:
        built: Channel = point.load()(settings)  # type: ignore[attr-defined]
    except (ImportError, AttributeError):
        return None
    return built


@cache
def newsletter() -> Newsletter:
    """One that asks for every variant; a wish that the settings do not know is left out, as a channel is."""
    tables = {
        channel: {"destinations": [wish for wish in wishes if _is_known(channel, wish)]}
        for channel, wishes in WISHES.items()
    }
    return make_newsletter(channels=tables)


def _is_known(channel: str, wish: Mapping[str, object]) -> bool:
    try:
        make_newsletter(channels={channel: {"destinations": [wish]}})
    except ValidationError:
        return False
    return True


def renderings(post: Post, channel: str) -> Iterator[Rendering]:
    """What the channel makes of the post, one for each variant. Raises PostError for a post that it refuses."""
    messages = sorted(
        channels()[channel].render(post, newsletter()), key=lambda message: (message.variant, message.part)
    )
    for variant, parts in groupby(messages, key=lambda message: message.variant):
        yield _rendering(list(parts), variant, web_address(post, newsletter()) or "")


def _rendering(messages: Sequence[Message], variant: str, address: str) -> Rendering:
    first = messages[0]
    names = dict.fromkeys(name for message in messages for name in message.placeholders)
    values = {name: f"https://news.example.com/{name.strip('_').lower()}/k3J9" for name in names}
    return Rendering(
        channel=first.channel,
        variant=variant,
        parts=[message.content for message in messages],
        warnings=[warning for message in messages for warning in message.warnings],
        address=address,
        mail=_mail(first, values) if first.channel == "email" else b"",
        values=values,
    )


def _mail(message: Message, values: Mapping[str, str]) -> bytes:
    recipient = Recipient(channel="email", address="reader@example.net", subscriber_id=1)
    return compose(Parcel(message, recipient, DeliveryId(7, 42), SENT, values))
