"""Commands around issues: list, status, log, approve, pause, resume, cancel, resend, resolve, reconcile."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from distributor.cli import watching
from distributor.cli.context import distributor_of, hint, whoever
from distributor.cli.deliver import conclude, deliver
from distributor.cli.output import (
    AsJson,
    Limit,
    NewsletterName,
    duration,
    plain,
    print_json,
    print_table,
    say,
)
from distributor.cli.watching import day_of, state_of
from distributor.errors import AWAITING, RequestRefused
from distributor.model import (
    OVER,
    DeliveryState,
    Issue,
    Recipient,
    ResendScope,
    Tally,
)

if TYPE_CHECKING:
    from distributor.bootstrap import Distributor
    from distributor.ledger import LogEntry, ResendRequest
    from distributor.ledger.reports import Group, GroupKey

IssueId = Annotated[int | None, typer.Argument(help="The issue's number; the newest one when left out.")]


def register(app: typer.Typer) -> None:
    app.command("issues")(list_issues)
    for command in (status, log, approve, pause, resume, cancel, resend, resolve, reconcile):
        app.command()(command)


def list_issues(
    context: typer.Context, newsletter: NewsletterName = None, limit: Limit = 20, as_json: AsJson = False
) -> None:
    """List the issues, the newest first."""
    with distributor_of(context) as distributor:
        rows = []
        for issue in distributor.ledger.issues(newsletter, limit=limit):
            total = sum(distributor.ledger.tallies(issue.id).values(), Tally())
            rows.append((issue, total))
    if as_json:
        print_json([{**plain(issue), "deliveries": plain(total)} for issue, total in rows])
        return
    print_table(
        ["issue", "newsletter", "day", "state", "planned", "sent", "failed", "unconfirmed", "title"],
        [
            (i.id, i.newsletter, day_of(i), state_of(i), t.planned, t.sent, t.failed, t.unconfirmed, i.title)
            for i, t in rows
        ],
        numbers=["planned", "sent", "failed", "unconfirmed"],
    )
    for issue, _total in rows:
        if issue.hold and issue.state not in OVER:
            say(f"{issue.id} is held: {issue.hold}")


def status(
    context: typer.Context,
    issue_id: IssueId = None,
    newsletter: NewsletterName = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on showing it until it is over, or Ctrl-C.")
    ] = False,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="Group by domain, relay, or domain,relay. Reads every row: of a million, a few seconds.",
            metavar="domain|relay",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how an issue stands: the numbers by channel, rate, ETA, what will miss the deadline, and why.

    Exit status 1 while anything is open or unconfirmed. A large issue that is on its way is looked at twice, a second
    apart, for its rate. With --watch and --json: a line of JSON each time something changed.
    """
    keys = watching.group_keys(by or ())
    if watch and keys:
        raise typer.BadParameter("reads every row, and does not go with --watch", param_hint="--by")
    with distributor_of(context) as distributor:
        issue = _issue(distributor, issue_id, newsletter)
        if watch:
            view = watching.watch(distributor, issue.id, as_json=as_json)
        else:
            groups = _groups(distributor, issue.id, keys) if keys else None
            view = watching.look_once(distributor, issue.id)
            (watching.print_facts if as_json else watching.print_report)(distributor, view, groups)
    total = view.total
    if total.open or total.tally.unconfirmed or not total.tally.balanced:
        raise typer.Exit(1)


def reconcile(
    context: typer.Context,
    issue_id: Annotated[int, typer.Argument(help="The issue's number.")],
    keep_held: Annotated[
        bool, typer.Option("--keep-held", help="Let it wait on: other hosts have sent some of it too.")
    ] = False,
) -> None:
    """After the database was set back in time: write into it what this host's sent log knows, then let the issue go on.

    Where several hosts send, run it on each of them, with --keep-held on all but the last.
    """
    from distributor.dispatch import reconcile as put_right  # noqa: PLC0415 - cli/__init__.py

    with distributor_of(context) as distributor:
        done = put_right(distributor.engine, issue_id, keep_held=keep_held)
        say(f"{done} deliveries of issue {issue_id} are put right from the sent log of this host")
        say(_what_next(distributor, distributor.ledger.issue(issue_id)))


def log(
    context: typer.Context,
    issue_id: IssueId = None,
    newsletter: NewsletterName = None,
    state: Annotated[
        list[DeliveryState] | None, typer.Option(help="Only these states (may be repeated).")
    ] = None,
    channel: Annotated[str | None, typer.Option(help="Only this channel.")] = None,
    to: Annotated[
        str | None, typer.Option(help="Only this address; of every issue when none is named.")
    ] = None,
    after: Annotated[int, typer.Option(help="Go on behind this delivery number.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="At most so many deliveries.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show deliveries with every attempt (when, why it began, how it ended, what the other side said), and later news."""
    with distributor_of(context) as distributor:
        _refuse_unknown(distributor, channel)
        everywhere = to is not None and issue_id is None
        issue = None if everywhere else _issue(distributor, issue_id, newsletter)
        entries = distributor.ledger.log(
            issue.id if issue else None,
            states=state or (),
            channel=channel,
            address=to,
            after=after,
            limit=limit,
        )
    if as_json:
        print_json([{**plain(entry), "delivery": f"{entry.issue_id}.{entry.seq}"} for entry in entries])
        return
    if not entries:
        say("no deliveries match")
    for entry in entries:
        _show(entry)
    if len(entries) == limit and not everywhere:
        say(f"… more: --after {entries[-1].seq}")


def approve(context: typer.Context, issue_id: IssueId = None, newsletter: NewsletterName = None) -> None:
    """Let an issue go that waits for approval; who approved it is recorded."""
    with distributor_of(context) as distributor:
        issue = _issue(distributor, issue_id, newsletter)
        if not distributor.ledger.approve(issue.id, whoever()):
            raise RequestRefused(f"issue {issue.id} is {issue.state}; it does not wait for approval")
        say(
            f"issue {issue.id} is approved by {whoever()}; the workers take it from here "
            f"({hint(distributor.settings, f'status {issue.id}')})"
        )


def pause(context: typer.Context, issue_id: IssueId = None, newsletter: NewsletterName = None) -> None:
    """Stop sending an issue, until `distributor resume`."""
    from distributor.dispatch import pause as pause_issue  # noqa: PLC0415 - cli/__init__.py

    with distributor_of(context) as distributor:
        issue = _issue(distributor, issue_id, newsletter)
        pause_issue(distributor.ledger, issue.id)
        say(f"issue {issue.id} is paused; go on with: {hint(distributor.settings, f'resume {issue.id}')}")


def resume(
    context: typer.Context,
    what: Annotated[
        str | None,
        typer.Argument(
            help="A paused issue's number, or the name of a stopped channel or relay (email/first)."
        ),
    ] = None,
    newsletter: NewsletterName = None,
) -> None:
    """Go on with a paused issue, or use a stopped channel again at once."""
    from distributor.dispatch import resume as resume_issue  # noqa: PLC0415 - cli/__init__.py

    with distributor_of(context) as distributor:
        if what and not what.isdigit():
            was = distributor.ledger.resume_channel(what)
            if not was:
                _refuse_unknown(distributor, what.partition("/")[0])
            say(f"{what} is used again" if was else f"{what} was not stopped")
            return
        issue = _issue(distributor, int(what) if what else None, newsletter)
        if issue.hold:
            command = hint(distributor.settings, f"reconcile {issue.id}")
            raise RequestRefused(f"issue {issue.id} is held; first: {command}\n{issue.hold}")
        resume_issue(distributor.ledger, issue.id)
        say(f"issue {issue.id} goes on")


def cancel(
    context: typer.Context,
    issue_id: Annotated[int, typer.Argument(help="The issue's number.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it, without asking.")] = False,
) -> None:
    """Stop an issue for good: what is pending is skipped. What was sent cannot be called back."""
    from distributor.dispatch import cancel as cancel_issue  # noqa: PLC0415 - cli/__init__.py
    from distributor.dispatch import refuse_over  # noqa: PLC0415 - cli/__init__.py

    with distributor_of(context) as distributor:
        issue = distributor.ledger.issue(issue_id)
        refuse_over(issue)
        if not yes:
            typer.confirm(f"Cancel issue {issue.id} ({issue.title})?", abort=True)
        skipped = cancel_issue(distributor.ledger, issue.id)
        say(f"issue {issue.id} is cancelled; {skipped} deliveries are skipped")


def resend(
    context: typer.Context,
    issue_id: Annotated[int, typer.Argument(help="The issue's number.")],
    only: Annotated[
        ResendScope, typer.Option(help="Which deliveries; missing: active now, not in the frozen audience.")
    ] = ResendScope.FAILED,
    reason: Annotated[str, typer.Option(help="Why; it stands in the log of every attempt.")] = "",
    channel: Annotated[str | None, typer.Option(help="Only this channel.")] = None,
    to: Annotated[str | None, typer.Option(help="Only this address.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it nothing is changed.")] = False,
    wait: Annotated[str, typer.Option(help="How long to stay and watch, such as 10m.")] = "10m",
) -> None:
    """Repair an issue: send again what failed, what is unconfirmed, or to those who are missing.

    A dry run until --yes. What was sent is refused unless --only all; whoever has left is never reached.
    """
    from distributor.dispatch import plan_resend  # noqa: PLC0415 - cli/__init__.py
    from distributor.dispatch import resend as resend_deliveries  # noqa: PLC0415 - cli/__init__.py
    from distributor.ledger import ResendRequest  # noqa: PLC0415 - cli/__init__.py

    patience = duration(wait, "--wait")
    with distributor_of(context) as distributor:
        asked = ResendRequest(scope=only, reason=reason, by=whoever(), channel=channel, address=to)
        plan = plan_resend(distributor.engine, issue_id, asked)
        if not plan.total:
            say(_nothing(distributor, issue_id, asked))
            return
        print_table(["channel", f"{only} deliveries"], plan.by_channel.items())
        if not yes:
            say("nothing was changed (dry run); add --yes to do it")
            return
        number = resend_deliveries(distributor.engine, issue_id, asked)
        say(f"{number} deliveries of issue {issue_id} go out again: {reason}")
        raise typer.Exit(deliver(distributor, distributor.ledger.issue(issue_id), patience=patience))


def resolve(
    context: typer.Context,
    delivery: Annotated[str, typer.Argument(help="The delivery, as the log names it: ISSUE.NUMBER.")],
    sent: Annotated[bool | None, typer.Option("--sent/--not-sent", help="What you found out.")] = None,
) -> None:
    """Settle an unconfirmed delivery by your word, after you looked: --sent or --not-sent."""
    match = re.fullmatch(r"(\d+)\.(\d+)", delivery)
    if match is None:
        raise typer.BadParameter("write ISSUE.NUMBER, such as 12.345", param_hint="delivery")
    if sent is None:
        raise typer.BadParameter("say --sent or --not-sent", param_hint="--sent/--not-sent")
    with distributor_of(context) as distributor:
        distributor.ledger.resolve(int(match[1]), int(match[2]), sent=sent, by=whoever())
        say(f"{delivery} is settled: {'sent' if sent else 'failed'}")
        conclude(distributor, distributor.ledger.issue(int(match[1])))


def _issue(distributor: Distributor, issue_id: int | None, newsletter: str | None) -> Issue:
    if issue_id is not None:
        return distributor.ledger.issue(issue_id)
    newest = distributor.ledger.issues(newsletter, limit=1)
    if not newest:
        raise RequestRefused("no issue was opened yet: `distributor send`, or let `distributor run` do it")
    return newest[0]


def _refuse_unknown(distributor: Distributor, channel: str | None) -> None:
    if channel is not None and channel not in distributor.channels:
        raise RequestRefused(
            f"no channel is called {channel!r}; there are: {', '.join(distributor.channels)}"
        )


def _nothing(distributor: Distributor, issue_id: int, asked: ResendRequest) -> str:
    if asked.address and asked.scope is not ResendScope.ALL:
        for entry in distributor.ledger.log(issue_id, address=asked.address, channel=asked.channel):
            if entry.state is DeliveryState.SENT:
                return f"{asked.address} was already sent to; --only all sends it again all the same"
    which = "" if asked.scope is ResendScope.ALL else f"{asked.scope} "
    where = f" for {asked.address}" if asked.address else ""
    return f"nothing to resend: issue {issue_id} has no {which}deliveries{where} that may be reached"


def _show(entry: LogEntry) -> None:
    awaits = entry.state is DeliveryState.UNCONFIRMED and entry.code == AWAITING
    why = " (awaiting a person)" if awaits else f" ({entry.reason})" if entry.reason else ""
    say(
        f"{entry.issue_id}.{entry.seq}  {entry.channel}  {entry.destination or entry.address}  {entry.state}{why}"
    )
    for attempt in entry.attempts:
        again = f" → again {attempt.retry_at:%H:%M:%S}" if attempt.retry_at else ""
        reason = f" “{attempt.reason}”" if attempt.reason else ""
        via = f", by {attempt.relay}" if attempt.relay not in {None, "", entry.channel} else ""
        say(
            f"    {attempt.started_at:%Y-%m-%d %H:%M:%S} UTC  {attempt.trigger}{reason}: {attempt.outcome}{again}  "
            f"{attempt.code} {attempt.text}  ({attempt.duration_ms} ms{via})"
        )
    for event in entry.events:
        lasting = f" ({event.permanence})" if event.permanence else ""
        said = f"{event.code or ''} {event.detail}".strip()
        say(
            f"    {event.occurred_at:%Y-%m-%d %H:%M:%S} UTC  {event.provider} says: {event.kind}{lasting}  {said}"
        )


def _groups(distributor: Distributor, issue_id: int, keys: Sequence[GroupKey]) -> Sequence[Group]:
    probe = "somebody@some.example"
    with_domains = [
        name
        for name, channel in distributor.channels.items()
        if channel.domain_key(Recipient(channel=name, address=probe))
    ]
    return distributor.ledger.groups(issue_id, keys, with_domains)


def _what_next(distributor: Distributor, issue: Issue) -> str:
    still_open = sum(distributor.ledger.tallies(issue.id).values(), Tally()).open
    if issue.hold:
        return f"issue {issue.id} is still held: now the same on the other hosts that send, without --keep-held on the last"
    if issue.state in OVER or not still_open:
        return f"nothing of issue {issue.id} is open"
    watch = hint(distributor.settings, f"status {issue.id} --watch")
    return f"issue {issue.id} goes on with {still_open} open deliveries, as soon as a worker is there; see: {watch}"
