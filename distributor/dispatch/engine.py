"""The collaborators of a send, and what is fixed about it."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal, Protocol

from distributor.audience import Audience
from distributor.channels import Channel
from distributor.journal import Journals
from distributor.ledger import Ledger
from distributor.model import Issue, Post
from distributor.pacing import Pacer
from distributor.preflight import Facts
from distributor.sentlog import SentLog
from distributor.settings import EngineSettings, Newsletter, Retry

UNSUBSCRIBE_URL = "__UNSUBSCRIBE_URL__"
PREFERENCES_URL = "__PREFERENCES_URL__"
VIEW_URL = "__VIEW_URL__"


class Stop(Protocol):
    """Something that can be set from outside: an event of threads, or of processes."""

    def is_set(self) -> bool: ...


class HostPictures(Protocol):
    """Gives the pictures of a post better places, once, before any channel renders it.

    Without `fetch`, nothing outside is asked. Raises PostError.
    """

    def __call__(self, post: Post, *, fetch: bool) -> Post: ...


def leave_pictures(post: Post, *, fetch: bool) -> Post:  # noqa: ARG001 - a HostPictures
    return post


@dataclass(frozen=True)
class Policy:
    """What a channel does about failures."""

    retry: Retry = field(default_factory=Retry)
    on_unconfirmed: Literal["hold", "resend"] = "hold"


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The collaborators of a send.

    Without `journals`, a lost worker leaves its whole slice in doubt; without `sent_log`, nobody notices a database that
    was set back.
    """

    ledger: Ledger
    audience: Audience
    channels: Mapping[str, Channel]
    policies: Mapping[str, Policy]
    newsletters: Mapping[str, Newsletter]
    pacer: Pacer
    settings: EngineSettings
    base_url: str
    worker: str
    journals: Journals | None = None
    sent_log: SentLog | None = None
    host_pictures: HostPictures = leave_pictures
    random: Callable[[], float] = random.random
    sleep: Callable[[float], None] = time.sleep
    #: Called with a channel as soon as there is something new to send on it.
    wake: Callable[[str], None] = lambda _channel: None
    #: What the checks of a post know besides it.
    facts: Callable[[Newsletter, Post, date], Facts] = lambda *_: Facts()
    #: Called with an issue before its first delivery leaves, so that the page its messages link to is there. The post is
    #: None where only the ledger is at hand. Raises nothing: readers have the mail, the page can be built later.
    publish: Callable[[Issue, Post | None], None] = lambda _issue, _post: None
    #: The page of an issue, when its newsletter's full text lives on the site: where "view in browser" leads.
    page_of: Callable[[Issue], str | None] = lambda _issue: None


def placeholder_values(
    base_url: str, issue_id: int, token: str | None, page: str | None = None
) -> Mapping[str, str]:
    """What differs by recipient. Without a `page`, "view in browser" shows the frozen mail."""
    view = page or f"{base_url}/issues/{issue_id}"
    if not token:
        return {VIEW_URL: view}
    return {
        VIEW_URL: view,
        UNSUBSCRIBE_URL: f"{base_url}/u/{token}",
        PREFERENCES_URL: f"{base_url}/p/{token}",
    }
