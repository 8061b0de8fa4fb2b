"""The SMTP catcher: a loopback relay that keeps what it accepts. The only importer of aiosmtpd."""

import asyncio
import logging
import socket
import threading
from typing import Any

from distributor.sandbox.checks import header, mail_violations, parse_mail
from distributor.sandbox.faults import Fault, Faults
from distributor.sandbox.inbox import Inbox
from distributor.sandbox.limits import Limits

try:
    from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
except ModuleNotFoundError as error:
    raise ImportError("the sandbox needs aiosmtpd: run pip install 'distributor[sandbox]'") from error

PASSWORD = b"sandbox"

#: fault → reply to RCPT
AT_RCPT = {
    "refuse": "550 5.1.1 <{address}>: Recipient address rejected: User unknown",
    "refuse-bare": "550 Mailbox not found",
    "defer": "450 4.2.1 <{address}>: Mailbox busy, try again later",
    "throttle": "550 Domain frequency limited",
}
SPAM = "554 DT:SPM the message looks like spam"
AT_DOT = ("spam", "drop-after-dot", "slow")
BAD_LOGIN = "535 5.7.8 Authentication credentials invalid"
DOWN = "421 4.3.2 Service not available, closing transmission channel"


class SmtpServer:
    """Listens on `host:port` (0: any free one) in a thread of its own, from `start()` to `stop()`.

    Raises OSError when the port is taken. AUTH is optional: any user, password "sandbox".
    """

    def __init__(
        self,
        inbox: Inbox,
        faults: Faults,
        limits: Limits,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        pipelining: bool = False,
    ) -> None:
        self.inbox, self.faults, self.limits, self.pipelining = inbox, faults, limits, pipelining
        self.sessions: set[_Session] = set()
        self._socket = socket.create_server((host, port), backlog=128)
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="sandbox-smtp", daemon=True)

    def start(self) -> None:
        # aiosmtpd announces its own deprecations and every command as log lines; none of them is ours to mend.
        logging.getLogger("mail.log").setLevel(logging.ERROR)
        self._thread.start()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

    async def _serve(self) -> None:
        server = await self._loop.create_server(lambda: _Session(self, self._loop), sock=self._socket)
        await self._stopped.wait()
        server.close()
        tasks = [session.hang_up() for session in list(self.sessions)]
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


class _Session(SMTP):
    """One connection, with the faults that aiosmtpd's hooks cannot play."""

    line_length_limit = 65536  # of the stream's buffer; long lines are noted, not refused

    def __init__(self, relay: SmtpServer, loop: asyncio.AbstractEventLoop) -> None:
        self.relay = relay
        super().__init__(
            _Hooks(relay),
            data_size_limit=relay.limits.mail_bytes,
            hostname="sandbox.localhost",
            ident="distributor sandbox",
            auth_require_tls=False,
            authenticator=self._log_in,
            loop=loop,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.relay.sessions.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.relay.sessions.discard(self)
        super().connection_lost(error)

    def hang_up(self) -> "asyncio.Task[None]":
        assert self._handler_coroutine is not None
        assert isinstance(self.transport, asyncio.WriteTransport)
        self.transport.abort()
        return self._handler_coroutine

    async def vanish(self) -> None:
        """Breaks the connection without a word; never returns, because the loss cancels this session's task."""
        assert isinstance(self.transport, asyncio.WriteTransport)
        self.transport.abort()
        await asyncio.Event().wait()

    async def _handle_client(self) -> None:
        assert self.transport is not None
        if self.relay.faults.take("email", self.transport.get_extra_info("peername")[0], ("down",)):
            await self.push(DOWN)
            self.transport.close()
            return
        await super()._handle_client()

    async def smtp_DATA(self, arg: str | None) -> None:  # noqa: N802 - aiosmtpd finds the command by this name
        """As aiosmtpd's, but by blocks: line by line costs a millisecond for a newsletter's mail."""
        assert self.envelope is not None
        assert self.session is not None
        if arg or not self.envelope.rcpt_tos:
            await self.push("501 5.5.4 Syntax: DATA" if arg else "503 5.5.1 Error: need RCPT command")
            return
        await self.push("354 End data with <CR><LF>.<CR><LF>")
        await self._break_inside()
        message = await self._read_message()
        if message is None:
            reply = "552 5.3.4 Message size exceeds fixed limit"
        else:
            self.envelope.content = message
            reply = await self.event_handler.handle_DATA(self, self.session, self.envelope)
        self.envelope = self._create_envelope()
        await self.push(reply)

    async def _break_inside(self) -> None:
        assert self.envelope is not None
        for address in self.envelope.rcpt_tos:
            if self.relay.faults.take("email", address, ("drop-before-dot",)):
                await self._reader.readline()
                self.relay.inbox.refused("email", address, "connection broken before the dot")
                await self.vanish()

    async def _read_message(self) -> bytes | None:
        """Up to the lone dot, with stuffed dots taken out; None when it is too large."""
        data, too_large = bytearray(b"\r\n"), False
        while not data.endswith(b"\r\n.\r\n"):
            try:
                data += await self._reader.readuntil(b".\r\n")
            except asyncio.LimitOverrunError as error:
                data += await self._reader.readexactly(error.consumed)
            if len(data) > self.relay.limits.mail_bytes + 5:
                too_large = True
                del data[:-5]
        return None if too_large else bytes(data[:-3].replace(b"\r\n..", b"\r\n.")[2:])

    def _log_in(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any
    ) -> AuthResult:
        user = data.login.decode(errors="replace")
        if data.password != PASSWORD or self.relay.faults.take("email", user, ("login",)):
            return AuthResult(success=False, handled=False, message=BAD_LOGIN)
        return AuthResult(success=True, auth_data=data)


class _Hooks:
    """aiosmtpd calls these by name."""

    def __init__(self, relay: SmtpServer) -> None:
        self.relay = relay

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return [responses[0], "250-PIPELINING", *responses[1:]] if self.relay.pipelining else responses

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if fault := self.relay.faults.take("email", address, AT_RCPT):
            reply = AT_RCPT[fault.kind].format(address=address)
            self.relay.inbox.refused("email", address, reply, {"sender": envelope.mail_from})
            return reply
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: _Session, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        assert isinstance(envelope.content, bytes)
        faults = {address: self.relay.faults.take("email", address, AT_DOT) for address in envelope.rcpt_tos}
        met = {fault.kind: fault for fault in faults.values() if fault}
        content, checked = self._look_at(envelope)
        for address, fault in faults.items():
            self._keep(address, envelope.content, content, checked, "spam" in met, fault)
        if "spam" in met:
            return SPAM
        if "drop-after-dot" in met:
            await server.vanish()
        if "slow" in met:
            await asyncio.sleep(met["slow"].seconds(5))
        return "250 2.0.0 Ok: kept in the sandbox"

    def _look_at(self, envelope: Envelope) -> tuple[dict[str, str], list[str]]:
        assert isinstance(envelope.content, bytes)
        message = parse_mail(envelope.content)
        content = {
            "sender": envelope.mail_from or "",
            "from": header(message, "From"),
            "subject": header(message, "Subject"),
            "message_id": str(message.get("Message-ID", "")).strip(),
        }
        return content, mail_violations(envelope.content, message)

    def _keep(
        self,
        address: str,
        mail: bytes,
        content: dict[str, str],
        violations: list[str],
        spam: bool,
        fault: Fault | None,
    ) -> None:
        if spam:
            self.relay.inbox.refused("email", address, SPAM, content, mail=mail)
            return
        self.relay.inbox.accepted(
            "email",
            address,
            content,
            fingerprint=content["message_id"],
            mail=mail,
            note=fault.kind if fault else "",
            violations=violations,
        )
