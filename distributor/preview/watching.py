"""What a rendering depends on, looked at every half second: posts, settings, templates."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from distributor.posts import post_files
from distributor.settings import packaged

#: Seconds between two looks. A folder of a thousand posts takes some 10 ms to look at.
EVERY = 0.5


class Watch:
    """A stamp that changes when one of the files does, appears or goes."""

    def __init__(self, paths: Callable[[], Iterable[Path]]) -> None:
        self._paths, self._lock = paths, threading.Lock()
        self._stamp, self._looked = "", -EVERY

    def stamp(self, *, now: bool = False) -> str:
        """As of at most EVERY seconds ago, however many ask; `now` looks again."""
        with self._lock:
            if now or time.monotonic() - self._looked >= EVERY:
                self._stamp = stamp_of(self._paths())
                self._looked = time.monotonic()
            return self._stamp


def stamp_of(paths: Iterable[Path]) -> str:
    """A fingerprint of the files' names, times and sizes."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            found = path.stat()
        except OSError:  # an editor that saves by renaming takes a file away for a moment
            continue
        digest.update(f"{path}\0{found.st_mtime_ns}\0{found.st_size}\0{found.st_ino}\n".encode())
    return digest.hexdigest()[:16]


def project_files(root: Path) -> Iterator[Path]:
    """The settings, and every template that may be used."""
    yield from sorted((root / "config").rglob("*.toml"))
    for folder in (root / "templates", packaged("templates")):
        yield from sorted(folder.rglob("*.j2"))


def posts_in(folder: Path) -> Iterator[Path]:
    yield from post_files(folder, [])
