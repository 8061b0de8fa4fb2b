"""Whether links still lead somewhere, asked of the web: only when somebody wants it, and never before a scheduled send.

Each host is resolved first and asked under the address that was looked at, redirects included, so no link of a post
reaches into a private network. One request a link, HEAD first, no body read.
"""

import ipaddress
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import httpx

from distributor.preflight.checks import UNREACHABLE, UNSURE, ignored_by
from distributor.preflight.findings import Finding, Severity
from distributor.preflight.proof import Proof
from distributor.preflight.reading import Link, brief
from distributor.rendering import is_web

TIMEOUT = 10.0  # seconds for each of connecting and answering
AT_ONCE = 8
MOST_LINKS = 200
MOST_REDIRECTS = 5
GONE = frozenset({404, 410})
#: Some servers know GET alone.
ASK_AGAIN = frozenset({400, 403, 404, 405, 406, 500, 501, 503})
USER_AGENT = "Mozilla/5.0 (compatible; distributor link check)"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Answer:
    """How one address answered; `trouble` is empty when it is there, `gone` when it surely is not."""

    trouble: str = ""
    gone: bool = False


def is_public(address: Address) -> bool:
    return address.is_global and not address.is_multicast


def check_online(proof: Proof, allowed: Callable[[Address], bool] = is_public) -> Sequence[Finding]:
    """A finding for each address that is gone (a warning) or that did not say (a note)."""
    first: dict[str, Link] = {}
    for link in proof.reading.links:
        if is_web(link.address):
            first.setdefault(link.address.partition("#")[0], link)
    asked = list(first)[:MOST_LINKS]
    with (
        open_client() as client,
        ThreadPoolExecutor(AT_ONCE) as threads,
    ):
        answers = list(threads.map(lambda address: ask(client, address, allowed), asked))
    pairs = zip(asked, answers, strict=True)
    found = [_finding(proof, first[address], answer) for address, answer in pairs if answer.trouble]
    off = ignored_by(proof)
    return [finding for finding in [*found, *_not_asked(proof, len(first))] if finding.check not in off]


def open_client() -> httpx.Client:
    """No connection is kept: hosts that share an address would share it, under the first one's name and certificate."""
    return httpx.Client(
        timeout=TIMEOUT,
        headers={"User-Agent": USER_AGENT},
        limits=httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=0),
        trust_env=False,
    )


def _finding(proof: Proof, link: Link, answer: Answer) -> Finding:
    fix = "check the address" if answer.gone else "open it in a browser: some sites turn programs away"
    return Finding(
        check=UNREACHABLE if answer.gone else UNSURE,
        severity=Severity.WARNING if answer.gone else Severity.NOTE,
        path=proof.post.path,
        line=link.defined,
        text=f"{brief(link.address)}: {answer.trouble}",
        fix=fix,
    )


def _not_asked(proof: Proof, links: int) -> Iterator[Finding]:
    if links > MOST_LINKS:
        text = f"only the first {MOST_LINKS} of {links} links were asked"
        yield Finding(
            check=UNSURE, severity=Severity.NOTE, path=proof.post.path, line=None, text=text, fix=""
        )


def ask(client: httpx.Client, address: str, allowed: Callable[[Address], bool] = is_public) -> Answer:
    """Follows redirects itself: each hop is a host to be looked at."""
    for _ in range(MOST_REDIRECTS + 1):
        try:
            host = _resolved(address, allowed)
            response = _request(client, "HEAD", address, host)
            if response.status_code in ASK_AGAIN:
                response = _request(client, "GET", address, host)
        except Unresolved as error:
            return Answer(str(error), gone=error.gone)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
            return Answer(_said(error))
        if response.has_redirect_location:
            address = urljoin(address, response.headers["location"])
            continue
        return _judged(response.status_code)
    return Answer(f"more than {MOST_REDIRECTS} redirects")


def _judged(status: int) -> Answer:
    return Answer(f"HTTP {status}" if status >= 400 else "", gone=status in GONE)


class Unresolved(Exception):
    """A host without an address that may be asked."""

    def __init__(self, said: str, *, gone: bool) -> None:
        self.gone = gone
        super().__init__(said)


def _resolved(address: str, allowed: Callable[[Address], bool]) -> Address:
    """The host's first address. Raises Unresolved when it has none, or when one of them is private."""
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Unresolved("leads to something that is not the web", gone=True)
    try:
        rows = socket.getaddrinfo(parts.hostname, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        gone = error.errno in {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None)}
        raise Unresolved(f"no such host ({parts.hostname})" if gone else str(error), gone=gone) from None
    found = [ipaddress.ip_address(str(row[4][0]).partition("%")[0]) for row in rows]
    if not all(allowed(one) for one in found):
        raise Unresolved(f"{parts.hostname} lies in a private network and is not asked", gone=False)
    return found[0]


def _request(client: httpx.Client, method: str, address: str, host: Address) -> httpx.Response:
    """Connects to the address that was looked at; name and certificate are those of the link."""
    url = httpx.URL(address)
    named = f"[{host}]" if host.version == 6 else str(host)
    headers = {"Host": url.netloc.decode("ascii")}
    request = client.build_request(
        method, url.copy_with(host=named), headers=headers, extensions={"sni_hostname": url.host}
    )
    response = client.send(request, stream=True)
    response.close()
    return response


def _said(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return f"no answer within {TIMEOUT:.0f} s"
    return " ".join(str(error).split())[:100] or type(error).__name__
