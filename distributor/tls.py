"""Whom we trust over HTTPS."""

import functools
import os
import ssl

import httpx


def trust() -> ssl.SSLContext:
    """The authorities of certifi, or of `SSL_CERT_FILE` and `SSL_CERT_DIR`.

    They are read once: that takes 25 ms, and each picture and each connection would wait for it.
    """
    return _read(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@functools.cache
def _read(_file: str | None, _folder: str | None) -> ssl.SSLContext:
    return httpx.create_ssl_context()
