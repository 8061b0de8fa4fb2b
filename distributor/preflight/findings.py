"""What a check says, and the refusal that errors become before a send."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from distributor.errors import PostError


class Severity(StrEnum):
    """What a finding means for a send; in this order."""

    ERROR = "error"  # must not go out: stops the send
    WARNING = "warning"  # readers will notice: the send goes on, and it is logged
    NOTE = "note"  # could be better


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing in one place; `line` counts in the file, from 1, and is None for the post as a whole."""

    check: str
    severity: Severity
    path: Path
    line: int | None
    text: str
    fix: str

    @property
    def place(self) -> str:
        return f"{self.path}:{self.line}" if self.line else str(self.path)

    def __str__(self) -> str:
        return f"{self.place}: {self.summary}"

    @property
    def summary(self) -> str:
        return f"{self.severity}: {self.check}: {self.text}" + (f" → {self.fix}" if self.fix else "")


class Said(NamedTuple):
    """What a check found, before its name, severity and remedy come from the table."""

    line: int | None
    text: str


#: Findings that no setting takes away: without them rendering refuses the post.
FINAL = frozenset({"refused", "link-nowhere", "picture-nowhere"})


class NotFit(PostError):
    """A post that must not go out: every error that was found, a line each, and how to overrule them."""

    def __init__(self, errors: Sequence[Finding]) -> None:
        first, *others = errors
        names = dict.fromkeys(error.check for error in errors)
        overrule = (
            f"If it is right as it is, put this into its front matter: preflight_ignore: {', '.join(names)}"
        )
        last = [] if FINAL.intersection(names) else [overrule]
        super().__init__(first.path, "\n".join([first.summary, *map(str, others), *last]), first.line)


def gathered(lines: Sequence[int | None], text: str, most: int = 5) -> Iterator[Said]:
    """One finding for what occurs in many places: at the first, with the lines of the others."""
    if not lines:
        return
    others = [str(line) for line in dict.fromkeys(lines[1:]) if line and line != lines[0]]
    more = f" and {len(others) - most} more" if len(others) > most else ""
    also = f" (also on {'line' if len(others) == 1 else 'lines'} {', '.join(others[:most])}{more})"
    yield Said(lines[0], text + (also if others else ""))


def quoted(text: str, most: int = 40) -> str:
    """A piece of the post inside a sentence, short and on one line."""
    text = " ".join(text.split())
    return f'"{text[: most - 1]}…"' if len(text) > most else f'"{text}"'
