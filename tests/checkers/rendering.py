"""What the checkers look at: plain values, so that they share no code with what they check."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """What one channel made of a post in one variant.

    `parts` are the contents of its messages in order; `address` is where the full text lives; `mail` is the composed
    message, for a channel that has one, and `values` are what its placeholders were filled with.
    """

    channel: str
    variant: str
    parts: Sequence[Mapping[str, str]]
    warnings: Sequence[str] = ()
    address: str = ""
    mail: bytes = b""
    values: Mapping[str, str] | None = None

    @property
    def name(self) -> str:
        """Channel and variant, as a person calls them."""
        usual = self.variant in {"default", "article"}
        return self.channel if usual else f"{self.channel}/{self.variant}"

    @property
    def is_teaser(self) -> bool:
        """Whether the message says of itself that it is not the whole post."""
        return any(re.search(r"teaser|shortened", warning, re.IGNORECASE) for warning in self.warnings)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a checker found: violations of rules, and the figures for the table.

    `share` is how much of its tightest limit the message uses (1.0 = all of it); `links` are (kept, all).
    """

    violations: Sequence[str]
    bytes: int
    share: float
    links: tuple[int, int]
    parts: int = 1
    teaser: bool = False
