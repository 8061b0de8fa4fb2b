"""A post as a mail: what every reader gets, and the traps of premailer."""

import logging
import re
import socket
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rendering_samples import EVERYTHING, SAMPLES, make_newsletter, make_post, shared_posts

from distributor.channels.email.render import (
    LARGE,
    PLACEHOLDERS,
    UNSUBSCRIBE_URL,
    VIEW_URL,
    inline_css,
    render_email,
)
from distributor.channels.email.theme import theme_facts
from distributor.errors import ConfigError, PostError
from distributor.model import AiUse, Message
from distributor.rendering import template_environment
from distributor.settings import Newsletter, Theme

TEMPLATES = template_environment()
KEYS = {
    *("subject", "html", "text", "language", "list_id", "newsletter", "title"),
    *("from_name", "from_address", "reply_to", "slug"),
}


class Tags(HTMLParser):
    """Start tags with their attributes, and the text between tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.text = list[tuple[str, dict[str, str | None]]](), ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def render(body: str, **changes: object) -> Message:
    return render_email(make_post(body, **changes), make_newsletter(), TEMPLATES)


def html_of(body: str, **changes: object) -> str:
    return render(body, **changes).content["html"]


def test_a_mail_has_exactly_what_the_transport_needs() -> None:
    message = render("text", title="标题\r\n 二")
    assert (message.channel, message.variant, message.placeholders) == ("email", "default", PLACEHOLDERS)
    assert message.content.keys() == KEYS
    assert {key: message.content[key] for key in KEYS - {"html", "text"}} == {
        "subject": "标题 二",
        "language": "zh-CN",
        "list_id": "",
        "newsletter": "brief",
        "title": "晨间简报",
        "from_name": "晨间简报",
        "from_address": "brief@news.example.com",
        "reply_to": "desk@example.com",
        "slug": "sample",
    }


def test_both_parts_say_who_writes_why_and_how_to_leave() -> None:
    message = render("text", url="https://example.com/original")
    for part in (message.content["html"], message.content["text"]):
        for words in (
            "您收到这封邮件",
            "退订",
            "在浏览器中查看",
            "阅读原文",
            "上海市示例路 8 号",
            "desk@example.com",
        ):
            assert words in part
        for address in (*PLACEHOLDERS, "https://example.com/original"):
            assert address in part


def test_an_english_newsletter_speaks_english() -> None:
    message = render_email(make_post("text"), make_newsletter(language="en"), TEMPLATES)
    for part in (message.content["html"], message.content["text"]):
        assert "Unsubscribe" in part
        assert "Thursday, 5 March 2026" in part
        assert "退订" not in part


def test_the_page_is_accessible() -> None:
    page = Tags(html_of(EVERYTHING, cover_image="https://example.com/c.jpg"))
    assert page.all("html")[0]["lang"] == "zh-CN"
    assert page.all("div")[0]["lang"] == "zh-CN"
    assert len(page.all("h1")) == 1
    assert all("alt" in picture for picture in page.all("img"))
    layout = [table for table in page.all("table") if "role" in table]
    assert all(table["role"] == "presentation" for table in layout)
    assert len(page.all("table")) - len(layout) == 2  # the post's own tables
    assert [level for level, _ in page.tags if re.fullmatch(r"h\d", level)][:2] == ["h1", "h2"]


def test_pictures_fit_the_sheet() -> None:
    page = Tags(
        html_of("![a](https://example.com/a.png)", cover_image="https://example.com/c.jpg", title="T")
    )
    cover, inside = page.all("img")
    # The title stands above it: a screen reader need not say it twice.
    assert (cover["src"], cover["alt"], cover["width"]) == ("https://example.com/c.jpg", "", "600")
    assert (inside["alt"], inside["width"]) == ("a", "536")


def test_preheader_is_the_description_or_the_lead() -> None:
    assert 'aria-hidden="true">A lead &lt;1&gt;' in html_of("text", description="A lead <1>")
    assert 'aria-hidden="true">First words.' in html_of("## Head\n\nFirst words.")


def test_what_an_author_writes_is_escaped() -> None:
    html = html_of("text", title='<script>"&', categories=["<b>"])
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "&lt;b&gt;" in html


def test_facts_that_are_missing_leave_no_trace() -> None:
    sender = {"name": "N", "address": "n@example.com"}
    message = render_email(
        make_post("text", date=None), make_newsletter(url_pattern="", sender=sender), TEMPLATES
    )
    assert message.content["reply_to"] == ""
    for part in (message.content["html"], message.content["text"]):
        assert "None" not in part
        assert "阅读原文" not in part
        assert "n@example.com" in part


@pytest.mark.parametrize("name", PLACEHOLDERS)
def test_a_placeholder_in_the_post_is_refused_with_its_line(name: str) -> None:
    with pytest.raises(PostError, match="reserved word") as refused:
        render(f"fine\n\n`{name}`")
    assert refused.value.line == 7
    with pytest.raises(PostError, match="reserved word"):
        render("fine", title=name)


@pytest.mark.parametrize(
    "body",
    [
        r"[点](https://x.com/?u=_\_UNSUBSCRIBE_URL__)",
        r"&#95;\_VIEW_URL\_\_",
        r"\_\_PREFERENCES_URL\_\_",
        "`__UNSUB\x00SCRIBE_URL__`",
    ],
)
def test_a_placeholder_that_hides_in_escapes_is_refused(body: str) -> None:
    with pytest.raises(PostError, match="reserved word"):
        render(body)


def test_a_placeholder_in_a_category_is_refused() -> None:
    with pytest.raises(PostError, match="reserved word"):
        render("fine", categories=["__UNSUBSCRIBE_URL__"])


def test_a_template_without_the_way_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "templates" / "email").mkdir(parents=True)
    (tmp_path / "templates" / "email" / "issue.txt.j2").write_text("{{ body }} {{ view_url }}")
    with pytest.raises(ConfigError, match=f"{UNSUBSCRIBE_URL} does not occur in the text part"):
        render_email(make_post("text"), make_newsletter(), template_environment(tmp_path))


# What Gmail would clip

PARAGRAPH = "这一段有一百个字，" + "字" * 91
SECTIONS = "\n\n".join(f"## 第 {number} 节\n\n" + f"{PARAGRAPH}\n\n" * 10 for number in range(1, 41))


def with_policy(policy: str, **changes: object) -> Newsletter:
    return make_newsletter(channels={"email": {"over_size": policy}}, **changes)


def test_a_large_mail_is_sent_with_a_warning() -> None:
    assert not render("word " * 1000).warnings
    [warning] = render("文" * 22_000).warnings
    assert "Gmail clips" in warning


def test_a_mail_that_is_too_large_becomes_a_teaser_and_says_so() -> None:
    message = render(SECTIONS)
    html, text = message.content["html"], message.content["text"]
    assert len(html.encode()) <= LARGE
    assert "shortened to a teaser" in message.warnings[0]
    for part in (html, text):
        assert "全文请在网页上阅读" in part
        assert "第 1 节" in part
        assert "第 40 节" not in part or "本期目录" in part
        assert "https://brief.example.com/2026-03-05/sample/" in part
    assert all(html.count(placeholder) == 1 for placeholder in PLACEHOLDERS)


def test_a_teaser_uses_the_room_and_ends_with_no_heading() -> None:
    html = render(SECTIONS).content["html"]
    assert len(html.encode()) > 0.8 * LARGE
    body = html[: html.index("全文请在网页上阅读")]
    assert body.rindex("</p>") > body.rindex("</h2>")


def test_a_teaser_has_no_marks_of_footnotes_that_are_not_there() -> None:
    html = render(f"有脚注[^a]的话。\n\n{SECTIONS}\n\n[^a]: 注").content["html"]
    assert "有脚注的话" in html


def test_a_first_block_that_does_not_fit_leaves_a_summary() -> None:
    message = render("开头一句。" + "文" * 40_000)
    assert len(message.content["html"].encode()) < 20_000
    assert "开头一句。" in message.content["text"]
    assert "全文请在网页上阅读" in message.content["html"]


def test_one_long_list_is_cut_between_its_items() -> None:
    html = render("\n".join(f"{n}. **第 {n} 条**：{PARAGRAPH * 5}" for n in range(1, 90))).content["html"]
    assert 0.8 * LARGE < len(html.encode()) <= LARGE
    assert "第 1 条" in html
    assert "第 89 条" not in html


@pytest.mark.parametrize(("paragraphs", "notes"), [(30, 20), (30, 30), (40, 40), (25, 50)])
def test_a_teaser_of_a_post_with_many_footnotes(paragraphs: int, notes: int) -> None:
    body = "\n\n".join(f"{PARAGRAPH * 12}[^{n % notes}]" for n in range(paragraphs))
    body += "\n\n" + "\n\n".join(f"[^{n}]: {PARAGRAPH * 8}" for n in range(min(notes, paragraphs)))
    message = render(body)
    assert "shortened to a teaser" in message.warnings[0]
    assert len(message.content["html"].encode()) <= LARGE


def test_a_mail_that_is_too_large_is_refused_or_sent_whole_if_the_newsletter_says_so() -> None:
    with pytest.raises(PostError, match="shorten the post"):
        render_email(make_post(SECTIONS), with_policy("refuse"), TEMPLATES)
    message = render_email(make_post(SECTIONS), with_policy("send"), TEMPLATES)
    assert "sent whole" in message.warnings[0]
    assert "第 40 节" in message.content["text"]


def test_without_an_address_on_the_web_nothing_is_left_out() -> None:
    message = render_email(make_post(SECTIONS), with_policy("teaser", url_pattern=""), TEMPLATES)
    assert "no address on the web" in message.warnings[0]
    assert "第 40 节" in message.content["text"]


# Labels, subject, contents


@pytest.mark.parametrize(
    ("ai", "own", "said"),
    [
        ("generated", None, "本期内容由 AI 生成"),
        ("none", AiUse.ASSISTED, "本期内容由 AI 辅助生成"),
        ("generated", AiUse.NONE, None),
        ("none", None, None),
    ],
)
def test_both_parts_tell_what_a_machine_wrote(ai: str, own: AiUse | None, said: str | None) -> None:
    message = render_email(make_post("text", ai=own), make_newsletter(ai=ai), TEMPLATES)
    for part in (message.content["html"], message.content["text"]):
        assert ("由 AI" in part) == (said is not None)
        assert said is None or said in part


@pytest.mark.parametrize(
    ("title", "subject"),
    [
        ("AI 日报：语料荒里的“换粮”行动", "AI日报：语料荒里的“换粮”行动"),
        ("发布 GPT-5 了", "发布GPT-5了"),
        ("AI 日报：OpenAI 发布", "AI 日报：OpenAI 发布"),
        ("GPT 5 发布", "GPT 5发布"),
        ("没有 拉丁字母", "没有 拉丁字母"),
    ],
)
def test_a_chinese_subject_does_not_shout(title: str, subject: str) -> None:
    message = render("text", title=title)
    assert message.content["subject"] == subject
    assert f">{title}</h1>" in message.content["html"]


def test_the_subject_may_have_a_prefix() -> None:
    newsletter = make_newsletter(channels={"email": {"subject_prefix": "【广告】"}})
    message = render_email(make_post("text", title="新机器"), newsletter, TEMPLATES)
    assert message.content["subject"] == "【广告】新机器"
    assert "<title>【广告】新机器</title>" in message.content["html"]
    assert ">新机器</h1>" in message.content["html"]


def test_a_long_post_has_its_contents_in_front() -> None:
    body = f"## 头条\n\n{PARAGRAPH * 8}\n\n## 速览\n\n1. **甲** 一\n2. **乙** 二\n\n### 深处\n\n- 丙\n\n## 观点\n\n{PARAGRAPH * 8}"
    html = html_of(body)
    contents = html[html.index("本期目录") : html.index('class="body"')]
    assert re.findall(r'class="entry"[^>]*>([^<]+)', contents) == ["头条", "速览", "观点"]
    assert "（3 条）" in contents
    assert "深处" not in contents
    assert "本期目录" not in html_of("## 头条\n\n短\n\n## 速览\n\n短\n\n## 观点\n\n短")


# Size and style


def test_fonts_stand_on_cells_so_that_paragraphs_stay_small() -> None:
    growth = len(html_of("一段文字。\n\n" * 401)) - len(html_of("一段文字。\n\n"))
    assert growth < 400 * 50


def test_the_mail_is_complete_with_inline_styles_alone() -> None:
    page = Tags(html_of("text\n\n> quote"))
    [body] = [cell for cell in page.all("td") if cell.get("class") == "body"]
    for property_ in ("font-family", "font-size:16px", "line-height:1.8", "padding"):
        assert property_ in str(body["style"])
    assert all(paragraph.get("style") for paragraph in page.all("p"))


def sheets(html: str) -> list[str]:
    return re.findall(r"<style[^>]*>(.*?)</style>", html, re.DOTALL)


def test_the_first_sheet_uses_only_selectors_that_premailer_understands() -> None:
    sheet = TEMPLATES.get_template("email/partials/style.css.j2").render(theme_facts(Theme()))
    for selector in re.findall(r"([^{}]+)\{", sheet):
        assert re.fullmatch(r"[\sa-z0-9.,]+", selector), selector
    assert not re.search(r"!important|rgba?\(|var\(|url\(|@", sheet)
    assert all(len(colour) == 6 for colour in re.findall(r"#([0-9a-fA-F]+)", sheet))


# premailer's traps


def test_placeholders_survive_inlining() -> None:
    html = f'<html><body><a href="{UNSUBSCRIBE_URL}">x</a><p>{VIEW_URL} {VIEW_URL}</p></body></html>'
    inlined = inline_css(html)
    assert (inlined.count(UNSUBSCRIBE_URL), inlined.count(VIEW_URL)) == (1, 2)


def test_head_css_keeps_every_important() -> None:
    outlook, head = sheets(html_of("text"))
    assert "mso-line-height-rule" in outlook
    declarations = re.findall(r"[a-z-]+:\s*[^;{}]+;", head)
    assert len(declarations) > 15
    assert all(declaration.endswith("!important;") for declaration in declarations)
    assert "prefers-color-scheme: dark" in head
    assert "[data-ogsc]" in head  # Outlook on the web
    assert len(head) < 8000  # Gmail drops all CSS above 16,384 characters


def test_inlining_adds_no_attributes_and_no_white_space() -> None:
    html = (
        "<html><head><style>img { width: 50%; } p { width: 10px; background-color: #ffffff; }</style></head>"
        '<body><p>汉<b>字</b>，<i>无</i>空白</p><img width="600" src="https://example.com/a.png"></body></html>'
    )
    page = Tags(inline_css(html))
    assert page.text.strip() == "汉字，无空白"
    assert page.all("img")[0]["width"] == "600"
    assert page.all("p")[0].keys() == {"style"}


def test_inlining_never_touches_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    render(EVERYTHING, cover_image="https://example.com/c.jpg")


def test_inlining_is_quiet_and_repeatable(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        first, second = html_of(EVERYTHING), html_of(EVERYTHING)
    assert first == second
    assert not caplog.records


def test_outlooks_comments_survive() -> None:
    assert html_of("text").count("<!--[if mso]>") == 3


# Everything


@pytest.mark.parametrize("name", SAMPLES)
def test_our_samples_render(name: str) -> None:
    message = render(SAMPLES[name], cover_image="https://example.com/c.jpg")
    html = message.content["html"]
    assert "{{" not in html
    assert all(html.count(placeholder) == 1 for placeholder in PLACEHOLDERS)


def test_real_posts_render() -> None:
    for post in shared_posts():
        message = render_email(post, make_newsletter(), TEMPLATES)
        assert len(message.content["html"].encode()) < 100_000
        assert message.content["subject"].replace(" ", "") == post.title.replace(" ", "")


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=200), st.text(min_size=1, max_size=60))
def test_any_text_is_rendered_or_refused(body: str, title: str) -> None:
    try:
        message = render(body, title=title)
    except PostError:
        return
    for part in (message.content["html"], message.content["text"], message.content["subject"]):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", part)
