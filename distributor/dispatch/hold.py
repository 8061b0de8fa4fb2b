"""A chunk in the hands of a lane: until when by our own clock, and the journal of what was begun."""

import logging
import threading
import time
from datetime import timedelta
from types import TracebackType
from typing import Self

from distributor.errors import ServiceDown
from distributor.journal import Journal, NoJournal
from distributor.ledger import Ledger
from distributor.model import Chunk

log = logging.getLogger(__name__)

#: Goes on while the machine sleeps, where there is such a clock.
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def clock() -> float:
    """Seconds; never set back or forward."""
    return time.clock_gettime(CLOCK)


class Hold:
    """A lease of ours.

    The deadline counts from before the database was asked, so it is over here before it is over there.
    """

    def __init__(self, chunk: Chunk, journal: Journal | NoJournal, asked_at: float, lease: timedelta) -> None:
        self.chunk, self.journal = chunk, journal
        self._lease = lease.total_seconds()
        self.deadline = asked_at + self._lease

    def renewed(self, asked_at: float) -> None:
        self.deadline = asked_at + self._lease

    @property
    def is_ours(self) -> bool:
        """Whether a message may still be begun."""
        return clock() < self.deadline and not self.journal.revoked


class Keeper:
    """Renews the leases of a drain's lanes: a single send may take longer than a lease."""

    def __init__(self, ledger: Ledger, lease: timedelta) -> None:
        self._ledger, self._lease = ledger, lease
        self._holds: set[Hold] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    @property
    def busy(self) -> bool:
        """Whether any lane of the drain has a chunk."""
        return bool(self._holds)

    def keep(self, hold: Hold) -> None:
        with self._lock:
            self._holds.add(hold)

    def drop(self, hold: Hold) -> None:
        with self._lock:
            self._holds.discard(hold)

    def _run(self) -> None:
        step = self._lease.total_seconds() / 4
        while not self._over.wait(step):
            try:
                self._renew(clock() + 2.5 * step)
            except ServiceDown as error:
                log.warning("leases_not_renewed %s", error)

    def _renew(self, before: float) -> None:
        """Those that would run out before then; a lane that gets on renews its own with each slice."""
        with self._lock:
            old = {hold.chunk.token: hold for hold in self._holds if hold.deadline < before}
        if not old:
            return
        asked_at = clock()
        for token in self._ledger.renew(old, self._lease):
            old[token].renewed(asked_at)
