"""Posts of our own that use everything Markdown has, and the newsletters they belong to."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from distributor.model import Post
from distributor.posts import load_posts
from distributor.settings import Newsletter

ZONE = ZoneInfo("Asia/Shanghai")
SHARED = Path(__file__).parents[2] / "shared" / "posts"


def make_newsletter(**changes: Any) -> Newsletter:
    sender = {
        "name": "晨间简报",
        "address": "brief@news.example.com",
        "reply_to": "desk@example.com",
        "postal_address": "上海市示例路 8 号",
        "contact": "desk@example.com",
    }
    table = {
        "slug": "brief",
        "title": "晨间简报",
        "url_pattern": "https://brief.example.com/{date}/{slug}/",
        "sender": sender,
    }
    return Newsletter.model_validate(table | changes)


def make_post(body: str, **changes: Any) -> Post:
    facts: dict[str, Any] = {
        "slug": "sample",
        "title": "样刊：一天的新闻",
        "date": datetime(2026, 3, 5, 7, 0, tzinfo=ZONE),
        "body": body,
        "path": Path("posts/sample.md"),
        "body_line": 5,
    }
    return Post(**(facts | changes))


DIGEST = """
导语写在最前面。后面还有一句。

## 🔥 头条

**新模型发布，价格减半**

第一段说明发生了什么，见[公告](https://example.com/news?a=1&b=2)。

## 速览

1.  **📉 市场观望**
    大型科技股下跌，
    分析师保持谨慎。[来源](https://example.com/market)

2.  **机器人进厂** 三家工厂开始试用。

3.  没有粗体的一条。它的第二句。

- 紧凑列表
  - 嵌套一层
    - 嵌套两层 `代码`
- 第二项
"""

EVERYTHING = """
# A heading of the first level

Plain *emphasis*, **strong *and both***, ~~gone~~, `a < b && c`, and a [link with `code` and **bold**](https://example.com/x?q="1"&r=2).

> A quotation with [a link](https://example.com/q).
>
> > A quotation inside, with `code`.
>
> ```python
> print("quoted")
> ```

```python
def less(a, b):
    return a < b
```

    indented & plain

| Name | Count |
|:-----|------:|
| 苹果 | 3 |
| pear | 12 |

| A long column name that needs room | Another one that is long as well |
|---|---|
| first [cell](https://example.com/cell) | second **cell** |

![A picture of <nothing>](https://example.com/a.png) and text after it

<!-- a comment that nobody sees -->
<div>raw <b>html</b><br>second line</div>

Inline <u>underlined</u><script>alert(1)</script> text.[^note] Again.[^note]

***

3. third
4. fourth

   A second paragraph of the fourth.

Line one\\
line two, <https://example.com/auto>, <someone@example.com>.

[^note]: The note, with [its source](https://example.com/source).
"""

MANY_LINKS = "\n".join(
    f"- **第 {n} 条** [标题](https://example.com/{n}) 附 `id{n}` 与*强调*" for n in range(1, 151)
)

LONG_PARAGRAPHS = "\n\n".join(
    f"## 第 {n} 节\n\n" + f"这一节有许多句子，第 {n} 节的内容。" * 60 + "😀" * 40 for n in range(1, 9)
)

ONE_HUGE_PARAGRAPH = "没有尽头的一句话" * 3000
HUGE_CODE = "```text\n" + "\n".join(f"line {n} of <code> & more" for n in range(900)) + "\n```"
HUGE_QUOTE = "\n".join(f"> 引文第 {n} 行，**粗体**，[链接](https://example.com/{n})。\n>" for n in range(200))

SAMPLES = {
    "digest": DIGEST,
    "everything": EVERYTHING,
    "many links": MANY_LINKS,
    "long paragraphs": LONG_PARAGRAPHS,
    "one huge paragraph": ONE_HUGE_PARAGRAPH,
    "huge code": HUGE_CODE,
    "huge quotation": HUGE_QUOTE,
}


def shared_posts() -> Iterator[Post]:
    """Real posts beside the repository; skips the test when they are not there."""
    if not SHARED.is_dir():
        pytest.skip(f"no folder of real posts at {SHARED}")
    folder = load_posts(SHARED, ZONE)
    assert not folder.errors
    yield from folder.posts
