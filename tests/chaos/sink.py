"""A mail sink that counts: which message to whom it took, whom it answered, and how. Its faults are switched at run time.

A process of its own (`python sink.py`): one thread, one selector, PIPELINING and SIZE. It prints one line, the ports of
SMTP and of its control socket. A control connection takes one JSON object a line and answers each with one: what is in
it changes `Faults`; `{"report": true}` asks for all counts, anything else is answered with the totals.
"""

import heapq
import json
import random
import re
import selectors
import socket
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields
from itertools import count
from typing import Any

END = b"\r\n.\r\n"
MESSAGE_ID = re.compile(rb"\r\nMessage-ID: *<([^>\r\n]*)>", re.IGNORECASE)
ADDRESS = re.compile(rb"<([^>]*)>")
READ = 65_536


@dataclass
class Faults:
    """What goes wrong. Shares are of messages, unless they say otherwise."""

    #: Seconds until the final dot is answered, ±50 %: it sets the pace, and the time in which a kill finds it open.
    delay: float = 0.0
    #: The line is cut before the final dot is here; once it is here, without a reply. Shares, and so many next ones.
    drop_before: float = 0.0
    drop_after: float = 0.0
    next_drop_before: int = 0
    next_drop_after: int = 0
    #: [reply, share of recipients, tries]: those recipients get this reply to RCPT at their first tries.
    refusals: list[tuple[str, float, int]] = field(default_factory=list)
    #: Recipient domain → messages a second; what is more gets QQ's words.
    frequency: dict[str, float] = field(default_factory=dict)
    #: MAIL is answered with 421, and the line is cut.
    closing: float = 0.0
    #: Connections are closed at once.
    refuse: bool = False
    #: Nobody listens, and open lines end behind the message they are in: a relay that is stopped in good order.
    down: bool = False
    #: The final dot, and RCPT, are answered with words that are no reply.
    nonsense_dot: float = 0.0
    nonsense_rcpt: float = 0.0
    #: The final dot is never answered, and the line stays.
    hang: float = 0.0


@dataclass
class Reader:
    """What came for one recipient. A message that is here without a reply may or may not be known to its sender."""

    accepted: int = 0
    unanswered: int = 0
    refused: int = 0
    message_ids: list[str] = field(default_factory=list)


class Connection:
    """One client."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.held = bytearray()
        self.at = 0  # behind which nothing was looked at for the final dot
        self.out = bytearray()
        self.recipient = ""
        self.in_data = False
        self.waits = False  # for the moment at which its final dot is answered
        self.dropped = False
        self.closed = False


class Sink:
    """The server."""

    def __init__(self, seed: int) -> None:
        self.faults = Faults()
        self.readers: dict[str, Reader] = {}
        self.totals: Counter[str] = Counter()
        self.random = random.Random(seed)
        self.selector = selectors.DefaultSelector()
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._granted: dict[str, tuple[int, int]] = {}
        self._lines: set[Connection] = set()
        self._door, control = _bound(), _bound()
        self.smtp, self.control = _port(self._door), _port(control)
        self._listen(self._door, self._accept)
        self._listen(control, self._accept_control)

    def run(self) -> None:
        while True:
            wait = max(0.0, self.timers[0][0] - time.monotonic()) if self.timers else None
            for key, _events in self.selector.select(wait):
                key.data()
            while self.timers and self.timers[0][0] <= time.monotonic():
                heapq.heappop(self.timers)[2]()

    def _listen(self, server: socket.socket, accept: Callable[[socket.socket], None]) -> None:
        server.listen(512)
        self.selector.register(server, selectors.EVENT_READ, lambda: accept(server))

    def _shut(self) -> None:
        """The port stays bound, so that it is ours when we are back; without a listener the kernel refuses."""
        self.selector.unregister(self._door)
        self._door.close()
        self._door = _bound(self.smtp)
        for line in tuple(self._lines):
            self._serve(line)

    # ── SMTP ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _accept(self, server: socket.socket) -> None:
        with suppress(OSError):
            sock, _ = server.accept()
            self.totals["connections"] += 1
            if self.faults.refuse:
                sock.close()
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line = Connection(sock)
            self._lines.add(line)
            self.selector.register(sock, selectors.EVENT_READ, lambda: self._readable(line))
            self._say(line, b"220 sink.example ESMTP\r\n")
            self._flush(line)

    def _readable(self, line: Connection) -> None:
        try:
            got = line.sock.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            got = b""
        if not got:
            self._close(line)
            return
        line.held += got
        self._serve(line)

    def _serve(self, line: Connection) -> None:
        """All that can be answered now."""
        while not (line.waits or line.closed or line.dropped):
            if self.faults.down and not line.in_data:
                self._hang_up(line)
                return
            if not (self._take_body(line) if line.in_data else self._take_command(line)):
                break
        self._flush(line)

    def _take_command(self, line: Connection) -> bool:
        end = line.held.find(b"\n")
        if end < 0:
            return False
        command = bytes(line.held[: end + 1])
        del line.held[: end + 1]
        answer = self.COMMANDS.get(command[:4].upper())
        if answer is None:
            self._say(line, b"502 unknown\r\n")
        else:
            answer(self, line, command)
        return True

    def _ehlo(self, line: Connection, _command: bytes) -> None:
        self._say(line, b"250-sink.example\r\n250-PIPELINING\r\n250 SIZE 20000000\r\n")

    def _ok(self, line: Connection, _command: bytes) -> None:
        self._say(line, b"250 ok\r\n")

    def _mail(self, line: Connection, _command: bytes) -> None:
        line.recipient = ""
        if self._chance(self.faults.closing):
            self.totals["closing"] += 1
            self._say(line, b"421 closing now\r\n")
            self._hang_up(line)
            return
        self._say(line, b"250 ok\r\n")

    def _rcpt(self, line: Connection, command: bytes) -> None:
        found = ADDRESS.search(command)
        address = found[1].decode("ascii", "replace") if found else ""
        if self._chance(self.faults.nonsense_rcpt):
            self.totals["nonsense_rcpt"] += 1
            self._say(line, b"three hundred sheep\r\n")
            return
        if refusal := self._refusal(address):
            self.totals["refused"] += 1
            self.readers.setdefault(address, Reader()).refused += 1
            self._say(line, refusal.encode() + b"\r\n")
            return
        line.recipient = address
        self._say(line, b"250 ok\r\n")

    def _data(self, line: Connection, _command: bytes) -> None:
        if not line.recipient:
            self._say(line, b"503 nobody to send it to\r\n")
            return
        if self.faults.next_drop_before > 0 or self._chance(self.faults.drop_before):
            self.faults.next_drop_before = max(0, self.faults.next_drop_before - 1)
            self.totals["dropped_before"] += 1
            if self.random.random() < 0.5:  # else while the body is on its way
                self._hang_up(line)
                return
            line.dropped = True
        line.in_data, line.at = True, 0
        self._say(line, b"354 go on\r\n")
        if line.dropped:
            self._flush(line)
            self._at(0.01, lambda: self._close(line))

    def _quit(self, line: Connection, _command: bytes) -> None:
        self._say(line, b"221 bye\r\n")
        self._hang_up(line)

    COMMANDS: dict[bytes, Callable[["Sink", Connection, bytes], None]] = {  # noqa: RUF012 - never changed
        b"EHLO": _ehlo,
        b"HELO": _ok,
        b"MAIL": _mail,
        b"RCPT": _rcpt,
        b"DATA": _data,
        b"RSET": _ok,
        b"NOOP": _ok,
        b"QUIT": _quit,
    }

    def _take_body(self, line: Connection) -> bool:
        if line.held.startswith(END[2:]):  # the lone dot of a transaction that is given up
            del line.held[:3]
            line.in_data = False
            self.totals["empty"] += 1
            self._say(line, b"554 no message\r\n")
            return True
        end = line.held.find(END, line.at)
        if end < 0:
            line.at = max(0, len(line.held) - len(END))
            return False
        body = bytes(line.held[: end + 2])
        del line.held[: end + len(END)]
        line.in_data = False
        self._taken(line, body)
        return True

    def _taken(self, line: Connection, body: bytes) -> None:
        """The final dot is here: the message is as good as delivered, whether its sender learns it or not."""
        found = MESSAGE_ID.search(b"\r\n" + body)
        reader = self.readers.setdefault(line.recipient, Reader())
        reader.message_ids.append(found[1].decode("ascii", "replace") if found else "")
        self.totals["messages"] += 1
        reader.unanswered += 1  # until it is answered
        fate = self._fate()
        if fate == "hang":
            line.waits = True
        elif fate == "drop":
            self._hang_up(line)
        elif fate == "nonsense":
            self._say(line, b"well, well, well\r\n")
        elif self.faults.delay:
            line.waits = True
            self._at(
                self.faults.delay * (0.5 + self.random.random()), lambda: self._answer_late(line, reader)
            )
        else:
            self._answer(line, reader)

    def _fate(self) -> str:
        faults = self.faults
        if faults.next_drop_after > 0:
            faults.next_drop_after -= 1
            self.totals["drop"] += 1
            return "drop"
        shares = {"drop": faults.drop_after, "nonsense": faults.nonsense_dot, "hang": faults.hang}
        mark = self.random.random() if any(shares.values()) else 1.0
        for fate, share in shares.items():
            mark -= share
            if mark < 0:
                self.totals[fate] += 1
                return fate
        return "answer"

    def _answer_late(self, line: Connection, reader: Reader) -> None:
        line.waits = False
        if line.closed:
            return
        self._answer(line, reader)
        self._serve(line)

    def _answer(self, line: Connection, reader: Reader) -> None:
        self._say(line, b"250 ok\r\n")
        self._flush(line)
        if not line.closed:
            reader.accepted += 1
            reader.unanswered -= 1

    def _refusal(self, address: str) -> str:
        """The words with which this recipient is refused this time."""
        domain = address.rpartition("@")[2]
        if domain in self.faults.frequency and not self._within(domain, self.faults.frequency[domain]):
            return "550 Domain frequency limited"
        mark = zlib.crc32(address.encode()) % 10_000 / 10_000
        for reply, share, tries in self.faults.refusals:
            mark -= share
            if mark < 0:
                reader = self.readers.get(address)
                return reply if (reader.refused if reader else 0) < tries else ""
        return ""

    def _within(self, domain: str, rate: float) -> bool:
        second = int(time.monotonic())
        since, taken = self._granted.get(domain, (second, 0))
        taken = taken + 1 if since == second else 1
        self._granted[domain] = (second, taken)
        return taken <= rate

    def _chance(self, share: float) -> bool:
        return share > 0 and self.random.random() < share

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _at(self, seconds: float, then: Callable[[], None]) -> None:
        heapq.heappush(self.timers, (time.monotonic() + seconds, next(self._order), then))

    def _say(self, line: Connection, words: bytes) -> None:
        line.out += words

    def _flush(self, line: Connection) -> None:
        """Replies are short and clients read them: a full send buffer is a client that went silent, and is cut off."""
        if line.out and not line.closed:
            try:
                line.sock.sendall(line.out)
            except OSError:
                self._close(line)
            line.out.clear()

    def _hang_up(self, line: Connection) -> None:
        self._flush(line)
        self._close(line)

    def _close(self, line: Connection) -> None:
        if line.closed:
            return
        line.closed = True
        self._lines.discard(line)
        self.selector.unregister(line.sock)
        line.sock.close()

    # ── control ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _accept_control(self, server: socket.socket) -> None:
        sock, _ = server.accept()
        sock.setblocking(True)
        held = bytearray()

        def readable() -> None:
            got = sock.recv(READ)
            if not got:
                self.selector.unregister(sock)
                sock.close()
                return
            held.extend(got)
            while (end := held.find(b"\n")) >= 0:
                asked = json.loads(held[:end])
                del held[: end + 1]
                sock.sendall(json.dumps(self._command(asked)).encode() + b"\n")

        self.selector.register(sock, selectors.EVENT_READ, readable)

    def _command(self, asked: dict[str, Any]) -> dict[str, Any]:
        report = asked.pop("report", False)
        known = {each.name for each in fields(Faults)}
        if wrong := set(asked) - known:
            return {"error": f"unknown: {sorted(wrong)}"}
        was_down = self.faults.down
        for name, value in asked.items():
            setattr(self.faults, name, value)
        if self.faults.down and not was_down:
            self._shut()
        elif was_down and not self.faults.down:
            self._listen(self._door, self._accept)
        answer: dict[str, Any] = {"totals": dict(self.totals)}
        if report:
            answer["readers"] = {
                address: [each.accepted, each.unanswered, each.refused, each.message_ids]
                for address, each in self.readers.items()
            }
        return answer


def _bound(port: int = 0) -> socket.socket:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # its lines of before may still be open
    server.bind(("127.0.0.1", port))
    server.setblocking(False)
    return server


def _port(server: socket.socket) -> int:
    port: int = server.getsockname()[1]
    return port


def main() -> None:
    sink = Sink(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    sys.stdout.write(f"{sink.smtp} {sink.control}\n")
    sys.stdout.flush()
    sink.run()


if __name__ == "__main__":
    main()
