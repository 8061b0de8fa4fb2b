"""The sent log: what the workers of this host have handed over, in a file beside the database.

A database that is set back in time (a fail-over that lost the last commits, a backup put in place) has forgotten what
was sent, and would send it again. The file has not: before a worker goes on with an issue it compares the file's ends
with the ledger, and `distributor reconcile` writes into the ledger what the file knows.

One file an issue, one line a slice, appended after the ledger has committed the slice: so the ledger knows everything
that stands here, unless it was set back. The file goes by newsletter and slug, and its rows by address, because a
database that is set back may give the issue and its deliveries other numbers.
"""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

from distributor.errors import DistributorError
from distributor.model import DeliveryState, Issue, Outcome

#: Bytes from the end of the file whose lines are compared with the ledger: the last slice of each of some twenty-five
#: lanes.
TAIL = 262_144
#: How a line begins, and how it ends when it was written whole.
BEGIN, WHOLE = b"[[", b"]]\n"
#: What a database that was set back must not do again. A retry is due again anyway.
KEPT = frozenset({DeliveryState.SENT, DeliveryState.FAILED, DeliveryState.UNCONFIRMED})
SUFFIX = ".log"


class SentLogBroken(DistributorError):
    """The file cannot be written or read: the text says which and why."""


class Handed(NamedTuple):
    """One delivery as the file knows it.

    `addresses`: the one it was sent to, and, when the recipient was found to live elsewhere, the new one behind it; the
    ledger has the delivery under one of them. `seq` is its number at that time. State `pending`: only some of its parts
    were sent, or only a new address was told.
    """

    channel: str
    addresses: Sequence[str]
    seq: int
    resend: int
    state: str
    parts_sent: int
    receipts: Sequence[str]
    code: str


class SentLog:
    """The files of one host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def check(self, issue: Issue) -> None:
        """Whether there is a file that can be written to, before anything is sent. Raises SentLogBroken."""
        self._write(issue, b"")

    def append(self, issue: Issue, outcomes: Iterable[Outcome]) -> None:
        """Adds what a slice has handed over. Raises SentLogBroken."""
        rows = [_row(outcome) for outcome in outcomes if _tells(outcome)]
        if rows:
            # Begun on a line of its own: the one before may be the torn last words of a killed process.
            self._write(issue, b"\n" + _line(rows))

    def ends(self, issue: Issue) -> Sequence[Handed]:
        """The first and the last slices that were handed over; nothing when none was. Raises SentLogBroken."""
        first = next(self._slices(issue), ())
        return list(_with_former_addresses([*first, *self._last(issue)])) if first else ()

    def all(self, issue: Issue) -> Iterator[Handed]:
        """Everything that was handed over, in order. Raises SentLogBroken."""
        return _with_former_addresses(known for slice_ in self._slices(issue) for known in slice_)

    def forget(self, before: datetime) -> None:
        """Drops the files that nobody has written to since then."""
        for path in self.folder.glob(f"*{SUFFIX}"):
            try:
                if path.stat().st_mtime < before.timestamp():
                    path.unlink()
            except FileNotFoundError:
                continue  # another process forgets as well

    def erase(self, channel: str, address: str, instead: str) -> int:
        """Puts `instead` for an address, and for those its deliveries had before it moved there.

        Returns how many files named it. Raises SentLogBroken.
        """
        return sum(_erase(path, channel, address, instead) for path in sorted(self.folder.glob(f"*{SUFFIX}")))

    def _write(self, issue: Issue, line: bytes) -> None:
        path = self._path(issue)
        try:
            file = _open_current(path)
            try:
                # One write: lines of two processes do not mix.
                written = os.write(file, line) if line else 0
            finally:
                os.close(file)
        except OSError as error:
            raise _cannot_be_written(path, error.strerror or str(error)) from error
        if written < len(line):
            raise _cannot_be_written(path, "the disk is full")

    def _slices(self, issue: Issue) -> Iterator[Sequence[Handed]]:
        path = self._path(issue)
        try:
            with path.open("rb") as file:
                for line in file:
                    if rows := _read(path, line):
                        yield rows
        except FileNotFoundError:
            return
        except OSError as error:
            raise _cannot_be_read(path, error.strerror or str(error)) from error

    def _last(self, issue: Issue) -> Sequence[Handed]:
        """What stands in the last TAIL bytes; in more of them when not even one line does."""
        path, size = self._path(issue), TAIL
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            while True:
                start = max(0, end - size)
                file.seek(start)
                if start:
                    file.readline()  # the rest of a line
                rows = [known for line in file for known in _read(path, line)]
                if rows or not start:
                    return rows
                size *= 4

    def _path(self, issue: Issue) -> Path:
        """A slug may be longer, and stranger, than a file's name: the first part is for people."""
        name = f"{issue.newsletter}/{issue.slug}"
        readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80]
        return self.folder / f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:16]}{SUFFIX}"


def _open_current(path: Path) -> int:
    """Opened and locked; whoever puts another file in its place (`_erase`) waits, and is not written past."""
    while True:
        file = _open(path)
        if _is_current(file, fcntl.LOCK_SH):
            return file


def _is_current(file: int, lock: int) -> bool:
    """Locks the file; False, and closed, when it has been taken away or replaced meanwhile."""
    try:
        fcntl.flock(file, lock)
        if os.fstat(file).st_nlink:
            return True
    except BaseException:
        os.close(file)
        raise
    os.close(file)
    return False


def _erase(path: Path, channel: str, address: str, instead: str) -> int:
    """Writes the file anew without the address, while nobody appends to it."""
    try:
        while not _is_current(number := os.open(path, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_EX):
            pass
        with os.fdopen(number, "rb") as file:
            if not any(address.encode() in line for line in file):
                return 0
            places = _places(path, file, channel, address)
            file.seek(0)
            _replace(path, file, (_without(path, line, channel, places, instead) for line in file))
            return 1
    except FileNotFoundError:
        return 0  # retention took it
    except OSError as error:
        raise _cannot_be_written(path, error.strerror or str(error)) from error


def _replace(path: Path, file: BinaryIO, lines: Iterable[bytes]) -> None:
    fresh = path.with_suffix(".fresh")
    fresh.unlink(missing_ok=True)  # of one who was killed
    with os.fdopen(_open(fresh), "wb") as copy:
        copy.writelines(lines)
        copy.flush()
        os.fsync(copy.fileno())
    age = os.fstat(file.fileno())
    os.utime(fresh, ns=(age.st_atime_ns, age.st_mtime_ns))  # retention goes by it
    fresh.replace(path)


def _places(path: Path, file: BinaryIO, channel: str, address: str) -> frozenset[str]:
    """The address, and those that its deliveries had before."""
    file.seek(0)
    moved = [known for line in file for known in _read(path, line) if len(known.addresses) > 1]
    found = {address}
    for known in reversed(moved):
        if known.channel == channel and found.intersection(known.addresses):
            found.update(known.addresses)
    return frozenset(found)


def _without(path: Path, line: bytes, channel: str, places: frozenset[str], instead: str) -> bytes:
    if not any(place.encode() in line for place in places):
        return line
    rows = [
        known._replace(addresses=_renamed(known.addresses, places, instead))
        if known.channel == channel
        else known
        for known in _read(path, line)
    ]
    return _line(rows) if rows else b""  # the torn last words of a killed process may quote it too


def _renamed(addresses: Sequence[str], places: frozenset[str], instead: str) -> Sequence[str]:
    return list(dict.fromkeys(instead if place in places else place for place in addresses))


def _line(rows: Sequence[Sequence[object]]) -> bytes:
    return f"{json.dumps(rows, ensure_ascii=False, separators=(',', ':'))}\n".encode()


def _open(path: Path) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags, 0o600)


def _read(path: Path, line: bytes) -> Sequence[Handed]:
    """A line's rows; none for a torn one, the last words of a killed process. Raises SentLogBroken for anything else."""
    line = line.lstrip(b"\0")  # what a host that lost its power may leave at the end of a file
    if not line.rstrip(b"\n"):
        return ()
    if not line.startswith(BEGIN) and not BEGIN.startswith(line.rstrip(b"\n")):
        raise _cannot_be_read(path, "it holds what no worker has written")
    if not line.endswith(WHOLE):
        return ()
    try:
        return [Handed(*row) for row in json.loads(line)]
    except (ValueError, TypeError) as error:
        raise _cannot_be_read(path, str(error)) from error


def _with_former_addresses(rows: Iterable[Handed]) -> Iterator[Handed]:
    """Each row with all addresses its delivery has had, the oldest first: the ledger may be set back to any of them."""
    moved: dict[tuple[str, int, str], Sequence[str]] = {}
    for known in rows:
        former = moved.get((known.channel, known.seq, known.addresses[0]), ())
        addresses = (*former, *known.addresses)
        if len(known.addresses) > 1:
            moved[known.channel, known.seq, addresses[-1]] = addresses[:-1]
        yield known._replace(addresses=addresses)


def _tells(outcome: Outcome) -> bool:
    return (
        outcome.state in KEPT
        or outcome.new_address is not None
        or outcome.parts_sent > outcome.delivery.parts_sent
    )


def _row(outcome: Outcome) -> tuple[object, ...]:
    """Fields of `Handed`."""
    delivery, address = outcome.delivery, outcome.delivery.recipient.address
    return (
        delivery.recipient.channel,
        (address, outcome.new_address) if outcome.new_address else (address,),
        delivery.identity.seq,
        delivery.identity.resend,
        outcome.state,
        outcome.parts_sent,
        outcome.receipts,
        outcome.code,
    )


def _cannot_be_written(path: Path, why: str) -> SentLogBroken:
    return SentLogBroken(
        f"{path}: the sent log cannot be written: {why}. Nothing more is sent without it; make room, mend the rights of "
        "its folder, or name another folder in engine.journal"
    )


def _cannot_be_read(path: Path, why: str) -> SentLogBroken:
    return SentLogBroken(f"{path}: the sent log cannot be read: {why}")
