"""From an update to its replies, wherever it came from."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distributor.bot.hearing import read
from distributor.bot.speaking import Speaker
from distributor.bot.stories import Bot
from distributor.errors import ServiceDown, frames_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Listener:
    """Hears updates one by one. `username`: the bot's, whose commands are meant."""

    bot: Bot
    speaker: Speaker
    username: str

    def hear(self, told: Mapping[str, Any]) -> None:
        """Does what the update asks for; its replies go out soon. Raises ServiceDown: it may come again.

        What cannot be understood, or breaks us, is logged and over: it would break us again, and hold up the others. The
        error's text may name a chat.
        """
        try:
            if update := read(told, self.username):
                self.speaker.say(self.bot.answer(update))
        except ServiceDown:
            raise
        except ValueError as error:
            log.warning("bot_update_skipped %s", error)
        except Exception as error:
            log.error("bot_update_failed why=%s\n%s", type(error).__name__, frames_of(error))  # noqa: TRY400 - as above
