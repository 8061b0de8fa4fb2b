"""Cells of a CSV that a spreadsheet must not take for a formula.

A cell that begins with one of = + - @ (or their wide forms), a tab or a line break gets an apostrophe in front, which
spreadsheets show as text; reading takes it away again. What begins with apostrophes and then such a character gets one
more, so that `plain(guarded(cell)) == cell` holds for every text.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence

_FORMULA = r"[=+\-@＝＋－＠\t\r\n]"
_NEEDS_GUARD = re.compile(rf"'*{_FORMULA}")
_GUARDED = re.compile(rf"'+{_FORMULA}")


def guarded(cell: str) -> str:
    """A cell as it is written."""
    return f"'{cell}" if _NEEDS_GUARD.match(cell) else cell


def plain(cell: str) -> str:
    """A cell as it was before it was `guarded`; any other as it stands."""
    return cell[1:] if _GUARDED.match(cell) else cell


def joined(values: Iterable[str]) -> str:
    """Several values in one cell, separated by commas; one with a comma or a quote in it is quoted."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(list(values))
    return line.getvalue()


def parted(cell: str) -> Sequence[str]:
    """The values that were `joined`; blanks around them do not count."""
    row = next(csv.reader([cell], skipinitialspace=True), [])
    return [value.strip() for value in row if value.strip()]
