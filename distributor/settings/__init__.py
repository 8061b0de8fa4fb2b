"""`config/*.toml` and the environment, read once into one frozen `Settings`. Every mistake is reported, together.

Files: `distributor.toml` for the system, `newsletters/<slug>.toml` for each newsletter. Secrets never stand in a file:
they come from the environment, as `NAME` or, for a mounted secret, `NAME_FILE`. Paths are relative to the project's
folder (the one that holds `config/`).
"""

from distributor.settings.abuse import AbuseSettings
from distributor.settings.bot import BotSettings
from distributor.settings.events import SHARED_SECRETS, BounceMailbox, EventsSettings, ProviderName
from distributor.settings.fields import UNITS, WEEKDAYS, mail_address, parse_duration
from distributor.settings.newsletter import (
    Canary,
    EmailChannelSettings,
    HandoffDestination,
    Newsletter,
    Sender,
    TelegramDestination,
    Theme,
    WechatDestination,
    WecomDestination,
    page_name,
)
from distributor.settings.readers import Signup, SignupSource
from distributor.settings.reading import (
    PREFIX,
    load_settings,
    packaged,
    relay_password_name,
    signup_secret_name,
    webhook_secret_name,
    wechat_names,
    wechat_secret_names,
    wecom_key_name,
)
from distributor.settings.system import (
    ONLY_RELAY,
    AlertRoute,
    Database,
    DomainGroup,
    EmailSettings,
    Endpoint,
    EngineSettings,
    MailRelay,
    PictureSettings,
    Retention,
    Retry,
    S3Settings,
    Smtp,
    TelegramSettings,
    WechatAccount,
    WechatSettings,
    WecomSettings,
)
from distributor.settings.whole import Settings

__all__ = [
    "ONLY_RELAY",
    "PREFIX",
    "SHARED_SECRETS",
    "UNITS",
    "WEEKDAYS",
    "AbuseSettings",
    "AlertRoute",
    "BotSettings",
    "BounceMailbox",
    "Canary",
    "Database",
    "DomainGroup",
    "EmailChannelSettings",
    "EmailSettings",
    "Endpoint",
    "EngineSettings",
    "EventsSettings",
    "HandoffDestination",
    "MailRelay",
    "Newsletter",
    "PictureSettings",
    "ProviderName",
    "Retention",
    "Retry",
    "S3Settings",
    "Sender",
    "Settings",
    "Signup",
    "SignupSource",
    "Smtp",
    "TelegramDestination",
    "TelegramSettings",
    "Theme",
    "WechatAccount",
    "WechatDestination",
    "WechatSettings",
    "WecomDestination",
    "WecomSettings",
    "load_settings",
    "mail_address",
    "packaged",
    "page_name",
    "parse_duration",
    "relay_password_name",
    "signup_secret_name",
    "webhook_secret_name",
    "wechat_names",
    "wechat_secret_names",
    "wecom_key_name",
]
