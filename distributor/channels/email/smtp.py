"""One SMTP connection, reused for many messages, with the moment of the final dot known.

Until the final dot is written a failure is certain: the message has not gone. After it, only a reply tells; without
one the message may have gone (RFC 1047), and the error is `Unconfirmed`. MAIL, RCPT and DATA go in one write when the
server offers PIPELINING (RFC 2920): one round trip instead of three.
"""

import contextlib
import re
import select
import smtplib
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Self

from distributor.channels.email.mime import ascii_address, compose, sender_address
from distributor.channels.email.replies import classify
from distributor.channels.redact import redact
from distributor.errors import Kind, Rejected, Scope, SendError, Unavailable, Unconfirmed
from distributor.model import Parcel, Receipt
from distributor.settings import Smtp

QUIT_SECONDS = 2.0
GO_AHEAD = 354
CLOSING = 421

#: Where servers write the id under which they queued a message: NetEase and Postfix, Exim, Exchange, Gmail, SES.
QUEUE_IDS = (
    r"queued as ([^\s,;]+)",
    r"\bid=([\w-]+)",
    r"InternalId=(\d+)",
    r"OK +\d+ (\S+) - gsmtp",
    r"^Ok ([0-9A-Fa-f-]{20,})$",
)

Reply = tuple[int, bytes]


class _WornOut(Exception):
    """A connection that has carried messages takes no more: idle too long, or as many as the server allows."""


@dataclass(frozen=True)
class _Envelope:
    """What one transaction needs, checked: ASCII addresses and the message's bytes."""

    sender: str
    recipient: str
    mail: bytes

    @classmethod
    def of(cls, parcel: Parcel) -> "_Envelope":
        """Raises Rejected when the parcel cannot be written as a mail."""
        try:
            mail = compose(parcel)
            recipient = ascii_address(parcel.recipient.address)
            return cls(sender_address(parcel.message.content), recipient, mail)
        except (KeyError, ValueError) as error:
            reason = f"cannot be written as a mail: {redact(str(error))}"
            raise Rejected(text=reason, kind=Kind.CONTENT) from error

    @property
    def domain(self) -> str:
        return self.recipient.rpartition("@")[2]

    def commands(self, smtp: smtplib.SMTP) -> Sequence[str]:
        size = f" SIZE={len(self.mail)}" if smtp.has_extn("size") else ""
        return (f"MAIL FROM:<{self.sender}>{size}", f"RCPT TO:<{self.recipient}>", "DATA")


class SmtpTransport:
    """Sends parcels over one connection; a lost one is made anew before the next message.

    `context` verifies the server's certificate; the default trusts the system's authorities.
    """

    def __init__(self, settings: Smtp, context: ssl.SSLContext | None = None) -> None:
        self._settings = settings
        self._context = context
        self._smtp: smtplib.SMTP | None = None
        self._carried = 0

    def __enter__(self) -> Self:
        self._ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Says goodbye, for two seconds at most."""
        smtp, self._smtp = self._smtp, None
        if smtp is None or smtp.sock is None:
            return
        with contextlib.suppress(OSError):
            smtp.sock.settimeout(QUIT_SECONDS)
            smtp.quit()
        smtp.close()

    def send(self, parcel: Parcel) -> Receipt:
        envelope = _Envelope.of(parcel)
        try:
            return self._transact(envelope)
        except _WornOut:
            return self._transact(envelope)  # over a new connection, which has carried nothing yet

    def _transact(self, envelope: _Envelope) -> Receipt:
        smtp = self._ready()
        try:
            self._offer(smtp, envelope)
            reply = self._finish(smtp, envelope)
        except SendError as error:
            self._recover(smtp, error)
            raise
        except BaseException:
            self._drop()  # a connection in the middle of something must not carry the next message
            raise
        self._carried += 1
        return _receipt(reply)

    def _ready(self) -> smtplib.SMTP:
        """The open connection; a new one when there is none, or the server has hung up since the last message."""
        if self._smtp is not None and _has_hung_up(self._smtp):
            self._drop()
        if self._smtp is None:
            self._smtp, self._carried = connect(self._settings, self._context), 0
        return self._smtp

    def _offer(self, smtp: smtplib.SMTP, envelope: _Envelope) -> None:
        """Everything up to the final dot. Whatever goes wrong here is certain: the message has not gone."""
        replies: list[Reply] = []
        try:
            _exchange(smtp, envelope.commands(smtp), replies)
            refusal = _first_refusal(replies)
            if refusal is None:
                _write(smtp, _stuff_dots(envelope.mail))
            elif replies[-1][0] == GO_AHEAD:
                _finish_empty(smtp)
        except Exception as error:
            if self._carried and not replies:
                raise _WornOut from error
            text = f"the connection to the mail server was lost before the message was handed over: {_say(error)}"
            raise Unavailable(text=text, kind=Kind.NETWORK) from error
        if refusal is not None:
            if self._carried and replies[0][0] == CLOSING:
                raise _WornOut
            raise _refused(refusal, envelope)

    def _finish(self, smtp: smtplib.SMTP, envelope: _Envelope) -> Reply:
        """The final dot and its reply: without one, nobody knows."""
        try:
            smtp.send(b".\r\n")
            reply = smtp.getreply()
        except Exception as error:
            text = f"no reply to the final dot: {_say(error)}"
            raise Unconfirmed(text=text, kind=Kind.NETWORK) from error
        if 400 <= reply[0] < 600:
            raise _refused(reply, envelope)
        if not 200 <= reply[0] < 300:
            raise Unconfirmed(text=f"no readable reply to the final dot: {_words(reply)}", code=str(reply[0]))
        return reply

    def _recover(self, smtp: smtplib.SMTP, error: SendError) -> None:
        """Makes the connection fit for the next message, or gives it up."""
        if error.code == str(CLOSING) or not re.fullmatch("[45]..", error.code):
            self._drop()
            return
        with contextlib.suppress(OSError):
            if smtp.rset()[0] == 250:
                return
        self._drop()

    def _drop(self) -> None:
        if self._smtp is not None:
            self._smtp.close()
        self._smtp = None


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
        # The body and the final dot are two writes; Nagle would hold the second back for an acknowledgement.
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
    text = f"mail server {settings.host}:{settings.port}: {advice} ({said})"
    return Unavailable(text=text, code=code, scope=Scope.CHANNEL, kind=kind, counts=False)


def _has_hung_up(smtp: smtplib.SMTP) -> bool:
    """Whether something waits to be read although we asked nothing: a 421, or the end of the connection."""
    if smtp.sock is None:
        return True
    poll = select.poll()
    poll.register(smtp.sock, select.POLLIN)
    return bool(poll.poll(0))


def _exchange(smtp: smtplib.SMTP, commands: Sequence[str], replies: list[Reply]) -> None:
    """Adds the replies to the commands, in order; none after the first refusal when the server does not pipeline."""
    pipelined = smtp.has_extn("pipelining")
    if pipelined:
        smtp.send("".join(f"{command}\r\n" for command in commands))
    for command in commands:
        if not pipelined:
            smtp.putcmd(command)
        try:
            replies.append(smtp.getreply())
        except smtplib.SMTPServerDisconnected:
            if _first_refusal(replies) is None:
                raise
            break  # it refused and hung up: what it said counts
        if not pipelined and _first_refusal(replies):
            break


def _first_refusal(replies: Sequence[Reply]) -> Reply | None:
    """The first reply that is not what its command (MAIL, RCPT, DATA) hopes for."""
    hoped = zip(replies, ("2", "2", str(GO_AHEAD)), strict=False)
    return next((reply for reply, start in hoped if not str(reply[0]).startswith(start)), None)


def _finish_empty(smtp: smtplib.SMTP) -> None:
    """DATA was pipelined behind a refused recipient and accepted all the same: a lone dot, never the body."""
    smtp.send(b".\r\n")
    smtp.getreply()


def _write(smtp: smtplib.SMTP, mail: bytes) -> None:
    """The message without its final dot. On Linux the kernel keeps the tail and sends it in the dot's packet."""
    more = 0 if isinstance(smtp.sock, ssl.SSLSocket) else getattr(socket, "MSG_MORE", 0)
    if smtp.sock is None:
        raise smtplib.SMTPServerDisconnected("not connected")
    smtp.sock.sendall(mail, more)


def _stuff_dots(mail: bytes) -> bytes:
    """RFC 5321 §4.5.2: a line that begins with a dot gets a second one."""
    return mail.replace(b"\r\n.", b"\r\n..")


def _refused(reply: Reply, envelope: _Envelope) -> SendError:
    return classify(reply[0], _words(reply), envelope.domain)


def _receipt(reply: Reply) -> Receipt:
    text = redact(_words(reply))
    found = next((match for pattern in QUEUE_IDS if (match := re.search(pattern, text))), None)
    return Receipt(provider_id=found[1] if found else None, code=str(reply[0]), text=text)


def _words(reply: Reply) -> str:
    return reply[1].decode("utf-8", "replace")


def _say(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error
        return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    return str(error) or type(error).__name__
