"""The pictures of a post, fetched once and shown from the operator's store: address → `Hosted`."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from distributor.errors import PictureError, PostError
from distributor.model import Hosted, Post
from distributor.pictures.fetching import Fetched, FetchRules, fetch
from distributor.pictures.picture import as_jpeg_or_png, require_picture
from distributor.pictures.stores import FolderStore, Store, store_of, write_whole
from distributor.rendering import parse
from distributor.settings import PictureSettings, Settings

#: Pictures of a post that are fetched side by side.
AT_ONCE = 4

Fetch = Callable[[str, FetchRules], Fetched]


@dataclass(frozen=True)
class Kept:
    """What the index knows of an address: the picture's name in the store, its size, when it was fetched (epoch)."""

    name: str
    width: int
    height: int
    at: float


class Index:
    """A small file an address. It holds no address: a signed one opens a private store."""

    def __init__(self, folder: Path, about: str) -> None:
        """`about`: what a hosted picture depends on beside its address."""
        self.folder, self.about = folder, about

    def get(self, address: str) -> Kept | None:
        """None for what is not there, or cannot be read: then it is fetched again."""
        try:
            return Kept(**json.loads(self._path(address).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def put(self, address: str, kept: Kept) -> None:
        """Raises PictureError."""
        try:
            write_whole(self._path(address), json.dumps(asdict(kept)).encode())
        except OSError as error:
            reason = f"cannot be noted in {self.folder} ({error.strerror}): is the folder ours to write?"
            raise PictureError(address, reason) from None

    def _path(self, address: str) -> Path:
        name = hashlib.sha256(f"{self.about}\n{address}".encode()).hexdigest()[:32]
        return self.folder / f"{name}.json"


class Hosting:
    """Fetches what is not hosted yet, and says where everything is."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        settings: PictureSettings,
        *,
        fetch: Fetch = fetch,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`folder` is the index's."""
        self.store, self.settings, self.fetch, self.now = store, settings, fetch, now
        self.index = Index(folder, f"{store.place}\n{settings.most_width} {settings.most_bytes}")

    def host(self, post: Post, *, fetch: bool) -> Post:
        """The post with hosted pictures; without `fetch`, nothing outside is asked.

        Raises:
            PostError: the post cannot be read; or a picture cannot be had, under `on_error = "refuse"`.
        """
        lines = parse(post).pictures
        hosted = self.hosted((address for address in lines if address not in post.pictures), fetch=fetch)
        for address, found in hosted.items():
            if found.trouble and self.settings.on_error == "refuse":
                raise PostError(post.path, found.trouble, lines[address])
        return post.with_pictures({**post.pictures, **hosted})

    def hosted(self, addresses: Iterable[str], *, fetch: bool = True) -> Mapping[str, Hosted]:
        """Where readers get each of the pictures from."""
        wanted = dict.fromkeys(addresses)
        if not fetch:
            return {address: self._known(address) or Hosted(address) for address in wanted}
        until = time.monotonic() + self.settings.post_time.total_seconds()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(
                zip(wanted, pool.map(lambda address: self._host(address, until), wanted), strict=True)
            )

    def _known(self, address: str) -> Hosted | None:
        kept = self.index.get(address)
        return Hosted(self.store.address(kept.name), kept.width, kept.height) if kept else None

    def _host(self, address: str, until: float) -> Hosted:
        """Never raises: what went wrong is the picture's `trouble`, and then an older copy is better than none."""
        kept = self.index.get(address)
        try:
            if kept and self._is_fresh(kept) and self.store.holds(kept.name):
                return Hosted(self.store.address(kept.name), kept.width, kept.height)
            return self._fetched(address, until)
        except PictureError as error:
            trouble = str(PictureError(address, error.reason))
            return self._older(kept, trouble) or Hosted(address, trouble=trouble)

    def _is_fresh(self, kept: Kept) -> bool:
        return 0 <= self.now() - kept.at < self.settings.fresh.total_seconds()

    def _fetched(self, address: str, until: float) -> Hosted:
        left = until - time.monotonic()
        if left <= 0:
            raise PictureError(
                address, "not fetched: the time for the post's pictures (pictures.post_time) was over"
            )
        rules = self._rules(left)
        found = self.fetch(address, rules)
        picture = as_jpeg_or_png(
            found.data,
            most_bytes=self.settings.most_bytes,
            most_width=self.settings.most_width,
            most_pixels=rules.most_pixels,
            address=address,
        )
        name = self.store.put(picture)
        self.index.put(address, Kept(name, picture.width, picture.height, self.now()))
        return Hosted(self.store.address(name), picture.width, picture.height)

    def _rules(self, left: float) -> FetchRules:
        rules = rules_of(self.settings)
        return replace(rules, seconds=min(rules.seconds, left))

    def _older(self, kept: Kept | None, trouble: str) -> Hosted | None:
        try:
            if kept is None or not self.store.holds(kept.name):
                return None
        except PictureError:
            return None
        day = datetime.fromtimestamp(kept.at, UTC).date()
        return Hosted(
            self.store.address(kept.name), kept.width, kept.height, f"{trouble} (the copy of {day} is shown)"
        )


def hosting_of(settings: Settings) -> Hosting:
    """As `[pictures]` says. Raises ConfigError."""
    folder = settings.path(settings.pictures.index)
    return Hosting(store_of(settings), folder, settings.pictures, fetch=fetcher_of(settings))


def rules_of(settings: PictureSettings) -> FetchRules:
    """How far a fetch may go, as `[pictures]` says."""
    return FetchRules(
        most_bytes=settings.fetch_bytes,
        seconds=settings.fetch_time.total_seconds(),
        allow_private=settings.allow_private,
    )


def fetcher_of(settings: Settings) -> Fetch:
    """`fetch`, but what lies in our own folder is read there: a server often cannot reach its own public address."""
    store = FolderStore(settings.path(settings.pictures.folder), settings.pictures_url)

    def fetch_or_read(address: str, rules: FetchRules) -> Fetched:
        data = store.read(address) if settings.pictures.rehost == "folder" else None
        return Fetched(data, require_picture(data, address)) if data else fetch(address, rules)

    return fetch_or_read
