"""Pictures on WeChat's own servers: it strips the addresses of all others from an article.

What was uploaded once is remembered by its content's hash, so that a retry, or tomorrow's issue with the same cover, uploads nothing.
"""

import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import NamedTuple

from distributor.channels.wechat.api import WechatApi
from distributor.channels.wechat.shapes import Kept, Uploaded
from distributor.channels.wechat.store import SharedStore
from distributor.errors import Kind, PictureError, Rejected, shown_address
from distributor.pictures import Fetch, FetchRules, Picture, as_jpeg_or_png
from distributor.rendering import cut, is_web

log = logging.getLogger(__name__)

#: jpg and png below 1 MB ("上传图文消息内的图片获取URL").
MOST_BYTES = 1_000_000
#: Twice the column on a screen with two pixels to a point.
MOST_WIDTH = 1354
REMEMBERED = timedelta(days=30)
#: Seconds for all pictures of an article; what is left then goes without. A server that hangs must not hold up the article,
#: nor for long the end of a worker (`worker_soft_shutdown_timeout` in tasks.py).
PATIENCE = 40.0
#: So many pictures that were left out are named in a receipt; the log names all.
NAMED = 2

IMG = re.compile(r'<img src="([^"]*)"(?: alt="([^"]*)")?[^>]*>(?=(<figcaption)?)')


class Cover(NamedTuple):
    """A cover's media id, and whether it was uploaded just now."""

    media_id: str
    fresh: bool


@dataclass
class Uploads:
    """One account's pictures. `problems` collects what an editor should know."""

    api: WechatApi
    store: SharedStore
    rules: FetchRules
    fetch: Fetch
    root: Path
    problems: list[str] = field(default_factory=list)
    until: float = field(default_factory=lambda: time.monotonic() + PATIENCE)

    @property
    def said(self) -> str:
        """The problems in short: a row of the ledger has room for some 500 characters."""
        named = [cut(problem, 160) for problem in self.problems[:NAMED]]
        more = len(self.problems) - len(named)
        return "; ".join([*named, *([f"{more} more left out: see the log"] if more else [])])

    def content(self, html: str) -> str:
        """The article with every picture's address replaced; one that cannot be had is replaced by its text.

        Raises SendError when WeChat does not answer, or refuses more than this picture.
        """
        addresses = dict.fromkeys(found[1] for found in IMG.finditer(html))
        hosted = {address: self._hosted(unescape(address)) for address in addresses}
        return IMG.sub(lambda found: _replaced(found, hosted), html)

    def cover(self, addresses: Sequence[str], *, anew: bool = False) -> Cover:
        """The media id of the first that can be had: addresses on the web, or files of the project.

        Raises SendError; Rejected when there is none.
        """
        for address in filter(None, addresses):
            try:
                return self._cover(self._fitted(address), anew)
            except (PictureError, Rejected) as error:
                self._note("cover", address, error)
        raise Rejected(
            text="no cover, and WeChat takes no article without one: give the post a `cover_image`, or the "
            f"destination a `default_cover` ({self.said or 'the post has none'})",
            kind=Kind.CONTENT,
        )

    def _hosted(self, address: str) -> str | None:
        try:
            return self._address(self._fitted(address))
        except (PictureError, Rejected) as error:
            self._note("picture", address, error)
        return None

    def _note(self, what: str, address: str, error: PictureError | Rejected) -> None:
        """Remembers that this picture is left out; what is wrong with more than the picture is raised again."""
        if isinstance(error, Rejected) and error.kind is not Kind.CONTENT:
            raise error
        said = str(error) if isinstance(error, PictureError) else f"{shown_address(address)}: {error}"
        self.problems.append(f"{what} left out: {said}")
        log.warning("wechat %s left out: %s", what, said)

    def _address(self, picture: Picture) -> str:
        key = f"wechat:{self.api.appid}:picture:{picture.hash}"
        known = self.store.get(key)
        if known is None:
            known = self.api.upload("/cgi-bin/media/uploadimg", picture, Uploaded).url
            self.store.set(key, known, REMEMBERED)
        return known

    def _cover(self, picture: Picture, anew: bool) -> Cover:
        key = f"wechat:{self.api.appid}:cover:{picture.hash}"
        if not anew and (known := self.store.get(key)):
            return Cover(known, fresh=False)
        media_id = self.api.upload("/cgi-bin/material/add_material", picture, Kept, type="image").media_id
        self.store.set(key, media_id, REMEMBERED)
        return Cover(media_id, fresh=True)

    def _fitted(self, address: str) -> Picture:
        """Raises PictureError, and nothing else: no picture is worth an article."""
        try:
            return self._had(address)
        except PictureError:
            raise
        except Exception as error:  # by its name alone: its text may hold a signed address
            log.debug("wechat picture", exc_info=error)
            reason = f"cannot be fetched or read ({type(error).__name__}): open its address in a browser"
            raise PictureError(address, reason) from None

    def _had(self, address: str) -> Picture:
        left = self.until - time.monotonic()
        if left <= 0:
            raise PictureError(address, f"no time left: an article's pictures have {PATIENCE:g} s together")
        if not is_web(address):
            return picture_of_project(self.root, address)
        rules = replace(self.rules, seconds=min(self.rules.seconds, left))
        return _made_fit(self.fetch(address, rules).data, address)


def picture_of_project(root: Path, name: str) -> Picture:
    """A picture in the project's folder, as WeChat takes it. Raises PictureError."""
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise PictureError(name, "lies outside the project: copy it into the project's folder")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PictureError(name, f"cannot be read ({error.strerror}): is the path right?") from None
    return _made_fit(data, name)


def _made_fit(data: bytes, address: str) -> Picture:
    return as_jpeg_or_png(data, most_bytes=MOST_BYTES, most_width=MOST_WIDTH, keep_gif=False, address=address)


def _replaced(found: re.Match[str], hosted: Mapping[str, str | None]) -> str:
    address = hosted[found[1]]
    if address is not None:
        return found[0].replace(f'src="{found[1]}"', f'src="{address}"', 1)
    captioned = found[3] is not None
    return "🖼" if captioned else f"🖼 {found[2] or ''}".rstrip()
