"""`python -m bench [PROFILE]`."""

import argparse
import json
import os
import platform
import signal
import sys
from functools import reduce
from pathlib import Path
from typing import Any

from bench.ours import Setup
from bench.processes import BenchError
from bench.profiles import PROFILES, Plan
from bench.servers import merged, parse_setting


def main(arguments: list[str] | None = None) -> int:
    # SIGTERM takes the way of Ctrl-C: through the blocks that end our children.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    given = _parser().parse_args(arguments)
    try:
        result = PROFILES[given.profile](_plan(given))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if given.json:
        machine = {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
        report = {"profile": given.profile, "machine": machine, **result}
        given.json.write_text(json.dumps(report, indent=1, ensure_ascii=False, default=str), "utf-8")
    return 0


def _plan(given: argparse.Namespace) -> Plan:
    settings: dict[str, Any] = reduce(merged, given.set, {})
    setup = Setup(
        workers=given.workers,
        concurrency=given.concurrency,
        lanes=given.lanes,
        connections=given.connections,
        slice=given.slice,
        chunk=given.chunk,
        durable=not given.no_fsync,
        settings=settings,
    )
    return Plan(
        setup=setup, size=given.size, recipients=given.recipients, slow_rate=given.slow_rate, post=given.post
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Benchmark of the delivery engine.")
    profiles = "; ".join(f"{name}: {(run.__doc__ or '').splitlines()[0]}" for name, run in PROFILES.items())
    parser.add_argument(
        "profile", nargs="?", choices=PROFILES, default="quick", help=profiles.replace("%", "%%")
    )
    parser.add_argument("--recipients", type=int, help="instead of the profile's own number")
    parser.add_argument("--size", type=int, default=12_000, help="bytes of a mail on the wire")
    parser.add_argument("--workers", type=int, default=1, help="worker commands")
    parser.add_argument("--concurrency", type=int, help="processes of each worker (2)")
    parser.add_argument("--lanes", type=int, help="engine.lanes: of each process")
    parser.add_argument("--connections", type=int, help="engine.connections: of each lane")
    parser.add_argument("--slice", type=int, help="engine.slice")
    parser.add_argument("--chunk", type=int, help="engine.chunk")
    parser.add_argument("--no-fsync", action="store_true", help="PostgreSQL without fsync, for slow disks")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=parse_setting,
        metavar="TABLE.KEY=VALUE",
        help="any setting",
    )
    parser.add_argument(
        "--slow-rate", type=int, default=50, help="pace: the limited domain's rate; 0: no such domain"
    )
    parser.add_argument("--post", type=Path, help="render: another post than the longest of posts/")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    return parser


if __name__ == "__main__":
    sys.exit(main())
