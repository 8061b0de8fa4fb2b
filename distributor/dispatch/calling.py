"""Calling endpoints: our webhooks leave, signed, and are tried again for nearly three days.

Form and wording are those of Standard Webhooks 1.0.0: `webhook-id` stays the same for every try, `webhook-timestamp`
does not, 410 switches an endpoint off until the program is started anew, Retry-After is heeded. One endpoint that hangs
keeps no other one waiting: each has a turn of its own, which ends with the first failure.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx
from standardwebhooks import Webhook

from distributor.channels.http import quiet
from distributor.dispatch.engine import Stop
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
LONGEST_ANSWER = 200  # characters of an answer's body that are kept in the log
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

    def send_due(self, stop: Stop | None = None) -> int:
        """One turn for each endpoint, all at once; returns how many calls got through."""
        now = time.monotonic()
        endpoints = [
            endpoint
            for endpoint in self.webhooks.endpoints
            if endpoint.name not in self._gone and self._rests_until.get(endpoint.name, 0.0) <= now
        ]
        if not endpoints:
            return 0
        with ThreadPoolExecutor(len(endpoints), thread_name_prefix="webhook") as pool:
            return sum(pool.map(lambda endpoint: self._turn(endpoint, stop), endpoints))

    def _turn(self, endpoint: Endpoint, stop: Stop | None) -> int:
        calls = self.webhooks.take_due(endpoint.name)
        if not calls:
            return 0
        until = time.monotonic() + LEASE.total_seconds() / 2
        sent = 0
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
                sent += 1
        return sent

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
            answer = client.post(endpoint.url, content=body.encode(), headers=signed(endpoint, call, body))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._failed(endpoint, call, "", type(error).__name__, None)  # the error's text may hold the URL
            return False
        if answer.is_success:
            self.webhooks.settle(call, DeliveryState.SENT, code=str(answer.status_code), text="")
            return True
        if answer.status_code == GONE:
            self._gone.add(endpoint.name)
            log.warning("webhook_gone endpoint=%s: 410; left alone until the next start", endpoint.name)
        self._failed(endpoint, call, str(answer.status_code), _words(answer), _asked_wait(answer))
        return False

    def _failed(self, endpoint: Endpoint, call: Call, code: str, text: str, asked: timedelta | None) -> None:
        log.warning(
            "webhook_failed endpoint=%s event=%s code=%s %s", endpoint.name, call.event_id, code, text
        )
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


def _words(answer: httpx.Response) -> str:
    return CONTROLS.sub(" ", answer.text[:LONGEST_ANSWER]).strip()
