"""What the bot sends back."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Button:
    """`data` comes back when it is pressed."""

    label: str
    data: str


Keyboard = Sequence[Sequence[Button]]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A message, as HTML; with `edits` it takes the place of that one."""

    chat: str
    text: str
    keyboard: Keyboard = ()
    edits: int | None = None


@dataclass(frozen=True, kw_only=True)
class Toast:
    """The answer to a pressed button: a line that goes by itself."""

    query: str
    text: str = ""


Replies = Sequence[Reply | Toast]
