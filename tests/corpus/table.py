"""`python -m tests.corpus [--json] [PATHS…]`: post × channel → within the rules or not, size, links, teaser; status 1 on a violation."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from checkers import Report, check_rendering, read_source
from rendering_samples import ZONE

from distributor.errors import PostError
from distributor.model import Post
from distributor.posts import read_post

from .rendered import channels, corpus_posts, read_folder, renderings, shared_names

HEAD = ("post", "channel", "verdict", "parts", "bytes", "of limit", "links", "")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One post on one channel, in one variant."""

    post: str
    channel: str
    report: Report

    def cells(self) -> tuple[str, ...]:
        report = self.report
        verdict = f"{len(report.violations)} violations" if report.violations else "ok"
        kept = f"{report.links[0]} of {report.links[1]}"
        size, share = f"{report.bytes:,}", f"{report.share:.0%}"
        teaser = "teaser" if report.teaser and not self.channel.startswith("wecom") else ""
        return (self.post, self.channel, verdict, str(report.parts), size, share, kept, teaser)


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    lines = [line for name, post in _posts(given.paths).items() for line in check_post(name, post)]
    sys.stdout.write(_json(lines) if given.json else _table(lines))
    return int(any(line.report.violations for line in lines))


def check_post(name: str, post: Post) -> Iterator[Line]:
    """Every channel's verdict on a post."""
    source = read_source(post.body)
    for channel in channels():
        try:
            for rendering in renderings(post, channel):
                yield Line(post=name, channel=rendering.name, report=check_rendering(rendering, source))
        except PostError as error:
            yield Line(post=name, channel=channel, report=_refused(error))


def _refused(error: PostError) -> Report:
    return Report(violations=[f"refused: {error}"], bytes=0, share=0, links=(0, 0), parts=0)


def _posts(paths: Sequence[Path]) -> Mapping[str, Post]:
    if not paths:
        return {**corpus_posts(), **shared_names()}
    found: dict[str, Post] = {}
    for path in paths:
        found |= read_folder(path) if path.is_dir() else {path.stem: read_post(path, ZONE)}
    return found


def _table(lines: Sequence[Line]) -> str:
    rows = [HEAD, *(line.cells() for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    table = [
        "  ".join(
            cell.rjust(size) if 3 <= column <= 6 else cell.ljust(size)
            for column, (cell, size) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    violations = [
        f"{line.post}, {line.channel}: {found}" for line in lines for found in line.report.violations
    ]
    return "\n".join([*table, *([""] if violations else []), *violations, "", _totals(lines)]) + "\n"


def _totals(lines: Sequence[Line]) -> str:
    whole = [line for line in lines if not line.report.teaser]
    kept, links = (sum(line.report.links[side] for line in whole) for side in (0, 1))
    posts = len({line.post for line in lines})
    violations = sum(len(line.report.violations) for line in lines)
    teasers = len(lines) - len(whole) - sum(line.channel.startswith("wecom") for line in lines)
    parts = sum(line.report.parts for line in lines)
    return (
        f"{posts} posts, {len(lines)} renderings, {parts} messages: {violations} violations;"
        f" {kept:,} of {links:,} links kept; {teasers} teasers"
    )


def _json(lines: Sequence[Line]) -> str:
    return json.dumps([asdict(line) for line in lines], ensure_ascii=False, indent=1) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.corpus", description=__doc__)
    parser.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="posts or folders of posts instead of the corpus"
    )
    parser.add_argument("--json", action="store_true", help="everything that was measured")
    return parser
