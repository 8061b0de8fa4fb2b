"""Fetches the few things that a proof needs, from hosts that the caller has checked."""

from collections.abc import Callable

import httpx

from distributor.errors import ServiceDown

#: The bytes at an https address. Raises ServiceDown.
Fetch = Callable[[str], bytes]

SECONDS = 5.0
LARGEST = 65_536  # bytes; a certificate has two thousand


def fetch(url: str) -> bytes:
    """Follows no redirect: it could lead to a host that nobody has checked. Raises ServiceDown."""
    host = httpx.URL(url).host
    try:
        with httpx.stream("GET", url, timeout=SECONDS, follow_redirects=False) as answer:
            if answer.status_code != httpx.codes.OK:
                raise ServiceDown(f"{host} answers {answer.status_code}")
            return _read(answer, host)
    except httpx.HTTPError as error:
        raise ServiceDown(f"{host} does not answer: {type(error).__name__}") from error


def _read(answer: httpx.Response, host: str) -> bytes:
    body = b""
    for piece in answer.iter_bytes():
        body += piece
        if len(body) > LARGEST:
            raise ServiceDown(f"{host} answers more than {LARGEST} bytes")
    return body
