"""Child processes: started in groups of their own, always killed in the end, measured through /proc."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
#: Compiled programs; git ignores it.
CACHE = ROOT / ".bench"

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class BenchError(Exception):
    """The benchmark cannot go on; the text says what to do."""


def say(line: str) -> None:
    """A progress line. On stderr: stdout is for the results."""
    print(f"{time.strftime('%H:%M:%S')}  {line}", file=sys.stderr, flush=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(true: Callable[[], bool], seconds: float, what: str, *, every: float = 0.1) -> None:
    """Raises BenchError when it does not become true."""
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            raise BenchError(f"not within {seconds:.0f} s: {what}")
        time.sleep(every)


class Child:
    """A process in a group of its own, with its output in a file."""

    def __init__(
        self, name: str, argv: Sequence[str], *, log: Path, environment: Mapping[str, str], cwd: Path
    ) -> None:
        self.name, self.log = name, log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=cwd,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.end()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def check(self) -> None:
        """Raises BenchError, with its last lines, when it has ended."""
        if not self.running:
            raise BenchError(
                f"{self.name} ended with status {self._process.returncode}:\n{self.last_lines()}"
            )

    def says(self, text: str) -> bool:
        """Whether its output holds the text. Raises BenchError when it has ended."""
        self.check()
        return text in self.log.read_text("utf-8", "replace")

    def wait(self) -> int:
        return self._process.wait()

    def last_lines(self, number: int = 15) -> str:
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-number:])

    def end(self, patience: float = 10) -> None:
        """SIGTERM to the process, then SIGKILL to its whole group."""
        if self.running:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


def tree(pid: int) -> list[int]:
    """A process and all that descend from it, as far as they live."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        with suppress(OSError):
            children = [
                int(child)
                for task in Path(f"/proc/{one}/task").iterdir()
                for child in (task / "children").read_text().split()
            ]
            found.append(one)
            waiting += children
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time of process trees, with what their reaped children used."""
    ticks = 0
    for pid in (each for root in pids for each in tree(root)):
        with suppress(OSError):
            ticks += parse_cpu_ticks(Path(f"/proc/{pid}/stat").read_text())
    return ticks / TICKS


def parse_cpu_ticks(stat: str) -> int:
    """utime + stime + cutime + cstime of a line of /proc/PID/stat. The name in brackets may hold anything."""
    fields = stat.rpartition(")")[2].split()
    return sum(map(int, fields[11:15]))


def status_kib(pid: int, key: str) -> int:
    """A value of /proc/PID/status in KiB, such as VmHWM; 0 when the process has gone."""
    try:
        match = re.search(rf"^{key}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(match[1]) if match else 0


@dataclass
class MemoryWatch:
    """Looks at the memory of process trees while a block runs."""

    roots: Sequence[int]
    every: float = 1.0
    #: Seconds since the start → MiB of all together.
    series: list[tuple[float, float]] = field(default_factory=list)
    #: Process → its peak in MiB (VmHWM).
    peaks: dict[int, float] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        begun = time.monotonic()
        while True:
            pids = [pid for root in self.roots for pid in tree(root)]
            self.series.append(
                (time.monotonic() - begun, sum(status_kib(pid, "VmRSS") for pid in pids) / 1024)
            )
            for pid in pids:
                if peak := status_kib(pid, "VmHWM"):
                    self.peaks[pid] = peak / 1024
            if self._stop.wait(self.every):
                return
