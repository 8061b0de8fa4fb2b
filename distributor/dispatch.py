"""The stories: open an issue, write its audience down, drain what is due, resend, sweep. Collaborators are arguments.

A worker drains a channel with a few lanes. A lane is one connection in one thread: it leases a chunk, commits the
intent for a slice of it, sends, commits how that ended, and goes on until nothing is due.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, Protocol

from distributor.audience import Audience, AudienceQuery, active, normalise
from distributor.channels import Channel, Transport
from distributor.errors import (
    Kind,
    Rejected,
    RequestRefused,
    Scope,
    SendError,
    ServiceDown,
    Unavailable,
)
from distributor.ledger import LeaseLost, Ledger, NewIssue, Postponed, ResendRequest
from distributor.model import (
    Chunk,
    Delivery,
    DeliveryId,
    DeliveryState,
    Issue,
    IssueState,
    Message,
    OpenedBy,
    Outcome,
    Parcel,
    Post,
    Receipt,
    Recipient,
    ResendScope,
    SkipReason,
    SuppressionReason,
)
from distributor.pacing import UNLIMITED, Limit, Pacer
from distributor.retry import decide
from distributor.settings import EngineSettings, Newsletter, Retry

log = logging.getLogger(__name__)

UNSUBSCRIBE_URL = "__UNSUBSCRIBE_URL__"
VIEW_URL = "__VIEW_URL__"

#: A slice older than this is given back: who left after the intent must be skipped two seconds later (guarantee 6).
SLICE_AGE = timedelta(seconds=1.5)
#: Longest pause between two parts of one message; beyond it the delivery goes back and resumes at its next part.
PART_WAIT = timedelta(seconds=5)
#: A channel that is down is looked at again after this, doubling up to the longest.
STOP_FIRST, STOP_LONGEST = timedelta(seconds=5), timedelta(minutes=5)
#: Seconds a stopping worker goes on trying to write down what it knows, while the database is away.
STOP_PATIENCE = 10.0
#: How long an issue that a person reopened may still be sent.
RESEND_GRACE = timedelta(hours=12)


class Stop(Protocol):
    """Something that can be set from outside: an event of threads, or of processes."""

    def is_set(self) -> bool: ...


@dataclass(frozen=True)
class Policy:
    """What a channel does about failures."""

    retry: Retry = field(default_factory=Retry)
    on_unconfirmed: Literal["hold", "resend"] = "hold"


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The collaborators of a send."""

    ledger: Ledger
    audience: Audience
    channels: Mapping[str, Channel]
    policies: Mapping[str, Policy]
    newsletters: Mapping[str, Newsletter]
    pacer: Pacer
    settings: EngineSettings
    base_url: str
    worker: str
    random: Callable[[], float] = random.random
    sleep: Callable[[float], None] = time.sleep


class AudienceHeld(RequestRefused):
    """The audience is not what one would expect: a person must look before anything is sent."""


# ── opening ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def render(engine: Engine, newsletter: Newsletter, post: Post) -> Sequence[Message]:
    """The post on every channel of the newsletter. Raises PostError: a bad post is refused before the first delivery."""
    return [
        message for name in newsletter.channels for message in engine.channels[name].render(post, newsletter)
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
) -> tuple[Issue, bool]:
    """(the issue, whether this call opened it). Renders, freezes the messages, and takes the day's place.

    Raises:
        PostError: the post cannot be sent well.
        AudienceHeld: nobody, or far fewer than last time (`guarded=False` sends all the same).
        RequestRefused: the post already went out.
    """
    number = engine.ledger.next_extra(newsletter.slug, day) if extra else 0
    if not extra and (existing := engine.ledger.issue_of(newsletter.slug, day)):
        return existing, False
    rendered = render(engine, newsletter, post)
    if guarded:
        guard_audience(engine, newsletter)
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
            messages=rendered,
            channels=newsletter.channels,
            waits_for_approval=waits,
            approval_in=schedule.approval_deadline
            if waits and schedule.approval == "auto-at-deadline"
            else None,
        )
    )
    if opened:
        log.info(
            "issue_opened issue=%s newsletter=%s day=%s post=%s", issue.id, newsletter.slug, day, post.slug
        )
    return issue, opened


def planned_sizes(engine: Engine, newsletter: Newsletter) -> Mapping[str, int]:
    """Channel → how many recipients an issue would have now."""
    return {
        name: len(engine.channels[name].destinations(newsletter))
        + (engine.audience.count(newsletter.slug, name) if takes_subscribers(newsletter, name) else 0)
        for name in newsletter.channels
    }


def guard_audience(engine: Engine, newsletter: Newsletter) -> None:
    """Raises AudienceHeld when nobody, or far fewer than last time, would get the issue."""
    sizes = planned_sizes(engine, newsletter)
    rules = newsletter.audience
    if (total := sum(sizes.values())) < rules.smallest:
        raise AudienceHeld(
            f"{newsletter.slug}: only {total} recipients (audience.smallest is {rules.smallest}); "
            "add subscribers or destinations, or send with --anyway"
        )
    for channel, size in sizes.items():
        before = engine.ledger.previous_size(newsletter.slug, channel)
        if before and size < before * (1 - rules.largest_drop):
            raise AudienceHeld(
                f"{newsletter.slug}: {channel} has {size} recipients, the last issue had {before}: more than "
                f"{rules.largest_drop:.0%} fewer. If that is right, send with --anyway"
            )


def takes_subscribers(newsletter: Newsletter, channel: str) -> bool:
    """Whether subscribers of this channel get the newsletter (or only its destinations do)."""
    table = getattr(newsletter.channel_settings, channel, None)
    return bool(getattr(table, "subscribers", False))


def write_audience(engine: Engine, issue: Issue) -> bool:
    """Writes the deliveries down, window by window; a crash resumes behind the last window. False: somebody else is at it."""
    token = engine.ledger.take_opening(issue.id, engine.settings.lease)
    if token is None:
        return False
    newsletter = engine.newsletters[issue.newsletter]
    fixed = {name: engine.channels[name].destinations(newsletter) for name in newsletter.channels}
    moment = engine.ledger.freeze(
        issue.id,
        lambda now: _subscribed(newsletter, fixed, now),
        {name: len(recipients) for name, recipients in fixed.items()},
    )
    audiences = _subscribed(newsletter, fixed, moment)
    try:
        for name in newsletter.channels:
            _write_channel(engine, issue, token, fixed[name], audiences.get(name), name)
    except LeaseLost as error:
        log.warning("opening_lost %s", error)
        return False
    engine.ledger.opened(issue.id, token)
    return True


def _subscribed(
    newsletter: Newsletter, fixed: Mapping[str, Sequence[Recipient]], moment: datetime
) -> Mapping[str, AudienceQuery]:
    """Channel → its subscribers; one who is a destination as well gets the issue once, as the destination."""
    return {
        name: active(newsletter.slug, name, moment, without=[recipient.address for recipient in fixed[name]])
        for name in newsletter.channels
        if takes_subscribers(newsletter, name)
    }


def _write_channel(
    engine: Engine,
    issue: Issue,
    token: str,
    fixed: Sequence[Recipient],
    audience: AudienceQuery | None,
    channel: str,
) -> None:
    ledger, settings = engine.ledger, engine.settings
    ledger.write_destinations(issue.id, fixed, token=token, lease=settings.lease)
    while audience is not None and ledger.write_window(
        issue.id, channel, "all", audience, token=token, lease=settings.lease, chunk=settings.chunk
    ):
        pass


# ── draining ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def drain(engine: Engine, channel: str, *, seconds: float, stop: Stop | None = None) -> int:
    """Sends what is due on a channel, with as many lanes as set, for at most about `seconds`.

    Returns how many deliveries were tried. `stop` ends it early: each lane finishes the message it is in.
    """
    lanes = [
        Lane(engine, channel, time.monotonic() + seconds, stop or threading.Event())
        for _ in range(engine.settings.lanes)
    ]
    threads = [
        threading.Thread(target=lane.run, name=f"{channel}-{number}") for number, lane in enumerate(lanes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for lane in lanes:
        if lane.error:
            raise lane.error
    return sum(lane.tried for lane in lanes)


@dataclass
class Halt:
    """Why a lane gives its chunk back before it is done, and when the chunk may be taken again."""

    not_before: datetime | None = None
    stop_lane: bool = False


class Try:
    """An attempt under way: how far it came, since when."""

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.started_at = datetime.now(UTC)
        self.parts_sent = delivery.parts_sent
        self.receipts = list(delivery.receipts)
        self.receipt = Receipt()
        self.new_address: str | None = None
        self._clock = time.monotonic()

    @property
    def sent_something(self) -> bool:
        return self.parts_sent > self.delivery.parts_sent

    def accepted(self, receipt: Receipt) -> None:
        """One more part is there."""
        self.receipt = receipt
        self.new_address = receipt.address or self.new_address
        self.receipts.append(receipt.provider_id or "")
        self.parts_sent += 1

    def ended(self, state: DeliveryState, **details: Any) -> Outcome:
        """The outcome; `details` are its other fields."""
        return Outcome(
            delivery=self.delivery,
            state=state,
            started_at=self.started_at,
            duration_ms=round((time.monotonic() - self._clock) * 1000),
            parts_sent=self.parts_sent,
            receipts=tuple(self.receipts),
            new_address=self.new_address,
            **details,
        )


class Lane:
    """One connection in one thread."""

    def __init__(self, engine: Engine, channel: str, deadline: float, stop: Stop) -> None:
        self.engine, self.channel, self.deadline, self.stop = engine, channel, deadline, stop
        self.policy = engine.policies[channel]
        self.tried = 0
        self.error: Exception | None = None
        self._proved = False
        self._messages: dict[int, Mapping[str, Sequence[Message]]] = {}
        self._issues: dict[int, Issue] = {}

    def run(self) -> None:
        try:
            self._run()
        except Exception as error:
            self.error = error

    def _run(self) -> None:
        ledger = self.engine.ledger
        with ExitStack() as stack:
            transport: Transport | None = None
            while self._may_go_on() and (
                chunk := ledger.lease(self.channel, self.engine.worker, self.engine.settings.lease)
            ):
                try:
                    if transport is None:
                        transport = stack.enter_context(self.engine.channels[self.channel].open())
                    halt = self._work(chunk, transport)
                except SendError as error:  # from opening the connection
                    halt = self._channel_trouble(error)
                except LeaseLost as error:
                    log.warning("lease_lost %s", error)
                    continue
                ledger.release(chunk, halt.not_before)
                if halt.stop_lane:
                    return

    def _may_go_on(self) -> bool:
        if self.stop.is_set() or time.monotonic() >= self.deadline:
            return False
        return not self.engine.ledger.channel_stopped(self.channel)

    def _work(self, chunk: Chunk, transport: Transport) -> Halt:
        ledger, settings = self.engine.ledger, self.engine.settings
        halt = Halt()
        self._know(chunk.issue_id)
        while not halt.stop_lane and halt.not_before is None and self._in_time():
            slice_ = ledger.begin(chunk, settings.slice, settings.lease)
            if not slice_:
                break
            outcomes, unused, halt = self._send_slice(slice_, transport)
            self.tried += len(outcomes)
            self._write(chunk, outcomes, unused)
        return halt

    def _in_time(self) -> bool:
        return not self.stop.is_set() and time.monotonic() < self.deadline

    def _write(self, chunk: Chunk, outcomes: Sequence[Outcome], unused: Sequence[Postponed]) -> None:
        """Commits how a slice ended. While the database is away nothing is sent: it waits here, then goes on."""
        waited, wait = 0.0, 0.5
        while not self._written(chunk, outcomes, unused):
            if self.stop.is_set() and waited >= STOP_PATIENCE:
                # The process must end: the successor will find these unconfirmed, which is what they are then.
                raise ServiceDown(f"stopped while {len(outcomes)} outcomes were waiting for the database")
            self.engine.sleep(wait)
            waited, wait = waited + wait, min(wait * 2, 10.0)

    def _written(self, chunk: Chunk, outcomes: Sequence[Outcome], unused: Sequence[Postponed]) -> bool:
        try:
            self.engine.ledger.finish(chunk, outcomes, unused, self.engine.worker)
        except ServiceDown as error:
            log.warning("ledger_unreachable outcomes=%s waiting to write them: %s", len(outcomes), error)
            return False
        except LeaseLost:
            self.engine.ledger.settle_late(outcomes, self.engine.worker)
            raise
        return True

    def _send_slice(
        self, slice_: Sequence[Delivery], transport: Transport
    ) -> tuple[list[Outcome], list[Postponed], Halt]:
        begun = time.monotonic()
        outcomes: list[Outcome] = []
        unused: list[Postponed] = []
        halt = Halt()
        for position, delivery in enumerate(slice_):
            left = SLICE_AGE.total_seconds() - (time.monotonic() - begun)
            if left <= 0 or self.stop.is_set():
                return outcomes, unused + _untried(slice_[position:]), halt
            if wait := self._domain_wait(delivery):
                unused.append(Postponed(delivery=delivery, due_at=_in(wait)))
                continue
            if wait := self._permit(delivery, left):
                return outcomes, unused + _untried(slice_[position:]), Halt(not_before=_in(wait))
            result = self._attempt(delivery, transport)
            if isinstance(result, Halt):
                return outcomes, unused + _untried(slice_[position:]), result
            outcomes.append(result)
        return outcomes, unused, halt

    def _permit(self, delivery: Delivery, patience: float) -> float:
        """Waits for a permit up to `patience` seconds; returns 0.0, or the seconds that are still missing."""
        limits = self.engine.channels[self.channel].limits(delivery.recipient)
        while (wait := self.engine.pacer.reserve(limits)) and wait <= patience:
            self.engine.sleep(wait)
            patience -= wait
        return wait

    def _domain_wait(self, delivery: Delivery) -> float:
        _name, at, domain = delivery.recipient.address.rpartition("@")
        if not at:
            return 0.0
        return self.engine.pacer.reserve([Limit(f"{self.channel}:domain:{domain}", UNLIMITED)])

    def _attempt(self, delivery: Delivery, transport: Transport) -> Outcome | Halt:
        """One try of a delivery. A Halt means that the channel is in trouble, and that this was no try."""
        attempt = Try(delivery)
        try:
            for parcel in self._parcels(attempt):
                if attempt.sent_something and (wait := self._permit(delivery, PART_WAIT.total_seconds())):
                    return attempt.ended(
                        DeliveryState.PENDING,
                        retry_at=_in(wait),
                        counts=False,
                        text=f"{attempt.parts_sent} parts are sent",
                    )
                attempt.accepted(transport.send(parcel))
        except SendError as error:
            return self._trouble(error, attempt)
        self._channel_works()
        return attempt.ended(DeliveryState.SENT, code=attempt.receipt.code, text=attempt.receipt.text)

    def _trouble(self, error: SendError, attempt: "Try") -> Outcome | Halt:
        delivery = attempt.delivery
        if error.kind is Kind.THROTTLE:
            self._slow_down(error, delivery)
        elif error.scope is Scope.CHANNEL and not attempt.sent_something:
            return self._channel_trouble(error)
        if isinstance(error, Unavailable) and error.new_address:
            attempt.new_address = error.new_address
        decision = decide(
            error,
            tries=delivery.tries,
            first_try_at=delivery.first_try_at or attempt.started_at,
            now=datetime.now(UTC),
            policy=self.policy.retry,
            on_unconfirmed=self.policy.on_unconfirmed,
            random=self.engine.random,
        )
        return attempt.ended(
            decision.state,
            code=error.code,
            text=f"{error.text} ({decision.note})" if decision.note else error.text,
            retry_at=decision.retry_at,
            counts=decision.counts,
            suppress=_suppression(self.channel, error),
        )

    def _slow_down(self, error: SendError, delivery: Delivery) -> None:
        wait = (
            error.retry_after
            if isinstance(error, Unavailable) and error.retry_after
            else timedelta(seconds=60)
        )
        recipient = delivery.recipient
        if error.scope is Scope.DOMAIN:
            domain = recipient.address.rpartition("@")[2]
            self.engine.pacer.block(f"{self.channel}:domain:{domain}", wait.total_seconds())
        elif error.scope in {Scope.CREDENTIAL, Scope.CHANNEL}:
            for limit in self.engine.channels[self.channel].limits(recipient)[:1]:
                self.engine.pacer.block(limit.key, wait.total_seconds())

    def _channel_trouble(self, error: SendError) -> Halt:
        """The channel stops; no recipient pays for it with a try."""
        ledger = self.engine.ledger
        stopped = None
        # Without the database the next send finds out again; what this slice has sent must be written first.
        with suppress(ServiceDown):
            stopped = ledger.stop_channel(self.channel, str(error), _stop_wait(ledger, self.channel))
        if stopped:  # several lanes meet the same trouble at once: the first one tells
            times, until = stopped
            log.error(
                "channel_stopped channel=%s until=%s times=%s: %s",
                self.channel,
                until.isoformat(),
                times,
                error,
            )
        return Halt(stop_lane=True)

    def _channel_works(self) -> None:
        """The first success of a lane ends a stop of the channel; asking the database once a lane is enough."""
        if self._proved:
            return
        with suppress(ServiceDown):  # the receipt in hand matters more
            if self.engine.ledger.resume_channel(self.channel):
                log.info("channel_resumed channel=%s", self.channel)
            self._proved = True

    def _know(self, issue_id: int) -> None:
        """Reads an issue and its messages before anything of it is in hand."""
        if issue_id not in self._messages:
            self._messages[issue_id] = self.engine.ledger.messages(issue_id, self.channel)
            self._issues[issue_id] = self.engine.ledger.issue(issue_id)

    def _parcels(self, attempt: Try) -> Sequence[Parcel]:
        """The parts that are still to be sent."""
        delivery = attempt.delivery
        issue_id = delivery.identity.issue_id
        issue = self._issues[issue_id]
        parts = self._messages[issue_id][delivery.recipient.variant]
        # The same Date for every try of one delivery and resend number, so that a repeated mail is recognisable.
        first_date = issue.frozen_at or issue.opened_at
        return [
            Parcel(
                message=message,
                recipient=delivery.recipient,
                identity=delivery.identity,
                sent_date=first_date
                if delivery.identity.resend == 0
                else delivery.first_try_at or attempt.started_at,
                values=placeholder_values(self.engine.base_url, issue_id, delivery.recipient.token),
            )
            for message in parts[delivery.parts_sent :]
        ]


def placeholder_values(base_url: str, issue_id: int, token: str | None) -> Mapping[str, str]:
    """What differs by recipient."""
    values = {VIEW_URL: f"{base_url}/issues/{issue_id}"}
    return {**values, UNSUBSCRIBE_URL: f"{base_url}/u/{token}"} if token else values


def _untried(deliveries: Sequence[Delivery]) -> list[Postponed]:
    return [Postponed(delivery=delivery) for delivery in deliveries]


def _in(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def _suppression(channel: str, error: SendError) -> SuppressionReason | None:
    if not (isinstance(error, Rejected) and error.suppress):
        return None
    return SuppressionReason.BOUNCED if channel == "email" else SuppressionReason.BLOCKED


def _stop_wait(ledger: Ledger, channel: str) -> timedelta:
    times = ledger.stop_count(channel)
    return min(STOP_LONGEST, STOP_FIRST * (1 << min(times, 10)))


# ── a person's choices ───────────────────────────────────────────────────────────────────────────────────────────────


def test_send(
    engine: Engine, newsletter: Newsletter, post: Post, channel: str, address: str
) -> Sequence[Receipt]:
    """Sends the post to one address, marked as a test; opens no issue. Raises SendError, RequestRefused."""
    recipient = _test_recipient(engine.channels[channel], newsletter, address)
    rendered = [
        message
        for message in engine.channels[channel].render(post, newsletter)
        if message.variant == recipient.variant
    ]
    now = datetime.now(UTC)
    if not rendered:
        raise RequestRefused(
            f"{channel} has no destination {address!r}; see the newsletter's [channels.{channel}]"
        )
    receipts = []
    with engine.channels[channel].open() as transport:
        for message in rendered:
            parcel = Parcel(
                message=_marked_as_test(message),
                recipient=recipient,
                identity=DeliveryId(0, int(now.timestamp())),
                sent_date=now,
                values=placeholder_values(engine.base_url, 0, recipient.token),
            )
            receipts.append(transport.send(parcel))
    return receipts


def _test_recipient(channel: Channel, newsletter: Newsletter, address: str) -> Recipient:
    """A destination of the configuration, by its name or address, or a subscriber's kind of address."""
    for place in channel.destinations(newsletter):
        if address in {place.destination, place.address}:
            return place
    return Recipient(channel=channel.name, address=normalise(channel.name, address), token="test")  # noqa: S106 - leads nowhere


def _marked_as_test(message: Message) -> Message:
    content = dict(message.content)
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


@dataclass(frozen=True)
class ResendPlan:
    """Channel → deliveries a resend reaches (or, done, has reached)."""

    issue: Issue
    by_channel: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.by_channel.values())


def plan_resend(engine: Engine, issue_id: int, asked: ResendRequest) -> ResendPlan:
    """What a resend would do; changes nothing."""
    issue = engine.ledger.issue(issue_id)
    _refuse_unfit(engine, issue, asked)
    if asked.scope is ResendScope.MISSING:
        counts = {
            name: engine.ledger.missing_count(issue, name, audience)
            for name, audience in _current_audiences(engine, issue, asked).items()
        }
        return ResendPlan(issue, {name: number for name, number in counts.items() if number})
    return ResendPlan(issue, engine.ledger.resend_count(issue, asked))


def resend(engine: Engine, issue_id: int, asked: ResendRequest) -> int:
    """Makes what the request names pending again, under a new resend number and with the person's reason."""
    issue = engine.ledger.issue(issue_id)
    _refuse_unfit(engine, issue, asked)
    if asked.scope is ResendScope.MISSING:
        audiences = _current_audiences(engine, issue, asked)
        return engine.ledger.add_missing(
            issue, asked, audiences, chunk=engine.settings.chunk, grace=RESEND_GRACE
        )
    return engine.ledger.resend(issue, asked, RESEND_GRACE)


def _refuse_unfit(engine: Engine, issue: Issue, asked: ResendRequest) -> None:
    if issue.state in {IssueState.WAITING, IssueState.OPENING}:
        raise RequestRefused(f"issue {issue.id} is {issue.state}: it has not been sent yet")
    if not asked.reason.strip():
        raise RequestRefused('a resend needs a reason: --reason "why"')
    if asked.scope is ResendScope.MISSING and not engine.ledger.log(issue.id, limit=1):
        raise RequestRefused(
            f"the deliveries of issue {issue.id} are kept no more (retention): nobody can say who is missing"
        )


def _current_audiences(engine: Engine, issue: Issue, asked: ResendRequest) -> Mapping[str, AudienceQuery]:
    newsletter = engine.newsletters[issue.newsletter]
    now = datetime.now(UTC) + timedelta(seconds=1)
    found = {}
    for name in newsletter.channels:
        if takes_subscribers(newsletter, name) and asked.channel in {None, name}:
            found[name] = active(newsletter.slug, name, now, only=asked.address)
    return found


# ── sweeping ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What a sweep found."""

    finished: Sequence[Issue] = ()
    expired: Sequence[Issue] = ()
    recovered: int = 0
    due: Mapping[str, int] = field(default_factory=dict)


def sweep(engine: Engine) -> Swept:
    """Returns expired leases, goes on with what was being opened, expires stale news, closes what is finished.

    Any process may do it at any time, several at once: each step is a conditional change of the database.
    """
    ledger = engine.ledger
    recovered = ledger.recover_leases(
        {name: policy.on_unconfirmed == "resend" for name, policy in engine.policies.items()}
    )
    ledger.approve_overdue()
    finished = list(ledger.close_finished())  # first: what is all settled has not expired
    expired = ledger.overdue()
    for issue in expired:
        ledger.stop_issue(issue.id, IssueState.EXPIRED, SkipReason.EXPIRED)
    for issue in ledger.left_pending():
        ledger.stop_issue(issue.id, issue.state, SkipReason(issue.state))
    for issue in ledger.issues(states=[IssueState.OPENING]):
        try:
            write_audience(engine, issue)
        except (KeyError, RequestRefused):
            # Its newsletter or a channel has left the configuration: the other issues must not wait for that.
            log.exception("opening_failed issue=%s newsletter=%s", issue.id, issue.newsletter)
    finished += ledger.close_finished()
    return Swept(finished=finished, expired=expired, recovered=recovered, due=ledger.due_channels())
