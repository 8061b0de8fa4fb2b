"""Takes a pack to a person over one of the other channels, and leaves the delivery waiting for that person's word."""

from collections.abc import Mapping
from contextlib import ExitStack
from html import escape
from types import TracebackType
from typing import Self

from distributor.channels import Transport, load_channels
from distributor.errors import AwaitingPerson, Kind, Rejected, Scope, SendError, Unconfirmed
from distributor.model import DeliveryId, Message, Parcel, Receipt
from distributor.settings import Settings

#: What the other channels call the variant of such a message.
VARIANTS: Mapping[str, str] = {"email": "default", "telegram": "default", "wecom": "text"}


class HandoffTransport:
    """Sends packs to the person that the message names as `to`, on the channel that it names as `via`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ways: dict[str, tuple[ExitStack, Transport]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for via in tuple(self._ways):
            self._close(via)

    def send(self, parcel: Parcel, then: Parcel | None = None) -> Receipt:  # noqa: ARG002 - nothing to announce
        """Raises AwaitingPerson when the last part has gone: the person has it, the place has not."""
        message, place = parcel.message, parcel.message.content.get("place", "")
        via = message.content.get("via", "")
        if via not in VARIANTS:
            raise Rejected(text=f"a pack goes by {', '.join(VARIANTS)}, not {via!r}", kind=Kind.CONFIG)
        try:
            receipt = self._way(via).send(_addressed(parcel, via))
        except SendError as error:
            self._close(via)  # a broken connection is not used again
            _narrow(error, place)
            raise
        if message.part < message.parts or _is_test(parcel.identity):
            return receipt
        number = _number(parcel.identity)
        raise AwaitingPerson(
            text=f"awaiting a person: what to post in {place!r} is with them (by {via}); "
            f"once it is out: distributor resolve {number} --sent",
        )

    def _way(self, via: str) -> Transport:
        if via not in self._ways:
            channel = load_channels(self._settings.model_copy(update={"newsletters": {}}), also=[via])[via]
            opened = ExitStack()
            self._ways[via] = opened, opened.enter_context(channel.open(channel.relays[0].name))
        return self._ways[via][1]

    def _close(self, via: str) -> None:
        if via in self._ways:
            self._ways.pop(via)[0].close()


def _addressed(parcel: Parcel, via: str) -> Parcel:
    """The same parcel as the other channel's own; without the channel's placeholders, which a pack has none of."""
    message = parcel.message
    own = {"via", "to", "place", "settle"}
    content = {name: text for name, text in message.content.items() if name not in own}
    if "settle" in message.content and not _is_test(parcel.identity):
        below = "\n\n" + message.content["settle"].format(delivery=_number(parcel.identity))
        written = {"text": below, "plain": below, "html": escape(below, quote=False)}
        content |= {name: content[name] + text for name, text in written.items() if name in content}
    return parcel._replace(
        message=Message(channel=via, variant=VARIANTS[via], content=content),
        # A pack of a version before this one names nobody: the delivery's address was the person's.
        recipient=parcel.recipient._replace(
            channel=via, variant=VARIANTS[via], address=message.content.get("to", parcel.recipient.address)
        ),
        values={},
    )


def _narrow(error: SendError, place: str) -> None:
    """About this place alone: other persons are reached in other ways, and nobody's address is barred."""
    error.scope = Scope.RECIPIENT
    error.text = f"the pack for {place!r}: {error.text}"
    if isinstance(error, Unconfirmed):
        error.text += " (the person may not have it)"
    if isinstance(error, Rejected):
        error.suppress = False


def _number(identity: DeliveryId) -> str:
    return f"{identity.issue_id}.{identity.seq}"


def _is_test(identity: DeliveryId) -> bool:
    """A test send belongs to no issue: there is nothing to settle."""
    return not identity.issue_id
