"""`python -m bench.bare URL PORT`: what our sign-up endpoint is measured against.

A FastAPI endpoint that does nothing but read the same JSON and insert as many rows as a sign-up writes, into copies of
the same tables, in one transaction: a sync def, SQLAlchemy Core, a pool of the same size.
"""

import secrets
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Header
from pydantic import BaseModel
from sqlalchemy import MetaData, create_engine, insert

from distributor import tables

#: In the order in which a new reader's rows are written.
NAMES = ("inbox", "subscribers", "subscriptions", "consents", "letters")
COPIES = "; ".join(f"CREATE TABLE bare_{name} (LIKE {name} INCLUDING ALL)" for name in NAMES)


class Body(BaseModel):
    email: str
    newsletters: list[str]
    language: str


def create_app(url: str) -> FastAPI:
    engine = create_engine(url, pool_size=16, max_overflow=16)
    metadata = MetaData()
    copies = {name: tables.metadata.tables[name].to_metadata(metadata, name=f"bare_{name}") for name in NAMES}
    app = FastAPI()

    @app.post("/bare", status_code=202)
    def take(body: Body, webhook_id: Annotated[str, Header()]) -> dict[str, bool]:
        now = datetime.now(UTC)
        with engine.begin() as connection:
            connection.execute(insert(copies["inbox"]).values(_inbox(webhook_id, now)))
            key: Any = copies["subscribers"].c.id
            new = insert(copies["subscribers"]).values(_subscriber(body, now)).returning(key)
            number = connection.execute(new).scalar_one()
            for name, row in _rows(number, body, now):
                connection.execute(insert(copies[name]).values(row))
        return {"accepted": True}

    return app


def _inbox(number: str, now: datetime) -> dict[str, Any]:
    return {"source": "bare", "key": number, "body_hash": number, "received_at": now}


def _subscriber(body: Body, now: datetime) -> dict[str, Any]:
    return {
        "channel": "email",
        "address": body.email,
        "domain": body.email.rpartition("@")[2],
        "name": "",
        "language": body.language,
        "created_at": now,
        "asked_at": now,
    }


def _rows(subscriber: int, body: Body, now: datetime) -> Iterator[tuple[str, dict[str, Any]]]:
    """(table, row), each an INSERT: a subscription, its evidence, the letter to confirm and the one to remind."""
    own = {"subscriber_id": subscriber, "newsletter": body.newsletters[0]}
    token = secrets.token_urlsafe(16)
    yield (
        "subscriptions",
        {**own, "state": "pending", "token": token, "source": "bare", "consent_at": now},
    )
    yield "consents", {**own, "kind": "asked", "at": now, "source": "bare", "detail": ""}
    for kind in ("confirm", "remind"):
        yield "letters", _letter(own, kind, body.language, now)


def _letter(own: dict[str, Any], kind: str, language: str, now: datetime) -> dict[str, Any]:
    return {
        **own,
        "kind": kind,
        "language": language,
        "state": "pending",
        "tries": 0,
        "due_at": now + timedelta(days=1),
        "created_at": now,
        "relay": "",
        "code": "",
        "text": "",
    }


if __name__ == "__main__":
    uvicorn.run(create_app(sys.argv[1]), port=int(sys.argv[2]), log_level="warning", access_log=False)
