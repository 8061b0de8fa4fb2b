"""scripts/bootstrap.py, and the locks it installs."""

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from services import ROOT

LOCKS = ("requirements.lock", "requirements-dev.lock")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, looking at a checkout with two small locks and no environment."""
    spec = importlib.util.spec_from_file_location("bootstrap_script", ROOT / "scripts/bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in (*LOCKS, "pyproject.toml"):
        (tmp_path / name).write_text(f"{name}\n")
    venv = tmp_path / ".venv"
    places = {"ROOT": tmp_path, "VENV": venv, "PYTHON": venv / "bin/python", "STAMP": venv / "lock.sha256"}
    for name, path in places.items():
        monkeypatch.setattr(module, name, path)
    return module


def make_environment(bootstrap: ModuleType, lock: str) -> None:
    """What the script leaves behind after it installed `lock`."""
    bootstrap.PYTHON.parent.mkdir(parents=True, exist_ok=True)
    bootstrap.PYTHON.touch()
    bootstrap.STAMP.write_text(bootstrap.fingerprint(bootstrap.ROOT / lock))


class TestStamp:
    @pytest.mark.parametrize(
        ("installed", "wanted", "enough"),
        [
            ("requirements.lock", "requirements.lock", True),
            ("requirements-dev.lock", "requirements-dev.lock", True),
            ("requirements-dev.lock", "requirements.lock", True),
            ("requirements.lock", "requirements-dev.lock", False),
        ],
    )
    def test_the_larger_lock_serves_for_the_smaller(
        self, bootstrap: ModuleType, installed: str, wanted: str, enough: bool
    ) -> None:
        make_environment(bootstrap, installed)
        assert bootstrap.already_installed(bootstrap.ROOT / wanted, dev="dev" in wanted) is enough

    def test_nothing_is_installed_in_a_fresh_checkout(self, bootstrap: ModuleType) -> None:
        assert bootstrap.already_installed(bootstrap.ROOT / LOCKS[0], dev=False) is False

    def test_a_stamp_without_an_interpreter_is_not_believed(self, bootstrap: ModuleType) -> None:
        make_environment(bootstrap, LOCKS[0])
        bootstrap.PYTHON.unlink()
        assert bootstrap.already_installed(bootstrap.ROOT / LOCKS[0], dev=False) is False

    @pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml"])
    def test_a_changed_file_asks_for_a_new_environment(self, bootstrap: ModuleType, changed: str) -> None:
        make_environment(bootstrap, LOCKS[0])
        (bootstrap.ROOT / changed).write_text("changed\n")
        assert bootstrap.already_installed(bootstrap.ROOT / LOCKS[0], dev=False) is False

    def test_another_interpreter_asks_for_a_new_environment(
        self, bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_environment(bootstrap, LOCKS[0])
        monkeypatch.setattr(sys, "version", "3.99.0 (another build)")
        assert bootstrap.already_installed(bootstrap.ROOT / LOCKS[0], dev=False) is False

    @pytest.mark.parametrize(("arguments", "lock"), [([], LOCKS[0]), (["--dev"], LOCKS[1])])
    def test_an_installation_is_stamped_and_not_repeated(
        self, bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, arguments: list[str], lock: str
    ) -> None:
        installed: list[str] = []

        def install(path: Path) -> None:
            installed.append(path.name)
            bootstrap.PYTHON.parent.mkdir(parents=True)
            bootstrap.PYTHON.touch()

        monkeypatch.setattr(bootstrap, "install", install)
        monkeypatch.setattr(sys, "argv", ["bootstrap.py", *arguments])
        bootstrap.main()
        bootstrap.main()
        assert installed == [lock]


class TestWhatAPersonReads:
    def test_an_old_python_is_named_with_the_way_out(
        self, bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "version_info", (3, 10, 12, "final", 0))
        with pytest.raises(SystemExit) as end:
            bootstrap.main()
        message = str(end.value.code)
        assert "Python 3.11 or newer is needed; this is 3.10.12" in message
        assert sys.executable in message
        assert "make PYTHON=python3.11" in message

    def test_a_python_without_ensurepip_gets_the_package_s_name(
        self, bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bootstrap.shutil, "which", lambda _name: None)
        monkeypatch.setattr(bootstrap.importlib.util, "find_spec", lambda _name: None)
        with pytest.raises(SystemExit) as end:
            bootstrap.install(bootstrap.ROOT / LOCKS[0])
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        assert f"sudo apt-get install -y {package}" in str(end.value.code)
        assert not bootstrap.VENV.exists()

    def test_a_failed_command_says_which_and_what_to_try(self, bootstrap: ModuleType) -> None:
        with pytest.raises(SystemExit) as end:
            bootstrap.run([sys.executable, "-c", "raise SystemExit(7)"])
        message = str(end.value.code)
        assert "failed with status 7" in message
        assert "PIP_INDEX_URL" in message


def read_lock(name: str) -> dict[str, tuple[str, int]]:
    """Package → (version, number of hashes)."""
    entries = re.split(r"\n(?=\S)", (ROOT / name).read_text("utf-8").strip())
    pinned: dict[str, tuple[str, int]] = {}
    for entry in entries:
        requirement = Requirement(entry.split("\\\n")[0].strip())
        version = str(requirement.specifier).removeprefix("==")
        pinned[canonicalize_name(requirement.name)] = (
            version,
            len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry)),
        )
    return pinned


def requirements(*, dev: bool) -> list[Requirement]:
    """What pyproject.toml asks for, its extras included."""
    table = PROJECT["project"]
    extras = [line for lines in table["optional-dependencies"].values() for line in lines]
    return [
        Requirement(line)
        for line in (
            *table["dependencies"],
            *extras,
            *(PROJECT["dependency-groups"]["dev"] if dev else ()),
        )
    ]


class TestLocks:
    @pytest.mark.parametrize("name", LOCKS)
    def test_every_package_is_pinned_with_hashes(self, name: str) -> None:
        for package, (version, hashes) in read_lock(name).items():
            assert re.fullmatch(r"\d[\w.!+]*", version), package
            assert hashes > 0, package

    @pytest.mark.parametrize("name", LOCKS)
    def test_no_address_stands_in_a_lock(self, name: str) -> None:
        assert re.findall(r"https?:|file:|--index|--find-links|@", (ROOT / name).read_text("utf-8")) == []

    @pytest.mark.parametrize("name", LOCKS)
    def test_what_the_project_asks_for_is_locked_in_an_allowed_version(self, name: str) -> None:
        pinned = read_lock(name)
        for requirement in requirements(dev="dev" in name):
            version, _ = pinned[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version, prereleases=True), str(requirement)

    def test_tests_run_with_the_versions_that_are_shipped(self) -> None:
        shipped, tested = map(read_lock, LOCKS)
        assert {name: tested.get(name) for name in shipped} == shipped
