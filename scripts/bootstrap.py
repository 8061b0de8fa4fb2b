#!/usr/bin/env python3
"""Makes `.venv/` from the committed lock, with nothing but the standard library.

Uses `uv` when it is there, else `venv` and pip. Does nothing when the environment already matches the lock.

    python3 scripts/bootstrap.py          what `distributor` needs
    python3 scripts/bootstrap.py --dev    and what its tests need
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "lock.sha256"
OLDEST = (3, 11)


def main() -> None:
    if sys.version_info < OLDEST:
        sys.exit(explain_old_python())
    dev = "--dev" in sys.argv[1:]
    lock = ROOT / ("requirements-dev.lock" if dev else "requirements.lock")
    if already_installed(lock, dev=dev):
        return
    print(f"Installing {lock.name} into {VENV.relative_to(ROOT)}/ …", flush=True)
    install(lock)
    STAMP.write_text(fingerprint(lock))


def already_installed(lock: Path, *, dev: bool) -> bool:
    """Whether the environment was made from this lock (the larger one serves for the smaller, too)."""
    if not (STAMP.exists() and PYTHON.exists()):
        return False
    stamp = STAMP.read_text()
    wanted = [lock] if dev else [lock, ROOT / "requirements-dev.lock"]
    return stamp in map(fingerprint, wanted)


def fingerprint(lock: Path) -> str:
    """Changes with the lock, the project's metadata and the interpreter."""
    content = lock.read_bytes() + (ROOT / "pyproject.toml").read_bytes() + sys.version.encode()
    return hashlib.sha256(content).hexdigest()


def install(lock: Path) -> None:
    uv = shutil.which("uv")
    if uv:
        # A system Python only: uv would fetch its own from a host that many networks do not reach.
        environment = os.environ | {"VIRTUAL_ENV": str(VENV), "UV_PYTHON_DOWNLOADS": "never"}
        run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(VENV)], environment)
        run([uv, "pip", "sync", "--quiet", "--require-hashes", str(lock)], environment)
        run([uv, "pip", "install", "--quiet", "--no-deps", "--editable", str(ROOT)], environment)
        return
    if importlib.util.find_spec("ensurepip") is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        sys.exit(
            f"This Python has no ensurepip, so no virtual environment can be made.\n"
            f"Run:  sudo apt-get install -y python{version}-venv\nand then the same command again."
        )
    run([sys.executable, "-m", "venv", "--clear", str(VENV)])
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run([*pip, "--require-hashes", "--requirement", str(lock)])
    # hatchling comes from the index once more: build isolation takes it by name, not from the lock.
    run([*pip, "--no-deps", "--editable", str(ROOT)])


def run(command: list[str], environment: "os._Environ[str] | dict[str, str] | None" = None) -> None:
    status = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    if status:
        sys.exit(
            f"\n`{' '.join(command[:4])} …` failed with status {status}.\n"
            "Is a package index reachable? A mirror is set with PIP_INDEX_URL (or UV_INDEX_URL)."
        )


def explain_old_python() -> str:
    have = ".".join(map(str, sys.version_info[:3]))
    return (
        f"Python {'.'.join(map(str, OLDEST))} or newer is needed; this is {have} ({sys.executable}).\n"
        "Name a newer one:  make PYTHON=python3.11 demo"
    )


if __name__ == "__main__":
    main()
