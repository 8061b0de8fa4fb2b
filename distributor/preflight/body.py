"""The text: what was forgotten in it, and what is broken about it."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise

from distributor.preflight.findings import Said, gathered, quoted
from distributor.preflight.proof import Proof
from distributor.preflight.reading import Heading, Line, brief, host_of

FEWEST_WORDS, MOST_WORDS = 50, 5000

#: Marks that nobody writes to readers, alone in their brackets. What a post may be about ("[image] tags", "ToDo",
#: "placeholder（占位符）") is a `marker` at most: to refuse a good post is worse than to let a mark through.
UNFINISHED = re.compile(
    r"[（(【\[［]\s{0,9}(?:待补充?|待写|TODO|TKTK|FIXME)\s{0,9}[)）】\]］]"
    r"|[（(【\[]此处(?:插入|填写|补充|添加)(?:图片?|配图|截图|链接|标题|内容|文字|数据|来源)?[）)】\]]"
    r"|(?i:lorem ipsum dolor)|\bTKTK\b"
)
#: Words in the open, and words in brackets: usually forgotten, sometimes the news. In Chinese "TK" is TikTok.
MARKER = re.compile(
    r"(?<![\w.#/@-])(?:TODO|FIXME|XXX)(?![\w./-])|待补充|待核对|占位符?(?=[：:。）)]|$)"
    r"|^(?=[\x00-\x7f]*$)(?!.*TikTok).*\bTK\b.*"
    # pasted from a chat, "[图片]" is a picture that did not come along; a label has its text behind it
    r"|\[(?:链接|标题|图片|配图|插入\w{1,8}|link|title|insert (?:link|title|image|picture)(?: here)?)\](?!\s*\S)"
    r"|[看见]\[链接\]"
)
#: What mailing services fill in, by its name: nobody means to send that.
_FIELD = (
    r"(?:(?:subscriber|contact|recipient|member|profile|customer)(?:\.\w+)+|[fl]name|(?:first|last|full)_?name"
    r"|\w{0,20}unsubscribe\w{0,20}|email_address|web_?version\w{0,9}|view_in_browser\w{0,9}|update_profile\w{0,9})"
)
#: Jinja, Liquid and ERB, Mailchimp, Mailgun. Every run has an end: a page of blanks must not take a minute.
MERGE_FIELD = re.compile(
    rf"\{{\{{-?\s{{0,9}}(?i:{_FIELD})\b[^{{}}\n]{{0,60}}\}}\}}|<%=?\s{{0,9}}@?(?i:{_FIELD})\b[^%\n]{{0,60}}%>"
    r"|\*\|[A-Z][A-Z0-9_:]{1,40}\|\*|%recipient\.\w{1,40}%"
)
#: Other marks of a template; a post about templates, or about prompts, has them in its sentences.
TEMPLATE = re.compile(
    r"\{\{(?=[^{}\n]{0,80}\w)[\w.|\- \t]{1,80}\}\}|\{%\s{0,9}\w[^%\n]{0,80}%\}|<%=?\s{0,9}\w[^%\n]{0,80}%>"
)
#: Their sub-domains stand in samples and documentation on purpose.
EXAMPLES = frozenset(f"{www}example.{top}" for www in ("", "www.") for top in ("com", "org", "net"))
FRONT_MATTER = re.compile(
    r"(title|date|categor(y|ies)|tags|slug|draft|cover_image|description|layout|author|published)\s*[:=]\s*\S",
    re.IGNORECASE,
)
RULES = {"---", "+++"}
#: What opens raw HTML that swallows everything up to its end, as CommonMark has it.
ENDS = {
    "<!--": re.compile("-->"),
    "<?": re.compile(r"\?>"),
    "<![cdata[": re.compile(r"\]\]>"),
    **{f"<{tag}": re.compile(f"</{tag}", re.IGNORECASE) for tag in ("script", "style", "pre", "textarea")},
}
#: Inside of other HTML, "<?" and CDATA end at the next ">".
OPENING = re.compile(
    r"\A\s{0,9}(?:<\?|<!\[CDATA\[)|<!--|<(?:script|style|pre|textarea)(?=[\s>]|$)", re.IGNORECASE
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
    """Outside of links: "[[链接](…)]" is a link between brackets, not a mark."""
    for line in (Line(proof.title_line or 0, proof.post.title), *proof.lines):
        for match in pattern.finditer(line.text if line.unlinked is None else line.unlinked):
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


def merge_field(proof: Proof) -> Iterator[Said]:
    return told(proof, MERGE_FIELD, "{} is a template's variable that nobody filled in")


def template(proof: Proof) -> Iterator[Said]:
    """Those that `merge_field` did not tell already."""
    for line, found in matches(proof, TEMPLATE):
        if not MERGE_FIELD.fullmatch(found):
            yield Said(line.number or None, f"{quoted(found)} looks like a template's variable")


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
    """A second one, as when files are joined: to Markdown it is a rule and a heading.

    Between its rules, and without a gap: a paper's card ("**Title:** …") or an event's ("Date: …") is none.
    """
    for paragraph in proof.reading.paragraphs:
        lines = [(line.number, proof.source.get(line.number, "").strip()) for line in paragraph]
        inner = [(number, text) for number, text in lines if text not in RULES]
        keys = [match[1].lower() for _, text in inner if (match := FRONT_MATTER.match(text))]
        most = len(keys) > 1 and len(keys) * 2 > len(inner) and {"title", "date"} & set(keys)
        if most and _between_rules(proof, inner[0][0], inner[-1][0]):
            yield Said(inner[0][0], f"front matter stands in the text ({', '.join(keys)})")


def _between_rules(proof: Proof, first: int, last: int) -> bool:
    return {proof.source.get(number, "").strip() for number in (first - 1, last + 1)} <= RULES


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


def unclosed_html(proof: Proof) -> Iterator[Said]:
    """Raw HTML of which CommonMark and browsers read no word more until its end comes."""
    source = proof.reading.source.split("\n")
    for token in proof.reading.tokens:
        if token.type == "html_block" and token.map and (found := _never_ends(token.content)):
            opening, down = found
            if not ENDS[opening].search("\n".join(source[token.map[1] :])):
                line = proof.post.body_line + token.map[0] + down
                yield Said(
                    line, f"{opening} begins here and never ends: it takes the rest of the post with it"
                )


def _never_ends(html: str) -> tuple[str, int] | None:
    """The first opening whose end is not in this piece, and how many lines down it stands."""
    at = 0
    while match := OPENING.search(html, at):
        opening = match[0].strip().lower()
        # "<!-->" is a whole comment
        end = ENDS[opening].search(html, match.start() + 2 if opening == "<!--" else match.end())
        if end is None:
            return opening, html.count("\n", 0, match.start())
        at = end.end()
    return None


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
