"""Commands around a post: demo, preview, send, rehearse."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from distributor.cli.context import distributor_of, hint, program, settings_of, stopping_on_signals
from distributor.cli.deliver import conclude, deliver
from distributor.cli.output import (
    AsJson,
    FilterText,
    NewsletterName,
    duration,
    print_json,
    print_table,
    say,
    warn,
)
from distributor.errors import RequestRefused
from distributor.filters import parse_filter
from distributor.model import Issue, IssueState, OpenedBy, Post

if TYPE_CHECKING:
    from distributor.bootstrap import Distributor
    from distributor.settings import Newsletter, Settings

#: An issue that a second `send` goes on with.
UNDER_WAY = {IssueState.OPENING, IssueState.SENDING}
#: A demonstration or rehearsal that takes longer than this is stuck.
REHEARSAL = timedelta(minutes=5)


def register(app: typer.Typer) -> None:
    for command in (demo, preview, send, rehearse):
        app.command()(command)


def demo(
    folder: Annotated[
        Path, typer.Option(help="Where the demonstration keeps its database and its inbox.")
    ] = Path(".demo"),
    subscribers: Annotated[int, typer.Option(min=1, help="How many made-up readers to import.")] = 1000,
) -> None:
    """Run the main job against the built-in sandbox: import readers, open the issue, deliver it on three channels.

    Some of the readers are refused, throttled, blocked or have left, so that you see how each ends. A second run says
    that the issue was already sent, and sends nothing.
    """
    from distributor import demo as demonstration  # noqa: PLC0415 - the sandbox is an optional extra

    raise typer.Exit(demonstration.run(folder.resolve(), subscribers, say, _deliver_demo, program=program()))


def preview(
    context: typer.Context,
    post: Annotated[
        str | None,
        typer.Argument(
            help="The post: a file, or the slug of one in the folder of posts; today's when left out."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write into.")] = Path("preview"),
    pictures: Annotated[
        bool,
        typer.Option(
            "--pictures", help="Fetch and re-host new pictures, as a send would (settings: pictures)."
        ),
    ] = False,
    newsletter: NewsletterName = None,
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Show it as a page that follows each save, instead of writing files."),
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="With --serve: the port on 127.0.0.1; 0 takes a free one.")
    ] = 8030,
    browser: Annotated[
        bool, typer.Option("--open", help="With --serve: open the page in a browser.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Render a post on every channel into files, and send nothing.

    Writes email.html, email.txt, email.eml, telegram-1.html …, wecom-1.md, wechat.txt, wechat-article.html and summary.json (sizes against
    each platform's limits). With --serve: a page with every channel side by side, and a chooser for the other posts.
    """
    if serve:
        _serve_preview(context, post, newsletter, port, browser=browser)
        return
    from distributor.dispatch import findings_of, render  # noqa: PLC0415 - cli/__init__.py
    from distributor.preview import write_preview  # noqa: PLC0415 - cli/__init__.py

    with distributor_of(context, prepared=False) as distributor:
        chosen = distributor.settings.newsletter(newsletter)
        today = datetime.now(chosen.zone).date()
        found = _choose(distributor.settings, chosen, post, today, command="preview POST")
        messages = render(distributor.engine, chosen, found, fetch=pictures)
        summary = write_preview(messages, out)
        findings = findings_of(distributor.engine, chosen, found, today, messages)
    if as_json:
        print_json(summary)
        return
    columns = ("channel", "variant", "part", "characters", "utf16_units", "entities", "utf8_bytes")
    print_table(columns, [[row.get(name) for name in columns] for row in summary], numbers=columns[2:])
    for finding in findings:
        if finding.severity != "note":
            say(str(finding))
    say(f"written to {out}/")


def send(
    context: typer.Context,
    post: Annotated[
        str | None, typer.Argument(help="The post (file or slug); today's by its date when left out.")
    ] = None,
    newsletter: NewsletterName = None,
    on: Annotated[
        datetime | None, typer.Option("--date", formats=["%Y-%m-%d"], help="The local date to send for.")
    ] = None,
    test_to: Annotated[
        str | None, typer.Option(help="Send to this one address, marked as a test; opens no issue.")
    ] = None,
    channel: Annotated[str, typer.Option(help="With --test-to: the channel.")] = "email",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent to how many; change nothing.")
    ] = False,
    extra: Annotated[bool, typer.Option("--extra", help="A second issue on this day.")] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Even if the audience is empty or far smaller than last time.")
    ] = False,
    filter_text: FilterText = "",
    wait: Annotated[
        str, typer.Option(help="How long to stay and watch, such as 10m; retries may come later.")
    ] = "10m",
) -> None:
    """Open the day's issue and deliver it now.

    Plain `send` takes the day's place: the scheduler will not open another, and a second `send` goes on with what is
    left of this one.

    With --filter the issue is for some readers alone. The day's issue is everybody's, so it must be an extra one.
    """
    from distributor.dispatch import (  # noqa: PLC0415 - cli/__init__.py
        inspect_to_send,
        open_issue,
        planned_sizes,
        tell_warnings,
        test_send,
    )
    from distributor.ledger import once_only  # noqa: PLC0415 - cli/__init__.py

    patience = duration(wait, "--wait")
    _refuse_unfit_filter(filter_text, extra=extra, test=bool(test_to))
    with distributor_of(context) as distributor:
        chosen = distributor.settings.newsletter(newsletter)
        if test_to and channel not in chosen.channels:
            raise RequestRefused(
                f"{chosen.slug} has no channel {channel!r}; it has: {', '.join(chosen.channels)}"
            )
        day = on.date() if on else datetime.now(chosen.zone).date()
        if not (test_to or extra) and (issue := distributor.ledger.issue_of(chosen.slug, day)):
            _refuse_another(distributor.settings, chosen, post, issue)
            raise typer.Exit(_go_on(distributor, issue, patience, dry_run=dry_run))
        found = _choose(distributor.settings, chosen, post, day)
        if test_to:
            receipts = test_send(distributor.engine, chosen, found, channel, test_to, tell=warn)
            say(f"test sent to {test_to} ({len(receipts)} message(s)); no issue was opened")
            return
        if before := distributor.ledger.sent_as(chosen.slug, found.slug):
            if before.state not in UNDER_WAY:
                raise RequestRefused(once_only(before))
            raise typer.Exit(_go_on(distributor, before, patience, dry_run=dry_run))
        if dry_run:
            inspection = inspect_to_send(distributor.engine, chosen, found, day)
            tell_warnings(inspection, warn)
            _show_plan(
                found, planned_sizes(distributor.engine, chosen, filter_text), len(inspection.messages)
            )
            return
        issue, _ = open_issue(
            distributor.engine,
            chosen,
            found,
            day,
            by=OpenedBy.PERSON,
            extra=extra,
            guarded=not anyway,
            filter_text=filter_text,
            tell=warn,
        )
        say(f"{chosen.slug} {day}: issue {issue.id}: {issue.title}")
        raise typer.Exit(deliver(distributor, issue, patience=patience))


def rehearse(
    context: typer.Context,
    post: Annotated[
        str | None, typer.Argument(help="The post (file or slug); today's by its date when left out.")
    ] = None,
    newsletter: NewsletterName = None,
    inbox: Annotated[
        Path | None, typer.Option(help="Keep the rehearsal's inbox in this folder, to look at.")
    ] = None,
    filter_text: FilterText = "",
) -> None:
    """Run today's issue through the whole pipeline, with your audience, into the sandbox: nobody gets anything."""
    from distributor.dispatch import open_issue  # noqa: PLC0415 - cli/__init__.py
    from distributor.rehearsal import copy_audience, rehearsal, unfiltered  # noqa: PLC0415 - the sandbox is an optional extra
    from distributor.sandbox.server import Sandbox  # noqa: PLC0415 - as above

    settings = settings_of(context)
    chosen = settings.newsletter(newsletter)
    found = _choose(settings, chosen, post, datetime.now(chosen.zone).date())
    with (
        TemporaryDirectory(prefix="rehearsal-") as scratch,
        distributor_of(context) as real,
        Sandbox(inbox) as sandbox,
        rehearsal(settings, sandbox, Path(scratch) / "rehearsal.sqlite3") as distributor,
    ):
        say(f"copying the audience of {chosen.slug} …")
        copy_audience(real, distributor, chosen, filter_text)
        day = datetime.now(chosen.zone).date()
        issue, _ = open_issue(
            distributor.engine, unfiltered(chosen), found, day, by=OpenedBy.PERSON, guarded=False, tell=warn
        )
        status = deliver(distributor, issue, patience=REHEARSAL, kept=False)
    say(
        "nobody got anything: it all went to the sandbox"
        + (f" ({program()} sandbox --inbox {inbox})" if inbox else "")
    )
    raise typer.Exit(status)


def _deliver_demo(distributor: Distributor, issue: Issue) -> int:
    return deliver(distributor, issue, patience=REHEARSAL)


def _refuse_unfit_filter(filter_text: str, *, extra: bool, test: bool) -> None:
    if not filter_text:
        return
    parse_filter(filter_text)
    if test:
        raise RequestRefused(
            "--filter chooses readers, and a test goes to one address: leave one of them out"
        )
    if not extra:
        raise RequestRefused(
            "the day's issue is for everybody: one for some readers in its place would leave the others without. "
            "Add --extra, or set audience.filter when the newsletter itself is for these readers"
        )


def _refuse_another(settings: Settings, newsletter: Newsletter, post: str | None, issue: Issue) -> None:
    """A post that was named is not the one that has the day: saying "already opened" would sound as if it had gone out."""
    if post is None:
        return
    from distributor.posts import find_post  # noqa: PLC0415 - cli/__init__.py

    named = find_post(settings.path(newsletter.posts), post, newsletter.zone)
    if named.slug != issue.slug:
        raise RequestRefused(
            f"{issue.newsletter} {issue.local_date}: the day belongs to issue {issue.id} ({issue.slug}); "
            f"{named.slug} was not sent.\nTo send it as a second issue of this day: "
            + hint(settings, f"send --extra {named.slug}")
        )


def _go_on(distributor: Distributor, issue: Issue, patience: timedelta, *, dry_run: bool) -> int:
    """Goes on with what is left of an issue; returns the exit status."""
    say(
        f"{issue.newsletter} {issue.local_date}: issue {issue.id} ({issue.title}) was already opened; nothing is sent twice"
    )
    if dry_run or issue.paused or issue.state not in UNDER_WAY:
        return conclude(distributor, issue)
    return deliver(distributor, issue, patience=patience)


def _serve_preview(
    context: typer.Context, post: str | None, newsletter: str | None, port: int, *, browser: bool
) -> None:
    from distributor.preview.board import Desk, named_post  # noqa: PLC0415 - cli/__init__.py
    from distributor.preview.server import serve  # noqa: PLC0415 - likewise

    settings = settings_of(context)
    chosen = settings.newsletter(newsletter)
    opened = named_post(settings.path(chosen.posts), post, chosen.zone) if post else None
    # uvicorn takes the signals while it runs and raises them again at its end; that is no reason to end badly.
    with stopping_on_signals(threading.Event()):
        serve(
            Desk(settings.root, chosen.slug, opened),
            port,
            ready=lambda address: say(f"preview: {address}   follows each save; Ctrl-C stops"),
            browser=browser,
        )


def _choose(
    settings: Settings, newsletter: Newsletter, post: str | None, day: date, command: str = "send POST"
) -> Post:
    from distributor.posts import PickVerdict, find_post, pick_post  # noqa: PLC0415 - cli/__init__.py

    folder = settings.path(newsletter.posts)
    if post:
        return find_post(folder, post, newsletter.zone)
    # A person has asked for it now: the file need not lie still first.
    pick = pick_post(folder, day, newsletter.zone, now=datetime.now(UTC), settle=timedelta(0))
    if pick.verdict is PickVerdict.PICKED and pick.post:
        return pick.post
    raise RequestRefused(f"{newsletter.slug} {day}: {pick.detail}\nName the post: {hint(settings, command)}")


def _show_plan(post: Post, sizes: Mapping[str, int], messages: int) -> None:
    say(f"{post.title}\n{post.path}\n{messages} messages rendered; it would go to:")
    print_table(["channel", "recipients"], sizes.items(), numbers=["recipients"])
    say("nothing was sent (dry run)")
