"""What was heard from outside: events of providers and bounces."""

from __future__ import annotations

from typing import Annotated

import typer

from distributor.cli.context import distributor_of
from distributor.cli.output import AsJson, Limit, print_json, print_table, say
from distributor.model import EventKind


def register(app: typer.Typer) -> None:
    app.command("events")(list_events)


def list_events(
    context: typer.Context,
    address: Annotated[str | None, typer.Option(help="Only of this address.")] = None,
    kind: Annotated[list[EventKind] | None, typer.Option(help="Only these kinds (may be repeated).")] = None,
    issue: Annotated[int | None, typer.Option(help="Only of this issue's deliveries.")] = None,
    before: Annotated[int | None, typer.Option(help="Go on behind this event number.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List what providers and bounces told us, the newest first: delivered, bounced, complained, unsubscribed …"""
    with distributor_of(context) as distributor:
        found = distributor.ledger.events(
            address=address.strip().lower() if address else None,
            kinds=kind or (),
            issue_id=issue,
            before=before,
            limit=limit,
        )
    if as_json:
        print_json(found)
        return
    if not found:
        say("no events match")
        return
    print_table(
        ["event", "when (UTC)", "provider", "kind", "address", "delivery", "code", "said"],
        [
            (
                event.id,
                f"{event.occurred_at:%Y-%m-%d %H:%M:%S}",
                event.provider,
                f"{event.kind} ({event.permanence})" if event.permanence else event.kind,
                event.address,
                f"{event.issue_id}.{event.seq}" if event.issue_id else None,
                event.code,
                event.detail,
            )
            for event in found
        ],
    )
    if len(found) == limit:
        say(f"… more: --before {found[-1].id}")
