"""A post as the checks see it: what it holds, what surrounds it, and what it became on each channel."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path

from distributor.errors import PostError
from distributor.model import Message, Post
from distributor.posts import (
    Body,
    Mistake,
    date_of_name,
    find_front_matter,
    fold,
    post_files,
    read_post,
    read_text,
)
from distributor.preflight.reading import Line, Picture, Reading, read
from distributor.rendering import Document, Outline, local_day, outline
from distributor.settings import Newsletter

COVER_KEYS = ("cover_image", "cover", "image", "thumbnail", "banner", "featured_image")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the checks know besides the post: the posts of the last days, and who carries the newsletter's mail."""

    recent: Sequence[Post] = ()
    mail_hosts: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Proof:
    """A post, what it holds, and what surrounds it; `day` is the local date it is meant to go out on."""

    post: Post
    newsletter: Newsletter
    day: date
    reading: Reading
    front: Mapping[str, int]
    facts: Facts
    messages: Sequence[Message] = ()

    @property
    def lines(self) -> Iterator[Line]:
        for paragraph in self.reading.paragraphs:
            yield from paragraph

    @cached_property
    def text(self) -> str:
        return "\n".join(line.text for line in self.lines)

    @cached_property
    def source(self) -> Mapping[int, str]:
        """The lines of the body as they are written, by their numbers in the file."""
        return dict(enumerate(self.reading.source.split("\n"), self.post.body_line))

    @cached_property
    def outline(self) -> Outline:
        return outline(Document(self.reading.tokens, ()))

    @property
    def title_line(self) -> int | None:
        return self.front.get("title")

    @property
    def dated(self) -> date:
        """The post's own date, else the day it goes out."""
        return local_day(self.post, self.newsletter) or self.day

    @property
    def pictures(self) -> Sequence[Picture]:
        """Those of the body and the cover, which needs no alternative text."""
        cover = self.post.cover_image
        line = next((self.front[name] for name in COVER_KEYS if name in self.front), None)
        return [*([Picture(line=line, alt="-", address=cover)] if cover else []), *self.reading.pictures]

    def line_of(self, text: str, nth: int = 1) -> int | None:
        """The line that begins with `text` for the nth time, as items do with their titles."""
        found = [line.number for line in self.lines if line.text.strip().startswith(text)]
        return found[nth - 1] if len(found) >= nth else None


def read_proof(
    post: Post,
    newsletter: Newsletter,
    day: date,
    facts: Facts | None = None,
    messages: Sequence[Message] = (),
) -> Proof:
    """Reads the post, and its file once more for the lines of its front matter (none when it is gone)."""
    return Proof(
        post=post,
        newsletter=newsletter,
        day=day,
        reading=read(post),
        front=front_lines(post.path),
        facts=facts or Facts(),
        messages=messages,
    )


def front_lines(path: Path) -> Mapping[str, int]:
    """Key → line of the file. A title that is the first heading has that heading's line."""
    with suppress(Mistake, OSError):
        lines = read_text(path).split("\n")
        front = find_front_matter(lines)
        body = Body.of(lines, front.end)
        found = {"title": body.line(body.heading.start)} if body.heading else {}
        return {**found, **{fold(entry.key): entry.line for entry in front.entries}}
    return {}


def recent_posts(
    folder: Path, post: Post, newsletter: Newsletter, day: date, days: int = 7
) -> Sequence[Post]:
    """The posts of the `days` before this one's own, the newest first; drafts and the post itself are left out.

    A file whose name has a date outside of them is not opened: an archive of years costs nothing.
    """
    until = local_day(post, newsletter) or day
    window = range(days + 1)
    found: list[tuple[date, Post]] = []
    for path in post_files(folder, []):
        named = date_of_name(path, newsletter.zone)
        if path.resolve() == post.path.resolve() or (named and (until - named.date()).days not in window):
            continue
        with suppress(PostError):
            other = read_post(path, newsletter.zone)
            when = local_day(other, newsletter)
            if when and not other.draft and (until - when).days in window and other.hash != post.hash:
                found.append((when, other))
    return [other for _, other in sorted(found, key=lambda pair: pair[0], reverse=True)]
