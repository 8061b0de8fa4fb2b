"""One SMTP connection, reused for many messages, with the moment of the final dot known.

Until the final dot is written a failure is certain: the message has not gone. After it, only a reply tells; without
one the message may have gone (RFC 1047), and the error is `Unconfirmed`.

With PIPELINING (RFC 2920) MAIL, RCPT and DATA go in one write, and where the next message is known its envelope goes
in the same write as the body and the final dot of this one: one round trip a message. Its body waits for the replies
to its envelope, which is after the reply to this dot: one message at a time can be in doubt.

    MAIL RCPT DATA ─▶ ◀─ 250 250 354   body . MAIL RCPT DATA ─▶ ◀─ 250, 250 250 354   body . ─▶ ◀─ 250
    └─ 1st envelope                    └─ 1st ─┘└─ 2nd envelope     └─ 1st's receipt  └─ 2nd
"""

import contextlib
import re
import select
import smtplib
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from functools import cache
from types import TracebackType
from typing import NamedTuple, NoReturn, Self

from distributor.channels.email.identity import BounceAddresses
from distributor.channels.email.mime import write
from distributor.channels.email.replies import classify
from distributor.channels.redact import redact
from distributor.errors import Kind, Rejected, Scope, SendError, Unavailable, Unconfirmed
from distributor.model import Parcel, Receipt
from distributor.settings import ONLY_RELAY, MailRelay, Smtp, relay_password_name

QUIT_SECONDS = 2.0
GO_AHEAD = 354
CLOSING = 421
FINAL_DOT = b".\r\n"
LONGEST_REPLY = 65_536  # bytes, all lines together; RFC 5321 §4.5.3.1.5 has 512 a line
RECORD = 16_384  # bytes of a TLS record at most (RFC 8446 §5.1)

#: Where servers write the id under which they queued a message: NetEase and Postfix, Exim, Exchange, Gmail, SES.
QUEUE_IDS = tuple(
    map(
        re.compile,
        (
            r"queued as ([^\s,;]+)",
            r"\bid=([\w-]+)",
            r"InternalId=(\d+)",
            r"OK +\d+ (\S+) - gsmtp",
            r"^Ok ([0-9A-Fa-f-]{20,})$",
        ),
    )
)

Reply = tuple[int, bytes]

#: The reply codes that MAIL, RCPT and DATA hope for.
HOPED_FOR = (range(200, 300), range(200, 300), (GO_AHEAD,))
#: A reply of one line, as nearly all are.
PLAIN = re.compile(rb"(\d{3}) ([^\r\n]*)\r?\n")
#: All three of them, a line each: what nearly every message gets.
ACCEPTED = re.compile(rb"(?:2\d\d(?!-)[^\n]*\n){2}354(?!-)[^\n]*\n")


class _WornOut(Exception):
    """A connection that has served takes no more: idle too long, or as many messages as the server allows."""


class _Letter(NamedTuple):
    """A parcel written as a mail."""

    parcel: Parcel
    sender: str
    recipient: str
    data: bytes

    @classmethod
    def of(cls, parcel: Parcel, bounces: BounceAddresses | None) -> "_Letter":
        """Raises Rejected when the parcel cannot be written as a mail."""
        try:
            sender, recipient, data = write(parcel)
            return cls(parcel, bounces.of(parcel.identity) if bounces else sender, recipient, data)
        except (KeyError, ValueError) as error:
            reason = f"cannot be written as a mail: {redact(str(error))}"
            raise Rejected(text=reason, kind=Kind.CONTENT) from error

    def envelope(self, *, with_size: bool) -> bytes:
        """MAIL, RCPT and DATA, a line each."""
        _parcel, sender, recipient, data = self
        size = f" SIZE={len(data)}" if with_size else ""
        return f"MAIL FROM:<{sender}>{size}\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode("ascii")

    def refused(self, reply: Reply) -> SendError:
        return classify(reply[0], _words(reply), self.recipient.rpartition("@")[2])


class SmtpTransport:
    """Sends parcels over one connection; a lost one is made anew before the next message.

    `context` verifies the server's certificate; the default trusts the system's authorities. With `bounces`, the sender
    in the envelope is each delivery's own.
    """

    def __init__(
        self,
        settings: Smtp,
        context: ssl.SSLContext | None = None,
        bounces: BounceAddresses | None = None,
    ) -> None:
        self._settings, self._bounces = settings, bounces
        self._context = context
        self._wire: _Wire | None = None
        self._started: tuple[_Wire, _Letter]
        #: time.monotonic() until which its reply is waited for.
        self._answer_by = 0.0
        self._patience = settings.timeout.total_seconds()

    def __enter__(self) -> Self:
        self._ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Says goodbye, for two seconds at most; not to a server that waits for the body of an announced message."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close(polite=wire.announced is None)

    def send(self, parcel: Parcel, then: Parcel | None = None) -> Receipt:
        self.start(parcel, then)
        return self.finish()

    def announce(self, parcel: Parcel) -> bool:
        """Writes the envelope, over a connection that is open and in order."""
        wire = self._wire
        if wire is None or wire.announced or wire.must_reset or wire.has_spoken():
            return False
        letter = _letter_to_announce(wire, parcel)
        if letter is None:
            return False
        try:
            wire.write(letter.envelope(with_size=wire.knows_size))
        except BaseException as error:  # nothing else may follow a part of it
            self._drop()
            if isinstance(error, OSError):
                return False
            raise
        wire.announced = letter
        return True

    def start(self, parcel: Parcel, then: Parcel | None = None) -> None:
        """`send` up to the final dot, without its reply."""
        letter = self._letter(parcel)
        try:
            self._start(letter, then)
        except _WornOut:
            self._start(letter, then)  # over a new connection, which has served nothing yet

    def has_answer(self) -> bool:
        return self._started[0].has_spoken()

    def fileno(self) -> int:
        return self._started[0].fileno()

    def patience(self) -> float:
        return max(self._answer_by - time.monotonic(), 0.0)

    def finish(self) -> Receipt:
        """The reply to what was started."""
        wire, letter = self._started
        try:
            reply = _answer(wire, letter, self.patience())
        except BaseException as error:
            self._recover(wire, error)
            raise
        wire.served = True
        return _receipt(reply)

    def _letter(self, parcel: Parcel) -> _Letter:
        """The announced letter, when it is this parcel's; an announcement of another one ends the connection."""
        announced = self._wire.announced if self._wire else None
        if announced is not None:
            if announced.parcel is parcel:
                return announced
            self._drop()
        return _Letter.of(parcel, self._bounces)

    def _start(self, letter: _Letter, then: Parcel | None) -> None:
        wire = self._ready()
        try:
            _offer(wire, letter)
            _hand_over(wire, letter, then)
        except BaseException as error:
            self._recover(wire, error)
            raise
        self._started = wire, letter
        self._answer_by = time.monotonic() + self._patience

    def _ready(self) -> "_Wire":
        """The open connection; a new one when there is none, or the server has hung up since the last message."""
        if self._wire is not None and self._wire.announced is None and self._wire.has_spoken():
            self._drop()
        if self._wire is None:
            self._wire = _Wire(connect(self._settings, self._context), self._bounces)
        return self._wire

    def _recover(self, wire: "_Wire", error: BaseException) -> None:
        """Makes the connection fit for the next message, or gives it up: it may be in the middle of something."""
        code = error.code if isinstance(error, SendError) else ""
        if wire.lost or code == str(CLOSING) or not re.fullmatch("[45]..", code):
            self._drop()
            return
        wire.served = True
        # A refused recipient leaves a transaction open, in which a second MAIL is an error. An announced envelope
        # follows a final dot, which ends a transaction whatever its reply.
        wire.must_reset = wire.announced is None

    def _drop(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close(polite=False)


class _Wire:
    """A greeted connection: groups of commands out, with a count of what may have left, and replies in."""

    def __init__(self, smtp: smtplib.SMTP, bounces: BounceAddresses | None = None) -> None:
        self.bounces = bounces
        if smtp.sock is None:
            raise smtplib.SMTPServerDisconnected("not connected")
        self._smtp, self._sock = smtp, smtp.sock
        self._encrypted = isinstance(smtp.sock, ssl.SSLSocket)
        self._poll = select.poll()
        self._poll.register(smtp.sock, select.POLLIN)
        self._held = _read_ahead(smtp)
        if not self._encrypted:
            _leave_timeout_to_the_kernel(smtp.sock)
        self._at = 0
        self.pipelines = smtp.has_extn("pipelining")
        self.knows_size = smtp.has_extn("size")
        #: Its envelope is written, and the replies to it are not read.
        self.announced: _Letter | None = None
        self.served = False  # a transaction, to its end
        self.must_reset = False  # before the next MAIL
        self.lost = False
        #: How much of the last group may have left. Under TLS that is what was offered: how much of a record went
        #: when its write fails is not to be known.
        self.gone = 0

    def write(self, group: bytes) -> None:
        """Writes a group of commands whole, counting in `gone`."""
        self.gone = 0
        if self._encrypted:
            self._write_records(memoryview(group))
            return
        self.gone = self._sock.send(group)
        while self.gone < len(group):
            self.gone += self._sock.send(memoryview(group)[self.gone :])

    def _write_records(self, group: memoryview) -> None:
        for start in range(0, len(group), RECORD):
            record = group[start : start + RECORD]
            self.gone += len(record)
            self._sock.sendall(record)

    def reply(self) -> Reply:
        """The next reply, its lines joined; the code is -1 when it has none. Raises OSError, and is lost then."""
        if self._at == len(self._held):
            self._receive()
        plain = PLAIN.match(self._held, self._at)
        if plain:
            self._at = plain.end()
            return int(plain[1]), plain[2].strip()
        line = self._line()
        if line[3:4] != b"-":
            return _code(line), line[4:].strip()
        words, size = [line[4:].strip()], len(line)
        while line[3:4] == b"-" and _code(line) > 0:
            line = self._line()
            words.append(line[4:].strip())
            size += len(line)
            if size > LONGEST_REPLY:
                self.lose("its reply does not end")
        return _code(line), b"\n".join(words)

    def is_accepted(self) -> bool:
        """Whether the next replies accept an envelope, at a glance; they are read then, and else left to `reply`."""
        if self._at == len(self._held):
            self._receive()
        accepted = ACCEPTED.match(self._held, self._at)
        if accepted:
            self._at = accepted.end()
        return accepted is not None

    def has_spoken(self) -> bool:
        """Whether something waits to be read although we asked nothing: a 421, or the end of the connection."""
        return self.lost or self._at < len(self._held) or bool(self._poll.poll(0))

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self, *, polite: bool) -> None:
        if polite and not self.lost:
            with contextlib.suppress(OSError):
                self._sock.settimeout(QUIT_SECONDS)
                self.write(b"QUIT\r\n")
                self.reply()
        self._smtp.close()

    def _line(self) -> bytes:
        end = self._held.find(b"\n", self._at)
        while end < 0:
            if len(self._held) - self._at > LONGEST_REPLY:
                self.lose("its reply does not end")
            self._receive()
            end = self._held.find(b"\n")
        line = self._held[self._at : end]
        self._at = end + 1
        return line

    def _receive(self) -> None:
        try:
            got = self._sock.recv(4096)
        except OSError as error:
            self.lose(_say(error), error)
        if not got:
            self.lose("it hung up")
        self._held, self._at = self._held[self._at :] + got, 0

    def lose(self, reason: str, cause: Exception | None = None) -> NoReturn:
        self.lost = True
        raise smtplib.SMTPServerDisconnected(reason) from cause


def _read_ahead(smtp: smtplib.SMTP) -> bytes:
    """What smtplib's file took from the socket behind the reply to its last command: normally nothing."""
    if smtp.file is None or smtp.sock is None:
        return b""
    seconds = smtp.sock.gettimeout()
    smtp.sock.settimeout(0)  # peek reads when it holds nothing
    try:
        return bytes(smtp.file.peek())
    except OSError:  # TLS: nothing to read. A connection that is lost says so again.
        return b""
    finally:
        smtp.sock.settimeout(seconds)


def _leave_timeout_to_the_kernel(sock: socket.socket) -> None:
    """Python keeps a timeout by polling before each call: two system calls a message, a quarter of its processor time.

    Not for TLS, which takes the kernel's "timed out" for "try again" and would wait for ever.
    """
    seconds = sock.gettimeout()
    if seconds is None or not hasattr(socket, "SO_RCVTIMEO"):
        return
    # a struct timeval; all zeros would mean no timeout at all
    timeval = struct.pack("@ll", int(seconds), max(int(seconds % 1 * 1e6), 1))
    sock.settimeout(None)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)


def _code(line: bytes) -> int:
    return int(line[:3]) if line[:3].isdigit() else -1


def _offer(wire: _Wire, letter: _Letter) -> None:
    """Everything before the body. Whatever goes wrong here is certain: the message has not gone."""
    replies: list[Reply] = []
    try:
        if wire.announced is letter:
            wire.announced = None
        else:
            _ask(wire, letter, replies)
        if wire.pipelines:
            _collect(wire, replies)
        refusal = _first_refusal(replies) if replies else None
        if refusal is not None and replies[-1][0] == GO_AHEAD:
            # DATA was pipelined behind a refused recipient and accepted all the same: a lone dot, never the body.
            wire.write(FINAL_DOT)
            wire.reply()
    except Exception as error:
        if wire.served and not replies:
            raise _WornOut from error
        raise _never_left(error) from error
    if refusal is not None:
        if wire.served and replies[0][0] == CLOSING:
            raise _WornOut
        raise letter.refused(refusal)


def _ask(wire: _Wire, letter: _Letter, replies: list[Reply]) -> None:
    """MAIL, RCPT and DATA: in one group; else one by one to the first refusal, adding each reply."""
    reset, wire.must_reset = b"RSET\r\n" if wire.must_reset else b"", False
    group = letter.envelope(with_size=wire.knows_size)
    if wire.pipelines:
        wire.write(reset + group)
    elif reset:
        wire.write(reset)
    if reset and wire.reply()[0] != 250:
        raise _WornOut
    for command in () if wire.pipelines else group.splitlines(keepends=True):
        wire.write(command)
        replies.append(wire.reply())
        if _first_refusal(replies):
            return


def _collect(wire: _Wire, replies: list[Reply]) -> None:
    """Adds the replies to an envelope, unless it is accepted in the plainest way."""
    try:
        if wire.is_accepted():
            return
        while len(replies) < len(HOPED_FOR):
            replies.append(wire.reply())
    except OSError:
        if _first_refusal(replies) is None:
            raise
        # it refused and hung up: what it said counts


def _first_refusal(replies: Sequence[Reply]) -> Reply | None:
    """The first reply that is not what its command hopes for."""
    for reply, codes in zip(replies, HOPED_FOR, strict=False):
        if reply[0] not in codes:
            return reply
    return None


def _hand_over(wire: _Wire, letter: _Letter, then: Parcel | None) -> None:
    """The body and the final dot, and behind the dot the envelope of `then`."""
    following = _letter_to_announce(wire, then)
    envelope = following.envelope(with_size=wire.knows_size) if following else b""
    try:
        wire.write(b"".join((letter.data, FINAL_DOT, envelope)))
    except Exception as error:
        if wire.gone < len(letter.data) + len(FINAL_DOT):
            raise _never_left(error) from error
        raise _nobody_knows(error) from error
    wire.announced = following


def _answer(wire: _Wire, letter: _Letter, patience: float) -> Reply:
    """The reply to the final dot: without one, nobody knows."""
    try:
        if not patience and not wire.has_spoken():
            wire.lose("timed out")
        reply = wire.reply()
    except Exception as error:
        raise _nobody_knows(error) from error
    if 400 <= reply[0] < 600:
        raise letter.refused(reply)
    if not 200 <= reply[0] < 300:
        raise Unconfirmed(text=f"no readable reply to the final dot: {_words(reply)}", code=str(reply[0]))
    return reply


def _nobody_knows(error: Exception) -> Unconfirmed:
    return Unconfirmed(text=f"no reply to the final dot: {_say(error)}", kind=Kind.NETWORK)


def _letter_to_announce(wire: _Wire, then: Parcel | None) -> _Letter | None:
    """None when nothing can be announced; a parcel that cannot be written says so when its turn comes."""
    if then is None or not wire.pipelines:
        return None
    try:
        return _Letter.of(then, wire.bounces)
    except Rejected:
        return None


def _never_left(error: Exception) -> Unavailable:
    text = f"the connection to the mail server was lost before the message was handed over: {_say(error)}"
    return Unavailable(text=text, kind=Kind.NETWORK)


def connect(settings: Smtp, context: ssl.SSLContext | None = None) -> smtplib.SMTP:
    """A greeted, encrypted and logged-in connection, as the settings ask. Raises Unavailable (scope channel)."""
    try:
        return _connect(settings, context)
    except Exception as error:
        raise _connection_error(error, settings) from error


def _connect(settings: Smtp, context: ssl.SSLContext | None) -> smtplib.SMTP:
    helo, seconds = settings.helo or own_name(), settings.timeout.total_seconds()
    smtp: smtplib.SMTP
    if settings.security == "tls":
        context = context or system_trust()
        smtp = smtplib.SMTP_SSL(
            settings.host, settings.port, local_hostname=helo, timeout=seconds, context=context
        )
    else:
        smtp = smtplib.SMTP(settings.host, settings.port, local_hostname=helo, timeout=seconds)
    try:
        _greet(smtp, settings, context)
    except BaseException:
        smtp.close()
        raise
    return smtp


def _greet(smtp: smtplib.SMTP, settings: Smtp, context: ssl.SSLContext | None) -> None:
    if smtp.sock is not None:
        # Every write is all that can be said now; Nagle would hold its tail back for an acknowledgement.
        smtp.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    smtp.ehlo_or_helo_if_needed()
    if settings.security == "starttls":
        smtp.starttls(context=context or system_trust())
        smtp.ehlo_or_helo_if_needed()
    if settings.username:
        smtp.login(settings.username, settings.password.get_secret_value())


@cache
def system_trust() -> ssl.SSLContext:
    """Certificates are verified against the system's authorities. Kept: loading them takes about 35 ms."""
    return ssl.create_default_context()


@cache
def own_name() -> str:
    """This host's name for EHLO, or an address literal. Kept: a resolver without an answer takes seconds."""
    name = socket.getfqdn()
    return name if "." in name else "[127.0.0.1]"


#: What a failed connection means, most special first.
CONNECTION_ERRORS: Sequence[tuple[type[Exception], Kind, str]] = (
    (ssl.SSLCertVerificationError, Kind.CONFIG, "its certificate cannot be verified: check email.smtp.host"),
    (ssl.SSLEOFError, Kind.NETWORK, "it hung up"),
    (ssl.SSLError, Kind.CONFIG, "TLS failed: check email.smtp.port and email.smtp.security"),
    (smtplib.SMTPAuthenticationError, Kind.CONFIG, "the login was refused: check email.smtp.username and DISTRIBUTOR_SMTP_PASSWORD"),
    (smtplib.SMTPResponseException, Kind.CONFIG, "it refuses connections from this host"),
    (smtplib.SMTPServerDisconnected, Kind.NETWORK, "it hung up"),
    (smtplib.SMTPException, Kind.CONFIG, "it does not offer what email.smtp.security or email.smtp.username ask for"),
    (socket.gaierror, Kind.NETWORK, "its name cannot be resolved: check email.smtp.host"),
    (OSError, Kind.NETWORK, "it cannot be reached"),
    (Exception, Kind.CONFIG, "check email.smtp"),
)  # fmt: skip


def _connection_error(error: Exception, settings: Smtp) -> Unavailable:
    kind, advice = next(
        (kind, advice) for matching, kind, advice in CONNECTION_ERRORS if isinstance(error, matching)
    )
    code = str(error.smtp_code) if isinstance(error, smtplib.SMTPResponseException) else ""
    if code.startswith("4"):
        kind, advice = Kind.SERVER, "it does not accept a connection now"
    said = redact(_say(error), settings.password.get_secret_value())
    text = f"mail server {settings.host}:{settings.port}: {_for_relay(advice, settings)} ({said})"
    return Unavailable(text=text, code=code, scope=Scope.CHANNEL, kind=kind, counts=False)


def _for_relay(advice: str, settings: Smtp) -> str:
    """Names the settings of one relay among several, where the advice names those of the only one."""
    if not isinstance(settings, MailRelay) or settings.name == ONLY_RELAY:
        return advice
    named = advice.replace("DISTRIBUTOR_SMTP_PASSWORD", relay_password_name(settings.name))
    return named.replace("email.smtp", f"email.relays ({settings.name})")


def _receipt(reply: Reply) -> Receipt:
    text = redact(_words(reply))
    for pattern in QUEUE_IDS:
        if found := pattern.search(text):
            return Receipt(found[1], str(reply[0]), text)
    return Receipt(code=str(reply[0]), text=text)


def _words(reply: Reply) -> str:
    return reply[1].decode("utf-8", "replace")


def _say(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error
        return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    if isinstance(error, BlockingIOError):  # how the kernel says it
        return "timed out"
    return str(error) or type(error).__name__
