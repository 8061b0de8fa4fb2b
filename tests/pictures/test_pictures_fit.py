"""Pictures made fit for a reader's program: small, upright, without what they tell about their maker; bombs refused."""

import struct
import time
import zlib
from contextlib import suppress
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_server import picture_file, saved
from PIL import ExifTags, Image, ImageChops, ImageCms, ImageDraw, ImageFilter, ImageStat, features
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngInfo

from distributor.errors import PictureError
from distributor.pictures import Picture, as_jpeg_or_png, sniff

MAKER = b"MAKER-OF-THIS-PICTURE"


def fit(data: bytes, *, most_bytes: int = 1_000_000, most_width: int = 1200, **more: Any) -> Picture:
    return as_jpeg_or_png(data, most_bytes=most_bytes, most_width=most_width, **more)


def opened(picture: Picture) -> Image.Image:
    """The picture as its file has it; what it says of itself must be true."""
    image = Image.open(BytesIO(picture.data))
    image.load()
    assert (image.format or "").lower() == picture.kind == sniff(picture.data)
    assert image.size == (picture.width, picture.height)
    return image


def with_exif(image: Image.Image, kind: str, orientation: int = 1, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = MAKER.decode()
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (31.0, 13.0, 49.0)
    return saved(image, kind, exif=exif, **options)


def test_the_libraries_here_read_what_sites_use() -> None:
    assert features.check("avif")
    assert features.check("webp")
    assert features.check("littlecms2")


# ── which kind ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "becomes"),
    [("JPEG", "jpeg"), ("PNG", "png"), ("WEBP", "jpeg"), ("AVIF", "jpeg"), ("BMP", "jpeg"), ("TIFF", "jpeg")],
)
def test_photographs_become_jpeg_and_png_stays(kind: str, becomes: str) -> None:
    picture = fit(picture_file(kind, (300, 200)))
    assert (picture.kind, picture.width, picture.height) == (becomes, 300, 200)
    assert opened(picture).mode == "RGB"


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "TIFF", "GIF"])
def test_what_is_transparent_stays_so(kind: str) -> None:
    image = Image.new("RGBA", (60, 40), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((5, 5, 50, 35), fill=(200, 30, 30, 255))
    picture = fit(saved(image, kind))
    assert picture.kind == "png"
    assert opened(picture).convert("RGBA").getpixel((0, 0))[3] == 0  # type: ignore[index]


@pytest.mark.parametrize("kind", ["WEBP", "BMP", "TIFF", "GIF"])
def test_a_chart_of_few_colours_becomes_png_pixel_by_pixel(kind: str) -> None:
    chart = Image.new("RGB", (200, 100), "white")
    ImageDraw.Draw(chart).rectangle((20, 20, 90, 90), fill=(20, 90, 160))
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = fit(saved(chart, kind, **options))
    assert picture.kind == "png"
    assert opened(picture).convert("RGB").tobytes() == chart.tobytes()


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK", "I;16", "YCbCr"])
def test_every_way_to_write_colours_is_read(mode: str) -> None:
    kind = "JPEG" if mode in {"CMYK", "YCbCr"} else "PNG"
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    image = {
        "1": lambda: Image.new("1", (64, 64), 0),
        "P": lambda: grey.quantize(8),
        "I;16": lambda: Image.new("I;16", (64, 64), 128 * 257),
    }.get(mode, lambda: grey.convert(mode))()
    pixel = opened(fit(saved(image, kind))).convert("RGB").getpixel((30, 30))
    assert isinstance(pixel, tuple)
    assert pixel == pytest.approx((0, 0, 0) if mode == "1" else (128, 128, 128), abs=3)


def test_cmyk_keeps_its_colours() -> None:
    red = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    pixel = opened(fit(saved(red, "JPEG", quality=95))).convert("RGB").getpixel((9, 9))
    assert isinstance(pixel, tuple)
    assert pixel[0] > 200
    assert max(pixel[1:]) < 90


def test_the_name_and_suffix_come_from_the_file() -> None:
    picture = fit(picture_file("JPEG"))
    assert (picture.suffix, picture.content_type) == ("jpg", "image/jpeg")
    assert len(picture.hash) == 64
    assert fit(picture_file("PNG")).suffix == "png"


# ── how large ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_a_picture_is_narrowed_and_never_widened(kind: str) -> None:
    wide = fit(picture_file(kind, (1800, 900)), most_width=600)
    assert (wide.width, wide.height) == (600, 300)
    assert opened(wide)
    small = fit(picture_file(kind, (50, 25)), most_width=600)
    assert (small.width, small.height) == (50, 25)


@pytest.mark.parametrize("most", [200_000, 60_000, 20_000])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_quality_goes_first_then_width_until_the_file_is_small_enough(most: int, mode: str) -> None:
    image = Image.open(BytesIO(picture_file("PNG", (900, 600)))).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    picture = fit(saved(image, "PNG"), most_bytes=most)
    assert len(picture.data) <= most
    assert opened(picture)


def test_what_cannot_be_made_small_enough_is_refused() -> None:
    with pytest.raises(PictureError, match="cannot be made smaller than 0 KB"):
        fit(picture_file("PNG", (600, 400)), most_bytes=300)


def test_a_jpeg_that_fits_keeps_its_quality() -> None:
    soft = Image.effect_noise((400, 300), 60).filter(ImageFilter.GaussianBlur(2)).convert("RGB")
    data = saved(soft, "JPEG", quality=97)
    before, after = Image.open(BytesIO(data)), opened(fit(data))
    assert isinstance(before, JpegImageFile)
    assert isinstance(after, JpegImageFile)
    assert after.quantization == before.quantization
    assert max(ImageStat.Stat(ImageChops.difference(before, after)).mean) < 0.5


def test_a_phone_s_jpeg_with_a_second_picture_behind_is_read() -> None:
    """ "MPO", as iPhones and Samsungs write it: a JPEG, then another."""
    first, second = (Image.new("RGB", (60, 40), colour) for colour in ("red", "blue"))
    data = saved(first, "MPO", save_all=True, append_images=[second])
    assert Image.open(BytesIO(data)).format == "MPO"
    picture = fit(data)
    assert opened(picture).format in {"JPEG", "PNG"}
    assert opened(picture).convert("RGB").getpixel((9, 9)) == pytest.approx((254, 0, 0), abs=3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0no tags at all", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_metadata_that_is_broken_does_not_matter(kind: str, exif: bytes) -> None:
    picture = fit(picture_file(kind, exif=exif))
    assert opened(picture).size == (40, 30)
    assert exif[6:] not in picture.data


def test_a_picture_one_pixel_high_survives() -> None:
    assert opened(fit(picture_file("PNG", (3000, 1)), most_width=500)).size == (500, 1)


# ── what it tells ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_turned_picture_stands_upright(kind: str, orientation: int) -> None:
    """All eight ways of EXIF, each of a picture whose upper left corner, upright, is red."""
    upright = Image.new("RGB", (80, 40), "blue")
    upright.paste("red", (0, 0, 40, 20))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    image = opened(fit(with_exif(stored, kind, orientation))).convert("RGB")
    assert image.size == (80, 40)
    corners = [image.getpixel(at) for at in ((5, 5), (75, 5), (5, 35), (75, 35))]
    assert [pixel[0] > 128 for pixel in corners if isinstance(pixel, tuple)] == [True, False, False, False]


@pytest.mark.parametrize("width", [1200, 20], ids=["as it is", "narrowed"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_place_maker_and_comments_are_gone(kind: str, width: int) -> None:
    image = Image.open(BytesIO(picture_file("PNG", (60, 40))))
    options = {"JPEG": {"comment": MAKER, "xmp": MAKER}, "WEBP": {"xmp": MAKER}, "AVIF": {"xmp": MAKER}}
    data = with_exif(image, kind, 1, **options.get(kind, {}))
    assert MAKER in data
    picture = fit(data, most_width=width)
    assert MAKER not in picture.data
    assert not opened(picture).getexif()
    assert not {"exif", "xmp", "comment", "icc_profile", "Software"} & set(opened(picture).info)


def test_texts_inside_a_png_are_gone() -> None:
    told = PngInfo()
    told.add_text("Author", MAKER.decode())
    told.add_itxt("XML:com.adobe.xmp", MAKER.decode())
    data = picture_file("PNG", pnginfo=told)
    assert MAKER in data
    assert MAKER not in fit(data).data


def test_another_colour_space_is_turned_into_srgb() -> None:
    """In a space whose red and green have changed places, what is stored as red is a green for the eye."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"?").replace(b"gXYZ", b"rXYZ").replace(b"?", b"gXYZ")
    assert swapped != srgb
    for kind in ("PNG", "JPEG"):
        picture = fit(saved(Image.new("RGB", (40, 40), (255, 0, 0)), kind, icc_profile=swapped))
        assert "icc_profile" not in opened(picture).info
        assert opened(picture).getpixel((9, 9)) == pytest.approx((0, 255, 0), abs=4)


@pytest.mark.parametrize(
    "profile", [b"no profile at all", ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()]
)
def test_a_profile_that_does_not_fit_is_left_out(profile: bytes) -> None:
    picture = fit(saved(Image.new("RGB", (40, 40), (120, 60, 30)), "PNG", icc_profile=profile))
    assert "icc_profile" not in opened(picture).info
    assert opened(picture).getpixel((3, 3)) == (120, 60, 30)


# ── GIF ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def moving(size: tuple[int, int] = (60, 40), frames: int = 4) -> bytes:
    pictures = [Image.new("RGB", size, (frame * 60, 20, 200)) for frame in range(frames)]
    return saved(pictures[0], "GIF", save_all=True, append_images=pictures[1:], duration=100, loop=0)


def test_a_moving_gif_that_fits_stays_as_it_is() -> None:
    data = moving()
    assert fit(data) == Picture(data, "gif", 60, 40)
    assert fit(data).suffix == "gif"


@pytest.mark.parametrize("limits", [{"most_bytes": 200}, {"most_width": 50}, {"keep_gif": False}], ids=str)
def test_else_its_first_frame_is_shown(limits: dict[str, int]) -> None:
    picture = fit(moving(), **limits)
    assert picture.kind == "png"
    assert opened(picture).convert("RGB").getpixel((3, 3)) == (0, 20, 200)


def test_a_gif_that_does_not_move_becomes_png() -> None:
    assert fit(moving(frames=1)).kind == "png"


# ── refused ──────────────────────────────────────────────────────────────────────────────────────────────────────


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of some hundred bytes that says it is this large."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(7000, 6000), (12_000, 10_000), (60_000, 60_000), (2_000_000_000, 1)])
def test_bombs_are_refused_before_they_are_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(PictureError, match="more than 40 million pixels"):
        fit(png_claiming(*size), address="https://example.com/a.png")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP"])
def test_a_file_that_was_cut_short_is_refused(kind: str) -> None:
    data = picture_file(kind, (200, 150))
    with pytest.raises(PictureError, match="broken or cut short"):
        fit(data[: len(data) // 2], address="https://example.com/a.jpg")


@pytest.mark.parametrize("piece", [b"<!---->", b"<!-- -->", b"\n", b"<?xml?>", b"<!DOCTYPE svg>", b"<!--"])
def test_what_only_looks_like_an_svg_is_told_at_once(piece: bytes) -> None:
    """A few hundred bytes must not hold the process: with nested repeats this took longer than the world stands."""
    began = time.monotonic()
    assert sniff((piece * 2048)[:2048]) == ""
    assert sniff(piece * 120 + b"<svg") == ("" if piece == b"<!--" else "svg")
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    "svg",
    [
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        b'\xef\xbb\xbf<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN">\n<SVG/>',
    ],
)
def test_svg_is_refused_with_the_reason_and_what_to_do(svg: bytes) -> None:
    with pytest.raises(PictureError) as caught:
        fit(svg, address="https://example.com/a.svg")
    assert str(caught.value) == (
        "https://example.com/a.svg: an SVG may hold scripts and no mail program shows it: "
        "export it as PNG and link that"
    )


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "TIFF"]),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=12),
    st.integers(0, 2000),
)
def test_damaged_files_end_in_a_picture_or_a_reason(
    kind: str, changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(picture_file(kind, (30, 20)))
    for position, value in changes:
        data[position % len(data)] = value
    with suppress(PictureError):
        assert opened(fit(bytes(data[: max(1, len(data) - cut % len(data))]), most_pixels=100_000))
