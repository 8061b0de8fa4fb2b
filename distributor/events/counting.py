"""When temporary failures add up: an address that fails three mails in a row, or four in thirty days, is given up.

"In a row" goes by the mails that were handed over to the address: one of which nothing bad was heard ends the row, though
silence is no success. "In thirty days" goes by the failures alone, whatever silence is between them; only a mail that
was delivered starts it anew. Many providers report failures and never a delivery: without the first rule a daily
newsletter would be refused four times, without the second a mailbox that is full every other day for ever.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import NamedTuple

IN_A_ROW = 3
WITHIN, TIMES = timedelta(days=30), 4


class Standing(Enum):
    """What is known of one mail."""

    FAILED = auto()  # refused for now, and not heard of since
    DELIVERED = auto()
    SILENT = auto()


class Mail(NamedTuple):
    """One mail to an address: when it was handed over, or first heard of."""

    at: datetime
    standing: Standing


def gives_up(mails: Sequence[Mail]) -> bool:
    """Whether the mails to an address, in any order, ever were too many failures."""
    ordered = sorted(mails, key=lambda mail: mail.at)
    row = 0
    failed: list[datetime] = []
    for at, standing in ordered:
        row = row + 1 if standing is Standing.FAILED else 0
        if standing is Standing.DELIVERED:
            failed.clear()
        if standing is Standing.FAILED:
            failed.append(at)
        lately = [moment for moment in failed if moment > at - WITHIN]
        if row >= IN_A_ROW or len(lately) >= TIMES:
            return True
    return False
