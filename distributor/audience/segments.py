"""A part of an audience, named by filters: their conditions as SQL, with bound values."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, tzinfo
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, exists, func, not_, or_

from distributor.audience.values import AudienceQuery
from distributor.filters import AllOf, AnyOf, Condition, Filter, Not, parse_filter
from distributor.tables import (
    issue_segments,
    subscribers,
    subscription_attributes,
    subscription_tags,
    subscriptions,
)


class Segment(NamedTuple):
    """Readers of a newsletter for whom all the `filters` hold; without any, everybody.

    A reader who named no language reads the newsletter's (`language`); days begin in its `zone`.
    """

    filters: Sequence[str] = ()
    language: str = ""
    zone: tzinfo = UTC

    def condition(self) -> ColumnElement[bool] | None:
        """On a query that has `subscribers` and `subscriptions`; None without a filter. Raises FilterError."""
        if not self.filters:
            return None
        return and_(*(self._of(parse_filter(text)) for text in self.filters))

    def _of(self, tree: Filter) -> ColumnElement[bool]:
        match tree:
            case Not(term):
                return not_(self._of(term))
            case AllOf(terms):
                return and_(*map(self._of, terms))
            case AnyOf(terms):
                return or_(*map(self._of, terms))
            case Condition():
                return self._one(tree)

    def _one(self, asked: Condition) -> ColumnElement[bool]:
        """Never null: "not" of it must find who has no such thing."""
        if asked.since:
            return self._began(asked.since)
        return {
            "tag": lambda: _has_tag(asked.value.lower()),
            "attr.": lambda: _has_attribute(asked.attribute, asked.value),
            "source": lambda: subscriptions.c.source == asked.value,
            "domain": lambda: subscribers.c.domain == asked.value.lower().removeprefix("@"),
            "lang": lambda: self._reads(asked.value.lower()),
        }[asked.name]()

    def _began(self, day: date) -> ColumnElement[bool]:
        begins = datetime.combine(day, time.min, self.zone)
        return and_(subscriptions.c.activated_at.is_not(None), subscriptions.c.activated_at >= begins)

    def _reads(self, language: str) -> ColumnElement[bool]:
        known = func.lower(func.coalesce(func.nullif(subscribers.c.language, ""), self.language))
        return or_(known == language, known.startswith(f"{language}-", autoescape=True))


def in_segment(query: AudienceQuery, segment: Segment) -> AudienceQuery:
    """Of a query that has `subscribers` and `subscriptions`, those in the segment. Raises FilterError."""
    condition = segment.condition()
    return query if condition is None else query.where(condition)


def of_issue(audience: AudienceQuery, issue_id: int) -> AudienceQuery:
    """Of an audience (`active`), those who were written down when the issue was frozen, whatever their tags are by now."""
    return audience.join(
        issue_segments,
        and_(issue_segments.c.issue_id == issue_id, issue_segments.c.subscriber_id == subscribers.c.id),
    )


def _has_tag(tag: str) -> ColumnElement[bool]:
    return exists().where(
        subscription_tags.c.subscription_id == subscriptions.c.id, subscription_tags.c.tag == tag
    )


def _has_attribute(name: str, value: str) -> ColumnElement[bool]:
    return exists().where(
        subscription_attributes.c.subscription_id == subscriptions.c.id,
        subscription_attributes.c.name == name,
        subscription_attributes.c.value == value,
    )
