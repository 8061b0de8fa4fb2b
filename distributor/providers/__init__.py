"""The companies behind the wire, and what they tell us by webhook: one module a provider, from its request to events.

A provider proves itself before anything it says is read. Nothing here knows SQL; events.py says what an event does.
"""

from collections.abc import Callable, Mapping

from distributor.providers.aliyun import Aliyun
from distributor.providers.fetching import Fetch, fetch
from distributor.providers.mailgun import Mailgun
from distributor.providers.postmark import Postmark
from distributor.providers.request import Forged, Malformed, Provider, ProviderRequest
from distributor.providers.resend import Resend
from distributor.providers.sendgrid import Sendgrid
from distributor.providers.ses import Ses
from distributor.providers.tencent import Tencent
from distributor.settings import EventsSettings

__all__ = ["PROVIDERS", "Forged", "Malformed", "Provider", "ProviderRequest", "load_providers"]

#: Name, in the address and in the settings → how it is made.
PROVIDERS: Mapping[str, Callable[[EventsSettings, Fetch], Provider]] = {
    "ses": lambda settings, fetch: Ses(settings.ses.topics, fetch),
    "mailgun": lambda settings, _: Mailgun(settings.mailgun.secret.get_secret_value(), settings.oldest),
    "sendgrid": lambda settings, _: Sendgrid(settings.sendgrid.verification_key, settings.oldest),
    "postmark": lambda settings, _: Postmark(settings.postmark.secret.get_secret_value()),
    "resend": lambda settings, _: Resend(settings.resend.secret.get_secret_value()),
    "aliyun": lambda settings, fetch: Aliyun(settings.aliyun.secret.get_secret_value(), fetch),
    "tencent": lambda settings, _: Tencent(settings.tencent.secret.get_secret_value()),
}


def load_providers(settings: EventsSettings, fetch: Fetch = fetch) -> Mapping[str, Provider]:
    """Those that the settings name. Raises ConfigError for a key that is none."""
    return {name: PROVIDERS[name](settings, fetch) for name in settings.providers}
