"""Processes of ours: started in groups of their own, frozen, killed, and always gone in the end."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from distributor.journal import ENTRIES_AT, HEADER, _records


class ChaosError(Exception):
    """The run itself cannot go on; the text says why."""


class Process:
    """A process in a group of its own, with its output in a file."""

    def __init__(self, argv: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path) -> None:
        self.log = log
        #: How PostgreSQL knows its connections.
        self.name = log.stem
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environment, "PGAPPNAME": self.name},
                cwd=folder,
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def children(self) -> list[int]:
        """Its pool."""
        found: list[int] = []
        with suppress(OSError):
            for task in Path(f"/proc/{self.pid}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        return found

    def freeze(self) -> None:
        """SIGSTOP to parent and pool; returns when all of them stand still."""
        self.signal_all(signal.SIGSTOP)
        wait_until(lambda: all(map(_stands_still, [self.pid, *self.children])), 5, every=0.001)

    def signal_all(self, how: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, how)

    def go_on(self) -> None:
        self.signal_all(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM to the parent alone, as a supervisor does."""
        self._process.terminate()

    def wait(self, seconds: float) -> bool:
        """Whether it ended in that time."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return not self.running

    def kill_parent(self) -> None:
        """SIGKILL to the parent alone: its pool finds out by itself."""
        self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        """SIGKILL to parent and pool."""
        self.signal_all(signal.SIGKILL)
        self._process.wait()


class SinkProcess:
    """The counting sink in a process of its own, and its control socket."""

    def __init__(self, seed: int) -> None:
        program = str(Path(__file__).with_name("sink.py"))
        self._process = subprocess.Popen(
            [sys.executable, program, str(seed)], stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdout is not None
        self.port, control = map(int, self._process.stdout.readline().split())
        self._control = socket.create_connection(("127.0.0.1", control), timeout=60)
        self._answers = self._control.makefile("rb")

    def ask(self, **faults: Any) -> Mapping[str, int]:
        """Changes faults; the totals so far."""
        answer: Mapping[str, int] = self._ask(faults)["totals"]
        return answer

    @property
    def messages(self) -> int:
        """How many final dots have come."""
        return self.ask().get("messages", 0)

    def readers(self) -> Mapping[str, tuple[int, int, int, list[str]]]:
        """Recipient → accepted, unanswered, refused, Message-IDs."""
        return {address: tuple(each) for address, each in self._ask({"report": True})["readers"].items()}

    def close(self) -> None:
        self._answers.close()
        self._control.close()
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def _ask(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        self._control.sendall(json.dumps(asked).encode() + b"\n")
        answer: dict[str, Any] = json.loads(self._answers.readline())
        if "error" in answer:
            raise ChaosError(f"the sink does not know: {answer['error']}")
        return answer


def _stands_still(pid: int) -> bool:
    """Whether it is stopped, or gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "TZX"
    except OSError:
        return True


def stop(pid: int) -> None:
    """SIGSTOP; returns when it stands still. Raises ProcessLookupError."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: _stands_still(pid), 5, every=0.001)


def open_intents(pids: Iterable[int]) -> int:
    """Messages that these processes have begun and not ended, by the journals they hold."""
    return sum(_begun(journal) for pid in pids for journal in held_journals(pid))


def holds_a_chunk(pids: Iterable[int]) -> bool:
    return any(held_journals(pid) for pid in pids)


def held_journals(pid: int) -> set[Path]:
    """The journals of its leases (a mapped file is open twice)."""
    found = set()
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                target = os.readlink(descriptor)  # noqa: PTH115 - a deleted file is no path
                if target.endswith(".journal"):
                    found.add(Path(target))
    return found


def _begun(journal: Path) -> int:
    """Entries without an end in a journal, read as the bytes lie there: looking must not revoke its lease."""
    try:
        content = journal.read_bytes()
    except OSError:
        return 0
    if len(content) < ENTRIES_AT:
        return 0
    _magic, length, _revoked = HEADER.unpack_from(content)
    try:
        records = _records(content[ENTRIES_AT : ENTRIES_AT + length])
    except (ValueError, TypeError, IndexError):  # read while it was being written
        return 0
    return len([record for record in records if record.ended is None])


def wait_until(true: Callable[[], bool], seconds: float, every: float = 0.1) -> bool:
    """Whether it became true in that time."""
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(every)
    return True
