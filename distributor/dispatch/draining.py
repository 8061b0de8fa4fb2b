"""Draining: a worker sends what is due on a channel with a few lanes, whose leases a keeper renews."""

import threading
import time

from distributor.dispatch.engine import Engine, Stop
from distributor.dispatch.hold import Keeper
from distributor.dispatch.lane import Lane


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


def drain(engine: Engine, channel: str, *, seconds: float, stop: Stop | None = None) -> int:
    """Sends what is due on a channel, with as many lanes as set, for at most about `seconds`.

    Returns how many deliveries were tried. `stop` ends it early: each lane finishes the message it is in.
    """
    deadline = time.monotonic() + seconds
    with Keeper(engine.ledger, engine.settings.lease) as keeper:
        glanced = Glanced(stop or threading.Event())
        lanes = [Lane(engine, channel, keeper, deadline, glanced) for _ in range(engine.settings.lanes)]
        threads = [
            threading.Thread(target=lane.run, name=f"{channel}-{number}") for number, lane in enumerate(lanes)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for lane in lanes:
        if lane.error:
            raise lane.error
    return sum(lane.tried for lane in lanes)
