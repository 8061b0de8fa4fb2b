"""Cells of a CSV that a spreadsheet must not take for a formula.

A cell that begins with one of = + - @ (or their wide forms), a tab or a line break gets an apostrophe in front, which
spreadsheets show as text; reading takes it away again. What begins with apostrophes and then such a character gets one
more, so that `plain(guarded(cell)) == cell` holds for every text.
"""

import re

_FORMULA = r"[=+\-@＝＋－＠\t\r\n]"
_NEEDS_GUARD = re.compile(rf"'*{_FORMULA}")
_GUARDED = re.compile(rf"'+{_FORMULA}")


def guarded(cell: str) -> str:
    """A cell as it is written."""
    return f"'{cell}" if _NEEDS_GUARD.match(cell) else cell


def plain(cell: str) -> str:
    """A cell as it was before it was `guarded`; any other as it stands."""
    return cell[1:] if _GUARDED.match(cell) else cell
