"""Tags and attributes of a subscription: what segments are made of."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, insert, select

from distributor.audience.addresses import normalise
from distributor.audience.store import Store
from distributor.db import insert_ignore
from distributor.errors import RequestRefused
from distributor.tables import subscribers, subscription_attributes, subscription_tags, subscriptions

#: Characters of a tag, of an attribute's name, of its value.
LONGEST_TAG, LONGEST_NAME, LONGEST_VALUE = 100, 50, 500


@dataclass(frozen=True, kw_only=True)
class Description:
    """The tags and attributes of a subscription."""

    tags: Sequence[str] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)


NOTHING = Description()


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What to change of a description; an attribute of "" is taken away."""

    add: Sequence[str] = ()
    remove: Sequence[str] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)


class Describing(Store):
    """Describes subscriptions."""

    def describe(self, newsletter: str, channel: str, address: str, changes: Changes) -> Description:
        """Changes tags and attributes; returns what there is then. Raises RequestRefused for an unknown subscription."""
        known = normalise(channel, address)
        add = [tag_of(tag) for tag in changes.add]
        values = {name_of(name): value_of(value) for name, value in changes.attributes.items()}
        with self.database.write() as connection:
            number = self._subscription_id(connection, newsletter, channel, known)
            of = subscription_tags.c.subscription_id == number
            connection.execute(
                delete(subscription_tags).where(
                    of, subscription_tags.c.tag.in_([tag.lower() for tag in changes.remove])
                )
            )
            rows = [{"subscription_id": number, "tag": tag} for tag in dict.fromkeys(add)]
            insert_ignore(self.database, subscription_tags, rows, connection)
            self._set_attributes(connection, number, values)
            return self._descriptions(connection, [number]).get(number, NOTHING)

    def _set_attributes(self, connection: Connection, number: int, values: Mapping[str, str]) -> None:
        connection.execute(
            delete(subscription_attributes).where(
                subscription_attributes.c.subscription_id == number,
                subscription_attributes.c.name.in_(list(values)),
            )
        )
        rows = [
            {"subscription_id": number, "name": name, "value": value}
            for name, value in values.items()
            if value
        ]
        if rows:
            connection.execute(insert(subscription_attributes), rows)

    def _subscription_id(self, connection: Connection, newsletter: str, channel: str, address: str) -> int:
        query = (
            select(subscriptions.c.id)
            .join(subscribers, subscribers.c.id == subscriptions.c.subscriber_id)
            .where(
                subscribers.c.channel == channel,
                subscribers.c.address == address,
                subscriptions.c.newsletter == newsletter,
            )
        )
        # Two who describe one subscription at a time go one by one.
        number = connection.execute(query if self.database.sqlite else query.with_for_update()).scalar()
        if number is None:
            raise RequestRefused(f"{address} has no subscription to {newsletter} by {channel}")
        return int(number)

    def _descriptions(self, connection: Connection, numbers: Sequence[int]) -> Mapping[int, Description]:
        """Subscription → its description, of those that have one."""
        tags: dict[int, list[str]] = {}
        values: dict[int, dict[str, str]] = {}
        tagged, described = subscription_tags.c, subscription_attributes.c
        for number, tag in connection.execute(
            select(tagged.subscription_id, tagged.tag)
            .where(tagged.subscription_id.in_(numbers))
            .order_by(tagged.tag)
        ):
            tags.setdefault(number, []).append(tag)
        for number, name, value in connection.execute(
            select(described.subscription_id, described.name, described.value)
            .where(described.subscription_id.in_(numbers))
            .order_by(described.name)
        ):
            values.setdefault(number, {})[name] = value
        return {
            number: Description(tags=tags.get(number, ()), attributes=values.get(number, {}))
            for number in tags.keys() | values.keys()
        }


def tag_of(text: str) -> str:
    """A tag in its one spelling, in lower case. Raises RequestRefused for what cannot be one."""
    tag = _text(text, LONGEST_TAG, "tag").lower()
    if re.search("[,;]", tag):
        raise RequestRefused(
            f"{tag!r} cannot be a tag: where several stand in one cell, , and ; separate them"
        )
    return tag


def name_of(text: str) -> str:
    """The name of an attribute. Raises RequestRefused for one that a filter could not name."""
    name = _text(text, LONGEST_NAME, "name of an attribute")
    if re.search(r"[\s():\"=]", name):
        raise RequestRefused(
            f'{name!r} cannot name an attribute: no blank and none of ( ) : " = may stand in it'
        )
    return name


def value_of(text: str) -> str:
    """The value of an attribute; "" is none. Raises RequestRefused."""
    return _text(text, LONGEST_VALUE, "value") if text.strip() else ""


def _text(text: str, longest: int, what: str) -> str:
    found = text.strip()
    if not found or len(found) > longest or re.search(r"[\x00-\x1f\x7f]", found):
        raise RequestRefused(
            f"{found[:40]!r} cannot be a {what}: one to {longest} characters, no control characters"
        )
    return found
