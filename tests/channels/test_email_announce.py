"""The next message's envelope in the same write as this message's final dot: one round trip, and nothing less exact."""

import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from parcels import mail
from scripted_smtp import HANG_UP, SILENCE, Say, ScriptedSmtp

from distributor.channels.email.mime import compose
from distributor.channels.email.smtp import SmtpTransport
from distributor.errors import Rejected, Scope, SendError, Unavailable, Unconfirmed
from distributor.model import Parcel
from distributor.settings import Smtp

CERTS = Path(__file__).parent / "certs"
PIPELINED = ("PIPELINING", "SIZE 100000000")
A, B, C = (mail(address=f"{name}@example.net") for name in "abc")
OK = Say("250 Ok")
GO = Say("354 go ahead")
CLOSING = Say("421 4.7.0 enough", hang_up=True)
#: More than the kernels of both sides buffer: a hang-up is noticed while it is written.
LONG = mail(address="b@example.net", text="长文" * 3_000_000)


def settings(port: int, seconds: float = 5) -> Smtp:
    return Smtp(host="127.0.0.1", port=port, timeout=timedelta(seconds=seconds), helo="tests.example")


@contextmanager
def transport(server: ScriptedSmtp, seconds: float = 5) -> Iterator[SmtpTransport]:
    with server, SmtpTransport(settings(server.port, seconds)) as opened:
        yield opened


@contextmanager
def encrypted(
    script: dict[str, list[Say]], security: str
) -> Iterator[tuple[ScriptedSmtp, tuple[Smtp, ssl.SSLContext]]]:
    """A server, and what leads to it: settings, and what its certificate is verified with."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(CERTS / "localhost.pem", CERTS / "localhost.key")
    client_side = ssl.create_default_context(cafile=CERTS / "localhost.pem")
    server = ScriptedSmtp(
        script, extensions=("STARTTLS", *PIPELINED), tls=server_side, implicit_tls=security == "tls"
    )
    with server:
        chosen = settings(server.port, seconds=1).model_copy(update={"security": security})
        yield server, (chosen, client_side)


def outcome(opened: SmtpTransport, parcel: Parcel, then: Parcel | None) -> type[SendError] | str:
    try:
        return opened.send(parcel, then).code
    except SendError as error:
        return type(error)


def outcomes(server: ScriptedSmtp, parcels: Sequence[Parcel]) -> list[type[SendError] | str]:
    """What becomes of each parcel when each but the first was announced."""
    is_silent = any(SILENCE in replies for replies in server.script.values())
    with transport(server, seconds=0.5 if is_silent else 5) as opened:
        return [outcome(opened, this, then) for this, then in pairwise((*parcels, None)) if this]


def arrived(server: ScriptedSmtp) -> list[str]:
    return [sent.recipient.removeprefix("TO:<")[:1] for sent in server.mails]


# Grouping


@dataclass
class Rounds:
    """A server that answers a group only when it has arrived whole: `turns` are what it ends with, and the answer.

    A client that waited for a reply before the rest of a group would wait for ever.
    """

    turns: Sequence[tuple[bytes, bytes]]
    groups: list[bytes] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join(10)
        self.listener.close()

    def _serve(self) -> None:
        sock, _address = self.listener.accept()
        with sock:
            sock.sendall(b"220 rounds.example\r\n")
            for end, answer in self.turns:
                group = b""
                while not group.endswith(end):
                    data = sock.recv(65_536)
                    if not data:
                        return
                    group += data
                self.groups.append(group)
                sock.sendall(answer)


GREETING = (b"ehlo tests.example\r\n", b"250-rounds.example\r\n250-PIPELINING\r\n250 SIZE 1000000\r\n")
GOODBYE = (b"QUIT\r\n", b"221 bye\r\n")
ACCEPTED = b"250 ok\r\n250 ok\r\n354 go\r\n"
STORED = b"250 queued as 1\r\n"


def envelope(parcel: Parcel) -> bytes:
    address, size = parcel.recipient.address, len(compose(parcel))
    return f"MAIL FROM:<daily@news.example.com> SIZE={size}\r\nRCPT TO:<{address}>\r\nDATA\r\n".encode()


def test_one_round_trip_a_message() -> None:
    turns = [
        GREETING,
        (b"DATA\r\n", ACCEPTED),
        (b"DATA\r\n", STORED + ACCEPTED),
        (b"DATA\r\n", STORED + ACCEPTED),
    ]
    turns += [(b"\r\n.\r\n", STORED), GOODBYE]
    with Rounds(turns) as server, SmtpTransport(settings(server.port)) as opened:
        for parcel, then in ((A, B), (B, C), (C, None)):
            assert opened.send(parcel, then).provider_id == "1"
    assert server.groups[1:] == [
        envelope(A),
        compose(A) + b".\r\n" + envelope(B),
        compose(B) + b".\r\n" + envelope(C),
        compose(C) + b".\r\n",
        b"QUIT\r\n",
    ]


def test_a_refused_recipient_is_followed_by_reset_and_the_next_envelope_in_one_group() -> None:
    refused = b"250 ok\r\n550 5.1.1 user unknown\r\n503 no recipient\r\n"
    turns = [
        GREETING,
        (b"DATA\r\n", refused),
        (b"DATA\r\n", b"250 reset\r\n" + ACCEPTED),
        (b"\r\n.\r\n", STORED),
    ]
    with Rounds([*turns, GOODBYE]) as server, SmtpTransport(settings(server.port)) as opened:
        assert outcome(opened, A, B) is Rejected
        assert outcome(opened, B, None) == "250"
    assert server.groups[1:3] == [envelope(A), b"RSET\r\n" + envelope(B)]


@pytest.mark.parametrize(
    "answer",
    [
        b"250-first\r\n250 second\r\n250 ok\r\n354-please\r\n354 go\r\n",
        b"250\r\n250\r\n354\r\n",
        b"250 ok\n250 ok\n354 go\n",
    ],
    ids=["several lines", "no words", "bare line feeds"],
)
def test_unusual_replies_to_an_envelope_are_understood(answer: bytes) -> None:
    turns = [
        GREETING,
        (b"DATA\r\n", answer),
        (b"DATA\r\n", b"250-very\r\n" + STORED + answer),
        (b"\r\n.\r\n", STORED),
    ]
    with Rounds([*turns, GOODBYE]) as server, SmtpTransport(settings(server.port)) as opened:
        assert [outcome(opened, A, B), outcome(opened, B, None)] == ["250", "250"]


@pytest.mark.parametrize(
    "endless", [b"250 " + b"x" * 100_000, b"250-x\r\n" * 20_000], ids=["a line", "many lines"]
)
def test_a_reply_without_end_is_cut_off(endless: bytes) -> None:
    with Rounds([GREETING, (b"DATA\r\n", ACCEPTED), (b"\r\n.\r\n", endless)]) as server:
        opened = SmtpTransport(settings(server.port))
        with pytest.raises(Unconfirmed, match="does not end"):
            opened.send(A)


def test_words_said_behind_the_greeting_are_not_lost() -> None:
    greeting = (GREETING[0], GREETING[1] + b"421 4.3.2 going down\r\n")
    with Rounds([greeting, (b"DATA\r\n", b"")]) as server:
        opened = SmtpTransport(settings(server.port))
        with pytest.raises(Unavailable, match="going down"):
            opened.send(A)


def test_the_first_of_a_connection_is_announced_before_its_start() -> None:
    turns = [GREETING, (b"DATA\r\n", ACCEPTED), (b"\r\n.\r\n", STORED), GOODBYE]
    with Rounds(turns) as server, SmtpTransport(settings(server.port)) as opened:
        assert opened.announce(A)
        assert not opened.announce(B), "one is announced already"
        opened.start(A)
        assert opened.finish().provider_id == "1"
    assert server.groups[1:3] == [envelope(A), compose(A) + b".\r\n"]


@pytest.mark.parametrize(
    ("script", "expected", "connections"),
    [
        ({}, "250", 1),
        ({"mail": [CLOSING]}, Unavailable, 2),
        ({"mail": [Say("451 4.3.0 not now")]}, Unavailable, 1),
        ({"mail": [HANG_UP]}, Unavailable, 2),
        ({"rcpt": [Say("550 5.1.1 user unknown")]}, Rejected, 1),
        ({"rcpt": [Say("550 5.1.1 no")], "data": [GO], "dot": [Say("554 5.5.1 none")]}, Rejected, 1),
        ({"rcpt": [SILENCE]}, Unavailable, 2),
        ({"data": [Say("451 4.3.0 not now")]}, Unavailable, 1),
        ({"dot": [Say("554 5.7.1 spam")]}, Rejected, 1),
        ({"dot": [HANG_UP]}, Unconfirmed, 2),
    ],
)  # fmt: skip
@pytest.mark.parametrize("security", ["none", "starttls", "tls"])
def test_what_becomes_of_the_first_of_a_connection_that_was_announced(
    security: str, script: dict[str, list[Say]], expected: type[SendError] | str, connections: int
) -> None:
    with encrypted(script, security) as (server, way), SmtpTransport(*way) as opened:
        assert opened.announce(A)
        assert [outcome(opened, A, B), outcome(opened, B, None)] == [expected, "250"]
    assert server.connections == connections
    assert [name for name in arrived(server) if name == "b"] == ["b"]
    assert arrived(server).count("a") == (expected in {"250", Unconfirmed})
    assert all(sent.data for sent in server.mails)


def test_a_connection_that_has_served_and_closes_on_an_announcement_is_made_anew() -> None:
    server = ScriptedSmtp({"mail": [OK, CLOSING]}, extensions=PIPELINED)
    with transport(server) as opened:
        opened.send(A)
        assert opened.announce(B)
        assert outcome(opened, B, None) == "250"
    assert server.connections == 2
    assert arrived(server) == ["a", "b"]


def test_an_announcement_whose_writing_breaks_off_is_followed_by_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = ScriptedSmtp(extensions=PIPELINED)
    with transport(server) as opened:
        wire = opened._wire
        assert wire is not None

        def half(group: bytes) -> None:
            wire._sock.sendall(group[:20])
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(wire, "write", half)
        with pytest.raises(ZeroDivisionError):
            opened.announce(A)
        opened.send(B)
    assert server.connections == 2
    assert arrived(server) == ["b"]


def test_what_cannot_be_announced_is_sent_all_the_same() -> None:
    plain = ScriptedSmtp(extensions=("SIZE 1000000",))
    with transport(plain) as opened:
        assert not opened.announce(A)
        opened.send(A)
    refusing = ScriptedSmtp({"rcpt": [Say("550 5.1.1 no")]}, extensions=PIPELINED)
    with transport(refusing) as opened:
        assert outcome(opened, A, None) is Rejected
        assert not opened.announce(B), "the refused one must be reset first"
        opened.send(B)
    leaving = ScriptedSmtp({"dot": [Say("250 Ok", hang_up=True)]}, extensions=PIPELINED)
    with transport(leaving) as opened:
        opened.send(A)
        while not opened._wire or not opened._wire.has_spoken():
            pass
        assert not opened.announce(B), "the server has left"
        assert not opened.announce(mail(values={}))
        opened.send(B)
    assert [arrived(server) for server in (plain, refusing, leaving)] == [["a"], ["b"], ["a", "b"]]


def test_another_one_than_who_was_announced_first_goes_over_a_new_connection() -> None:
    server = ScriptedSmtp(extensions=PIPELINED)
    with transport(server) as opened:
        assert opened.announce(A)
        opened.send(B)
    assert server.connections == 2
    assert arrived(server) == ["b"]


def test_nothing_is_announced_to_a_server_that_does_not_pipeline() -> None:
    server = ScriptedSmtp(extensions=("SIZE 1000000",))
    assert outcomes(server, [A, B, C]) == ["250", "250", "250"]
    assert [command.split()[0].lower() for command in server.commands] == [
        "ehlo",
        *["mail", "rcpt", "data"] * 3,
        "quit",
    ]


# What becomes of the current message and of the announced one


@pytest.mark.parametrize(
    ("script", "current", "announced", "connections"),
    [
        ({}, "250", "250", 1),
        # the reply to the current message's dot
        ({"dot": [HANG_UP]}, Unconfirmed, "250", 2),
        ({"dot": [SILENCE]}, Unconfirmed, "250", 2),
        ({"dot": [Say("gibberish")]}, Unconfirmed, "250", 2),
        ({"dot": [Say("354 more?")]}, Unconfirmed, "250", 2),
        ({"dot": [Say("250 Ok", hang_up=True)]}, "250", "250", 2),
        ({"dot": [Say("451 4.3.0 not now")]}, Unavailable, "250", 1),
        ({"dot": [Say("554 5.7.1 spam")]}, Rejected, "250", 1),
        ({"dot": [Say("421 4.3.2 going down")]}, Unavailable, "250", 2),
        ({"dot": [Say("451 4.3.0 not now", hang_up=True)]}, Unavailable, "250", 2),
        # the replies to the announced envelope
        ({"mail": [OK, CLOSING]}, "250", "250", 2),
        ({"mail": [OK, Say("421 4.7.0 enough")]}, "250", "250", 2),
        ({"mail": [OK, HANG_UP]}, "250", "250", 2),
        ({"mail": [OK, Say("451 4.3.0 not now")]}, "250", Unavailable, 1),
        ({"rcpt": [OK, Say("550 5.1.1 user unknown")]}, "250", Rejected, 1),
        ({"rcpt": [OK, Say("550 5.1.1 user unknown", hang_up=True)]}, "250", Rejected, 2),
        ({"rcpt": [OK, HANG_UP]}, "250", Unavailable, 2),
        ({"rcpt": [OK, SILENCE]}, "250", Unavailable, 2),
        ({"data": [GO, Say("451 4.3.0 not now")]}, "250", Unavailable, 1),
        ({"data": [GO, Say("250 what?")]}, "250", Unavailable, 2),
        ({"data": [GO, HANG_UP]}, "250", Unavailable, 2),
        # a refused recipient, and DATA accepted all the same: a lone dot
        ({"rcpt": [OK, Say("550 5.1.1 no")], "data": [GO, GO], "dot": [OK, Say("554 5.5.1 none")]}, "250", Rejected, 1),
        # both refused
        ({"dot": [Say("554 5.7.1 spam")], "rcpt": [OK, Say("550 5.1.1 no")]}, Rejected, Rejected, 1),
        # the announced message's own dot
        ({"dot": [OK, HANG_UP]}, "250", Unconfirmed, 2),
        ({"dot": [Say("451 4.3.0 not now"), Say("554 5.7.1 spam")]}, Unavailable, Rejected, 1),
    ],
)  # fmt: skip
def test_what_becomes_of_both(
    script: dict[str, list[Say]],
    current: type[SendError] | str,
    announced: type[SendError] | str,
    connections: int,
) -> None:
    server = ScriptedSmtp(script, extensions=PIPELINED)
    assert outcomes(server, [A, B, C]) == [current, announced, "250"], "the third one always goes"
    assert server.connections == connections
    got = arrived(server)
    assert sorted(got) == sorted(set(got)), "nobody twice"
    certain = {name for name, result in (("a", current), ("b", announced), ("c", "250")) if result == "250"}
    doubtful = {name for name, result in (("a", current), ("b", announced)) if result is Unconfirmed}
    assert certain <= set(got) <= certain | doubtful
    assert all(sent.data for sent in server.mails)


@pytest.mark.parametrize(("stage", "error"), [("body", Unavailable), ("dot", Unconfirmed)])
def test_before_the_last_byte_of_the_dot_is_certain_and_after_it_is_not(
    stage: str, error: type[SendError]
) -> None:
    server = ScriptedSmtp({stage: [Say() if stage == "body" else OK, HANG_UP]}, extensions=PIPELINED)
    assert outcomes(server, [A, LONG, C]) == ["250", error, "250"]
    assert server.connections == 2


def test_a_server_that_does_not_read_times_out_and_that_is_certain() -> None:
    server = ScriptedSmtp({"body": [SILENCE]}, extensions=PIPELINED)
    with transport(server, seconds=0.3) as opened, pytest.raises(Unavailable, match="timed out"):
        opened.send(LONG, A)


def test_421_to_an_announced_envelope_on_every_connection_is_not_tried_for_ever() -> None:
    server = ScriptedSmtp({"mail": [OK, CLOSING, CLOSING]}, extensions=PIPELINED)
    with transport(server) as opened:
        opened.send(A, B)
        with pytest.raises(Unavailable, match="421") as caught:
            opened.send(B, C)
    assert caught.value.scope is Scope.CHANNEL
    assert server.connections == 2


# Announcements that come to nothing


def test_another_parcel_than_the_announced_one_goes_over_a_new_connection() -> None:
    server = ScriptedSmtp(extensions=PIPELINED)
    with transport(server) as opened:
        opened.send(A, B)
        opened.send(C)
        opened.send(B)
    assert server.connections == 2
    assert arrived(server) == ["a", "c", "b"]


def test_an_equal_parcel_is_not_the_announced_one() -> None:
    server = ScriptedSmtp(extensions=PIPELINED)
    twin = mail(address="b@example.net")
    assert twin == B
    with transport(server) as opened:
        opened.send(A, B)
        opened.send(twin)
    assert server.connections == 2
    assert arrived(server) == ["a", "b"]


def test_closing_with_an_announcement_delivers_nothing_and_says_no_goodbye() -> None:
    server = ScriptedSmtp(extensions=PIPELINED)
    with transport(server) as opened:
        opened.send(A, B)
    assert arrived(server) == ["a"]
    assert not server.said("QUIT")


def test_a_parcel_that_cannot_be_written_is_not_announced_and_says_so_in_its_turn() -> None:
    server = ScriptedSmtp(extensions=PIPELINED)
    assert outcomes(server, [A, mail(values={}), C]) == ["250", Rejected, "250"]
    assert server.connections == 1
    assert arrived(server) == ["a", "c"]


# Encryption


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ({}, ["250", "250", "250"]),
        ({"dot": [OK, HANG_UP]}, ["250", Unconfirmed, "250"]),
        ({"dot": [OK, SILENCE]}, ["250", Unconfirmed, "250"]),
        ({"mail": [OK, CLOSING]}, ["250", "250", "250"]),
        ({"rcpt": [OK, Say("550 5.1.1 no")]}, ["250", Rejected, "250"]),
        ({"rcpt": [OK, SILENCE]}, ["250", Unavailable, "250"]),
        ({"body": [Say(), HANG_UP]}, ["250", Unavailable, "250"]),
    ],
    ids=["healthy", "dot lost", "dot silent", "421", "refused", "silent", "lost in the body"],
)
def test_encrypted(
    security: str, script: dict[str, list[Say]], expected: list[type[SendError] | str]
) -> None:
    second = LONG if "body" in script else B
    with encrypted(script, security) as (server, way), SmtpTransport(*way) as opened:
        results = [outcome(opened, *pair) for pair in ((A, second), (second, C), (C, None))]
    assert results == expected
    assert arrived(server).count("a") == arrived(server).count("c") == 1
    assert server.mails[0].data == compose(A)
