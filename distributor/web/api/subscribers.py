"""Calls about subscribers: look, tag, end, suppress, show and forget a person."""

import logging
from datetime import timedelta
from typing import Annotated

from fastapi import Query

from distributor.audience import Changes, Record, Wanted
from distributor.bootstrap import Distributor
from distributor.dispatch import forget, record_of_person
from distributor.model import SubscriptionState, SuppressionReason
from distributor.web.api.bodies import (
    AddressOut,
    ForgottenOut,
    Number,
    PersonOut,
    Slug,
    SubscriberOut,
    SuppressIn,
    TagsIn,
    TagsOut,
    Word,
)
from distributor.web.api.door import Asker
from distributor.web.api.paging import USUAL, CursorText, Listing, Page, PageSize
from distributor.web.api.refusing import address_of, known_channel, not_found, refused

log = logging.getLogger(__name__)

#: How long a call waits for a worker that has a mail to the person in hand.
PATIENCE = timedelta(seconds=5)
LISTING = Listing[Record]("subscribers", lambda record: (record.id,))


class SubscriberCalls:
    """One method a call."""

    def __init__(self, distributor: Distributor) -> None:
        self.distributor, self.audience = distributor, distributor.audience

    def list_subscribers(
        self,
        newsletter: Word = None,
        state: SubscriptionState | None = None,
        channel: Word = None,
        address: Annotated[str | None, Query(max_length=254)] = None,
        cursor: CursorText = None,
        limit: PageSize = USUAL,
    ) -> Page[SubscriberOut]:
        """List subscribers with their subscriptions, in order of their number.

        `address` is of the channel `email` when none is named.
        """
        if address is not None:
            channel = channel or "email"
            address = address_of(channel, address, parameter=True)
        wanted = Wanted(newsletter=newsletter, state=state, channel=channel, address=address)
        (after,) = LISTING.read(cursor) or (0,)
        found = self.audience.records(wanted, after=after, limit=limit + 1)
        return LISTING.page(found, limit, SubscriberOut.model_validate)

    def show_subscriber(self, number: Number) -> SubscriberOut:
        """Show a subscriber."""
        return SubscriberOut.model_validate(self._subscriber(number))

    def end_subscription(self, number: Number, newsletter: Slug, asker: Asker) -> SubscriberOut:
        """End a subscription.

        As the reader's own link does; again and again is harmless.
        """
        token = self.audience.token_of(number, newsletter)
        if token is None:
            raise not_found("subscription")
        self.distributor.reception.leave(token, asker)
        log.info("subscription_ended subscriber=%d newsletter=%s by=%s", number, newsletter, asker)
        return self.show_subscriber(number)

    def tag_subscription(self, number: Number, asked: TagsIn, asker: Asker) -> TagsOut:
        """Change the tags and attributes of a subscription."""
        subscriber = self._subscriber(number)
        if asked.newsletter not in {found.newsletter for found in subscriber.subscriptions}:
            raise not_found("subscription")
        changes = Changes(add=asked.add, remove=asked.remove, attributes=asked.attributes)
        with refused("wrong-fields"):
            found = self.audience.describe(asked.newsletter, subscriber.channel, subscriber.address, changes)
        log.info("subscription_tagged subscriber=%d newsletter=%s by=%s", number, asked.newsletter, asker)
        return TagsOut.model_validate(found)

    def suppress_address(self, asked: SuppressIn, asker: Asker) -> AddressOut:
        """Suppress an address: nothing is sent there any more.

        It need not be a subscriber's. A reason that stands there already is kept.
        """
        known_channel(self.distributor.channels, asked.channel)
        address = address_of(asked.channel, asked.address)
        note = f"{asker}: {asked.note}" if asked.note else asker
        self.audience.suppress(asked.channel, address, SuppressionReason.MANUAL, note)
        log.info("address_suppressed channel=%s by=%s", asked.channel, asker)
        return AddressOut(channel=asked.channel, address=address)

    def export_person(self, number: Number, asker: Asker) -> PersonOut:
        """Show everything that is kept about a person, for them to read.

        With the chats and the mailbox they linked. Give it to nobody but this person.
        """
        subscriber = self._subscriber(number)
        document = record_of_person(self.distributor.engine, subscriber.channel, subscriber.address)
        log.info("person_exported subscriber=%d by=%s", number, asker)
        return PersonOut.model_validate(document)

    def forget_person(self, number: Number, asker: Asker) -> ForgottenOut:
        """Erase a person, with the chats and the mailbox they linked. This cannot be undone.

        A hash of each address stays, so that no import brings it back. Where several hosts send, the journals and sent logs
        of the others are erased by `distributor subscribers forget`, on each of them.
        """
        subscriber = self._subscriber(number)
        with refused("not-possible"):
            done = forget(self.distributor.engine, subscriber.channel, subscriber.address, patience=PATIENCE)
        log.info("person_forgotten subscriber=%d by=%s", number, asker)
        places = [AddressOut(channel=channel, address=address) for channel, address in done.places]
        return ForgottenOut(places=places, deliveries=done.deliveries, skipped=done.skipped, calls=done.calls)

    def _subscriber(self, number: int) -> Record:
        found = self.audience.record(number)
        if found is None:
            raise not_found("subscriber")
        return found
