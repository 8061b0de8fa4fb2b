"""`distributor tokens …`: who may ask the operators' interface what."""

from __future__ import annotations

from typing import Annotated

import typer

from distributor.cli.context import distributor_of
from distributor.cli.output import AsJson, print_json, print_table, say
from distributor.model import Permission

app = typer.Typer(
    no_args_is_help=True, help="Tokens of the operators' interface (/api/): create, list, revoke."
)
TokenName = Annotated[str, typer.Argument(help="A name to recognise it by: who uses it, for what.")]


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="tokens")


@app.command()
def create(
    context: typer.Context,
    name: TokenName,
    scope: Annotated[list[Permission], typer.Option(help="What it allows; may be given several times.")],
) -> None:
    """Make a token and show it, this once: only its hash is kept."""
    with distributor_of(context) as distributor:
        token = distributor.access.create(name, scope)
    say("The token; it is shown this once. Send it as: Authorization: Bearer …")
    typer.echo(token)


@app.command("list")
def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """List the tokens, what they allow and when they were used."""
    with distributor_of(context) as distributor:
        found = distributor.access.listing()
    rows = [
        {
            "name": token.name,
            "scopes": " ".join(sorted(token.scopes)),
            "created": f"{token.created_at:%Y-%m-%d}",
            "used": f"{token.last_used_at:%Y-%m-%d %H:%M}" if token.last_used_at else "never",
            "revoked": f"{token.revoked_at:%Y-%m-%d}" if token.revoked_at else "",
        }
        for token in found
    ]
    if as_json:
        print_json(rows)
        return
    columns = ("name", "scopes", "created", "used", "revoked")
    print_table(columns, [tuple(row.values()) for row in rows])


@app.command()
def revoke(context: typer.Context, name: TokenName) -> None:
    """End a token at once."""
    with distributor_of(context) as distributor:
        distributor.access.revoke(name)
    say(f"the token {name} is worth nothing any more")
