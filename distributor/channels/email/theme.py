"""Every colour of a mail, light and dark, in one place. Text and background of each pair in `PAIRS` can be read."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from distributor.colours import PAPER, lightened
from distributor.settings import Theme


@dataclass(frozen=True, kw_only=True)
class Palette:
    """Colours by what they are for; "#rrggbb"."""

    backdrop: str
    sheet: str
    tint: str  # behind code, table heads, numbers
    line: str
    ink: str  # headings
    text: str
    quiet: str
    accent: str
    link: str
    button: str
    button_text: str


#: (text, background) as they meet in the templates.
PAIRS: Sequence[tuple[str, str]] = (
    *(("ink", "sheet"), ("text", "sheet"), ("quiet", "sheet"), ("accent", "sheet"), ("link", "sheet")),
    *(("ink", "tint"), ("text", "tint"), ("quiet", "tint"), ("accent", "tint"), ("link", "tint")),
    *(("quiet", "backdrop"), ("button_text", "button")),
)


def palettes(theme: Theme) -> Mapping[str, Palette]:
    """ "light" and "dark" for a newsletter. Neither pure white text nor pure black: some clients invert those again."""
    light = Palette(
        backdrop="#eef0f3",
        sheet="#ffffff",
        tint=PAPER,
        line="#e1e5ea",
        ink="#15202b",
        text="#24292f",
        quiet="#59636e",
        accent=theme.accent,
        link=theme.link,
        button=theme.accent,
        button_text="#ffffff",
    )
    sheet, tint = "#1b1f24", "#262c33"
    dark = Palette(
        backdrop="#111418",
        sheet=sheet,
        tint=tint,
        line="#3a424b",
        ink="#f1f3f5",
        text="#dfe3e8",
        quiet="#a9b4c0",
        accent=lightened(theme.accent, tint),
        link=lightened(theme.link, tint),
        button=theme.accent,
        button_text="#ffffff",
    )
    return {"light": light, "dark": dark}


def theme_facts(theme: Theme) -> Mapping[str, object]:
    """What the templates know of a theme."""
    return {
        **{name: asdict(palette) for name, palette in palettes(theme).items()},
        "font": theme.font,
        "logo": theme.logo,
        "logo_width": theme.logo_width,
    }
