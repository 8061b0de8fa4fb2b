"""The web app behind a real server, and what a test does behind its back."""

import contextlib
import threading
import time
from collections.abc import Iterator

import httpx
import uvicorn
from services import free_port

from distributor.audience import NewSubscriber, Subscription
from distributor.bootstrap import Distributor, build
from distributor.dispatch import open_issue, write_audience
from distributor.model import Issue, OpenedBy, SubscriptionState
from distributor.posts import read_post
from distributor.settings import Settings
from distributor.web import create_app


class Site:
    """A distributor and the server of its pages."""

    def __init__(self, settings: Settings, port: int = 0) -> None:
        self.distributor: Distributor = build(settings)
        self.distributor.database.upgrade()
        self.port = port or free_port()
        config = uvicorn.Config(create_app(self.distributor), port=self.port, log_level="warning")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=10)
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 10
        while not self.server.started:
            assert self.thread.is_alive(), "the server ended at once"
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.01)

    def close(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self.thread.join()
        self.distributor.close()

    def subscribe(self, address: str = "li@readers.example", newsletter: str = "ai-daily") -> Subscription:
        new = NewSubscriber(channel="email", address=address, source="test")
        return self.distributor.audience.add(newsletter, new)

    def state(self, subscription: Subscription) -> SubscriptionState:
        found = self.distributor.audience.find(subscription.token)
        assert found is not None
        return found.state

    def open_issue(self, *, by: OpenedBy = OpenedBy.PERSON) -> Issue:
        settings = self.distributor.settings
        newsletter = settings.newsletters["ai-daily"]
        post = read_post(settings.root / "posts/receipts.md", newsletter.zone)
        assert post.date
        issue, _ = open_issue(self.distributor.engine, newsletter, post, post.date.date(), by=by)
        write_audience(self.distributor.engine, issue)
        return issue


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[Site]:
    site = Site(settings)
    try:
        yield site
    finally:
        site.close()
