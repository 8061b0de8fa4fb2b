"""The table of checks: what each is called, how bad it is, and what to do about what it finds.

Names are part of the configuration (`preflight.ignore`): they stay. An error is what nobody means to send; what a good
post may well have is a note.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from distributor.errors import PostError
from distributor.model import Post
from distributor.posts import fold
from distributor.preflight import body, dates, links, marks, pictures, rendered, repeats, subject
from distributor.preflight.findings import Finding, Said, Severity
from distributor.preflight.proof import Proof
from distributor.rendering import is_web

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


@dataclass(frozen=True)
class Check:
    """One thing that is looked for."""

    name: str
    severity: Severity
    look: Callable[[Proof], Iterator[Said]]
    fix: str


CHECKS: Sequence[Check] = (
    Check("subject-short", WARNING, subject.too_short, "say what the issue is about"),
    Check("subject-long", WARNING, subject.too_long, "shorten it, or put what matters first"),
    Check("subject-all-caps", NOTE, subject.all_capitals, 'one small letter is enough: "OpenAI", "Daily"'),
    Check("subject-marks", NOTE, subject.question_and_exclamation, "leave one of them out"),
    Check("placeholder", ERROR, body.unfinished, "write it, or take it out"),
    Check("marker", WARNING, body.marker, "write what is missing; code goes between backticks"),
    Check("template", ERROR, body.merge_field, "fill it in; code goes between backticks"),
    Check("template-like", WARNING, body.template, "fill it in, if it is one; code goes between backticks"),
    Check("example-address", WARNING, body.example_address, "put the real address there"),
    Check(
        "words-few", WARNING, body.few_words, f"{body.FEWEST_WORDS} are little for a mail; is a part missing?"
    ),
    Check(
        "words-many", NOTE, body.many_words, f"few read more than {body.MOST_WORDS}; link to the long ones"
    ),
    Check("front-matter", ERROR, body.front_matter, "keep one, at the top of the file"),
    Check("code-unclosed", ERROR, body.unclosed_code, "close it with a line of the same marks"),
    Check("markdown-literal", WARNING, marks.literal, "mend the mark; code goes between backticks"),
    Check("definition-unused", WARNING, marks.unused, "refer to it, or write it as a sentence"),
    Check("html-unclosed", ERROR, body.unclosed_html, "end it, or take it out; code goes between backticks"),
    Check(
        "heading-jump", NOTE, body.heading_jump, "go down one level at a time: screen readers read an outline"
    ),
    Check("section-empty", WARNING, body.empty_section, "write the section, or take the heading out"),
    Check("item-empty", WARNING, body.empty_item, "write the item, or take its bullet out"),
    Check("item-twice", WARNING, body.repeated_items, "keep one of them"),
    Check("item-in-sections", NOTE, body.items_of_two_sections, "keep one of them, if it is the same news"),
    Check("brackets", NOTE, body.unbalanced, "add the missing one"),
    Check("attachment", WARNING, body.attachment, "link to the file instead"),
    Check(
        "other-networks", WARNING, body.other_networks, "leave it out of the mail, or send by another relay"
    ),
    Check("html-removed", WARNING, body.removed_html, "use a link or a picture instead"),
    Check("html-style", NOTE, body.styled_html, "leave it out"),
    Check("html-black", NOTE, body.black_text, "leave it out: text has the reader's own colour"),
    Check("link-nowhere", ERROR, links.nowhere, "readers need a full https:// (or mailto:) address"),
    Check("link-dead", WARNING, links.dead_looking, "check the address"),
    Check("link-private", WARNING, links.private, "use a public address; between backticks it is no link"),
    Check("link-end", WARNING, links.swallowed, "take the last character out of the address"),
    Check("link-shortened", WARNING, links.shortened, "use the address it leads to"),
    Check("link-other-site", WARNING, links.other_address, "let the text say where the link leads"),
    Check("link-insecure", NOTE, links.insecure, "use https:// where the site has it"),
    Check("link-tracking", NOTE, links.tracking, "cut it off; the link works without"),
    Check(
        "link-text", NOTE, links.says_nothing, "name what is there: screen readers list links by their texts"
    ),
    Check("link-text-repeated", NOTE, links.same_text, "name the source in each"),
    Check("picture-nowhere", ERROR, pictures.nowhere, "pictures need a full https:// address"),
    Check("picture-alt", WARNING, pictures.no_alt, "write it between the brackets: ![what is seen](…)"),
    Check("picture-alt-empty", WARNING, pictures.empty_alt, "say what is seen"),
    Check("picture-format", WARNING, pictures.unshown, "use JPEG or PNG"),
    Check("picture-webp", NOTE, pictures.webp, "JPEG and PNG are shown everywhere"),
    Check("picture-insecure", WARNING, pictures.insecure, "use https://"),
    Check("cover-missing", NOTE, pictures.no_cover, "add cover_image to the front matter"),
    Check("date-ahead", WARNING, dates.ahead, "check the date"),
    Check("date-title", WARNING, dates.title_date, "make them agree"),
    Check("date-line", WARNING, dates.date_line, "make them agree"),
    Check("year-title", NOTE, dates.title_year, "check the year"),
    Check("date-weekday", WARNING, dates.weekday, "check both"),
    Check("year-copyright", WARNING, dates.copyright_year, "put this year there"),
    Check("post-repeated", ERROR, repeats.same_body, "was the right file copied? Mend the text"),
    Check("title-repeated", WARNING, repeats.same_title, "mail clients fold equal subjects into one thread"),
    Check("items-repeated", WARNING, repeats.same_items, "is this yesterday's news?"),
    Check("text-lost", ERROR, rendered.text_lost, "look at the HTML before it; code goes between backticks"),
    Check("telegram-parts", NOTE, rendered.many_parts, "shorten the post"),
    Check("wecom-items", NOTE, rendered.items_left_out, "put first what matters"),
    Check("renderer", WARNING, rendered.said_by_renderers, ""),
)
#: What is found elsewhere: a post that a renderer, or the reader of files, refuses; names that no check has; `--online`.
REFUSED, UNKNOWN, UNREACHABLE, UNSURE = "refused", "ignore-unknown", "link-unreachable", "link-unsure"
#: What may be switched off; a refusal may not.
NAMES = frozenset({*(check.name for check in CHECKS), UNREACHABLE, UNSURE})


def ignored_by(proof: Proof) -> AbstractSet[str]:
    """What the newsletter's `preflight.ignore`, or the post's `preflight_ignore`, switches off."""
    return {*proof.newsletter.preflight.ignore, *ignored_by_post(proof.post)}


def ignored_by_post(post: Post) -> Sequence[str]:
    value = next((value for key, value in post.extra.items() if fold(key) == "preflight_ignore"), ())
    names = value.split(",") if isinstance(value, str) else value
    return [str(name).strip() for name in names] if isinstance(names, Iterable) else []


def examine(proof: Proof, refusals: Sequence[PostError] = ()) -> Sequence[Finding]:
    """Everything that was found, errors first, each severity in the order of the file.

    `refusals` are what the channels' renderers raised; those that a check has told already are left out.
    """
    off = ignored_by(proof)
    found = [finding for check in CHECKS if check.name not in off for finding in _found(check, proof)]
    told = _addresses_told(proof, off)
    once = {(error.line, error.reason): error for error in refusals}.values()
    new = [error for error in once if not any(repr(address) in error.reason for address in told)]
    return in_order([*found, *map(refused, new), *_unknown_names(proof, off)])


def _found(check: Check, proof: Proof) -> Iterator[Finding]:
    for line, text in dict.fromkeys(check.look(proof)):
        yield _finding(check.name, check.severity, proof.post, line, text, check.fix)


def _addresses_told(proof: Proof, off: AbstractSet[str]) -> Sequence[str]:
    """Those that `link-nowhere` and `picture-nowhere` speak of."""
    told = [] if "link-nowhere" in off else [link.address for link in proof.reading.links]
    told += [] if "picture-nowhere" in off else [picture.address for picture in proof.pictures]
    return [address for address in told if not is_web(address)]


def _unknown_names(proof: Proof, off: AbstractSet[str]) -> Iterator[Finding]:
    for name in sorted(off - NAMES):
        near = difflib.get_close_matches(name, NAMES, n=1)
        fix = f'did you mean "{near[0]}"?' if near else "take it out"
        text = f'"{name}" is to be ignored, and no check is called so'
        line = proof.front.get("preflight_ignore") if name in ignored_by_post(proof.post) else None
        yield _finding(UNKNOWN, WARNING, proof.post, line, text, fix)


def _finding(check: str, severity: Severity, post: Post, line: int | None, text: str, fix: str) -> Finding:
    return Finding(check=check, severity=severity, path=post.path, line=line, text=text, fix=fix)


def refused(error: PostError) -> Finding:
    """A file that cannot be read, or a post that a renderer refuses, as a finding."""
    path = Path(error.path)
    return Finding(check=REFUSED, severity=ERROR, path=path, line=error.line, text=error.reason, fix="")


def in_order(findings: Iterable[Finding]) -> Sequence[Finding]:
    ranks = list(Severity)
    return sorted(findings, key=lambda one: (ranks.index(one.severity), one.line or 0))
