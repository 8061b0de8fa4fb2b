"""When what is heard is about us, not about one reader: refused for what we are, or too many complaints.

Each process counts for itself; a notice is told once, whoever tells it.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from distributor.ledger import Ledger
from distributor.model import Event, EventKind, Permanence, Tally

#: Writes a notice down: key, subject, body.
Tell = Callable[[str, str, str], object]

#: Refusals for policy of one recipient domain within an hour: a few are a filter's mood.
REFUSALS, WITHIN = 20, 3600.0
#: Gmail and Yahoo ask for less than 0.1 % complaints, and filter from 0.3 % on; two are no rate.
COMPLAINTS, RATE = 3, 0.003


class Heard(NamedTuple):
    """A new event, whom it is about, and the issue it is about where that is known."""

    event: Event
    address: str
    issue_id: int | None


class Alarms:
    """Tells the operator."""

    def __init__(self, ledger: Ledger, tell: Tell) -> None:
        self.ledger, self.tell = ledger, tell
        self._refused: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=REFUSALS))

    def look(self, news: Iterable[Heard]) -> None:
        """At what was just recorded."""
        issues = set()
        for event, address, issue_id in news:
            if event.permanence is Permanence.POLICY:
                self._refusal(address.rpartition("@")[2], event)
            if event.kind is EventKind.COMPLAINED and issue_id:
                issues.add(issue_id)
        for issue_id in issues:
            self._complaints(issue_id)

    def _refusal(self, domain: str, event: Event) -> None:
        refused, now = self._refused[domain], time.monotonic()
        refused.append(now)
        if len(refused) < REFUSALS or now - refused[0] > WITHIN:
            return
        self.tell(
            f"policy:{domain}:{datetime.now(UTC).date()}",
            f"{domain} refuses our mail for what we are",
            f"{REFUSALS} mails within an hour were refused for reputation, content or pace. Nobody is suppressed for it.\n"
            f"The last one, by {event.provider}: {event.code} {event.detail}\n\nLook: distributor events --kind bounced",
        )

    def _complaints(self, issue_id: int) -> None:
        complaints = self.ledger.heard(issue_id, [EventKind.COMPLAINED]).get(EventKind.COMPLAINED, 0)
        if complaints < COMPLAINTS:
            return
        sent = sum(self.ledger.tallies(issue_id).values(), Tally()).sent
        if complaints < RATE * sent:
            return
        self.tell(
            f"complaints:{issue_id}",
            f"issue {issue_id}: many readers call it spam",
            f"{complaints} of {sent} readers complained. Mail providers put a sender's mail into the spam folder from "
            f"{RATE:.1%} on.\nThose readers get nothing more.\n\nLook: distributor events --issue {issue_id} --kind complained",
        )
