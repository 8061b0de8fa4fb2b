"""`distributor bot …`: how we hear what readers say to the Telegram bot."""

from __future__ import annotations

import logging
import threading

import typer

from distributor.cli.context import distributor_of, settings_of, stopping_on_signals
from distributor.cli.output import AsJson, print_json, print_table, say
from distributor.errors import RequestRefused

app = typer.Typer(no_args_is_help=True, help="The Telegram bot: its webhook, or polling.")


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="bot")


@app.command("set-webhook")
def set_webhook(context: typer.Context) -> None:
    """Tell Telegram to bring what readers say to web.base_url; again after that, or the secret, has changed."""
    from distributor.bot import set_webhook as tell  # noqa: PLC0415 - cli/__init__.py

    say(f"Telegram brings what readers say to {tell(settings_of(context))}")


@app.command("delete-webhook")
def delete_webhook(context: typer.Context) -> None:
    """Tell Telegram to bring nothing any more; what readers say meanwhile waits there for a day."""
    from distributor.bot import delete_webhook as tell  # noqa: PLC0415 - cli/__init__.py

    tell(settings_of(context))
    say("Telegram brings nothing any more")


@app.command()
def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Show what Telegram says about the bot and its webhook."""
    from distributor.bot import webhook_status  # noqa: PLC0415 - cli/__init__.py

    settings = settings_of(context)
    found = webhook_status(settings)
    if as_json:
        print_json({"mode": settings.bot.mode, **vars(found)})
        return
    rows = [
        ("mode", settings.bot.mode),
        ("bot", f"@{found.username}"),
        ("webhook", found.url or "none"),
        ("updates that wait", found.waiting),
        ("last error", found.last_error or "none"),
    ]
    print_table(["what", "is"], rows)


@app.command()
def poll(context: typer.Context) -> None:
    """Ask Telegram for what readers say, until Ctrl-C: beside workers, which do not; `distributor run` does it itself."""
    from distributor.bootstrap import poller_of  # noqa: PLC0415 - cli/__init__.py

    logging.getLogger().setLevel(logging.INFO)
    with distributor_of(context) as distributor:
        if distributor.settings.bot.mode != "polling":
            raise RequestRefused(
                f'bot.mode is "{distributor.settings.bot.mode}": set it to "polling" in config/distributor.toml'
            )
        stop = threading.Event()
        with stopping_on_signals(stop), poller_of(distributor):
            say("asking Telegram for what readers say; Ctrl-C stops")
            stop.wait()
