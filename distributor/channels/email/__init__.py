"""E-mail: one message a newsletter and language, over SMTP connections that lanes keep."""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

from jinja2 import Environment

from distributor.channels import EVERYBODY
from distributor.channels.email.identity import BounceAddresses, bounce_addresses
from distributor.channels.email.render import render_email
from distributor.channels.email.smtp import SmtpTransport
from distributor.model import Message, Post, Recipient, Relay
from distributor.pacing import UNLIMITED, Limit
from distributor.rendering import template_environment
from distributor.settings import DomainGroup, Newsletter, Settings


class EmailChannel:
    """The channel "email"."""

    name = "email"
    overlaps = True

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def render(self, post: Post, newsletter: Newsletter) -> Sequence[Message]:
        return [render_email(post, newsletter, self._templates)]

    def destinations(self, newsletter: Newsletter) -> Sequence[Recipient]:  # noqa: ARG002 - mail goes to subscribers alone
        return []

    @cached_property
    def relays(self) -> Sequence[Relay]:
        return [
            Relay(
                name=relay.name,
                weight=relay.weight,
                daily_cap=relay.daily_cap,
                domains=frozenset(relay.domains),
            )
            for relay in self._settings.email.all_relays
        ]

    def pace_groups(self) -> Mapping[str, Collection[str]]:
        groups: dict[str, set[str]] = {}
        for domain, name in self._group_of.items():
            groups.setdefault(name, set()).add(domain)
        return groups

    def pace_group(self, recipient: Recipient) -> str:
        return self._group_of.get(recipient.address.rpartition("@")[2], EVERYBODY)

    def domain_key(self, recipient: Recipient) -> str:
        domain = recipient.address.rpartition("@")[2]
        return "" if domain in self._limited else f"{self.name}:domain:{domain}"

    def limits(self, recipient: Recipient, relay: str) -> Sequence[Limit]:
        settings = self._settings.email
        limits = [_limit(f"{self.name}/{relay}", self._rates[relay])]
        if settings.rate:
            limits.append(_limit(self.name, settings.rate))
        if group := self._limited.get(recipient.address.rpartition("@")[2]):
            limits.append(_limit(f"{self.name}:{group.name}", group.rate))
        return limits

    def open(self, relay: str) -> SmtpTransport:
        chosen = next(one for one in self._settings.email.all_relays if one.name == relay)
        return SmtpTransport(chosen, bounces=None if chosen.own_bounces else self._bounces)

    @cached_property
    def _bounces(self) -> BounceAddresses | None:
        return bounce_addresses(self._settings)

    @cached_property
    def _rates(self) -> Mapping[str, float]:
        return {relay.name: relay.rate for relay in self._settings.email.all_relays}

    @cached_property
    def _limited(self) -> Mapping[str, DomainGroup]:
        """Domain → the group whose limit covers it."""
        return {domain: group for group in self._settings.email.domains for domain in group.domains}

    @cached_property
    def _group_of(self) -> Mapping[str, str]:
        """Domain → its pace group: those that share both their limit and their relays are one."""
        routed = {domain for relay in self.relays for domain in relay.domains}
        names = {}
        for domain in (*self._limited, *sorted(routed - set(self._limited))):
            group = self._limited.get(domain)
            relays = [relay.name for relay in self.relays if domain in relay.domains]
            names[domain] = "/".join(
                [
                    *([f"domain:{group.name}"] if group else []),
                    *(["via:" + "+".join(relays)] if relays else []),
                ]
            )
        return names

    @cached_property
    def _templates(self) -> Environment:
        return template_environment(self._settings.root)


def _limit(key: str, rate: float) -> Limit:
    # A tenth of a second's worth at once: smooth for the relay, and lanes need not take turns for each mail.
    return Limit(key, rate or UNLIMITED, burst=max(1, int((rate or UNLIMITED) / 10)))
