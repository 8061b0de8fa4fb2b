"""The web app on a real server, and callers of its interface for programs."""

import base64
import hmac
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import uvicorn
from services import free_port
from sqlalchemy import func, select
from standardwebhooks import Webhook

from distributor.bootstrap import Distributor
from distributor.db import Database
from distributor.tables import consent_texts, metadata
from distributor.web import create_app

#: The secret of the Standard Webhooks libraries' own tests, and two more.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEXT_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDX2hpY3Rvcg=="
OTHER_SECRET = "whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo="
#: `[signup.abuse]` for tests that sign one address up again and again.
UNLIMITED = {"per_address": "100000/hour", "per_domain": "100000/hour"}


@dataclass(frozen=True)
class Served:
    """A running web app."""

    distributor: Distributor
    port: int
    client: httpx.Client


@contextmanager
def serving(distributor: Distributor) -> Iterator[Served]:
    """The distributor's pages; it is closed in the end."""
    port = free_port()
    config = uvicorn.Config(create_app(distributor), port=port, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server ended at once"
            time.sleep(0.01)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield Served(distributor, port, client)
    finally:
        server.should_exit = True
        thread.join()
        distributor.close()


def signed(
    body: str | bytes,
    *,
    secret: str = SECRET,
    number: str | None = None,
    ago: timedelta = timedelta(0),
    **headers: str,
) -> dict[str, str]:
    """The headers of a call, signed by the Standard Webhooks library; `headers` (with _ for -) replace or add some."""
    number, moment = number or f"msg_{uuid.uuid4().hex}", datetime.now(UTC) - ago
    own = {
        "content-type": "application/json",
        "webhook-id": number,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": _signature(secret, number, moment, body),
    }
    return own | {name.replace("_", "-"): value for name, value in headers.items()}


def _signature(secret: str, number: str, moment: datetime, body: str | bytes) -> str:
    if isinstance(body, str):
        return str(Webhook(secret).sign(number, moment, body))
    # The library signs text alone.
    message = f"{number}.{int(moment.timestamp())}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return "v1," + base64.b64encode(hmac.digest(key, message, "sha256")).decode()


def row_counts(database: Database) -> dict[str, int]:
    """The rows of every table. Words that somebody may have agreed to are nobody's data."""
    with database.read() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in metadata.sorted_tables
            if table is not consent_texts
        }


def problem(response: httpx.Response) -> dict[str, Any]:
    """The problem document of an answer, checked for its form."""
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert found["status"] == response.status_code
    assert {"type", "title", "detail"} <= set(found) <= {"type", "title", "status", "detail", "errors"}
    return found
