"""What the channels that speak HTTP through httpx share."""

import logging

import httpx

#: httpx raises these before a byte of the request has left.
NEVER_LEFT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
#: The configured URL, or its proxy's, is not one.
UNUSABLE_ADDRESS = (httpx.UnsupportedProtocol, httpx.InvalidURL)


def quiet_request_log() -> None:
    """Drops httpx's line for each request: it prints the URL, which holds the token or key.

    A filter, not a level: an application's own logging setup resets levels and leaves filters.
    """
    logging.getLogger("httpx").addFilter(_from_warning)


def _from_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING
