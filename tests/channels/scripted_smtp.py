"""An SMTP server on a raw socket that says, at every stage, what its script says: any code, silence, or a hang-up."""

import base64
import socket
import socketserver
import ssl
import threading
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO, Self


@dataclass(frozen=True)
class Say:
    """A reply, or none; then perhaps a hang-up, or silence until the server stops."""

    text: str = ""
    hang_up: bool = False
    silent: bool = False


HANG_UP = Say(hang_up=True)
SILENCE = Say(silent=True)

#: What a healthy server says. Stages: connect, ehlo, starttls, auth, mail, rcpt, data, body, dot, rset, quit.
#: "body" is reached when the first line of the message has arrived; its reply is normally empty.
HEALTHY: Mapping[str, Say] = {
    "connect": Say("220 sandbox.example ESMTP"),
    "starttls": Say("220 go ahead"),
    "auth": Say("235 2.7.0 welcome"),
    "mail": Say("250 2.1.0 Ok"),
    "rcpt": Say("250 2.1.5 Ok"),
    "data": Say("354 go ahead"),
    "body": Say(),
    "dot": Say("250 2.0.0 Ok: queued as 4F7Qx81zLp"),
    "rset": Say("250 2.0.0 Ok"),
    "quit": Say("221 2.0.0 Bye", hang_up=True),
}


@dataclass
class Mail:
    """What one transaction brought."""

    sender: str = ""
    recipient: str = ""
    data: bytes = b""


@dataclass
class ScriptedSmtp:
    """A server on 127.0.0.1. `script` holds, by stage, what to say instead of the healthy reply, in order."""

    script: Mapping[str, Sequence[Say]] = field(default_factory=dict)
    extensions: Sequence[str] = ("PIPELINING", "SIZE 1000000")
    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False

    def __post_init__(self) -> None:
        self.mails: list[Mail] = []
        self.commands: list[str] = []
        self.connections = 0
        self.stopped = threading.Event()
        self._pending: dict[str, deque[Say]] = defaultdict(deque)
        for stage, replies in self.script.items():
            self._pending[stage].extend(replies)
        owner = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                owner.connections += 1
                _Session(owner, self.request).run()

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def scripted(self, stage: str) -> bool:
        return bool(self._pending[stage])

    def next(self, stage: str) -> Say:
        if self._pending[stage]:
            return self._pending[stage].popleft()
        if stage == "ehlo":
            return Say(
                "\r\n".join(f"250-{line}" for line in ("sandbox.example", *self.extensions)) + "\r\n250 HELP"
            )
        return HEALTHY[stage]

    def said(self, verb: str) -> list[str]:
        """Every command of that verb, in order."""
        return [command for command in self.commands if command.upper().startswith(verb)]


class _Session:
    """One connection's conversation."""

    def __init__(self, server: ScriptedSmtp, sock: ssl.SSLSocket) -> None:
        self.server, self.sock = server, sock
        self.mail = Mail()
        self.accepted: set[str] = set()

    def run(self) -> None:
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.server.implicit_tls:
                self._encrypt()
            self.file: BinaryIO = self.sock.makefile("rb")
            alive = self._speak("connect")
            while alive and (line := self.file.readline()):
                alive = self._answer(line.decode().rstrip("\r\n"))
        except OSError:
            pass  # the client hung up, which is one of the things it may do
        finally:
            self.sock.close()

    def _answer(self, command: str) -> bool:
        self.server.commands.append(command)
        verb, _, rest = command.partition(" ")
        stage = {"HELO": "ehlo"}.get(verb.upper(), verb.lower())
        if stage in {"mail", "rset"}:
            self.mail, self.accepted = Mail(sender=rest), set()
        if stage == "rcpt":
            self.mail.recipient = rest
            if "mail" not in self.accepted:
                return self._say(Say("503 5.5.1 no sender"))
        if stage == "auth":
            self.server.commands[-1] += f" = {base64.b64decode(rest.split()[-1]).decode()!r}"
        if stage == "data":
            return self._data()
        alive = self._speak(stage)
        if stage == "starttls" and alive:
            self._encrypt()
            self.file = self.sock.makefile("rb")
        return alive

    def _data(self) -> bool:
        if "rcpt" not in self.accepted and not self.server.scripted("data"):
            return self._say(Say("503 5.5.1 no valid recipients"))
        say = self.server.next("data")
        if not self._say(say) or not say.text.startswith("354"):
            return not say.hang_up
        lines: list[bytes] = []
        while (line := self.file.readline()) != b".\r\n":
            if not line:
                return False
            lines.append(line)
            if len(lines) == 1 and not self._speak("body"):
                return False
        self.mail.data = b"".join(line.removeprefix(b".") for line in lines)
        say = self.server.next("dot")
        if say.text.startswith("2") or not say.text:  # a lost answer does not undo the delivery
            self.server.mails.append(self.mail)
        return self._say(say)

    def _speak(self, stage: str) -> bool:
        say = self.server.next(stage)
        if say.text.startswith("2"):
            self.accepted.add(stage)
        return self._say(say)

    def _say(self, say: Say) -> bool:
        """Whether the conversation goes on."""
        if say.text:
            self.sock.sendall(say.text.encode() + b"\r\n")
        if say.silent:
            self.server.stopped.wait()
        return not (say.hang_up or say.silent)

    def _encrypt(self) -> None:
        assert self.server.tls is not None
        self.sock = self.server.tls.wrap_socket(self.sock, server_side=True)
