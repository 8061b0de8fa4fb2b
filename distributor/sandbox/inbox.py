"""Everything the sandbox was sent, accepted or refused: append-only, written before it is answered."""

import hashlib
import json
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import SEEK_END, BytesIO
from pathlib import Path
from typing import Any, BinaryIO

CHANNELS = ("email", "telegram", "wecom", "wechat")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing that was sent. `fingerprint` tells two copies of one message from two messages.

    `reason` says why it was refused; `note` what befell an accepted one (a fault); `violations` what a strict
    reader of the standards finds wrong with it. `revises` names the entry that an edit replaces; an edit is not counted.
    """

    id: int
    at: str
    channel: str
    address: str
    accepted: bool
    content: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    reason: str = ""
    note: str = ""
    violations: Sequence[str] = ()
    mail: Sequence[int] | None = None
    revises: int | None = None

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


class Inbox:
    """Entries in memory and, with a folder, in `inbox.jsonl` (one JSON line each) beside `mail.raw`; thread-safe.

    An entry names its mail by offset and length in `mail.raw`: a file for each mail costs 0.7 ms of file system. A line is with the kernel before the method returns: SIGKILL of the process loses nothing (a power cut may).
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self._by_address: defaultdict[tuple[str, str], list[Entry]] = defaultdict(list)
        self._copies: Counter[tuple[str, str, str]] = Counter()
        self._tallies: Counter[tuple[str, str]] = Counter()
        self._addresses: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._lines: BinaryIO = BytesIO()
        self._raw: BinaryIO = BytesIO()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._raw = (folder / "mail.raw").open("a+b", buffering=0)
            self._lines = self._reopen(folder / "inbox.jsonl")

    def close(self) -> None:
        self._lines.close()
        self._raw.close()

    def accepted(
        self,
        channel: str,
        address: str,
        content: Mapping[str, Any],
        *,
        fingerprint: str = "",
        mail: bytes | None = None,
        note: str = "",
        violations: Sequence[str] = (),
        revises: int | None = None,
    ) -> Entry:
        """Keeps what was accepted. Without a `fingerprint` the content is its own."""
        return self._append(
            mail,
            channel=channel,
            address=address,
            accepted=True,
            content=content,
            fingerprint=fingerprint or _hash(content),
            note=note,
            violations=tuple(violations),
            revises=revises,
        )

    def refused(
        self,
        channel: str,
        address: str,
        reason: str,
        content: Mapping[str, Any] | None = None,
        *,
        mail: bytes | None = None,
    ) -> Entry:
        """Keeps what was refused, with the reason that was given."""
        return self._append(
            mail, channel=channel, address=address, accepted=False, content=content or {}, reason=reason
        )

    def count(self, channel: str | None = None, *, accepted: bool = True) -> int:
        """How many were accepted (or refused) on a channel, or on all."""
        word = "accepted" if accepted else "refused"
        return sum(self._tallies[name, word] for name in ((channel,) if channel else CHANNELS))

    def addresses(self, channel: str) -> Counter[str]:
        """Accepted messages by address."""
        with self._lock:
            return Counter(self._addresses[channel])

    def entries(
        self, channel: str | None = None, address: str | None = None, *, search: str = ""
    ) -> list[Entry]:
        """Oldest first. `address` is exact, `search` a part of it."""
        with self._lock:
            found = (
                list(self._entries)
                if channel is None or address is None
                else list(self._by_address.get((channel, address), ()))
            )
        part = search.lower()
        return [
            entry
            for entry in found
            if channel in (None, entry.channel)
            and address in (None, entry.address)
            and part in entry.address.lower()
        ]

    def entry(self, number: int) -> Entry:
        """Raises KeyError when there is none."""
        if not 0 < number <= len(self._entries):
            raise KeyError(number)
        return self._entries[number - 1]

    def mail(self, number: int) -> bytes:
        """The raw mail of an entry. Raises KeyError when it has none."""
        place = self.entry(number).mail
        if place is None:
            raise KeyError(number)
        with self._lock:
            self._raw.seek(place[0])
            return self._raw.read(place[1])

    def counts(self) -> dict[str, dict[str, int]]:
        """By channel: accepted, refused, addresses, unique (address, message) pairs, duplicates of those."""
        return {channel: self._counts(channel) for channel in CHANNELS}

    def _counts(self, channel: str) -> dict[str, int]:
        accepted, duplicates = self._tallies[channel, "accepted"], self._tallies[channel, "duplicates"]
        return {
            "accepted": accepted,
            "refused": self._tallies[channel, "refused"],
            "addresses": len(self._addresses[channel]),
            "unique": accepted - duplicates,
            "duplicates": duplicates,
        }

    def _append(self, mail: bytes | None, **values: Any) -> Entry:
        with self._lock:
            entry = Entry(
                id=len(self._entries) + 1,
                at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                mail=None if mail is None else self._keep(mail),
                **values,
            )
            line = json.dumps(entry.to_json(), ensure_ascii=False)
            self._lines.write(line.encode(errors="replace") + b"\n")
            self._index(entry)
        return entry

    def _index(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._by_address[entry.channel, entry.address].append(entry)
        if entry.revises is not None:
            return
        self._tallies[entry.channel, "accepted" if entry.accepted else "refused"] += 1
        if not entry.accepted:
            return
        copy = (entry.channel, entry.address, entry.fingerprint)
        self._copies[copy] += 1
        self._tallies[entry.channel, "duplicates"] += self._copies[copy] > 1
        self._addresses[entry.channel][entry.address] += 1

    def _keep(self, mail: bytes) -> tuple[int, int]:
        offset = self._raw.seek(0, SEEK_END)
        self._raw.write(mail)
        return offset, len(mail)

    def _reopen(self, path: Path) -> BinaryIO:
        whole = 0
        file = path.open("a+b", buffering=0)
        with path.open("rb") as lines:
            for entry, end in _read(lines):
                self._index(entry)
                whole = end
        file.truncate(whole)  # a line torn by SIGKILL was never answered
        return file


def _read(lines: BinaryIO) -> Iterator[tuple[Entry, int]]:
    end = 0
    for line in lines:
        if not line.endswith(b"\n"):
            return
        end += len(line)
        yield Entry(**json.loads(line)), end


def _hash(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
