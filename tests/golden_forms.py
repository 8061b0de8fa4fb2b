"""Messages in a form whose differences a person can read: an element a line, each set of styles named once."""

import json
from collections.abc import Callable, Mapping
from html.parser import HTMLParser

from checkers import Rendering

VOID = {"br", "hr", "img", "meta", "link", "col", "wbr"}
EMAIL_FACTS = (
    "subject",
    "language",
    "list_id",
    "newsletter",
    "title",
    "from_name",
    "from_address",
    "reply_to",
    "slug",
)

Files = Mapping[str, str]


def forms(rendering: Rendering) -> Files:
    """File name → text. A channel that this table does not know is written as JSON."""
    return _FORMS.get(rendering.channel, _as_json)(rendering)


def pretty(html: str) -> str:
    """HTML with an element or a text a line; styles stand below, under the names of the elements that have them."""
    page = _Page()
    page.feed(html)
    page.close()
    sets = [
        f"{name}:\n" + "\n".join(f"    {line}" for line in styles) for styles, name in page.styles.items()
    ]
    return "\n".join([*page.lines, "", *sets]).rstrip() + "\n"


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.lines, self.depth, self.verbatim = list[str](), 0, False
        self.styles = dict[tuple[str, ...], str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        written = [self.attribute(tag, name, value or "") for name, value in sorted(attrs)]
        self.line(f"<{' '.join([tag, *written])}>")
        self.depth += tag not in VOID
        self.verbatim = self.verbatim or tag == "pre"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.depth -= tag not in VOID

    def handle_endtag(self, tag: str) -> None:
        self.depth -= tag not in VOID
        self.verbatim = self.verbatim and tag != "pre"

    def attribute(self, tag: str, name: str, value: str) -> str:
        if name != "style":
            return f'{name}="{value}"'
        declarations = tuple(sorted(part.strip() for part in value.split(";") if part.strip()))
        number = 1 + sum(known.startswith(f"{tag}-") for known in self.styles.values())
        return f"style={self.styles.setdefault(declarations, f'{tag}-{number}')}"

    def handle_data(self, data: str) -> None:
        for text in data.split("\n"):
            if self.verbatim:
                self.line(f"|{text}")
            elif text.strip():
                self.line(text.strip())

    def handle_entityref(self, name: str) -> None:
        self.line(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.line(f"&#{name};")

    def handle_comment(self, data: str) -> None:
        self.line(f"<!--{data}-->")

    def handle_decl(self, decl: str) -> None:
        self.line(f"<!{decl}>")

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)


def _email(rendering: Rendering) -> Files:
    content = rendering.parts[0]
    name = f"email-{rendering.variant}"
    return {
        f"{name}.html": pretty(content["html"]),
        f"{name}.txt": content["text"],
        f"{name}.json": _json({key: content[key] for key in EMAIL_FACTS if key in content}),
    }


def _telegram(rendering: Rendering) -> Files:
    name = f"telegram-{rendering.variant}"
    facts = [{"preview_url": part.get("preview_url", "")} for part in rendering.parts]
    texts = {f"{name}-{number}.html": f"{part['html']}\n" for number, part in enumerate(rendering.parts, 1)}
    return {**texts, f"{name}.json": _json(facts)}


def _wechat(rendering: Rendering) -> Files:
    content = dict(rendering.parts[0])
    name = f"wechat-{rendering.variant}"
    return {f"{name}.html": pretty(content.pop("content")), f"{name}.json": _json(content)}


def _wecom(rendering: Rendering) -> Files:
    name = f"wecom-{rendering.variant}"
    if len(rendering.parts[0]) > 1:
        return {f"{name}.json": _json(rendering.parts[0])}
    [(key, text)] = rendering.parts[0].items()
    return {f"{name}.{'txt' if key == 'text' else 'md'}": f"{text}\n"}


def _as_json(rendering: Rendering) -> Files:
    return {f"{rendering.channel}-{rendering.variant}.json": _json(list(rendering.parts))}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


_FORMS: Mapping[str, Callable[[Rendering], Files]] = {
    "email": _email,
    "telegram": _telegram,
    "wechat": _wechat,
    "wecom": _wecom,
}
