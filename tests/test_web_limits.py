"""What a request may take, over a real server and bare sockets; and whose word counts for a client's address."""

import contextlib
import ipaddress
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx
import pytest
import uvicorn
from services import free_port
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from distributor.web import limits
from distributor.web.client import ClientAddress
from distributor.web.limits import RequestLimits, punctual

MOST, SECONDS = 10_000, 0.4


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the length of the body it was given, and in how many messages."""
    assert scope["type"] == "http"
    length, messages, more = 0, 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length, messages, more = length + len(message["body"]), messages + 1, message["more_body"]
    body = json.dumps([length, messages]).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
    )
    await send({"type": "http.response.body", "body": body})


async def lifeless(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await RequestLimits(echo, most=MOST, seconds=SECONDS)(scope, receive, send)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(limits, "LINGER", 0.2)
        yield from serving()


def serving() -> Iterator[int]:
    port = free_port()
    config = uvicorn.Config(
        lifeless,
        port=port,
        http=punctual(SECONDS),
        log_level="critical",
        lifespan="off",
        timeout_keep_alive=2,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield port
    server.should_exit = True
    thread.join()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: str
    body: bytes


@contextlib.contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        yield connection


def answer(connection: socket.socket) -> Answer | None:
    """What it says until it ends the connection; None for not a word."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            said += piece
    if not said:
        return None
    head, _, body = said.partition(b"\r\n\r\n")
    return Answer(int(head.split()[1]), head.decode().lower(), body)


def post(framing: str, *more: str) -> bytes:
    lines = ["POST /u/x HTTP/1.1", "Host: x", framing, *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def refusal(found: Answer | None, status: int) -> str:
    """The detail of a problem document."""
    assert found is not None
    assert found.status == status
    assert "content-type: application/problem+json" in found.headers
    assert "connection: close" in found.headers
    problem = json.loads(found.body)
    assert problem["status"] == status
    return str(problem["detail"])


class TestBodies:
    @pytest.mark.parametrize("size", [0, 1, MOST])
    def test_what_fits_comes_in_one_piece(self, port: int, size: int) -> None:
        assert httpx.post(f"http://127.0.0.1:{port}/", content=b"x" * size).json() == [size, 1]
        chunks = iter([b"x" * (size // 2), b"x" * (size - size // 2)])
        assert httpx.post(f"http://127.0.0.1:{port}/", content=chunks).json() == [size, 1]

    def test_without_a_body_nothing_is_waited_for(self, port: int) -> None:
        assert httpx.get(f"http://127.0.0.1:{port}/").json() == [0, 1]

    @pytest.mark.parametrize("length", [MOST + 1, 50 * 2**20, 10**18])
    def test_a_length_too_large_is_refused_before_a_byte_of_it(self, port: int, length: int) -> None:
        with connected(port) as connection:
            began = time.monotonic()
            connection.sendall(post(f"Content-Length: {length}"))
            assert connection.recv(12) == b"HTTP/1.1 413"
            assert time.monotonic() - began < 2

    def test_one_that_says_no_length_when_it_passes_the_limit(self, port: int) -> None:
        with connected(port) as connection:
            connection.sendall(post("Transfer-Encoding: chunked"))
            for _ in range(3):
                connection.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            assert refusal(answer(connection), 413) == "the body is larger than 10000 bytes"

    def test_who_goes_on_sending_gets_the_answer_all_the_same(self, port: int) -> None:
        with connected(port) as connection:
            connection.sendall(post(f"Content-Length: {4 * 2**20}"))
            for _ in range(4):
                connection.sendall(b"x" * 2**20)
            refusal(answer(connection), 413)

    def test_it_is_not_asked_for_either(self, port: int) -> None:
        """Expect: 100-continue is how a polite client asks first."""
        with connected(port) as connection:
            connection.sendall(post("Content-Length: 20000", "Expect: 100-continue"))
            assert connection.recv(12) == b"HTTP/1.1 413"
        with connected(port) as connection:
            connection.sendall(post("Content-Length: 2", "Expect: 100-continue", "Connection: close"))
            assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(b"xx")
            found = answer(connection)
            assert found
            assert found.body == b"[2, 1]"

    @pytest.mark.parametrize(
        "framing", ["Content-Length: -1", "Content-Length: 1e9", "Content-Length: 5\r\nContent-Length: 6"]
    )
    def test_a_length_that_is_none_is_a_bad_request(self, port: int, framing: str) -> None:
        with connected(port) as connection:
            connection.sendall(post(framing))
            found = answer(connection)
            assert found
            assert found.status == 400

    def test_a_body_that_drips_is_given_up(self, port: int) -> None:
        with connected(port) as connection:
            connection.sendall(post("Content-Length: 9000"))
            began = time.monotonic()
            dripping = threading.Thread(target=drip, args=(connection, b"x" * 1000))
            dripping.start()
            detail = refusal(answer(connection), 408)
            dripping.join()
            assert detail == "the body did not arrive within 0.4 seconds"
            assert 0.3 < time.monotonic() - began < 5

    def test_who_leaves_in_the_middle_is_forgotten(self, port: int) -> None:
        with connected(port) as connection:
            connection.sendall(post("Content-Length: 9000") + b"x")
        assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 200

    def test_many_slow_ones_keep_nobody_waiting(self, port: int) -> None:
        with contextlib.ExitStack() as stack:
            slow = [stack.enter_context(connected(port)) for _ in range(100)]
            for connection in slow:
                connection.sendall(post("Content-Length: 9000") + b"x")
            began = time.monotonic()
            assert httpx.post(f"http://127.0.0.1:{port}/", content=b"xyz").json() == [3, 1]
            assert time.monotonic() - began < 5
            assert {found.status for connection in slow if (found := answer(connection))} == {408}


def drip(connection: socket.socket, text: bytes) -> None:
    """One byte after another, until nobody listens."""
    with contextlib.suppress(OSError):
        for byte in text:
            connection.sendall(bytes([byte]))
            time.sleep(0.02)


class TestHeads:
    @pytest.mark.parametrize("said", [b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\n"])
    def test_one_that_does_not_end_ends_the_connection(self, port: int, said: bytes) -> None:
        with connected(port) as connection:
            began = time.monotonic()
            connection.sendall(said)
            assert answer(connection) is None
            assert 0.3 < time.monotonic() - began < 5

    def test_one_that_drips_as_well(self, port: int) -> None:
        with connected(port) as connection:
            began = time.monotonic()
            dripping = threading.Thread(
                target=drip, args=(connection, b"GET / HTTP/1.1\r\nX-Y: " + b"y" * 500)
            )
            dripping.start()
            assert answer(connection) is None
            dripping.join()
            assert 0.3 < time.monotonic() - began < 5

    def test_the_second_of_a_connection_has_as_long_as_the_first(self, port: int) -> None:
        request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        with connected(port) as connection:
            for _ in range(2):  # half of the time apart: idle is not late
                connection.sendall(request)
                said = b""
                while not said.endswith(b"[0, 1]"):
                    said += connection.recv(65536)
                time.sleep(SECONDS * 1.3)
            began = time.monotonic()
            connection.sendall(request[:10])
            assert answer(connection) is None
            assert 0.3 < time.monotonic() - began < 5

    def test_requests_in_a_row_are_all_answered(self, port: int) -> None:
        request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        last = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        with connected(port) as connection:
            connection.sendall(request * 4 + last)
            found = answer(connection)
            assert found
            assert found.body.count(b"HTTP/1.1 200") == 4

    @pytest.mark.parametrize("head", ["GET /{} HTTP/1.1", "GET /?{} HTTP/1.1", "GET / HTTP/1.1\r\nX: {}"])
    def test_one_too_large_is_refused(self, port: int, head: str) -> None:
        rest = "\r\nHost: x\r\nConnection: close\r\n\r\n"
        for size, statuses in ((8_000, {200}), (20_000, {431, 400}), (60_000, {431, 400})):
            with connected(port) as connection:
                connection.sendall((head.format("x" * size) + rest).encode())
                found = answer(connection)
                assert found
                assert found.status in statuses

    def test_one_without_an_end_is_refused_at_its_limit(self, port: int) -> None:
        with connected(port) as connection:
            with contextlib.suppress(OSError):
                for _ in range(1000):
                    connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 1000)
            found = answer(connection)
            assert found is None or found.status == 400


def networks(*some: str) -> Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(each) for each in some]


def asked_by(peer: str | None, **headers: str | Sequence[str]) -> Request:
    lines = [
        (name.replace("_", "-").encode(), value.encode())
        for name, values in headers.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    return Request({"type": "http", "headers": lines, "client": (peer, 1234) if peer else None})


class TestClientAddress:
    """192.0.2.0/24 and 2001:db8:f::/48 are our proxies; 203.0.113.9 is somebody, and everything else is a lie."""

    PROXIES = ("192.0.2.0/24", "2001:db8:f::/48", "127.0.0.0/8")

    @pytest.mark.parametrize("said", ["198.51.100.1", "127.0.0.1", "192.0.2.1", "::1, 127.0.0.1"])
    def test_by_default_nobody_is_believed(self, said: str) -> None:
        for peer in ("203.0.113.9", "127.0.0.1"):
            assert ClientAddress().of(asked_by(peer, x_forwarded_for=said, forwarded=f"for={said}")) == peer

    def test_who_is_no_proxy_is_not_believed(self) -> None:
        asked = asked_by("203.0.113.9", x_forwarded_for="198.51.100.1")
        assert ClientAddress(networks(*self.PROXIES)).of(asked) == "203.0.113.9"

    @pytest.mark.parametrize(
        ("said", "client"),
        [
            ("203.0.113.9", "203.0.113.9"),
            ("198.51.100.1, 203.0.113.9", "203.0.113.9"),
            ("198.51.100.1,198.51.100.2 , 203.0.113.9,192.0.2.5", "203.0.113.9"),
            (["198.51.100.1", "203.0.113.9", "192.0.2.5"], "203.0.113.9"),
            ("203.0.113.9:4711", "203.0.113.9"),
            ("2001:db8::9", "2001:db8::9"),
            ("[2001:db8::9]:4711", "2001:db8::9"),
            ("2001:0DB8:0::0009", "2001:db8::9"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("192.0.2.9, 192.0.2.5", "192.0.2.9"),  # a proxy's own request
            ("198.51.100.1, not an address", "192.0.2.1"),
            ("198.51.100.1, ", "192.0.2.1"),
            ("198.51.100.1, 203.0.113.9\x00", "192.0.2.1"),
            ("203.0.113.9, unknown, 192.0.2.5", "192.0.2.5"),
            ("", "192.0.2.1"),
            (", ".join(["198.51.100.1"] * 800 + ["203.0.113.9"]), "203.0.113.9"),
        ],
    )
    def test_a_proxy_s_word_is_read_from_the_right(self, said: str | list[str], client: str) -> None:
        asked = asked_by("192.0.2.1", x_forwarded_for=said, forwarded="for=198.51.100.77")
        assert ClientAddress(networks(*self.PROXIES)).of(asked) == client

    @pytest.mark.parametrize("peer", ["::ffff:192.0.2.1", "2001:db8:f::1", "127.0.0.1"])
    def test_proxies_of_every_kind(self, peer: str) -> None:
        asked = asked_by(peer, x_forwarded_for="203.0.113.9")
        assert ClientAddress(networks(*self.PROXIES)).of(asked) == "203.0.113.9"

    @pytest.mark.parametrize(
        ("said", "client"),
        [
            ("for=203.0.113.9", "203.0.113.9"),
            ("For=203.0.113.9;proto=https;by=192.0.2.1", "203.0.113.9"),
            ('for=198.51.100.1, by=192.0.2.1;for="203.0.113.9:4711";proto=http', "203.0.113.9"),
            ('for="[2001:db8::9]:4711"', "2001:db8::9"),
            ('for="[2001:db8::9]", for=192.0.2.5', "2001:db8::9"),
            ("for=198.51.100.1, for=unknown", "192.0.2.1"),
            ("for=198.51.100.1, for=_hidden", "192.0.2.1"),
            ("for=198.51.100.1, proto=http", "192.0.2.1"),
        ],
    )
    def test_forwarded_is_read_when_the_proxies_write_that(self, said: str, client: str) -> None:
        asked = asked_by("192.0.2.1", forwarded=said, x_forwarded_for="198.51.100.77")
        assert ClientAddress(networks(*self.PROXIES), "Forwarded").of(asked) == client

    def test_a_unix_socket_has_none(self) -> None:
        assert ClientAddress(networks("0.0.0.0/0")).of(asked_by(None, x_forwarded_for="203.0.113.9")) == ""
