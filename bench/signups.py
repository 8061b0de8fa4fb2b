"""Our sign-up endpoint beside a bare one that inserts as many rows, in one run, from one client."""

import base64
import json
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from standardwebhooks import Webhook

from bench import bare
from bench.load import Load, load
from bench.processes import BenchError, Child, cpu_seconds, free_port, say, wait_until
from bench.project import Installation, installation
from bench.servers import merged

SECRET = "whsec_" + base64.b64encode(b"bench" * 6).decode()
#: The limits are on, and out of reach: our readers come from few domains.
SETTINGS: dict[str, Any] = {
    "signup": {"sources": [{"name": "bench"}], "abuse": {"per_domain": "100000/hour"}}
}
#: Requests in which a server fills its pool and its caches.
WARM_UP = 300


@dataclass(frozen=True)
class Side:
    """One of the two: a running server, and how it is called."""

    name: str
    path: str
    port: int
    server: Child


@dataclass(frozen=True)
class Measured:
    """One side at one level, over all rounds."""

    loads: Sequence[Load]
    cpu_us: float
    database_cpu_us: float

    @property
    def load(self) -> Load:
        return Load(
            sum(each.seconds for each in self.loads),
            sorted(latency for each in self.loads for latency in each.latencies),
        )


def measure(
    levels: Sequence[int], requests: int, rounds: int, *, durable: bool = True, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Levels: connections at once. In each round both sides take `requests`, one after the other."""
    with installation(durable=durable) as project:
        sides = _start(project, settings)
        for side in sides:
            load(side.port, _requests(side.path, WARM_UP), 16)
        return {str(level): _level(project, sides, level, requests, rounds) for level in levels}


def _level(
    project: Installation, sides: Sequence[Side], level: int, requests: int, rounds: int
) -> dict[str, Any]:
    loads: dict[str, list[Load]] = {side.name: [] for side in sides}
    cpu = {side.name: [0.0, 0.0] for side in sides}
    for turn in range(rounds):
        for side in sides if turn % 2 else reversed(sides):
            ready = _requests(side.path, requests)
            before = _cpu(project, side)
            loads[side.name].append(_all_taken(load(side.port, ready, level)))
            for place, (now, then) in enumerate(zip(_cpu(project, side), before, strict=True)):
                cpu[side.name][place] += now - then
    found: dict[str, Any] = {}
    for name, each in loads.items():
        measured = Measured(each, *(used * 1e6 / (requests * rounds) for used in cpu[name]))
        found[name] = {
            "per_second": measured.load.per_second,
            "p50_ms": measured.load.percentile(0.5),
            "p99_ms": measured.load.percentile(0.99),
            "cpu_us": measured.cpu_us,
            "database_cpu_us": measured.database_cpu_us,
        }
    found["ratio"] = found["ours"]["per_second"] / found["bare"]["per_second"]
    say(
        f"{level} at once: ours {found['ours']['per_second']:,.0f}/s, bare {found['bare']['per_second']:,.0f}/s"
    )
    return found


def _all_taken(done: Load) -> Load:
    if set(done.statuses) != {"202"}:
        raise BenchError(f"not every sign-up was taken: {dict(done.statuses)}")
    return done


def _cpu(project: Installation, side: Side) -> tuple[float, float]:
    return cpu_seconds([side.server.pid]), cpu_seconds([project.database.pid])


def _start(project: Installation, settings: Mapping[str, Any]) -> tuple[Side, Side]:
    ours, theirs = free_port(), free_port()
    project.environment["DISTRIBUTOR_SIGNUP_BENCH_SECRET"] = SECRET
    project.configure(merged({**SETTINGS, "web": {"port": ours}}, settings), {"email": {}})
    project.database.run(bare.COPIES)
    sides = (
        Side("ours", "/api/subscribers", ours, project.start("web")),
        Side("bare", "/bare", theirs, project.start_python("bench.bare", project.database.url, str(theirs))),
    )
    for side in sides:
        wait_until(partial(_listens, side), 60, f"{side.name} listens")
    return sides


def _listens(side: Side) -> bool:
    side.server.check()
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", side.port)) == 0


def _requests(path: str, number: int) -> list[bytes]:
    """Signed sign-ups of readers whom nobody knows."""
    signer, now = Webhook(SECRET), datetime.now(UTC)
    return [_request(path, signer, now) for _ in range(number)]


def _request(path: str, signer: Webhook, now: datetime) -> bytes:
    number = f"msg_{secrets.token_hex(8)}"
    address = f"reader-{number}@d{secrets.randbelow(1000)}.example"
    body = json.dumps({"email": address, "newsletters": ["bench"], "language": "en"})
    head = {
        "Host": "bench.example",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "webhook-id": number,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signer.sign(number, now, body),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n{body}".encode()
