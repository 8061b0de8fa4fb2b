"""Commands of the operator: doctor, db upgrade, ping, notices."""

import socket
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated

import typer

from distributor.cli.context import distributor_of, settings_of
from distributor.cli.output import AsJson, Limit, out, print_json, print_table, say

db = typer.Typer(no_args_is_help=True, help="The database: bring its tables up to date.")

#: A process that was not heard of for this long is taken for dead: a few ticks and sweeps.
SILENCE = timedelta(minutes=2)
#: By `doctor.Level`.
MARKS: Mapping[str, str] = {
    "ok": "[green]ok  [/green]",
    "warn": "[yellow]warn[/yellow]",
    "fail": "[red]FAIL[/red]",
}


def register(app: typer.Typer) -> None:
    for command in (doctor, notices, ping):
        app.command()(command)
    app.add_typer(db, name="db")


def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Print the settings that are in force and check everything a send needs. Exit status 1 when something is wrong."""
    from distributor.bootstrap import database_url, findings  # noqa: PLC0415 - cli/__init__.py
    from distributor.db import Database  # noqa: PLC0415 - cli/__init__.py
    from distributor.doctor import Level, effective  # noqa: PLC0415 - cli/__init__.py

    settings = settings_of(context)
    database = Database(database_url(settings))
    found = list(findings(settings, database))
    database.close()
    if as_json:
        print_json({"settings": dict(effective(settings)), "findings": found})
    else:
        print_table(["setting", "value"], effective(settings))
        say()
        for finding in found:
            out.print(MARKS[finding.level], end=" ")
            say(f"{finding.check}: {finding.text}" + (f"\n       → {finding.fix}" if finding.fix else ""))
    if any(finding.level is Level.FAIL for finding in found):
        raise typer.Exit(1)


def notices(context: typer.Context, limit: Limit = 20, as_json: AsJson = False) -> None:
    """List what the operator was told, and over which routes it went."""
    with distributor_of(context) as distributor:
        found = distributor.notices.listing(limit)
    if as_json:
        print_json(found)
        return
    print_table(
        ["route", "state", "tries", "subject", "error"],
        [(n.route, n.state, n.tries, n.subject, n.error) for n in found],
    )


def ping(
    context: typer.Context,
    role: Annotated[str, typer.Argument(help="worker or beat")],
    anywhere: Annotated[bool, typer.Option("--any", help="A worker of any host will do.")] = False,
) -> None:
    """Say whether a worker of this host, or the beat, was heard of lately (for health checks)."""
    if role not in {"worker", "beat"}:
        raise typer.BadParameter("worker or beat", param_hint="role")
    # The beat's ticks are carried out, and noted, by whichever worker takes them: it has no host of its own.
    host = None if anywhere or role == "beat" else socket.gethostname()
    with distributor_of(context) as distributor:
        ago = distributor.ledger.last_beat(role, host)
    if ago is None or ago > SILENCE:
        which = f"{role} of {host}" if host else role
        say(f"no {which} was heard of " + ("yet" if ago is None else f"for {ago.total_seconds():.0f} s"))
        raise typer.Exit(1)
    say(f"{role}: heard of {ago.total_seconds():.0f} s ago")


@db.command()
def upgrade(context: typer.Context) -> None:
    """Make or change the tables as this version needs them; again and again is harmless."""
    with distributor_of(context, prepared=False) as distributor:
        distributor.database.upgrade()
        has, _ = distributor.database.revision()
        say(f"{distributor.database.name} is at revision {has}")
