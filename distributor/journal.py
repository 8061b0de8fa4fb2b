"""The journal of a lease: what a lane has in hand, on disk, message by message.

It survives `kill -9` of the process, and whoever takes the lease over on the same host reads in it which message was
under way and how the others ended (Exim's `-J` file is the model). One file a lease, `<token>.journal`, in a folder that
the workers of a host share; the folder's identity stands in its file `host` and, with the lease, in the ledger.

The file is mapped into memory: writing an entry is no system call, and what was written outlives the process because
the pages are the kernel's. It is made at its full size, so that a full disk is met before anything is sent. An entry
counts once the length in the header covers it. The lock on the file ends with the process that holds it: a file that can
be locked belongs to nobody any more.

A successor sets `revoked` before it reads, and a lane looks at it after it has noted what it begins and before it sends:
whatever the clocks say, a message is begun where the successor sees it, or not sent at all.
"""

import fcntl
import json
import mmap
import os
import re
import secrets
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from json.encoder import encode_basestring as quoted
from pathlib import Path
from typing import Any, NamedTuple

from distributor.errors import DistributorError
from distributor.model import DeliveryId, DeliveryState, Outcome, SkipReason, SuppressionReason

MAGIC = b"DLVJ0001"
#: magic, length of the entries, revoked (0 or 1)
HEADER = struct.Struct("<8sQB")
LENGTH_AT, REVOKED_AT, ENTRIES_AT = 8, 16, 32
LENGTH = struct.Struct("<Q")
#: Bytes kept for a slice, and for each of its deliveries: its begin (one a part), its end with the server's words.
SPARE, ROOM = 16_384, 2048
LONGEST_TEXT = 500  # characters; three bytes each at most. RFC 5321 allows a line of 512
LONGEST_ID = 120  # a provider's id, a code
#: Seconds after which an empty file is not one that is being made, but one whose maker was killed.
BEING_MADE = 60
SUFFIX = ".journal"

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class JournalBroken(DistributorError):
    """A journal cannot be made, or cannot be read: the text says which and why."""


class Progress(NamedTuple):
    """How far the parts of a delivery had come when its next one was begun."""

    parts_sent: int
    receipts: Sequence[str]


NOTHING_SENT = Progress(0, ())


@dataclass(frozen=True)
class Record:
    """What a journal tells of one delivery: how far it had come, and, when it ended, the fields of its outcome."""

    identity: DeliveryId
    progress: Progress = NOTHING_SENT
    ended: Mapping[str, Any] | None = None


class Journal:
    """The journal of a lease that is ours."""

    def __init__(self, path: Path, size: int) -> None:
        """Raises JournalBroken when the file cannot be made at its full size."""
        self.path = path
        self._size = size
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX)
                os.posix_fallocate(self._file, 0, size)
                self._map = mmap.mmap(self._file, size)
            except BaseException:
                os.close(self._file)
                path.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise JournalBroken(
                f"cannot keep a journal in {path.parent}: {error.strerror}. Nothing is sent without one; make room, "
                "or name another folder in engine.journal"
            ) from error
        self._at = ENTRIES_AT
        HEADER.pack_into(self._map, 0, MAGIC, 0, 0)

    @property
    def revoked(self) -> bool:
        """Whether somebody has taken the lease over: nothing more may be sent."""
        return self._map[REVOKED_AT] != 0

    def begin(self, identity: DeliveryId, progress: Progress) -> None:
        """Noted before a part is handed over."""
        if progress.parts_sent:
            self._append(_encode([*identity, *progress]) + "\n")
        else:
            self._append(f"[{identity.issue_id},{identity.seq},{identity.resend}]\n")

    def end(self, outcome: Outcome) -> str:
        """Noted as soon as the outcome is known; returns what was noted (`as_json`)."""
        entry = as_json(outcome)
        self._append(entry + "\n")
        return entry

    def undo(self, identity: DeliveryId) -> None:
        """Noted when nothing was handed over after all: the channel is in trouble, and this was no try."""
        self._append(_encode([*identity, None]) + "\n")

    def reset(self) -> None:
        """Forgets everything: the ledger has it, durably."""
        self._at = ENTRIES_AT
        LENGTH.pack_into(self._map, LENGTH_AT, 0)

    def close(self, *, keep: bool = False) -> None:
        """Ends the journal; `keep` leaves the file to a successor."""
        if not keep:
            self.path.unlink(missing_ok=True)
        self._map.close()
        os.close(self._file)

    def _append(self, line: str) -> None:
        entry = line.encode()
        end = self._at + len(entry)
        if end > self._size:
            raise JournalBroken(f"{self.path}: is full; engine.slice may have been changed while it was open")
        self._map[self._at : end] = entry
        self._at = end
        LENGTH.pack_into(self._map, LENGTH_AT, end - ENTRIES_AT)  # only now the entry counts


class NoJournal:
    """For a folder that is not there: with it, a lost worker leaves its whole slice in doubt."""

    revoked = False

    def begin(self, identity: DeliveryId, progress: Progress) -> None: ...

    def end(self, outcome: Outcome) -> str:
        return as_json(outcome)

    def undo(self, identity: DeliveryId) -> None: ...
    def reset(self) -> None: ...
    def close(self, *, keep: bool = False) -> None: ...


class Journals:
    """The folder of journals that the workers of this host share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def host(self) -> str:
        """The folder's identity, made by the first who asks, and this boot of the machine. Raises JournalBroken.

        What was mapped survives the process, not a loss of power: a journal from before it may lack its last words, and
        is worth no more than none.
        """
        return f"{self._identity()}:{boot()}"

    def _identity(self) -> str:
        path = self.folder / "host"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            fresh = self.folder / f".host.{secrets.token_hex(4)}"
            fresh.write_text(secrets.token_hex(8))
            with suppress(FileExistsError):
                os.link(fresh, path)  # the first one wins, and nobody sees half a file
            fresh.unlink()
            return path.read_text()
        except OSError as error:
            raise JournalBroken(
                f"cannot keep journals in {self.folder}: {error.strerror}; check engine.journal and its rights"
            ) from error

    def open(self, token: str, room: int) -> Journal:
        """A new journal for a lease, with room for slices of so many deliveries. Raises JournalBroken."""
        return Journal(self._path(token), ENTRIES_AT + SPARE + room * ROOM)

    def abandoned(self) -> Sequence[str]:
        """Tokens of the leases whose process has ended without closing its journal."""
        return [path.stem for path in self._files() if _is_free(path)]

    def read(self, token: str) -> Sequence[Record] | None:
        """Revokes the lease on this host, then tells what its holder had in hand; None when there is no such journal.

        Raises JournalBroken when there is one that cannot be read: its deliveries are in doubt, and a person must know.
        """
        path = self._path(token)
        try:
            if not path.stat().st_size:
                return []
            with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
                if not any(content[: len(MAGIC)]):
                    return []  # its maker was killed before it began
                if content[: len(MAGIC)] != MAGIC:
                    raise JournalBroken(f"{path}: not a journal of this version")
                content[REVOKED_AT] = 1
                _magic, length, _revoked = HEADER.unpack_from(content)
                return _records(bytes(content[ENTRIES_AT : ENTRIES_AT + length]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, IndexError, TypeError, struct.error) as error:
            raise JournalBroken(f"{path}: cannot be read: {error}") from error

    def discard(self, token: str) -> None:
        """The ledger has what it told."""
        self._path(token).unlink(missing_ok=True)

    def erase(self, mention: re.Pattern[bytes]) -> int:
        """Blots out what matches in the journals that no process holds; returns in how many it stood.

        Byte by byte, so that they can still be read. A journal that is in use is gone with its lease, minutes later.
        """
        left = [*(path for path in self._files() if _is_free(path)), *self.folder.glob("*.broken")]
        return sum(_blot(path, mention) for path in left)

    def set_aside(self, token: str) -> Path:
        """Keeps a journal that cannot be read, under a name that nobody looks at again."""
        path = self._path(token)
        return path.rename(path.with_suffix(".broken"))

    def _path(self, token: str) -> Path:
        return self.folder / f"{token}{SUFFIX}"

    def _files(self) -> Sequence[Path]:
        return sorted(self.folder.glob(f"*{SUFFIX}"))


def boot() -> str:
    """Another text after each start of the machine (Linux; elsewhere always the same)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return ""


def _blot(path: Path, mention: re.Pattern[bytes]) -> bool:
    try:
        with path.open("r+b") as file:
            content = file.read()
            blotted, number = mention.subn(lambda found: b"*" * len(found[0]), content)
            if number:
                file.seek(0)
                file.write(blotted)
            return number > 0
    except FileNotFoundError:
        return False  # folded meanwhile


def _is_free(path: Path) -> bool:
    """Whether no process holds the lock. One that is being made is locked before it has its size."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(file.fileno())
            return found.st_size > 0 or time.time() - found.st_mtime > BEING_MADE
    except OSError:
        return False


#: Fields of an outcome, and how they are read back from what `as_json` made of them.
_READ: Mapping[str, Callable[[Any], Any]] = {
    "state": DeliveryState,
    "started_at": datetime.fromisoformat,
    "duration_ms": int,
    "parts_sent": int,
    "receipts": tuple,
    "code": str,
    "text": str,
    "relay": str,
    "reason": SkipReason,
    "retry_in": lambda value: timedelta(seconds=value),
    "counts": bool,
    "suppress": SuppressionReason,
    "new_address": str,
}


def as_json(outcome: Outcome) -> str:
    """An outcome as a JSON object: issue_id, seq, resend, state and what was noted of it.

    Written by hand: this runs for each message, and a general encoder takes four times as long.
    """
    (issue_id, seq, resend), text = outcome.delivery.identity, outcome.text[:LONGEST_TEXT]
    if "\0" in text:
        text = text.replace("\0", "")  # PostgreSQL's text holds none
    receipts = ",".join([quoted(receipt[:LONGEST_ID]) for receipt in outcome.receipts])
    rest = "" if outcome.state is DeliveryState.SENT and not outcome.new_address else _rest(outcome)
    return (
        f'{{"issue_id":{issue_id},"seq":{seq},"resend":{resend},'
        f'"state":"{outcome.state._value_}","started_at":"{outcome.started_at.isoformat()}",'
        f'"duration_ms":{outcome.duration_ms},"parts_sent":{outcome.parts_sent},"receipts":[{receipts}],'
        f'"code":{quoted(outcome.code[:LONGEST_ID])},"text":{quoted(text)},"relay":{quoted(outcome.relay)}{rest}}}'
    )


def _rest(outcome: Outcome) -> str:
    """What only some outcomes have."""
    some = {
        "reason": outcome.reason,
        "retry_in": None if outcome.retry_in is None else outcome.retry_in.total_seconds(),
        "suppress": outcome.suppress,
        "new_address": outcome.new_address,
    }
    given = {name: value for name, value in some.items() if value is not None}
    return f',"counts":{_encode(outcome.counts)}' + "".join(
        f',"{name}":{_encode(value)}' for name, value in given.items()
    )


def record_of(outcome: Outcome) -> Record:
    """What a journal would tell of this outcome."""
    return _record(json.loads(as_json(outcome)))


def _records(entries: bytes) -> Sequence[Record]:
    """The last word on each delivery, in the order they were begun."""
    found: dict[DeliveryId, Record] = {}
    for line in entries.splitlines():
        entry = json.loads(line)
        record = _record(entry) if isinstance(entry, dict) else _begun(*entry)
        if record is None:
            found.pop(DeliveryId(*entry[:3]), None)
        else:
            found[record.identity] = record
    return list(found.values())


def _record(entry: Mapping[str, Any]) -> Record:
    identity = DeliveryId(entry["issue_id"], entry["seq"], entry["resend"])
    return Record(identity, ended={name: _READ[name](entry[name]) for name in _READ if name in entry})


def _begun(issue_id: int, seq: int, resend: int, *more: Any) -> Record | None:
    """None: it was undone."""
    if more == (None,):
        return None
    return Record(DeliveryId(issue_id, seq, resend), Progress(*more) if more else NOTHING_SENT)
