"""A WeCom group robot: HTTP 200 whatever happens, the truth in `errcode`.

Source: developer.work.weixin.qq.com path/99110 (group robot). Knows text, markdown, markdown_v2 and news.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from distributor.sandbox.checks import PLACEHOLDER
from distributor.sandbox.faults import Faults
from distributor.sandbox.httpd import Reply, Request, json_reply
from distributor.sandbox.inbox import Inbox
from distributor.sandbox.limits import Limits, Windows

KEY = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
#: msgtype → largest content in UTF-8 bytes
BYTES = {"text": 2048, "markdown": 4096, "markdown_v2": 4096}
MOST_ARTICLES = 8
#: A card's fields → largest size in UTF-8 bytes; WeCom cuts what is longer, in the middle of a word. 0: no limit known
ARTICLE = {"title": 128, "description": 512, "url": 0, "picurl": 0}
#: msgtype → the fields of its part
FIELDS = {
    "text": {"content", "mentioned_list", "mentioned_mobile_list"},
    "markdown": {"content"},
    "markdown_v2": {"content"},
    "news": {"articles"},
}

INVALID_KEY = (93000, "invalid webhook url")
TOO_FAST = (45009, "api freq out of limit")
#: fault → errcode, errmsg
REFUSALS = {"disabled": INVALID_KEY, "busy": (-1, "system error"), "throttle": TOO_FAST}
AFTER = ("drop-after-accept", "slow")

#: msgtype → what its readers would see as bare characters: pattern, name
FOREIGN: Mapping[str, tuple[tuple[str, str], ...]] = {
    "markdown": (
        (r"^\s*(?:[-*+]|\d+\.)\s", "a list"),
        (r"^\s*\|.*\|\s*$", "a table"),
        (r"!\[[^\]]*\]\(", "an image"),
        (r"^```", "a code block"),
        (r"(?<!\*)\*(?![\s*])[^*\n]+\*(?!\*)", "italics"),
    ),
    "markdown_v2": ((r"<font\b", "a colour"), (r"<@[^>]+>", "a mention")),
}


@dataclass
class RobotError(Exception):
    """An answer with an errcode."""

    code: int
    message: str


def mask_key(key: str) -> str:
    """How a robot is named in the inbox: a key is a secret, and whoever has it can write into the group."""
    return f"{key[:4]}****{key[-4:]}" if KEY.fullmatch(key) else "invalid"


class WecomRobot:
    """Answers `/cgi-bin/webhook/send?key=` for any key of the right shape."""

    def __init__(self, inbox: Inbox, faults: Faults, limits: Limits) -> None:
        self.inbox, self.faults, self.limits = inbox, faults, limits
        self._windows = Windows()

    def handle(self, request: Request) -> Reply | None:
        key = request.query.get("key", "")
        address = mask_key(key)
        try:
            content = self._checked(key, request.body)
        except RobotError as error:
            self.inbox.refused("wecom", address, f"{error.code} {error.message}", _kept(request.body))
            return json_reply({"errcode": error.code, "errmsg": error.message})
        fault = self.faults.take("wecom", key, AFTER)
        note = fault.kind if fault else ""
        self.inbox.accepted("wecom", address, content, note=note, violations=_violations(content))
        if fault and fault.kind == "drop-after-accept":
            return None
        return json_reply({"errcode": 0, "errmsg": "ok"}, delay=fault.seconds(5) if fault else 0)

    def _checked(self, key: str, body: bytes) -> dict[str, Any]:
        if not KEY.fullmatch(key):
            raise RobotError(*INVALID_KEY)
        if fault := self.faults.take("wecom", key, REFUSALS):
            raise RobotError(*REFUSALS[fault.kind])
        if self._windows.take({key: self.limits.wecom_robot}):
            raise RobotError(*TOO_FAST)
        return _content(body)


def _content(body: bytes) -> dict[str, Any]:
    if re.search(rb"(?<!\\)(?:\\\\)*\\u[0-9a-fA-F]{4}", body):
        raise RobotError(40033, "invalid charset. please use UTF-8, not escapes")
    data = _json(body)
    kind = str(data.get("msgtype"))
    check = _CHECKS.get(kind)
    if check is None:
        raise RobotError(40008, "invalid message type")
    part = data.get(kind)
    if not isinstance(part, dict):
        raise RobotError(40035, f"invalid parameter: {kind} is missing")
    check(kind, part)
    return {"msgtype": kind, **part}


def _json(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body.decode())
    except UnicodeDecodeError:
        raise RobotError(40033, "invalid charset. please use UTF-8") from None
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise RobotError(47001, "data format error")
    return data


def _check_text(kind: str, part: Mapping[str, Any]) -> None:
    content = part.get("content")
    if not isinstance(content, str) or not content.strip():
        raise RobotError(44004, "empty content")
    if (size := len(content.encode())) > BYTES[kind]:
        raise RobotError(40058, f"content exceed max length {BYTES[kind]}: {size}")
    if not all(_is_list_of_texts(part.get(name, [])) for name in ("mentioned_list", "mentioned_mobile_list")):
        raise RobotError(40035, "invalid parameter: a mentioned list takes strings")


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _check_news(_: str, part: Mapping[str, Any]) -> None:
    articles = part.get("articles")
    if not isinstance(articles, list) or not 1 <= len(articles) <= MOST_ARTICLES:
        raise RobotError(40058, f"news takes 1 to {MOST_ARTICLES} articles")
    for one in articles:
        _check_article(one)


def _check_article(article: object) -> None:
    if not isinstance(article, dict) or not article.get("title") or not article.get("url"):
        raise RobotError(40058, "an article needs title and url")
    if not all(isinstance(article.get(name, ""), str) for name in ARTICLE):
        raise RobotError(40035, "invalid parameter: an article's fields are strings")
    for name in ("url", "picurl"):
        if article.get(name) and not re.match(r"https?://[^\s/]+", article[name]):
            raise RobotError(40058, f"invalid {name}: it must begin with http:// or https://")


_CHECKS: Mapping[str, Callable[[str, Mapping[str, Any]], None]] = {
    **dict.fromkeys(BYTES, _check_text),
    "news": _check_news,
}


def _kept(body: bytes) -> dict[str, Any]:
    return {"source": body.decode(errors="replace")}


def _violations(content: Mapping[str, Any]) -> list[str]:
    text = str(content.get("content", ""))
    kind = content["msgtype"]
    found = [
        f"{kind} does not know {name}"
        for pattern, name in FOREIGN.get(kind, ())
        if re.search(pattern, text, re.MULTILINE)
    ]
    fields = sorted(content.keys() - FIELDS[kind] - {"msgtype"})
    names = sorted(set(PLACEHOLDER.findall(json.dumps(content).encode())))
    return [
        *found,
        *(f"{kind} does not know the field {name}" for name in fields),
        *(note for article in content.get("articles", ()) for note in _article_violations(article)),
        *(f"placeholder {name.decode()} was never filled" for name in names),
    ]


def _article_violations(article: Mapping[str, str]) -> list[str]:
    sizes = {name: len(article.get(name, "").encode()) for name in ARTICLE}
    return [
        *(
            f"an article's {name} has {sizes[name]} bytes: WeCom cuts it at {limit}"
            for name, limit in ARTICLE.items()
            if 0 < limit < sizes[name]
        ),
        *(f"an article does not know the field {name}" for name in sorted(article.keys() - ARTICLE)),
    ]
