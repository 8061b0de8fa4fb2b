"""What a paragraph says: its text without links that only name a source, and where its title ends."""

import re

from markdown_it.tree import SyntaxTreeNode

from distributor.rendering.addresses import is_web
from distributor.rendering.cutting import HAN, SENTENCE_END, display_width
from distributor.rendering.text import inline_text, squeeze


def first_sentence(text: str) -> str:
    return next((part.strip() for part in SENTENCE_END.split(text) if part.strip()), "")


# What a paragraph says

#: Around a link's text, while a paragraph is read: no post has these, `parse` takes controls out.
_OPEN, _SHUT = "\x02", "\x03"
_LINK = f"{_OPEN}[^{_OPEN}{_SHUT}]*{_SHUT}"
#: What links are called that only name themselves: kept as links, and nothing to read.
_SOURCE = (
    r"(?:消息|信息|新闻|文章|项目|官方|论文|参考|原文)?(?:来源|链接|原文|出处|详情|地址)\s?\d{0,2}"
    r"|(?:阅读|查看|了解|点击)(?:原文|全文|详情|更多|这里|此处|链接)|全文|传送门"
    r"|via|sources?|links?|read more|more|details|here|\d{1,2}"
)
_SOURCE_LINK = re.compile(rf"{_OPEN}[\s\[【（(>👉🔗]*(?:{_SOURCE})[\s→↗»>\]】）)]*{_SHUT}", re.IGNORECASE)
#: The same at the end, with the words that point at it.
_POINTING = re.compile(
    rf"[\s，,；;（(]{{0,8}}(?:详?见|参见|来源|链接|原文|via|see|source)?[\s:：]*{_SOURCE_LINK.pattern}[\s）)。.]*$",
    re.IGNORECASE,
)
#: Links behind the last sentence, with the brackets and bars around them.
_LINKS_BEHIND = re.compile(
    rf"(?<=[。！？!?…”])[\s（(【\[|｜]*{_LINK}(?:[\s|｜/、，,·]*{_LINK})*[\s）)】\].。]*$"
)
#: Brackets that a taken link leaves, or that point at a picture.
_EMPTY_BRACKETS = re.compile(
    r"\s*[（(【\[][\s、，,;；|｜]*(?:(?:来源|via|source)[\s:：]*|[如见]?[上下左右]?图)?[）)】\]]",
    re.IGNORECASE,
)
_DANGLING = " \t|｜·→>🔗👉-–—"


def said(node: SyntaxTreeNode) -> str:
    """A paragraph's text on one line, without pictures, footnote marks, and links that only name a source."""
    marked = squeeze(marked_links(node))
    text = _LINKS_BEHIND.sub("", _POINTING.sub("", marked))
    text = _EMPTY_BRACKETS.sub("", _SOURCE_LINK.sub("", text))
    return unmarked(text).rstrip(_DANGLING).strip()


def marked_links(node: SyntaxTreeNode) -> str:
    if node.type in {"image", "footnote_ref"}:
        return ""
    if not node.children:
        return inline_text(node)
    inner = "".join(map(marked_links, node.children))
    if node.type == "link" and is_web(inner.strip()):
        inner = "link"  # an address says nothing to a reader
    return f"{_OPEN}{inner}{_SHUT}" if node.type == "link" and inner.strip() else inner


def unmarked(text: str) -> str:
    return text.replace(_OPEN, "").replace(_SHUT, "")


_MOMENT = re.compile(r"[\d\s:.,/TZ+年月日时分秒星期周一二三四五六七八九十天第|·（()）、—-]+")


def is_prose(text: str) -> bool:
    """Whether a paragraph says something: it is neither a date or number nor the announcement of a list."""
    return bool(text) and not _MOMENT.fullmatch(text) and not text.endswith(("：", ":"))


_GREETING = re.compile(
    r"(?:大家好|各位(?:读者|朋友|同学|听众)?(?:们)?(?:大家)?好?|早上好|早安|下午好|晚上好|你好|您好|朋友们好?"
    r"|(?:hello|hi|hey|dear|welcome|good (?:morning|evening|afternoon))\b)[^，,。.!！]{0,60}"
    r"(?:[，,]\s*(?:欢迎|这里是|我是|welcome|this is|everyone|all|there|readers?)[^，,。.!！]{0,60})?[!！。.~～]\s*",
    re.IGNORECASE,
)


def without_greeting(text: str) -> str:
    """Without a first sentence that does nothing but greet, when more follows."""
    match = _GREETING.match(text)
    return text[match.end() :] if match and match.end() < len(text) else text


# Titles

#: "1. ", "1、", "一、", "①" before a title. A dot needs a blank behind it: "3.5" is a number.
_ENUMERATOR = re.compile(r"^(?:\d{1,2}\s?[、．]|\d{1,2}[.)]\s+|[一二三四五六七八九十]{1,3}、|[①-⑳])\s*")
_NUMBERED = re.compile(r"^(?:\d{1,2}\s?[、．]|[①-⑳])")
_NAME_END = re.compile(r"：|:(?=\s)")
#: In columns: a longer sentence may be split behind a name.
_SHORTEST_NAME, _LONGEST_NAME = 8, 56
_PAIRS = ("“”", "‘’", "()", "[]", "（）", "【】", "《》", "「」")
AFTER_TITLE = "：:。，,—–-|｜ "
_BRACKETS = re.compile(r"[（(][^（()）]{1,16}[）)]")


def titled(paragraph: SyntaxTreeNode, bold: str) -> tuple[str, str]:
    """(title, the rest) of a piece of news, both empty when it says nothing.

    The title is `bold`, when there is one; else the link it begins with; else its first sentence.
    """
    text, marked = said(paragraph), squeeze(marked_links(paragraph))
    # Links tell where a title ends, as long as nothing was taken out of the text.
    source = marked if text == unmarked(marked) else text
    if starts_with_number(source):
        source = _ENUMERATOR.sub("", source)
    title, rest = _split(source, bold)
    return title, "" if rest.strip(" 。.") == "" else rest


def starts_with_number(text: str) -> bool:
    """Whether it begins as "1、" or "①" does: Markdown itself makes lists of "1. "."""
    return bool(_NUMBERED.match(text))


def _split(marked: str, bold: str) -> tuple[str, str]:
    text = unmarked(marked)
    if bold and text.startswith(bold):
        return tidy(bold), text[len(bold) :].lstrip(AFTER_TITLE)
    if match := re.match(_LINK, marked):
        name, rest = unmarked(match[0]).strip(), unmarked(marked[match.end() :]).rstrip()
        if _BRACKETS.fullmatch(rest.strip()):
            return tidy(name + rest), ""
        if not rest or rest.lstrip()[:1] in AFTER_TITLE or rest.startswith(" - "):
            return tidy(name), rest.lstrip(AFTER_TITLE)
    return _by_sentence(text)


def ends_a_title(bold: str, rest: str) -> bool:
    """Whether what follows does not go on with the bold words: "**OpenAI** 发布 …" and "**We** won" are sentences."""
    if not rest or bold[-1] in "：:。！？!?" or rest[0] in "：:。，,—–-|｜（(！？!?[【":
        return True
    if rest[0] != " ":
        return False
    goes_on = rest[1].islower() or (bold[-1].isascii() and bold[-1].isalnum() and bool(HAN.match(rest[1])))
    return not goes_on


def _by_sentence(text: str) -> tuple[str, str]:
    title = first_sentence(text)
    rest = text[len(title) :] if text.startswith(title) else ""
    if display_width(title) > _LONGEST_NAME and (name := _name_of(title)):
        return tidy(name), (title[len(name) :] + rest).lstrip(AFTER_TITLE)
    return tidy(title), rest.lstrip(AFTER_TITLE)


def _name_of(sentence: str) -> str:
    """What stands before the last colon that may end a name; empty when none does."""
    names = [sentence[: match.start()] for match in _NAME_END.finditer(sentence)]
    fitting = [
        name for name in names if _SHORTEST_NAME <= display_width(name) <= _LONGEST_NAME and _is_whole(name)
    ]
    return fitting[-1] if fitting else ""


def _is_whole(text: str) -> bool:
    """Whether every bracket and quotation mark that opens is shut again."""
    return all(text.count(pair[0]) == text.count(pair[1]) for pair in _PAIRS)


def tidy(title: str) -> str:
    return _ENUMERATOR.sub("", title.strip()).strip().rstrip("：:。；; ")
