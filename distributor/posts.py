"""Files → `Post`: front matter, dates, and which post is a day's.

Front matter is YAML between `---`, TOML between `+++`, JSON in braces (Hugo) or closed by `;;;` (Hexo), header lines
as in Pelican and MultiMarkdown, or absent. Keys are read without regard to case, and `-` counts as `_`.
"""

import codecs
import difflib
import html
import json
import os
import re
import stat
import tomllib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from distributor.errors import PostError
from distributor.model import AiUse, Post

SUFFIXES = (".md", ".markdown")
LARGEST_POST = 2_000_000  # bytes
LONGEST_FRONT_MATTER = 64_000  # characters; more is a post whose closing line is missing
LONGEST_TITLE = 300
DRAFT_FOLDERS = frozenset({"_drafts", "drafts"})
NAMED = 3  # files named in a sentence before "and n more"

T = TypeVar("T")


class PickVerdict(StrEnum):
    """What the folder says about a day."""

    PICKED = "picked"
    NONE = "none"
    UNSETTLED = "unsettled"  # a file of the day changed a moment ago: look again later
    AMBIGUOUS = "ambiguous"  # different posts for one day: hold and ask
    BROKEN = "broken"  # no good post, and a file that could be the day's cannot be read


@dataclass(frozen=True, kw_only=True)
class PostFolder:
    """A folder as read: the good posts, and one error for each bad file."""

    posts: Sequence[Post]
    errors: Sequence[PostError]


@dataclass(frozen=True, kw_only=True)
class Pick:
    """The answer to "which post is this day's?". `post` is set exactly when the verdict is picked.

    `detail` is a sentence for the operator; `candidates` are the files it speaks of.
    """

    verdict: PickVerdict
    detail: str
    post: Post | None = None
    candidates: Sequence[Path] = ()


def read_post(path: Path, zone: ZoneInfo) -> Post:
    """The post in one file; a date without a zone is meant in `zone`. Raises PostError with file, line, reason."""
    post = parse_file(path, zone)
    return replace(post, draft=post.draft or path.parent.name in DRAFT_FOLDERS)


def load_posts(folder: Path, zone: ZoneInfo) -> PostFolder:
    """Every post below `folder`, ordered by path. Bad files, and folders that cannot be read, stand in `errors`."""
    posts: list[Post] = []
    errors: list[PostError] = []
    for path in post_files(folder, errors):
        try:
            post = parse_file(path, zone)
        except PostError as error:
            if os.path.lexists(path):  # an editor that saves by renaming takes files away for a moment
                errors.append(error)
        else:
            posts.append(replace(post, draft=post.draft or among_drafts(path, folder)))
    return PostFolder(posts=tuple(posts), errors=tuple(errors))


def pick_post(
    folder: Path, day: date, zone: ZoneInfo, *, now: datetime, settle: timedelta = timedelta(seconds=30)
) -> Pick:
    """The post dated `day` in `zone`. Drafts are never picked; `now` is aware. Never raises for what a file holds."""
    content = load_posts(folder, zone)
    dated = [post for post in content.posts if post.date and post.date.astimezone(zone).date() == day]
    ready = [post for post in dated if not post.draft]
    suspects = [error for error in content.errors if could_be_of(error, day, zone, folder)]
    paths = [*(post.path for post in ready), *(Path(error.path) for error in suspects)]
    if fresh := [path for path in paths if changed_within(path, now, settle)]:
        seconds = int(settle.total_seconds())
        detail = f"Changed less than {seconds} s ago, so perhaps not finished: {named(fresh, folder)}."
        return Pick(verdict=PickVerdict.UNSETTLED, detail=detail, candidates=fresh)
    if len({post.hash for post in ready}) > 1:
        return ambiguous(ready, day, folder)
    if ready:
        return picked(ready, suspects, day, folder)
    if suspects:
        reasons = "; ".join(str(error) for error in suspects[:NAMED])
        detail = f"No good post for {day}, and a file that could be it is broken: {reasons}."
        return Pick(verdict=PickVerdict.BROKEN, detail=detail, candidates=paths)
    return nothing(content.posts, dated, day, folder)


def find_post(folder: Path, name: str, zone: ZoneInfo) -> Post:
    """The post that a person calls `name`: a path, a slug or a file name. Raises PostError, with near misses."""
    if path := existing_file(folder, name):
        return read_post(path, zone)
    content = load_posts(folder, zone)
    known = {post.path: {post.slug, post.path.name, post.path.stem} for post in content.posts}
    found = [post for post in content.posts if {name, name.lower()} & known[post.path]]
    if len(found) == 1:
        return found[0]
    if found:
        paths = [post.path for post in found]
        raise PostError(folder, f'several posts are called "{name}": {named(paths, folder)}; give the path')
    for error in content.errors:
        if name in {Path(error.path).name, Path(error.path).stem}:
            raise error
    raise PostError(folder, f'no post is called "{name}"; {near_misses(name, content.posts)}')


# Sentences and verdicts


def named(paths: Sequence[Path], folder: Path) -> str:
    names = [str(path.relative_to(folder) if path.is_relative_to(folder) else path) for path in paths]
    more = [f"and {len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join([*names[:NAMED], *more])


def ambiguous(ready: Sequence[Post], day: date, folder: Path) -> Pick:
    paths = [post.path for post in ready]
    detail = (
        f"Different posts are dated {day}: {named(paths, folder)}."
        " Make all but one a draft, give them another date, or send one by name."
    )
    return Pick(verdict=PickVerdict.AMBIGUOUS, detail=detail, candidates=paths)


def picked(ready: Sequence[Post], suspects: Sequence[PostError], day: date, folder: Path) -> Pick:
    first, *copies = [post.path for post in ready]
    detail = f"{named([first], folder)} is the post of {day}."
    if copies:
        detail += f" The same text stands in {named(copies, folder)}."
    if suspects:
        detail += " Beside it, broken: " + "; ".join(str(error) for error in suspects[:NAMED]) + "."
    return Pick(verdict=PickVerdict.PICKED, detail=detail, post=ready[0], candidates=[first, *copies])


def nothing(posts: Sequence[Post], drafts: Sequence[Post], day: date, folder: Path) -> Pick:
    undated = [post.path for post in posts if post.date is None and not post.draft]
    waiting = [post.path for post in drafts]
    detail = f"No post is dated {day}."
    if waiting:
        detail += f" Still a draft: {named(waiting, folder)}."
    if undated:
        detail += f" Without a date, so never picked: {named(undated, folder)}."
    return Pick(verdict=PickVerdict.NONE, detail=detail, candidates=[*waiting, *undated])


def near_misses(name: str, posts: Sequence[Post]) -> str:
    if not posts:
        return "there are no posts in this folder"
    slugs = sorted({post.slug for post in posts})
    close = [slug for slug in slugs if name.lower() in slug]
    close += difflib.get_close_matches(name.lower(), slugs, n=NAMED)
    return "did you mean " + ", ".join(list(dict.fromkeys(close or slugs[-NAMED:]))[:NAMED]) + "?"


def existing_file(folder: Path, name: str) -> Path | None:
    for path in (folder / name, Path(name)):
        with suppress(OSError):  # a name longer than the file system allows
            if path.suffix.lower() in SUFFIXES and path.is_file():
                return path
    return None


def changed_within(path: Path, now: datetime, settle: timedelta) -> bool:
    """A time far in the future comes from a wrong clock, not from a change: waiting for it would never end."""
    try:
        age = now.timestamp() - path.stat().st_mtime
    except OSError:
        return False
    return abs(age) < settle.total_seconds()


def could_be_of(error: PostError, day: date, zone: ZoneInfo, folder: Path) -> bool:
    """Whether a broken file may be the day's: its date line or its name says so, or neither says anything."""
    path = Path(error.path)
    if among_drafts(path, folder):
        return False
    moment = glimpse_date(path, zone) or date_of_name(path, zone)
    return moment is None or moment.astimezone(zone).date() == day


DATE_LINE = re.compile(
    r"""^[\s"'{]*date["']?\s*[:=]\s*["']?([^"'\n#]+?)["',\s]*$""", re.IGNORECASE | re.MULTILINE
)


def glimpse_date(path: Path, zone: ZoneInfo) -> datetime | None:
    with suppress(Mistake, ValueError):
        head = read_bytes(path)[:4096].decode(errors="replace")
        if match := DATE_LINE.search(head):
            return parse_moment(match[1], zone)
    return None


# Folders

CONFLICT_COPY = re.compile(
    r"\.sync-conflict-|conflicted copy|_conflict-\d{8}|SFConflict|冲突副本|衝突複本", re.IGNORECASE
)
COPY_OF = re.compile(
    r"(.+?)(?: ?\(\d+\)| \d+| copy(?: \d+)?| - Copy(?: \(\d+\))?| 副本(?: \d+)?| - 副本(?: \(\d+\))?)"
)
FOREIGN_FOLDERS = frozenset({"__MACOSX", "@eaDir"})


def post_files(folder: Path, errors: list[PostError]) -> Iterator[Path]:
    """Files (and folders named like one) that should be posts; folders that cannot be listed go to `errors`."""

    def note(error: OSError) -> None:
        errors.append(PostError(error.filename or folder, f"this folder cannot be read: {error.strerror}"))

    for here, folders, files in os.walk(folder, onerror=note):
        names = {*files, *folders}
        yield from (Path(here, name) for name in sorted(names) if is_post_name(name, names))
        folders[:] = sorted(name for name in folders if not is_skipped_folder(name))


def is_post_name(name: str, siblings: Iterable[str]) -> bool:
    stem, suffix = Path(name).stem, Path(name).suffix
    if suffix.lower() not in SUFFIXES or name.startswith((".", "~", "#")) or stem.endswith("~"):
        return False
    if CONFLICT_COPY.search(name):
        return False
    copy = COPY_OF.fullmatch(stem)
    return copy is None or f"{copy[1]}{suffix}" not in siblings


def is_skipped_folder(name: str) -> bool:
    return name.startswith(".") or name in FOREIGN_FOLDERS or name.lower().endswith(SUFFIXES)


def among_drafts(path: Path, folder: Path) -> bool:
    """Looks only below `folder`: where the whole tree lives says nothing about a post."""
    return path.is_relative_to(folder) and not DRAFT_FOLDERS.isdisjoint(path.relative_to(folder).parent.parts)


# A file's text


class Mistake(Exception):
    """What is wrong, and on which line; becomes a PostError where the path is known."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        self.reason, self.line = reason, line
        super().__init__(reason)


def read_bytes(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise Mistake("this is a folder; a post is a file")
        if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
            raise Mistake("this is not an ordinary file")
        with path.open("rb") as file:
            data = file.read(LARGEST_POST + 1)
    except OSError as error:
        raise Mistake(f"cannot be read: {error.strerror}") from None
    if len(data) > LARGEST_POST:
        raise Mistake(f"larger than {LARGEST_POST // 1_000_000} MB; a post is text, link to pictures instead")
    return data


# Unseen characters that break YAML, XML or a mail header; U+2028 and U+2029 are line ends to some programs only.
UNWANTED = dict.fromkeys((*range(9), *range(0xB, 0x20), *range(0x7F, 0xA0), 0xFEFF, 0xFFFE, 0xFFFF))
CLEANED: Mapping[int, str | None] = UNWANTED | {0x2028: " ", 0x2029: " "}


def read_text(path: Path) -> str:
    data = read_bytes(path)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Mistake(encoding_reason(data, error), data.count(b"\n", 0, error.start) + 1) from None
    if (nul := text.find("\0")) >= 0:
        reason = "holds a NUL character: is it UTF-16, or no text at all? Save it as UTF-8"
        raise Mistake(reason, text.count("\n", 0, nul) + 1)
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(CLEANED)


def encoding_reason(data: bytes, error: UnicodeDecodeError) -> str:
    where = f"not UTF-8 at byte {error.start}"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return f"{where}: it looks like UTF-16; save it as UTF-8"
    if error.reason == "unexpected end of data":
        return f"{where}: it ends inside a character; copy it again, or save it as UTF-8"
    with suppress(UnicodeDecodeError):
        data.decode("gb18030")
        return f"{where}: it looks like GB18030 (GBK); save it as UTF-8"
    return f"{where}; save it as UTF-8"


# Front matter


class Entry(NamedTuple):
    """One key of the front matter as spelled, its value, and its line in the file."""

    key: str
    value: object
    line: int


@dataclass(frozen=True, kw_only=True)
class FrontMatter:
    """What stands above the body; `end` is the index of the body's first line."""

    entries: Sequence[Entry]
    end: int


Parser = Callable[
    [str, int], Sequence[Entry]
]  # the text between the fences, and the file's line of its first line


def find_front_matter(lines: Sequence[str]) -> FrontMatter:
    start = next((number for number, line in enumerate(lines) if line.strip()), 0)
    opening = lines[start].rstrip()
    if opening in FENCES:
        return fenced(lines, opening, start, start + 1)
    if JSON_OPENING.match(opening):
        return braced(lines, start)
    if HEXO_JSON.match(opening) and any(line.rstrip() == ";;;" for line in lines):
        return fenced(lines, ";;;", start, start)
    return headers(lines, start) or FrontMatter(entries=(), end=start)


def fenced(lines: Sequence[str], fence: str, opening: int, first: int) -> FrontMatter:
    closing, parse = FENCES[fence]
    end = next((i for i in range(first, len(lines)) if lines[i].rstrip() in closing), None)
    if end is None:
        reason = f'front matter begins with "{fence}" here and never ends; close it with a line "{fence}"'
        raise Mistake(reason, opening + 1)
    text = "\n".join(lines[first:end])
    if len(text) > LONGEST_FRONT_MATTER:
        raise Mistake(f'front matter too long: is a line "{fence}" missing?', opening + 1)
    return FrontMatter(entries=parse(text, first + 1), end=end + 1)


class FrontMatterLoader(yaml.BaseLoader):
    """Scalars stay text, so that a title `1.10` or `No` means what it says; no aliases, no tags, no key twice."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # the stubs leave it out
            raise yaml.composer.ComposerError(None, None, "found an alias", mark)
        return super().compose_node(parent, index)

    def construct_scalar(self, node: yaml.ScalarNode) -> str | None:  # type: ignore[override]  # YAML's null
        if node.style is None and node.value in {"", "~", "null"}:
            return None
        return str(node.value)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.composer.ComposerError(None, None, f"{key.value} is set twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, first: int) -> Sequence[Entry]:
    if match := re.search(r"^\w+：", text, re.MULTILINE):
        reason = 'a full-width colon "：" after the key; write ": " with a space'
        raise Mistake(reason, first + text.count("\n", 0, match.start()))
    try:
        return yaml_entries(text, first)
    except yaml.MarkedYAMLError as error:
        raise yaml_mistake(error, first) from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise Mistake(f"front matter is not YAML: {one_line(str(error))}", first) from None


def yaml_entries(text: str, first: int) -> Sequence[Entry]:
    loader = FrontMatterLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return ()
        if not isinstance(node, yaml.MappingNode):
            raise Mistake('front matter must be lines of "key: value", with a space after the colon', first)
        entries = [
            Entry(
                str(loader.construct_object(key, deep=True)), loader.construct_object(value, deep=True), line
            )
            for key, value in node.value
            for line in [first + key.start_mark.line]
        ]
        refuse_cut_title(node, text.split("\n"), first)
        return entries
    finally:
        loader.dispose()


def refuse_cut_title(node: yaml.MappingNode, lines: Sequence[str], first: int) -> None:
    """`title: AI #1` is "AI" to YAML; a headline that lost its end must not go out."""
    for key, value in node.value:
        if str(key.value).lower() == "title" and isinstance(value, yaml.ScalarNode) and value.style is None:
            rest = lines[value.end_mark.line][value.end_mark.column :]
            if rest.lstrip().startswith("#"):
                reason = 'YAML takes " #" in the title for a comment; put the title in quotes: title: "…"'
                raise Mistake(reason, first + value.end_mark.line)


YAML_HINTS = (
    ("is set twice", "keep one"),
    ("mapping values are not allowed", 'a value with ": " in it needs quotes: title: "AI: the news"'),
    ("'\\t'", "there is a tab; use spaces"),
    ("an alias", "a value that begins with * needs quotes"),
    ("an anchor", "a value that begins with & needs quotes"),
    ("quoted scalar", "a quotation mark is not closed"),
    ("could not find expected ':'", 'each line reads "key: value", with a space after the colon'),
    ("expected <block end>", "quotes or brackets inside a value need quotes around all of it"),
    ("cannot start any token", "a value that begins with @, % or ` needs quotes"),
)


def yaml_mistake(error: yaml.MarkedYAMLError, first: int) -> Mistake:
    """PyYAML points at where it gave up; for a quote or key left open, where it began is what helps."""
    began = error.context_mark if (error.context or "").startswith("while scanning") else None
    mark = began or error.problem_mark
    said = f"{error.context or ''} {error.problem or ''}"
    hint = next((hint for sign, hint in YAML_HINTS if sign in said), "")
    reason = f"front matter is not good YAML: {error.problem}" + (f"; {hint}" if hint else "")
    return Mistake(one_line(reason), first + (mark.line if mark else 0))


def parse_toml(text: str, first: int) -> Sequence[Entry]:
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        where = re.search(r" \(at line (\d+).*", str(error))
        line = int(where[1]) - 1 if where else text.count("\n")
        said = one_line(re.sub(r" \(at .*", "", str(error)))
        raise Mistake(f'front matter is not good TOML: {said}; write key = "value"', first + line) from None
    return [Entry(key, value, line_of(key, text, first)) for key, value in table.items()]


def parse_json(text: str, first: int) -> Sequence[Entry]:
    """An object; Hexo leaves its braces out."""
    source = text if text.lstrip().startswith("{") else "{" + text.rstrip().removesuffix(",") + "}"
    entries, end = decode_json(source, first)
    if source[end:].strip():
        raise Mistake("front matter is not good JSON: text after its end", first + source.count("\n", 0, end))
    return entries


def decode_json(text: str, first: int) -> tuple[Sequence[Entry], int]:
    """Entries of the object at the beginning of `text`, and the index behind it."""

    def unique(pairs: Sequence[tuple[str, object]]) -> Mapping[str, object]:
        keys = [key for key, _ in pairs]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                raise Mistake(f"{key} is set twice; keep one", line_of(key, text, first, at=-1))
        return dict(pairs)

    begin = len(text) - len(text.lstrip())
    try:
        table, end = json.JSONDecoder(object_pairs_hook=unique).raw_decode(text, begin)
    except json.JSONDecodeError as error:
        raise Mistake(f"front matter is not good JSON: {error.msg}", first + error.lineno - 1) from None
    except (ValueError, RecursionError) as error:
        raise Mistake(f"front matter is not good JSON: {one_line(str(error))}", first) from None
    return [Entry(key, value, line_of(key, text, first)) for key, value in table.items()], end


def line_of(key: str, text: str, first: int, at: int = 0) -> int:
    """The file's line on which TOML or JSON sets `key`, which their parsers do not tell."""
    found = list(re.finditer(rf"""(?:^|[\s{{,"']){re.escape(key)}["']?\s*[:=]""", text, re.MULTILINE))
    return first + (text.count("\n", 0, found[at].end()) if found else 0)


JSON_OPENING = re.compile(r'\{\s*("|\}|$)')
HEXO_JSON = re.compile(r'"\w+"\s*:')
FENCES: Mapping[str, tuple[frozenset[str], Parser]] = {
    "---": (frozenset({"---", "..."}), parse_yaml),
    "+++": (frozenset({"+++"}), parse_toml),
    ";;;": (frozenset({";;;"}), parse_json),
}


def braced(lines: Sequence[str], start: int) -> FrontMatter:
    text = "\n".join(lines[start:])
    entries, end = decode_json(text, start + 1)
    last = start + text.count("\n", 0, end)
    if text[end:].split("\n", 1)[0].strip():
        raise Mistake('text behind the closing "}" of the front matter; begin a new line', last + 1)
    return FrontMatter(entries=entries, end=last + 1)


HEADER = re.compile(r"([A-Za-z][\w -]*):(?:[ \t]+(.*))?$", re.ASCII)
FIRST_HEADERS = re.compile(
    r"title|date|modified|categor(y|ies)|tags|slug|number|authors?|summary|description|lang(uage)?|status|url"
    r"|cover(_image)?|image|keywords"
)


def headers(lines: Sequence[str], start: int) -> FrontMatter | None:
    """Header lines up to a blank line; None when this is a paragraph that only begins like one."""
    end = next((i for i in range(start, len(lines)) if lines[i].strip() in {"", "---", "..."}), len(lines))
    first = HEADER.match(lines[start])
    if first is None or not FIRST_HEADERS.fullmatch(fold(first[1])):
        return None
    entries: list[Entry] = []
    for number in range(start, end):
        if match := HEADER.match(lines[number]):
            entries.append(Entry(match[1], unquoted(match[2] or ""), number + 1))
        elif lines[number].startswith((" ", "\t")):
            key, value, line = entries[-1]
            entries[-1] = Entry(key, f"{value} {lines[number].strip()}".strip(), line)
        else:
            return None
    if not any(fold(entry.key) == "title" for entry in entries):
        return None
    closed = end < len(lines) and bool(lines[end].strip())
    return FrontMatter(entries=entries, end=end + 1 if closed else end)


def unquoted(value: str) -> str | None:
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    return value or None


# What the keys mean


def fold(key: str) -> str:
    return re.sub(r"[\s-]+", "_", key.strip().lower())


class Fields:
    """Front matter while it is read: what nobody takes is the post's `extra`."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.left: dict[str, Entry] = {}
        for entry in entries:
            if twin := self.left.get(fold(entry.key)):
                raise Mistake(f"{entry.key} is set twice, first on line {twin.line}; keep one", entry.line)
            refuse_half_characters(entry)
            self.left[fold(entry.key)] = entry

    def take(self, names: Sequence[str], read: Callable[[Entry], T | None]) -> T | None:
        """The first of `names` that `read` makes something of."""
        for name in names:
            if name in self.left and (value := read(self.left[name])) is not None:
                del self.left[name]
                return value
        return None

    @property
    def extra(self) -> Mapping[str, object]:
        return {key: entry.value for key, entry in self.left.items()}


def refuse_half_characters(entry: Entry) -> None:
    """An escape such as \\ud83d alone is text that no file, mail or database can hold."""
    try:
        json.dumps([entry.key, entry.value], ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        raise Mistake(
            "holds half of a character (a lone \\ud800…\\udfff); write it out", entry.line
        ) from None


def one_line(text: str) -> str:
    return " ".join(text.translate(CLEANED).split())


def read_line(entry: Entry) -> str | None:
    """One line of text, or None when there is nothing. Raises Mistake for a list or table."""
    if entry.value is None:
        return None
    if not isinstance(entry.value, str | int | float | date):
        raise Mistake(f"{entry.key} must be text", entry.line)
    return one_line(str(entry.value)) or None


def bare_url(text: str) -> str:
    return text.strip().removeprefix("<").removesuffix(">").strip()


def read_picture(entry: Entry) -> str | None:
    """A URL, Hugo's `{image: …}`, Jekyll's `{path: …}`, or the first of a list; themes also say true or false here."""
    value = entry.value
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        value = next((value[key] for key in ("image", "url", "src", "path") if value.get(key)), None)
    if not isinstance(value, str) or value.lower() in {"true", "false"}:
        return None
    return bare_url(one_line(value)) or None


def read_web_address(entry: Entry) -> str | None:
    url = bare_url(one_line(entry.value)) if isinstance(entry.value, str) else ""
    return url if re.match(r"https?://[^\s/]", url, re.IGNORECASE) else None


def read_names(entry: Entry) -> Sequence[str] | None:
    """A list (Hexo nests them), or text with commas; a single `category` may hold a comma itself."""
    found = [one_line(text) for text in flatten(entry.value)]
    if isinstance(entry.value, str) and fold(entry.key) != "category":
        found = [part.strip() for part in re.split("[,，]", found[0].strip("[]"))]
    return tuple(dict.fromkeys(name for name in found if name)) or None


def flatten(value: object) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from flatten(item)
    elif value is not None:
        yield str(value)


FLAGS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


def read_flag(entry: Entry) -> bool | None:
    if entry.value is None:
        return None
    flag = FLAGS.get(str(entry.value).strip().lower())
    if flag is None:
        raise Mistake(f"{entry.key} must be true or false", entry.line)
    return flag


def read_unpublished(entry: Entry) -> bool | None:
    """Jekyll's `published: false`, Pelican's `status: draft`; any other value is somebody else's business."""
    return True if str(entry.value).strip().lower() in {"false", "no", "draft", "hidden"} else None


def parse_file(path: Path, zone: ZoneInfo) -> Post:
    """Raises PostError. Where the file lies does not matter here, only its name."""
    try:
        path.name.encode()
    except UnicodeEncodeError:
        seen = os.fsencode(path).decode(errors="replace")
        raise PostError(seen, "the file's name is not UTF-8; rename it") from None
    try:
        return parse_text(read_text(path), path, zone)
    except Mistake as mistake:
        raise PostError(path, mistake.reason, mistake.line) from None


def parse_text(text: str, path: Path, zone: ZoneInfo) -> Post:
    lines = text.split("\n")
    front = find_front_matter(lines)
    fields = Fields(front.entries)
    cover = fields.take(
        ("cover_image", "cover", "image", "thumbnail", "banner", "featured_image"), read_picture
    )
    body = Body.of(lines, front.end)
    title = read_title(fields, body, path)
    body = body.without_title(title, "title" in fields.left).without_picture(cover)
    fields.left.pop("title", None)
    markdown, line = body.trimmed()
    return Post(
        slug=fields.take(("slug",), read_slug) or slugify(own_name(path)),
        title=title,
        date=fields.take(("date",), lambda entry: read_moment(entry, zone)) or date_of_name(path, zone),
        body=markdown,
        body_line=line,
        path=path,
        categories=fields.take(("categories", "category", "tags"), read_names) or (),
        cover_image=cover,
        url=fields.take(("url", "permalink", "canonical_url"), read_web_address),
        description=fields.take(("description", "summary", "excerpt"), read_line),
        language=fields.take(("lang", "language"), read_line),
        draft=is_draft(fields),
        ai=fields.take(("ai",), read_ai_use),
        extra=fields.extra,
    )


def read_ai_use(entry: Entry) -> AiUse | None:
    """`ai: generated | assisted | none`; YAML's `ai: true` is no answer, because the law knows two."""
    text = str(entry.value).strip().lower()
    if text not in set(AiUse):
        raise Mistake(f"ai: {text!r} is none of {', '.join(AiUse)}", entry.line)
    return AiUse(text)


def is_draft(fields: Fields) -> bool:
    unpublished = fields.take(("published", "status"), read_unpublished)
    return bool(fields.take(("draft",), read_flag)) or bool(unpublished)


def read_title(fields: Fields, body: "Body", path: Path) -> str:
    """The title of the front matter, else the first heading, else the file's name."""
    entry, heading = fields.left.get("title"), body.heading
    if entry:
        title, line = tidy_title(read_line(entry) or ""), entry.line
    elif heading and heading.text:
        title, line = heading.text, body.line(heading.start)
    else:
        title, line = title_of_name(path), None
    if not title:
        raise Mistake('the title is empty; if it begins with "#", put it in quotes', line)
    if len(title) > LONGEST_TITLE:
        raise Mistake(f"the title has {len(title)} characters; at most {LONGEST_TITLE} fit", line)
    return title


def tidy_title(text: str) -> str:
    """Editors paste headings: the leading #s are not part of the title."""
    return re.sub(r"^#{1,6}(?:\s+|$)", "", one_line(text))


def own_name(path: Path) -> str:
    """`index.md` is a page bundle: its folder bears the name."""
    return path.parent.name if path.stem == "index" and path.parent.name else path.stem


def slugify(name: str) -> str:
    return re.sub(r"[\s/\\?#%]+", "-", one_line(name).lower()).strip("-")


def read_slug(entry: Entry) -> str | None:
    slug = slugify(read_line(entry) or "")
    if entry.value is not None and not slug:
        raise Mistake("the slug is empty; leave the line out to use the file's name", entry.line)
    return slug or None


def title_of_name(path: Path) -> str:
    name = own_name(path)
    bare = re.sub(r"[\s_-]+", " ", FILE_DATE.sub("", name)).strip()
    return bare or name


# Dates

STAMP = re.compile(
    r"""(?P<year>\d{4}) (?: (?P<sep>[-/.]) (?P<month>\d{1,2}) (?P=sep) (?P<day>\d{1,2}) | (?P<mm>\d{2}) (?P<dd>\d{2}) )
    (?: (?:\s*T|\s)\s* (?P<hour>\d{1,2}) :? (?P<minute>\d{2}) (?: :? (?P<second>\d{2}) (?:[.,]\d+)? )? )?
    \s* (?P<zone> Z | UTC | GMT | [+-]\d{2} (?: :? \d{2})? )?""",
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
RFC_2822 = re.compile(r"(?:[a-z]{3},?\s+)?\d{1,2}\s+[a-z]{3}\s+\d{4}\b.*", re.IGNORECASE | re.ASCII)
FILE_DATE = re.compile(
    r"(?<!\d)(?:\d{4}([-_.]?)\d{2}\1\d{2}(?:T\d{6}(?:Z|[+-]\d{4})?)?|\d{4}年\d{1,2}月\d{1,2}日)(?!\d)",
    re.ASCII,
)


def read_moment(entry: Entry, zone: ZoneInfo) -> datetime | None:
    """Aware. TOML brings dates of its own; the other kinds bring text."""
    value = entry.value
    if value is None:
        return None
    try:
        if isinstance(value, datetime):
            return plausible(value if value.tzinfo else value.replace(tzinfo=zone))
        if isinstance(value, date):
            return plausible(datetime.combine(value, time(), tzinfo=zone))
        return parse_moment(str(value), zone)
    except ValueError:
        reason = f'{entry.key} "{one_line(str(value))[:40]}" is no date; write 2026-11-20 07:30 or 2026-11-20T07:30:00+08:00'
        raise Mistake(reason, entry.line) from None


def parse_moment(text: str, zone: ZoneInfo) -> datetime:
    """ISO 8601 and its neighbours, RFC 2822, 2025年12月12日. Raises ValueError."""
    text = re.sub(r"\s*[年月]\s*", "-", text.strip()).replace("日", " ").strip()
    match = STAMP.fullmatch(text)
    if match is None:
        return plausible(parse_rfc_2822(text, zone))
    year, month, day = match["year"], match["month"] or match["mm"], match["day"] or match["dd"]
    clock = time(int(match["hour"] or 0), int(match["minute"] or 0), int(match["second"] or 0))
    local = datetime.combine(date(int(year), int(month), int(day)), clock)
    return plausible(local.replace(tzinfo=offset(match["zone"]) or zone))


def parse_rfc_2822(text: str, zone: ZoneInfo) -> datetime:
    if not RFC_2822.fullmatch(text):
        raise ValueError(text)
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, IndexError, OverflowError) as error:
        raise ValueError(text) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=zone)


def offset(text: str | None) -> tzinfo | None:
    if not text:
        return None
    if text.upper() in {"Z", "UTC", "GMT"}:
        return UTC
    hours, minutes = int(text[1:3]), int(text[3:].lstrip(":") or 0)
    if minutes > 59:
        raise ValueError(text)
    distance = timedelta(hours=hours, minutes=minutes)
    return timezone(-distance if text[0] == "-" else distance)


def plausible(moment: datetime) -> datetime:
    """Keeps out slips of the pen, and years that cannot be moved between zones."""
    if not 1970 <= moment.year < 2200:
        raise ValueError(moment.year)
    return moment


def date_of_name(path: Path, zone: ZoneInfo) -> datetime | None:
    for match in FILE_DATE.finditer(own_name(path)):
        with suppress(ValueError):
            return parse_moment(match[0].replace("_", "-"), zone)
    return None


# The body

BLOCKS = MarkdownIt("commonmark")
BLOCKS.core.ruler.enableOnly(
    ["normalize", "block"]
)  # inline parsing is most of the time, and is not needed here
INLINE = MarkdownIt("commonmark")
COMMENTS = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
# A picture inside a link is left alone: dropping it would drop the link.
PICTURE = re.compile(
    r"""(?<!\[)!\[(?:\\.|[^\[\]\\])*\]\(\s*(?:<(?P<angled>[^<>\n]*)>|(?P<bare>[^\s()<>]*(?:\([^\s()]*\)[^\s()]*)*))
    (?:\s+(?:"[^"]*"|'[^']*'))?\s*\)(?:\{[^{}\n]*\})?
    |<img\b[^<>]{0,2000}?\bsrc\s*=\s*["']?(?P<html>[^"'\s<>]+)[^<>]*>""",
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Heading:
    """A heading as plain text, and the body's lines it stands on (from `start`, before `end`)."""

    level: int
    text: str
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Body:
    """Lines of Markdown that began at index `offset` of the file. What is dropped leaves blanks: lines keep their number."""

    lines: Sequence[str]
    offset: int
    tokens: Sequence[Token]

    @classmethod
    def of(cls, lines: Sequence[str], start: int) -> "Body":
        own = lines[start:]
        return cls(lines=own, offset=start, tokens=BLOCKS.parse("\n".join(own)))

    @property
    def heading(self) -> Heading | None:
        """The first heading that is not inside a list or quotation."""
        for number, token in enumerate(self.tokens):
            if token.type == "heading_open" and token.level == 0 and token.map:
                text = tidy_title(plain(self.tokens[number + 1].content))
                return Heading(level=int(token.tag[1]), text=text, start=token.map[0], end=token.map[1])
        return None

    def line(self, index: int) -> int:
        return self.offset + index + 1

    def without_title(self, title: str, given: bool) -> "Body":
        """Without the heading that is the title already: an h1 that repeats a given one, or any it was taken from."""
        heading = self.heading
        if heading is None or heading.text != title or (given and heading.level > 1):
            return self
        return self.put(heading.start, [""] * (heading.end - heading.start))

    def without_picture(self, url: str | None) -> "Body":
        """Without its first picture, if that one is the cover (`url`), which every channel shows by itself."""
        for token in self.tokens if url else ():
            if token.type in {"inline", "html_block"} and token.map and PICTURE.search(token.content):
                return self.drop_picture(url or "", *token.map)
        return self

    def drop_picture(self, url: str, start: int, end: int) -> "Body":
        text = "\n".join(self.lines[start:end])
        match = PICTURE.search(text)
        if match is None or html.unescape(picture_url(match)) != html.unescape(url):
            return self
        gap = "\n" * match[0].count("\n")
        return self.put(start, (text[: match.start()] + gap + text[match.end() :]).split("\n"))

    def put(self, start: int, lines: Sequence[str]) -> "Body":
        return replace(self, lines=[*self.lines[:start], *lines, *self.lines[start + len(lines) :]])

    def trimmed(self) -> tuple[str, int]:
        """The Markdown without blank lines around it, and the file's line it begins on. Raises Mistake if empty."""
        if not COMMENTS.sub("", "\n".join(self.lines)).strip():
            line = self.line(0) if self.lines else self.offset
            raise Mistake("empty body: there is nothing to send below front matter and title", line)
        start = next(number for number, line in enumerate(self.lines) if line.strip())
        return "\n".join(self.lines[start:]).rstrip() + "\n", self.line(start)


def picture_url(match: re.Match[str]) -> str:
    return (match["angled"] or match["bare"] or match["html"] or "").strip()


def plain(markdown: str) -> str:
    """A heading's text without its markup."""
    children = INLINE.parseInline(markdown)[0].children or []
    return "".join(
        child.content or " " * child.type.endswith("break")
        for child in children
        if child.type != "html_inline"
    )
