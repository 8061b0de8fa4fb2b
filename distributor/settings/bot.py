"""The table of `distributor.toml` about the Telegram bot that readers talk to."""

import re
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator

from distributor.settings.fields import Frozen, Name


class BotSettings(Frozen):
    """`[bot]`. The token is `[telegram]`'s; the webhook's secret comes from DISTRIBUTOR_TELEGRAM_WEBHOOK_SECRET."""

    mode: Literal["off", "webhook", "polling"] = Field(
        "off", description="how we hear what readers say: Telegram calls us, or we ask it again and again"
    )
    username: Annotated[str, Field(pattern=r"^([A-Za-z][A-Za-z0-9_]{3,31})?$")] = Field(
        "", description="the bot's name without @, for links to it; empty: pages show none"
    )
    newsletters: tuple[Name, ...] = Field(
        (), description="what a bare /start subscribes to; empty: all public ones that Telegram readers get"
    )
    webhook_secret: SecretStr = SecretStr("")

    @field_validator("webhook_secret")
    @classmethod
    def fits_telegram(cls, secret: SecretStr) -> SecretStr:
        """What setWebhook takes: 1 to 256 of A-Z, a-z, 0-9, _ and -."""
        if not re.fullmatch(r"[A-Za-z0-9_-]{0,256}", secret.get_secret_value()):
            raise ValueError("Telegram takes 1 to 256 of the characters A-Z, a-z, 0-9, _ and -")
        return secret
