"""docker-compose.yml, the Dockerfile and .env.example: what they run exists, and no secret stands in them."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from services import ROOT, compose_command, compose_file, image_entrypoint

SERVICES: dict[str, dict[str, Any]] = compose_file()["services"]
OURS = sorted(name for name, table in SERVICES.items() if "build" in table)
RUNNING = sorted(SERVICES.keys() - {"migrate"})
CONFIDENTIAL = re.compile(r"PASSWORD|TOKEN|SECRET|KEY|(ALERT|DEAD)\w*_URL")


@cache
def cli_help(*words: str) -> str:
    """What `distributor … --help` prints; fails when there is no such command."""
    done = subprocess.run(
        [sys.executable, "-m", "distributor", *words, "--help"],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_cli_knows(argv: list[str]) -> None:
    """That `argv` is `distributor COMMAND… [OPTION…]` with a command and options that exist."""
    assert argv[0] == "distributor"
    first_option = next((at for at, word in enumerate(argv) if word.startswith("-")), len(argv))
    text = cli_help(*argv[1:first_option])
    unknown = [word for word in argv[first_option:] if word.startswith("-") and word not in text]
    assert not unknown, f"{' '.join(argv)}: the command knows no {unknown}"


def environment(service: str) -> dict[str, str]:
    table: dict[str, str] = SERVICES[service].get("environment", {})
    return table


def test_the_services_are_the_documented_ones() -> None:
    assert set(SERVICES) == {"postgres", "redis", "migrate", "worker", "beat", "web", "sandbox"}
    assert OURS == ["beat", "migrate", "sandbox", "web", "worker"]


@pytest.mark.parametrize("service", OURS)
def test_our_services_run_commands_that_exist(service: str) -> None:
    assert_cli_knows(compose_command(service))


@pytest.mark.parametrize("service", ["worker", "beat"])
def test_health_checks_run_commands_that_exist(service: str) -> None:
    kind, *argv = SERVICES[service]["healthcheck"]["test"]
    assert kind == "CMD"
    assert_cli_knows(argv[: argv.index(service)])
    assert argv[-1] == service


@pytest.mark.parametrize("service", RUNNING)
def test_every_lasting_service_has_a_health_check_with_a_limit(service: str) -> None:
    check = SERVICES[service]["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert {"interval", "timeout", "retries"} <= set(check)


def test_the_web_check_asks_for_the_port_that_web_listens_on() -> None:
    port = environment("web")["DISTRIBUTOR_WEB_PORT"]
    assert f"http://127.0.0.1:{port}/healthz" in SERVICES["web"]["healthcheck"]["test"][-1]
    assert SERVICES["web"]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_redis_keeps_every_key_and_every_second() -> None:
    command = compose_command("redis")
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options == {
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--maxmemory-policy": "noeviction",
    }


@pytest.mark.parametrize("service", ["worker", "beat", "web"])
def test_processes_wait_for_the_schema_and_both_servers(service: str) -> None:
    assert SERVICES[service]["depends_on"] == {
        "migrate": {"condition": "service_completed_successfully"},
        "postgres": {"condition": "service_healthy"},
        "redis": {"condition": "service_healthy"},
    }


def test_the_schema_waits_for_the_database_and_runs_once() -> None:
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert SERVICES["migrate"]["restart"] == "no"


def test_a_worker_gets_a_minute_to_hand_back_what_it_holds() -> None:
    assert SERVICES["worker"]["stop_grace_period"] == "60s"


@pytest.mark.parametrize("service", ["worker", "beat", "web", "migrate"])
def test_an_editor_s_files_are_read_only(service: str) -> None:
    assert SERVICES[service]["volumes"] == [
        "./config:/app/config:ro",
        "./posts:/app/posts:ro",
        "./templates:/app/templates:ro",
        "state:/app/var",
    ]


def test_volumes_are_declared() -> None:
    named = {mount.split(":")[0] for table in SERVICES.values() for mount in table.get("volumes", [])}
    assert {name for name in named if not name.startswith(".")} == set(compose_file()["volumes"])


def test_the_sandbox_is_asked_for_by_name() -> None:
    assert SERVICES["sandbox"]["profiles"] == ["try"]


def literal_secrets() -> Iterator[str]:
    """Confidential variables with a value of their own, and passwords inside URLs."""
    variables = ((each, *pair) for each in SERVICES for pair in environment(each).items())
    for service, name, value in variables:
        if CONFIDENTIAL.search(name) and not re.fullmatch(r"\$\{\w+(:[?-][^}]*)?\}", value):
            yield f"{service}: {name}"
        if re.search(r"://[^/@:]*:(?!\$\{)[^/@]*@", value):
            yield f"{service}: {name} holds a password"


def test_no_secret_stands_in_the_compose_file() -> None:
    assert list(literal_secrets()) == []
    for service in ("postgres", *OURS):
        values = " ".join(environment(service).values())
        assert service == "postgres" or "${POSTGRES_PASSWORD:?" in values


def test_the_example_environment_names_what_compose_asks_for_and_holds_nothing() -> None:
    lines = (ROOT / ".env.example").read_text("utf-8").splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    asked = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text("utf-8")))
    assert asked <= set(example)
    assert {name for name, value in example.items() if value} == set()


def test_variables_are_ones_that_settings_read() -> None:
    known = "".join(path.read_text("utf-8") for path in (ROOT / "distributor/settings").glob("*.py"))
    for name in {name for service in OURS for name in environment(service)}:
        assert f'"{name.removeprefix("DISTRIBUTOR_")}"' in known, name


class TestImage:
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")

    def test_runs_the_program_as_an_account_without_rights(self) -> None:
        assert image_entrypoint() == ["distributor"]
        assert re.findall(r"^USER (\w+)$", self.dockerfile, re.MULTILINE) == ["distributor"]

    def test_installs_the_lock_by_hash_and_nothing_beside_it(self) -> None:
        installs = re.findall(r"^RUN pip install (.*)$", self.dockerfile, re.MULTILINE)
        assert installs == ["--require-hashes -r requirements.lock", "--no-deps /tmp/wheels/*.whl"]

    def test_every_copied_path_is_let_through_by_dockerignore(self) -> None:
        let_through = {
            line[1:].rstrip("/")
            for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
            if line.startswith("!")
        }
        copies = re.findall(r"^COPY (?!--from)(.+) \S+$", self.dockerfile, re.MULTILINE)
        copied = {path for line in copies for path in line.split()}
        assert copied == let_through
        assert ".env" not in let_through
