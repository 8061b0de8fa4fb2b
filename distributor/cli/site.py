"""`distributor site build`: the pages of the full text, written anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distributor.cli.context import distributor_of
from distributor.cli.output import AsJson, NewsletterName, print_json, print_table, say
from distributor.errors import RequestRefused

if TYPE_CHECKING:
    from distributor.bootstrap import Distributor
    from distributor.site import Built

app = typer.Typer(
    no_args_is_help=True, help="The site: a page for each post that went out, an index, a feed."
)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="site")


@app.callback()
def family() -> None:
    """Keeps `build` a word of its own, although it is the only one."""


@app.command()
def build(
    context: typer.Context,
    newsletter: NewsletterName = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The folder to write into (default: site.folder).")
    ] = None,
    all_posts: Annotated[
        bool,
        typer.Option(
            "--all-posts", help="Also posts that never went out, except drafts, undated and future ones."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the page of everything that went out, an index and a feed.

    [bold]You seldom need it:[/bold] with site.folder set, an issue's page is written when
    the issue opens. Use it after you changed a template or corrected posts, when
    a page could not be written, or to fill a folder for another web server.

      distributor site build                      all newsletters, into site.folder
      distributor site build -o public            into a folder of your choice
      distributor site build -n NAME --all-posts  with posts from before you came here

    Writes FOLDER/NEWSLETTER/PAGE/index.html, and index.html and feed.xml beside
    the pages. A second build of the same posts changes no byte.

    A page is made from the post's file as it is now; where that is gone, the page
    that is there stays, and you are told. No page is ever deleted: to take one
    down, make its post a draft, build, and remove the folder that is named then.

    What waits for approval or was cancelled gets no page; nor does, with
    --all-posts, a post of a later date. Exit status 1 when a post cannot be
    shown (a link to nowhere, say); the others are written all the same.
    """
    with distributor_of(context) as distributor:
        folder = out or distributor.site.folder
        if folder is None:
            raise RequestRefused(
                'name a folder: --out DIR, or folder = "var/site" under [site] in config/distributor.toml'
            )
        built = [
            distributor.site.build(slug, folder, all_posts=all_posts)
            for slug in _chosen(distributor, newsletter)
        ]
    if as_json:
        print_json({"folder": folder, "newsletters": built})
    else:
        _show(built, folder)
    if any(each.broken for each in built):
        raise typer.Exit(1)


def _chosen(distributor: Distributor, newsletter: str | None) -> list[str]:
    """All newsletters when none is named."""
    if newsletter is None:
        return list(distributor.settings.newsletters)
    return [distributor.settings.newsletter(newsletter).slug]


def _show(built: list[Built], folder: Path) -> None:
    rows = [(each.newsletter, each.pages, each.written) for each in built]
    print_table(["newsletter", "pages", "files written"], rows, numbers=["pages", "files written"])
    for each in built:
        if each.missing:
            say(f"{each.newsletter}: went out, but no file is left of it: {', '.join(each.missing)}")
        for page in each.withdrawn:
            say(f"{each.newsletter}: withdrawn, and no longer listed; to take its page down, remove {page}/")
        for trouble in each.broken:
            say(f"{each.newsletter}: cannot be shown: {trouble}")
    say(f"written to {folder}/")
