"""`python -m tests.chaos [--full] [--seed N] [--old REF] [--json FILE] [SCENARIO …]`: nothing lost, nothing doubled, or status 1."""

import argparse
import json
import random
import signal
import sys
from pathlib import Path

import psycopg

from .processes import ChaosError
from .report import Result, table
from .scenarios import SCENARIOS, SHORT_FORM, run


def main() -> int:
    # SIGTERM takes the way of Ctrl-C: through the blocks that end our processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    given = _parser().parse_args()
    seed = given.seed if given.seed is not None else random.randrange(1_000_000)
    names = given.scenario or (SCENARIOS if given.full else SHORT_FORM)
    results: list[Result] = []
    for name in names:
        _say(f"{name}, seed {seed}")
        try:
            results.append(run(name, full=given.full, seed=seed, readers=given.readers, old=given.old))
        except (ChaosError, OSError, psycopg.Error) as error:
            results.append(Result(name, "", seed, 0, problems=[f"ended early: {error!r}"]))
        _say(table(results[-1:]))
        if given.json:  # after each: a long run that is ended keeps what it has found
            given.json.write_text(json.dumps([result.as_json() for result in results], indent=1), "utf-8")
    if len(results) > 1:
        sys.stdout.write(table(results) + "\n")
    return int(any(result.problems for result in results))


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("scenario", nargs="*", choices=[*SCENARIOS, []], help=", ".join(SCENARIOS))
    parser.add_argument("--full", action="store_true", help="all scenarios, each with 20,000 recipients")
    parser.add_argument("--readers", type=int, help="so many recipients instead")
    parser.add_argument("--seed", type=int, help="for the random moments; printed when left out")
    parser.add_argument(
        "--old", metavar="REF", help="versions: this commit's workers, else those before this tree"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was counted")
    return parser


if __name__ == "__main__":
    sys.exit(main())
