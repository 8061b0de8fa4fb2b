"""Preflight: each check finds its own, on its line, and leaves alone what looks alike."""

import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from corpus.rendered import corpus_posts
from hypothesis import given
from hypothesis import strategies as st
from rendering_samples import EVERYTHING, SAMPLES, ZONE, make_newsletter, make_post, shared_posts
from services import ROOT

from distributor.bootstrap import build
from distributor.channels.email.render import render_email
from distributor.dispatch import inspect
from distributor.errors import PostError
from distributor.model import Message, Post
from distributor.posts import load_posts, read_post
from distributor.preflight import (
    CHECKS,
    NAMES,
    Facts,
    Finding,
    NotFit,
    Severity,
    examine,
    online,
    read_proof,
    recent_posts,
)
from distributor.preflight.repeats import similarity
from distributor.rendering import local_day, template_environment
from distributor.settings import load_settings

DAY = date(2026, 3, 5)  # a Thursday
HEAD = """---
title: "OpenAI 日报：今天的三件小事"
date: 2026-03-05 07:00
categories:
  - news
cover_image: https://images.example.com/cover.png
---

"""
FIRST = HEAD.count("\n") + 1  # the line that a body begins on
NEWSLETTER = make_newsletter(channels={"email": {}})
TEMPLATES = template_environment()


def write(folder: Path, text: str, name: str = "today.md") -> Post:
    path = folder / name
    path.write_text(text, "utf-8")
    return read_post(path, ZONE)


def findings(
    post: Post, *, messages: Sequence[Message] = (), facts: Facts | None = None
) -> Sequence[Finding]:
    return examine(read_proof(post, NEWSLETTER, DAY, facts, messages))


def lines(check: str, found: Sequence[Finding]) -> list[int | None]:
    return [finding.line for finding in found if finding.check == check]


@dataclass(frozen=True)
class Case:
    """A body with what the check looks for, on these lines of it (from 1), and one that only looks alike."""

    check: str
    bad: str
    at: Sequence[int]
    good: str


BODIES = (
    Case(
        "placeholder",
        "一。\n\n- 二（待补）\n- `（待补）`\n- 三【TODO】",
        [3, 5],
        "会议时间（待定），“待补”两个字不算，`[TODO]`。",
    ),
    Case(
        "placeholder",
        "【此处插入图片】\n在这里。Lorem ipsum dolor",
        [1, 2],
        "看[链接](https://a.example/x)，一个 Lorem ipsum 生成器。",
    ),
    Case("marker", "详情看[链接]\n在这里", [1], "[图片] 标签与 【链接】https://a.example/x"),
    Case(
        "marker",
        "一行\n第二行 TODO: 改\n\n```\nFIXME\n```",
        [2],
        "`TODO` 与 #TODO，todo.txt，TK 电商，Windows XXXL 号",
    ),
    Case("marker", "The number is TK percent.", [1], "TikTok（TK）今天更新。"),
    Case(
        "template",
        "你好\n{{ subscriber.name }}：\n\n<%= first_name %>\n{{ unsubscribe_url | safe }}，%recipient.city%",
        [2, 4, 5, 5],
        "`{{ first_name }}` 是模板，提示词里的 {{ name }} 会被替换，{% if x %} 也是。",
    ),
    Case(
        "template", "Dear *|FNAME|*,\n亲爱的*|LIST:NAME|*：", [1, 2], "2 *|* 3，标签：科技|AI|大模型，|GPU|"
    ),
    Case(
        "template-like",
        "你好\n{{ user.name }}：\n\n{% if x %}",
        [2, 4],
        "`{{ user }}` 是模板，{a} 不是，{{}} 也不是，{{ first_name }} 是错。",
    ),
    Case("example-address", "[a][r]\n\n[r]: https://example.com/x", [3], "[a](https://docs.example.com/x)"),
    Case("words-few", "太短了。", [1], "十个字十个字十个字十" * 5),
    Case("words-many", "字" * 5001, [1], "word " * 5000),
    Case(
        "front-matter",
        "---\ntitle: B\ndate: 2026-03-04\n---\n\n文",
        [2],
        "title: 只有一行是这样的\n\n```\ntitle: A\ndate: B\n```",
    ),
    Case(
        "code-unclosed",
        "文\n\n```python\nx = 1\n\n## 头条",
        [3],
        "```\na\n```\n\n~~~~\n```\n~~~~\n\n- ```\n  b\n  ```",
    ),
    Case(
        "front-matter", "文\n\n+++\ntitle = 1\ndate = 2\n+++", [4], "---\n\n**Title:** A\n**Date:** B\n\n---"
    ),
    Case(
        "markdown-literal",
        "见[公告][1]。\n注[^1]\n\n这是**重点 **内容\n\n##二级标题\n\n[公告]（https://a.example/x）",
        [1, 2, 4, 6, 8],
        "见[公告][1]和[甲][]，b[i][j]，2**3**4，张**、李**，139****1234，`[^1]`，[^a-z]，#话题\n"
        "**重点**内容[^1]，[更新]（[详情](https://a.example/x)），[1]（https://a.example/x）\n\n"
        "```\n##x **y **\n```\n\n[1]: https://a.example/1\n[甲]: https://a.example/2\n[^1]: 注",
    ),
    Case(
        "definition-unused",
        "文\n\n[来源]: 新华社\n\n[^2]: 没人引用的注释",
        [3, 5],
        "见[公告][1]，[来源]，![图][p][^n]\n\n[1]: https://a.example/1\n[来源]: https://a.example/2\n"
        "[P]: https://a.example/x.png\n[^n]: 注\n\n[//]: # (备注)",
    ),
    Case("html-unclosed", "文\n\n<!-- 备注 ->\n\n## 头条", [3], "<!-- 备注 -->\n\n文 <!-- 不是注释"),
    Case("html-unclosed", "文\n\n<div>\n<!-- 备注\n</div>\n\n文", [4], "<div>\n<pre>\n\n一</pre>\n</div>"),
    Case("html-unclosed", "<?php x\n\n文", [1], "<?php x ?>\n\n<!-->\n\n`<?php`\n\n<p>a <? b</p>\n\n文"),
    Case("html-unclosed", "文\n\n<![CDATA[ x ]>\n\n文", [3], "<![CDATA[ x ]]>"),
    Case("html-unclosed", "<script>\n\n文", [1], "<script>\nx\n\n</SCRIPT>"),
    Case("html-unclosed", "文\n\n<PRE>\n一\n\n二", [3], "<preview>\n\n一"),
    Case("html-unclosed", "<style>a\n\n文", [1], "<style>\n</style>\n\n文"),
    Case("html-unclosed", "<textarea>\n\n文", [1], "<textarea>x</textarea>"),
    Case(
        "heading-jump",
        "## 一\n\n文\n\n#### 三\n\n文",
        [5],
        "# 一\n\n## 二\n\n文\n\n### 三\n\n文\n\n## 二\n\n文",
    ),
    Case(
        "section-empty",
        "## 一\n\n文\n\n## 二\n\n## 三\n\n文\n\n## 四",
        [5, 11],
        "# 一\n\n## 二\n\n文\n\n## 三\n\n- 条",
    ),
    Case("item-empty", "- 一\n-\n- 三", [2], "- 一\n- ![图表](https://a.example/x.png)"),
    Case(
        "item-twice",
        "有同一条。\n\n1. **同一条** 甲。\n2. **别的** 乙。\n3. **同一条** 丙。",
        [5],
        "- 甲\n- 乙\n- 丙",
    ),
    Case(
        "item-in-sections",
        "## 一\n\n- [新闻](https://a.example/1)\n\n## 二\n\n- [新闻](https://a.example/1)",
        [7],
        "## 一\n\n- 本周没有\n- [新闻](https://a.example/1)\n\n## 二\n\n- 本周没有\n- [新闻](https://a.example/2)",
    ),
    Case(
        "brackets",
        "对的（一）。\n\n少了（一半。\n后半",
        [3],
        "1）一\n2）二；3）三 :）\n\n《书》「引『内』文」（跨\n行）",
    ),
    Case(
        "attachment",
        "一\n详情见附件。\nPlease find attached the list.",
        [2, 3],
        "邮件附件的安全漏洞；attached to the wall",
    ),
    Case(
        "html-removed",
        "文\n\n<div>\n<iframe src='x'></iframe>\n</div>\n\n字<script>x</script>",
        [4, 7],
        "<b>粗</b><br>",
    ),
    Case(
        "html-style", "文\n\n<p>\n<span style='font-size:20px'>大</span></p>", [4], "<p align='center'>中</p>"
    ),
    Case(
        "html-black",
        "<p>\n<font\ncolor='#000'>黑</font> <i style='color: black'>x</i></p>",
        [2],
        "<i style='background-color:#000'>x</i>",
    ),
    Case(
        "link-nowhere",
        "[a](/x)\n\n[b][r] [c](ftp://a.example/)\n\n[r]: javascript:x",
        [1, 3, 5],
        "[a](mailto:a@b.example) [b](#top)",
    ),
    Case(
        "link-dead",
        "一\n[a](https://intranet-wiki/x)\n[b](https://https://a.example)",
        [2, 3],
        "[a](https://a.example/https://b.example)",
    ),
    Case(
        "link-private",
        "[a](http://localhost:8000/)\n<http://192.168.1.2/x>\n[c](https://nas.local)",
        [1, 2, 3],
        "`http://localhost` [8](https://8.8.8.8/)",
    ),
    Case(
        "link-end",
        "[a](https://a.example/x。)\n<https://a.example/y)>\n<https://a.example/z，>",
        [1, 2, 3],
        "[a](https://a.example/x_(y)) 和 <https://a.example/z>。",
    ),
    Case(
        "link-shortened",
        "- 一\n  [a](https://bit.ly/x)\n- [b](http://t.cn/y)",
        [2, 3],
        "[a](https://bit.ly.example.com/) [b](https://exit.ly)",
    ),
    Case(
        "link-other-site",
        "一\n[https://bank.example.com/](https://evil.example.net/)",
        [2],
        "[www.bank.example.com](https://bank.example.com/in) [Node.js](https://a.example) <https://b.example>",
    ),
    Case(
        "link-insecure",
        "[a](https://a.example)\n[b](http://b.example)",
        [2],
        "`http://a.example` [a](https://a.example)",
    ),
    Case(
        "link-tracking",
        "一[a](https://a.example/?id=1&utm_source=x)",
        [1],
        "[a](https://a.example/?source=x&utm=1)",
    ),
    Case("link-text", "一\n请[点击这里](https://a.example/1)", [2], "[点击这里的人](https://a.example/1)"),
    Case(
        "link-text-repeated",
        "- [来源](https://a.example/1)\n- [来源](https://a.example/2)\n- [来源](https://a.example/3)",
        [1],
        "- [来源](https://a.example/1)\n- [来源](https://a.example/1)\n- [来源](https://a.example/2)",
    ),
    Case(
        "picture-nowhere",
        "![x](data:image/png;base64,AAAA)\n\n<p>\n<img src='x.png' alt='y'></p>",
        [1, 4],
        "![x](https://a.example/x.png)",
    ),
    Case(
        "picture-alt",
        "一\n![](https://a.example/x.png)",
        [2],
        "![图表](https://a.example/x.png)\n<img src='https://a.example/x.png' alt=''>",
    ),
    Case(
        "picture-alt-empty",
        "![image-20240101.png](https://a.example/x.png)",
        [1],
        "![图片里的三个人](https://a.example/x.png)",
    ),
    Case(
        "picture-format",
        "一\n\n![图][r]\n\n[r]: https://a.example/x.svg?v=1",
        [5],
        "![图](https://a.example/x.png?old=x.svg)",
    ),
    Case("picture-webp", "![图](https://a.example/x.webp)", [1], "![图](https://a.example/x.jpg)"),
    Case("picture-insecure", "一\n\n![图](http://a.example/x.png)", [3], "![图](https://a.example/http.png)"),
    Case(
        "date-weekday",
        "一\n3月4日（星期五）的会\nFriday, March 6",
        [2],
        "3月4日（星期三），Thursday, March 5, 周五见，3月6日周五",
    ),
    Case(
        "date-line",
        "> 2025年3月5日 星期三\n\n## 头条\n\n文",
        [1],
        "2026-03-04T23:00:00Z\n\n2025年3月5日发布的模型",
    ),
    Case(
        "year-copyright",
        "文\n\n© 2024 晨间简报",
        [3],
        "图 © 2024 某社\n\n一\n\n二\n\n© 2019–2026 晨间简报；2024 年的版权案",
    ),
)


class TestBody:
    @pytest.mark.parametrize("case", BODIES, ids=lambda case: case.check)
    def test_it_is_found_on_its_line(self, case: Case, tmp_path: Path) -> None:
        found = findings(write(tmp_path, HEAD + case.bad + "\n"))
        assert lines(case.check, found) == [FIRST - 1 + line for line in case.at]

    @pytest.mark.parametrize("case", BODIES, ids=lambda case: case.check)
    def test_what_looks_alike_is_left_alone(self, case: Case, tmp_path: Path) -> None:
        found = findings(write(tmp_path, HEAD + case.good + "\n"))
        assert [str(one) for one in found if one.check == case.check] == []


def front(**changes: str) -> str:
    """A post whose front matter has the title on its third line."""
    table = {
        "date": "2026-03-05",
        "title": '"OpenAI 日报：今天的三件小事"',
        "cover_image": "https://a.example/c.png",
    }
    keys = "".join(f"{key}: {value}\n" for key, value in {**table, **changes}.items() if value)
    return f"---\n{keys}---\n\n一。\n"


FRONTS = (
    ("subject-short", front(title="日报"), 3, front(title="每封信都有收据")),
    ("subject-long", front(title="长" * 41), 3, front(title="长" * 40)),
    ("subject-long", front(title="a word " * 12), 3, front(title="a word " * 11)),
    ("subject-all-caps", front(title="GPT-5.2 发布"), 3, front(title="GPT-5.2 发布：OpenAI 的回应")),
    ("subject-all-caps", front(title="AI日报：三件事"), 3, front(title="日报：三件事，1 2 3 4")),
    ("subject-marks", front(title="真的吗?太好了!"), 3, front(title="真的吗？太好了！")),
    ("cover-missing", front(cover_image=""), None, front()),
    ("picture-nowhere", front(cover_image="images/c.png"), 4, front()),
    ("picture-webp", front(cover_image="https://a.example/c.webp"), 4, front()),
    ("date-ahead", front(date="2026-03-08"), 2, front(date="2026-03-07")),
    ("date-title", front(title="AI 日报 3月4日：三件事"), 3, front(title="AI 日报 3月5日：三件事")),
    (
        "date-title",
        front(title='"Daily [2025-03-05] three things"'),
        3,
        front(title="9月9日发布会前瞻：三件事"),
    ),
    ("date-weekday", front(title="3月5日 周五：三件小事"), 3, front(title="3月5日 周四：三件小事")),
    (
        "year-title",
        front(title="2024 年回顾：三件小事"),
        3,
        front(date="2026-01-05", title="2025 年回顾：三件小事"),
    ),
    ("placeholder", front(title="AI 日报：（待补）今天的"), 3, front()),
    (
        "ignore-unknown",
        front(preflight_ignore="link-shortned"),
        5,
        front(preflight_ignore="[link-shortened]"),
    ),
)


class TestFrontMatter:
    @pytest.mark.parametrize(("check", "bad", "line", "good"), FRONTS, ids=lambda value: str(value)[:16])
    def test_it_is_found_on_its_line(
        self, check: str, bad: str, line: int | None, good: str, tmp_path: Path
    ) -> None:
        assert lines(check, findings(write(tmp_path, bad))) == [line]
        assert lines(check, findings(write(tmp_path, good))) == []

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("---\ncategories:\n  - a\n  - b\ntitle: >-\n  GPT\n  5.2\ndate: 2026-03-05\n---\n\n一\n", 5),
            ('+++\ndate = 2026-03-05\ntags = [\n  "a",\n]\ntitle = "GPT 5.2 发布"\n+++\n\n一\n', 6),
            ('{\n "date": "2026-03-05",\n "title": "GPT 5.2 发布"\n}\n\n一\n', 3),
            ("Date: 2026-03-05\nTitle: GPT 5.2 发布\n\n一\n", 2),
            ("---\ndate: 2026-03-05\n---\n\n\n# GPT 5.2 发布\n\n一\n", 6),
        ],
        ids=["yaml", "toml", "json", "headers", "heading"],
    )
    def test_the_title_s_line_in_every_kind(self, text: str, line: int, tmp_path: Path) -> None:
        assert lines("subject-all-caps", findings(write(tmp_path, text))) == [line]


class TestLines:
    """Where a link stands, however it is written."""

    @pytest.mark.parametrize(
        ("body", "line"),
        [
            ("one\ntwo [a](https://bit.ly/x)", 2),
            ("one [a\nb](https://bit.ly/x)", 1),
            ("`code\nspan` then\n[a](https://bit.ly/x)", 3),
            ("one\\\ntwo  \n[a](https://bit.ly/x)", 3),
            ("![alt\ntext](https://a.example/x.png)\n[a](https://bit.ly/x)", 3),
            ("> one\n> two\n> [a](https://bit.ly/x)", 3),
            ("- one\n\n  two\n  - three\n    [a](https://bit.ly/x)", 5),
            ("| a | b |\n|---|---|\n| c | d |\n| e | [f](https://bit.ly/x) |", 4),
            ("[a][b]\n\ntext\n\n[b]:\n  https://bit.ly/x", 5),
            ("[b]\n\n[b]: https://bit.ly/x", 3),
            ("[^1]\n\ntext\n\n[^1]: a note\n    [a](https://bit.ly/x)", 6),
            ("one\ntwo ^[a note [a](https://bit.ly/x)]\n\nthree", 2),
            ("<div>\n<p>\n<a\n href='https://bit.ly/x'>a</a></p></div>", 3),
            ("one <b>\nx</b>\n<a href='https://bit.ly/x'>a</a>", 3),
            ("<https://bit.ly/x>", 1),
            ("[![x](https://a.example/x.png)\n](https://bit.ly/x)", 1),
        ],
    )
    def test_a_link(self, body: str, line: int, tmp_path: Path) -> None:
        found = findings(write(tmp_path, HEAD + body + "\n"))
        assert lines("link-shortened", found) == [FIRST - 1 + line]

    def test_many_of_a_kind_are_one_finding(self, tmp_path: Path) -> None:
        body = "\n\n".join(f"![](https://a.example/{n}.png)" for n in range(9))
        (found,) = [one for one in findings(write(tmp_path, HEAD + body)) if one.check == "picture-alt"]
        assert found.line == FIRST
        assert "9 pictures" in found.text
        assert found.text.endswith("(also on lines 11, 13, 15, 17, 19 and 3 more)")


LONG = "".join(f"第 {n} 句说的是另一件事情，与前一句没有关系。" for n in range(40))
ITEMS = "- **第一条** 甲\n- **第二条** 乙\n- **第三条** 丙\n"


class TestYesterday:
    def recent(self, tmp_path: Path, body: str, **changes: str) -> Facts:
        text = front(**{"date": "2026-03-04", "title": "OpenAI 日报：昨天的事", **changes})
        other = write(tmp_path, text.replace("一。\n", body), "yesterday.md")
        return Facts(recent=[other])

    def test_the_same_text_with_a_new_date_is_an_error(self, tmp_path: Path) -> None:
        facts = self.recent(tmp_path, LONG)
        copied = write(tmp_path, HEAD + LONG.replace("第 3 句", "第三句") + "\n")
        (error,) = [one for one in findings(copied, facts=facts) if one.severity is Severity.ERROR]
        assert (error.check, error.line) == ("post-repeated", FIRST)
        assert "yesterday.md (2026-03-04)" in error.text
        fresh = write(tmp_path, HEAD + LONG.replace("另一件", "同一件") + "\n")
        assert lines("post-repeated", findings(fresh, facts=facts)) == []

    def test_the_same_title(self, tmp_path: Path) -> None:
        post = write(tmp_path, HEAD + "一\n")
        assert lines(
            "title-repeated", findings(post, facts=self.recent(tmp_path, "二", title=f'"{post.title}"'))
        ) == [2]
        assert lines("title-repeated", findings(post, facts=self.recent(tmp_path, "二"))) == []

    def test_the_same_first_items(self, tmp_path: Path) -> None:
        post = write(tmp_path, HEAD + "导语\n\n" + ITEMS)
        assert lines("items-repeated", findings(post, facts=self.recent(tmp_path, ITEMS))) == [FIRST + 2]
        other = self.recent(tmp_path, ITEMS.replace("第二条", "新的"))
        assert lines("items-repeated", findings(post, facts=other)) == []

    def test_the_days_that_count(self, tmp_path: Path) -> None:
        for day in range(1, 28):
            write(
                tmp_path,
                front(date=f"2026-02-{day:02}", title=f"第 {day} 天的日报"),
                f"2026-02-{day:02}-x.md",
            )
        write(tmp_path, front(date="2026-02-26", draft="true"), "draft.md")
        (tmp_path / "2026-02-25-broken.md").write_text("---\ntitle: [\n", "utf-8")
        post = read_post(tmp_path / "2026-02-27-x.md", ZONE)
        found = recent_posts(tmp_path, post, NEWSLETTER, DAY)
        assert [local_day(one, NEWSLETTER) for one in found] == [
            date(2026, 2, day) for day in range(26, 19, -1)
        ]

    def test_similarity(self) -> None:
        assert similarity(LONG, LONG) == 1
        assert similarity(LONG, LONG[::-1]) < 0.2
        assert similarity("今天休刊。", "今天休刊。") == 0


def mail(subject: str = "x", html: str = "", warnings: Sequence[str] = ()) -> Message:
    return Message(
        channel="email", variant="default", content={"subject": subject, "html": html}, warnings=warnings
    )


class TestMessages:
    def test_many_parts(self, tmp_path: Path) -> None:
        post = write(tmp_path, front())
        parts = [
            Message(channel="telegram", variant="default", content={}, part=n, parts=4) for n in range(1, 5)
        ]
        assert lines("telegram-parts", findings(post, messages=parts)) == [None]
        assert lines("telegram-parts", findings(post, messages=[replace(parts[0], parts=3)])) == []

    def test_items_left_out(self, tmp_path: Path) -> None:
        post = write(tmp_path, front())
        short = Message(channel="wecom", variant="text", content={"text": "一\n……等 12 条\n阅读全文"})
        assert lines("wecom-items", findings(post, messages=[short, short])) == [None]
        whole = replace(short, content={"text": "一\n二\n阅读全文"})
        assert lines("wecom-items", findings(post, messages=[whole])) == []

    def test_what_renderers_say_is_told_once_and_in_its_place(self, tmp_path: Path) -> None:
        post = write(tmp_path, front())
        said = [f"{post.path}:7: the link '#x' leads into the page", "no address"]
        found = findings(post, messages=[mail(warnings=said), mail(warnings=said)])
        assert [(one.line, one.text) for one in found if one.check == "renderer"] == [
            (None, "no address"),
            (7, "the link '#x' leads into the page"),
        ]


class TestTextLost:
    BODY = "一段话，[链接](https://a.example/x)在此。\n\n- [x] 完成的事\n\n```\nx = secret(1)\n```\n\n尾声 **重点** 完。\n"

    def lost(self, folder: Path, body: str, html: str = "", warnings: Sequence[str] = ()) -> list[str]:
        post = write(folder, HEAD + body)
        message = mail(html=html, warnings=warnings) if html else render_email(post, NEWSLETTER, TEMPLATES)
        found = findings(post, messages=[message])
        return [f"{one.severity} {one.line} {one.text}" for one in found if one.check == "text-lost"]

    def test_a_mail_that_holds_the_text_is_whole(self, tmp_path: Path) -> None:
        assert self.lost(tmp_path, self.BODY) == []

    def test_what_is_not_in_it_is_told_with_its_line(self, tmp_path: Path) -> None:
        whole = "<p>一段话，<a href='尾声'>链接</a>在此。☑ 完成的事</p>"
        told = self.lost(tmp_path, self.BODY, whole)
        assert told == [f'error {FIRST + 4} the mail lacks "x = secret(1)" and 2 more pieces of the text']
        assert self.lost(tmp_path, self.BODY, whole, [f"{tmp_path}: … to a teaser with a link"]) == []

    def test_hidden_text_is_not_in_the_mail(self, tmp_path: Path) -> None:
        html = "<style>尾声</style><!-- 尾声 --><p>正文</p>"
        assert self.lost(tmp_path, "正文\n\n尾声", html) == [f'error {FIRST + 2} the mail lacks "尾声"']

    @pytest.mark.parametrize(
        "body",
        [
            "字<script>let x</script>句 <noscript>secret</noscript>尾",
            "<template>\n\nsecret\n\n</template>\n\n尾声",
            "| 甲 | 乙 | 丙 | 丁 | 戊 |\n|-|-|-|-|-|\n| 很长的说明 | 二 | 三 | ![图](https://a.example/x.png) | 五 |",
            "<x-line>一</x-line><x-line n='x'>二",
            "1. **小米**：发布新车\n2. **华为**，推出新手机[^1]\n\n[^1]: 注 &amp; &copy; a<b",
        ],
    )
    def test_what_a_mail_leaves_out_or_rearranges_on_purpose_is_not_lost(
        self, body: str, tmp_path: Path
    ) -> None:
        assert self.lost(tmp_path, body) == []

    def test_a_tag_that_nobody_closes_hides_nothing_unnoticed(self, tmp_path: Path) -> None:
        body = "一。\n\n<title>标题\n\n## 二\n\n尾声"
        swallowed = "<p>一。</p><title>标题<h2>二</h2>尾声"
        assert self.lost(tmp_path, body, swallowed) == [
            f'error {FIRST + 2} the mail lacks "标题" and 2 more pieces of the text'
        ]

    def test_what_stands_too_deep_for_a_renderer_is_missed(self, tmp_path: Path) -> None:
        body = "\n".join("  " * depth + f"- 第{'一' * depth}层" for depth in range(12)) + "\n\n尾声"
        assert self.lost(tmp_path, body, "<p>第层</p><p>尾声</p>") == [
            f'error {FIRST + 1} the mail lacks "第一层" and 10 more pieces of the text'
        ]

    @pytest.mark.parametrize("body", [">" * 3000 + " a", "[" * 3000 + "a" + "](x)" * 3000, "- " * 3000 + "a"])
    def test_no_depth_is_too_deep(self, body: str, tmp_path: Path) -> None:
        assert findings(write(tmp_path, HEAD + body))

    def test_no_post_of_the_corpus_loses_a_word(self) -> None:
        posts = {**corpus_posts(), "everything": make_post(EVERYTHING)}
        posts |= {str(post.path): post for post in shared_posts()}
        messages = {name: render_email(post, NEWSLETTER, TEMPLATES) for name, post in posts.items()}
        told = {
            name
            for name, post in posts.items()
            if lines("text-lost", findings(post, messages=[messages[name]]))
        }
        assert told == set()


class TestOtherNetworks:
    BODY = "一\n\n扫码加微信群，或看![公众号二维码](https://a.example/qr.png)\n"

    @pytest.mark.parametrize(
        "host", ["smtpdm.aliyun.com", "smtpdm-ap-southeast-1.aliyuncs.com", "dm.aliyuncs.com"]
    )
    def test_aliyun_does_not_carry_them(self, host: str, tmp_path: Path) -> None:
        found = findings(write(tmp_path, HEAD + self.BODY), facts=Facts(mail_hosts=[host]))
        assert lines("other-networks", found) == [FIRST + 2]

    @pytest.mark.parametrize(
        "host", ["smtp.example.com", "smtp.qiye.aliyun.com", "dm.aliyuncs.com.example.net"]
    )
    def test_others_do(self, host: str, tmp_path: Path) -> None:
        found = findings(write(tmp_path, HEAD + self.BODY), facts=Facts(mail_hosts=[host]))
        assert lines("other-networks", found) == []


class TestIgnoring:
    BODY = "[a](https://bit.ly/x)\n"

    def test_by_newsletter(self, tmp_path: Path) -> None:
        newsletter = make_newsletter(preflight={"ignore": ["link-shortened"]})
        post = write(tmp_path, HEAD + self.BODY)
        assert lines("link-shortened", examine(read_proof(post, newsletter, DAY))) == []

    @pytest.mark.parametrize(
        "written", ["link-shortened", "[words-few, link-shortened]", "words-few, link-shortened"]
    )
    def test_by_post(self, written: str, tmp_path: Path) -> None:
        post = write(tmp_path, front(preflight_ignore=written) + self.BODY)
        found = findings(post)
        assert (lines("link-shortened", found), lines("ignore-unknown", found)) == ([], [])

    def test_a_name_that_no_check_has_is_told_with_the_one_that_was_meant(self, tmp_path: Path) -> None:
        newsletter = make_newsletter(preflight={"ignore": ["link-shorted"]})
        found = examine(read_proof(write(tmp_path, front()), newsletter, DAY))
        (told,) = [one for one in found if one.check == "ignore-unknown"]
        assert (told.line, told.fix) == (None, 'did you mean "link-shortened"?')

    def test_what_rendering_refuses_stays_refused(self, tmp_path: Path) -> None:
        post = write(tmp_path, front(preflight_ignore="link-nowhere") + "[a](x.html)\n")
        error = PostError(post.path, "a link to nowhere: 'x.html'; …", 9)
        (told,) = [
            one for one in examine(read_proof(post, NEWSLETTER, DAY), [error]) if one.severity == "error"
        ]
        assert (told.check, told.line) == ("refused", 9)


class TestTable:
    def test_every_check_has_a_case(self) -> None:
        elsewhere = {
            *("text-lost", "telegram-parts", "wecom-items", "renderer", "other-networks"),
            *("post-repeated", "title-repeated", "items-repeated"),
        }
        cases = {case.check for case in BODIES} | {check for check, *_ in FRONTS}
        assert {check.name for check in CHECKS} <= cases | elsewhere

    def test_names_are_one_of_a_kind_and_remedies_are_there(self) -> None:
        names = [check.name for check in CHECKS]
        assert len(names) == len(set(names)) == len(NAMES) - 2
        assert [check.name for check in CHECKS if not check.fix] == ["renderer"]

    def test_errors_come_first_then_the_order_of_the_file(self, tmp_path: Path) -> None:
        post = write(tmp_path, HEAD + "[a](https://bit.ly/x)\n（待补）\n\n[b](http://t.cn/y)\n")
        found = [(one.severity, one.line or 0) for one in findings(post)]
        assert found == sorted(found, key=lambda pair: (list(Severity).index(pair[0]), pair[1]))
        assert found[0] == (Severity.ERROR, FIRST + 1)

    def test_all_errors_stand_in_the_refusal(self, tmp_path: Path) -> None:
        post = write(tmp_path, HEAD + "（待补）\n\n[a](x)\n\n![b](y)\n")
        errors = [one for one in findings(post) if one.severity is Severity.ERROR]
        said = str(NotFit(errors)).split("\n")
        assert [line.split(": ")[:3] for line in said] == [
            [f"{post.path}:{FIRST + down}", "error", check]
            for down, check in ((0, "placeholder"), (2, "link-nowhere"), (4, "picture-nowhere"))
        ]

    def test_and_how_to_overrule_them_where_that_helps(self, tmp_path: Path) -> None:
        post = write(tmp_path, HEAD + "（待补） {{ first_name }}\n")
        errors = [one for one in findings(post) if one.severity is Severity.ERROR]
        hint = str(NotFit(errors)).split("\n")[-1]
        assert hint.endswith("into its front matter: preflight_ignore: placeholder, template")
        overruled = HEAD.replace("---\n\n", hint.rpartition("front matter: ")[2] + "\n---\n\n")
        found = findings(write(tmp_path, overruled + "（待补） {{ first_name }}\n"))
        assert [one for one in found if one.severity is Severity.ERROR] == []


#: What a good post says, and what must therefore not stop one.
SENTENCES = (
    *("谷歌发布新模型【[链接](https://a.example/x)】", "ships [[link](https://a.example/x)]"),
    *(
        "【[标题](https://a.example/x)】",
        "[[原文](https://a.example/x)]",
        "（[待补](https://a.example/x)名单）",
    ),
    *("【<a href='https://a.example/x'>链接</a>】", "<p>【<a href='https://a.example/x'>TODO</a>】</p>"),
    *(
        "TikTok（TK）电商在美国增长",
        "TikTok (TK) grows",
        "微软待办 (ToDo) 更新",
        "电影《极限特工》(xXx) 重映",
    ),
    *(
        "[insert coin] the game",
        "[image] tags",
        "（此处插入芯片的尺寸见下图）",
        "placeholder（占位符）",
        "(XXX)",
    ),
    *("标签：科技|AI|大模型", "阿里云|GPU|租赁", "|RT_CORES|", "【标题】新模型\n【链接】https://a.example/x"),
    "**Title:** Attention\n**Author:** Vaswani\n**Link:** [arXiv](https://a.example/abs/1)",
    "Title: AI Summit\nDate: March 9\nVenue: Berlin",
    *("提示词里的 {{ name }} 会被替换", "Liquid 的 {% if x %} 写法", "ERB 的 <%= x %> 写法"),
)


class TestGoodSentences:
    @pytest.mark.parametrize("sentence", SENTENCES)
    def test_they_do_not_stop_a_post(self, sentence: str, tmp_path: Path) -> None:
        found = findings(write(tmp_path, HEAD + sentence + "\n"))
        assert [str(one) for one in found if one.severity is Severity.ERROR] == []

    def test_nor_do_they_in_a_title(self, tmp_path: Path) -> None:
        found = findings(write(tmp_path, front(title="晨间简报|AI|2026年3月5日")))
        assert [str(one) for one in found if one.severity is Severity.ERROR] == []


GOOD = [post for post in load_posts(ROOT / "posts", ZONE).posts if not post.draft]


class TestMarks:
    def test_a_line_that_no_file_has_is_no_trouble(self, tmp_path: Path) -> None:
        body = "<p>a&#10;&#10;&#10;title: [^1]&#10;date: x</p>"
        assert lines("markdown-literal", findings(write(tmp_path, HEAD + body))) == [FIRST + 3]

    def test_no_post_of_the_corpus_has_a_mark_that_failed(self) -> None:
        checks = {"markdown-literal", "definition-unused"}
        posts = [*corpus_posts().values(), *shared_posts()]
        told = [str(one) for post in posts for one in findings(post) if one.check in checks]
        assert told == []


class TestGoodPosts:
    @pytest.mark.parametrize("post", GOOD, ids=lambda post: post.slug)
    def test_our_own_have_neither_errors_nor_warnings(self, post: Post) -> None:
        """As every send checks them: rendered on all channels of the example configuration, beside the other posts."""
        distributor = build(load_settings(ROOT, {}))
        newsletter = distributor.settings.newsletter(None)
        inspection = inspect(distributor.engine, newsletter, post, local_day(post, newsletter) or DAY)
        distributor.close()
        assert {message.channel for message in inspection.messages} == {"email", "telegram", "wecom"}
        assert [str(one) for one in inspection.findings if one.severity is not Severity.NOTE] == []

    def test_real_newsletters_have_no_errors(self) -> None:
        for post in shared_posts():
            day = local_day(post, NEWSLETTER) or DAY
            found = examine(read_proof(post, NEWSLETTER, day))
            assert [str(one) for one in found if one.severity is Severity.ERROR] == []

    @pytest.mark.parametrize(
        "line",
        [
            *("3月5日周四，" * 3000, "{{" + " " * 5000 + "x", "{{ a " * 4000, "{% a " * 4000, "<% a " * 4000),
            *("TK " * 5000 + "字", "©" * 9000, "2026 " * 4000, "[链接" * 4000, "*|A" * 4000, "（ " * 4000),
        ],
        ids=lambda line: line[:8],
    )
    def test_a_long_line_takes_no_longer_than_its_length(self, line: str, tmp_path: Path) -> None:
        """A square of the length would take ten seconds here, and more; in time of our own: the machine may have more to do."""
        proof = read_proof(write(tmp_path, HEAD + line + "\n"), NEWSLETTER, DAY)
        begun = time.thread_time()
        examine(proof)
        assert time.thread_time() - begun < 2


PIECES = st.sampled_from(
    [
        *(
            "[a](https://bit.ly/x)",
            "![](http://a.example/x.svg)",
            "<a href='x'>",
            "<img src=x",
            "^[note",
            "[^1]",
            "[^1]: n",
        ),
        *(
            "```",
            "~~~",
            "- ",
            "1. ",
            "> ",
            "# ",
            "| a |\n|---|\n",
            "**",
            "`",
            "{{ x }}",
            "（待补）",
            "\\",
            "\n",
            "\n\n",
            " ",
        ),
        *(
            "[r]: https://a.example\n",
            "[r][r]",
            "2026-02-30",
            "13月45日 星期五",
            "Feb 31",
            "© 2020",
            "http://[::1",
            "<!--",
            "<![x[",
        ),
        *("https://a.example/）", "<script>", "\x00", "\u202e", "😀", "AI", "title: x\ndate: y\n"),
    ]
)


class TestAnything:
    @given(
        text=st.lists(PIECES | st.text(max_size=6), max_size=40).map("".join),
        title=st.text(min_size=1, max_size=30),
    )
    def test_no_text_breaks_it(self, text: str, title: str) -> None:
        post = make_post(text, title=title)
        last = post.body_line + text.replace("\r\n", "\n").replace("\r", "\n").count("\n")
        recent = [make_post(text + "x", title=title, path=Path("other.md"))]
        for finding in examine(
            read_proof(post, NEWSLETTER, DAY, Facts(recent=recent, mail_hosts=["dm.aliyuncs.com"]))
        ):
            assert finding.text
            assert finding.line is None or post.body_line <= finding.line <= last

    @pytest.mark.parametrize("name", SAMPLES)
    def test_our_samples(self, name: str) -> None:
        found = examine(read_proof(make_post(SAMPLES[name]), NEWSLETTER, DAY))
        assert [str(one) for one in found if one.severity is Severity.ERROR] == []

    def test_code_and_comments_are_not_read(self) -> None:
        hidden = (
            "<!-- （待补） [a](https://bit.ly/x) -->\n\n    （待补）\n\n```\n{{ x }}\n```\n\n`（待补）`\n"
        )
        found = examine(read_proof(make_post(EVERYTHING + hidden), NEWSLETTER, DAY))
        assert [one.check for one in found if one.severity is Severity.ERROR] == []


# Online


class Site(BaseHTTPRequestHandler):
    """Answers by path: /200, /404, /head-405 (GET alone), /to/… redirects."""

    asked: list[str] = []  # noqa: RUF012 - the handler is made anew for each request

    def do_HEAD(self) -> None:
        self._answer(405 if self.path == "/head-405" else None)

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/head-405" else None)

    def _answer(self, status: int | None) -> None:
        self.asked.append(f"{self.command} {self.headers['Host'].partition(':')[0]}{self.path}")
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
        else:
            self.send_response(status or int(self.path.strip("/")))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's own name
        """Says nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    Site.asked.clear()
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


CERTS = Path(__file__).parent / "channels" / "certs"


@pytest.fixture
def secure_site(site: str) -> Iterator[str]:
    """The same behind TLS, with a certificate for "localhost" alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTS / "localhost.pem", CERTS / "localhost.key")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class TestOnline:
    def test_the_certificate_is_that_of_the_name_in_the_link(
        self, secure_site: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The connection goes to the address that was looked at, the name is checked all the same."""
        trusting = ssl.create_default_context(cafile=CERTS / "localhost.pem")
        with httpx.Client(timeout=5, verify=trusting) as client:
            assert online.ask(client, f"https://{secure_site}/200", lambda _: True) == online.Answer()
            real = socket.getaddrinfo
            told = {"other.example": "localhost"}  # what a name server could say of any name
            monkeypatch.setattr(
                "socket.getaddrinfo", lambda host, *a, **k: real(told.get(host, host), *a, **k)
            )
            other = online.ask(
                client, f"https://{secure_site.replace('localhost', 'other.example')}/200", lambda _: True
            )
        assert "Hostname mismatch" in other.trouble
        with httpx.Client(timeout=5) as client:
            assert "self-signed" in online.ask(client, f"https://{secure_site}/200", lambda _: True).trouble

    def test_what_is_gone_and_what_does_not_say(self, site: str) -> None:
        body = "\n".join(
            f"[{path}]({site}/{path})" for path in ("200", "404", "head-405", "to//404", "503", "200#part")
        )
        found = online.check_online(read_proof(make_post(body), NEWSLETTER, DAY), allowed=lambda _: True)
        assert [(one.check, one.line, one.text.rpartition(": ")[2]) for one in found] == [
            ("link-unreachable", 6, "HTTP 404"),
            ("link-unreachable", 8, "HTTP 404"),
            ("link-unsure", 9, "HTTP 503"),
        ]
        assert (
            Site.asked.count("HEAD localhost/200") == 1
        )  # the part behind "#" is none of the server's business
        assert "GET localhost/head-405" in Site.asked

    def test_private_networks_are_not_asked(self, site: str) -> None:
        found = online.check_online(read_proof(make_post(f"[a]({site}/404)"), NEWSLETTER, DAY))
        assert [(one.check, one.severity) for one in found] == [("link-unsure", Severity.NOTE)]
        assert "private network" in found[0].text
        assert Site.asked == []

    def test_a_redirect_into_a_private_network_is_not_followed(self, site: str) -> None:
        port = site.rpartition(":")[2]
        with httpx.Client(timeout=5) as client:
            answer = online.ask(
                client, f"{site}/to/http://127.0.0.2:{port}/404", lambda one: str(one) != "127.0.0.2"
            )
        assert "private network" in answer.trouble
        assert Site.asked == [f"HEAD localhost/to/http://127.0.0.2:{port}/404"]

    def test_redirects_end(self, site: str) -> None:
        with httpx.Client(timeout=5) as client:
            assert (
                "redirects"
                in online.ask(
                    client, f"{site}/to/" * 1 + "/to/".join([""] * 9) + "/200", lambda _: True
                ).trouble
            )

    def test_nobody_answers(self) -> None:
        with httpx.Client(timeout=5) as client:
            answer = online.ask(client, "http://127.0.0.1:1/x", lambda _: True)
        assert (answer.gone, "refused" in answer.trouble) == (False, True)

    @pytest.mark.parametrize(
        "address", ["10.0.0.1", "127.0.0.1", "169.254.1.1", "::1", "fd00::1", "224.0.0.1", "0.0.0.0"]
    )
    def test_what_is_not_public(self, address: str) -> None:
        assert not online.is_public(ip_address(address))

    def test_it_can_be_ignored(self, site: str) -> None:
        newsletter = make_newsletter(preflight={"ignore": ["link-unreachable"]})
        proof = read_proof(make_post(f"[a]({site}/404)"), newsletter, DAY)
        assert online.check_online(proof, allowed=lambda _: True) == []
