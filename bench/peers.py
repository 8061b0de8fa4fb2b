"""What we measure ourselves against, on the same sink with mails of the same size."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.mail import Sender, ready_mail
from bench.processes import ROOT, BenchError, Child, cpu_seconds, say, wait_until
from bench.report import Rate, best
from bench.servers import valkey
from bench.sink import Sink

SESSIONS = (1, 2, 4, 8, 16, 32, 64)
PYTHON_PROCESSES = 2


def find_smtp_source() -> str:
    """Raises BenchError."""
    found = shutil.which("smtp-source") or shutil.which("smtp-source", path="/usr/sbin:/usr/local/sbin")
    if not found:
        raise BenchError("smtp-source is missing: apt-get install postfix (nothing of it needs to run)")
    return found


def smtp_source(sink: Sink, size: int, messages: int, sessions: int, *, keep: bool = True) -> Rate:
    """Postfix's load generator, in C: what one core can offer. It writes about 120 bytes of headers above `size`."""
    sink.reset()
    argv = [find_smtp_source(), *(["-d"] if keep else []), "-s", str(sessions), "-l", str(size - 120)]
    argv += ["-m", str(messages), "-f", "a@bench.example", "-t", "b@d1.example", f"127.0.0.1:{sink.port}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise BenchError(f"smtp-source failed with status {done.returncode}: {done.stderr.strip()}")
    rate = sink.counts().rate
    name = "smtp-source -d" if keep else "smtp-source"
    return Rate(name, messages, rate, f"{sessions} sessions, {'kept' if keep else 'a connection a mail'}")


def smtp_source_table(sink: Sink, size: int, messages: int) -> list[Rate]:
    """Kept connections, at each number of sessions."""
    rates = []
    for sessions in SESSIONS:
        used = cpu_seconds([sink.pid])
        rate = smtp_source(sink, size, messages, sessions)
        used = (cpu_seconds([sink.pid]) - used) * 1e6 / messages
        say(f"smtp-source -d -s {sessions}: {rate.per_second:,.0f}/s (the sink: {used:.0f} µs a mail)")
        rates.append(rate)
    return rates


def smtplib_rate(sink: Sink, size: int, messages: int) -> Rate:
    """smtplib with ready bytes, two processes with one connection or four threads each; the better of both."""
    rates = [_smtplib(sink, size, messages, lanes) for lanes in (1, 4)]
    return best(rates)


def _smtplib(sink: Sink, size: int, messages: int, lanes: int) -> Rate:
    sink.reset()
    share = messages // PYTHON_PROCESSES
    context = multiprocessing.get_context("spawn")
    mail = ready_mail(size)
    processes = [
        context.Process(target=_send_many, args=(sink.port, mail, number * share, share, lanes))
        for number in range(PYTHON_PROCESSES)
    ]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.kill()
    counts = sink.counts()
    if counts.unique != share * PYTHON_PROCESSES:
        raise BenchError(f"smtplib: {counts.unique} of {share * PYTHON_PROCESSES} arrived")
    note = f"{PYTHON_PROCESSES} processes × {lanes} kept connections, no ledger"
    say(f"smtplib, {note}: {counts.rate:,.0f}/s")
    return Rate("smtplib", counts.messages, counts.rate, note)


def _send_many(port: int, mail: bytes, begin: int, number: int, lanes: int) -> None:
    threads = [
        threading.Thread(target=_send_some, args=(port, mail, range(begin + lane, begin + number, lanes)))
        for lane in range(lanes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _send_some(port: int, mail: bytes, numbers: range) -> None:
    sender = Sender(port, mail)
    for number in numbers:
        sender.send(f"reader-{number}@d{number % 20}.example")
    sender.close()


def celery_rate(sink: Sink, size: int, messages: int) -> Rate:
    """A task per recipient: from the first publish to the last arrival."""
    with TemporaryDirectory(prefix="bench-celery-") as folder, valkey() as broker:
        file = Path(folder) / "mail"
        file.write_bytes(ready_mail(size))
        environment = {
            **os.environ,
            "BENCH_BROKER": broker.url,
            "BENCH_PORT": str(sink.port),
            "BENCH_MAIL": str(file),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        }
        python = [sys.executable, "-m"]
        worker = ["celery", "-A", "bench.celery_app", "worker", f"--concurrency={PYTHON_PROCESSES}"]
        worker += ["--loglevel=WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        publish = ["bench.publish", str(messages)]
        sink.reset()
        with Child(
            "celery worker",
            [*python, *worker],
            log=Path(folder) / "worker.log",
            environment=environment,
            cwd=ROOT,
        ) as consumer:
            wait_until(lambda: _is_up(environment, consumer), 60, "the Celery worker answers")
            with Child(
                "the publisher",
                [*python, *publish],
                log=Path(folder) / "publish.log",
                environment=environment,
                cwd=ROOT,
            ) as publisher:
                wait_until(lambda: _arrived(sink, consumer, messages), 600, "all tasks are done")
                publisher.wait()
                begun = int(publisher.log.read_text().split()[-1])
    counts = sink.counts()
    rate = counts.messages / ((counts.last_ns - begun) / 1e9)
    note = f"prefork {PYTHON_PROCESSES}, early ack, prefetch × 64, published in batches of 500, no ledger"
    say(f"Celery, a task per recipient: {rate:,.0f}/s")
    return Rate("celery task per recipient", counts.messages, rate, note)


def _is_up(environment: dict[str, str], worker: Child) -> bool:
    worker.check()
    argv = [sys.executable, "-m", "celery", "-A", "bench.celery_app", "inspect", "ping", "--timeout", "1"]
    return subprocess.run(argv, env=environment, cwd=ROOT, capture_output=True, check=False).returncode == 0


def _arrived(sink: Sink, worker: Child, messages: int) -> bool:
    worker.check()
    return sink.counts().unique >= messages
