"""The sent log: what the workers of this host have handed over, in a file beside the database.

A database that is set back in time (a fail-over that lost the last commits, a backup put in place) has forgotten what
was sent, and would send it again. The file has not: before a worker goes on with an issue it compares the file's last
line with the ledger, and `distributor reconcile` writes into the ledger what the file knows.

One file an issue, one line a slice, appended after the ledger has committed the slice: so the ledger knows everything
that stands here, unless it was set back. It is kept by newsletter and slug, because a database that is set back may give
the issue another number.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from distributor.errors import DistributorError
from distributor.model import DeliveryState, Issue, Outcome

#: Bytes from the end of the file in which its last whole line is looked for: a slice of 500 rows.
TAIL = 131_072
#: How a line ends that was written whole.
WHOLE = b"]]\n"
#: What a database that was set back must not do again. A retry is due again anyway.
KEPT = frozenset({DeliveryState.SENT, DeliveryState.FAILED, DeliveryState.UNCONFIRMED})


class SentLogBroken(DistributorError):
    """The file cannot be written or read: the text says which and why."""


class Handed(NamedTuple):
    """One delivery as the file knows it."""

    channel: str
    address: str
    resend: int
    state: str
    parts_sent: int
    receipts: Sequence[str]
    code: str


class SentLog:
    """The files of one host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def append(self, issue: Issue, outcomes: Iterable[Outcome]) -> None:
        """Adds what a slice has handed over. Raises SentLogBroken."""
        rows = [_row(outcome) for outcome in outcomes if outcome.state in KEPT]
        if not rows:
            return
        # Begun on a line of its own: the one before may be the torn last words of a killed process.
        line = "\n" + json.dumps(rows, ensure_ascii=False, separators=(",", ":")) + "\n"
        try:
            file = self._open(self._path(issue), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                os.write(file, line.encode())  # one write: lines of two processes do not mix
            finally:
                os.close(file)
        except OSError as error:
            raise SentLogBroken(f"{self._path(issue)}: cannot be written: {error.strerror}") from error

    def ends(self, issue: Issue) -> Sequence[Handed]:
        """The first and the last slice that were handed over; nothing when none was. Raises SentLogBroken."""
        first = next(self._slices(issue), ())
        return [*first, *self._last(issue)] if first else ()

    def all(self, issue: Issue) -> Iterator[Handed]:
        """Everything that was handed over, in order. Raises SentLogBroken."""
        for rows in self._slices(issue):
            yield from rows

    def forget(self, before: datetime) -> None:
        """Drops the files that nobody has written to since then."""
        for path in self.folder.glob("*.log"):
            if path.stat().st_mtime < before.timestamp():
                path.unlink(missing_ok=True)

    def _slices(self, issue: Issue) -> Iterator[Sequence[Handed]]:
        try:
            with self._path(issue).open("rb") as file:
                for line in file:
                    if line.endswith(WHOLE):
                        yield self._slice(issue, line)
        except FileNotFoundError:
            return
        except OSError as error:
            raise SentLogBroken(f"{self._path(issue)}: cannot be read: {error.strerror}") from error

    def _last(self, issue: Issue) -> Sequence[Handed]:
        with self._path(issue).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = [line for line in file if line.endswith(WHOLE)]
        return self._slice(issue, lines[-1]) if lines else ()

    def _slice(self, issue: Issue, line: bytes) -> Sequence[Handed]:
        try:
            return [Handed(*row) for row in json.loads(line)]
        except (ValueError, TypeError) as error:
            raise SentLogBroken(f"{self._path(issue)}: cannot be read: {error}") from error

    def _path(self, issue: Issue) -> Path:
        return self.folder / f"{quote(issue.newsletter, safe='')}.{quote(issue.slug, safe='')}.log"

    def _open(self, path: Path, flags: int) -> int:
        try:
            return os.open(path, flags | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _row(outcome: Outcome) -> tuple[object, ...]:
    delivery = outcome.delivery
    return (
        delivery.recipient.channel,
        outcome.new_address or delivery.recipient.address,
        delivery.identity.resend,
        outcome.state,
        outcome.parts_sent,
        outcome.receipts,
        outcome.code,
    )
