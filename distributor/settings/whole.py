"""All settings together."""

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from distributor.errors import ConfigError
from distributor.settings.bot import BotSettings
from distributor.settings.events import EventsSettings
from distributor.settings.fields import Frozen
from distributor.settings.newsletter import Newsletter
from distributor.settings.readers import Signup
from distributor.settings.system import (
    Broker,
    Database,
    EmailSettings,
    EngineSettings,
    Operator,
    PictureSettings,
    Retention,
    SiteSettings,
    TelegramSettings,
    Web,
    WebhookSettings,
    WechatAccount,
    WechatSettings,
    WecomSettings,
)


class Settings(Frozen):
    """Everything, frozen. `root` is the project's folder."""

    root: Path
    database: Database = Database()
    broker: Broker = Broker()
    engine: EngineSettings = EngineSettings()
    email: EmailSettings = EmailSettings()
    telegram: TelegramSettings = TelegramSettings()
    bot: BotSettings = BotSettings()
    wecom: WecomSettings = WecomSettings()
    wechat: WechatSettings = WechatSettings()
    web: Web = Web()
    pictures: PictureSettings = PictureSettings()
    site: SiteSettings = SiteSettings()
    signup: Signup = Signup()
    webhooks: WebhookSettings = WebhookSettings()
    events: EventsSettings = EventsSettings()
    operator: Operator = Operator()
    retention: Retention = Retention()
    newsletters: Mapping[str, Newsletter] = Field(default_factory=dict)
    wecom_keys: Mapping[str, SecretStr] = Field(default_factory=dict)
    wechat_accounts: Mapping[str, WechatAccount] = Field(default_factory=dict)

    def path(self, relative: Path | str) -> Path:
        return self.root / relative

    @property
    def pictures_url(self) -> str:
        """Where readers get hosted pictures from; without `pictures.base_url`, from our own web app."""
        return self.pictures.base_url.rstrip("/") or f"{self.web.base_url}/pictures"

    @property
    def site_url(self) -> str:
        """Where readers reach the site."""
        return self.site.base_url or f"{self.web.base_url}/archive"

    @property
    def site_is_reached(self) -> bool:
        """Whether there is a site, and not for this computer alone: a link to such an address must not be mailed."""
        return (self.site.serve or bool(self.site.folder)) and not is_loopback(self.site_url)

    def page_pattern(self, newsletter: str) -> str:
        """The `url_pattern` of a newsletter whose full text lives on the site; empty when readers do not reach it."""
        if not self.site_is_reached:
            return ""
        return self.site_url.replace("{", "{{").replace("}", "}}") + f"/{newsletter}/{{page}}/"

    def newsletter(self, slug: str | None) -> Newsletter:
        """The newsletter of that name; the only one when none is named. Raises ConfigError otherwise."""
        names = ", ".join(sorted(self.newsletters))
        if slug is None and len(self.newsletters) == 1:
            return next(iter(self.newsletters.values()))
        if slug is None:
            raise ConfigError([f"name a newsletter with --newsletter; there are: {names or 'none'}"])
        if slug not in self.newsletters:
            raise ConfigError(
                [
                    f"no newsletter is called {slug!r} (config/newsletters/{slug}.toml); there are: {names or 'none'}"
                ]
            )
        return self.newsletters[slug]


def is_loopback(url: str) -> bool:
    """Whether an address is reached from this computer alone."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified
