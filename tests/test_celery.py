"""The whole deployment as docker-compose.yml describes it: PostgreSQL, Valkey, Celery workers and beats as processes.

Every process runs the command of its compose service; only addresses and the sandbox's ports differ.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from services import Project, Server, compose_command
from sqlalchemy.engine import make_url

from distributor.bootstrap import build
from distributor.dispatch import Request
from distributor.sandbox.limits import UNLIMITED
from distributor.sandbox.server import Sandbox
from distributor.settings import load_settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

READERS = 5_000
POST = """---
title: "早报：机房里的第一缕阳光"
date: {day} 06:00:00
---

## 今日要闻

昨夜的升级按时完成，今天早上所有队列都是空的。

1.  **监控面板焕然一新**
    新的面板把延迟和积压放在同一张图里，值班的人终于不用来回切换。[详情](https://example.com/panel)

2.  **备份演练通过**
    从备份恢复到可用一共用了十一分钟，比上个月快了一半。
"""


#: Signs up while an issue is being sent.
NEWCOMER = "newcomer@readers.example"


class Deployment:
    """The processes of one installation."""

    def __init__(self, project: Project, environment: Mapping[str, str], stack: ExitStack) -> None:
        self.project, self.environment, self.stack = project, environment, stack

    def run(self, *arguments: str, status: int | None = 0) -> str:
        """One command of the command line, to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "distributor", *arguments],
            env=self.environment,
            cwd=self.project.root,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr
        assert status is None or done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json", status=None))

    def states(self, table: str) -> Counter[str]:
        """How many rows stand in each state. While we wait, starting a command would cost more than what we wait for."""
        url = make_url(self.environment["DISTRIBUTOR_DATABASE_URL"]).set(drivername="postgresql")
        with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
            return Counter(state for (state,) in connection.execute(f"SELECT state FROM {table}".encode()))

    def start(self, service: str) -> "subprocess.Popen[bytes]":
        """A service's own command, as written in the compose file, in a process group of its own."""
        entry, *arguments = compose_command(service)
        assert entry == "distributor"
        return self._start(service, "-m", "distributor", *arguments)

    def start_python(self, code: str) -> "subprocess.Popen[bytes]":
        """A script."""
        return self._start("script", "-c", code)

    def _start(self, name: str, *arguments: str) -> "subprocess.Popen[bytes]":
        log = (self.project.root / f"{name}-{time.monotonic_ns()}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=self.environment,
            cwd=self.project.root,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()
        self.stack.callback(end, process)
        return process

    def subscribe(self, number: int) -> None:
        file = self.project.root / "readers.csv"
        file.write_text("email\n" + "".join(f"reader-{n}@readers.example\n" for n in range(number)), "utf-8")
        self.run("subscribers", "import", str(file), "--consent", "the tests")


def sign_up(deployment: Deployment, address: str) -> None:
    """As the web process would."""
    distributor = build(load_settings(deployment.project.root, deployment.environment))
    distributor.reception.sign_up(Request(address=address, newsletters=["ai-daily"], source="form"))
    distributor.close()


def end(process: "subprocess.Popen[bytes]", how: signal.Signals = signal.SIGKILL) -> None:
    if process.poll() is None:
        os.killpg(process.pid, how)
    process.wait(60)


@contextmanager
def deployed(
    project: Project, postgres_url: str, redis_url: str, sandbox: Sandbox, **tables: Any
) -> Iterator[Deployment]:
    project.settings(
        email={"smtp": {"port": sandbox.smtp_port}},
        telegram={"api": sandbox.url},
        operator={"sender": "alerts@example.com", "routes": [{"kind": "email", "to": "editor@example.com"}]},
        environment={},
        **tables,
    )
    environment = {
        **os.environ,
        "DISTRIBUTOR_DATABASE_URL": postgres_url,
        "DISTRIBUTOR_BROKER_URL": redis_url,
        "PYTHONWARNINGS": "default",
    }
    with ExitStack() as stack:
        deployment = Deployment(project, environment, stack)
        deployment.run(*compose_command("migrate")[1:])
        yield deployment


def wait_until(true: Callable[[], bool], seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"not within {seconds} s: {what}"
        time.sleep(0.25)


def copies(sandbox: Sandbox) -> Mapping[str, int]:
    """Address → mails of the issue it got (the operator's mail and confirmations aside)."""
    found = dict(sandbox.inbox.addresses("email"))
    for other in ("editor@example.com", NEWCOMER):
        found.pop(other, None)
    return found


def is_finished(deployment: Deployment) -> bool:
    return set(deployment.states("issues")) == {"finished"}


def next_minute() -> datetime:
    """The next full minute, in Shanghai, that is at least 20 seconds away: by then all processes are up."""
    zone = ZoneInfo("Asia/Shanghai")
    return (datetime.now(zone) + timedelta(seconds=80)).replace(second=0, microsecond=0)


def test_a_post_goes_out_by_itself_once_with_two_beats_and_one_restarted(
    project: Project, postgres_url: str, redis_url: str
) -> None:
    due = next_minute()
    with (
        Sandbox(None, limits=UNLIMITED) as sandbox,
        deployed(
            project, postgres_url, redis_url, sandbox, newsletter={"schedule": {"time": f"{due:%H:%M}"}}
        ) as deployment,
    ):
        deployment.subscribe(READERS)
        for service in ("worker", "worker", "beat"):
            deployment.start(service)
        second = deployment.start("beat")
        post = project.write_post(f"{due:%Y-%m-%d}-morning", POST.format(day=f"{due:%Y-%m-%d}"))
        os.utime(post, (time.time() - 60, time.time() - 60))  # it lies still
        wait_until(lambda: len(copies(sandbox)) > 200, 200, "the send begins by itself")
        begun = datetime.now(UTC)
        sign_up(deployment, NEWCOMER)
        wait_until(lambda: NEWCOMER in sandbox.inbox.addresses("email"), 10, "the confirmation leaves")
        assert len(copies(sandbox)) < READERS, "the send was over: it proves nothing"
        end(second, signal.SIGKILL)
        deployment.start("beat")
        wait_until(lambda: is_finished(deployment), 150, "the issue is finished")

        assert begun >= due.astimezone(UTC)
        assert len(copies(sandbox)) == READERS
        assert set(copies(sandbox).values()) == {1}
        assert len(deployment.json("issues")) == 1
        status = deployment.json("status")
        assert status["balanced"] is True
        assert {
            key: status["channels"]["email"][key] for key in ("planned", "sent", "pending", "failed")
        } == {
            "planned": READERS,
            "sent": READERS,
            "pending": 0,
            "failed": 0,
        }
        log = deployment.json("log", "--limit", str(READERS + 1))
        assert {entry["address"] for entry in log} == set(copies(sandbox))
        assert all(entry["state"] == "sent" and len(entry["attempts"]) == 1 for entry in log)
        wait_until(
            lambda: sandbox.inbox.addresses("email")["editor@example.com"] == 1, 30, "the operator's mail"
        )
        assert "heard of" in deployment.run("ping", "worker")
        assert "heard of" in deployment.run("ping", "beat")


def kill_in_the_middle(deployment: Deployment, sandbox: Sandbox, *services: str) -> None:
    """A worker that is killed when a fifth of the readers have today's issue."""
    today = f"{datetime.now(ZoneInfo('Asia/Shanghai')):%Y-%m-%d}"
    deployment.subscribe(READERS)
    deployment.project.write_post(f"{today}-morning", POST.format(day=today))
    victim = deployment.start("worker")
    for service in services:
        deployment.start(service)
    deployment.run("send", "--wait", "1s", status=None)
    wait_until(lambda: len(copies(sandbox)) > READERS // 5, 60, "a fifth is sent")
    end(victim, signal.SIGKILL)


def test_a_worker_killed_in_the_middle_leaves_nothing_lost_and_nothing_doubled(
    project: Project, postgres_url: str, redis_url: str
) -> None:
    with (
        Sandbox(None, limits=UNLIMITED) as sandbox,
        deployed(
            project,
            postgres_url,
            redis_url,
            sandbox,
            engine={"lease": "6s", "sweep": "2s"},
            newsletter={"schedule": {"time": "00:00", "grace": "1s"}},
        ) as deployment,
    ):
        kill_in_the_middle(deployment, sandbox, "beat")
        assert len(copies(sandbox)) < READERS, "the kill came too late to prove anything"
        deployment.start("worker")
        wait_until(lambda: is_finished(deployment), 150, "the issue is finished")

        tally = deployment.json("status")["channels"]["email"]
        connections = 4 * 2  # engine.lanes × processes of a worker
        assert tally["balanced"] is True
        assert tally["sent"] + tally["unconfirmed"] == READERS
        assert tally["unconfirmed"] <= connections
        assert max(copies(sandbox).values()) == 1, "nobody got two"
        unconfirmed = {
            entry["address"] for entry in deployment.json("log", "--state", "unconfirmed", "--limit", "500")
        }
        assert len(unconfirmed) == tally["unconfirmed"]
        everybody = {f"reader-{n}@readers.example" for n in range(READERS)}
        assert everybody - set(copies(sandbox)) <= unconfirmed, "who got nothing is listed"


def test_a_worker_that_is_told_to_stop_finishes_its_message_and_leaves_no_doubt(
    project: Project, postgres_url: str, redis_url: str
) -> None:
    today = datetime.now(ZoneInfo("Asia/Shanghai"))
    with (
        Sandbox(None, limits=UNLIMITED) as sandbox,
        deployed(
            project,
            postgres_url,
            redis_url,
            sandbox,
            engine={"sweep": "2s"},
            newsletter={"schedule": {"time": "00:00", "grace": "1s"}},
        ) as deployment,
    ):
        deployment.subscribe(1_000)
        project.write_post(f"{today:%Y-%m-%d}-morning", POST.format(day=f"{today:%Y-%m-%d}"))
        first = deployment.start("worker")
        deployment.start("beat")
        deployment.run("send", "--wait", "1s", status=None)
        wait_until(lambda: len(copies(sandbox)) > 100, 60, "the send begins")
        asked = time.monotonic()
        os.kill(first.pid, signal.SIGTERM)
        first.wait(30)
        assert time.monotonic() - asked < 15
        deployment.start("worker")
        wait_until(lambda: is_finished(deployment), 100, "the issue is finished")
        tally = deployment.json("status")["channels"]["email"]
        assert (tally["sent"], tally["unconfirmed"]) == (1_000, 0)
        assert set(copies(sandbox).values()) == {1}


CONFIGURED = """
import time
from pathlib import Path
from distributor.settings import load_settings
from distributor.tasks import configure, signal, sweep
configure(load_settings(Path.cwd()))
"""
WAKE_UPS = f"""{CONFIGURED}
signal("email", 16)
sweep.apply_async()
"""
WAKING = f"""{CONFIGURED}
while True:
    signal("email", 4)
    time.sleep(1)
"""


def test_a_sweep_does_not_stand_behind_a_channels_wake_ups(
    project: Project, postgres_url: str, redis_url: str
) -> None:
    """Each of them may last ten seconds: lost leases, and other channels, would wait for minutes."""
    with (
        Sandbox(None, limits=UNLIMITED) as sandbox,
        deployed(project, postgres_url, redis_url, sandbox) as deployment,
    ):
        assert deployment.start_python(WAKE_UPS).wait(60) == 0
        deployment.start("worker")
        (log,) = project.root.glob("worker-*.log")
        received = re.compile(r"Task (\w+)\[[^]]*\] received")
        wait_until(lambda: len(received.findall(log.read_text("utf-8"))) == 17, 60, "all are taken")
        assert "sweep" in received.findall(log.read_text("utf-8"))[:3]


def test_a_busy_process_does_what_is_overdue_between_two_drains(
    project: Project, postgres_url: str, redis_url: str
) -> None:
    """Without a beat, as when its messages are always too old: the lost leases are taken over all the same."""
    with (
        Sandbox(None, limits=UNLIMITED) as sandbox,
        deployed(
            project,
            postgres_url,
            redis_url,
            sandbox,
            engine={"lease": "4s", "sweep": "1s"},
            newsletter={"schedule": {"time": "00:00", "grace": "1s"}},
        ) as deployment,
    ):
        kill_in_the_middle(deployment, sandbox)
        deployment.start("worker")
        deployment.start_python(WAKING)  # each of them is a drain, between which the chores are done
        wait_until(
            lambda: set(deployment.states("deliveries")) <= {"sent", "unconfirmed"},
            90,
            "everybody is settled",
        )
        assert deployment.states("deliveries").total() == READERS
        assert max(copies(sandbox).values()) == 1


@pytest.fixture(autouse=True)
def _up(postgres_server: Server, redis_server: Server) -> None:
    """Other tests may have killed them."""
    postgres_server.start()
    redis_server.start()
