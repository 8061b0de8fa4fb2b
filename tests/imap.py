"""A mailbox to read: a real server that TEST_IMAP_URL names, or a small one of ours that imaplib talks to.

Ours knows the commands that a reader of bounces gives, and no more: CAPABILITY (less before the login, as Dovecot does),
LOGIN, SELECT, CREATE, LOGOUT, and with UID: SEARCH UNDELETED, FETCH of one part of a body, MOVE, COPY, STORE of \\Deleted,
EXPUNGE. Literals, IDLE, other searches and other fetches are not there. `without` takes extensions away, `breaks` names a
command on which it hangs up.
"""

import imaplib
import os
import re
import shlex
import socketserver
import ssl
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

CERTS = Path(__file__).parent / "channels/certs"
PASSWORD = "secret-word"


@dataclass
class Mail:
    uid: int
    raw: bytes
    deleted: bool = False


@dataclass
class Account:
    """The folders of the one user."""

    folders: dict[str, list[Mail]] = field(default_factory=lambda: {"INBOX": []})
    without: Collection[str] = ()
    breaks: str = ""
    commands: list[str] = field(default_factory=list)
    last: int = 0

    def put(self, raw: bytes, folder: str = "INBOX") -> None:
        self.last += 1
        self.folders[folder].append(Mail(self.last, raw))


class Session(socketserver.StreamRequestHandler):
    """One connection."""

    server: "ImapServer"
    disable_nagle_algorithm = True
    folder = ""
    known = False

    def handle(self) -> None:
        self._say("* OK ready")
        for line in self.rfile:
            tag, command, *words = shlex.split(line.decode("ascii"))
            self.name = f"UID {words.pop(0).upper()}" if command.upper() == "UID" else command.upper()
            self.account.commands.append(self.name)
            if self.name == self.account.breaks:
                self.account.breaks = ""
                return
            answer = getattr(self, "do_" + self.name.lower().replace(" ", "_"), self.unknown)(*words)
            self._say(f"{tag} {answer or 'OK done'}")
            if self.name == "LOGOUT":
                return

    @property
    def account(self) -> Account:
        return self.server.account

    @property
    def mails(self) -> list[Mail]:
        return self.account.folders[self.folder]

    def unknown(self, *_words: str) -> str:
        return "BAD never heard of"

    def do_capability(self) -> None:
        extensions = [name for name in ("MOVE", "UIDPLUS") if self.known and name not in self.account.without]
        self._say(" ".join(["* CAPABILITY IMAP4rev1", *extensions]))

    def do_login(self, _user: str, password: str) -> str:
        self.known = password == PASSWORD
        return "OK logged in" if self.known else "NO [AUTHENTICATIONFAILED] Authentication failed."

    def do_select(self, folder: str) -> str:
        if folder not in self.account.folders:
            return "NO Mailbox doesn't exist"
        self.folder = folder
        self._say(f"* {len(self.mails)} EXISTS")
        return "OK [READ-WRITE] selected"

    def do_create(self, folder: str) -> None:
        self.account.folders.setdefault(folder, [])

    def do_logout(self) -> None:
        self._say("* BYE")

    def do_uid_search(self, *_words: str) -> None:
        self._say(" ".join(["* SEARCH", *(str(mail.uid) for mail in self.mails if not mail.deleted)]))

    def do_uid_fetch(self, uid: str, what: str) -> None:
        found = re.fullmatch(r"\(BODY\.PEEK\[\]<0\.(\d+)>\)", what)
        assert found
        for mail in self._of(uid):
            body = mail.raw[: int(found[1])]
            self._say(f"* 1 FETCH (UID {uid} BODY[]<0> {{{len(body)}}}")
            self.wfile.write(body)
            self._say(")")

    def do_uid_copy(self, uid: str, folder: str) -> str:
        if folder not in self.account.folders:
            return "NO [TRYCREATE] Mailbox doesn't exist"
        for mail in self._of(uid):
            self.account.put(mail.raw, folder)
        return "OK copied"

    def do_uid_move(self, uid: str, folder: str) -> str:
        answer = self.do_uid_copy(uid, folder)
        if answer.startswith("OK"):
            self.mails[:] = [mail for mail in self.mails if mail.uid != int(uid)]
        return answer

    def do_uid_store(self, uid: str, *_words: str) -> None:
        for mail in self._of(uid):
            mail.deleted = True

    def do_uid_expunge(self, uid: str) -> None:
        self.mails[:] = [mail for mail in self.mails if mail.uid != int(uid) or not mail.deleted]

    def _of(self, uid: str) -> Sequence[Mail]:
        return [mail for mail in self.mails if mail.uid == int(uid)]

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


class ImapServer(socketserver.ThreadingTCPServer):
    """On a free port of 127.0.0.1, with TLS when it is given a context."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, account: Account, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Session)
        self.account = account
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, *_details: object) -> None:
        """A client that hung up is no trouble of the server's."""


@contextmanager
def serving(account: Account, *, tls: bool = False) -> Iterator[int]:
    """The port of a server of ours."""
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTS / "localhost.pem", CERTS / "localhost.key")
    with ImapServer(account, context) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class RealMailbox:
    """A mailbox on a server that somebody named: imap://user:password@host:port. It is emptied before it is used."""

    host: str
    port: int
    username: str
    password: str

    @classmethod
    def named(cls) -> "RealMailbox | None":
        found = urlsplit(os.environ.get("TEST_IMAP_URL", ""))
        if not found.hostname:
            return None
        return cls(
            found.hostname, found.port or 143, unquote(found.username or ""), unquote(found.password or "")
        )

    def fill(self, mails: Sequence[bytes], *others: str) -> None:
        with imaplib.IMAP4(self.host, self.port, timeout=5) as imap:
            imap.login(self.username, self.password)
            for folder in others:
                imap.delete(folder)
            _, found = imap.select("INBOX")
            if found[0] != b"0":
                imap.store("1:*", "+FLAGS", r"\Deleted")
                imap.expunge()
            for raw in mails:
                imap.append("INBOX", "", "", raw)

    def count(self, folder: str) -> int:
        with imaplib.IMAP4(self.host, self.port, timeout=5) as imap:
            imap.login(self.username, self.password)
            answer, found = imap.select(folder)
            return int(found[0] or 0) if answer == "OK" else 0
