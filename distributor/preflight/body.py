"""The text: what was forgotten in it, and what is broken about it."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise

from distributor.preflight.findings import Said, gathered, quoted
from distributor.preflight.proof import Proof
from distributor.preflight.reading import Heading, Line, brief, host_of

FEWEST_WORDS, MOST_WORDS = 50, 5000

_TO_DO = r"待补充?|待写|占位符?|TODO|TKTK|TK|FIXME|XXX+"
#: Marks that nobody writes to readers, alone in their brackets; what is pasted from a chat has "[图片]".
UNFINISHED = re.compile(
    rf"[（(【\[［]\s*(?:{_TO_DO})\s*[)）】\]］]"
    r"|[【\[](?:链接|标题|图片|配图|插入\w{1,8}|link|title|image|insert \w{1,20})[】\]]"
    r"|[（(【\[][^）)】\]]{0,10}此处(?:插入|填写|补充|添加)[^）)】\]]{0,20}[）)】\]]"
    r"|lorem ipsum dolor|\bTKTK\b",
    re.IGNORECASE,
)
#: The same words in the open: usually forgotten, sometimes the news. In Chinese "TK" is TikTok.
MARKER = re.compile(
    r"(?<![\w.#/@-])(?:TODO|FIXME|XXX)(?![\w./-])|待补充|待核对|占位符?(?=[：:。）)]|$)|^[\x00-\x7f]*\bTK\b[\x00-\x7f]*$"
)
#: Jinja and Liquid, Mailchimp (whose asterisks are emphasis to Markdown), Mailgun, ERB.
TEMPLATE = re.compile(
    r"\{\{\s*[\w.|\- ]+\s*\}\}|\{%\s*\w[^%]*%\}|\|[A-Z][A-Z_:]+\||%recipient\.\w+%|<%=?\s*\w[^%]*%>"
)
#: Their sub-domains stand in samples and documentation on purpose.
EXAMPLES = frozenset(f"{www}example.{top}" for www in ("", "www.") for top in ("com", "org", "net"))
FRONT_MATTER = re.compile(
    r"(title|date|categor(y|ies)|tags|slug|draft|cover_image|description|layout|author|published)\s*[:=]\s*\S",
    re.IGNORECASE,
)
IDEOGRAPH = r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
WORD = re.compile(rf"{IDEOGRAPH}|(?:(?!{IDEOGRAPH})\w)+(?:['’.-](?:(?!{IDEOGRAPH})\w)+)*")
PAIRS = (("「", "」"), ("『", "』"), ("《", "》"), ("（", "）"), ("【", "】"))
ENUMERATOR = re.compile(
    r"(?:^|[\s，。；;])[\da-zA-Z一二三四五六七八九十]{1,2}）|[:：;；]）", re.MULTILINE
)  # 1） and the smiley
ATTACHED = re.compile(
    r"[见阅看](?:邮件)?附件|附件(?:中|里|内|是|为)|随信附上|随邮件附|(?:see|find) (?:the )?attached"
    r"|(?:in|see) the attach(?:ment|ed)|attached (?:file|document|pdf|is|are)|I(?:'ve|’ve| have) attached",
    re.IGNORECASE,
)
#: What Aliyun DirectMail does not carry ("Types of emails allowed"): other networks, their codes and groups.
OTHER_NETWORKS = re.compile(
    r"微信|二维码|公众号|加群|入群|进群|QQ\s*群|扫码|企业微信|\bWeChat\b|\bQR codes?\b", re.IGNORECASE
)
ALIYUN = re.compile(
    r"(^|\.)(smtpdm[\w-]*\.aliyun\.com|smtpdm[\w-]*\.aliyuncs\.com|dm[\w.-]*\.aliyuncs\.com)$"
)


def matches(proof: Proof, pattern: re.Pattern[str]) -> Iterator[tuple[Line, str]]:
    for line in (Line(proof.title_line or 0, proof.post.title), *proof.lines):
        for match in pattern.finditer(line.text):
            yield line, match[0]


def told(proof: Proof, pattern: re.Pattern[str], text: str) -> Iterator[Said]:
    for line, found in matches(proof, pattern):
        yield Said(line.number or None, text.format(quoted(found)))


def unfinished(proof: Proof) -> Iterator[Said]:
    return told(proof, UNFINISHED, "{} was left for later")


def marker(proof: Proof) -> Iterator[Said]:
    """Those that `unfinished` did not tell already."""
    for line, found in matches(proof, MARKER):
        if not any(found in match[0] for match in UNFINISHED.finditer(line.text)):
            yield Said(line.number or None, f"{quoted(found)} looks like a mark to come back to")


def template(proof: Proof) -> Iterator[Said]:
    return told(proof, TEMPLATE, "{} is a template's variable that nobody filled in")


def example_address(proof: Proof) -> Iterator[Said]:
    found = [link for link in proof.reading.links if host_of(link.address) in EXAMPLES]
    if found:
        yield from gathered(
            [link.defined for link in found], f"{brief(found[0].address)} is a made-up address"
        )


def few_words(proof: Proof) -> Iterator[Said]:
    if (count := words(proof.text)) < FEWEST_WORDS:
        yield Said(proof.post.body_line, f"the post has {count} words (a Han character is one)")


def many_words(proof: Proof) -> Iterator[Said]:
    if (count := words(proof.text)) > MOST_WORDS:
        yield Said(proof.post.body_line, f"the post has {count} words (a Han character is one)")


def words(text: str) -> int:
    return sum(1 for _ in WORD.finditer(text))


def front_matter(proof: Proof) -> Iterator[Said]:
    """A second one, as when files are joined: to Markdown it is a rule and a heading."""
    for paragraph in proof.reading.paragraphs:
        keys = [match[1].lower() for line in paragraph if (match := FRONT_MATTER.match(line.text.strip()))]
        if len(keys) > 1 and len(keys) * 2 > len(paragraph) and {"title", "date"} & set(keys):
            yield Said(paragraph[0].number, f"front matter stands in the text ({', '.join(keys)})")


def unclosed_code(proof: Proof) -> Iterator[Said]:
    """A fence at the top level that takes the rest of the post with it."""
    lines = proof.reading.source.split("\n")
    for token in proof.reading.tokens:
        if token.type == "fence" and token.level == 0 and token.map:
            start, end = token.map
            last = lines[end - 1].strip()
            closed = end - 1 > start and set(last) == {token.markup[0]} and len(last) >= len(token.markup)
            if not closed:
                yield Said(
                    proof.post.body_line + start,
                    f"the code that begins with {token.markup} here never ends: the rest of the post is code",
                )


def heading_jump(proof: Proof) -> Iterator[Said]:
    before: Heading | None = None
    for heading in proof.reading.headings:
        if before and heading.level > before.level + 1:
            yield Said(heading.line, f"a heading of level {heading.level} below one of level {before.level}")
        before = heading


def empty_section(proof: Proof) -> Iterator[Said]:
    """A heading with nothing below it before the next of its rank, or the end."""
    tokens = proof.reading.tokens
    for heading in proof.reading.headings:
        after = next(
            (token for token in tokens[heading.number + 3 :] if token.nesting >= 0 and token.type != "hr"),
            None,
        )
        ends = after is None or after.type == "footnote_block_open"
        higher = after is not None and after.type == "heading_open" and int(after.tag[1]) <= heading.level
        if tokens[heading.number].level == 0 and (ends or higher):
            yield Said(heading.line, f"nothing stands below the heading {quoted(heading.text)}")


def empty_item(proof: Proof) -> Iterator[Said]:
    tokens = proof.reading.tokens
    for token, after in pairwise(tokens):
        if token.type == "list_item_open" and after.type == "list_item_close" and token.map:
            yield Said(proof.post.body_line + token.map[0], "an item of the list is empty")


def unbalanced(proof: Proof) -> Iterator[Said]:
    for paragraph in proof.reading.paragraphs:
        text = ENUMERATOR.sub("", "\n".join(line.text for line in paragraph))
        for opening, closing in PAIRS:
            if text.count(opening) != text.count(closing):
                yield Said(
                    paragraph[0].number,
                    f"{opening} occurs {text.count(opening)} times and {closing} {text.count(closing)} times",
                )


def attachment(proof: Proof) -> Iterator[Said]:
    return told(proof, ATTACHED, "{} speaks of an attachment, and a newsletter has none")


def other_networks(proof: Proof) -> Iterator[Said]:
    host = next((host for host in proof.facts.mail_hosts if ALIYUN.search(host.lower())), None)
    if host is None:
        return
    seen = [*proof.lines, *(Line(one.line or 0, one.alt or "") for one in proof.pictures)]
    found = [(line.number, match[0]) for line in seen for match in OTHER_NETWORKS.finditer(line.text)]
    said = ", ".join(dict.fromkeys(word for _, word in found))
    yield from gathered([number for number, _ in found], f"the relay {host} may refuse mail that says {said}")


def repeated_items(proof: Proof) -> Iterator[Said]:
    for section in proof.outline.sections:
        for title, count in Counter(item.title for item in section.items).items():
            if count > 1:
                yield Said(proof.line_of(title, 2), f"the item {quoted(title)} stands here {count} times")


def items_of_two_sections(proof: Proof) -> Iterator[Said]:
    """The same words and links under two headings; a line such as "none this week" has no links."""
    own = [{(item.title, tuple(item.links)) for item in section.items} for section in proof.outline.sections]
    for (title, links), count in Counter(item for items in own for item in items).items():
        if count > 1 and links:
            yield Said(proof.line_of(title, 2), f"the item {quoted(title)} stands in {count} sections")


# Raw HTML

REMOVED = frozenset(
    (
        *("script", "style", "iframe", "frame", "object", "embed", "applet", "form", "input", "button"),
        *("select", "textarea", "video", "audio", "svg", "canvas", "math", "link", "meta", "base"),
    )
)
BLACK = re.compile(
    r"(?<![\w-])color\s*:\s*(black|#0{3}(?:0{3})?\b|#1{3}(?:1{3})?\b|rgb\(\s*0\s*,\s*0\s*,\s*0\s*\))",
    re.IGNORECASE,
)


def removed_html(proof: Proof) -> Iterator[Said]:
    for tag in proof.reading.tags:
        if tag.name in REMOVED:
            yield Said(tag.line, f"<{tag.name}> is left out on every channel")


def styled_html(proof: Proof) -> Iterator[Said]:
    styled = [tag.line for tag in proof.reading.tags if _style(tag.attributes)]
    return gathered(
        styled, "style and colour of raw HTML are left out: the templates decide how a post looks"
    )


def black_text(proof: Proof) -> Iterator[Said]:
    black = [tag.line for tag in proof.reading.tags if BLACK.search(_style(tag.attributes))]
    return gathered(black, "text is made black, which nobody could read in dark mode; the colour is left out")


def _style(attributes: Mapping[str, str]) -> str:
    colour = attributes.get("color")
    return attributes.get("style", "") + (f"; color: {colour}" if colour else "")
