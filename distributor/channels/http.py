"""What the channels that speak HTTP through httpx share."""

import logging

import httpx

#: httpx raises these before a byte of the request has left.
NEVER_LEFT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
#: The configured URL, or its proxy's, is not one.
UNUSABLE_ADDRESS = (httpx.UnsupportedProtocol, httpx.InvalidURL)


def quiet(logger: str, *, below: int = logging.WARNING) -> None:
    """Drops a library's records below a level: they print URLs, and with them the token or key.

    A filter, not a level: an application's own logging setup resets levels and leaves filters.
    """
    logging.getLogger(logger).addFilter(lambda record: record.levelno >= below)
