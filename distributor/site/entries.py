"""What has appeared: read from the ledger, and from the folder of posts, whose files may have changed or gone since."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from distributor.errors import PostError
from distributor.model import Issue, IssueState, Post
from distributor.posts import among_drafts, parse_file, post_files
from distributor.rendering import headline, local_day, parse
from distributor.settings import Newsletter, page_name

#: Where an issue stands whose post readers may see. What waits for approval, or was cancelled, is nobody's to read.
OUT = frozenset({IssueState.OPENING, IssueState.SENDING, IssueState.FINISHED})


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A page of the site. `post` is None when its source is gone: only the title is known.

    `withdrawn`: the issue was cancelled, or the post is a draft by now; it is neither shown nor listed.
    `edited`: the post is not the very text that went out.
    `minted` is the day that the feed's identity of it holds, whatever becomes of the post's date.
    """

    slug: str
    title: str
    day: date
    minted: date
    published: datetime
    updated: datetime
    post: Post | None
    issue_id: int | None = None
    withdrawn: bool = False
    edited: bool = False

    @property
    def name(self) -> str:
        return page_name(self.slug)

    @property
    def trouble(self) -> str:
        """Why the source that is there cannot be shown; empty when it can."""
        try:
            if self.post:
                parse(self.post)
        except PostError as error:
            return str(error)
        return ""


def went_out(issue: Issue) -> bool:
    """Whether the issue was let go: what expired before anybody could get it was not."""
    return issue.state in OUT or (issue.state is IssueState.EXPIRED and issue.frozen_at is not None)


def entries_of(
    newsletter: Newsletter,
    issues: Sequence[Issue],
    posts: Mapping[str, Sequence[Post]],
    *,
    also: Callable[[Post], bool] = lambda _post: False,
) -> Sequence[Entry]:
    """The pages of a newsletter, the newest first: its issues that went out, withdrawn or not, and the posts `also` admits.

    `posts`: slug → the files that bear it.
    """
    gone = [
        of_issue(issue, newsletter, posts.get(issue.slug, ()))
        for issue in issues
        if went_out(issue) or issue.state is IssueState.CANCELLED
    ]
    # What waits, was cancelled, or expired without an approval, is not let in by the other door.
    known = {issue.slug for issue in issues}
    more = (post for slug in posts.keys() - known for post in posts[slug][:1])
    rest = [of_post(post, newsletter) for post in more if also(post)]
    return sorted([*gone, *rest], key=lambda entry: (entry.day, entry.published, entry.slug), reverse=True)


def of_issue(issue: Issue, newsletter: Newsletter, candidates: Sequence[Post]) -> Entry:
    post = source_of(issue, candidates)
    edited = post is not None and post.hash != issue.post_hash
    return Entry(
        slug=issue.slug,
        title=headline(post) if post else issue.title,
        day=(local_day(post, newsletter) if post else None) or issue.local_date,
        minted=issue.local_date,
        published=issue.opened_at,
        updated=max(issue.opened_at, changed_at(post)) if post and edited else issue.opened_at,
        post=post,
        issue_id=issue.id,
        withdrawn=issue.state is IssueState.CANCELLED or bool(candidates and not post),
        edited=edited,
    )


def of_post(post: Post, newsletter: Newsletter) -> Entry:
    """A post that has a date, and no issue."""
    assert post.date
    day = post.date.astimezone(newsletter.zone).date()
    return Entry(
        slug=post.slug,
        title=headline(post),
        day=day,
        minted=day,
        published=post.date,
        updated=post.date,
        post=post,
    )


def source_of(issue: Issue, candidates: Sequence[Post]) -> Post | None:
    """The very text that went out, if a file still holds it; else the first file of that slug. Drafts do not count."""
    ready = [post for post in candidates if not post.draft]
    same = (post for post in ready if post.hash == issue.post_hash)
    return next(same, None) or next(iter(ready), None)


def changed_at(post: Post) -> datetime:
    """When the file was changed last, to the second."""
    try:
        return datetime.fromtimestamp(int(post.path.stat().st_mtime), UTC)
    except OSError:
        return datetime.min.replace(tzinfo=UTC)


def is_published(post: Post, now: datetime) -> bool:
    """Whether a post that has no issue may be shown when all posts are: dated, not ahead of its date, no draft."""
    return post.date is not None and post.date <= now and not post.draft


@dataclass(frozen=True)
class Shelf:
    """The posts of a folder. A file is parsed when it is new or has changed: a year of posts takes a second to read."""

    folder: Path
    zone: ZoneInfo
    _read: dict[Path, tuple[tuple[int, int], Post | None]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def posts(self) -> Mapping[str, Sequence[Post]]:
        """Slug → the files that bear it, in the order of their paths. A file that cannot be read counts as gone."""
        by_slug: dict[str, list[Post]] = {}
        with self._lock:
            for post in self._look():
                by_slug.setdefault(post.slug, []).append(post)
        return by_slug

    def _look(self) -> Iterator[Post]:
        there = list(post_files(self.folder, []))
        for path in self._read.keys() - set(there):
            del self._read[path]
        for path in there:
            with suppress(OSError):  # it went away meanwhile
                stamp = _stamp(path)
                if path not in self._read or self._read[path][0] != stamp:
                    self._read[path] = (stamp, self._parse(path))
                if post := self._read[path][1]:
                    yield post

    def _parse(self, path: Path) -> Post | None:
        try:
            post = parse_file(path, self.zone)
        except PostError:
            return None
        return replace(post, draft=post.draft or among_drafts(path, self.folder))


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size
