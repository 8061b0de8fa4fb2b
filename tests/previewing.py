"""What the tests of the preview page share: a project with a post, channels of tomorrow, a server in a thread."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from services import Project

from distributor.channels.telegram import TelegramChannel
from distributor.model import Message, Post
from distributor.preview.board import Channels, Desk, installed_channels
from distributor.preview.server import listen, make_server
from distributor.settings import Newsletter, Settings

#: Thursday; the posts of the tests are dated around it.
NOW = datetime(2026, 3, 5, 1, 0, tzinfo=UTC)


class Scripted(TelegramChannel):
    """A channel that makes the messages it was given, each a variant and its texts; or fails."""

    def __init__(
        self, name: str, *messages: tuple[str, Mapping[str, str]], error: Exception | None = None
    ) -> None:
        self.name, self._messages, self._error = name, messages, error

    def render(self, _post: Post, _newsletter: Newsletter) -> Sequence[Message]:
        if self._error:
            raise self._error
        return [
            Message(channel=self.name, variant=variant, content=content)
            for variant, content in self._messages
        ]


ARTICLE: Mapping[str, str] = {
    "title": "样刊：一天的新闻",
    "author": "编辑部",
    "digest": "导语写在最前面，读者在列表里先看到它。",
    "content": (
        '<p><img src="https://images.example.com/cover.png" style="width:100%;border-radius:6px" alt="封面"></p>'
        '<h2 style="font-size:19px;color:#b3261e;border-left:4px solid #b3261e;padding-left:10px">头条</h2>'
        '<p style="margin:0 0 16px">新模型发布，<strong>价格减半</strong>。价格表见脚注<sup>[1]</sup>。</p>'
        '<blockquote style="border-left:3px solid #ccd2d9;padding-left:12px;color:#5f6b7a">便宜是会变的，习惯不会。</blockquote>'
        '<p style="font-size:13px;color:#5f6b7a">[1] https://example.com/prices</p>'
    ),
    "content_source_url": "https://brief.example.com/full",
    "cover": "https://images.example.com/cover.png",
}
NEWS: Mapping[str, str] = {
    "title": "样刊：一天的新闻",
    "description": "导语写在最前面，读者在列表里先看到它。",
    "url": "https://brief.example.com/full",
    "picurl": "https://images.example.com/cover.png",
}


def desk_of(
    project: Project, *scripted: Scripted, opened: Path | None = None, also: Sequence[str] = ()
) -> Desk:
    """E-mail, Telegram and WeCom (`also`: more of ours) as they are, and the scripted channels beside or instead."""

    def channels(settings: Settings) -> Channels:
        real = installed_channels(settings)
        return {
            **{name: real[name] for name in ("email", "telegram", "wecom", *also)},
            **{channel.name: channel for channel in scripted},
        }

    return Desk(project.root, None, opened, channels, now=lambda: NOW)


@contextmanager
def serving(desk: Desk) -> Iterator[str]:
    """The page on a free port, as the command serves it; its address without the last slash."""
    listening, server = listen(0), make_server(desk)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
