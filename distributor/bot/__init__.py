"""The Telegram bot that readers talk to: an update comes in, what it asks for is done, an answer goes out.

`hearing` reads updates, `stories` does what they ask, `speaking` sends the answers at the bot's pace, `listening` joins the three; `polling` asks
Telegram for updates, `webhook` tells Telegram where to bring them (distributor/web/telegram.py takes them there).
"""

from distributor.bot.hearing import UPDATES, Update, read
from distributor.bot.listening import Listener
from distributor.bot.polling import Poller
from distributor.bot.speaking import Speaker
from distributor.bot.stories import Bot
from distributor.bot.webhook import (
    PATH,
    WebhookStatus,
    delete_webhook,
    set_webhook,
    webhook_status,
    webhook_url,
)

__all__ = [
    "PATH",
    "UPDATES",
    "Bot",
    "Listener",
    "Poller",
    "Speaker",
    "Update",
    "WebhookStatus",
    "delete_webhook",
    "read",
    "set_webhook",
    "webhook_status",
    "webhook_url",
]
