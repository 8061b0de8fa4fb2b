"""What can go wrong, as one tree.

    DistributorError                what a person can read: what, where, what to do
    ├─ ConfigError                  the configuration is wrong; outside the family that a send may catch
    ├─ PostError                    a post cannot be read or rendered well
    ├─ PictureError                 a picture cannot be fetched, read or made fit for a reader
    ├─ RequestRefused               a command asked for something that must not be done
    ├─ ServiceDown                  our own database or broker does not answer
    ├─ MailboxDown                  the mailbox that bounces come back to cannot be read
    └─ SendError                    a transport could not do what it was asked
       ├─ Rejected                  permanent: the other side said no
       ├─ Unavailable               temporary: it was certainly not handed over; try later
       └─ Unconfirmed               handed over, answer lost: it may have gone
          └─ AwaitingPerson         a person was handed what to post, and has not said yet that it is out

A send error names its `scope` (whom it concerns) and its `kind` (what it is about): the engine decides by these alone.
"""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

#: The code of an unconfirmed delivery that is in a person's hands: nothing is in doubt, it waits for their word.
AWAITING = "awaiting-person"


class Scope(StrEnum):
    """Whom a send error concerns."""

    RECIPIENT = "recipient"  # this address alone
    DOMAIN = "domain"  # everybody behind the same recipient domain
    CREDENTIAL = "credential"  # everything sent with this login, bot or key
    CHANNEL = "channel"  # the whole channel: relay down, token revoked


class Kind(StrEnum):
    """What a send error is about."""

    MAILBOX = "mailbox"  # the address does not exist, or does not want us
    POLICY = "policy"  # reputation, authentication, blocked content: ours to mend
    CONTENT = "content"  # this very message is malformed or too large: our renderer's bug
    THROTTLE = "throttle"  # too fast
    NETWORK = "network"  # no connection
    SERVER = "server"  # the other side is unwell
    CONFIG = "config"  # our settings: wrong login, revoked token, disabled robot


class DistributorError(Exception):
    """Something a person can mend."""


class ConfigError(DistributorError):
    """The configuration is wrong. Carries every mistake found, each as one line: file, key, what was expected."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(mistakes))


class PostError(DistributorError):
    """A post cannot be read or rendered well: file, line, reason."""

    def __init__(self, path: Path | str, reason: str, line: int | None = None) -> None:
        self.path, self.reason, self.line = path, reason, line
        super().__init__(f"{path}:{line}: {reason}" if line else f"{path}: {reason}")


class PictureError(DistributorError):
    """A picture cannot be fetched, read, or made fit for a reader: its address, the reason and what to do.

    The address is shown without user name and query: a signed one opens a private store to whoever reads the log.
    """

    def __init__(self, address: str, reason: str) -> None:
        self.address, self.reason = address, reason
        super().__init__(f"{shown_address(address)}: {reason}")


def frames_of(error: BaseException) -> str:
    """Where a bug came from, for the log: files, lines and code. The message is left out, which may quote a secret."""
    return "".join(traceback.format_tb(error.__traceback__))


def shown_address(address: str) -> str:
    """An address without user name and query."""
    bare, query, _ = address.partition("?")
    scheme, there, rest = bare.partition("://")
    host, slash, path = rest.partition("/")
    shown = f"{scheme}://{host.rpartition('@')[2]}{slash}{path}" if there else bare
    return shown + ("?…" if query else "")


class RequestRefused(DistributorError):
    """A command asked for something that must not be done; the text says why and what to do instead."""


class ServiceDown(DistributorError):
    """Our own database or broker does not answer."""


class MailboxDown(DistributorError):
    """The mailbox that bounces come back to cannot be read: what its server said, and what to look at."""


@dataclass(kw_only=True)
class SendError(DistributorError):
    """A transport could not do what it was asked.

    `code` is the provider's (SMTP reply, errcode, HTTP status), `text` what it said, cleaned of secrets.
    """

    text: str
    code: str = ""
    scope: Scope = Scope.RECIPIENT
    kind: Kind = Kind.SERVER

    def __str__(self) -> str:
        return f"{self.code} {self.text}".strip()


@dataclass(kw_only=True)
class Rejected(SendError):
    """The other side said no, for good. `suppress` asks that the address be not used again."""

    suppress: bool = False


@dataclass(kw_only=True)
class Unavailable(SendError):
    """It was certainly not handed over. `retry_after` is the provider's own wait; `counts`: does it use up a try?"""

    retry_after: timedelta | None = None
    counts: bool = True
    new_address: str | None = None


@dataclass(kw_only=True)
class Unconfirmed(SendError):
    """It was handed over and the answer was lost: it may have gone. Never retried without a person or a policy."""


@dataclass(kw_only=True)
class AwaitingPerson(Unconfirmed):
    """A person has what to post. Nothing is in doubt and nothing is sent: they settle it with `distributor resolve`."""

    code: str = AWAITING
