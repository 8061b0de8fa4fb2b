"""What a lane has in hand while it sends a slice: whom it tries, how that ended, why it stops."""

import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from distributor.dispatch.hold import Hold
from distributor.dispatch.ways import Connection, Way
from distributor.errors import Rejected
from distributor.journal import NOTHING_SENT, Progress
from distributor.ledger import Postponed
from distributor.model import Delivery, DeliveryState, Outcome, Parcel, Receipt


@dataclass(frozen=True)
class Halt:
    """Why a lane gives its chunk back before it is done, and when the chunk may be taken again."""

    due_in: timedelta | None = None
    stop_lane: bool = False

    @property
    def seconds(self) -> float:
        return self.due_in.total_seconds() if self.due_in else 0.0


#: The slice ends here, its rest goes back, and the lane goes on with it at once.
AGAIN = Halt()
#: The chunk goes back, due at once.
AT_ONCE = Halt(due_in=timedelta(0))


@dataclass
class Sent:
    """How far a slice came: what ended how (and as the journal has it), and what goes back untried."""

    outcomes: list[Outcome] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)
    unused: list[Postponed] = field(default_factory=list)
    halt: Halt | None = None

    def resume_behind(self, last: int) -> int:
        """The number behind which the next slice begins: before the first that goes back without a time."""
        again = [item.delivery.identity.seq for item in self.unused if item.due_in is None]
        return min(again, default=last + 1) - 1


class Try:
    """A delivery that a lane is about to send, or sends: its parts, how far they came, since when."""

    def __init__(
        self, delivery: Delivery, parcels: Sequence[Parcel], way: Way, refusal: Rejected | None = None
    ) -> None:
        """`refusal`: why there is nothing to send."""
        self.delivery, self.parcels, self.way, self.refusal = delivery, parcels, way, refusal
        #: The one that has announced it.
        self.connection: Connection | None = None
        self.parts_sent = delivery.parts_sent
        self.receipts: Sequence[str] = delivery.receipts
        self.receipt = _NO_RECEIPT
        self.new_address: str | None = None
        self.noted = ""

    def start(self) -> None:
        self.started_at = datetime.now(UTC)
        self._clock = time.monotonic()

    @property
    def sent_something(self) -> bool:
        return self.parts_sent > self.delivery.parts_sent

    @property
    def progress(self) -> Progress:
        return Progress(self.parts_sent, self.receipts) if self.parts_sent else NOTHING_SENT

    def remaining(self) -> Iterator[tuple[int, Parcel]]:
        """Number and parcel of each part, as long as parts are left; each knows the receipts of those before it.

        Raises Rejected when there is nothing to send.
        """
        if self.refusal:
            raise self.refusal
        for number, parcel in enumerate(self.parcels, 1):
            if self.parts_left:
                yield number, parcel._replace(receipts=self.receipts) if self.sent_something else parcel

    def accepted(self, receipt: Receipt) -> None:
        """One more part is there, or all that were left."""
        parts = self.parts_left if receipt.whole else 1
        self.receipt = receipt
        self.new_address = receipt.address or self.new_address
        self.receipts = (*self.receipts, *[receipt.provider_id or ""] * parts)
        self.parts_sent += parts

    @property
    def took(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self._clock

    @property
    def _duration_ms(self) -> int:
        return int(self.took * 1000 + 0.5)

    @property
    def parts_left(self) -> int:
        return len(self.parcels) - (self.parts_sent - self.delivery.parts_sent)

    def sent(self) -> Outcome:
        """`ended`, as nearly all do."""
        return Outcome(
            self.delivery,
            DeliveryState.SENT,
            self.started_at,
            self._duration_ms,
            self.parts_sent,
            self.receipts,
            self.receipt.code,
            self.receipt.text,
            new_address=self.new_address,
            relay=self.way.relay.name,
        )

    def broken_off(self, wait: float) -> Outcome:
        """Between two parts; a later try goes on with the next one."""
        return self.ended(
            DeliveryState.PENDING,
            retry_in=timedelta(seconds=wait),
            counts=False,
            text=f"{self.parts_sent} parts are sent",
        )

    def ended(self, state: DeliveryState, **details: Any) -> Outcome:
        """The outcome; `details` are its other fields."""
        return Outcome(
            delivery=self.delivery,
            state=state,
            started_at=self.started_at,
            duration_ms=self._duration_ms,
            parts_sent=self.parts_sent,
            receipts=self.receipts,
            new_address=self.new_address,
            relay=self.way.relay.name,
            **details,
        )


_NO_RECEIPT = Receipt()


@dataclass
class InHand:
    """A slice that is being sent: who waits, whose answers are out, what ended."""

    hold: Hold
    queue: deque[Try]
    sent: Sent
    under_way: dict[Connection, Try] = field(default_factory=dict)
    #: Why nobody else begins but those who are announced.
    closing: Halt | None = None

    def close(self, why: Halt) -> None:
        """What was announced may still go: else its connection has to be given up."""
        self.closing = why
        self.sent.unused += [Postponed(delivery=item.delivery) for item in self.queue if not item.connection]
        self.queue = deque(item for item in self.queue if item.connection)


def behind_those_that_go_before(queue: Collection[Try], free: int) -> Try | None:
    """The first whom no connection has announced, and none of the free ones will carry."""
    for item in queue:
        if item.connection is None:
            if not free:
                return item
            free -= 1
    return None
