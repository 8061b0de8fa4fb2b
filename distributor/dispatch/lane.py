"""A lane: one thread, with its connections to each relay.

It leases a chunk, commits the intent for a slice of it, sends the slice, and commits how that ended together with the
next intent. Message by message its journal says what is under way, so that `kill -9` leaves one message a connection in
doubt.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from distributor.dispatch.engine import Engine, Stop, placeholder_values
from distributor.dispatch.hold import Hold, Keeper, clock
from distributor.dispatch.known import KnownIssues
from distributor.dispatch.trying import (
    AGAIN,
    AT_ONCE,
    Halt,
    InHand,
    Sent,
    Try,
    behind_those_that_go_before,
)
from distributor.dispatch.ways import Connection, NoWay, Way, Ways, first_answered, stop_names
from distributor.errors import (
    Kind,
    Rejected,
    Scope,
    SendError,
    ServiceDown,
    Unavailable,
    Unconfirmed,
    frames_of,
)
from distributor.journal import JournalBroken, NoJournal, record_of
from distributor.ledger import NOTHING_DUE, LeaseLost, Postponed, Slice
from distributor.model import (
    Delivery,
    DeliveryState,
    Outcome,
    Parcel,
    Relay,
    SuppressionReason,
)
from distributor.retry import decide
from distributor.sentlog import SentLogBroken

log = logging.getLogger(__name__)

T = TypeVar("T")

#: A slice older than this is given back: who left after the intent must be skipped two seconds later (guarantee 9).
SLICE_AGE = 1.5
#: One who is announced goes until this age; then their connection is given up instead.
LATEST = 2.0
#: Longest pause between two parts of one message; beyond it the delivery goes back and resumes at its next part.
PART_WAIT = 5.0
#: A channel that is down is looked at again after this, doubling up to the longest.
STOP_FIRST, STOP_LONGEST = timedelta(seconds=5), timedelta(minutes=5)
#: A throttling reply that names no time.
THROTTLE_WAIT = timedelta(seconds=60)
#: A shorter wait is the provider's own pacing (Telegram says how many seconds): keeping it is enough. A longer one means
#: that we were too fast, and are to be slower afterwards.
WALL = timedelta(seconds=30)
#: Seconds a stopping worker goes on trying to write down what it knows, while the database is away.
STOP_PATIENCE = 10.0
#: Seconds ahead for which a lane takes permits: what its message waits for them, and the chunk in its hands.
PERMIT_AHEAD = 0.05
#: A lane whose permit is further away than this gives its chunk back. It asks when the others' next ones are given out,
#: which is PERMIT_AHEAD before their time.
PERMIT_PATIENCE = 0.1
#: Seconds a lane without a chunk waits for one that is due soon, instead of ending: as long as Telegram often asks for.
IDLE_PATIENCE = 5.0
#: Seconds after which it looks again: something may have become due meanwhile.
IDLE_NAP = 0.5
#: Seconds a lane sleeps at least for permits: then several are there, and a call brings a batch.
PERMIT_NAP = 0.02
#: So many bugs of a transport stop its channel for a while.
MOST_BUGS = 3


class Lane:
    """One thread of a drain."""

    def __init__(
        self,
        engine: Engine,
        channel: str,
        *,
        width: int = 1,
        issues: KnownIssues,
        keeper: Keeper,
        deadline: float,
        stop: Stop,
    ) -> None:
        self.engine, self.ledger = engine, engine.ledger
        self.channel, self._width = engine.channels[channel], width
        self.policy = engine.policies[channel]
        self.issues, self.keeper, self.deadline, self.stop = issues, keeper, deadline, stop
        self.tried = 0
        self.error: Exception | None = None
        self._asked: dict[int, datetime] = {}
        self._size = engine.settings.slice
        self._bugs = 0

    def run(self) -> None:
        try:
            self._run()
        except Exception as error:
            self.error = error

    def _run(self) -> None:
        with ExitStack() as stack:
            self.ways = Ways(self.engine, self.channel, stack, self._width)
            stack.callback(self.ways.choose_anew)  # what was taken of a daily cap and not used goes back
            while self._may_go_on():
                hold = self._take()
                if hold is None:
                    self.ways.choose_anew()  # others may need what this lane took of a daily cap
                    if self._nothing_soon():
                        return
                    continue
                halt = self._work(hold)
                if halt is None:
                    continue  # it is in other hands
                self._give_up(hold, halt)
                if halt.stop_lane:
                    return

    def _nothing_soon(self) -> bool:
        """False after a nap: something will be due soon, and a drain that ends now would come back too late for it.

        While other lanes are busy it costs nothing to stay: chunks come back, and an issue that opens goes on to grow.
        """
        wait = self.ledger.due_in(self.channel.name)
        soon = wait is not None and wait <= IDLE_PATIENCE
        if not soon and not self.keeper.busy:
            return True
        self.engine.sleep(IDLE_NAP if wait is None else min(max(wait, PERMIT_NAP), IDLE_NAP))
        return False

    def _may_go_on(self) -> bool:
        return not self.stop.is_set() and time.monotonic() < self.deadline

    # ── chunks ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self) -> Hold | None:
        """The next chunk, with a journal for it."""
        journals, lease = self.engine.journals, self.engine.settings.lease
        asked_at, chunk = clock(), None
        try:
            host = journals.host if journals else None
            chunk = self.ledger.lease(self.channel.name, self.engine.worker, lease, host=host)
            if chunk is None:
                return None
            journal = journals.open(chunk.token, self.engine.settings.slice) if journals else NoJournal()
        except JournalBroken as error:
            self._stop(self.channel.name, str(error))
            if chunk:
                self.ledger.release(chunk)
            return None
        hold = Hold(chunk, journal, asked_at, lease)
        self.keeper.keep(hold)
        return hold

    def _work(self, hold: Hold) -> Halt | None:
        """Sends a chunk, slice by slice. None: the lease was lost, and somebody else has the chunk."""
        try:
            self._known = self.issues.find(hold.chunk.issue_id)
            self.ways.choose_anew()
            return self._send_chunk(hold)
        except SentLogBroken as error:  # the ledger has it all
            self._stop(self.channel.name, str(error))
            return Halt(stop_lane=True)
        except JournalBroken as error:
            # What was sent may stand nowhere else: the sweeper takes it over, as if this process had ended.
            self._stop(self.channel.name, str(error))
            self._let_go(hold, keep=True)
            return None
        except LeaseLost as error:
            log.warning("lease_lost %s", error)
            self._let_go(hold)
            self.issues.forget()
            return None
        except BaseException:
            self._let_go(hold, keep=True)
            raise

    def _send_chunk(self, hold: Hold) -> Halt:
        slice_ = self._turn(hold, Sent(), 0)
        while slice_.last is not None:
            sent = self._send_slice(hold, slice_.deliveries)
            self.tried += len(sent.outcomes)
            self._fit(sent)
            halt = sent.halt or AGAIN
            more = halt == AGAIN and self._may_go_on()
            slice_ = self._turn(hold, sent, sent.resume_behind(slice_.last) if more else None)
            if halt != AGAIN:
                return halt
        return AGAIN

    def _fit(self, sent: Sent) -> None:
        """The next slice is as large as what the pace allowed within a slice's age: intents cost a write each."""
        full = self.engine.settings.slice
        self._size = min(full, 2 * self._size) if sent.halt is None else max(1, len(sent.outcomes))

    def _give_up(self, hold: Hold, halt: Halt) -> None:
        try:
            self.ledger.release(hold.chunk, halt.due_in)
        except ServiceDown:
            self._let_go(hold, keep=True)
            raise
        self._let_go(hold)

    def _let_go(self, hold: Hold, *, keep: bool = False) -> None:
        self.keeper.drop(hold)
        hold.journal.close(keep=keep)

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _turn(self, hold: Hold, sent: Sent, after: int | None) -> Slice:
        """Commits how a slice ended, and the intent for the next one behind number `after` (None: no next one)."""
        settings, asked_at = self.engine.settings, clock()
        if after is None or not hold.is_ours:
            self._finish(hold, sent)
            return NOTHING_DUE
        try:
            slice_ = self.ledger.turn(
                hold.chunk,
                sent.outcomes,
                sent.unused,
                self.engine.worker,
                self._size,
                settings.lease,
                after,
                sent.noted,
            )
        except (ServiceDown, LeaseLost):
            # Whether it was committed is not known, or the lease ran out while the database was away: what was sent is
            # written, and the chunk given back. What comes back may be a database that was set back.
            self.issues.forget()
            self._finish(hold, sent)
            return NOTHING_DUE
        hold.renewed(asked_at)
        self._written(hold, sent)
        return slice_

    def _finish(self, hold: Hold, sent: Sent) -> None:
        """While the database is away nothing is sent: it waits here, then goes on. Raises LeaseLost."""
        waited, wait = 0.0, 0.5
        while not self._finished(hold, sent):
            if self.stop.is_set() and waited >= STOP_PATIENCE:
                # The process must end. The journal stays, and tells its successor.
                raise ServiceDown(
                    f"stopped while {len(sent.outcomes)} outcomes were waiting for the database"
                )
            self.engine.sleep(wait)
            waited, wait = waited + wait, min(wait * 2, 10.0)

    def _finished(self, hold: Hold, sent: Sent) -> bool:
        try:
            try:
                self.ledger.finish(hold.chunk, sent.outcomes, sent.unused, self.engine.worker)
            except LeaseLost:
                self.ledger.settle_late(map(record_of, sent.outcomes), self.engine.worker)
                if (
                    self.policy.on_unconfirmed == "hold"
                ):  # else a successor may have made them pending again, on purpose
                    self._remember(sent)
                raise
        except ServiceDown as error:
            self.issues.forget()
            log.warning("ledger_unreachable outcomes=%s waiting to write them: %s", len(sent.outcomes), error)
            return False
        self._written(hold, sent)
        return True

    def _written(self, hold: Hold, sent: Sent) -> None:
        """The ledger has it for good: the journal may forget it, and the sent log must not."""
        hold.journal.reset()
        self._remember(sent)

    def _remember(self, sent: Sent) -> None:
        if self.engine.sent_log:
            self.engine.sent_log.append(self._known.issue, sent.outcomes)

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _send_slice(self, hold: Hold, deliveries: Sequence[Delivery]) -> Sent:
        self._until = time.monotonic() + SLICE_AGE
        self._walls = self._blocked(deliveries)
        now = InHand(hold, *self._ready(deliveries))
        self._take_out_walled(now)
        self._widen(now.queue)
        try:
            self._send_queue(now)
            while now.under_way:
                self._finish_first(now)
        except BaseException:
            for attempt in now.under_way.values():  # with an answer unread, it must carry nothing else
                self.ways.drop(attempt.way.relay)
            raise
        now.sent.halt = now.sent.halt or now.closing
        now.sent.unused += [Postponed(delivery=item.delivery) for item in now.queue]
        return now.sent

    def _send_queue(self, now: InHand) -> None:
        """Hands the queue over, until it is empty or something speaks against going on; some answers stay out."""
        while now.queue and now.sent.halt is None:
            attempt = self._next(now)
            if attempt is None:
                self._finish_first(now)
                continue
            wait = self._leave(attempt, now.queue)
            if isinstance(wait, Halt):
                if attempt.connection or self.stop.is_set():
                    now.sent.halt = wait
                else:
                    now.close(wait)
            elif wait:
                self._rest(now, wait)
            else:
                self._begin(now, attempt)

    def _begin(self, now: InHand, attempt: Try) -> None:
        now.queue.remove(attempt)
        connection = self._connection(attempt)
        if attempt.connection is None:
            self._announce_ahead(now.queue, attempt.way, connection)
        result = self._attempt(now, attempt, connection)
        if isinstance(result, Connection):
            now.under_way[result] = attempt
        else:
            self._ended(now, attempt, result)

    def _finish_first(self, now: InHand, within: float = math.inf) -> bool:
        """Whoever is answered first: an answer that takes long holds up its own connection alone. False: nobody was."""
        connection = first_answered(now.under_way, within)
        if connection is None:
            return False
        attempt = now.under_way.pop(connection)
        self._ended(now, attempt, self._answered(now.hold, attempt, connection))
        return True

    def _rest(self, now: InHand, seconds: float) -> None:
        """Reads the answers that come meanwhile."""
        until = time.monotonic() + seconds
        while now.under_way and now.sent.halt is None:
            if not self._finish_first(now, max(until - time.monotonic(), 0.0)):
                return
        if now.sent.halt is None and (left := until - time.monotonic()) > 0:
            self.engine.sleep(left)

    def _ended(self, now: InHand, attempt: Try, result: Outcome | Halt) -> None:
        sent = now.sent
        if isinstance(result, Halt):
            sent.halt = sent.halt or result
            sent.unused.append(Postponed(delivery=attempt.delivery))
            return
        sent.outcomes.append(result)
        sent.noted.append(attempt.noted)
        if result.state is not DeliveryState.SENT:
            self._take_out_walled(now)

    def _widen(self, queue: Collection[Try]) -> None:
        """As many connections as can be of use, unless opening them takes long; none has announced anybody yet."""
        for way in {item.way for item in queue}:
            self.ways.widen(way, len(queue), self._until - SLICE_AGE / 2)
            for connection in way.connections:
                connection.promised = False

    def _next(self, now: InHand) -> Try | None:
        """The first who has a connection; None: an answer must come before.

        Whom a connection has announced waits for it, and lets the next one go before.
        """
        for attempt in now.queue:
            if attempt.connection is None:
                if attempt.way.free:
                    return attempt
                break
            if not attempt.connection.busy:
                return attempt
        if now.under_way:
            return None
        return next((attempt for attempt in now.queue if attempt.connection), now.queue[0])

    def _leave(self, attempt: Try, queue: Collection[Try]) -> Halt | float:
        """0.0 when the attempt may begin, else how long it waits, or why the slice ends before it.

        The permit of one who is announced is nobody else's.
        """
        way = attempt.way
        if attempt.connection is not None:
            if self._bugs >= MOST_BUGS:
                return AGAIN
            latest = self._until - SLICE_AGE + LATEST
            return self._permit(way, queue, latest, in_hand=way.permits > 0)
        if not self._may_go_on():
            return AGAIN  # and not behind the slice: the next drain waits for the last lane of this one
        return self._permit(way, queue, self._until, in_hand=way.has_spare)

    def _take_out_walled(self, now: InHand) -> None:
        """Those whose domain is not to be tried go back before one of them is announced, or given a permit."""
        if not self._walls:
            return
        walled = [item for item in now.queue if self._wall(item.delivery)]
        for item in walled:
            now.sent.unused.append(Postponed(delivery=item.delivery, due_in=self._wall(item.delivery)))
            now.queue.remove(item)
            if item.connection:
                item.connection.promised = False

    def _ready(self, deliveries: Sequence[Delivery]) -> tuple[deque[Try], Sent]:
        """Those that have a way out now; the others go back with a time, or all of them when the relay is not there."""
        ready: deque[Try] = deque()
        sent = Sent()
        for delivery in deliveries:
            try:
                ready.append(self._prepared(delivery))
            except NoWay as error:
                sent.unused.append(Postponed(delivery=delivery, due_in=error.wait))
            except SendError as error:
                halt = self._channel_trouble(error, self.ways.last_tried)
                return deque(), Sent(unused=[Postponed(delivery=each) for each in deliveries], halt=halt)
        return ready, sent

    def _prepared(self, delivery: Delivery) -> Try:
        """What cannot be sent is one that will be refused. Raises NoWay, and SendError when no connection opens."""
        way = self.ways.find(delivery.recipient)
        try:
            return Try(delivery, self._parcels(delivery), way)
        except Rejected as refusal:
            return Try(delivery, (), way, refusal)

    def _blocked(self, deliveries: Sequence[Delivery]) -> dict[str, timedelta]:
        """Domains that asked us to wait, by their key."""
        keys = {self.channel.domain_key(delivery.recipient) for delivery in deliveries} - {""}
        waits = self.engine.pacer.blocked(keys) if keys else {}
        return {key: timedelta(seconds=wait) for key, wait in waits.items()}

    def _wall(self, delivery: Delivery) -> timedelta | None:
        """How long the recipient's domain is not to be tried; asked anew with each slice."""
        return self._walls.get(self.channel.domain_key(delivery.recipient)) if self._walls else None

    def _permit(self, way: Way, queue: Collection[Try], until: float, *, in_hand: bool) -> Halt | float:
        """Takes one permit (0.0), with more in advance when there are; else how long to wait, or why the slice ends."""
        if self.stop.is_set():
            return AGAIN
        if time.monotonic() >= (until if in_hand else until - PERMIT_AHEAD):  # none is taken and not used
            return AT_ONCE  # another chunk's turn: what is slow holds no lane
        if not in_hand and (wait := self._reserve(way, queue, until)):
            return wait
        return way.use_permit()

    def _reserve(self, way: Way, queue: Collection[Try], until: float) -> Halt | float:
        """Takes permits for those of the queue (0.0)."""
        wanted = sum(item.way is way and item.connection is None for item in queue) or 1
        asked_at = time.monotonic()  # an answer that comes late must not make the permit late
        grant = self.engine.pacer.reserve(way.limits, wanted, within=PERMIT_AHEAD)
        if grant.permits:
            try:
                allowed = self.ways.within_cap(way, grant.permits)
            except ServiceDown:
                return AGAIN  # the turn waits for the database
            if not allowed:
                return AT_ONCE  # the relay's day is used up: the next chunk finds another one
            way.granted(grant._replace(permits=allowed), asked_at)
            return 0.0
        if grant.wait > PERMIT_PATIENCE or time.monotonic() + grant.wait >= until:
            return Halt(due_in=timedelta(seconds=grant.wait))
        # With jitter: two workers must not stay in step, one of them always first.
        return max(grant.wait - PERMIT_AHEAD, PERMIT_NAP) * (1 + self.engine.random() / 2)

    def _connection(self, attempt: Try) -> Connection:
        """The one that has announced it, or else a free one."""
        connections = attempt.way.connections
        connection = attempt.connection or next(one for one in connections if one.is_free)
        connection.promised = False
        return connection

    def _attempt(self, now: InHand, attempt: Try, connection: Connection) -> Outcome | Halt | Connection:
        """One try of a delivery. A Halt means that the channel is in trouble, and that this was no try.

        The connection: its answer is still to be read (`_answered`).
        """
        journal, identity = now.hold.journal, attempt.delivery.identity
        result: Outcome | Halt
        attempt.start()
        try:
            for number, parcel in attempt.remaining():
                if attempt.sent_something and (wait := self._part_wait(attempt.way)):
                    result = attempt.broken_off(wait)
                    break
                journal.begin(identity, attempt.progress)
                if not now.hold.is_ours:
                    result = attempt.broken_off(0.0) if attempt.sent_something else AGAIN
                    break
                last = number == len(attempt.parcels)
                then = self._announced(attempt, connection, now.queue) if last else None
                if last and connection.overlapping:
                    self._called(attempt, connection.overlapping.start, parcel, then)
                    connection.busy = True
                    return connection
                attempt.accepted(self._called(attempt, connection.transport.send, parcel, then))
            else:
                result = attempt.sent()
        except SendError as error:
            result = self._trouble(error, attempt)
        return self._noted(now.hold, attempt, result)

    def _answered(self, hold: Hold, attempt: Try, connection: Connection) -> Outcome | Halt:
        """How a try ended whose answer was still to be read."""
        connection.busy = False
        assert connection.overlapping is not None
        try:
            attempt.accepted(self._called(attempt, connection.overlapping.finish))
            result: Outcome | Halt = attempt.sent()
        except SendError as error:
            result = self._trouble(error, attempt)
        connection.took = attempt.took
        return self._noted(hold, attempt, result)

    def _noted(self, hold: Hold, attempt: Try, result: Outcome | Halt) -> Outcome | Halt:
        if isinstance(result, Halt):
            hold.journal.undo(attempt.delivery.identity)
            return result
        attempt.noted = hold.journal.end(result)
        if result.state is DeliveryState.SENT:
            self._relay_works(attempt.way.relay)
            if attempt.receipt.retry_after:
                self._hold_back(attempt.way.limits[0].key, attempt.receipt.retry_after, attempt.way)
        return result

    def _called(self, attempt: Try, call: Callable[..., T], *arguments: object) -> T:
        """What else a transport raises is a bug, and how far it came is not known."""
        try:
            return call(*arguments)
        except (SendError, ServiceDown):
            raise
        except Exception as error:
            raise self._bug(error, attempt) from None

    def _bug(self, error: Exception, attempt: Try) -> Unconfirmed:
        """One message may be odd. After a few, the channel pauses: a bug must not bring the whole audience into doubt."""
        name, identity = type(error).__name__, attempt.delivery.identity
        trace = frames_of(error)
        log.error("transport_bug channel=%s delivery=%s %s\n%s", self.channel.name, identity, name, trace)
        self._bugs += 1
        if self._bugs >= MOST_BUGS:
            self._stop(self.channel.name, f"its transport met a bug ({name}) {self._bugs} times: see the log")
            self.deadline = time.monotonic()
        return Unconfirmed(
            text=f"the transport met a bug ({name}): it may have gone; see the log", code="bug"
        )

    def _announced(self, attempt: Try, connection: Connection, queue: Collection[Try]) -> Parcel | None:
        """The parcel that this connection will carry next, if that is sure: its permit is in hand, and it goes in time.

        Those before it in the queue have a connection that announced them, or take one of those that are free.
        """
        free = attempt.way.free - 1  # besides this one
        following = self._to_announce(attempt.way, connection, queue, free)
        if following is None:
            return None
        following.connection, connection.promised = connection, True
        return following.parcels[0]

    def _announce_ahead(self, queue: Collection[Try], way: Way, busy: Connection) -> None:
        """Over the other connections that stand idle: their first envelopes are answered while this one's is."""
        for connection in way.connections:
            if connection is busy or not connection.is_free or connection.overlapping is None:
                continue
            following = self._to_announce(way, connection, queue, 0)
            if following is None:
                return
            with suppress(Exception):  # a bug: their `start` meets it again, and tells
                if connection.overlapping.announce(following.parcels[0]):
                    following.connection, connection.promised = connection, True

    def _to_announce(self, way: Way, connection: Connection, queue: Collection[Try], free: int) -> Try | None:
        """The first who has a permit behind those whom `free` connections carry."""
        if way.permits <= free + way.promised or not self._may_go_on():
            return None
        if time.monotonic() + connection.took >= self._until:
            return None
        following = behind_those_that_go_before(queue, free)
        if following is None or following.way is not way or not following.parcels:
            return None
        return following

    def _part_wait(self, way: Way) -> float:
        """Waits for the permit of a further part; returns 0.0, or the seconds that are still missing."""
        until = time.monotonic() + PART_WAIT
        while wait := self._permit(way, (), until, in_hand=way.permits > 0):
            seconds = wait.seconds if isinstance(wait, Halt) else wait
            if isinstance(wait, Halt) and (not seconds or time.monotonic() + seconds >= until):
                return max(seconds, 1.0)
            self.engine.sleep(seconds)
        return 0.0

    # ── troubles ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _trouble(self, error: SendError, attempt: Try) -> Outcome | Halt:
        delivery = attempt.delivery
        if error.kind is Kind.THROTTLE:
            self._slow_down(error, attempt)
        elif error.scope is Scope.CHANNEL and not attempt.sent_something:
            return self._channel_trouble(error, attempt.way.relay)
        if isinstance(error, Unavailable) and error.new_address:
            attempt.new_address = error.new_address
            error.counts = True  # an address that sends us from place to place must come to an end
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
            retry_in=decision.retry_in,
            counts=decision.counts,
            suppress=_suppression(self.channel.name, error),
        )

    def _slow_down(self, error: SendError, attempt: Try) -> None:
        """Everybody who shares the limit waits, and is slower afterwards."""
        wait = (isinstance(error, Unavailable) and error.retry_after) or THROTTLE_WAIT
        if error.scope is Scope.DOMAIN:
            recipient = attempt.delivery.recipient
            key = self.channel.domain_key(recipient) or attempt.way.limits[-1].key
        elif error.scope in {Scope.CREDENTIAL, Scope.CHANNEL}:
            key = attempt.way.limits[0].key
        else:
            return
        self._hold_back(key, wait, attempt.way)

    def _hold_back(self, key: str, wait: timedelta, way: Way) -> None:
        if wait < WALL:
            self.engine.pacer.block(key, wait.total_seconds())
        else:
            self.engine.pacer.throttled(key, wait.total_seconds())
        self._walls[key] = wait
        self.ways.give_up_permits(way)

    def _channel_trouble(self, error: SendError, relay: Relay) -> Halt:
        """The relay stops, and with the last one the channel; no recipient pays for it with a try."""
        self._stop(self.ways.stop_name(relay), str(error))
        self.ways.drop(relay)
        with suppress(ServiceDown):
            names = stop_names(self.channel)
            if len(names) > len(self.ledger.waits(names)):
                return AT_ONCE  # another relay goes on with it
        return Halt(stop_lane=True)

    def _stop(self, name: str, why: str) -> None:
        stopped = None
        # Without the database the next send finds out again; what this slice has sent must be written first.
        with suppress(ServiceDown):
            times = self.ledger.stop_count(name)
            wait = min(STOP_LONGEST, STOP_FIRST * (1 << min(times, 10)))
            stopped = self.ledger.stop_channel(name, why, wait)
        if stopped:  # several lanes meet the same trouble at once: the first one tells
            times, until = stopped
            log.error("channel_stopped channel=%s until=%s times=%s: %s", name, until.isoformat(), times, why)

    def _relay_works(self, relay: Relay) -> None:
        """The first success of a lane ends a stop."""
        if not self.ways.works(relay):
            return
        with suppress(ServiceDown):  # it is only news
            for name in {self.ways.stop_name(relay), self.channel.name}:
                if self.ledger.resume_channel(name):
                    log.info("channel_resumed channel=%s", name)

    # ── what is sent ─────────────────────────────────────────────────────────────────────────────────────────────

    def _parcels(self, delivery: Delivery) -> Sequence[Parcel]:
        """The parts that are still to be sent. Raises Rejected when the issue has no such message."""
        issue_id = delivery.identity.issue_id
        parts = self._known.messages.get(delivery.recipient.variant)
        if parts is None:
            raise Rejected(
                text=f"the issue has no message of the variant {delivery.recipient.variant!r}, and nothing was sent",
                kind=Kind.CONFIG,
            )
        sent_date = self._sent_date(delivery)
        values = placeholder_values(
            self.engine.base_url, issue_id, delivery.recipient.token, self._known.page
        )
        return [
            Parcel(message, delivery.recipient, delivery.identity, sent_date, values, delivery.receipts)
            for message in parts[delivery.parts_sent :]
        ]

    def _sent_date(self, delivery: Delivery) -> datetime:
        """The same for every try of one delivery and resend number, so that a repeated mail is recognisable."""
        if delivery.identity.resend and delivery.resend_id:
            if delivery.resend_id not in self._asked:
                self._asked[delivery.resend_id] = self.ledger.asked_at(delivery.resend_id)
            return self._asked[delivery.resend_id]
        issue = self._known.issue
        return issue.frozen_at or issue.opened_at


def _suppression(channel: str, error: SendError) -> SuppressionReason | None:
    if not (isinstance(error, Rejected) and error.suppress):
        return None
    return SuppressionReason.BOUNCED if channel == "email" else SuppressionReason.BLOCKED
