"""`distributor webhooks …`: what was told to the endpoints, and again."""

from __future__ import annotations

from typing import Annotated

import typer

from distributor.cli.context import distributor_of
from distributor.cli.output import AsJson, Limit, print_json, print_table, say
from distributor.errors import RequestRefused

app = typer.Typer(
    no_args_is_help=True, help="Our webhooks: which calls went out, which were given up, and again."
)
EndpointName = Annotated[str, typer.Argument(help="The endpoint's name in [[webhooks.endpoints]].")]


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="webhooks")


@app.command()
def log(
    context: typer.Context,
    endpoint: Annotated[str | None, typer.Option(help="Only this endpoint.")] = None,
    state: Annotated[str | None, typer.Option(help="Only this state: pending, sent, failed.")] = None,
    before: Annotated[int | None, typer.Option(help="Go on behind this call's number.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List the calls, the newest first."""
    with distributor_of(context) as distributor:
        found = distributor.caller.webhooks.listing(
            endpoint=endpoint, state=state, before=before, limit=limit
        )
    if as_json:
        print_json([{**vars(call), "created_at": call.created_at.isoformat()} for call in found])
        return
    columns = ("number", "endpoint", "event", "state", "tries", "code", "when", "said")
    print_table(
        columns,
        [
            (
                call.id,
                call.endpoint,
                call.kind,
                call.state,
                call.tries,
                call.code,
                f"{call.created_at:%Y-%m-%d %H:%M:%S}",
                call.text[:60],
            )
            for call in found
        ],
    )
    if len(found) == limit:
        say(f"… more: --before {found[-1].id}")


@app.command()
def again(
    context: typer.Context,
    endpoint: EndpointName,
    number: Annotated[int | None, typer.Option(help="Only this call.")] = None,
) -> None:
    """Send again what was given up."""
    with distributor_of(context) as distributor:
        known = [one.name for one in distributor.settings.webhooks.endpoints]
        if endpoint not in known:
            raise RequestRefused(
                f"no endpoint is called {endpoint!r}; there are: {', '.join(known) or 'none'}"
            )
        count = distributor.caller.webhooks.again(endpoint, number)
    say(f"{count} calls go to {endpoint} again")
