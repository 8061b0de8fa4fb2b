"""E-mail: one message a newsletter and language, over one SMTP connection a lane."""

from collections.abc import Sequence
from functools import cached_property

from jinja2 import Environment

from distributor.channels.email.render import render_email
from distributor.channels.email.smtp import SmtpTransport
from distributor.model import Message, Post, Recipient
from distributor.pacing import UNLIMITED, Limit
from distributor.rendering import template_environment
from distributor.settings import Newsletter, Settings


class EmailChannel:
    """The channel "email"."""

    name = "email"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def render(self, post: Post, newsletter: Newsletter) -> Sequence[Message]:
        return [render_email(post, newsletter, self._templates)]

    def destinations(self, newsletter: Newsletter) -> Sequence[Recipient]:  # noqa: ARG002 - mail goes to subscribers alone
        return []

    def limits(self, recipient: Recipient) -> Sequence[Limit]:  # noqa: ARG002 - one rate for all mail
        rate = self._settings.email.rate
        # A tenth of a second's worth at once: smooth for the relay, and lanes need not take turns for each mail.
        return [Limit(self.name, rate or UNLIMITED, burst=max(1, int(rate / 10)))]

    def open(self) -> SmtpTransport:
        return SmtpTransport(self._settings.email.smtp)

    @cached_property
    def _templates(self) -> Environment:
        return template_environment(self._settings.root)
