"""Everything the sandbox was sent, accepted or refused: append-only, written before it is answered."""

import hashlib
import json
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

CHANNELS = ("email", "telegram", "wecom")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing that was sent. `fingerprint` tells two copies of one message from two messages.

    `reason` says why it was refused; `note` what befell an accepted one (a fault); `violations` what a strict
    reader of the standards finds wrong with it.
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

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


class Inbox:
    """Entries in memory and, with a folder, in `inbox.jsonl` (one JSON line each) and `mail/*.eml`; thread-safe.

    A line is with the kernel before the method returns: SIGKILL of the process loses nothing (a power cut may).
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self._by_address: defaultdict[tuple[str, str], list[Entry]] = defaultdict(list)
        self._copies: Counter[tuple[str, str, str]] = Counter()
        self._tallies: Counter[tuple[str, str]] = Counter()
        self._addresses: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._mails: dict[int, bytes] = {}
        self._file = None if folder is None else self._open(folder)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

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
        if number in self._mails:
            return self._mails[number]
        try:
            return self._mail_path(number).read_bytes()
        except OSError:
            raise KeyError(number) from None

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
                id=len(self._entries) + 1, at=datetime.now(UTC).isoformat(timespec="milliseconds"), **values
            )
            if mail is not None:
                self._keep_mail(entry.id, mail)
            if self._file is not None:
                line = json.dumps(entry.to_json(), ensure_ascii=False)
                self._file.write(line.encode(errors="replace") + b"\n")
            self._index(entry)
        return entry

    def _index(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._by_address[entry.channel, entry.address].append(entry)
        self._tallies[entry.channel, "accepted" if entry.accepted else "refused"] += 1
        if not entry.accepted:
            return
        copy = (entry.channel, entry.address, entry.fingerprint)
        self._copies[copy] += 1
        self._tallies[entry.channel, "duplicates"] += self._copies[copy] > 1
        self._addresses[entry.channel][entry.address] += 1

    def _keep_mail(self, number: int, mail: bytes) -> None:
        if self.folder is None:
            self._mails[number] = mail
        else:
            self._mail_path(number).write_bytes(mail)

    def _mail_path(self, number: int) -> Path:
        if self.folder is None:
            raise KeyError(number)
        return self.folder / "mail" / f"{number:08d}.eml"

    def _open(self, folder: Path) -> Any:
        (folder / "mail").mkdir(parents=True, exist_ok=True)
        path = folder / "inbox.jsonl"
        whole = 0
        if path.exists():
            with path.open("rb") as lines:
                for entry, end in _read(lines):
                    self._index(entry)
                    whole = end
        file = path.open("ab", buffering=0)
        file.truncate(whole)  # a line torn by SIGKILL was never answered
        return file


def _read(lines: Any) -> Iterator[tuple[Entry, int]]:
    end = 0
    for line in lines:
        if not line.endswith(b"\n"):
            return
        end += len(line)
        yield Entry(**json.loads(line)), end


def _hash(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
