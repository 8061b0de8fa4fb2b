"""The far end: compiles sink.c, runs it, asks it what arrived."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from bench.processes import CACHE, BenchError

SOURCE = Path(__file__).with_name("sink.c")
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")


@dataclass(frozen=True)
class Counts:
    """What arrived since the last reset. Times are CLOCK_REALTIME in nanoseconds, 0 before the first arrival."""

    messages: int
    recipients: int
    unique: int
    duplicates: int
    bytes: int
    connections: int
    open: int
    peak: int
    dropped: int
    first_ns: int
    last_ns: int

    @property
    def seconds(self) -> float:
        """From the first arrival to the last."""
        return (self.last_ns - self.first_ns) / 1e9

    @property
    def rate(self) -> float:
        """Messages a second between the first arrival and the last."""
        return (self.messages - 1) / self.seconds if self.last_ns > self.first_ns else 0.0


@cache
def compiler() -> str:
    """The C compiler. Raises BenchError."""
    found = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not found:
        raise BenchError("no C compiler for the sink: apt-get install gcc libc6-dev (or set CC)")
    return found


def build(cache_folder: Path = CACHE) -> Path:
    """The compiled sink; compiled again only when its source has changed. Raises BenchError."""
    mark = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    program = cache_folder / f"sink-{mark}"
    if program.is_file():
        return program
    cache_folder.mkdir(parents=True, exist_ok=True)
    (cache_folder / ".gitignore").write_text("*\n", "utf-8")
    fresh = program.with_name(f"{program.name}.{os.getpid()}")
    done = subprocess.run(
        [compiler(), *FLAGS, "-o", str(fresh), str(SOURCE)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchError(f"{SOURCE.name} does not compile:\n{done.stderr}")
    return fresh.rename(program)


class Sink:
    """A running sink. `delay_ms`: how far away it is, for a round trip. It ends with the block, or with us.

    The kernel ends it with the thread that started it, so that a killed benchmark leaves none behind.
    """

    def __init__(self, delay_ms: int = 0) -> None:
        self._process = subprocess.Popen(
            [build(), "--delay", str(delay_ms)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        ports = self._process.stdout.readline().split()
        self._process.stdout.close()
        if len(ports) != 2:
            raise BenchError(f"the sink did not start: status {self._process.wait()}")
        self.pid = self._process.pid
        self.port, self._control_port = map(int, ports)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.wait()

    def counts(self) -> Counts:
        return Counts(**self._ask("stats"))

    def histogram(self) -> tuple[list[int], dict[str, list[int]]]:
        """Recipients by second since the first arrival: of all, and by their domain."""
        answer = self._ask("histogram")
        return answer["seconds"], answer["domains"]

    def reset(self) -> None:
        self._ask("reset")

    def _ask(self, what: str) -> Any:
        with (
            socket.create_connection(("127.0.0.1", self._control_port), timeout=10) as connection,
            connection.makefile("rb") as answers,
        ):
            connection.sendall(f"{what}\n".encode())
            return json.loads(answers.readline())
