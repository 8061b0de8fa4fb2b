"""Fetching pictures from real servers: what is refused, and that nothing private is ever connected to."""

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import dns.message
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset
import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st
from picture_server import CERTIFICATES, PictureServer, Visitor, picture_file

from distributor.errors import PictureError
from distributor.pictures import FetchRules, fetch, is_public
from distributor.pictures.fetching import by_name_server
from distributor.tls import trust

LOOPBACK = FetchRules(allow_private=True, seconds=5)
PUBLIC = "93.184.215.14"  # nobody is asked there: the network of these tests leads elsewhere
PNG = picture_file("PNG")


@dataclass
class Elsewhere(httpcore.NetworkBackend):
    """A network on which every address is the test's server; notes where one meant to go. Without a port: nowhere."""

    server: int = 0
    asked: list[str] = field(default_factory=list)

    def connect_tcp(
        self,
        host: str,
        port: int,  # noqa: ARG002
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        self.asked.append(host)
        assert self.server, f"connected to {host}"
        return httpcore.SyncBackend().connect_tcp(
            "127.0.0.1", self.server, timeout, local_address, socket_options
        )


Nowhere = Elsewhere


def names(*answers: Sequence[str]) -> Callable[[str, float], Sequence[str]]:
    """A name server that gives one answer after the other, the last one again and again."""
    left = list(answers)
    return lambda _host, _seconds: left.pop(0) if len(left) > 1 else left[0]


@pytest.fixture
def server() -> Iterator[PictureServer]:
    with PictureServer() as running:
        yield running


def refusal(address: str, rules: FetchRules = LOOPBACK, **more: object) -> str:
    with pytest.raises(PictureError) as caught:
        fetch(address, rules, **more)  # type: ignore[arg-type]
    assert caught.value.address == address
    return caught.value.reason


# ── what comes ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "TIFF"])
def test_a_file_is_what_its_first_bytes_say(server: PictureServer, kind: str) -> None:
    data = picture_file(kind)
    address = server.shows("/today.exe", data, content_type="text/html")
    assert fetch(address, LOOPBACK) == (data, kind.lower())


def test_nothing_tells_who_asks(server: PictureServer) -> None:
    fetch(server.shows("/a.png", PNG), LOOPBACK)
    (asked,) = server.asked
    assert asked.verb == "GET"
    assert asked.headers["Host"] == f"127.0.0.1:{server.port}"
    assert asked.headers["Accept-Encoding"] == "identity"
    assert not {"Cookie", "Referer", "Authorization"} & set(asked.headers)


def test_a_query_and_a_name_in_han_arrive_as_they_are(server: PictureServer) -> None:
    server.acts["*"] = lambda visitor: visitor.answer(200, PNG)
    fetch(server.url("/图 1.png?x=1&y=%2F"), LOOPBACK)
    assert server.paths == ["/%E5%9B%BE%201.png?x=1&y=%2F"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_relative_ones_too(server: PictureServer, status: int) -> None:
    server.shows("/deep/b.png", PNG)
    assert fetch(server.leads("/deep/a.png", "b.png", status), LOOPBACK).data == PNG


def test_redirects_have_an_end(server: PictureServer) -> None:
    server.shows("/3", PNG)
    for step in range(3):
        server.leads(f"/{step}", f"/{step + 1}")
    assert fetch(server.url("/0"), LOOPBACK).data == PNG
    assert "more than 2 redirects" in refusal(
        server.url("/0"), FetchRules(allow_private=True, most_redirects=2)
    )
    server.leads("/loop", "/loop")
    assert "redirects" in refusal(server.url("/loop"))


# ── what does not ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", "a web page, not a picture"),
        (
            b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>',
            "export it as PNG",
        ),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"%PDF-1.7", "no picture that is known here"),
        (b"", "no picture that is known here"),
    ],
)
def test_what_is_no_picture_is_refused_whatever_the_header_says(
    server: PictureServer, data: bytes, reason: str
) -> None:
    assert reason in refusal(server.shows("/a.png", data, content_type="image/png"))


@pytest.mark.parametrize("status", [204, 403, 404, 500])
def test_an_answer_that_is_no_picture_names_its_status(server: PictureServer, status: int) -> None:
    server.acts["/a.png"] = lambda visitor: visitor.answer(status)
    assert f"the server answered {status}" in refusal(server.url("/a.png"))


def test_a_body_that_never_ends_is_cut_off(server: PictureServer) -> None:
    def endless(visitor: Visitor) -> None:
        visitor.send_response(200)
        visitor.send_header("Connection", "close")
        visitor.end_headers()
        visitor.wfile.write(PNG)
        while not server.stopped.is_set():
            visitor.wfile.write(bytes(65536))

    server.acts["/a.png"] = endless
    rules = FetchRules(allow_private=True, most_bytes=300_000, seconds=20)
    assert refusal(server.url("/a.png"), rules).startswith("larger than 0.3 MB")


def test_a_length_that_is_too_large_is_not_even_read(server: PictureServer) -> None:
    def huge(visitor: Visitor) -> None:
        visitor.send_response(200)
        visitor.send_header("Content-Length", "99999999")
        visitor.end_headers()
        server.stopped.wait()

    server.acts["/a.png"] = huge
    assert refusal(server.url("/a.png")).startswith("larger than 10 MB")


def test_a_file_that_ends_early_is_refused(server: PictureServer) -> None:
    def cut_short(visitor: Visitor) -> None:
        visitor.send_response(200)
        visitor.send_header("Content-Length", str(len(PNG)))
        visitor.end_headers()
        visitor.wfile.write(PNG[:100])
        visitor.close_connection = True

    server.acts["/a.png"] = cut_short
    assert "cannot be fetched" in refusal(server.url("/a.png"))


def drip(visitor: Visitor, first: bytes, again: bytes, stopped: Callable[[], bool]) -> None:
    visitor.wfile.write(first)
    while not stopped():
        visitor.wfile.write(again)
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n\x89PNG\r\n\x1a\n", b"."),
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"."),
        (b"", b""),
    ],
    ids=["body", "header", "silence"],
)
def test_a_byte_now_and_then_does_not_stretch_the_time(
    server: PictureServer, first: bytes, again: bytes
) -> None:
    server.acts["/a.png"] = lambda visitor: drip(visitor, first, again, server.stopped.is_set)
    began = time.monotonic()
    assert refusal(server.url("/a.png"), FetchRules(allow_private=True, seconds=0.4)).startswith(
        "took longer"
    )
    assert time.monotonic() - began < 3


def test_the_time_holds_for_all_redirects_together(server: PictureServer) -> None:
    def slowly(visitor: Visitor) -> None:
        time.sleep(0.3)
        visitor.answer(302, Location="/a.png")

    server.acts["/a.png"] = slowly
    rules = FetchRules(allow_private=True, seconds=0.5, most_redirects=50)
    assert refusal(server.url("/a.png"), rules).startswith("took longer")
    assert len(server.asked) <= 2


NO_WEB = (
    *("file:///etc/passwd", "ftp://example.com/a.png", "gopher://example.com/", "data:image/png;base64,AAAA"),
    *(
        "//example.com/a.png",
        "https:///a.png",
        "a.png",
        "",
        "https://[::1",
        "https://example.com:99999/a.png",
    ),
)


@pytest.mark.parametrize("address", NO_WEB)
def test_nothing_but_a_full_web_address_is_asked(address: str) -> None:
    assert "https:// " in refusal(address, resolve=names([PUBLIC]), network=Nowhere())


def test_a_redirect_leads_to_web_addresses_alone(server: PictureServer) -> None:
    server.leads("/a.png", "file:///etc/passwd")
    assert "https:// " in refusal(server.url("/a.png"))


@pytest.mark.parametrize("location", ["http://[", "//[::1", "https://[1.2.3.4]/a.png", "http://a]b/"])
def test_a_redirect_to_a_malformed_address_is_refused(server: PictureServer, location: str) -> None:
    server.leads("/a.png", location)
    assert "address" in refusal(server.url("/a.png"))


def test_a_password_in_an_address_is_refused_and_never_shown(server: PictureServer) -> None:
    with pytest.raises(PictureError) as caught:
        fetch("https://me:hunter2@example.com/a.png?sig=hunter3", network=Nowhere())
    assert str(caught.value).startswith("https://example.com/a.png?…: a password in an address")
    assert "hunter" not in str(caught.value)


# ── private networks ─────────────────────────────────────────────────────────────────────────────────────────────

PRIVATE = (
    *("127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("0.0.0.0", "224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "64:ff9b::10.0.0.1"),
    *("192.88.99.1", "192.0.0.8", "192.0.0.170", "3fff::1", "3fff:fff::1", "64:ff9b::c058:6301"),
    *("2002:7f00:1::1", "2001:0:7f00:1::1", "64:ff9b:1::a00:1", "localhost", "", "127.1"),
)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", [PUBLIC, "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_in_another_dress_is_judged_like_itself(address: ipaddress.IPv4Address) -> None:
    same = is_public(str(address))
    assert is_public(f"::ffff:{address}") == same
    assert is_public(f"64:ff9b::{address}") == same
    assert not is_public(f"::{address}")
    assert not is_public(str(ipaddress.IPv6Address((0x2002 << 112) | (int(address) << 80))))


PRIVATE_NETWORKS = (
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16", "100.64.0.0/10"),
    *("0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "::/96"),
)


@given(st.sampled_from(PRIVATE_NETWORKS).flatmap(lambda network: st.ip_addresses(network=network)))
def test_no_address_of_a_private_network_is_public(address: object) -> None:
    assert not is_public(str(address))


@given(st.ip_addresses())
def test_what_is_public_is_so_for_the_standard_library_too(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if is_public(str(address)):
        inner = getattr(address, "ipv4_mapped", None) or address
        assert inner.is_global or inner in ipaddress.ip_network("64:ff9b::/96")
        assert not address.is_multicast


@given(st.text(max_size=30))
def test_no_other_text_is_public(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        assert not is_public(text)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "10.1.2.3", "0.0.0.0"]
)
def test_private_hosts_are_refused_by_default(host: str) -> None:
    reason = refusal(f"http://{host}/a.png", FetchRules(), network=Nowhere())
    assert "private network" in reason


@pytest.mark.parametrize("found", PRIVATE)
def test_names_of_private_hosts_are_refused(found: str) -> None:
    resolve = names([found])
    reason = refusal("https://intranet.example/a.png", FetchRules(), resolve=resolve, network=Nowhere())
    assert "private network" in reason


def test_a_name_with_one_private_address_among_others_is_refused() -> None:
    resolve = names([PUBLIC, "10.0.0.1"])
    assert "private network" in refusal(
        "http://both.example/", FetchRules(), resolve=resolve, network=Nowhere()
    )


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0x7f.1", "localhost"])
def test_other_spellings_of_an_address_are_names_for_us(host: str) -> None:
    """`getaddrinfo` would read them as 127.0.0.1."""

    def unknown(asked: str, _: float) -> Sequence[str]:
        raise OSError(f"the host {asked} is not known")

    reason = refusal(f"http://{host}/a.png", FetchRules(), resolve=unknown, network=Nowhere())
    assert f"the host {host} is not known" in reason


def test_a_redirect_into_a_private_network_is_refused(server: PictureServer) -> None:
    network = Elsewhere(server.port)
    server.leads("/a.png", f"http://127.0.0.1:{server.port}/secret")
    server.shows("/secret", PNG)
    reason = refusal("http://public.example/a.png", FetchRules(), resolve=names([PUBLIC]), network=network)
    assert "private network" in reason
    assert server.paths == ["/a.png"]
    assert network.asked == [PUBLIC]


def test_the_checked_address_is_the_one_that_is_connected_to(server: PictureServer) -> None:
    """A name server whose second answer is private ("rebinding") gets nothing: it is asked once a connection."""
    network = Elsewhere(server.port)
    server.acts["*"] = lambda visitor: visitor.answer(200, PNG)
    answers = names([PUBLIC], ["127.0.0.1"])
    assert fetch("http://turncoat.example/a.png", FetchRules(), resolve=answers, network=network).data == PNG
    assert network.asked == [PUBLIC]
    assert server.asked[0].headers["Host"] == "turncoat.example"
    assert "private" in refusal(
        "http://turncoat.example/b.png", FetchRules(), resolve=answers, network=network
    )
    assert len(server.asked) == 1


def test_the_next_address_is_tried_when_one_does_not_answer(server: PictureServer) -> None:
    address = server.shows("/a.png", PNG).replace("127.0.0.1", "several.example")
    # nobody listens on 127.0.0.2 and 127.0.0.3, since the server is bound to 127.0.0.1 alone
    found = fetch(address, LOOPBACK, resolve=names(["127.0.0.2", "127.0.0.1"]))
    assert found.data == PNG
    assert "cannot be fetched" in refusal(address, resolve=names(["127.0.0.2", "127.0.0.3"]))
    assert "cannot be fetched" in refusal(address, resolve=names([]))


class NameServer(threading.Thread):
    """Answers over UDP: A and AAAA from a table, NXDOMAIN for other names, nothing at all for "silent.example"."""

    ADDRESSES: ClassVar[Mapping[str, Sequence[str]]] = {
        "both.example.": ("192.0.2.7", "2001:db8::7"),
        "six.example.": ("2001:db8::8",),
    }

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))

    @property
    def resolver(self) -> dns.resolver.Resolver:
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], self.socket.getsockname()[1]
        return resolver

    def run(self) -> None:
        with suppress(OSError):  # the socket is closed at the end
            while True:
                data, client = self.socket.recvfrom(4096)
                query = dns.message.from_wire(data)
                name = str(query.question[0].name)
                if name != "silent.example.":
                    self.socket.sendto(self.answer(query, name).to_wire(), client)

    def answer(self, query: dns.message.Message, name: str) -> dns.message.Message:
        response = dns.message.make_response(query)
        kind = query.question[0].rdtype
        if name not in self.ADDRESSES:
            response.set_rcode(dns.rcode.NXDOMAIN)
        for address in self.ADDRESSES.get(name, ()):
            if (kind is dns.rdatatype.AAAA) == (":" in address):
                response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, address))
        return response


@pytest.fixture
def resolver() -> Iterator[dns.resolver.Resolver]:
    server = NameServer()
    server.start()
    yield server.resolver
    server.socket.close()


def test_names_are_looked_up_ipv4_first(resolver: dns.resolver.Resolver) -> None:
    assert by_name_server("both.example", 3, resolver) == ["192.0.2.7", "2001:db8::7"]
    assert by_name_server("six.example", 3, resolver) == ["2001:db8::8"]
    with pytest.raises(OSError, match=r"the host none\.example is not known"):
        by_name_server("none.example", 3, resolver)


def test_a_silent_name_server_does_not_stretch_the_time(resolver: dns.resolver.Resolver) -> None:
    began = time.monotonic()
    reason = refusal(
        "http://silent.example/a.png",
        FetchRules(seconds=0.4),
        resolve=partial(by_name_server, resolver=resolver),
        network=Nowhere(),
    )
    assert reason.startswith("took longer than 0.4 s")
    assert time.monotonic() - began < 3


def test_an_address_that_is_silent_has_its_share_of_the_time(server: PictureServer) -> None:
    """10.255.255.1 stands for a host that drops what it gets: nothing leaves, the network waits as told."""

    class HalfSilent(Elsewhere):
        def connect_tcp(
            self, host: str, port: int, timeout: float | None = None, *_: object, **__: object
        ) -> httpcore.NetworkStream:
            if host == "10.255.255.1":
                time.sleep(timeout or 60)
                raise httpcore.ConnectTimeout
            return super().connect_tcp(host, port, timeout)

    server.acts["*"] = lambda visitor: visitor.answer(200, PNG)
    rules = FetchRules(allow_private=True, seconds=2)
    resolve = names(["10.255.255.1", "127.0.0.1"])
    assert fetch("http://half.example/", rules, resolve=resolve, network=HalfSilent(server.port)).data == PNG


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_certificate_is_that_of_the_name_not_of_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATES / "localhost.pem"))
    with PictureServer(tls=True) as server:
        server.shows("/a.png", PNG)
        resolve = names(["127.0.0.1"])
        assert fetch(server.url("/a.png", "localhost"), LOOPBACK, resolve=resolve).data == PNG
        assert server.asked[0].headers["Host"] == f"localhost:{server.port}"
        reason = refusal(server.url("/a.png", "other.example"), resolve=resolve)
        assert "certificate" in reason.lower()


def test_the_authorities_are_read_once_and_again_when_others_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = trust()
    assert trust() is usual
    with monkeypatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(CERTIFICATES / "localhost.pem"))
        assert [found["subject"] for found in trust().get_ca_certs()] == [((("commonName", "localhost"),),)]
    assert trust() is usual


def test_from_https_nothing_leads_to_http(monkeypatch: pytest.MonkeyPatch, server: PictureServer) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATES / "localhost.pem"))
    with PictureServer(tls=True) as safe:
        safe.leads("/a.png", server.shows("/a.png", PNG))
        assert "from https to http" in refusal(safe.url("/a.png", "localhost"), resolve=names(["127.0.0.1"]))
    assert not server.asked
