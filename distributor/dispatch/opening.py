"""Opening an issue: rendered, frozen, its audience written down."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial

from distributor.audience import AudienceQuery, Segment, active, behind, of_domains, of_issue
from distributor.channels import EVERYBODY, Channel
from distributor.dispatch.engine import Engine
from distributor.dispatch.inspecting import Tell, inspect_to_send, render_on, tell_warnings, with_pictures
from distributor.errors import RequestRefused
from distributor.ledger import WINDOW, LeaseLost, NewIssue
from distributor.model import Issue, Message, OpenedBy, Post, Recipient
from distributor.settings import Newsletter

log = logging.getLogger(__name__)

#: The variant of whoever asks for none of its own.
DEFAULT = "default"
#: Deliveries of the first window of a pace group: the first message must not wait for fifty thousand rows.
FIRST_WINDOW = 2_000


class AudienceHeld(RequestRefused):
    """The audience is not what one would expect: a person must look before anything is sent."""


def render(engine: Engine, newsletter: Newsletter, post: Post, *, fetch: bool = False) -> Sequence[Message]:
    """The post on every channel of the newsletter.

    With `fetch`, its pictures are fetched and re-hosted first, where that is set; else only those are used that are
    hosted already, so that a look asks nobody.

    Raises:
        PostError: a bad post is refused before the first delivery.
    """
    hosted = with_pictures(engine, post, fetch=fetch)
    return [
        message
        for name in newsletter.channels
        for message in render_on(engine.channels[name], hosted, newsletter)
    ]


def open_issue(
    engine: Engine,
    newsletter: Newsletter,
    post: Post,
    day: date,
    *,
    by: OpenedBy,
    extra: bool = False,
    guarded: bool = True,
    filter_text: str = "",
    tell: Tell = lambda _finding: None,
) -> tuple[Issue, bool]:
    """(the issue, whether this call opened it). Renders and checks, freezes the messages, and takes the day's place.

    `filter_text` narrows its subscribers further than the newsletter's own filters do. `tell` gets the warnings of the
    checks.

    Raises:
        PostError: the post cannot be sent well, or a check found an error.
        AudienceHeld: nobody, or far fewer than last time (`guarded=False` sends all the same).
        RequestRefused: the post already went out.
    """
    number = engine.ledger.next_extra(newsletter.slug, day) if extra else 0
    if not extra and (existing := engine.ledger.issue_of(newsletter.slug, day)):
        return existing, False
    inspection = inspect_to_send(engine, newsletter, post, day)
    if guarded:
        guard_audience(engine, newsletter, filter_text)
    schedule = newsletter.schedule
    waits = by is OpenedBy.SCHEDULER and schedule.approval != "auto"
    issue, opened = engine.ledger.open_issue(
        NewIssue(
            newsletter=newsletter.slug,
            local_date=day,
            extra=number,
            slug=post.slug,
            title=post.title,
            post_hash=post.hash,
            opened_by=by,
            expires_in=schedule.expires,
            messages=inspection.messages,
            channels=newsletter.channels,
            waits_for_approval=waits,
            approval_in=schedule.approval_deadline
            if waits and schedule.approval == "auto-at-deadline"
            else None,
            filters={
                name: segment_of(newsletter, name, filter_text).filters
                for name in newsletter.channels
                if takes_subscribers(newsletter, name)
            },
        )
    )
    if opened:
        tell_warnings(inspection, tell)
        log.info(
            "issue_opened issue=%s newsletter=%s day=%s post=%s", issue.id, newsletter.slug, day, post.slug
        )
    if opened and not waits:
        engine.publish(issue, post)
    return issue, opened


def planned_sizes(engine: Engine, newsletter: Newsletter, filter_text: str = "") -> Mapping[str, int]:
    """Channel → how many recipients an issue would have now."""
    return {
        name: len(engine.channels[name].destinations(newsletter))
        + _subscriber_count(engine, newsletter, name, filter_text)
        for name in newsletter.channels
    }


def _subscriber_count(engine: Engine, newsletter: Newsletter, channel: str, filter_text: str) -> int:
    if not takes_subscribers(newsletter, channel):
        return 0
    segment = segment_of(newsletter, channel, filter_text)
    return engine.audience.count(newsletter.slug, channel, segment)


def segment_of(newsletter: Newsletter, channel: str, filter_text: str = "") -> Segment:
    """The subscribers of a channel who get the newsletter: by its filters, and by one more for a single send."""
    filters = newsletter.filters(channel)
    return _segment(newsletter, (*filters, filter_text) if filter_text else filters)


def frozen_segments(engine: Engine, newsletter: Newsletter, issue: Issue) -> Mapping[str, Segment]:
    """Channel → the segment that an issue was opened for, whatever the settings say by now."""
    return {name: _segment(newsletter, filters) for name, filters in engine.ledger.filters(issue.id).items()}


def _segment(newsletter: Newsletter, filters: Sequence[str]) -> Segment:
    return Segment(tuple(filters), newsletter.language, newsletter.zone)


def guard_audience(engine: Engine, newsletter: Newsletter, filter_text: str = "") -> None:
    """Raises AudienceHeld when nobody, or far fewer than last time, would get the issue.

    Last time: the newest issue with the same filters.
    """
    sizes = planned_sizes(engine, newsletter, filter_text)
    rules = newsletter.audience
    if (total := sum(sizes.values())) < rules.smallest:
        raise AudienceHeld(
            f"{newsletter.slug}: only {total} recipients (audience.smallest is {rules.smallest}); "
            "add subscribers or destinations, or send with --anyway"
        )
    for channel, size in sizes.items():
        filters = segment_of(newsletter, channel, filter_text).filters
        before = engine.ledger.previous_size(newsletter.slug, channel, filters)
        if before and size < before * (1 - rules.largest_drop):
            raise AudienceHeld(
                f"{newsletter.slug}: {channel} has {size} recipients, the last issue had {before}: more than "
                f"{rules.largest_drop:.0%} fewer. If that is right, send with --anyway"
            )


def takes_subscribers(newsletter: Newsletter, channel: str) -> bool:
    """Whether subscribers of this channel get the newsletter (or only its destinations do)."""
    table = getattr(newsletter.channel_settings, channel, None)
    return bool(getattr(table, "subscribers", False))


def write_audience(
    engine: Engine, issue: Issue, tell: Callable[[str], None] = lambda _left_out: None
) -> bool:
    """Writes the deliveries down, window by window; a crash resumes behind the last window. False: somebody else is at it.

    `tell` gets what is left out, since nothing was frozen for it. So does the log.
    """
    token = engine.ledger.take_opening(issue.id, engine.settings.lease)
    if token is None:
        return False
    newsletter = engine.newsletters[issue.newsletter]
    frozen = _Frozen(issue, engine.ledger.messages(issue.id), tell)
    fixed = _destinations(engine, newsletter, frozen)
    segments = frozen_segments(engine, newsletter, issue)
    serves = [name for name in newsletter.channels if _serves(newsletter, name, frozen)]
    moment = engine.ledger.freeze(
        issue.id,
        lambda now: [
            _audience(newsletter, name, now, fixed, segments[name]) for name in serves if name in segments
        ],
    )
    engine.publish(issue, None)  # again: the issue was approved, or whoever opened it did not come this far
    audiences = {
        name: of_issue(_audience(newsletter, name, moment, fixed), issue.id)
        if name in segments
        else _audience(newsletter, name, moment, fixed)
        for name in serves
    }
    try:
        _write(engine, issue, token, fixed, audiences)
    except LeaseLost as error:
        log.warning("opening_lost %s", error)
        return False
    engine.ledger.opened(issue.id, token)
    return True


@dataclass(frozen=True)
class _Frozen:
    """What can be sent of an issue: its messages, by "channel/variant". The configuration may have changed since then."""

    issue: Issue
    messages: Collection[str]
    tell: Callable[[str], None]

    def fitted(self, place: Recipient) -> Recipient | None:
        """The place with its variant; else with what is nearest to it, down to the one for everybody. None: left out."""
        for variant in (*_ever_plainer(place.variant), DEFAULT):
            if f"{place.channel}/{variant}" in self.messages:
                return place._replace(variant=variant)
        self._left_out(f"the destination {place.destination or place.address} of {place.channel}")
        return None

    def serves_subscribers(self, channel: str) -> bool:
        there = f"{channel}/{DEFAULT}" in self.messages
        if not there:
            self._left_out(f"the subscribers of {channel}")
        return there

    def _left_out(self, who: str) -> None:
        issue = self.issue
        text = (
            f"issue {issue.id} ({issue.newsletter} {issue.local_date}) goes out without {who}: they came into the "
            "configuration when its messages were frozen already; from the next issue on they are in"
        )
        log.error("left_out %s", text)
        self.tell(text)


def _ever_plainer(variant: str) -> Iterator[str]:
    """`text+split+all`, `text+split`, `text`: what stands behind a + is asked for besides."""
    while variant:
        yield variant
        variant = variant.rpartition("+")[0]


def _destinations(
    engine: Engine, newsletter: Newsletter, frozen: _Frozen
) -> Mapping[str, Sequence[Recipient]]:
    """Channel → its fixed places."""
    return {
        name: [
            fitted
            for place in engine.channels[name].destinations(newsletter)
            if (fitted := frozen.fitted(place)) is not None
        ]
        for name in newsletter.channels
    }


def _serves(newsletter: Newsletter, channel: str, frozen: _Frozen) -> bool:
    return takes_subscribers(newsletter, channel) and frozen.serves_subscribers(channel)


def _audience(
    newsletter: Newsletter,
    channel: str,
    moment: datetime,
    fixed: Mapping[str, Sequence[Recipient]],
    segment: Segment | None = None,
) -> AudienceQuery:
    """A channel's subscribers; one who is a destination as well gets the issue once, as the destination."""
    places = [recipient.address for recipient in fixed[channel]]
    return active(newsletter.slug, channel, moment, without=places, segment=segment)


def _write(
    engine: Engine,
    issue: Issue,
    token: str,
    fixed: Mapping[str, Sequence[Recipient]],
    audiences: Mapping[str, AudienceQuery],
) -> None:
    """Destinations, then window by window in turn.

    The first messages wait neither for another group's hundred thousands nor until everybody is counted.
    """
    ledger, lease = engine.ledger, engine.settings.lease
    for channel, recipients in fixed.items():
        ledger.write_destinations(issue.id, recipients, token=token, lease=lease)
        if recipients:
            engine.wake(channel)
    unfinished = [
        _Part(engine, issue, token, channel, group, within)
        for channel, audience in audiences.items()
        for group, within in _groups(engine.channels[channel], audience).items()
    ]
    unfinished = [part for part in unfinished if part.write(FIRST_WINDOW)]
    sizes = {channel: len(recipients) for channel, recipients in fixed.items()}
    ledger.plan(issue.id, audiences, sizes, token=token, lease=lease)
    while unfinished:
        unfinished = [part for part in unfinished if part.write(WINDOW)]


@dataclass(frozen=True)
class _Part:
    """The recipients of one channel and pace group."""

    engine: Engine
    issue: Issue
    token: str
    channel: str
    group: str
    within: AudienceQuery

    def write(self, window: int) -> bool:
        """Writes the next window down; False when there is none."""
        settings = self.engine.settings
        written = self.engine.ledger.write_window(
            self.issue.id,
            self.channel,
            self.group,
            partial(behind, self.within),
            token=self.token,
            lease=settings.lease,
            chunk=settings.chunk,
            window=window,
            canary=self.engine.newsletters[self.issue.newsletter].canary.share,
        )
        if written:
            self.engine.wake(self.channel)
        return written > 0


def _groups(channel: Channel, audience: AudienceQuery) -> Mapping[str, AudienceQuery]:
    """Pace group → its part of the audience: a slow provider must not hold the others."""
    groups = channel.pace_groups()
    named = [domain for domains in groups.values() for domain in domains]
    parts = {name: of_domains(audience, domains) for name, domains in groups.items()}
    return {EVERYBODY: of_domains(audience, named, others=True) if named else audience, **parts}
