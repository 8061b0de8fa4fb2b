"""The repository as a whole."""

import re
import shutil
import subprocess

import pytest
from services import ROOT

#: A folder that exists on one machine alone. In a URL the slash follows a host, so nothing is found there.
MACHINE_PATH = re.compile(r"(?<![\w.:/~})-])/(?:home|Users|root|work|workspace)/[\w.]+|\b[A-Z]:\\Users\\")


def tracked_files() -> list[str]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: nothing says which files belong to the project")
    listing = subprocess.run(
        # A container may own the checkout under another account than the one that runs the tests.
        [git, "-c", f"safe.directory={ROOT}", "ls-files", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_folder_of_one_machine() -> None:
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name in tracked_files()
        for number, line in enumerate((ROOT / name).read_text("utf-8", "replace").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("see " + "/home" + "/ada/notes.txt", True),
        ('"' + "/Users" + '/ada/x"', True),
        ("C:" + "\\Users\\ada", True),
        ("https://example.com/work/list", False),
        ("var/home/list", False),
        ("/app/config", False),
    ],
)
def test_a_machine_s_folder_is_told_from_a_url(line: str, named: bool) -> None:
    assert bool(MACHINE_PATH.search(line)) is named
