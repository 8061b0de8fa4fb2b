"""Colours as six-digit hex, and whether a reader can tell one from another (WCAG 2.2, 1.4.3)."""

import re

HEX = re.compile(r"#[0-9a-f]{6}")
#: Text and its background, at the least (level AA).
READABLE = 4.5
#: The darkest light background that text stands on.
PAPER = "#f5f6f8"


def contrast(one: str, other: str) -> float:
    """1.0 (the same) to 21.0 (black on white); both as "#rrggbb"."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def lightened(colour: str, background: str) -> str:
    """`colour`, mixed with as little white as makes it readable on a dark `background`."""
    for share in range(0, 101, 5):
        mixed = _mixed(colour, share / 100)
        if contrast(mixed, background) >= READABLE:
            return mixed
    return "#ffffff"


def _mixed(colour: str, white: float) -> str:
    return "#" + "".join(f"{round(part + (255 - part) * white):02x}" for part in _parts(colour))


def _luminance(colour: str) -> float:
    red, green, blue = (_linear(part / 255) for part in _parts(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4


def _parts(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
