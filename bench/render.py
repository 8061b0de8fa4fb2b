"""How long a post takes to become messages: once an issue, but between the schedule's minute and the first mail."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from bench.report import table
from distributor.channels import Channel, load_channels
from distributor.channels.email import render as email
from distributor.model import Message, Post
from distributor.posts import load_posts, read_post
from distributor.preflight import Facts, examine, read_proof
from distributor.settings import Newsletter, Settings, load_settings

PROJECT = Path(__file__).parents[1]
TURNS = 30
#: On which the post is checked.
DAY = date(2026, 1, 1)
#: Milliseconds for a day's post on every channel, once the libraries are warm.
GOAL = 50
PARAGRAPHS = 400


def measure(path: Path | None = None) -> dict[str, Any]:
    """Medians in ms of each channel and of all, of premailer's part and of the checks; what 400 paragraphs add to a mail."""
    settings = load_settings(PROJECT, {})
    newsletter = next(iter(settings.newsletters.values()))
    post, channels = _post(path, newsletter), _channels(settings)
    sizes = {name: _bytes(channel.render(post, newsletter)) for name, channel in channels.items()}  # warms up
    renders = {name: partial(channel.render, post, newsletter) for name, channel in channels.items()}
    times = {name: _median(render) for name, render in renders.items()}
    result = {
        "post": post.path.name,
        "characters": len(post.body),
        "milliseconds": times,
        "all": _median(lambda: [render() for render in renders.values()]),
        "premailer": _premailer(channels["email"], post, newsletter),
        "preflight": _median(lambda: examine(read_proof(post, newsletter, DAY, Facts()))),
        "bytes": sizes,
        "markup of 400 paragraphs": _growth(channels["email"], post, newsletter),
    }
    print(_shown(result))
    return result


def _post(path: Path | None, newsletter: Newsletter) -> Post:
    if path is not None:
        return read_post(path, newsletter.zone)
    ready = [post for post in load_posts(PROJECT / "posts", newsletter.zone).posts if not post.draft]
    return max(ready, key=lambda post: len(post.body))


def _channels(settings: Settings) -> Mapping[str, Channel]:
    return load_channels(settings, ("email", "telegram", "wecom", "wechat"))


def _median(work: Callable[[], object]) -> float:
    """Milliseconds."""
    times = []
    for _ in range(TURNS):
        begun = time.perf_counter()
        work()
        times.append((time.perf_counter() - begun) * 1000)
    return statistics.median(times)


def _premailer(channel: Channel, post: Post, newsletter: Newsletter) -> float:
    """The median of what of a mail's rendering passes inside it, ms."""
    spent, inline = list[float](), email.inline_css

    def timed(html: str) -> str:
        begun = time.perf_counter()
        try:
            return inline(html)
        finally:
            spent.append((time.perf_counter() - begun) * 1000)

    email.inline_css = timed
    try:
        for _ in range(TURNS):
            channel.render(post, newsletter)
    finally:
        email.inline_css = inline
    return statistics.median(spent)


def _growth(channel: Channel, post: Post, newsletter: Newsletter) -> int:
    """Bytes of a mail's HTML beside the text of 400 short paragraphs."""
    text = "一段文字。"
    empty = replace(post, body=text)
    long = replace(post, body=f"{text}\n\n" * (PARAGRAPHS + 1))
    sizes = [len(channel.render(one, newsletter)[0].content["html"].encode()) for one in (empty, long)]
    return sizes[1] - sizes[0] - PARAGRAPHS * len(text.encode())


def _bytes(messages: Sequence[Message]) -> int:
    return sum(len(text.encode()) for message in messages for text in message.content.values())


def _shown(result: Mapping[str, Any]) -> str:
    rows = [
        *((f"render {name}, ms", value) for name, value in result["milliseconds"].items()),
        (f"all channels, ms (goal: {GOAL})", result["all"]),
        ("of which premailer, ms", result["premailer"]),
        ("the checks before a send, ms", result["preflight"]),
        (f"markup that {PARAGRAPHS} paragraphs add to a mail, bytes", result["markup of 400 paragraphs"]),
    ]
    return table([f"{result['post']}, {result['characters']:,} characters", "warm, median of 30"], rows)
