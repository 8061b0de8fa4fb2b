"""Calling endpoints: our webhooks leave, signed, and are tried again for nearly three days.

Form and wording are those of Standard Webhooks 1.0.0: `webhook-id` stays the same for every try, `webhook-timestamp`
does not, 410 switches an endpoint off until the program is started anew, Retry-After is heeded. One endpoint that hangs
keeps no other one waiting: each has a turn of its own, on a thread of its own, which ends with the first failure.
"""

import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx
from standardwebhooks import Webhook

from distributor.channels.http import quiet
from distributor.dispatch.engine import Stop
from distributor.errors import ServiceDown, frames_of
from distributor.model import DeliveryState
from distributor.rendering import CONTROLS
from distributor.settings import Endpoint
from distributor.webhooks import LEASE, Call, Webhooks

log = logging.getLogger(__name__)
quiet("httpx")

#: Waits after the first, second … failed try: about three days (Standard Webhooks suggests some such schedule).
WAITS = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=24),
    timedelta(hours=24),
)
#: An endpoint that fails is left alone for so long, doubled with each failure in a row: its other calls keep their tries.
REST, LONGEST_REST = 5.0, 300.0
TIMEOUT = httpx.Timeout(15, connect=5)
#: Seconds after which slow turns are left to themselves, and the next ones begin.
PATIENCE = 2.0
#: Bytes of an answer that are read, and seconds that its body may take: it tells us nothing but, of a failure, why.
MOST_READ, READING = 16 * 1024, 15.0
LONGEST_ANSWER = 200  # characters of an answer's body that are kept
LONGEST_WAIT = timedelta(hours=6)
GONE, TOO_MANY, UNAVAILABLE = 410, 429, 503


@dataclass(eq=False, kw_only=True)
class Caller:
    """Sends what waits for the endpoints. `transport` is for tests."""

    webhooks: Webhooks
    transport: httpx.BaseTransport | None = None
    _gone: set[str] = field(default_factory=set)
    _failures: dict[str, int] = field(default_factory=dict)  # in a row
    _rests_until: dict[str, float] = field(default_factory=dict)
    _turns: dict[str, threading.Thread] = field(default_factory=dict)

    def send_due(self, stop: Stop | None = None) -> int:
        """One turn for each endpoint that has none, all at once; returns how many calls got through by now."""
        now = time.monotonic()
        sent: list[int] = []
        for endpoint in self.webhooks.endpoints:
            if endpoint.name in self._gone or self._rests_until.get(endpoint.name, 0.0) > now:
                continue
            if (last := self._turns.get(endpoint.name)) is None or not last.is_alive():
                # A daemon: what hangs must not keep the process from ending; its call is tried again.
                turn = threading.Thread(
                    target=self._turn,
                    args=(endpoint, stop, sent),
                    name=f"webhook-{endpoint.name}",
                    daemon=True,
                )
                self._turns[endpoint.name] = turn
                turn.start()
        for turn in self._turns.values():
            turn.join(max(0.0, now + PATIENCE - time.monotonic()))
        return sum(sent)

    def _turn(self, endpoint: Endpoint, stop: Stop | None, sent: list[int]) -> None:
        try:
            self._take_turn(endpoint, stop, sent)
        except ServiceDown as error:
            log.warning("webhooks_wait endpoint=%s %s", endpoint.name, error)
        except Exception as error:
            log.error("webhook_bug endpoint=%s %s\n%s", endpoint.name, type(error).__name__, frames_of(error))  # noqa: TRY400 - it may quote an address
            self._rest(endpoint.name)

    def _take_turn(self, endpoint: Endpoint, stop: Stop | None, sent: list[int]) -> None:
        calls = self.webhooks.take_due(endpoint.name)
        if not calls:
            return
        until = time.monotonic() + LEASE.total_seconds() / 2
        with httpx.Client(timeout=TIMEOUT, transport=self.transport, follow_redirects=False) as client:
            for number, call in enumerate(calls):
                if time.monotonic() > until or (stop is not None and stop.is_set()):
                    self._let_lie(calls[number:])
                    break
                if not self._call(client, endpoint, call):
                    self._rest(endpoint.name)
                    self._let_lie(calls[number + 1 :])
                    break
                self._failures.pop(endpoint.name, None)
                sent.append(1)

    def _rest(self, endpoint: str) -> None:
        failures = self._failures[endpoint] = self._failures.get(endpoint, 0) + 1
        self._rests_until[endpoint] = time.monotonic() + min(REST * 2 ** (failures - 1), LONGEST_REST)

    def _let_lie(self, calls: Sequence[Call]) -> None:
        for call in calls:
            self.webhooks.put_back(call, timedelta(0), failed=False)

    def _call(self, client: httpx.Client, endpoint: Endpoint, call: Call) -> bool:
        """Whether the endpoint took it."""
        body = json.dumps(call.body, ensure_ascii=False, separators=(",", ":"))
        try:
            answer, said = _ask(client, endpoint, call, body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._failed(endpoint, call, "", type(error).__name__, None)  # the error's text may hold the URL
            return False
        if answer.is_success:
            self.webhooks.settle(call, DeliveryState.SENT, code=str(answer.status_code), text="")
            return True
        if answer.status_code == GONE:
            self._gone.add(endpoint.name)
            log.warning("webhook_gone endpoint=%s: 410; left alone until the next start", endpoint.name)
        self._failed(endpoint, call, str(answer.status_code), said, _asked_wait(answer))
        return False

    def _failed(self, endpoint: Endpoint, call: Call, code: str, text: str, asked: timedelta | None) -> None:
        # Without what an endpoint said: it may repeat the call, and with it an address.
        why = code or text
        log.warning("webhook_failed endpoint=%s event=%s why=%s", endpoint.name, call.event_id, why)
        if call.tries >= len(WAITS):
            self.webhooks.settle(call, DeliveryState.FAILED, code=code, text=text)
            return
        self.webhooks.put_back(call, max(WAITS[call.tries], asked or timedelta(0)), code=code, text=text)


def signed(endpoint: Endpoint, call: Call, body: str) -> Mapping[str, str]:
    """The headers of a call; with several secrets, a signature by each."""
    now = datetime.now(UTC)
    signatures = [
        Webhook(secret.get_secret_value()).sign(call.event_id, now, body) for secret in endpoint.secrets
    ]
    return {
        "content-type": "application/json",
        "user-agent": "distributor",
        "accept-encoding": "identity",  # of an answer, a little is read: it need not be unpacked
        "webhook-id": call.event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _asked_wait(answer: httpx.Response) -> timedelta | None:
    """Retry-After in seconds, of those answers for which it means something."""
    asked = answer.headers.get("retry-after", "")
    if answer.status_code not in {TOO_MANY, UNAVAILABLE} or not asked.isdigit():
        return None
    return min(timedelta(seconds=int(asked[:6])), LONGEST_WAIT)


def _ask(client: httpx.Client, endpoint: Endpoint, call: Call, body: str) -> tuple[httpx.Response, str]:
    """(the answer, what it says). Its body is read so far and so long, whatever there is of it."""
    headers = signed(endpoint, call, body)
    until = time.monotonic() + READING
    said = b""
    with client.stream("POST", endpoint.url, content=body.encode(), headers=headers) as answer:
        for piece in answer.iter_bytes(MOST_READ):
            said += piece[:MOST_READ]
            if len(said) >= MOST_READ or time.monotonic() > until:
                break
    return answer, CONTROLS.sub(" ", said.decode("utf-8", "replace")[:LONGEST_ANSWER]).strip()
