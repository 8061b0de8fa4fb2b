"""Issues, messages, chunks, deliveries and attempts: what was planned, what was tried, how it ended.

Every change of a delivery's state goes through here, together with its chunk's counters, in one transaction.
One module a story; each is a part of the one `Ledger`.
"""

from distributor.ledger.canaries import Canaries, CanaryCount
from distributor.ledger.erasing import Erasing
from distributor.ledger.issues import Issues, once_only
from distributor.ledger.leases import LEASE_LOST_TEXT, Leases
from distributor.ledger.news import PROOFS
from distributor.ledger.opening import WINDOW, Opening
from distributor.ledger.repairs import Repairs
from distributor.ledger.reports import Reports
from distributor.ledger.restores import Restores
from distributor.ledger.slices import NOTHING_DUE, Slice
from distributor.ledger.upkeep import Upkeep
from distributor.ledger.values import (
    READER,
    Attempt,
    ChannelStop,
    Lapsed,
    LeaseLost,
    LogEntry,
    NewIssue,
    Postponed,
    RecordedEvent,
    ResendRequest,
)

__all__ = [
    "LEASE_LOST_TEXT",
    "NOTHING_DUE",
    "PROOFS",
    "READER",
    "WINDOW",
    "Attempt",
    "CanaryCount",
    "ChannelStop",
    "Lapsed",
    "LeaseLost",
    "Ledger",
    "LogEntry",
    "NewIssue",
    "Postponed",
    "RecordedEvent",
    "ResendRequest",
    "Slice",
    "once_only",
]


class Ledger(Canaries, Erasing, Issues, Opening, Leases, Reports, Repairs, Restores, Upkeep):
    """The ledger in one database."""
