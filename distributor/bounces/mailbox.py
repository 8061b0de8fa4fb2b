"""The mailbox that bounces come back to, over IMAP (RFC 3501): what waits in it, each mail, and putting it away."""

import contextlib
import imaplib
import ssl
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from distributor.channels.redact import redact
from distributor.errors import MailboxDown
from distributor.settings import BounceMailbox

#: Bytes read of a mail: a report comes first in it, the mail that it is about may be long.
READ = 262_144


class Mailbox:
    """One folder; what was read is moved into another. A context manager: opened anew for each look.

    `context` verifies the server's certificate; the default trusts the system's authorities. Every method raises
    MailboxDown.
    """

    def __init__(self, settings: BounceMailbox, context: ssl.SSLContext | None = None) -> None:
        self._settings, self._context = settings, context
        self._imap: imaplib.IMAP4 | None = None
        self._can: frozenset[str] = frozenset()

    def __enter__(self) -> Self:
        table = self._settings
        try:
            self._imap = self._connected()
        except (OSError, imaplib.IMAP4.error) as error:
            raise self._down(error, "check events.bounces.host, port and security") from error
        try:
            login = "log in (check username and DISTRIBUTOR_BOUNCE_PASSWORD)"
            self._ask(login, "login", _quoted(table.username), table.password.get_secret_value())
            self._can = self._capabilities()
            self._ask(f"open the folder {table.folder}", "select", _quoted(table.folder))
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def waiting(self) -> Sequence[bytes]:
        """The UIDs of the mails in the folder, the oldest first."""
        found = self._ask("list the folder", "uid", "SEARCH", "UNDELETED")
        return found[0].split() if found and found[0] else []

    def read(self, number: bytes) -> bytes:
        """The beginning of a mail; nothing of it is marked. Empty when somebody has taken it away."""
        found = self._ask("read a mail", "uid", "FETCH", number.decode(), f"(BODY.PEEK[]<0.{READ}>)")
        return next((part[1] for part in found if isinstance(part, tuple)), b"")

    def put_away(self, number: bytes) -> None:
        """Moves a mail; of a server without MOVE (RFC 6851) it is copied, and marked as deleted."""
        done, uid = _quoted(self._settings.done), number.decode()
        if "MOVE" in self._can:
            self._into_done("MOVE", uid, done)
            return
        self._into_done("COPY", uid, done)
        self._ask("mark a mail", "uid", "STORE", uid, "+FLAGS.SILENT", r"(\Deleted)")
        if "UIDPLUS" in self._can:  # else others' deleted mails would go with it
            self._ask("remove a mail", "uid", "EXPUNGE", uid)

    def count(self) -> int:
        """How many mails wait: for a check of the settings."""
        return len(self.waiting())

    def _into_done(self, how: str, uid: str, done: str) -> None:
        """The folder is made when it is first needed."""
        answer, _ = self._talk("put a mail away", "uid", how, uid, done)
        if answer != "OK":
            self._talk("make a folder", "create", done)
            self._ask(f"put a mail into the folder {self._settings.done}", "uid", how, uid, done)

    @property
    def _opened(self) -> imaplib.IMAP4:
        if self._imap is None:
            raise MailboxDown("the mailbox is not open")
        return self._imap

    def _connected(self) -> imaplib.IMAP4:
        table, seconds = self._settings, self._settings.timeout.total_seconds()
        if table.security == "none":
            return imaplib.IMAP4(table.host, table.port, timeout=seconds)
        context = self._context or ssl.create_default_context()
        return imaplib.IMAP4_SSL(table.host, table.port, ssl_context=context, timeout=seconds)

    def _capabilities(self) -> frozenset[str]:
        """Those of a user: what a server says before the login is less, and that is all imaplib asks for."""
        found = self._ask("say what the server can do", "capability")
        return (
            frozenset(found[0].decode("ascii", "replace").upper().split())
            if found and found[0]
            else frozenset()
        )

    def _ask(self, what: str, command: str, *words: str) -> list[Any]:
        answer, found = self._talk(what, command, *words)
        if answer != "OK":
            raise self._down(_said(found), f"it does not let us {what}")
        return found

    def _talk(self, what: str, command: str, *words: str) -> tuple[str, list[Any]]:
        try:
            answer, found = getattr(self._opened, command)(*words)
        except (OSError, imaplib.IMAP4.error, UnicodeEncodeError) as error:  # it speaks ASCII alone
            raise self._down(error, f"could not {what}") from error
        return answer, found

    def _down(self, said: object, advice: str) -> MailboxDown:
        table = self._settings
        words = redact(str(said) or type(said).__name__, table.password.get_secret_value())
        return MailboxDown(f"the bounce mailbox {table.host}:{table.port}: {advice} ({words})")

    def _leave(self) -> None:
        imap, self._imap = self._imap, None
        if imap is not None:
            with contextlib.suppress(OSError, imaplib.IMAP4.error):
                imap.logout()
            with contextlib.suppress(OSError):
                imap.shutdown()  # a logout that fails leaves the connection open


def _quoted(folder: str) -> str:
    return '"' + folder.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _said(found: Sequence[Any]) -> str:
    return b" ".join(part for part in found if isinstance(part, bytes)).decode("utf-8", "replace")
