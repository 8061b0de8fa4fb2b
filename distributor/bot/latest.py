"""/today: the newest issue for a chat that has not got it, through the resend that a person would ask for."""

from enum import StrEnum

from distributor.dispatch import Engine, newest_issues, send_copy
from distributor.errors import RequestRefused
from distributor.model import DeliveryState, Issue
from distributor.settings.whole import is_loopback

UNDER_WAY = frozenset({DeliveryState.PENDING, DeliveryState.SENDING})


class Where(StrEnum):
    """Where the newest issue is, as seen from a chat; the values are fields of `words.Words`."""

    COMING = "coming"
    HAD = "had"
    ELSEWHERE = "elsewhere"  # it is not, and will not be, sent here
    NOWHERE = "no_issue"


class Latest:
    """The newest issues of newsletters."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.ledger = engine, engine.ledger

    def send(self, newsletter: str, chat: str) -> tuple[Where, str]:
        """Sends the newest issue to a chat that is subscribed and has not got it. Also says where it is on the web."""
        issue = self._newest(newsletter)
        if issue is None:
            return Where.NOWHERE, ""
        try:
            if send_copy(self.engine, issue, "telegram", chat, reason="the reader asked for it: /today"):
                return Where.COMING, ""
        except RequestRefused:
            return Where.ELSEWHERE, self._address(issue)
        return self._where(issue, chat), self._address(issue)

    def _newest(self, newsletter: str) -> Issue | None:
        found = newest_issues(self.engine, newsletter)
        return next((issue for issue in found if self.ledger.messages(issue.id, "telegram")), None)

    def _where(self, issue: Issue, chat: str) -> Where:
        for entry in self.ledger.log(issue.id, channel="telegram", address=chat, limit=1):
            if entry.state in UNDER_WAY:
                return Where.COMING
            if entry.state in {DeliveryState.SENT, DeliveryState.UNCONFIRMED}:
                return Where.HAD
        return Where.ELSEWHERE

    def _address(self, issue: Issue) -> str:
        """The issue's page, else its frozen mail; empty when readers reach neither."""
        if page := self.engine.page_of(issue):
            return page
        if is_loopback(self.engine.base_url) or not self.ledger.messages(issue.id, "email"):
            return ""
        return f"{self.engine.base_url}/issues/{issue.id}"
