"""The pictures of a post, fetched once and shown from the operator's store: address → `Hosted`."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from distributor.errors import PictureError, PostError, frames_of, shown_address
from distributor.model import Hosted, Post
from distributor.pictures.fetching import Fetched, FetchRules, fetch
from distributor.pictures.picture import Picture, as_jpeg_or_png, require_picture
from distributor.pictures.stores import FolderStore, Store, store_of, write_whole
from distributor.rendering import parse
from distributor.settings import PictureSettings, Settings

log = logging.getLogger(__name__)

#: Pictures of a post that are fetched side by side.
AT_ONCE = 4
#: What could not be had is not asked for again so soon: a held post is looked at by each tick of each process.
FAILED_FOR = timedelta(minutes=2)

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
            kept = Kept(**json.loads(self._path(address).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return kept if isinstance(kept.name, str) and _is_moment(kept.at) else None

    def put(self, address: str, kept: Kept) -> None:
        """Raises PictureError."""
        try:
            write_whole(self._path(address), json.dumps(asdict(kept)).encode())
            self._path(address, "failed").unlink(missing_ok=True)
        except OSError as error:
            reason = f"cannot be noted in {self.folder} ({error.strerror}): is the folder ours to write?"
            raise PictureError(address, reason) from None

    def failed(self, address: str, now: float) -> str:
        """Why it could not be had within the last FAILED_FOR; empty when nothing is known."""
        try:
            known = json.loads(self._path(address, "failed").read_text("utf-8"))
            recent = 0 <= now - known["at"] < FAILED_FOR.total_seconds()
            return str(known["reason"]) if recent else ""
        except (OSError, ValueError, TypeError, LookupError):
            return ""

    def fail(self, address: str, reason: str, now: float) -> None:
        """Notes a failure, where that can be done: it only saves work."""
        with suppress(OSError):
            text = json.dumps({"reason": reason, "at": now})
            write_whole(self._path(address, "failed"), text.encode())

    def _path(self, address: str, kind: str = "json") -> Path:
        name = hashlib.sha256(f"{self.about}\n{address}".encode("utf-8", "backslashreplace")).hexdigest()[:32]
        return self.folder / f"{name}.{kind}"


def _is_moment(value: object) -> bool:
    """Whether it is an epoch that a date can be made of; what is not finite compares as False."""
    return isinstance(value, int | float) and 0 <= value < 1e11


@dataclass
class _Errand:
    """The pictures of one post: until when (monotonic) they may take, and why the store is left alone by now."""

    until: float
    store_trouble: str = ""

    @property
    def left(self) -> float:
        return self.until - time.monotonic()


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
        errand = _Errand(time.monotonic() + self.settings.post_time.total_seconds())
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(
                zip(wanted, pool.map(lambda address: self._host(address, errand), wanted), strict=True)
            )

    def _known(self, address: str) -> Hosted | None:
        kept = self.index.get(address)
        return self._shown(kept) if kept else None

    def _shown(self, kept: Kept) -> Hosted:
        return Hosted(self.store.address(kept.name), kept.width, kept.height)

    def _host(self, address: str, errand: _Errand) -> Hosted:
        """Never raises: what went wrong is the picture's `trouble`, and then an older copy is better than none."""
        try:
            kept = self.index.get(address)
            if kept and self._is_fresh(kept) and self._is_there(kept, errand):
                return self._shown(kept)
            return self._fetched(address, errand)
        except PictureError as error:
            return self._instead(address, error.reason, errand)
        except (
            Exception
        ) as error:  # a picture is never a reason to stop: a library met what it does not expect
            return self._instead(address, self._unexpected(address, error), errand)

    def _unexpected(self, address: str, error: Exception) -> str:
        """Tells the log of a bug, and notes it; returns what people are told."""
        name = type(error).__name__
        log.error("picture address=%s %s\n%s", shown_address(address), name, frames_of(error))
        reason = f"cannot be had ({name}): see the log"
        self.index.fail(address, reason, self.now())
        return reason

    def _is_fresh(self, kept: Kept) -> bool:
        return 0 <= self.now() - kept.at < self.settings.fresh.total_seconds()

    def _is_there(self, kept: Kept, errand: _Errand) -> bool:
        """Whether the store holds it; what it held a while ago is trusted when there is no time to ask, or no answer."""
        if errand.store_trouble or errand.left <= 0:
            return True
        try:
            return self.store.holds(kept.name)
        except PictureError as error:
            errand.store_trouble = error.reason
            return True

    def _fetched(self, address: str, errand: _Errand) -> Hosted:
        if known := self.index.failed(address, self.now()):
            raise PictureError(address, known)
        if errand.store_trouble:
            raise PictureError(address, f"not fetched: {errand.store_trouble}")
        if errand.left <= 0:
            raise PictureError(
                address, "not fetched: the time for the post's pictures (pictures.post_time) was over"
            )
        picture = self._fit(address, errand)
        try:
            name = self.store.put(picture)
        except PictureError as error:
            errand.store_trouble = error.reason
            raise
        kept = Kept(name, picture.width, picture.height, self.now())
        self.index.put(address, kept)
        return self._shown(kept)

    def _fit(self, address: str, errand: _Errand) -> Picture:
        """Fetched and made fit; what cannot be had is noted, unless the post's time was too short. Raises PictureError."""
        rules = self._rules(errand.left)
        try:
            return as_jpeg_or_png(
                self.fetch(address, rules).data,
                most_bytes=self.settings.most_bytes,
                most_width=self.settings.most_width,
                most_pixels=rules.most_pixels,
                address=address,
            )
        except PictureError as error:
            if errand.left > 0:
                self.index.fail(address, error.reason, self.now())
            raise

    def _rules(self, left: float) -> FetchRules:
        rules = rules_of(self.settings)
        return replace(rules, seconds=min(rules.seconds, left))

    def _instead(self, address: str, reason: str, errand: _Errand) -> Hosted:
        """What is shown for a picture that cannot be had: an older copy, or its own address."""
        trouble = str(PictureError(address, reason))
        kept = self.index.get(address)
        if kept is None or not self._is_there(kept, errand):
            return Hosted(address, trouble=trouble)
        day = datetime.fromtimestamp(kept.at, UTC).date()
        return self._shown(kept)._replace(trouble=f"{trouble} (the copy of {day} is shown)")


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
