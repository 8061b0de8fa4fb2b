"""A post as an HTML fragment that is safe to put into a mail or a page."""

import re

import nh3

from distributor.rendering.markdown import MARKDOWN, Document
from distributor.rendering.raw_html import HIDDEN
from distributor.rendering.text import BOXES

TAGS = frozenset(
    (
        *("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "a", "img"),
        *("ul", "ol", "li", "dl", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td"),
        *("code", "em", "strong", "b", "i", "u", "s", "del", "small", "sub", "sup", "kbd", "mark"),
    )
)
ATTRIBUTES = {
    "a": {"href", "title"},
    "img": {"src", "alt", "title", "width", "height"},
    "ol": {"start"},
    "th": {"align"},
    "td": {"align"},
}

#: `- [ ] task`: mail programs show no check box of HTML.
_TASK = re.compile(r"(<li>\n?(?:<p>)?)\[([ xX])\](?=\s)")


def to_html(document: Document, *, picture_width: int) -> str:
    """The post's body as a sanitised HTML fragment: no style, class, script or frame; only http, https and mailto links.

    Every picture has a width of at most `picture_width` pixels (for clients that know no CSS), and a height where its
    size is known: then the text does not jump while pictures load.
    """
    html = MARKDOWN.renderer.render(document.tokens, MARKDOWN.options, {"picture_width": picture_width})
    html = _TASK.sub(lambda task: task[1] + BOXES[task[2]], html)

    def narrowed(tag: str, name: str, value: str) -> str | None:
        if (tag, name) == ("img", "height"):
            return value if re.fullmatch(r"\d{1,5}", value) else None
        if (tag, name) == ("img", "width"):
            return (
                str(min(int(value), picture_width)) if re.fullmatch(r"\d{1,5}", value) else str(picture_width)
            )
        return value

    return nh3.clean(
        html,
        tags=set(TAGS),
        clean_content_tags=set(HIDDEN),
        attributes=ATTRIBUTES,
        attribute_filter=narrowed,
        url_schemes={"http", "https", "mailto"},
        url_relative="deny",
        link_rel=None,
    )
