"""A test send: the post to one address, marked as a test; no issue, no ledger."""

from collections.abc import Sequence
from datetime import UTC, datetime

from distributor.audience import normalise
from distributor.channels import Channel
from distributor.dispatch.engine import Engine, placeholder_values
from distributor.dispatch.inspecting import Tell, inspect_to_send, tell_warnings
from distributor.errors import RequestRefused
from distributor.model import DeliveryId, Message, Parcel, Post, Receipt, Recipient
from distributor.settings import Newsletter


def test_send(
    engine: Engine,
    newsletter: Newsletter,
    post: Post,
    channel: str,
    address: str,
    *,
    tell: Tell = lambda _finding: None,  # noqa: PT028 - a story, no test
) -> Sequence[Receipt]:
    """Sends the post to one address, marked as a test; opens no issue. Raises PostError, SendError, RequestRefused.

    `tell` gets the warnings of the checks.
    """
    recipient = _test_recipient(engine.channels[channel], newsletter, address)
    now = datetime.now(UTC)
    today = now.astimezone(newsletter.zone).date()
    inspection = inspect_to_send(engine, newsletter, post, today, [channel])
    rendered = [message for message in inspection.messages if message.variant == recipient.variant]
    if not rendered:
        raise RequestRefused(
            f"{channel} has no destination {address!r}; see the newsletter's [channels.{channel}]"
        )
    tell_warnings(inspection, tell)
    receipts: list[Receipt] = []
    with engine.channels[channel].open(engine.channels[channel].relays[0].name) as transport:
        for message in rendered:
            parcel = Parcel(
                message=_marked_as_test(message),
                recipient=recipient,
                identity=DeliveryId(0, int(now.timestamp())),
                sent_date=now,
                values=placeholder_values(engine.base_url, 0, recipient.token),
                receipts=tuple(receipt.provider_id or "" for receipt in receipts),
            )
            receipts.append(transport.send(parcel))
            if receipts[-1].whole:
                break
    return receipts


def _test_recipient(channel: Channel, newsletter: Newsletter, address: str) -> Recipient:
    """A destination of the configuration, by its name or address, or a subscriber's kind of address."""
    for place in channel.destinations(newsletter):
        if address in {place.destination, place.address}:
            return place
    return Recipient(channel=channel.name, address=normalise(channel.name, address), token="test")  # noqa: S106 - leads nowhere


def _marked_as_test(message: Message) -> Message:
    content = {
        key: text for key, text in message.content.items() if key != "mentioned"
    }  # a test rings for nobody
    if "subject" in content:
        content["subject"] = f"[TEST] {content['subject']}"
    return Message(
        channel=message.channel,
        variant=message.variant,
        content=content,
        part=message.part,
        parts=message.parts,
        placeholders=message.placeholders,
    )
