"""What the lanes of a drain know of the issues they send: read once, for all of them."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distributor.dispatch.engine import Engine
from distributor.dispatch.reconciling import hold_if_set_back
from distributor.model import Issue, Message


@dataclass(frozen=True)
class KnownIssue:
    """An issue, its messages on one channel (variant → parts), and its page when it has one."""

    issue: Issue
    messages: Mapping[str, Sequence[Message]]
    page: str | None = None


class KnownIssues:
    """The issues of one channel.

    Twenty-five lanes that begin together and each read and compare for themselves take two seconds of every ten.
    """

    def __init__(self, engine: Engine, channel: str) -> None:
        self._engine, self._channel = engine, channel
        self._known: dict[int, KnownIssue] = {}
        self._lock = threading.Lock()

    def find(self, issue_id: int) -> KnownIssue:
        """Reads it, and compares the sent log with the ledger, before anything of it is in hand. Raises SentLogBroken."""
        with self._lock:
            if issue_id not in self._known:
                self._known[issue_id] = self._read(issue_id)
            return self._known[issue_id]

    def forget(self) -> None:
        """What is known may be of a database that was set back meanwhile."""
        with self._lock:
            self._known.clear()

    def _read(self, issue_id: int) -> KnownIssue:
        ledger = self._engine.ledger
        messages, issue = ledger.messages(issue_id, self._channel), ledger.issue(issue_id)
        hold_if_set_back(self._engine, issue)
        return KnownIssue(issue, messages, self._engine.page_of(issue))
