"""Pictures: what people see who do not see them, and what mail clients show."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from distributor.preflight.findings import Said, gathered, quoted
from distributor.preflight.proof import Proof
from distributor.preflight.reading import Picture, brief
from distributor.rendering import is_web

SAYS_NOTHING = re.compile(
    r"(?:图片?|配图|插图|封面图?|截图|示意图|image|img|picture|photo|cover( image)?|screenshot|alt( text)?|untitled)"
    r"[\s_-]*\d*|\S+\.(?:png|jpe?g|gif|webp|svg|avif|bmp|heic|tiff?)|(?:img|image|dsc|微信图片|截屏|屏幕截图)[\s_-]*\d\S*",
    re.IGNORECASE,
)
#: caniemail.com: shown by Apple's clients alone, or by nobody.
UNSHOWN = frozenset({".svg", ".svgz", ".avif", ".heic", ".heif", ".tif", ".tiff", ".jxl", ".psd", ".pdf"})
WEBP = frozenset({".webp"})  # all but Outlook for Windows


def nowhere(proof: Proof) -> Iterator[Said]:
    """What rendering refuses too, but all of them at once; data URIs and relative paths are among them."""
    for picture in proof.pictures:
        if not is_web(picture.address):
            yield Said(picture.line, f"a picture to nowhere: {brief(picture.address)!r}")


def no_alt(proof: Proof) -> Iterator[Said]:
    """`alt=""` in raw HTML says on purpose that the picture is decoration."""
    lines = [
        picture.line for picture in proof.reading.pictures if not picture.alt and not _decorative(picture)
    ]
    count = f"{len(lines)} pictures say" if len(lines) > 1 else "a picture says"
    return gathered(lines, f"{count} nothing to those who do not see it (no alternative text)")


def _decorative(picture: Picture) -> bool:
    return picture.alt == "" and picture.from_html


def empty_alt(proof: Proof) -> Iterator[Said]:
    found = [one for one in proof.reading.pictures if SAYS_NOTHING.fullmatch((one.alt or "").strip())]
    texts = ", ".join(dict.fromkeys(quoted(one.alt or "") for one in found))
    return gathered([one.line for one in found], f"an alternative text says nothing: {texts}")


def unshown(proof: Proof) -> Iterator[Said]:
    for picture in proof.pictures:
        if suffix_of(picture.address) in UNSHOWN:
            yield Said(picture.line, f"mail clients do not show {suffix_of(picture.address)} pictures")


def webp(proof: Proof) -> Iterator[Said]:
    lines = [picture.line for picture in proof.pictures if suffix_of(picture.address) in WEBP]
    return gathered(lines, "Outlook for Windows does not show .webp pictures")


def insecure(proof: Proof) -> Iterator[Said]:
    lines = [one.line for one in proof.pictures if one.address.lower().startswith("http:")]
    return gathered(lines, "a picture with http://, which webmail does not load")


def no_cover(proof: Proof) -> Iterator[Said]:
    if not proof.post.cover_image:
        yield Said(
            None, "the post has no cover: no picture on top of the mail, in Telegram's preview, on a card"
        )


def suffix_of(address: str) -> str:
    return PurePosixPath(unquote(urlsplit(address).path)).suffix.lower() if is_web(address) else ""
