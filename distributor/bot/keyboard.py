"""The buttons of /settings. What they carry is sealed for their chat: a client may send any text as a button's."""

import hashlib
import hmac
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from distributor.bot.replies import Button, Keyboard
from distributor.bot.words import WORDS
from distributor.settings import Newsletter

#: text → its seal, for one chat
Seal = Callable[[str], str]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a button stands for: a newsletter, wanted or not; or a language."""

    newsletter: str = ""
    wanted: bool = False
    language: str = ""


def settings_keyboard(
    newsletters: Sequence[Newsletter], active: Collection[str], language: str, seal: Seal
) -> Keyboard:
    """A row for each newsletter, and one with the languages."""
    rows = [[_toggle(newsletter, newsletter.slug in active, seal)] for newsletter in newsletters]
    return [*rows, [_language(name, name == language, seal) for name in WORDS]]


def choice_of(data: str, newsletters: Mapping[str, Newsletter], seal: Seal) -> Choice | None:
    """None for what we did not write, or what is about nothing that is there."""
    text, _, given = data.partition("|")
    if not hmac.compare_digest(given.encode(), seal(text).encode()):
        return None
    kind, _, value = text.partition(":")
    if kind == "language":
        return Choice(language=value) if value in WORDS else None
    found = next((slug for slug in newsletters if _short(slug) == value), None)
    return Choice(newsletter=found, wanted=kind == "on") if found else None


def _toggle(newsletter: Newsletter, on: bool, seal: Seal) -> Button:
    kind = "off" if on else "on"
    return Button(
        label=f"{'✅' if on else '▫️'} {newsletter.title}",
        data=_sealed(f"{kind}:{_short(newsletter.slug)}", seal),
    )


def _language(language: str, on: bool, seal: Seal) -> Button:
    return Button(
        label=f"{'✅ ' if on else ''}{WORDS[language].name}", data=_sealed(f"language:{language}", seal)
    )


def _sealed(text: str, seal: Seal) -> str:
    return f"{text}|{seal(text)}"


def _short(slug: str) -> str:
    """A slug has up to 63 characters; a button carries 64 bytes in all."""
    return hashlib.sha256(slug.encode()).hexdigest()[:12]
