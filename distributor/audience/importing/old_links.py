"""Unsubscribe links of the system before: what stands in their address leads to subscriptions here."""

import hashlib
from collections.abc import Sequence

from sqlalchemy import select

from distributor.audience.store import Store
from distributor.model import SubscriptionState
from distributor.tables import old_links, subscriptions


def listmonk_link(uuid: str) -> str:
    """What identifies the reader in `/subscription/{campaign}/{subscriber}`."""
    return f"listmonk:{uuid.lower()}"


def ghost_link(uuid: str, key: str) -> str:
    """What identifies the reader in `/unsubscribe/?uuid=…&key=…`. The uuid alone stands in other links, too."""
    return f"ghost:{uuid.lower()}:{key.lower()}"


def hash_of(link: str) -> str:
    """What is kept of it."""
    return hashlib.sha256(link.encode()).hexdigest()


class OldLinks(Store):
    """Looked up when an old mail's link is followed."""

    def tokens_of_old_link(self, link: str) -> Sequence[str]:
        """The tokens of the subscriptions that it led to, active ones first; none for an unknown one."""
        query = (
            select(subscriptions.c.token)
            .join(old_links, old_links.c.subscription_id == subscriptions.c.id)
            .where(old_links.c.hash == hash_of(link))
            .order_by(subscriptions.c.state != SubscriptionState.ACTIVE, subscriptions.c.id)
        )
        with self.database.read() as connection:
            return connection.execute(query).scalars().all()
