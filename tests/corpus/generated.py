"""Posts that are too large, or too odd byte by byte, to be kept as files."""

from collections.abc import Callable, Mapping


def _post(title: str, body: str, extra: str = "") -> str:
    return f"---\ntitle: {title}\ndate: 2026-11-20 07:30\n{extra}---\n\n{body}\n"


def paragraphs() -> str:
    """400 paragraphs in 20 sections: a long read."""
    sections = [
        f"## 第 {section} 章\n\n"
        + "\n\n".join(
            f"第 {section} 章第 {n} 段。这里讲一件小事：团队把**第 {n} 个**旧接口换成新的，"
            f"花了{n % 5 + 1}天，过程记在[日志](https://example.com/log/{section}/{n})里。"
            for n in range(1, 21)
        )
        for section in range(1, 21)
    ]
    return _post("四百段长文：一次搬家的全部记录", "\n\n".join(sections))


def one_paragraph() -> str:
    """30,000 characters without a line break."""
    sentence = "雨下了一整天，编辑部的人都在等一封信，信里说好的数字始终没有来。"
    return _post("一段到底", (sentence * 1000)[:30_000])


def without_punctuation() -> str:
    """Nothing to cut at, in Han and in emoji."""
    return _post("没有标点的一段", "一口气说到底不停顿" * 1200 + "👩‍👩‍👧🇨🇳👍🏽" * 300)


def year_review() -> str:
    """120 items with titles, sentences and sources."""
    months = [
        f"## {month} 月\n\n"
        + "\n".join(
            f"{n}. **{month} 月第 {n} 件事：模型、芯片与数据中心** 记录当月的一条新闻，"
            f"附[来源](https://example.com/2026/{month:02d}/{n}?from=review&n={n})。"
            for n in range(1, 11)
        )
        for month in range(1, 13)
    ]
    return _post("2026 年度回顾：一百二十件事", "\n\n".join(months), "description: 十二个月，每月十件。\n")


def many_links() -> str:
    return _post(
        "一百五十个链接",
        "\n".join(
            f"- [第 {n} 条](https://example.com/{n}?a=1&b={n}) 附 `id{n}` 与*强调*" for n in range(1, 151)
        ),
    )


def long_link() -> str:
    """An address of 1,900 bytes, as trackers make them."""
    address = "https://example.com/r?" + "&".join(f"p{n:03d}=value{n:03d}" for n in range(126))
    return _post("一个很长的地址", f"请看[报名页]({address[:1900]})，周五截止。\n\n其他照旧。")


def long_code() -> str:
    lines = "\n".join(f"step {n}: if a < {n} && b > {n}: print('第 {n} 步')" for n in range(400))
    return _post(
        "一份很长的日志", f"日志全文如下。\n\n```text\n{lines}\n```\n\n一行到底：\n\n```\n{'x=1;' * 500}\n```"
    )


def long_table() -> str:
    head = "| 序号 | 公司 | 轮次 | 金额 | 链接 |\n|---:|---|:---:|---:|---|\n"
    rows = "\n".join(
        f"| {n} | 第{n}公司 | {'ABC'[n % 3]} 轮 | {n * 100} 万 | [公告](https://example.com/deal/{n}) |"
        for n in range(1, 81)
    )
    return _post("融资月表", f"本月八十笔。\n\n{head}{rows}")


def deep_nesting() -> str:
    items = "\n".join(f"{'  ' * depth}- 第 {depth + 1} 层的一项" for depth in range(12))
    quotes = "\n".join(f"{'> ' * depth}第 {depth} 层引用\n{'> ' * depth}" for depth in range(1, 9))
    return _post("层层嵌套", f"{items}\n\n{quotes}")


def controls() -> str:
    """Control characters that come from copying, a byte order mark, CRLF."""
    body = "复制来的\x07铃声\x0b与\x1b[31m颜色\x1b[0m。\n\n第二段\x85有 C1，\u2028还有行分隔符。\n\n\ufeff第三段。"
    return "\ufeff" + _post("控制\x08字符", body).replace("\n", "\r\n")


GENERATED: Mapping[str, Callable[[], str]] = {
    "huge-400-paragraphs": paragraphs,
    "huge-one-paragraph": one_paragraph,
    "huge-without-punctuation": without_punctuation,
    "year-review-120-items": year_review,
    "links-150": many_links,
    "link-1900-bytes": long_link,
    "code-very-long": long_code,
    "table-80-rows": long_table,
    "nesting-twelve-deep": deep_nesting,
    "control-characters": controls,
}
