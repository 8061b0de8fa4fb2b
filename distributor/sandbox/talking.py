"""Users of the simulated Telegram, and how a bot hears of what they do: by its webhook, or when it asks.

As the real server: numbers that grow, one listener at a time, and an update that was not taken comes again. It waits for a
short while between two tries where Telegram takes minutes.
"""

import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

SECRET_HEADER = "X-Telegram-Bot-Api-Secret-Token"  # noqa: S105 - a header's name
SECRET = re.compile(r"[A-Za-z0-9_-]{0,256}")
#: Left out of what a bot gets unless it asks for them.
KINDS = ("message", "callback_query", "my_chat_member")
#: Seconds until an update that was not taken is brought again, doubled each time.
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
WEBHOOK_TIMEOUT = 10.0
RIGHTS = (
    *("can_be_edited", "is_anonymous", "can_manage_chat", "can_delete_messages", "can_manage_video_chats"),
    *("can_restrict_members", "can_promote_members", "can_change_info", "can_invite_users"),
    *("can_post_stories", "can_edit_stories", "can_delete_stories"),
)

WEBHOOK_IS_SET = (
    "can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first"
)
OTHER_POLLER = "terminated by other getUpdates request; make sure that only one bot instance is running"


class Conflicting(Exception):
    """409 of getUpdates."""


class Unknown(Exception):
    """What somebody wants to do cannot be done: no bot has called yet, no such button."""


@dataclass
class _Listener:
    """How one bot hears."""

    url: str = ""
    secret: str = ""
    allowed: Sequence[str] = KINDS
    last_error: str = ""
    waiting: list[dict[str, Any]] = field(default_factory=list)
    question: int = 0  # the number of the getUpdates that is open
    failures: int = 0
    not_before: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Said:
    """Something a user did, for the page."""

    at: str
    text: str


class Talking:
    """All bots' updates; thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._listeners: defaultdict[str, _Listener] = defaultdict(_Listener)
        self._number = int(
            time.time()
        )  # grows over restarts, so that nobody takes a new update for an old one
        self._blocked: set[tuple[str, str]] = set()
        self._queries: dict[str, str] = {}
        self._closed = False
        self._thread: threading.Thread | None = None
        self.updates: list[dict[str, Any]] = []
        self.said: defaultdict[str, list[Said]] = defaultdict(list)
        self.toasts: list[tuple[str, str]] = []  # chat, text
        self.menus: dict[str, Any] = {}

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread:
            self._thread.join()

    # ── what users do ────────────────────────────────────────────────────────────────────────────────────────────

    def met(self, bot: str) -> None:
        """A bot has called: users may write to it."""
        with self._changed:
            self._listeners[bot].failures += 0

    @property
    def is_heard(self) -> bool:
        """Whether any bot listens to what users say."""
        return any(one.url or one.question for one in self._listeners.values())

    @property
    def bots(self) -> Sequence[str]:
        return list(self._listeners)

    def say(self, chat: str, text: str, *, language: str = "zh-hans", bot: str = "") -> dict[str, Any]:
        """A user writes to the bot, in a private chat."""
        message = {**self._message(chat), "from": _user(chat, language), "text": text}
        if text.startswith("/"):
            length = len(text.partition(" ")[0])
            message["entities"] = [{"type": "bot_command", "offset": 0, "length": length}]
        return self._happened(bot, chat, text, message=message)

    def press(
        self, chat: str, data: str, message: int, *, language: str = "zh-hans", bot: str = "", label: str = ""
    ) -> dict[str, Any]:
        """A user presses a button under a message."""
        number = f"{message}{len(self._queries)}"
        self._queries[number] = chat
        query = {
            "id": number,
            "from": _user(chat, language),
            "chat_instance": "1",
            "data": data,
            "message": {**self._message(chat), "message_id": message, "text": "…"},
        }
        return self._happened(bot, chat, f"[{label or 'button'}]", callback_query=query)

    def block(self, chat: str, *, bot: str = "") -> dict[str, Any]:
        """From now on the bot's messages to this user are refused."""
        self._blocked.add((self._bot(bot), chat))
        return self.move(chat, "kicked", bot=bot)

    def unblock(self, chat: str, *, bot: str = "") -> dict[str, Any]:
        self._blocked.discard((self._bot(bot), chat))
        return self.move(chat, "member", bot=bot)

    def move(self, chat: str, status: str, *, title: str = "A group", bot: str = "") -> dict[str, Any]:
        """The bot's standing in a chat changes."""
        user = {"id": int(self._bot(bot)), "is_bot": True, "first_name": "Sandbox", "username": "sandbox_bot"}
        place = _place(chat, title)
        changed = {
            "chat": place,
            "from": _user("1" if chat.startswith("-") else chat, "zh-hans"),
            "date": int(time.time()),
            "old_chat_member": {"user": user, "status": "left"},
            "new_chat_member": {"user": user, "status": status, **_details(status)},
        }
        return self._happened(bot, chat, f"({status})", my_chat_member=changed)

    def is_blocked(self, bot: str, chat: str) -> bool:
        return (bot, chat) in self._blocked

    def _bot(self, bot: str) -> str:
        if bot or self._listeners:
            return bot or next(reversed(self._listeners))
        raise Unknown("no bot has called the sandbox yet")

    def _message(self, chat: str) -> dict[str, Any]:
        with self._changed:
            self._number += 1
            return {
                "message_id": self._number % 1_000_000,
                "date": int(time.time()),
                "chat": _place(chat, "A group"),
            }

    def _happened(self, bot: str, chat: str, text: str, **what: Any) -> dict[str, Any]:
        listener = self._listeners[self._bot(bot)]
        with self._changed:
            self._number += 1
            update = {"update_id": self._number, **what}
            self.updates.append(update)
            self.said[chat].append(Said(at=datetime.now(UTC).isoformat(timespec="milliseconds"), text=text))
            if next(iter(what)) in listener.allowed:
                listener.waiting.append(update)
            self._changed.notify_all()
        return update

    # ── what bots ask ────────────────────────────────────────────────────────────────────────────────────────────

    def set_webhook(self, bot: str, url: str, secret: str, allowed: Sequence[str], *, drop: bool) -> None:
        """An empty URL takes it away."""
        listener = self._listeners[bot]
        with self._changed:
            listener.url, listener.secret, listener.allowed = url, secret, tuple(allowed) or KINDS
            listener.last_error, listener.failures, listener.not_before = "", 0, 0.0
            if drop:
                listener.waiting.clear()
            if url and self._thread is None:
                self._thread = threading.Thread(target=self._bring, name="sandbox-webhook")
                self._thread.start()
            self._changed.notify_all()

    def webhook_info(self, bot: str) -> dict[str, Any]:
        listener = self._listeners[bot]
        error = {"last_error_date": int(time.time()), "last_error_message": listener.last_error}
        return {
            "url": listener.url,
            "has_custom_certificate": False,
            "pending_update_count": len(listener.waiting),
            "allowed_updates": list(listener.allowed),
            **(error if listener.last_error else {}),
        }

    def get_updates(
        self, bot: str, offset: int, limit: int, timeout: float, allowed: Sequence[str] | None
    ) -> Sequence[Mapping[str, Any]]:
        """Waits for updates; those below `offset` are confirmed. Raises Conflicting."""
        listener, until = self._listeners[bot], time.monotonic() + timeout
        with self._changed:
            if listener.url:
                raise Conflicting(WEBHOOK_IS_SET)
            listener.question += 1
            mine = listener.question
            listener.allowed = tuple(allowed) if allowed else listener.allowed
            listener.waiting = [update for update in listener.waiting if update["update_id"] >= offset]
            self._changed.notify_all()
            while not listener.waiting and not self._closed and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
                if listener.question != mine:
                    raise Conflicting(OTHER_POLLER)
            return listener.waiting[:limit]

    def answer_query(self, query: str, text: str) -> None:
        """Raises Unknown for a query that is not open."""
        chat = self._queries.pop(query, None)
        if chat is None:
            raise Unknown("query is too old and response timeout expired or query ID is invalid")
        self.toasts.append((chat, text))

    # ── the webhook ──────────────────────────────────────────────────────────────────────────────────────────────

    def _bring(self) -> None:
        with httpx.Client(timeout=WEBHOOK_TIMEOUT, trust_env=False) as client:
            while not self._closed:
                for listener in list(self._listeners.values()):
                    self._bring_next(client, listener)
                with self._changed:
                    if not self._closed:
                        self._changed.wait(self._pause())

    def _pause(self) -> float | None:
        """Seconds until there is something to bring; None: until somebody does something."""
        due = [one.not_before for one in self._listeners.values() if one.url and one.waiting]
        return max(0.0, min(due) - time.monotonic()) + 0.001 if due else None

    def _bring_next(self, client: httpx.Client, listener: _Listener) -> None:
        if not (listener.url and listener.waiting) or time.monotonic() < listener.not_before:
            return
        update = listener.waiting[0]
        error = _post(client, listener.url, listener.secret, update)
        with self._changed:
            listener.last_error = error
            if not error:
                listener.failures = 0
                listener.waiting = [one for one in listener.waiting if one is not update]
                return
            listener.not_before = time.monotonic() + min(LONGEST_WAIT, FIRST_WAIT * 2**listener.failures)
            listener.failures += 1


def _post(client: httpx.Client, url: str, secret: str, update: Mapping[str, Any]) -> str:
    """What went wrong; empty when it was taken."""
    headers = {"Content-Type": "application/json", **({SECRET_HEADER: secret} if secret else {})}
    try:
        answer = client.post(url, content=json.dumps(update, ensure_ascii=False).encode(), headers=headers)
    except httpx.HTTPError as error:
        return f"Connection failed: {type(error).__name__}"
    if answer.is_success:
        return ""
    return f"Wrong response from the webhook: {answer.status_code} {answer.reason_phrase}"


def _user(chat: str, language: str) -> dict[str, Any]:
    user = {"id": int(chat), "is_bot": False, "first_name": f"Reader {chat}"}
    return {**user, "language_code": language} if language else user


def _place(chat: str, title: str) -> dict[str, Any]:
    if chat.startswith("-"):
        return {"id": int(chat), "type": "supergroup", "title": title}
    return {"id": int(chat), "type": "private", "first_name": f"Reader {chat}"}


def _details(status: str) -> dict[str, Any]:
    if status == "kicked":
        return {"until_date": 0}
    return dict.fromkeys(RIGHTS, True) if status == "administrator" else {}


def act(talking: Talking, chat: str, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a page or a program wants a user to do. Raises Unknown, KeyError, ValueError."""
    do, language = str(wanted["do"]), str(wanted.get("language", "zh-hans"))
    if do == "say":
        return talking.say(chat, str(wanted["text"]), language=language)
    if do == "press":
        message, label = int(wanted["message"]), str(wanted.get("label", ""))
        return talking.press(chat, str(wanted["data"]), message, language=language, label=label)
    if do in {"block", "unblock"}:
        return talking.block(chat) if do == "block" else talking.unblock(chat)
    if do == "move":
        return talking.move(chat, str(wanted["status"]), title=str(wanted.get("title", "A group")))
    raise ValueError(f"nobody does {do!r}")
