"""The command `check`: what an editor should know about a post before it goes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distributor.cli.context import distributor_of
from distributor.cli.output import AsJson, NewsletterName, print_json, say
from distributor.errors import PostError, RequestRefused

if TYPE_CHECKING:
    from distributor.bootstrap import Distributor
    from distributor.model import Post
    from distributor.preflight import Finding
    from distributor.settings import Newsletter

SEVERITIES = ("error", "warning", "note")


def register(app: typer.Typer) -> None:
    app.command()(check)


def check(
    context: typer.Context,
    posts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="POST",
            help="Files or slugs; left out: today's post, else the next one that has a date.",
        ),
    ] = None,
    newsletter: NewsletterName = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings too end with exit status 1.")] = False,
    online: Annotated[
        bool, typer.Option("--online", help="Also ask every link of the post whether it is still there.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check posts as every send does: links, pictures, placeholders, dates, subject, sizes, yesterday's post again.

    Prints a line for each finding, with file and line, how bad it is, its name, and what to do:

        posts/today.md:12: warning: link-shortened: https://bit.ly/x hides where it leads; … → use the address it leads to

    [bold]error[/bold]: must not go out, and a send stops there. [bold]warning[/bold]: readers will notice; a send goes on and logs it.
    [bold]note[/bold]: could be better.

    A check that is wrong for a newsletter is switched off by name, in newsletters/SLUG.toml under \\[preflight]
    with ignore = \\["link-shortened"], or for one post in its front matter with preflight_ignore: link-shortened.

    Exit status: 0 no errors · 1 errors (or, with --strict, warnings) · 2 wrong use.
    """
    with distributor_of(context, prepared=False) as distributor:
        chosen = distributor.settings.newsletter(newsletter)
        today = datetime.now(chosen.zone).date()
        names = posts or [str(_next_post(distributor, chosen, today).path)]
        found = {name: _findings(distributor, chosen, name, today, online=online) for name in names}
    every = _sorted([finding for findings in found.values() for finding in findings])
    if as_json:
        print_json({**_counted(every), "posts": [_as_json(name, found[name]) for name in found]})
    else:
        _print(every, len(found))
    bad = SEVERITIES[: 2 if strict else 1]
    raise typer.Exit(1 if any(finding.severity in bad for finding in every) else 0)


def _findings(
    distributor: Distributor, newsletter: Newsletter, name: str, today: date, *, online: bool
) -> Sequence[Finding]:
    """Of one post; a file that cannot be read is a finding too. Raises PostError when no post is called so."""
    from distributor.dispatch import inspect  # noqa: PLC0415 - cli/__init__.py
    from distributor.posts import find_post  # noqa: PLC0415 - cli/__init__.py
    from distributor.preflight import in_order, read_proof, refused  # noqa: PLC0415 - cli/__init__.py

    folder = distributor.settings.path(newsletter.posts)
    try:
        post = find_post(folder, name, newsletter.zone)
    except PostError as error:
        if Path(error.path) == folder:
            raise
        return [_shown(refused(error))]
    found = list(inspect(distributor.engine, newsletter, post, today).findings)
    if online:
        from distributor.preflight.online import check_online  # noqa: PLC0415 - an HTTP client

        found += check_online(read_proof(post, newsletter, today))
    return [_shown(finding) for finding in in_order(found)]


def _next_post(distributor: Distributor, newsletter: Newsletter, today: date) -> Post:
    """Today's, else the first of the days to come."""
    from distributor.posts import PickVerdict, load_posts, pick_post  # noqa: PLC0415 - cli/__init__.py

    folder = distributor.settings.path(newsletter.posts)
    pick = pick_post(folder, today, newsletter.zone, now=datetime.now(UTC), settle=timedelta(0))
    if pick.post:
        return pick.post
    if pick.verdict is not PickVerdict.NONE:
        raise RequestRefused(f"{newsletter.slug} {today}: {pick.detail}")
    coming = [
        (post.date, post)
        for post in load_posts(folder, newsletter.zone).posts
        if post.date and not post.draft and post.date.astimezone(newsletter.zone).date() > today
    ]
    if not coming:
        raise RequestRefused(f"{newsletter.slug}: no post is dated {today} or later in {folder}; name one")
    return min(coming, key=lambda pair: pair[0])[1]


def _shown(finding: Finding) -> Finding:
    """With the path as it works from where the user stands."""
    here = Path.cwd()
    near = finding.path.is_relative_to(here)
    return replace(finding, path=finding.path.relative_to(here)) if near else finding


def _sorted(findings: Sequence[Finding]) -> Sequence[Finding]:
    """By severity over all posts; within one, post after post."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _print(findings: Sequence[Finding], posts: int) -> None:
    for finding in findings:
        say(str(finding))
    counts = ", ".join(_count(number, name) for name, number in _totals(findings))
    say(f"{counts} in {_count(posts, 'post')}")


def _totals(findings: Sequence[Finding]) -> Iterator[tuple[str, int]]:
    seen = Counter(finding.severity for finding in findings)
    for name in SEVERITIES:
        yield name, sum(count for severity, count in seen.items() if severity == name)


def _counted(findings: Sequence[Finding]) -> dict[str, int]:
    return {f"{name}s": number for name, number in _totals(findings)}


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}" + ("" if number == 1 else "s")


def _as_json(name: str, findings: Sequence[Finding]) -> dict[str, object]:
    return {"post": name, **_counted(findings), "findings": list(findings)}
