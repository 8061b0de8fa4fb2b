"""A picture as every reader's program shows it: JPEG, PNG, or a small animated GIF, without what it says about its maker."""

import hashlib
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from threading import Lock
from typing import Literal

from PIL import ExifTags, Image, ImageCms, ImageFile, ImageOps

from distributor.errors import PictureError

#: Pixels of a decoded picture: 40 million are 160 MB in memory. A file of a few KB may claim more (a "bomb").
MOST_PIXELS = 40_000_000

Kind = Literal["jpeg", "png", "gif"]

#: A picture of the most pixels takes 60 MB (JPEG) to 650 MB (WebP) while it is converted, seconds long; besides,
#: warnings' filters are the process's.
_ONE_AT_A_TIME = Lock()

#: What a file begins with → what it is. Neither its name nor the server's header is asked.
_MAGIC: Mapping[str, re.Pattern[bytes]] = {
    "jpeg": re.compile(rb"\xff\xd8\xff"),
    "png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "gif": re.compile(rb"GIF8[79]a"),
    "webp": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    "avif": re.compile(rb".{4}ftyp(avif|avis|mif1.{0,64}?avif)", re.DOTALL),
    "bmp": re.compile(rb"BM.{4}\0{4}", re.DOTALL),
    "tiff": re.compile(rb"II\*\0|MM\0\*"),
    "heic": re.compile(rb".{4}ftyp(heic|heix|hevc|mif1|msf1)", re.DOTALL),
    # Possessive (`*+`): what stands before <svg is read once. Else a hundred empty comments without one take for ever.
    "svg": re.compile(
        rb"(?:\xef\xbb\xbf)?(?:<\?xml[^>]*>|<!--.*?-->|<!DOCTYPE svg[^>]*>|\s)*+<svg\b",
        re.DOTALL | re.IGNORECASE,
    ),
    "a web page": re.compile(rb"(?:\xef\xbb\xbf)?\s*+(?:<!doctype html|<html\b)", re.IGNORECASE),
}
READABLE = frozenset({"jpeg", "png", "gif", "webp", "avif", "bmp", "tiff"})
#: Why the others are not read, and what to do.
_REFUSED: Mapping[str, str] = {
    "svg": "an SVG may hold scripts and no mail program shows it: export it as PNG and link that",
    "heic": "HEIC is not read here: export it as JPEG and link that",
    "a web page": "a web page, not a picture: link the picture itself (in the browser: copy image address)",
    "": "no picture that is known here: JPEG, PNG, GIF, WebP, AVIF, BMP and TIFF are",
}


@dataclass(frozen=True)
class Picture:
    """A picture that may be shown: its file, and how large it is in pixels."""

    data: bytes
    kind: Kind
    width: int
    height: int

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the file."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def suffix(self) -> str:
        """ "jpg", "png" or "gif"."""
        return "jpg" if self.kind == "jpeg" else self.kind

    @property
    def content_type(self) -> str:
        return f"image/{self.kind}"


def sniff(data: bytes) -> str:
    """What a file is, by its first bytes: a name of `_MAGIC`, or "" for none of these."""
    return next((kind for kind, magic in _MAGIC.items() if magic.match(data[:2048])), "")


def require_picture(data: bytes, address: str = "picture") -> str:
    """What the file is. Raises PictureError for what is not read here, with the reason."""
    kind = sniff(data)
    if kind not in READABLE:
        raise PictureError(address, _REFUSED[kind])
    return kind


def as_jpeg_or_png(
    data: bytes,
    *,
    most_bytes: int,
    most_width: int,
    most_pixels: int = MOST_PIXELS,
    keep_gif: bool = True,
    address: str = "picture",
) -> Picture:
    """A picture of at most so many bytes and pixels across, upright, in sRGB, without metadata (GPS, maker, comments).

    What is transparent, has few colours or was a PNG that fits is a PNG, all else a JPEG. An animated GIF that fits
    stays as it is (`keep_gif`); else its first frame is taken. `address` is what an error names.

    Raises:
        PictureError: no picture, an SVG, broken, cut short, too many pixels, or not to be made small enough.
    """
    kind = require_picture(data, address)
    try:
        with _ONE_AT_A_TIME, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is odd in a file; our own limit of pixels is the lowest
            return _made_fit(data, kind, _Limits(most_bytes, most_width, most_pixels, keep_gif), address)
    except PictureError:
        raise
    except Image.DecompressionBombError:
        raise PictureError(address, _too_many_pixels(most_pixels)) from None
    except Exception as error:  # a decoder raises anything for a broken file, from OSError to struct.error
        reason = f"the {kind.upper()} is broken or cut short ({error or type(error).__name__}): save it anew"
        raise PictureError(address, reason) from None


@dataclass(frozen=True)
class _Limits:
    bytes: int
    width: int
    pixels: int
    keep_gif: bool


def _too_many_pixels(most: int) -> str:
    return f"more than {most // 1_000_000} million pixels: scale it down (1200 across are enough)"


def _made_fit(data: bytes, kind: str, limits: _Limits, address: str) -> Picture:
    with _opened(data, kind, limits, address) as image:
        if kind == "gif" and limits.keep_gif and _moves(image) and _fits(image, data, limits):
            return Picture(data, "gif", image.width, image.height)
        if _is_plain(image, limits) and len((kept := _kept(image)).data) <= limits.bytes:
            return kept
        # A huge JPEG is decoded at a part of its size, with enough to spare.
        image.draft(None, (2 * limits.width, 2 * limits.width))
        upright = _plain(image, limits.width)
    for picture in _attempts(upright, as_png=kind == "png" or _is_graphic(upright)):
        if len(picture.data) <= limits.bytes:
            return picture
    reason = f"cannot be made smaller than {limits.bytes // 1000} KB: scale it down by hand"
    raise PictureError(address, reason)


def _opened(data: bytes, kind: str, limits: _Limits, address: str) -> ImageFile.ImageFile:
    """Its head alone is read yet. Raises PictureError for a bomb."""
    image = Image.open(BytesIO(data), formats=[kind.upper()])
    if image.width * image.height > limits.pixels:
        raise PictureError(address, _too_many_pixels(limits.pixels))
    return image


def _is_plain(image: Image.Image, limits: _Limits) -> bool:
    """A JPEG that needs no change beside the loss of its metadata; "MPO" is one with other pictures behind it."""
    return (
        image.format == "JPEG"
        and image.mode in {"RGB", "L"}
        and image.width <= limits.width
        and not _is_turned(image)
        and "icc_profile" not in image.info
    )


def _is_turned(image: Image.Image) -> bool:
    """Whether its EXIF says so; what cannot be read says nothing."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except Exception:  # as above: a decoder raises anything
        return False


def _kept(image: Image.Image) -> Picture:
    """The JPEG with its own tables, so that it loses next to nothing; what `info` holds would be written again."""
    image.load()
    image.info.clear()
    return _encoded(image, "jpeg", quality="keep", progressive=True, optimize=True)


def _moves(image: Image.Image) -> bool:
    return bool(getattr(image, "is_animated", False))


def _fits(image: Image.Image, data: bytes, limits: _Limits) -> bool:
    return len(data) <= limits.bytes and image.width <= limits.width


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _plain(image: Image.Image, width: int) -> Image.Image:
    """The first frame: upright, narrowed, RGB or RGBA in sRGB, and nothing beside its pixels.

    Narrowed as soon as its mode allows: what follows then works on a thirtieth of a large picture.
    """
    image.load()
    profile = image.info.get("icc_profile")
    upright = ImageOps.exif_transpose(image) if _is_turned(image) else image
    if upright.mode.startswith("I;16"):
        upright = upright.point(lambda value: value / 256).convert("L")
    wanted = "RGBA" if upright.has_transparency_data else "RGB"
    if upright.mode not in {"RGB", "RGBA", "CMYK", "L"} or "transparency" in upright.info:
        upright = upright.convert(wanted)
    upright = _narrowed(upright, width)
    plain = _in_srgb(upright, profile, wanted) if profile else upright.convert(wanted)
    plain.info.clear()
    return plain


def _in_srgb(image: Image.Image, profile: bytes, wanted: str) -> Image.Image:
    """A profile that does not belong to its picture is left alone: browsers do the same."""
    try:
        converted = ImageCms.profileToProfile(
            image, ImageCms.ImageCmsProfile(BytesIO(profile)), _srgb(), outputMode=wanted
        )
    except (ImageCms.PyCMSError, OSError):
        return image.convert(wanted)
    assert converted is not None  # only with inPlace
    return converted


def _narrowed(image: Image.Image, width: int) -> Image.Image:
    if image.width <= width:
        return image
    height = max(1, round(image.height * width / image.width))
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _is_transparent(image: Image.Image) -> bool:
    return image.mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255)


def _is_graphic(image: Image.Image) -> bool:
    """Transparent, or of few colours, as charts and logos are: JPEG would blur its edges."""
    return _is_transparent(image) or image.getcolors(256) is not None


#: Tried in this order until the file is small enough: first the quality goes, then the width.
_QUALITIES = (88, 80, 70, 60)
_SCALES = (1.0, 0.8, 0.6, 0.45, 0.3, 0.2)


def _attempts(image: Image.Image, *, as_png: bool) -> Iterator[Picture]:
    """Ever smaller files of one picture. One that is transparent stays so as long as it can, then stands on white."""
    if as_png:
        for scale in _SCALES if _is_transparent(image) else _SCALES[:1]:
            yield _encoded(_scaled(image, scale), "png", optimize=True)
    opaque = _on_white(image)
    for scale in _SCALES:
        scaled = _scaled(opaque, scale)
        for quality in _QUALITIES:
            yield _encoded(scaled, "jpeg", quality=quality, progressive=True, optimize=True)


def _scaled(image: Image.Image, scale: float) -> Image.Image:
    return _narrowed(image, max(1, round(image.width * scale)))


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image.convert("RGB")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def _encoded(image: Image.Image, kind: Kind, **options: int | str) -> Picture:
    file = BytesIO()
    if kind == "png" and not _is_transparent(image):
        image = image.convert("RGB")
    image.save(file, kind, **options)
    return Picture(file.getvalue(), kind, image.width, image.height)
