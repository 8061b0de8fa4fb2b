"""Telling the operator: notices that are written down once and sent over every route of the configuration.

An alarm must not depend on what is down, so each route is on its own: its row, its tries, its errors.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx

from distributor.channels import Channel
from distributor.channels.email.letters import render_alert
from distributor.channels.http import quiet
from distributor.errors import Kind, Rejected, SendError, Unavailable
from distributor.model import DeliveryId, Message, Parcel, Recipient
from distributor.notices import LEASE, NewNotice, Notice, Notices
from distributor.rendering import template_environment
from distributor.settings import AlertRoute, Settings

log = logging.getLogger(__name__)

#: Waits between the tries of one notice; then it has failed, and the log alone has it.
WAITS = (timedelta(seconds=10), timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=30))
WEBHOOK_TIMEOUT = 10

quiet("httpx")


@dataclass(frozen=True, kw_only=True)
class Alerts:
    """The operator's routes, and what is to be told over them."""

    settings: Settings
    channels: Mapping[str, Channel]
    notices: Notices

    def tell(self, key: str, subject: str, body: str) -> bool:
        """Writes a notice down for every route; a key is told once. True when it was new."""
        routes = [route_name(route) for route in self.settings.operator.routes]
        new = self.notices.add(NewNotice(key=key, subject=subject, body=body), routes or ["log"])
        if new:
            log.warning("operator_notice key=%s %s", key, subject)
        return new

    def send_due(self) -> int:
        """Sends the notices that are due; returns how many got through.

        Each route in a thread of its own, so that one that hangs keeps nobody waiting; and none is begun when it might
        end after our time with it is over: another process would send it as well.
        """
        until = time.monotonic() + LEASE.total_seconds() / 2
        by_route: dict[str, list[Notice]] = {}
        for notice in self.notices.take_due():
            by_route.setdefault(notice.route, []).append(notice)
        if not by_route:
            return 0
        with ThreadPoolExecutor(len(by_route), thread_name_prefix="notice") as pool:
            return sum(pool.map(lambda some: self._send_in_time(some, until), by_route.values()))

    def _send_in_time(self, notices: Sequence[Notice], until: float) -> int:
        sent = 0
        for notice in notices:
            if time.monotonic() >= until:
                break
            error = self._send(notice)
            self.notices.settle(notice, error, None if error is None else _next_wait(notice.tries))
            sent += error is None
        return sent

    def dead_man(self) -> None:
        """Tells the watchdog that all went well; when this does not come, the watchdog raises the alarm."""
        url = self.settings.operator.dead_man_url.get_secret_value()
        if not url:
            return
        try:
            httpx.get(url, timeout=WEBHOOK_TIMEOUT).raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            log.warning("dead_man_ping failed: %s", type(error).__name__)  # the error's text holds the URL

    def _send(self, notice: Notice) -> str | None:
        """The error, or None when the route took it."""
        routes = {route_name(route): route for route in self.settings.operator.routes}
        if notice.route not in routes:
            return None  # written for the log, or for a route that is no longer configured
        route = routes[notice.route]
        try:
            ROUTES[route.kind](self, route, notice)
        except SendError as error:
            log.warning("operator_notice route=%s not sent: %s", notice.route, error)
            return str(error)
        except Exception as error:
            # A bug of one route must not keep the others silent; the error's text may hold a secret.
            log.error("operator_notice route=%s not sent: %s", notice.route, type(error).__name__)  # noqa: TRY400
            return f"this route's own mistake: {type(error).__name__}"
        return None

    def _by_email(self, route: AlertRoute, notice: Notice) -> None:
        sender = self.settings.operator.sender or route.to
        content = {
            "subject": f"[distributor] {notice.subject}",
            **self._mail_texts(notice),
            "from_name": "distributor",
            "from_address": sender,
            "reply_to": sender,
            "language": "en",
            "newsletter": "operator",
            "title": "distributor",
            "list_id": "",
            "slug": notice.key,
        }
        self._by_channel("email", route.to, "default", content, notice)

    def _mail_texts(self, notice: Notice) -> Mapping[str, str]:
        """The designed mail; with a template of the project's own that fails, the bare text."""
        try:
            return render_alert(notice.subject, notice.body, template_environment(self.settings.root))
        except Exception as error:
            log.error("operator_notice without its template: %s", type(error).__name__)  # noqa: TRY400 - an alarm goes out all the same
            return {"text": notice.body}

    def _by_telegram(self, route: AlertRoute, notice: Notice) -> None:
        text = _short(f"{notice.subject}\n\n{notice.body}", 4000)
        escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        self._by_channel(
            "telegram", route.to, "default", {"html": escaped, "plain": text, "preview_url": ""}, notice
        )

    def _by_wecom(self, route: AlertRoute, notice: Notice) -> None:
        text = f"{notice.subject}\n\n{notice.body}"
        cut = text.encode()[:2000].decode(errors="ignore")
        self._by_channel("wecom", route.robot, "text", {"text": cut}, notice)

    def _by_webhook(self, _route: AlertRoute, notice: Notice) -> None:
        url = self.settings.operator.webhook_url.get_secret_value()
        if not url:
            raise Rejected(text="DISTRIBUTOR_ALERT_WEBHOOK_URL is not set", kind=Kind.CONFIG)
        said = {"key": notice.key, "subject": notice.subject, "text": notice.body}
        try:
            httpx.post(url, json=said, timeout=WEBHOOK_TIMEOUT).raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable(text=f"the alert webhook failed: {type(error).__name__}") from None

    def _by_channel(
        self, channel: str, address: str, variant: str, content: Mapping[str, str], notice: Notice
    ) -> None:
        if channel not in self.channels:
            raise Rejected(text=f"no channel {channel} is loaded", kind=Kind.CONFIG)
        parcel = Parcel(
            message=Message(channel=channel, variant=variant, content=content),
            recipient=Recipient(channel=channel, address=address, variant=variant, destination=address),
            identity=DeliveryId(0, notice.id, notice.tries),
            sent_date=datetime.now(UTC),
        )
        way = self.channels[channel]
        with way.open(way.relays[0].name) as transport:
            transport.send(parcel)


Route = Callable[[Alerts, AlertRoute, Notice], None]
ROUTES: Mapping[str, Route] = {
    "email": Alerts._by_email,  # noqa: SLF001 - the table of this very class
    "telegram": Alerts._by_telegram,  # noqa: SLF001 - as above
    "wecom": Alerts._by_wecom,  # noqa: SLF001 - as above
    "webhook": Alerts._by_webhook,  # noqa: SLF001 - as above
}


def route_name(route: AlertRoute) -> str:
    """What a route is called in the notices' table."""
    return f"{route.kind}:{route.to or route.robot or 'webhook'}"


def route_channels(settings: Settings) -> Sequence[str]:
    """The channels the routes need, whether or not a newsletter uses them."""
    return sorted({route.kind for route in settings.operator.routes} - {"webhook"})


def _next_wait(tries: int) -> timedelta | None:
    return WAITS[tries] if tries < len(WAITS) else None


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
