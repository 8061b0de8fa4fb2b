"""Who may ask the operators' interface what: tokens with scopes. Only a hash of a token is kept."""

import hashlib
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert, or_, select, update

from distributor.db import Database
from distributor.errors import RequestRefused
from distributor.model import Permission
from distributor.tables import api_tokens

#: So that a leaked token is recognised, by people and by scanners.
PREFIX = "dst_"
TOKEN_BYTES = 32
LONGEST_NAME = 100
#: `last_used_at` is written this often at most: a look must not cost a write.
NOTED_EVERY = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token as it is kept: never the token itself."""

    id: int
    name: str
    scopes: frozenset[Permission]
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


class Access:
    """The tokens in one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def create(self, name: str, scopes: Collection[Permission]) -> str:
        """A new token, shown this once. Raises RequestRefused for a name that is in use or is none, and without a scope."""
        if not scopes:
            raise RequestRefused("a token without a scope allows nothing: name at least one with --scope")
        if not (name.isprintable() and name.strip() == name and 0 < len(name) <= LONGEST_NAME):
            raise RequestRefused(f"a token's name has one to {LONGEST_NAME} characters, on one line")
        token = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
        with self.database.write() as connection:
            if connection.execute(select(api_tokens.c.id).where(*_called(name))).first():
                raise RequestRefused(
                    f"a token is called {name!r} already; revoke it first, or choose another name"
                )
            row = {
                "name": name,
                "hash": _hash(token),
                "scopes": sorted(scopes),
                "created_at": self.database.now(connection),
            }
            connection.execute(insert(api_tokens), [row])
        return token

    def find(self, token: str) -> Token | None:
        """None for an unknown or revoked one. Looked up by its hash, so its bytes are compared with nothing."""
        with self.database.read() as connection:
            query = select(api_tokens).where(
                api_tokens.c.hash == _hash(token), api_tokens.c.revoked_at.is_(None)
            )
            row = connection.execute(query).first()
        if row is None:
            return None
        self._note_use(row.id)
        return _token(row)

    def revoke(self, name: str) -> None:
        """Raises RequestRefused when no token is called so."""
        with self.database.write() as connection:
            now = self.database.now(connection)
            revoked = update(api_tokens).where(*_called(name)).values(revoked_at=now)
            if not connection.execute(revoked).rowcount:
                raise RequestRefused(f"no token is called {name!r}; see: distributor tokens list")

    def listing(self) -> Sequence[Token]:
        """The oldest first, revoked ones too."""
        with self.database.read() as connection:
            return [_token(row) for row in connection.execute(select(api_tokens).order_by(api_tokens.c.id))]

    def _note_use(self, number: int) -> None:
        with self.database.read() as connection:
            now = self.database.now(connection)
            stale = or_(api_tokens.c.last_used_at.is_(None), api_tokens.c.last_used_at < now - NOTED_EVERY)
            query = select(api_tokens.c.id).where(api_tokens.c.id == number, stale)
            if connection.execute(query).first() is None:
                return
        with self.database.write() as connection:
            connection.execute(update(api_tokens).where(api_tokens.c.id == number).values(last_used_at=now))


def _called(name: str) -> tuple[Any, ...]:
    """Those in force."""
    return api_tokens.c.name == name, api_tokens.c.revoked_at.is_(None)


def _hash(token: str) -> str:
    """SHA-256 is enough for 256 random bits."""
    return hashlib.sha256(token.encode()).hexdigest()


def _token(row: Any) -> Token:
    return Token(
        id=row.id,
        name=row.name,
        scopes=frozenset(map(Permission, row.scopes)),
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
