"""Asks Telegram for updates, one long question after the other; for installations that Telegram cannot reach."""

import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from telegram.error import Conflict, TelegramError

from distributor.bot.hearing import UPDATES
from distributor.bot.listening import Listener
from distributor.bot.stories import Tell
from distributor.bot.webhook import set_menu
from distributor.channels.redact import redact
from distributor.channels.telegram.answers import translate
from distributor.channels.telegram.transport import bot_thread
from distributor.errors import Kind, SendError, ServiceDown, Unavailable
from distributor.settings import Settings

log = logging.getLogger(__name__)

#: Seconds that Telegram keeps a question open when there is nothing to tell.
OPEN = 25
#: Seconds between two looks whether we are to stop.
LOOK = 0.2
#: Seconds until the next question after one that failed; doubled each time, up to the longest.
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
#: After "somebody else is asking".
CONFLICT_WAIT = 30.0


class Poller:
    """A context manager: asks in a thread of its own, and at the end sends the replies that wait.

    An update is confirmed to Telegram once it is done with, so none is lost with us.
    """

    def __init__(self, settings: Settings, listener: Listener, tell: Tell) -> None:
        self.settings, self.listener, self.tell = settings, listener, tell
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bot-polling")
        self._offset: int | None = None
        self._failures = 0
        self._introduced = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.listener.speaker.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._stop.wait(self._round())

    def _round(self) -> float:
        """Asks once and does what came; returns the seconds to wait before the next question."""
        try:
            updates = self._ask()
        except Conflict as error:
            return self._in_conflict(redact(error.message, self._secret))
        except TelegramError as error:
            return self._failed(translate(error, self._secret))
        except SendError as error:
            return self._failed(error)
        except Exception as error:  # the connection, or our own mistake: ask again
            return self._wait(f"{type(error).__name__}")
        try:
            for told in updates:
                self._do(told)
        except ServiceDown as error:
            return self._wait(str(error))  # the same updates come again
        self._failures = 0
        self._introduce()
        return 0.0

    def _introduce(self) -> None:
        """The commands for clients' menus, once Telegram has answered."""
        if not self._introduced:
            self._introduced = True
            with suppress(SendError):  # a menu is a convenience
                set_menu(self.settings)

    def _ask(self) -> Sequence[Mapping[str, Any]]:
        """The updates as they came: one that the library cannot read must not hold up the others.

        In lower case, which the Bot API takes as well: the library warns of asking by its own method's name.
        """
        thread = bot_thread(self.settings.telegram)
        asked = {"timeout": OPEN, "allowed_updates": UPDATES, "offset": self._offset}
        patience = self.settings.telegram.read_timeout.total_seconds() + OPEN
        question = thread.submit(
            thread.bot.do_api_request("getupdates", api_kwargs=asked, read_timeout=patience)
        )
        while not self._stop.is_set():
            try:
                found: Any = question.result(LOOK)
            except NotYet:
                if question.done():
                    raise
                continue
            return found if isinstance(found, list) else []
        question.cancel()
        return []

    def _do(self, told: Mapping[str, Any]) -> None:
        """Raises ServiceDown: the update is not confirmed."""
        self.listener.hear(told)
        if isinstance(number := told.get("update_id"), int):
            self._offset = number + 1

    def _in_conflict(self, said: str) -> float:
        """Another poller took our question's place, or a webhook is set: one of the two has to go."""
        self.tell(
            "bot polling conflict",
            "Two programs ask for the Telegram bot's updates",
            f"Telegram says: {said}\nRun one `distributor run` or `distributor bot poll` for this bot; if a webhook is "
            "set, `distributor bot delete-webhook` takes it away.",
        )
        self._wait(said)
        return CONFLICT_WAIT

    def _failed(self, error: SendError) -> float:
        if error.kind is Kind.CONFIG:
            self._wait(str(error))
            return LONGEST_WAIT
        wait = self._wait(str(error))
        asked = error.retry_after if isinstance(error, Unavailable) else None
        return max(wait, asked.total_seconds()) if asked else wait

    def _wait(self, why: str) -> float:
        self._failures += 1
        log.warning("bot_polling_waits failures=%d why=%s", self._failures, why)
        return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(self._failures - 1, 10))

    @property
    def _secret(self) -> str:
        return self.settings.telegram.token.get_secret_value()
