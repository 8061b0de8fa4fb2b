"""The benchmark's instruments: the sink counts exactly, the arithmetic is right. No rate is asserted here."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Self

import pytest

from bench.mail import ready_mail
from bench.processes import BenchError, Child, cpu_seconds, parse_cpu_ticks, status_kib, tree
from bench.project import filler
from bench.report import (
    Rate,
    active_span,
    allowed_by_round_trips,
    best,
    by_tenths,
    call_difference,
    length_for,
    mean_and_deviation,
    ratios,
    table,
    whole_seconds,
)
from bench.servers import parse_setting
from bench.sink import Counts, Sink, build, compiler

ENVELOPE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<%s>\r\nDATA\r\n"
BODY = b"Subject: x\r\n\r\n..stuffed\r\n.\r\n"


@pytest.fixture(scope="module")
def compiled() -> None:
    """Skips what needs the sink where there is no compiler; where there is one, the sink has to compile."""
    try:
        compiler()
    except BenchError as reason:
        pytest.skip(str(reason))
    build()


@pytest.fixture
def sink(compiled: None) -> Iterator[Sink]:
    with Sink() as running:
        yield running


class Client:
    """Says what it is told, in the pieces it is told, and reads replies."""

    def __init__(self, sink: Sink) -> None:
        self.connection = socket.create_connection(("127.0.0.1", sink.port), timeout=10)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.replies = self.connection.makefile("rb")

    def __enter__(self) -> Self:
        assert self.read(1) == ["220"]
        return self

    def __exit__(self, *_error: object) -> None:
        self.replies.close()
        self.connection.close()

    def write(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.connection.sendall(piece)

    def read(self, number: int) -> list[str]:
        """The codes of so many replies."""
        codes: list[str] = []
        while len(codes) < number:
            line = self.replies.readline()
            assert line, f"hung up after {codes}"
            if line[3:4] == b" ":
                codes.append(line[:3].decode())
        return codes


def mails(*addresses: str) -> bytes:
    return b"".join(ENVELOPE % address.encode() + BODY for address in addresses)


def test_a_pipelined_group_with_commands_behind_the_final_dot_is_counted_exactly(sink: Sink) -> None:
    addresses = ["one@x.example", "two@x.example", "ONE@X.example", "three@y.example"]
    with Client(sink) as client:
        client.write(b"EHLO me\r\n" + mails(*addresses) + b"NOOP\r\nQUIT\r\n")
        assert client.read(3 + 4 * 4) == ["250", *["250", "250", "354", "250"] * 4, "250", "221"]
    found = sink.counts()
    assert (found.messages, found.recipients, found.unique, found.duplicates) == (4, 4, 3, 1)
    assert found.bytes == 4 * (len(BODY) - len(b".\r\n"))
    assert (found.connections, found.dropped) == (1, 0)
    assert 0 < found.first_ns <= found.last_ns <= time.time_ns()


def test_input_may_be_split_anywhere(sink: Sink) -> None:
    """Every byte in a packet of its own, and every split of the dot into two packets."""
    text = mails("split@x.example")
    end = text.index(b"\r\n.\r\n")
    cuts = [[text[n : n + 1] for n in range(len(text))]]
    cuts += [[text[:at], text[at:]] for at in range(end - 1, len(text))]
    cuts += [[text[:one], text[one:two], text[two:]] for one, two in pairwise(range(end - 1, len(text)))]
    with Client(sink) as client:
        client.write(b"HELO me\r\n")
        client.read(1)
        for pieces in cuts:
            for piece in pieces:
                client.write(piece)
                time.sleep(0.0005)  # lets the sink read it by itself
            assert client.read(4) == ["250", "250", "354", "250"]
    found = sink.counts()
    assert (found.messages, found.unique) == (len(cuts), 1)
    assert found.bytes == len(cuts) * (len(BODY) - len(b".\r\n"))


@pytest.mark.parametrize(
    ("said", "codes"),
    [
        (b"RCPT TO:<a@b.example>\r\n", ["503"]),
        (b"MAIL FROM:<>\r\nDATA\r\n", ["250", "503"]),
        (b"MAIL FROM:<>\r\nRCPT TO:nobody\r\n", ["250", "501"]),
        (b"mail from:<>\r\nrcpt to:<a@b.example>\r\nRSET\r\nDATA\r\n", ["250", "250", "250", "503"]),
        (b"MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n.\r\n", ["250", "250", "354", "250"]),
        (b"SING\r\n", ["500"]),
        (b"x" * 4000 + b"\r\n", ["500"]),
    ],
    ids=["rcpt-first", "no-rcpt", "no-brackets", "rset", "empty-message", "unknown", "too-long"],
)
def test_replies(sink: Sink, said: bytes, codes: list[str]) -> None:
    with Client(sink) as client:
        client.write(said)
        assert client.read(len(codes)) == codes


def test_a_recipient_counts_when_the_final_dot_is_answered(sink: Sink) -> None:
    with Client(sink) as client:
        client.write(ENVELOPE % b"late@x.example" + BODY[:-3])
        client.read(3)
        assert sink.counts().recipients == 0
        client.write(BODY[-3:])
        client.read(1)
        assert sink.counts().recipients == 1


def test_many_recipients_in_one_envelope_and_more_than_the_table_began_with(sink: Sink) -> None:
    """600,000 fill more than half of the first table: it grows, and forgets nobody."""
    number, group = 600_000, 20_000
    with Client(sink) as client:
        for begin in range(0, number, group):
            client.write(b"MAIL FROM:<>\r\n")
            for step in range(begin, begin + group, 500):
                client.write(b"".join(b"RCPT TO:<n%d@x.example>\r\n" % n for n in range(step, step + 500)))
                client.read(500)
            client.write(b"DATA\r\n" + BODY)
            client.read(3)
        client.write(mails("n0@x.example", f"n{number - 1}@x.example", f"n{number}@x.example"))
        client.read(12)
    found = sink.counts()
    assert (found.recipients, found.unique, found.duplicates) == (number + 3, number + 1, 2)


def test_histogram_and_reset(sink: Sink) -> None:
    with Client(sink) as client:
        client.write(mails("a@x.example", "b@y.example", "c@Y.example"))
        client.read(12)
        seconds, domains = sink.histogram()
        assert sum(seconds) == 3
        assert {name: sum(each) for name, each in domains.items()} == {"x.example": 1, "y.example": 2}
        sink.reset()
        assert sink.counts().messages == 0
        assert sink.histogram() == ([], {})
        client.write(mails("a@x.example"))
        client.read(4)
    found = sink.counts()
    assert (found.messages, found.unique, found.duplicates) == (1, 1, 0)


def test_a_delay_is_a_round_trip_for_each_group_and_holds_up_nobody_else(compiled: None) -> None:
    number, delay = 40, 0.1
    with Sink(delay_ms=int(delay * 1000)) as sink, ExitStack() as stack:
        begun = time.monotonic()
        clients = [Client(sink) for _ in range(number)]
        for client in clients:
            stack.enter_context(client)
        for client in clients:
            client.write(ENVELOPE % b"far@x.example")
        for client in clients:
            assert client.read(3) == ["250", "250", "354"]
        clients[0].write(BODY + b"QUIT\r\n")
        assert clients[0].read(2) == ["250", "221"]
        took = time.monotonic() - begun
    assert took >= 3 * delay, "the welcome, the envelope, the message: a round trip each"
    assert took < number * delay, "not one connection after the other"


def test_who_hangs_up_before_a_delayed_reply_leaves_nothing_behind(compiled: None) -> None:
    with Sink(delay_ms=30) as sink:
        for _ in range(20):
            socket.create_connection(("127.0.0.1", sink.port)).close()
        with Client(sink) as client:
            client.write(mails("late@x.example"))
            assert client.read(4) == ["250", "250", "354", "250"]
        assert sink.counts().messages == 1


def test_the_rate_is_that_between_the_first_arrival_and_the_last() -> None:
    def counts(messages: int, last_ns: int) -> Counts:
        return Counts(messages, messages, messages, 0, 0, 1, 0, 1, 0, first_ns=1_000, last_ns=last_ns)

    assert counts(1001, 2_000_001_000).rate == 500.0
    assert counts(1, 1_000).rate == 0.0


def test_ratios_leave_out_who_sent_nothing() -> None:
    assert ratios(300.0, {"one": 100.0, "missing": 0.0, "other": 600.0}) == {"one": 3.0, "other": 0.5}
    assert best([Rate("a", 1, 5.0), Rate("b", 1, 7.0), Rate("c", 1, 6.0)]).name == "b"


def test_mean_and_deviation_over_whole_seconds() -> None:
    assert mean_and_deviation(whole_seconds([2, 4, 4, 4, 5, 5, 7, 9, 1])) == (5.0, 2.0)
    assert mean_and_deviation([]) == (0.0, 0.0)


def test_the_span_of_what_arrived() -> None:
    assert active_span([0, 0, 3, 0, 1, 0]) == (2, 5)
    assert active_span([0, 0]) == (0, 0)


def test_tenths_cover_every_whole_second_once() -> None:
    assert by_tenths([*range(20), 3]) == [0.5, 2.5, 4.5, 6.5, 8.5, 10.5, 12.5, 14.5, 16.5, 18.5]
    uneven = [7] * 23
    assert by_tenths(uneven) == [7.0] * 10
    assert by_tenths([1] * 10) == [], "nine whole seconds have no tenths"


def test_what_round_trips_allow() -> None:
    assert allowed_by_round_trips(50, 20, 1) == 2500.0
    assert allowed_by_round_trips(50, 50, 2) == 500.0


def test_a_post_is_fitted_on_a_straight_line() -> None:
    assert length_for(12_000, (1000, 6000), (4000, 9000)) == 7000
    assert length_for(12_000, (1000, 5000), (4000, 12_500)) == 3800


def test_calls_between_two_looks() -> None:
    before, after = {"get": 5, "set": 2}, {"get": 6, "set": 2, "evalsha": 9}
    assert call_difference(before, after) == {"evalsha": 9, "get": 1}


@pytest.mark.parametrize("size", [200, 1000, 12_000, 12_001])
def test_ready_mails_and_filler_have_the_size_asked_for(size: int) -> None:
    assert len(ready_mail(size)) == size
    assert ready_mail(size).endswith(b"\r\n")
    assert max(map(len, ready_mail(size).split(b"\r\n"))) <= 78
    assert len(filler(size)) == size


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("engine.lanes=8", {"engine": {"lanes": 8}}),
        ("email.smtp.host=localhost", {"email": {"smtp": {"host": "localhost"}}}),
        ('email.domains=[{"name": "x"}]', {"email": {"domains": [{"name": "x"}]}}),
        ("email.rate=0.5", {"email": {"rate": 0.5}}),
    ],
)
def test_settings_of_the_command_line(text: str, table: dict[str, object]) -> None:
    assert parse_setting(text) == table


def test_a_setting_without_a_value_is_refused() -> None:
    with pytest.raises(ValueError, match=r"TABLE\.KEY=VALUE"):
        parse_setting("engine.lanes")


def test_a_table_is_aligned() -> None:
    shown = table(["who", "rate", "how"], [("ours", 12345.6, "whole"), ("x", 0.1234, "y")])
    assert shown.splitlines() == ["who     rate  how", "ours  12,346  whole", "x      0.123  y"]


def test_the_name_of_a_process_may_hold_brackets_and_blanks() -> None:
    fields = " ".join(str(n) for n in range(3, 53))
    assert parse_cpu_ticks(f"42 (a) b (c) {fields}") == 14 + 15 + 16 + 17


def test_children_are_measured_and_ended_with_their_own_children(tmp_path: Path) -> None:
    at_work = "import time; all(iter(lambda: time.process_time() < 0.1, False)); print(1, flush=True); time.sleep(60)"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {at_work!r}])"
    log = tmp_path / "log"
    with Child("x", [sys.executable, "-c", script], log=log, environment=os.environ, cwd=tmp_path) as child:
        until = time.monotonic() + 30
        while not child.says("1"):
            assert time.monotonic() < until
            time.sleep(0.02)
        pids = tree(child.pid)
        assert len(pids) == 2
        assert cpu_seconds([child.pid]) > 0
        assert all(status_kib(pid, "VmHWM") > 1000 for pid in pids)
    until = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < until, "still alive"
        time.sleep(0.02)


def test_a_child_that_ends_early_says_its_last_lines(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import sys; print('no such relay'); sys.exit(3)"]
    with Child("it", argv, log=tmp_path / "log", environment=os.environ, cwd=tmp_path) as child:
        child.wait()
        with pytest.raises(BenchError, match=r"it ended with status 3:\nno such relay"):
            child.check()
