"""A peer: one Celery task per recipient, set for speed. The task builds nothing: it sends bytes that are ready.

Reads its broker, the relay's port and the file with the mail from the environment: BENCH_BROKER, BENCH_PORT, BENCH_MAIL.
"""

import os
from functools import cache
from pathlib import Path

from celery import Celery

from bench.mail import Sender

app = Celery("bench", broker=os.environ.get("BENCH_BROKER"))
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,
    task_acks_late=False,
    task_store_errors_even_if_ignored=False,
    worker_prefetch_multiplier=64,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)


@cache
def sender(_pid: int) -> Sender:
    """The process's own kept connection."""
    return Sender(int(os.environ["BENCH_PORT"]), Path(os.environ["BENCH_MAIL"]).read_bytes())


def _send(address: str) -> None:
    sender(os.getpid()).send(address)


send_one = app.task(name="send_one")(_send)
