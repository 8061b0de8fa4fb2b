"""`distributor subscribers …`: add, import, list, suppress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from distributor.cli import importing
from distributor.cli.context import distributor_of, known_channel
from distributor.cli.output import AsJson, FilterText, Limit, NewsletterName, print_json, print_table, say
from distributor.filters import parse_filter
from distributor.model import SuppressionReason

if TYPE_CHECKING:
    from distributor.audience import Segment
    from distributor.settings import Newsletter

app = typer.Typer(no_args_is_help=True, help="Readers: add, import, list, tag, export, forget.")
ChannelName = Annotated[
    str, typer.Option(help="The channel of the address: email or telegram.", callback=known_channel)
]


def register(root: typer.Typer) -> None:
    importing.register(app)
    root.add_typer(app, name="subscribers")


@app.command()
def add(
    context: typer.Context,
    address: Annotated[str, typer.Argument(help="The e-mail address, or the Telegram chat id.")],
    channel: ChannelName = "email",
    name: Annotated[str, typer.Option(help="The reader's name.")] = "",
    source: Annotated[str, typer.Option(help="Where the consent comes from.")] = "added by hand",
    resubscribe: Annotated[
        bool, typer.Option("--resubscribe", help="The reader left and has asked to come back.")
    ] = False,
    newsletter: NewsletterName = None,
) -> None:
    """Add one reader who has asked for the newsletter."""
    from distributor.audience import NewSubscriber  # noqa: PLC0415 - cli/__init__.py

    with distributor_of(context) as distributor:
        slug = distributor.settings.newsletter(newsletter).slug
        new = NewSubscriber(channel=channel, address=address, source=source, name=name)
        found = distributor.audience.add(slug, new, resubscribe=resubscribe)
    say(f"{found.address} gets {slug} by {channel}")


@app.command("list")
def list_(
    context: typer.Context,
    channel: Annotated[str | None, typer.Option(help="Only this channel.", callback=known_channel)] = None,
    after: Annotated[int, typer.Option(help="Go on behind this subscriber's id.")] = 0,
    limit: Limit = 100,
    filter_text: FilterText = "",
    newsletter: NewsletterName = None,
    as_json: AsJson = False,
) -> None:
    """List readers and their state."""
    with distributor_of(context) as distributor:
        chosen = distributor.settings.newsletter(newsletter)
        segment = asked_segment(chosen, filter_text)
        found = distributor.audience.listing(
            chosen.slug, channel=channel, segment=segment, after=after, limit=limit
        )
    if as_json:
        print_json([{**_row(item)} for item in found])
        return
    columns = ("id", "channel", "address", "state", "suppressed", "since", "source")
    print_table(columns, [tuple(_row(item).values()) for item in found])
    if len(found) == limit:
        say(f"… more: --after {found[-1].subscriber_id}")


@app.command()
def suppress(
    context: typer.Context,
    address: Annotated[str, typer.Argument(help="The address that must not be used any more.")],
    channel: ChannelName = "email",
    note: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """Never send anything to an address again."""
    from distributor.audience import normalise  # noqa: PLC0415 - cli/__init__.py

    with distributor_of(context) as distributor:
        known = normalise(channel, address)
        distributor.audience.suppress(channel, known, SuppressionReason.MANUAL, note)
    say(f"nothing is sent to {known} any more")


@app.command()
def unsuppress(
    context: typer.Context,
    address: Annotated[str, typer.Argument(help="The address that may be used again.")],
    channel: ChannelName = "email",
) -> None:
    """Lift a suppression, when you know that the address works again."""
    from distributor.audience import normalise  # noqa: PLC0415 - cli/__init__.py

    with distributor_of(context) as distributor:
        known = normalise(channel, address)
        distributor.audience.unsuppress(channel, known)
    say(f"{known} may be used again")


def asked_segment(newsletter: Newsletter, filter_text: str) -> Segment | None:
    """The readers that a command names by `--filter`, whatever the newsletter's own filters are. Raises FilterError."""
    from distributor.audience import Segment  # noqa: PLC0415 - cli/__init__.py

    if not filter_text:
        return None
    parse_filter(filter_text)
    return Segment((filter_text,), newsletter.language, newsletter.zone)


def _row(item: object) -> dict[str, object]:
    names = {"id": "subscriber_id", "since": "activated_at"}
    columns = ("id", "channel", "address", "state", "suppressed", "since", "source")
    row = {column: getattr(item, names.get(column, column)) for column in columns}
    return {**row, "since": f"{row['since']:%Y-%m-%d}" if row["since"] else None}
