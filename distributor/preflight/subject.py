"""The title as a subject: what phones cut and what mail filters score."""

import re
from collections.abc import Iterator

from distributor.preflight.findings import Said, quoted
from distributor.preflight.proof import Proof
from distributor.rendering import display_width, headline

# A Han character fills two columns: 10 to 78 characters, and about 40 Han, in one measure.
NARROWEST, WIDEST, LONGEST = 10, 80, 78


def too_short(proof: Proof) -> Iterator[Said]:
    title = headline(proof.post)
    if display_width(title) < NARROWEST:
        yield Said(proof.title_line, f"the title {quoted(title)} is short for a subject")


def too_long(proof: Proof) -> Iterator[Said]:
    title = headline(proof.post)
    if len(title) > LONGEST or display_width(title) > WIDEST:
        text = f"the title has {len(title)} characters: phones show about 40 of Chinese, or 78 of English"
        yield Said(proof.title_line, text)


def all_capitals(proof: Proof) -> Iterator[Said]:
    """Letters, and none of them small: "AI 日报" is enough.

    rspamd's rule (subject_checks.lua) gives up to 3 points, by length; SpamAssassin's (HeaderEval.pm) 0.5, and only to
    a subject of ten bytes or more with a blank in it (both tried with 4.0.1: one title as it is, one without blanks). Both look at Latin letters beside Han as at any others.
    """
    title = headline(proof.post)
    if any(letter.isupper() for letter in title) and not any(letter.islower() for letter in title):
        capitals = ", ".join(dict.fromkeys(re.findall(r"[A-Z]+", title)))
        yield Said(
            proof.title_line,
            f"all Latin letters of the title are capitals ({capitals}): SUBJ_ALL_CAPS to mail filters",
        )


def question_and_exclamation(proof: Proof) -> Iterator[Said]:
    """SpamAssassin's PLING_QUERY, 0.1; the full-width marks of Chinese do not match it."""
    title = headline(proof.post)
    if "?" in title and "!" in title:
        yield Said(proof.title_line, 'the title has both "?" and "!": PLING_QUERY to mail filters')
