"""A post in a sentence or two, from its own words: for leads, cards, preheaders and digests. Nothing is invented."""

from collections.abc import Callable

from distributor.model import Post
from distributor.rendering.cutting import CONTROLS, HAN, cut_text, longest_prefix, utf16_units
from distributor.rendering.markdown import Document
from distributor.rendering.outline import Outline, outline
from distributor.rendering.text import squeeze


def summary(post: Post, document: Document, limit: int, measure: Callable[[str], int] = utf16_units) -> str:
    """At most `limit` as `measure` counts: what the editor wrote (`description`), else the lead, else the items' titles.

    Cut behind a sentence, else a clause, else a character; of titles, as many whole ones as fit. Empty for a post that
    says nothing.
    """
    return summary_of(post, outline(document), limit, measure)


def summary_of(post: Post, skeleton: Outline, limit: int, measure: Callable[[str], int] = utf16_units) -> str:
    """The same of an outline that is there already."""
    if told := description(post) or skeleton.lead:
        return cut_text(told, limit, measure)
    return _joined([item.title for item in skeleton.items], limit, measure)


def description(post: Post) -> str:
    """What the editor wrote about the post, on one line; empty when nothing."""
    return squeeze(CONTROLS.sub(" ", post.description or ""))


def _joined(titles: list[str], limit: int, measure: Callable[[str], int]) -> str:
    joint = "；" if any(map(HAN.search, titles)) else "; "
    count = longest_prefix(len(titles), lambda number: measure(joint.join(titles[:number])) <= limit)
    return joint.join(titles[:count]) if count else cut_text("".join(titles[:1]), limit, measure)
