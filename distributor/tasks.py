"""Celery: the alarm clock. Tasks are wake-ups; what is to be done stands in the database.

Early ack, no ETA, no retry, no canvas, no result backend: a lost, doubled or late task changes nothing but the moment,
because the sweeper signals again whatever is due (docs/decisions.md, "Celery carries no truth").
"""

import functools
import logging
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import worker_process_init, worker_shutting_down
from kombu.exceptions import OperationalError

from distributor.bootstrap import Distributor, build, tune_interpreter
from distributor.dispatch import Stop, Swept, drain
from distributor.errors import ServiceDown
from distributor.schedule import look_after, look_for_bounces
from distributor.settings import Settings, load_settings

log = logging.getLogger(__name__)

#: Seconds a drain works, about, before it gives others a turn: a sweep behind it must not grow too old to be of use.
#: About, because drains that end together leave the pace unused for a third of a second: each was seen at the sink.
DRAIN = 10.0
TICK = timedelta(seconds=15)
#: Wake-ups for one channel that one sweep sends at most.
MOST_SIGNALS = 16


class Glanced:
    """A stop that is looked at now and then: asking an event of processes costs as much as composing half a mail."""

    EVERY = 0.05  # seconds

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._next, self._set = 0.0, False

    def is_set(self) -> bool:
        if not self._set and (now := time.monotonic()) >= self._next:
            self._next, self._set = now + self.EVERY, self._stop.is_set()
        return self._set


app = Celery("distributor")
_root: list[Path] = []
# Made before the pool forks, so that its children share it: SIGTERM reaches only the parent.
_stop = multiprocessing.Event()
#: Chore → when this process did it last (time.monotonic).
_done_at: dict[str, float] = {}
#: Held by a look into the bounce mailbox.
_looking = threading.Lock()


def configure(settings: Settings) -> Celery:
    """The app for these settings."""
    _root[:] = [settings.root]
    sweep = settings.engine.sweep
    app.conf.update(
        broker_url=settings.broker.url.get_secret_value(),
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "global_keyprefix": "distributor:",
            "visibility_timeout": 600,
            "socket_timeout": 20,
            "socket_connect_timeout": 5,
            "health_check_interval": 25,
            "unacked_restore_interval": 10,
        },
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        task_publish_retry_policy={"max_retries": 2, "interval_start": 0.1, "interval_step": 0.2},
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_soft_shutdown_timeout=30,
        beat_scheduler="celery.beat:Scheduler",  # in memory: what was sent when stands in the database
        beat_max_loop_interval=5,
        beat_schedule={
            "tick": {"task": "tick", "schedule": TICK, "options": {"expires": TICK.total_seconds()}},
            "sweep": {"task": "sweep", "schedule": sweep, "options": {"expires": sweep.total_seconds()}},
        },
        timezone="UTC",
    )
    if settings.events.bounces.host:
        every = settings.events.bounces.every
        options = {"expires": every.total_seconds()}
        app.conf.beat_schedule["bounces"] = {"task": "bounces", "schedule": every, "options": options}
    return app


def queues(channels: Iterable[str]) -> Sequence[str]:
    """What a worker listens to, in turn: its chores, and the wake-ups of each channel.

    In one queue, sweeps and the other channels' wake-ups would stand behind a large channel's, ten seconds for each,
    until they are too old.
    """
    return [app.conf.task_default_queue, *map(_queue, channels)]


def _queue(channel: str) -> str:
    return f"drain.{channel}"


def signal(channel: str, times: int = 1) -> None:
    """Wakes workers for a channel. A signal that nobody takes in time is dropped: the next sweep sends another.

    Raises ServiceDown when the broker does not answer.
    """
    try:
        for _ in range(min(times, MOST_SIGNALS)):
            drain_channel.apply_async((channel,), expires=60, queue=_queue(channel))
    except OperationalError as error:
        raise ServiceDown(f"the broker does not answer: {error}") from error


@app.task(name="drain", throws=(ServiceDown,))
def drain_channel(channel: str) -> None:
    distributor = _distributor()
    engine = distributor.engine
    drain(engine, channel, seconds=DRAIN * (0.75 + engine.random() / 2), stop=Glanced(_stop))
    if _stop.is_set():
        return
    if distributor.ledger.due_channels().get(channel):
        signal(channel)
    _do_overdue_chores(distributor)


@app.task(name="sweep", throws=(ServiceDown,))
def sweep() -> None:
    distributor = _distributor()
    _signal_due(distributor, _sweep(distributor).due)


@app.task(name="tick", throws=(ServiceDown,))
def tick() -> None:
    distributor = _distributor()
    _tick(distributor)
    _signal_due(distributor, distributor.ledger.due_channels())


@app.task(name="bounces")
def bounces() -> None:
    """On a thread: a mail server that does not answer must not hold up this process. One look at a time."""
    if _looking.acquire(blocking=False):
        threading.Thread(target=_look_for_bounces, daemon=True, name="bounces").start()


def _look_for_bounces() -> None:
    try:
        distributor = _distributor()
        if distributor.collect_bounces:
            look_for_bounces(distributor.collect_bounces, distributor.alerts)
    except ServiceDown as error:
        log.warning("waiting thread=bounces %s", error)
    except Exception:
        log.exception("bounces_failed")  # the next look is a minute away
    finally:
        _looking.release()


def _do_overdue_chores(distributor: Distributor) -> None:
    """Between two drains: a process that is busy with them takes the beat's messages only when they are too old.

    Without, leases of a dead worker, and the day's issue, would wait for the end of a long send.
    """
    if _is_overdue("tick", TICK):
        _tick(distributor)
    if _is_overdue("sweep", distributor.settings.engine.sweep):
        for channel in _sweep(distributor).due:
            signal(channel)


def _is_overdue(chore: str, every: timedelta) -> bool:
    return time.monotonic() - _done_at.setdefault(chore, time.monotonic()) >= every.total_seconds()


def _tick(distributor: Distributor) -> None:
    _done_at["tick"] = time.monotonic()
    distributor.scheduler.tick(datetime.now(UTC))


def _sweep(distributor: Distributor) -> Swept:
    _done_at["sweep"] = time.monotonic()
    swept = look_after(distributor.engine, distributor.alerts)
    distributor.ledger.beat("worker", distributor.engine.worker)
    return swept


def _signal_due(distributor: Distributor, due: Mapping[str, int]) -> None:
    for channel, number in due.items():
        signal(channel, -(-number // distributor.settings.engine.lanes))


@worker_shutting_down.connect
def _stop_lanes(**_details: Any) -> None:
    _stop.set()


@worker_process_init.connect
def _start_outboxes(**_details: Any) -> None:
    """Lanes of their own in each process: in a queue, confirmations would wait behind drains of ten seconds."""
    for name, send in (("letters", _send_letters), ("webhooks", _call_endpoints)):
        threading.Thread(target=_look_forever, args=(send,), name=name, daemon=True).start()


def _look_forever(send: Callable[[], int]) -> None:
    while not _stop.is_set():
        try:
            busy = send()
        except ServiceDown as error:
            log.warning("waiting thread=%s %s", threading.current_thread().name, error)
            busy = 0
        except Exception:
            log.exception("loop_failed thread=%s", threading.current_thread().name)
            busy = 0
        if not busy:
            time.sleep(0.5 + random.random())  # noqa: S311 - apart from the other processes' looks


def _send_letters() -> int:
    return _distributor().post_room.send_due(Glanced(_stop))


def _call_endpoints() -> int:
    return _distributor().caller.send_due(Glanced(_stop))


_building = threading.Lock()


def _distributor() -> Distributor:
    with _building:
        return _build(os.getpid())


@functools.cache
def _build(_pid: int) -> Distributor:
    """One a process: connections and event loops must be made after the fork."""
    distributor = build(load_settings(_root[0]), wake=_wake)
    tune_interpreter()
    return distributor


def _wake(channel: str) -> None:
    """A broker that is away costs only time: the next sweep signals whatever is due."""
    try:
        signal(channel, 2)
    except ServiceDown as error:
        log.warning("not_woken channel=%s %s", channel, error)
