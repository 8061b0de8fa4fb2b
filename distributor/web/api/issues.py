"""Calls about issues and their deliveries: look, hold up, end, resend."""

import logging
from collections.abc import Callable
from typing import Annotated

from fastapi import Query

from distributor.bootstrap import Distributor
from distributor.dispatch import cancel, pause, plan_resend, resend, resume
from distributor.errors import RequestRefused
from distributor.ledger import Ledger, LogEntry, ResendRequest
from distributor.model import DeliveryState, Issue, IssueState
from distributor.web.api.bodies import WORD, DeliveryOut, IssueOut, Number, ResendIn, ResendOut, Word
from distributor.web.api.door import Asker
from distributor.web.api.paging import USUAL, CursorText, Listing, Page, PageSize
from distributor.web.api.refusing import address_of, known_channel, not_found, refused

log = logging.getLogger(__name__)

ISSUES = Listing[Issue]("issues", lambda issue: (issue.id,))
DELIVERIES = Listing[LogEntry]("deliveries", lambda entry: (entry.seq,))
DELIVERIES_OF = Listing[LogEntry]("deliveries-of", lambda entry: (entry.issue_id, entry.seq))


class IssueCalls:
    """One method a call."""

    def __init__(self, distributor: Distributor) -> None:
        self.distributor, self.ledger = distributor, distributor.ledger

    def list_issues(
        self,
        newsletter: Word = None,
        state: Annotated[tuple[IssueState, ...], Query(description="several are alternatives")] = (),
        cursor: CursorText = None,
        limit: Annotated[int, Query(ge=1, le=100, description="rows of a page")] = 20,
    ) -> Page[IssueOut]:
        """List issues, the newest first."""
        before = ISSUES.read(cursor)
        found = self.ledger.issues(
            newsletter, states=state, before=before[0] if before else None, limit=limit + 1
        )
        return ISSUES.page(found, limit, self._shown)

    def show_issue(self, number: Number) -> IssueOut:
        """Show an issue, with its deliveries counted."""
        return self._shown(self._issue(number))

    def list_deliveries(
        self,
        number: Number,
        state: Annotated[tuple[DeliveryState, ...], Query(description="several are alternatives")] = (),
        channel: Word = None,
        cursor: CursorText = None,
        limit: PageSize = USUAL,
    ) -> Page[DeliveryOut]:
        """List an issue's deliveries with their attempts, in order of their number."""
        self._issue(number)
        (after,) = DELIVERIES.read(cursor) or (0,)
        found = self.ledger.log(number, states=state, channel=channel, after=after, limit=limit + 1)
        return DELIVERIES.page(found, limit, DeliveryOut.model_validate)

    def list_deliveries_of(
        self,
        address: Annotated[str, Query(max_length=254)],
        channel: Annotated[str, Query(pattern=WORD)] = "email",
        cursor: CursorText = None,
        limit: PageSize = USUAL,
    ) -> Page[DeliveryOut]:
        """List what was sent to an address, the newest issue first."""
        spelled = address_of(channel, address, parameter=True)
        before = DELIVERIES_OF.read(cursor)
        found = self.ledger.log(
            None,
            channel=channel,
            address=spelled,
            before=(before[0], before[1]) if before else None,
            limit=limit + 1,
        )
        return DELIVERIES_OF.page(found[::-1], limit, DeliveryOut.model_validate)

    def pause_issue(self, number: Number, asker: Asker) -> IssueOut:
        """Pause an issue: two seconds from now nothing more of it goes out."""
        return self._changed(number, pause, asker)

    def resume_issue(self, number: Number, asker: Asker) -> IssueOut:
        """Let a paused issue go on."""
        return self._changed(number, resume, asker)

    def cancel_issue(self, number: Number, asker: Asker) -> IssueOut:
        """Cancel an issue: what is pending is skipped, for good."""
        return self._changed(number, cancel, asker)

    def resend_issue(self, number: Number, asked: ResendIn, asker: Asker) -> ResendOut:
        """Resend what failed, is unconfirmed, expired, or never reached somebody.

        A dry run, unless `dry_run` is false. Whoever has left is never reached. `address` is of the channel `email` when
        none is named.
        """
        self._issue(number)
        request = self._request(asked, asker)
        with refused("not-possible"):
            plan = plan_resend(self.distributor.engine, number, request)
            done = plan.total if asked.dry_run else resend(self.distributor.engine, number, request)
        if not asked.dry_run:
            log.info("issue_resent issue=%d only=%s deliveries=%d by=%s", number, asked.only, done, asker)
        return ResendOut(done=not asked.dry_run, deliveries=done, by_channel=plan.by_channel)

    def _request(self, asked: ResendIn, asker: str) -> ResendRequest:
        channel = asked.channel or ("email" if asked.address else None)
        if channel:
            known_channel(self.distributor.channels, channel)
        return ResendRequest(
            scope=asked.only,
            reason=asked.reason,
            by=asker,
            channel=channel,
            address=address_of(channel, asked.address) if channel and asked.address else None,
        )

    def _issue(self, number: int) -> Issue:
        try:
            return self.ledger.issue(number)
        except RequestRefused:
            raise not_found("issue") from None

    def _changed(self, number: int, change: Callable[[Ledger, int], object], asker: str) -> IssueOut:
        self._issue(number)
        with refused("not-possible"):
            change(self.ledger, number)
        log.info("issue_changed issue=%d how=%s by=%s", number, change.__name__, asker)
        return self.show_issue(number)

    def _shown(self, issue: Issue) -> IssueOut:
        return IssueOut.model_validate({**vars(issue), "deliveries": self.ledger.tallies(issue.id)})
