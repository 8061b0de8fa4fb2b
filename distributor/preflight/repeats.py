"""The post beside those of the last days: the same one again, or the same news."""

import re
from collections.abc import Iterator

from distributor.model import Post
from distributor.preflight.findings import Said, quoted
from distributor.preflight.proof import Proof
from distributor.rendering import Document, headline, local_day, outline
from distributor.rendering.markdown import MARKDOWN

ALIKE = 0.9
SHORTEST = 200  # characters; a notice such as "no issue tomorrow" may be the same each time
SHINGLE = 8  # characters: two Latin words or four Han words
LEAD_ITEMS = 3


def same_body(proof: Proof) -> Iterator[Said]:
    """Shares of common shingles (Jaccard); an edited paragraph or a new date does not hide a copy."""
    for other in proof.facts.recent:
        if (share := similarity(proof.post.body, other.body)) >= ALIKE:
            text = f"the text is that of {other.path.name} ({_day(proof, other)}): {share:.0%} of it agree"
            yield Said(proof.post.body_line, text)


def similarity(one: str, other: str) -> float:
    """0 to 1."""
    shorter, longer = sorted((len(one), len(other)))
    if shorter < max(SHORTEST, ALIKE * longer / 2):
        return 0.0
    left, right = shingles(one), shingles(other)
    return len(left & right) / max(len(left | right), 1)


def shingles(text: str) -> set[str]:
    bare = re.sub(r"\s+", "", text)
    return {bare[start : start + SHINGLE] for start in range(max(len(bare) - SHINGLE + 1, 1))}


def same_title(proof: Proof) -> Iterator[Said]:
    for other in proof.facts.recent:
        if headline(other).casefold() == headline(proof.post).casefold():
            yield Said(proof.title_line, f"{other.path.name} ({_day(proof, other)}) has the same title")


def same_items(proof: Proof) -> Iterator[Said]:
    """The first pieces of news are those of another day, in the same order."""
    lead = [item.title for item in proof.outline.items[:LEAD_ITEMS]]
    longest = max(
        re.findall(r"\w+", " ".join(lead)), key=len, default=""
    )  # reading the other post is the price
    for other in proof.facts.recent if len(lead) == LEAD_ITEMS else ():
        if longest in other.body and lead == lead_items(other):
            text = (
                f"the first items are those of {other.path.name} ({_day(proof, other)}): {quoted(lead[0])}, …"
            )
            yield Said(proof.line_of(lead[0]), text)


def lead_items(post: Post) -> list[str]:
    return [item.title for item in outline(Document(MARKDOWN.parse(post.body), ())).items[:LEAD_ITEMS]]


def _day(proof: Proof, other: Post) -> str:
    return str(local_day(other, proof.newsletter))
