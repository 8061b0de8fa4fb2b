"""The command itself: its options for all commands, its families of commands, and what an error looks like."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from distributor import __version__
from distributor.cli import (
    bot,
    checking,
    events,
    issues,
    operate,
    persons,
    readers,
    sending,
    serve,
    site,
    tokens,
    webhooks,
)
from distributor.cli.context import default_project
from distributor.cli.output import complain
from distributor.errors import DistributorError, RequestRefused

app = typer.Typer(
    name="distributor",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="""Sends a Markdown newsletter every morning by e-mail, Telegram and WeChat, with a row for every delivery.

First steps:  [bold]distributor demo[/bold] (sends to a built-in sandbox),  [bold]distributor doctor[/bold] (checks your settings),
[bold]distributor preview POST[/bold],  [bold]distributor send --test-to you@example.com[/bold],  [bold]distributor run[/bold].

Exit status: 0 done (refused recipients are normal) · 1 incomplete, unconfirmed or stopped · 2 wrong use.""",
)
for family in (
    sending,
    checking,
    issues,
    events,
    readers,
    persons,
    bot,
    serve,
    site,
    webhooks,
    tokens,
    operate,
):
    family.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"distributor {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    project: Annotated[
        Path | None,
        typer.Option(
            "--project", "-C", help="The folder that holds config/ (default: DISTRIBUTOR_PROJECT, else here)."
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log what happens, to standard error.")
    ] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    context.obj = project.resolve() if project else default_project()
    logging.basicConfig(
        level=logging.INFO if verbose else logging.ERROR,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    # Both print request URLs, and the URLs of Telegram and WeCom hold a secret.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def main() -> None:
    """Runs the command line; no traceback reaches a person for what they can mend. Wrong use is typer's to tell."""
    try:
        app()
    except DistributorError as error:
        sys.exit(complain(error))
    except OSError as error:
        sys.exit(complain(f"{error.filename}: {error.strerror}" if error.filename else str(error)))
    except OverflowError:  # of a database's integers: no row has such a number
        sys.exit(complain(RequestRefused("a number is too large: nothing here has more than 18 digits")))
    except ImportError as error:  # an optional extra that is not installed
        hint = "; run pip install 'distributor[postgres]'" if error.name == "psycopg" else ""
        sys.exit(complain(f"{error}{hint}"))
