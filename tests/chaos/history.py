"""An earlier commit of this project, laid out in a folder: its workers run beside those of this tree."""

import io
import subprocess
import tarfile
from pathlib import Path

from .processes import ChaosError

ROOT = Path(__file__).resolve().parents[2]


def lay_out(ref: str | None, folder: Path) -> Path:
    """Writes a commit's files into a folder of its name in this one. None: the commit before this tree.

    Raises ChaosError.
    """
    if _said("rev-parse", "--show-prefix"):  # exported into another project's repository
        raise ChaosError(f"{ROOT} has no git history of its own: an earlier commit is in a clone only")
    name = _said("rev-parse", "--verify", "--short", f"{ref or _before_this()}^{{commit}}")
    with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", name))) as files:
        files.extractall(folder / name, filter="data")
    return folder / name


def _before_this() -> str:
    """The newest commit whose package is another one than this tree's: a commit of documents alone would prove nothing."""
    if _said("status", "--porcelain", "--", "distributor"):
        return "HEAD"
    return _said("rev-list", "--max-count=1", "--first-parent", "HEAD", "--", "distributor") + "^"


def _said(*arguments: str) -> str:
    return _git(*arguments).decode().strip()


def _git(*arguments: str) -> bytes:
    """Reads only: no lock is taken, whoever works in the tree meanwhile."""
    try:
        return subprocess.run(
            ["git", "--no-optional-locks", "-C", str(ROOT), *arguments], capture_output=True, check=True
        ).stdout
    except OSError as error:
        raise ChaosError(f"an earlier commit is had from git only: {error}") from error
    except subprocess.CalledProcessError as error:
        why = error.stderr.decode("utf-8", "replace").strip()
        raise ChaosError(
            f"no earlier commit is to be had ({why}): this needs a clone with its history, not an exported tree; "
            "--old REF names another commit"
        ) from error
