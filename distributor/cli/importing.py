"""`distributor subscribers import …`: readers from a CSV or from another system, and out again."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Self

import typer

from distributor.cli.context import distributor_of, hint, known_channel, whoever
from distributor.cli.output import (
    AsJson,
    Limit,
    NewsletterName,
    err,
    print_json,
    print_table,
    say,
)
from distributor.errors import RequestRefused

if TYPE_CHECKING:
    from distributor.audience import ImportReport, Refusal
    from distributor.audience.importing import Import, Origin, Undoing
    from distributor.bootstrap import Distributor
    from distributor.settings import Newsletter

#: Seconds between two lines of progress where there is no bar.
LINE_EVERY = 5.0
#: Refused lines that are printed; the file has all.
SHOWN = 20
YES_NO = {"yes": True, "no": False}


def register(app: typer.Typer) -> None:
    app.command("import")(import_)
    app.command()(imports)
    app.command("undo-import")(undo_import)


def import_(
    context: typer.Context,
    files: Annotated[
        list[str],
        typer.Argument(
            help="CSVs with a header (email; name, consent_at …), or Mailchimp's zip. STATUS=FILE says what all of a "
            "file's readers are, as in unsubscribed=left.csv.",
            metavar="FILE…",
        ),
    ],
    origin: Annotated[
        str, typer.Option("--from", help="Whose files these are: csv, listmonk, ghost, mailchimp.")
    ] = "csv",
    mapping: Annotated[
        list[str], typer.Option("--map", help='A column by another name: --map email="E-mail address".')
    ] = [],  # noqa: B006 - typer wants it, and nobody changes it
    consent: Annotated[
        str, typer.Option(help="Where and how they agreed, for all whose line does not say.")
    ] = "",
    mailed_today: Annotated[
        str,
        typer.Option(help="yes: the old system mailed them today already; they begin with tomorrow's issue."),
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would happen; change nothing.")
    ] = False,
    errors: Annotated[
        Path | None, typer.Option(help="Where refused lines go; else beside the first file.", metavar="FILE")
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Of the files, when it is guessed wrongly.")] = None,
    channel: Annotated[
        str, typer.Option(help="Of lines that do not say: email or telegram.", callback=known_channel)
    ] = "email",
    newsletter: NewsletterName = None,
    as_json: AsJson = False,
) -> None:
    """Import many readers. Nobody who left comes back; bad lines are written to a file and the rest goes on."""
    from distributor.audience import ImportOrder  # noqa: PLC0415 - cli/__init__.py
    from distributor.audience.importing import Reading  # noqa: PLC0415 - cli/__init__.py

    reading = Reading(_mapped(mapping), consent.strip(), channel)
    sources = _sources(origin, files, reading, encoding)
    with distributor_of(context) as distributor:
        chosen = distributor.settings.newsletter(newsletter)
        order = ImportOrder(
            newsletter=chosen.slug,
            origin=origin,
            file=", ".join(source.sheet.name for source in sources)[:500],
            asked_by=whoever(),
            begins_at=None if dry_run else _begins_at(distributor, chosen, origin, mailed_today),
            dry_run=dry_run,
        )
        path = errors or Path(_path_of(files[0])[1]).with_suffix(".errors.csv")
        with _Refused(path) as refused, _progress(sources, quiet=as_json) as progress:
            report = distributor.audience.import_lines(order, sources, progress, refused.add)
        undo = hint(distributor.settings, f"subscribers undo-import {report.import_id}")
    if as_json:
        kept = str(path) if refused.number else None
        print_json({"import": report.import_id, "dry_run": dry_run, "counts": report.table, "errors": kept})
    else:
        _show(report, sources, refused, undo)
    if refused.number:
        raise typer.Exit(1)


def imports(
    context: typer.Context, limit: Limit = 50, newsletter: NewsletterName = None, as_json: AsJson = False
) -> None:
    """List imports, the newest first."""
    with distributor_of(context) as distributor:
        slug = distributor.settings.newsletter(newsletter).slug if newsletter else None
        found = distributor.audience.imports(slug, limit=limit)
    if as_json:
        print_json(found)
        return
    print_table(
        ("import", "newsletter", "from", "file", "began", "state", "added"),
        [
            (
                one.id,
                one.newsletter,
                one.origin,
                one.file,
                f"{one.started_at:%Y-%m-%d %H:%M} UTC",
                _state(one),
                _added(one),
            )
            for one in found
        ],
        numbers=("import", "added"),
    )


def undo_import(
    context: typer.Context,
    number: Annotated[int, typer.Argument(help="The import, as `imports` lists it.", metavar="IMPORT")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it nothing is changed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take an import back: what it brought and nobody has touched since. A dry run until --yes."""
    with distributor_of(context) as distributor:
        before = distributor.audience.import_(number)
        undone = distributor.audience.undo_import(number) if yes else distributor.audience.plan_undo(number)
    if as_json:
        print_json({"import": number, "dry_run": not yes, **_plain(undone)})
        return
    say(f"import {number} ({before.origin}: {before.file})" + ("" if yes else ": what would go"))
    say(f"  {undone.subscriptions:,} subscriptions with their evidence, {undone.suppressions:,} suppressions")
    if undone.stays:
        more = "" if undone.stays <= len(undone.examples) else " …"
        say(f"  {undone.stays:,} stay, because they changed since: {', '.join(undone.examples)}{more}")
    if not yes:
        say("nothing was changed (dry run); add --yes to do it")


class _Refused:
    """The file of refused lines, made with the first of them."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, 0
        self.first: list[Refusal] = []
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._file:
            self._file.close()

    def add(self, refusal: Refusal) -> None:
        from distributor.audience.csv_cells import guarded  # noqa: PLC0415 - cli/__init__.py

        if self._file is None:
            self._open()
        self.number += 1
        if len(self.first) < SHOWN:
            self.first.append(refusal)
        self._writer.writerow(
            (
                guarded(refusal.file),
                refusal.number,
                guarded(refusal.column),
                guarded(refusal.problem),
                guarded(_shown(refusal.value)),
            )
        )

    def _open(self) -> None:
        try:
            self._file = self.path.open("w", encoding="utf-8-sig", newline="")
        except OSError as error:
            raise RequestRefused(
                f"{self.path}: cannot be written: {error.strerror}; name another with --errors"
            ) from None
        self._writer = csv.writer(self._file)
        self._writer.writerow(("file", "line", "column", "problem", "value"))


def _mapped(options: Sequence[str]) -> dict[str, str]:
    pairs = [option.partition("=") for option in options]
    if wrong := next((ours for ours, equals, theirs in pairs if not (ours and equals and theirs)), None):
        raise RequestRefused(f'--map {wrong}: write it as --map email="Your column"')
    return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}


def _sources(origin: str, files: Sequence[str], reading: Any, encoding: str | None) -> Sequence[Origin]:
    from distributor.audience.importing import ORIGINS, sheets_of, understand  # noqa: PLC0415 - cli/__init__.py

    if origin not in ORIGINS:
        raise RequestRefused(f"--from {origin}: known are {', '.join(ORIGINS)}")
    named = [(says, sheets_of(Path(path), encoding)) for says, path in map(_path_of, files)]
    return understand(origin, named, reading)


def _path_of(file: str) -> tuple[str, str]:
    """(what is said of its lines, the path) of `STATUS=FILE`, or of a plain path."""
    says, equals, path = file.partition("=")
    return (says.lower(), path) if equals and says.isalpha() and not Path(file).exists() else ("", file)


def _begins_at(distributor: Distributor, newsletter: Newsletter, origin: str, answer: str) -> datetime | None:
    """From when on they get issues: whoever was mailed by the old system today waits for tomorrow's."""
    now = datetime.now(newsletter.zone)
    if answer and answer not in YES_NO:
        raise RequestRefused(f"--mailed-today {answer}: yes or no")
    if not answer and (origin == "csv" or distributor.ledger.issue_of(newsletter.slug, now.date())):
        return None
    mailed = YES_NO[answer] if answer else _asked(newsletter)
    return (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0) if mailed else None


def _asked(newsletter: Newsletter) -> bool:
    if not sys.stdin.isatty():
        raise RequestRefused(
            f"today's issue of {newsletter.slug} has not gone out yet: did the old system mail these readers today? "
            "Say --mailed-today yes (they begin tomorrow) or --mailed-today no"
        )
    return typer.confirm("Did the old system mail these readers today already?", err=True)


@contextmanager
def _progress(sources: Sequence[Origin], *, quiet: bool) -> Iterator[Any]:
    """A bar on a terminal, a line now and then elsewhere."""
    from rich.progress import Progress  # noqa: PLC0415 - cli/__init__.py

    size = sum(source.sheet.size * (2 if source.standings is None else 1) for source in sources)
    told = time.monotonic()
    with Progress(console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("importing", total=size)

        def progress(lines: int) -> None:
            nonlocal told
            done = sum(source.sheet.done for source in sources)
            bar.update(task, completed=min(done, size), description=f"importing: {lines:,} lines")
            if bar.disable and not quiet and time.monotonic() - told >= LINE_EVERY:
                told = time.monotonic()
                err.print(f"{lines:,} lines, {done * 100 // max(1, size)} % of the bytes read", markup=False)

        yield progress


def _show(report: ImportReport, sources: Sequence[Origin], refused: _Refused, undo: str) -> None:
    from distributor.audience import Verdict  # noqa: PLC0415 - cli/__init__.py

    for source in sources:
        say(f"{source.sheet.name}: {source.sheet.encoding}, {source.sheet.separator}")
    ends = [end for end in Verdict if report.of(end)]
    rows = [
        (says, sum(found.values()), *(found.get(end, 0) for end in ends))
        for says, found in report.table.items()
    ]
    print_table(("status", "lines", *ends), rows, numbers=("lines", *ends))
    for one in refused.first:
        where = f"{one.file}: line {one.number}: " + (f"{one.column}: " if one.column else "")
        err.print(
            f"{where}{one.problem}" + (f": {_shown(one.value)[:60]}" if one.value else ""), markup=False
        )
    if refused.number:
        err.print(f"refused lines: {refused.number:,}; all of them: {refused.path}", markup=False)
    if report.import_id is None:
        say("nothing was changed (dry run)")
    else:
        say(f"import {report.import_id} is done; to take it back: {undo}")


def _shown(value: str) -> str:
    """Of a file from outside: without what a terminal would obey."""
    return "".join(sign if sign.isprintable() else "�" for sign in value)


def _state(one: Import) -> str:
    if one.undone_at:
        return "undone"
    return "done" if one.finished_at else "interrupted, or still running"


def _added(one: Import) -> int:
    return sum(found.get("added", 0) for found in one.counts.values())


def _plain(undone: Undoing) -> dict[str, object]:
    return {
        "subscriptions": undone.subscriptions,
        "suppressions": undone.suppressions,
        "stays": undone.stays,
        "examples": list(undone.examples),
    }
