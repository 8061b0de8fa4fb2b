"""Markdown to HTML, plain text and a short outline; the template environment; measuring and cutting text.

`parse(post)` reads the Markdown once; every channel renders the same `Document`, so that what is checked here (no link
to nowhere, no control characters) and what is tidied here (no blank between Han characters) holds everywhere.
No platform is known here.
"""

from distributor.rendering.addresses import is_web, text_and_address
from distributor.rendering.consent import consent_text
from distributor.rendering.cutting import (
    CONTROLS,
    HAN,
    SENTENCE_END,
    cut,
    cut_text,
    display_width,
    escape_text,
    longest_prefix,
    safe_cut,
    utf8_bytes,
    utf16_units,
    wrap,
)
from distributor.rendering.html import ATTRIBUTES, TAGS, to_html
from distributor.rendering.markdown import Document, parse
from distributor.rendering.outline import Item, Outline, Section, links_in, outline
from distributor.rendering.phrases import AFTER_TITLE, ends_a_title, first_sentence
from distributor.rendering.pictures import picture_doubts
from distributor.rendering.raw_html import HIDDEN, HtmlReader
from distributor.rendering.summary import description, summary, summary_of
from distributor.rendering.templates import template_environment
from distributor.rendering.text import (
    indent,
    inline_text,
    is_tight,
    list_bullets,
    picture_alt,
    squeeze,
    table_rows,
    text_only,
    to_text,
)
from distributor.rendering.wording import (
    MONTHS,
    WORDING,
    Wording,
    ai_label,
    headline,
    language_of,
    local_day,
    web_address,
)

__all__ = [
    "AFTER_TITLE",
    "ATTRIBUTES",
    "CONTROLS",
    "HAN",
    "HIDDEN",
    "MONTHS",
    "SENTENCE_END",
    "TAGS",
    "WORDING",
    "Document",
    "HtmlReader",
    "Item",
    "Outline",
    "Section",
    "Wording",
    "ai_label",
    "consent_text",
    "cut",
    "cut_text",
    "description",
    "display_width",
    "ends_a_title",
    "escape_text",
    "first_sentence",
    "headline",
    "indent",
    "inline_text",
    "is_tight",
    "is_web",
    "language_of",
    "links_in",
    "list_bullets",
    "local_day",
    "longest_prefix",
    "outline",
    "parse",
    "picture_alt",
    "picture_doubts",
    "safe_cut",
    "squeeze",
    "summary",
    "summary_of",
    "table_rows",
    "template_environment",
    "text_and_address",
    "text_only",
    "to_html",
    "to_text",
    "utf8_bytes",
    "utf16_units",
    "web_address",
    "wrap",
]
