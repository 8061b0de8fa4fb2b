"""`distributor subscribers …`: tag, count, export; a person's data shown and erased."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

import typer

from distributor.cli.context import distributor_of, hint
from distributor.cli.output import (
    AsJson,
    FilterText,
    NewsletterName,
    json_text,
    print_json,
    print_table,
    say,
    warn,
)
from distributor.cli.readers import ChannelName, app, asked_segment
from distributor.errors import RequestRefused

if TYPE_CHECKING:
    from distributor.audience import Changes
    from distributor.dispatch import Forgotten
    from distributor.settings import Settings

What = Literal["subscribers", "consents", "wordings", "deliveries", "suppressions"]
OutFile = Annotated[
    Path | None, typer.Option("--out", "-o", help="The file to write; without it, standard output.")
]
Address = Annotated[str, typer.Argument(help="The e-mail address, or the Telegram chat id.")]


def register(_root: typer.Typer) -> None:
    """They belong to the readers' family of commands, which is there already."""


@app.command(context_settings={"ignore_unknown_options": True})
def tag(
    context: typer.Context,
    address: Address,
    changes: Annotated[
        list[str] | None,
        typer.Argument(
            help="+TAG adds, -TAG takes away; NAME=VALUE sets an attribute, NAME= takes it away.",
            metavar="[+TAG] [-TAG] [NAME=VALUE]…",
        ),
    ] = None,
    channel: ChannelName = "email",
    # No short form: "-new" is a tag to take away.
    newsletter: Annotated[
        str | None,
        typer.Option("--newsletter", help="The newsletter, when there are several.", metavar="SLUG"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tag a reader's subscription, for segments; without changes, show its tags and attributes."""
    with distributor_of(context) as distributor:
        slug = distributor.settings.newsletter(newsletter).slug
        found = distributor.audience.describe(slug, channel, address, _changes(changes or []))
    if as_json:
        print_json(found)
        return
    shown = [f"+{one}" for one in found.tags] + [
        f"{name}={value}" for name, value in found.attributes.items()
    ]
    say("\n".join(shown) if shown else "no tags, no attributes")


@app.command()
def count(
    context: typer.Context,
    filter_text: FilterText = "",
    newsletter: NewsletterName = None,
    as_json: AsJson = False,
) -> None:
    """Count those who would get an issue now, by channel; with --filter, those of them it names."""
    from distributor.dispatch import segment_of, takes_subscribers  # noqa: PLC0415 - cli/__init__.py

    with distributor_of(context) as distributor:
        chosen = distributor.settings.newsletter(newsletter)
        asked_segment(chosen, filter_text)
        counted = {
            name: distributor.audience.count(chosen.slug, name, segment_of(chosen, name, filter_text))
            for name in chosen.channels
            if takes_subscribers(chosen, name)
        }
    if as_json:
        print_json(counted)
        return
    print_table(["channel", "subscribers"], counted.items(), numbers=["subscribers"])


@app.command()
def export(
    context: typer.Context,
    what: Annotated[What, typer.Option(help="The table.")] = "subscribers",
    filter_text: FilterText = "",
    format_: Annotated[Literal["csv", "json"], typer.Option("--format", help="The file's format.")] = "csv",
    bom: Annotated[
        bool,
        typer.Option("--bom", help="With csv: begin with a byte order mark, which Excel needs for UTF-8."),
    ] = False,
    out: OutFile = None,
    newsletter: NewsletterName = None,
) -> None:
    """Write a whole table for another program. `import` reads what `export` wrote.

    Cells that a spreadsheet would take for a formula have an apostrophe in front; `import` takes it away again.
    """
    from distributor.audience import Export, write_csv, write_json  # noqa: PLC0415 - cli/__init__.py

    with distributor_of(context) as distributor:
        chosen = distributor.settings.newsletter(newsletter)
        segment = asked_segment(chosen, filter_text)
        with (
            distributor.audience.export(Export(what), chosen.slug, segment) as exported,
            _opened(out) as file,
        ):
            rows = write_csv(exported, file, bom=bom) if format_ == "csv" else write_json(exported, file)
    if out:
        say(f"{rows} rows written to {out}")


@app.command("export-person")
def export_person(
    context: typer.Context, address: Address, channel: ChannelName = "email", out: OutFile = None
) -> None:
    """Write everything that is kept about a person, with the chats and the mailbox they linked, as one JSON document."""
    from distributor.dispatch import record_of_person  # noqa: PLC0415 - cli/__init__.py

    with distributor_of(context) as distributor:
        document = record_of_person(distributor.engine, channel, address)
    _warn_of_stranger(document, channel, address)
    with _opened(out) as file:
        file.write(json_text(document))
    if out:
        say(f"written to {out}: it holds personal data, so send it to nobody but this person")


@app.command()
def forget(
    context: typer.Context,
    address: Address,
    channel: ChannelName = "email",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase a person, with the chats and the mailbox they linked. This cannot be undone.

    A hash of each address stays, so that no import brings it back; the person themselves may sign up again.
    """
    from distributor.dispatch import forget as forget_person  # noqa: PLC0415 - cli/__init__.py
    from distributor.dispatch import record_of_person  # noqa: PLC0415 - cli/__init__.py

    with distributor_of(context) as distributor:
        _warn_of_stranger(record_of_person(distributor.engine, channel, address), channel, address)
        traces = distributor.audience.traces(channel, address)
        say("this person: " + ", ".join(f"{trace.address} ({trace.channel})" for trace in traces))
        if not yes:
            _ask(address)
        done = forget_person(distributor.engine, channel, address)
        _tell(distributor.settings, done)


def _changes(words: Sequence[str]) -> Changes:
    from distributor.audience import Changes  # noqa: PLC0415 - cli/__init__.py

    for word in words:
        if word[:1] not in {"+", "-"} and "=" not in word:
            raise RequestRefused(f"{word!r} is no change: write +{word}, -{word} or {word}=VALUE")
    return Changes(
        add=[word[1:] for word in words if word.startswith("+")],
        remove=[word[1:].strip() for word in words if word.startswith("-")],
        attributes=dict(word.split("=", 1) for word in words if word[:1] not in {"+", "-"}),
    )


@contextmanager
def _opened(out: Path | None) -> Iterator[IO[str]]:
    """Standard output, or a file that only its owner can read and that is there whole or not at all."""
    if out is None:
        sys.stdout.reconfigure(newline="", encoding="utf-8")  # type: ignore[union-attr]  # a text file
        yield sys.stdout
        sys.stdout.flush()
        return
    fresh = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        number = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(number, "w", encoding="utf-8", newline="") as file:
            yield file
        fresh.replace(out)
    except OSError as error:
        raise RequestRefused(f"{out}: cannot be written: {error.strerror}") from None
    finally:
        fresh.unlink(missing_ok=True)


def _ask(address: str) -> None:
    typed = typer.prompt("Type the address to erase it", default="", show_default=False, err=True)
    if typed.strip().lower() != address.strip().lower():
        raise RequestRefused("that is not the address; nothing was erased")


def _warn_of_stranger(document: Mapping[str, Any], channel: str, address: str) -> None:
    if not any(place[part] for place in document["places"] for part in set(place) - {"channel", "address"}):
        warn(f"nothing is kept about {address} on {channel}: is this the address as they gave it?")


def _tell(settings: Settings, done: Forgotten) -> None:
    say(
        f"erased; {done.deliveries} deliveries keep a hash instead of the address, {done.skipped} were not sent yet "
        f"and are skipped; {done.files} files of this host named it"
    )
    if done.calls:
        warn(
            f"{done.calls} webhook calls that name it are still to be delivered; once they are, run this again"
        )
    commands = [
        hint(settings, f"subscribers forget --yes --channel {one} -- {where}") for one, where in done.places
    ]
    if not settings.database.embedded:
        warn("where other hosts send too, their journals and sent logs may name it. Run there:")
        for command in commands:
            warn(f"  {command}")
    warn("backups that were made before still hold it: docs/privacy.md says what to do after one is put back")
