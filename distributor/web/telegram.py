"""POST /telegram/webhook: what readers say to the bot, as Telegram brings it. Done first, then answered at once."""

import hmac
import json
import logging
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from distributor.bootstrap import Distributor, listener_of
from distributor.bot import PATH, Listener
from distributor.errors import ServiceDown
from distributor.web.problems import KIND, problem

log = logging.getLogger(__name__)

SECRET = "X-Telegram-Bot-Api-Secret-Token"  # noqa: S105 - a header's name
RETRY_AFTER = {"Retry-After": "10"}
#: What may be answered besides 200. Telegram brings an update again after all of these.
PROBLEMS = {
    400: "The body is no update of the Bot API.",
    401: "The call does not prove that it comes from Telegram.",
    413: "The call is larger than `web.most_body`.",
    503: "Not available right now; try again.",
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {KIND: {}}} for status, text in PROBLEMS.items()
}


def add_bot(app: FastAPI, distributor: Distributor) -> None:
    """Adds the bot's address; not without a secret: anybody could speak for a reader."""
    if not distributor.settings.bot.webhook_secret.get_secret_value():
        log.error("bot_webhook_off why=DISTRIBUTOR_TELEGRAM_WEBHOOK_SECRET is not set")
        return
    calls = BotCalls(distributor.settings.bot.webhook_secret.get_secret_value(), listener_of(distributor))
    app.add_api_route(
        PATH,
        calls.take,
        response_class=Response,
        methods=["POST"],
        responses=RESPONSES,
        tags=["events"],
        summary="What Telegram tells us",
    )


class BotCalls:
    """Takes the calls of Telegram."""

    def __init__(self, secret: str, listener: Listener) -> None:
        self._secret, self.listener = secret, listener

    async def take(self, request: Request) -> Response:
        """Does what the update asks for. 200 also for one that is nothing to us: Telegram would bring it for a day."""
        if not self._proven(request.headers.get(SECRET, "")):
            log.warning("bot_call_forged")
            return problem(401, PROBLEMS[401])
        try:
            told = json.loads(await request.body())
        except (ValueError, RecursionError):
            return problem(400, PROBLEMS[400])
        if not isinstance(told, dict) or "update_id" not in told:
            return problem(400, PROBLEMS[400])
        return await run_in_threadpool(self._answer, told)

    def _proven(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._secret.encode())

    def _answer(self, told: dict[str, Any]) -> Response:
        try:
            self.listener.hear(told)
        except ServiceDown as error:
            log.warning("bot_update_postponed why=%s", error)
            return problem(503, PROBLEMS[503], RETRY_AFTER)
        return Response(status_code=200)
