"""Letters: mails to readers outside an issue, on a lane of their own.

A confirmation must come while its reader waits for it, also while an issue is being sent: letters share the relays and
their pace with it, and nothing else. Who took a letter sends it before its lease is over, or lets it lie.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from jinja2 import Environment

from distributor.channels.email.letters import CONFIRM_URL, SUBSCRIBE_URL, render_letter
from distributor.dispatch.engine import PREFERENCES_URL, UNSUBSCRIBE_URL, Engine, Stop
from distributor.dispatch.ways import NoWay, Way, Ways, stop_names
from distributor.errors import (
    DistributorError,
    Rejected,
    Scope,
    SendError,
    Unavailable,
    Unconfirmed,
    frames_of,
)
from distributor.model import (
    LETTER_MARK,
    DeliveryId,
    DeliveryState,
    Letter,
    Message,
    Parcel,
    Receipt,
    Recipient,
    SubscriptionState,
    SuppressionReason,
)
from distributor.outbox import LEASE, Outbox, Waiting
from distributor.retry import decide
from distributor.settings import Retry

log = logging.getLogger(__name__)

#: Tried for a day: whoever still waits signs up again.
RETRY = Retry(tries=8, first=timedelta(seconds=20), longest=timedelta(hours=2), max_age=timedelta(days=1))
#: Seconds to wait for a permit before the letter goes back.
PATIENCE = 5.0
#: After trouble with a relay.
TROUBLE = timedelta(seconds=10)
CHANNEL = "email"
#: Letter → the states of a subscription in which it still makes sense; None: whatever the state.
FITTING: Mapping[Letter, frozenset[SubscriptionState] | None] = {
    Letter.CONFIRM: None,
    Letter.REMIND: frozenset({SubscriptionState.PENDING}),
    Letter.WELCOME: frozenset({SubscriptionState.ACTIVE}),
    Letter.GOODBYE: frozenset({SubscriptionState.UNSUBSCRIBED}),
}


class _Needless(Exception):
    """Another letter has taken this one's place."""


@dataclass(eq=False, kw_only=True)
class PostRoom:
    """Sends what lies in the outbox, through the engine's relays."""

    engine: Engine
    outbox: Outbox
    templates: Environment
    _rendered: dict[tuple[Letter, str, str], Message] = field(default_factory=dict)

    def send_due(self, stop: Stop | None = None) -> int:
        """Sends the letters that are due; returns how many left. A channel that is stopped keeps them waiting."""
        channel = self.engine.channels.get(CHANNEL)
        if (
            channel is None
            or set(stop_names(channel)) <= self.engine.ledger.waits(stop_names(channel)).keys()
        ):
            return 0
        taken = self.outbox.take_due()
        if not taken:
            return 0
        until = time.monotonic() + LEASE.total_seconds() / 2
        with ExitStack() as stack:
            ways = Ways(self.engine, channel, stack)
            sent = 0
            for number, letter in enumerate(taken):
                if time.monotonic() > until or (stop is not None and stop.is_set()):
                    self._let_lie(taken[number:], timedelta(0))
                    break
                try:
                    sent += self._send(letter, ways)
                except NoWay as error:
                    self._let_lie(taken[number:], error.wait)
                    break
        return sent

    def _let_lie(self, letters: Sequence[Waiting], wait: timedelta) -> None:
        for letter in letters:
            self.outbox.put_back(letter, wait, code="", text="", counts=False)

    def _send(self, letter: Waiting, ways: Ways) -> bool:
        """Raises NoWay when the trouble is not this letter's: the others would meet it as well."""
        if reason := self._skip(letter):
            self.outbox.settle(letter, DeliveryState.SKIPPED, code="", text=reason)
            return False
        try:
            receipt, relay = self._hand_over(letter, ways)
        except _Needless:
            self.outbox.settle(letter, DeliveryState.SKIPPED, code="", text="asked again meanwhile")
            return False
        except SendError as error:
            if isinstance(error, Unavailable) and error.scope in {Scope.CHANNEL, Scope.CREDENTIAL}:
                log.warning("letters_wait relay=%s %s", ways.last_tried.name, error)
                raise NoWay(error.retry_after or TROUBLE) from error
            self._failed(letter, error)
            return False
        self.outbox.settle(letter, DeliveryState.SENT, code=receipt.code, text=receipt.text, relay=relay)
        return True

    def _hand_over(self, letter: Waiting, ways: Ways) -> tuple[Receipt, str]:
        """(the relay's receipt, its name). Raises SendError, NoWay."""
        recipient = Recipient(channel=CHANNEL, address=letter.address, subscriber_id=letter.subscriber_id)
        try:
            way = ways.find(recipient)
            self._wait_for_turn(way, ways)
            parcel = self._parcel(letter, recipient, self._confirmation(letter))
            return way.transport.send(parcel), way.relay.name
        except (SendError, NoWay, _Needless):
            raise
        except DistributorError as error:
            raise Rejected(text=str(error)) from error
        except Exception as error:
            log.error("letter_bug letter=%s %s\n%s", letter.id, type(error).__name__, frames_of(error))  # noqa: TRY400 - it may quote a token
            raise Unavailable(text=f"a bug: {type(error).__name__}; see the log") from None

    def _skip(self, letter: Waiting) -> str:
        """Why a letter is of no use any more; empty when it is."""
        if letter.suppressed and letter.suppressed != SuppressionReason.ERASED:
            return f"suppressed: {letter.suppressed}"
        if letter.newsletter not in self.engine.newsletters:
            return "its newsletter has left the configuration"
        fitting = FITTING[letter.kind]
        if fitting is not None and letter.state not in fitting:
            return f"the subscription is {letter.state or 'gone'}"
        return ""

    def _failed(self, letter: Waiting, error: SendError) -> None:
        decision = decide(
            error,
            tries=letter.tries,
            first_try_at=letter.created_at,
            now=datetime.now(UTC),
            policy=RETRY,
            on_unconfirmed="resend",
            random=self.engine.random,
        )
        text = f"{error.text} {decision.note}".strip()
        log.info("letter_not_sent letter=%s kind=%s code=%s", letter.id, letter.kind, error.code)
        if decision.state is DeliveryState.PENDING:
            wait = decision.retry_in or timedelta(0)
            self.outbox.put_back(letter, wait, code=error.code, text=text, counts=decision.counts)
            return
        state = DeliveryState.UNCONFIRMED if isinstance(error, Unconfirmed) else DeliveryState.FAILED
        self.outbox.settle(letter, state, code=error.code, text=text)
        if isinstance(error, Rejected) and error.suppress:
            self.engine.audience.suppress(
                CHANNEL, letter.address, SuppressionReason.BOUNCED, f"letter: {error.code}"
            )

    def _wait_for_turn(self, way: Way, ways: Ways) -> None:
        """Raises Unavailable when the relay's pace or its day leaves no room soon."""
        grant = self.engine.pacer.reserve(way.limits, 1, within=PATIENCE)
        if not grant.permits or not ways.within_cap(way, 1):
            wait = timedelta(seconds=max(grant.wait, 1.0))
            raise Unavailable(text="no room in the pace now", retry_after=wait, counts=False)
        if grant.wait:
            self.engine.sleep(grant.wait)

    def _parcel(self, letter: Waiting, recipient: Recipient, confirmation: str) -> Parcel:
        message = self._message(letter)
        base = self.engine.base_url
        values = {
            CONFIRM_URL: f"{base}/confirm/{confirmation}",
            SUBSCRIBE_URL: f"{base}/u/{letter.token}",
            UNSUBSCRIBE_URL: f"{base}/u/{letter.token}",
            PREFERENCES_URL: f"{base}/p/{letter.token}",
        }
        return Parcel(
            message=message,
            recipient=recipient,
            identity=DeliveryId(0, letter.id, LETTER_MARK),
            sent_date=letter.created_at,
            values={name: values[name] for name in message.placeholders},
        )

    def _confirmation(self, letter: Waiting) -> str:
        """The token of a confirmation's link; empty for other letters. Raises _Needless."""
        if letter.kind not in {Letter.CONFIRM, Letter.REMIND}:
            return ""
        token = self.engine.audience.open_confirmation(
            letter.subscriber_id, letter.created_at, reminder=letter.kind is Letter.REMIND
        )
        if token is None:
            raise _Needless
        return token

    def _message(self, letter: Waiting) -> Message:
        newsletter = self.engine.newsletters[letter.newsletter]
        language = "en" if (letter.language or newsletter.language).startswith("en") else "zh-CN"
        key = (letter.kind, letter.newsletter, language)
        if key not in self._rendered:
            self._rendered[key] = render_letter(letter.kind, newsletter, self.templates, language)
        return self._rendered[key]
