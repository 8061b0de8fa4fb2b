"""What commands print: tables for people, JSON for programs, errors with the right exit status, progress."""

import dataclasses
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from distributor.errors import ConfigError, Kind, PostError, RequestRefused, SendError, ServiceDown
from distributor.model import Tally

#: Columns of a table that goes into a pipe or a file: nothing is cut there.
PIPE_WIDTH = 250
BLANKS_AT_THE_END = re.compile(r" +(\x1b\[0m)?$", re.MULTILINE)

#: No emoji: `:100:` is a line of a file, `:a:` a part of an IPv6 address.
out = Console(soft_wrap=True, highlight=False, emoji=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
#: Tables take the width they need: an address that was cut short could not be copied from one.
wide = Console(soft_wrap=True, highlight=False, emoji=False, width=10_000)
err = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)

#: Wrong use and wrong configuration: 2. What was right and could not be done: 1.
STATUS: Sequence[tuple[type[Exception], int]] = (
    (ConfigError, 2),
    (PostError, 2),
    (RequestRefused, 2),
    (ServiceDown, 1),
    (SendError, 1),
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
FilterText = Annotated[
    str,
    typer.Option(
        "--filter",
        help='Only these readers, such as "tag:beta and lang:zh" (docs/segments.md).',
        metavar="FILTER",
    ),
]
Limit = Annotated[int, typer.Option(min=1, help="At most so many.")]
NewsletterName = Annotated[
    str | None,
    typer.Option("--newsletter", "-n", help="The newsletter, when there are several.", metavar="SLUG"),
]


def complain(error: Exception | str) -> int:
    """Prints an error to standard error; returns the exit status that belongs to it."""
    err.print("[red]error:[/red] ", end="")
    err.print(str(error), markup=False)
    if isinstance(error, SendError) and error.kind is Kind.CONFIG:
        return 2
    return next((status for kind, status in STATUS if isinstance(error, kind)), 1)


def warn(warning: object) -> None:
    """What does not stop the command, on standard error: standard output stays what it was."""
    err.print(str(warning), markup=False)


def say(text: str = "") -> None:
    out.print(text, markup=False)


def print_json(value: object) -> None:
    """Plain JSON on standard output, whatever the terminal."""
    sys.stdout.write(json_text(value))


def json_text(value: object) -> str:
    return json.dumps(plain(value), ensure_ascii=False, indent=2) + "\n"


def plain(value: object) -> Any:
    """Dataclasses, times and paths as JSON's own types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value) if isinstance(value, Path) else value


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[str] = ()) -> None:
    """A plain table; columns named in `numbers` are aligned to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in header:
        table.add_column(name, justify="right" if name in numbers else "left", no_wrap=name in numbers)
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    with wide.capture() as printed:
        wide.print(table)
    # The last column is filled up to its longest cell, and would wrap into blank lines on a terminal.
    wide.file.write(BLANKS_AT_THE_END.sub(r"\1", printed.get()))


TALLY = ("planned", "sent", "failed", "skipped", "unconfirmed", "sending", "pending")


def print_tallies(tallies: Mapping[str, Tally]) -> None:
    """One line a channel, a total, and whether the sum holds."""
    total = sum(tallies.values(), Tally())
    rows = [(name, *(getattr(tally, column) for column in TALLY)) for name, tally in tallies.items()]
    if len(rows) > 1:
        rows.append(("total", *(getattr(total, column) for column in TALLY)))
    print_table(["channel", *TALLY], rows, numbers=TALLY)
    wrong = [name for name, tally in tallies.items() if not tally.balanced]
    if wrong:
        say(
            f"THE SUM DOES NOT HOLD on {', '.join(wrong)}: planned ≠ the sum of the states. Please report this."
        )


def duration(written: str, option: str) -> timedelta:
    """An option's "10m" as a timedelta; wrong use otherwise."""
    from distributor.settings import parse_duration  # noqa: PLC0415 - cli/__init__.py

    try:
        value = parse_duration(written)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
    assert isinstance(value, timedelta)
    return value
