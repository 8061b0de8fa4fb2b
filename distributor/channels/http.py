"""What the channels that speak HTTP through httpx share."""

import logging
from datetime import timedelta
from types import TracebackType
from typing import Self

import httpx

from distributor.tls import trust

#: httpx raises these before a byte of the request has left.
NEVER_LEFT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
#: The configured URL, or its proxy's, is not one.
UNUSABLE_ADDRESS = (httpx.UnsupportedProtocol, httpx.InvalidURL)


def quiet(logger: str, *, below: int = logging.WARNING) -> None:
    """Drops a library's records below a level: they print URLs, and with them the token or key.

    A filter, not a level: an application's own logging setup resets levels and leaves filters.
    """
    logging.getLogger(logger).addFilter(lambda record: record.levelno >= below)


class OverHttp:
    """One httpx client: made when it is first needed, closed with the transport."""

    def __init__(self, timeout: timedelta) -> None:
        self._timeout = timeout
        self._client: httpx.Client | None = None

    def __enter__(self) -> Self:
        self._connected()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connected(self) -> httpx.Client:
        if self._client is None:
            self._client = httpx.Client(timeout=self._timeout.total_seconds(), verify=trust())
        return self._client
