"""A client for one endpoint: requests that are ready as bytes, over kept connections."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bench.processes import BenchError


@dataclass(frozen=True)
class Load:
    """What so many requests took."""

    seconds: float
    #: Of each request, sorted.
    latencies: Sequence[float]
    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """In milliseconds."""
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * share))] * 1000


def load(port: int, requests: Sequence[bytes], connections: int) -> Load:
    """Sends them all."""
    return asyncio.run(_load(port, requests, connections))


async def _load(port: int, requests: Sequence[bytes], connections: int) -> Load:
    waiting, latencies, statuses = iter(requests), list[float](), Counter[str]()
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(_connection(port, waiting, latencies, statuses))
    return Load(time.perf_counter() - begun, sorted(latencies), statuses)


async def _connection(
    port: int, requests: Iterator[bytes], latencies: list[float], statuses: Counter[str]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for request in requests:
            begun = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(_length(head))
            latencies.append(time.perf_counter() - begun)
            statuses[head[9:12].decode()] += 1
    finally:
        writer.close()


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    raise BenchError("an answer without a length")
