"""The engine in one process, without a broker: a scheduler, a sweeper and one drain for each channel, as threads."""

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from distributor.bootstrap import Distributor
from distributor.dispatch import drain
from distributor.errors import ServiceDown
from distributor.schedule import look_after, look_for_bounces

log = logging.getLogger(__name__)

#: Seconds between two looks at the clock; the minute of a send is kept.
TICK = 15.0
#: Seconds between two looks for due work.
IDLE = 1.0
#: Seconds one drain lasts, before it looks around again.
DRAIN = 30.0


class Runner:
    """Runs until `stop` is set; each lane then finishes the messages it is in."""

    def __init__(self, distributor: Distributor, *, scheduled: bool = True) -> None:
        self.distributor = distributor
        self.stop = threading.Event()
        loops: list[tuple[str, Callable[[], object], float]] = [
            ("sweeper", self._sweep, distributor.settings.engine.sweep.total_seconds()),
            ("letters", self._send_letters, IDLE),
            ("webhooks", self._call_endpoints, IDLE),
            *((f"drain-{name}", self._drain(name), IDLE) for name in distributor.channels),
        ]
        if scheduled:
            loops.append(("scheduler", self._tick, TICK))
            loops += self._bounce_loop()
        self._threads = [threading.Thread(target=self._loop, args=loop, name=loop[0]) for loop in loops]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _loop(self, name: str, step: Callable[[], object], pause: float) -> None:
        while not self.stop.is_set():
            try:
                step()
            except ServiceDown as error:
                log.warning("waiting thread=%s %s", name, error)
            except Exception:
                # The other loops go on, and this one tries again: a bug in one step must not end the morning send.
                log.exception("loop_failed thread=%s", name)
            self.stop.wait(pause)

    def _sweep(self) -> None:
        look_after(self.distributor.engine, self.distributor.alerts)
        self.distributor.ledger.beat("worker", self.distributor.engine.worker)

    def _drain(self, channel: str) -> Callable[[], object]:
        """A look is one small query; lanes are made only when there is something to do."""

        def step() -> None:
            if channel in self.distributor.ledger.due_channels():
                drain(self.distributor.engine, channel, seconds=DRAIN, stop=self.stop)

        return step

    def _send_letters(self) -> None:
        while self.distributor.post_room.send_due(self.stop):
            pass

    def _call_endpoints(self) -> None:
        while self.distributor.caller.send_due(self.stop):
            pass

    def _bounce_loop(self) -> Iterator[tuple[str, Callable[[], object], float]]:
        """On a thread of its own: a mail server that does not answer holds up nobody."""
        distributor = self.distributor
        if collect := distributor.collect_bounces:
            every = distributor.settings.events.bounces.every.total_seconds()
            yield "bounces", lambda: look_for_bounces(collect, distributor.alerts), every

    def _tick(self) -> None:
        self.distributor.scheduler.tick(datetime.now(UTC))
