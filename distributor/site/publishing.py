"""The site in one place: what has appeared, rendered on request or written as files."""

import logging
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from distributor.errors import PostError
from distributor.ledger import Ledger
from distributor.model import Issue, Post
from distributor.rendering import template_environment
from distributor.settings import Newsletter, Settings, page_name
from distributor.site.entries import Entry, Shelf, entries_of, is_published
from distributor.site.pages import Pages

log = logging.getLogger(__name__)

#: More issues than a daily newsletter has in a century.
ALL = 40_000
#: What `page_name` makes: nothing that leads out of its folder.
PAGE = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a build did for one newsletter.

    `missing`: slugs that went out, and whose source is gone. `broken`: why a source cannot be shown.
    `withdrawn`: folders that are left of posts that were made drafts again, and of issues that were cancelled.
    """

    newsletter: str
    pages: int
    written: int
    missing: Sequence[str] = ()
    broken: Sequence[str] = ()
    withdrawn: Sequence[Path] = ()


class Site:
    """Pages on request, and as files."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        *,
        tell: Callable[[str, str, str], object],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`tell(key, subject, text)` tells the operator."""
        self.settings, self.ledger, self.tell, self.now = settings, ledger, tell, now
        self.shelves = {
            slug: Shelf(settings.path(newsletter.posts), newsletter.zone)
            for slug, newsletter in settings.newsletters.items()
        }
        #: (newsletter, file) → of which entries it was made, and what became of them
        self._made: dict[tuple[str, str], tuple[Sequence[Entry], bytes]] = {}

    @cached_property
    def pages(self) -> Pages:
        return Pages(self.settings, template_environment(self.settings.root))

    @property
    def folder(self) -> Path | None:
        return self.settings.path(self.settings.site.folder) if self.settings.site.folder else None

    # ── where the pages are ──────────────────────────────────────────────────────────────────────────────────────

    def page_of(self, issue: Issue) -> str | None:
        """The address of an issue's page when its newsletter's full text lives here; else None."""
        newsletter = self.settings.newsletters.get(issue.newsletter)
        pattern = self.settings.page_pattern(issue.newsletter)
        if newsletter is None or not pattern or newsletter.url_pattern != pattern:
            return None
        return self.pages.url(newsletter, page_name(issue.slug))

    # ── on request ───────────────────────────────────────────────────────────────────────────────────────────────

    def home(self) -> bytes:
        seen = any(shelf.posts() for shelf in self.shelves.values())
        return (not seen and self._written("index.html")) or self._home(self.folder)

    def index(self, newsletter: str) -> bytes | None:
        """None for a newsletter that is not there."""
        return self._newsletter_file(newsletter, "index.html", self.pages.index)

    def feed(self, newsletter: str) -> bytes | None:
        """None for a newsletter that is not there."""
        return self._newsletter_file(newsletter, "feed.xml", self.pages.feed)

    def post(self, newsletter: str, name: str) -> bytes | None:
        """The page of that name; None when there is none, it was withdrawn, or its post can no longer be shown.

        A file of the folder, unless the post was corrected since: a correction is seen at once, built or not.
        """
        known = self.settings.newsletters.get(newsletter)
        if known is None or not PAGE.fullmatch(name):
            return None
        entries = self._entries(known, self.folder)
        withdrawn = [entry.withdrawn for entry in entries if entry.name == name]
        if all(withdrawn) if withdrawn else self._is_draft(known, name):
            return None
        path = f"{newsletter}/{name}/index.html"
        corrected = any(entry.name == name and self._is_newer(entry, path) for entry in entries)
        if not corrected and (found := self._written(path)):
            return found
        return self._rendered(known, entries, name) or self._written(path)

    def _is_newer(self, entry: Entry, path: str) -> bool:
        """Whether the post is not the one of the file: by its text, whatever times a copied file has, or by its time."""
        try:
            written = (self.folder / path).stat().st_mtime_ns if self.folder else 0
            return entry.post is not None and (entry.edited or entry.post.path.stat().st_mtime_ns > written)
        except OSError:
            return False

    def _rendered(self, newsletter: Newsletter, entries: Sequence[Entry], name: str) -> bytes | None:
        shown = [entry for entry in entries if _can_be_shown(self.folder, newsletter, entry)]
        number = next((number for number, entry in enumerate(shown) if entry.name == name), None)
        if number is None or shown[number].post is None:
            return None
        try:
            return self._post(newsletter, shown, number)
        except PostError as error:
            log.warning("site_page_unavailable %s", error)
            return None

    def _is_draft(self, newsletter: Newsletter, name: str) -> bool:
        """Whether a post without an issue was made a draft again, whose page is still a file."""
        posts = self.shelves[newsletter.slug].posts().items()
        return any(post.draft for slug, found in posts if page_name(slug) == name for post in found)

    def issue_of_page(self, newsletter: str, name: str) -> int | None:
        """The issue whose page that is or was, if anybody could get it: its frozen mail can be read in any case."""
        issues = self.ledger.issues(newsletter, limit=ALL)
        return next((each.id for each in issues if each.frozen_at and page_name(each.slug) == name), None)

    def _newsletter_file(
        self, newsletter: str, name: str, render: Callable[[Newsletter, Sequence[Entry]], bytes]
    ) -> bytes | None:
        known = self.settings.newsletters.get(newsletter)
        if known is None:
            return None
        # a web process that does not see the posts (in a container, say) has the files alone
        seen = self.shelves[newsletter].posts()
        return (not seen and self._written(f"{newsletter}/{name}")) or self._remembered(known, name, render)

    def _remembered(
        self, newsletter: Newsletter, name: str, render: Callable[[Newsletter, Sequence[Entry]], bytes]
    ) -> bytes:
        """A feed is thirty posts, a quarter of a second: it is made anew when one of its entries has changed."""
        shown, key = self._shown(newsletter, self.folder), (newsletter.slug, name)
        known = self._made.get(key)
        if known is None or known[0] != shown:
            known = self._made[key] = (shown, render(newsletter, shown))
        return known[1]

    def _written(self, path: str) -> bytes | None:
        """A file of the folder."""
        try:
            return (self.folder / path).read_bytes() if self.folder else None
        except OSError:
            return None

    # ── as files ─────────────────────────────────────────────────────────────────────────────────────────────────

    def publish(self, issue: Issue, post: Post | None) -> None:
        """Writes the files that change with an issue: its page, its neighbours', index and feed.

        Without a post, only when its page is not there yet. Raises nothing: readers have the mail, and an operator's own
        template must not stop it.
        """
        newsletter = self.settings.newsletters.get(issue.newsletter)
        if self.folder is None or newsletter is None:
            return
        if post is None and _page_file(self.folder, newsletter.slug, page_name(issue.slug)).exists():
            return
        try:
            self._publish(self.folder, newsletter, issue, post)
        except Exception as error:
            log.exception("site_not_written issue=%s", issue.id)
            self.tell(
                f"site:{issue.id}",
                f"{issue.newsletter} {issue.local_date}: the page of issue {issue.id} was not written",
                f"{error}\n\nThe issue goes out all the same; links to its page are dead until it is there.\n"
                f"Mend the cause, then: distributor site build --newsletter {issue.newsletter}",
            )

    def _publish(self, folder: Path, newsletter: Newsletter, issue: Issue, post: Post | None) -> None:
        shown = self._shown(newsletter, folder, given=post)
        own = next((number for number, entry in enumerate(shown) if entry.issue_id == issue.id), None)
        if own is None:
            raise PostError(
                issue.slug, "its page cannot be made: no good file of that slug is in the folder of posts"
            )
        written = self._write(newsletter, folder, shown, range(max(0, own - 1), min(own + 2, len(shown))))
        log.info("site_written issue=%s files=%s", issue.id, written)

    def build(self, newsletter: str, folder: Path, *, all_posts: bool = False) -> Built:
        """Writes every page of a newsletter that can be made, its index and feed; a file that says so already stays as it is.

        `all_posts`: with the posts that have no issue, except drafts, undated ones, and those of a later date. Once
        written, such a page stays in the index. Raises OSError.
        """
        known = self.settings.newsletters[newsletter]
        entries = self._entries(known, folder, all_posts=all_posts)
        shown = [entry for entry in entries if _can_be_shown(folder, known, entry)]
        return Built(
            newsletter=newsletter,
            pages=len(shown),
            written=self._write(known, folder, shown, range(len(shown))),
            missing=[entry.slug for entry in entries if not (entry.post or entry.withdrawn)],
            broken=[trouble for entry in entries if (trouble := entry.trouble) and not entry.withdrawn],
            withdrawn=[
                file.parent
                for entry in entries
                if entry.withdrawn and (file := _page_file(folder, newsletter, entry.name)).exists()
            ],
        )

    def _write(self, newsletter: Newsletter, folder: Path, shown: Sequence[Entry], numbers: range) -> int:
        """The pages of these numbers, then what lists them; returns how many files are new or changed."""
        here, written = folder / newsletter.slug, 0
        for number in numbers:
            entry = shown[number]
            if entry.post and not entry.trouble:
                page = self._post(newsletter, shown, number)
                written += write_whole(_page_file(folder, newsletter.slug, entry.name), page)
        written += write_whole(here / "index.html", self.pages.index(newsletter, shown))
        written += write_whole(here / "feed.xml", self.pages.feed(newsletter, shown))
        return written + write_whole(folder / "index.html", self._home(folder))

    # ── what has appeared ────────────────────────────────────────────────────────────────────────────────────────

    def _post(self, newsletter: Newsletter, entries: Sequence[Entry], number: int) -> bytes:
        """The page between its neighbours: the newest comes first. Raises PostError."""
        newer = entries[number - 1] if number else None
        older = entries[number + 1] if number + 1 < len(entries) else None
        return self.pages.post(newsletter, entries[number], older=older, newer=newer)

    def _entries(
        self,
        newsletter: Newsletter,
        folder: Path | None,
        *,
        given: Post | None = None,
        all_posts: bool = False,
    ) -> Sequence[Entry]:
        """`given` is the post of an issue that opens, wherever its file lies."""
        posts = dict(self.shelves[newsletter.slug].posts())
        if given:  # a person may send a draft by its name
            posts[given.slug] = [replace(given, draft=False), *posts.get(given.slug, ())]
        now = self.now()

        def also(post: Post) -> bool:
            return is_published(post, now) and (all_posts or _is_written(folder, newsletter.slug, post))

        issues = self.ledger.issues(newsletter.slug, limit=ALL)
        return entries_of(newsletter, issues, posts, also=also)

    def _shown(
        self, newsletter: Newsletter, folder: Path | None, *, given: Post | None = None
    ) -> Sequence[Entry]:
        """Those with a page, or one that can be made."""
        entries = self._entries(newsletter, folder, given=given)
        return [entry for entry in entries if _can_be_shown(folder, newsletter, entry)]

    def _home(self, folder: Path | None) -> bytes:
        return self.pages.home(
            [(each, self._shown(each, folder)) for each in self.settings.newsletters.values()]
        )


def _page_file(folder: Path, newsletter: str, name: str) -> Path:
    return folder / newsletter / name / "index.html"


def _can_be_shown(folder: Path | None, newsletter: Newsletter, entry: Entry) -> bool:
    """Without a folder, every page: one whose source is gone leads to the frozen mail. Else those that are files or can be."""
    if entry.withdrawn:
        return False
    if folder is None or _page_file(folder, newsletter.slug, entry.name).exists():
        return True
    return entry.post is not None and not entry.trouble


def _is_written(folder: Path | None, newsletter: str, post: Post) -> bool:
    return folder is not None and _page_file(folder, newsletter, page_name(post.slug)).exists()


def write_whole(path: Path, data: bytes) -> bool:
    """Puts the file there in one piece, so that nobody reads half of it; False when it already says that."""
    try:
        if path.read_bytes() == data:
            return False
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return True
