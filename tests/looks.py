"""Pictures of pages against the ones that a person has approved.

    pytest tests/test_looks.py                   # compares
    APPROVE=1 pytest tests/test_looks.py         # takes what it gets as approved: look at every picture before you commit

What differs is written into tests/received/ (not kept in the repository): the picture, and where it differs.
"""

import io
import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import cast

from PIL import Image, ImageChops, ImageDraw

Colour = tuple[int, int, int]

APPROVED = Path(__file__).parent / "approved"
RECEIVED = Path(__file__).parent / "received"
#: Colours of a kept picture; the file is a third of its size. Most of them are its most frequent ones, so that grounds and
#: letters keep theirs; the others are of corners of the colour space that would be left out.
COLOURS, FREQUENT = 256, 96
#: A pixel differs when one of its channels does by more than this, of 255; less is the palette's doing.
DIFFERS = 16
#: A picture is judged band by band, of this height in pixels: what is wrong on one line of a long page is no small thing.
BAND = 64
#: Share of a band's pixels that may differ: in a mail of 375 px one or two letters, or the edges of many.
TOLERANCE = 0.005


def assert_looks(name: str, png: bytes, tolerance: float = TOLERANCE) -> None:
    """Compares with approved/NAME.png; with APPROVE set, keeps it there instead."""
    received, kept = reduced(png), APPROVED / f"{name}.png"
    if os.environ.get("APPROVE"):
        save(received, kept)
        return
    if not kept.exists():
        save(received, RECEIVED / f"{name}.received.png")
        raise AssertionError(f"{name}: no picture is approved yet; {how_to_approve(name)}")
    approved = Image.open(io.BytesIO(kept.read_bytes()))
    if approved.size != received.size:
        save(received, RECEIVED / f"{name}.received.png")
        raise AssertionError(
            f"{name}: {sized(received)} px instead of {sized(approved)}; {how_to_approve(name)}"
        )
    mask = differing(approved, received)
    share, top = max(bands(mask), key=lambda band: band[0])
    if share > tolerance:
        save(received, RECEIVED / f"{name}.received.png")
        save(marked(approved, mask), RECEIVED / f"{name}.diff.png")
        raise AssertionError(
            f"{name}: {share:.2%} of the pixels from {top} px down differ (allowed: {tolerance:.2%}); {how_to_approve(name)}"
        )


def bands(mask: Image.Image) -> Iterator[tuple[float, int]]:
    """(share of its pixels that differ, its upper edge) of each band."""
    for top in range(0, mask.height, BAND):
        band = mask.crop((0, top, mask.width, min(top + BAND, mask.height)))
        yield band.histogram()[255] / (band.width * band.height), top


def reduced(png: bytes) -> Image.Image:
    """The picture with few colours, always the same ones for the same picture."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    counted = cast("list[tuple[int, Colour]]", image.getcolors(image.width * image.height))
    palette = Image.new("P", (1, 1))
    colours = chosen([colour for _, colour in sorted(counted, reverse=True)])
    palette.putpalette([channel for colour in colours for channel in colour])
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


def chosen(colours: Sequence[Colour]) -> Sequence[Colour]:
    """Of colours by frequency: the first FREQUENT, then the first of each corner that has none yet."""
    kept = list(colours[:FREQUENT])
    corners = {corner(colour) for colour in kept}
    for colour in colours[FREQUENT:]:
        if corner(colour) not in corners and len(kept) < COLOURS:
            corners.add(corner(colour))
            kept.append(colour)
    return kept


def corner(colour: Colour) -> Colour:
    """One of 16 x 16 x 16."""
    red, green, blue = colour
    return red >> 4, green >> 4, blue >> 4


def differing(approved: Image.Image, received: Image.Image) -> Image.Image:
    """255 where a pixel differs, 0 elsewhere."""
    difference = ImageChops.difference(approved.convert("RGB"), received.convert("RGB"))
    red, green, blue = difference.split()
    most = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    return most.point([0] * (DIFFERS + 1) + [255] * (255 - DIFFERS))


def marked(approved: Image.Image, mask: Image.Image) -> Image.Image:
    """The approved picture, faded, with what differs in red."""
    faded = Image.blend(approved.convert("L").convert("RGB"), Image.new("RGB", approved.size, "white"), 0.6)
    faded.paste((220, 30, 30), mask=mask)
    return faded


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    image.save(path, optimize=True)


def sized(image: Image.Image) -> str:
    return f"{image.width} x {image.height}"


def how_to_approve(name: str) -> str:
    return f"look at {RECEIVED}/{name}.received.png (and .diff.png); if it is right: APPROVE=1 pytest tests/test_looks.py"


@cache
def picture(_url: str) -> bytes:
    """What every picture of a post shows in the tests: hills in the morning, 1200 x 630 px, in a few flat colours."""
    scale = 2  # drawn larger and reduced: ImageDraw has hard edges
    width, height = 1200 * scale, 630 * scale
    image = Image.new("RGB", (width, height), "#f6dfc8")
    draw = ImageDraw.Draw(image)
    draw.ellipse([width * 0.60, height * 0.16, width * 0.60 + height * 0.42, height * 0.58], fill="#f08a5d")
    for colour, line in HILLS:
        points = [(width * x, height * y) for x, y in line]
        draw.polygon([(0, height), *points, (width, height)], fill=colour)
    out = io.BytesIO()
    image.resize((1200, 630), Image.Resampling.LANCZOS).save(out, "PNG")
    return out.getvalue()


#: colour, and the ridge from left to right as shares of width and height
HILLS: Sequence[tuple[str, Sequence[tuple[float, float]]]] = (
    ("#b8ccc8", [(0, 0.62), (0.16, 0.44), (0.30, 0.58), (0.46, 0.40), (0.64, 0.62), (0.82, 0.48), (1, 0.60)]),
    ("#6d9a9c", [(0, 0.74), (0.20, 0.60), (0.38, 0.74), (0.58, 0.58), (0.78, 0.76), (1, 0.66)]),
    ("#2f5d6b", [(0, 0.86), (0.26, 0.76), (0.50, 0.90), (0.76, 0.78), (1, 0.88)]),
)
