"""The wheel: it brings its templates, sample configuration and posts, and works without the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from services import ROOT

BROUGHT = ("templates", "config", "posts")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the tracked files, built without a network and unpacked."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: which files belong to the project is not known")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    [wheel] = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out / "unpacked")
    return out / "unpacked"


def run(unpacked: Path, cwd: Path, *words: str) -> str:
    """The command of the unpacked wheel, far from the checkout; its standard output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DISTRIBUTOR_")}
    done = subprocess.run(
        [sys.executable, "-P", *words],
        cwd=cwd,
        env={**environment, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("folder", BROUGHT)
def test_it_brings_every_tracked_file_of(unpacked: Path, folder: str) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-z", folder], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = [name for name in tracked.stdout.split("\0") if name and (ROOT / name).is_file()]
    assert names
    for name in names:
        assert (unpacked / "distributor/defaults" / name).read_bytes() == (ROOT / name).read_bytes()


def test_it_brings_the_code_and_what_the_code_reads(unpacked: Path) -> None:
    package = unpacked / "distributor"
    assert list((package / "migrations/versions").glob("*.py"))
    assert (package / "migrations/script.py.mako").is_file()
    assert not list(unpacked.rglob("tests"))
    assert not list(unpacked.rglob("*.sqlite3"))
    [metadata] = unpacked.glob("*.dist-info/entry_points.txt")
    text = metadata.read_text("utf-8")
    assert "distributor = distributor.cli:main" in text
    assert "[distributor.channels]" in text


def test_its_command_finds_what_it_brought(unpacked: Path, tmp_path: Path) -> None:
    place = run(
        unpacked, tmp_path, "-c", "from distributor.settings import packaged; print(packaged('templates'))"
    )
    assert place.strip() == str(unpacked / "distributor/defaults/templates")
    said = run(unpacked, tmp_path, "-m", "distributor", "demo", "--subscribers", "3")
    assert "total" in said
    preview = run(
        unpacked,
        tmp_path,
        "-m",
        "distributor",
        "-C",
        ".demo",
        "preview",
        "2026-11-23-agents-need-receipts",
        "--out",
        "out",
    )
    assert "written to out/" in preview
    assert (tmp_path / "out/email.html").stat().st_size > 1000
