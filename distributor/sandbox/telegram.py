"""A stateful Telegram Bot API: the methods a newsletter uses, with the real limits and the real words.

Sources: Bot API reference; tdlib/telegram-bot-api Client.cpp; tdlib/td MessageEntity.cpp. Of the parse modes only HTML.
An edit is kept beside the message it changes, and not counted as another one.
"""

import json
import math
import re
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from distributor.sandbox.checks import PLACEHOLDER
from distributor.sandbox.faults import Fault, Faults
from distributor.sandbox.httpd import Reply, Request, json_reply
from distributor.sandbox.inbox import Entry, Inbox
from distributor.sandbox.limits import Limits, Rate, Windows
from distributor.sandbox.markup import Entity, MarkupError, Parsed, entities_bytes, parse_html, trim
from distributor.sandbox.rich import Rich, RichError, parse_rich
from distributor.sandbox.talking import KINDS, SECRET, Conflicting, Talking, Unknown

T = TypeVar("T")

PATH = re.compile(r"/bot([^/]*)/(\w+)")
TOKEN = re.compile(r"(\d+):[A-Za-z0-9_-]{10,}")
CHAT = re.compile(r"-?[1-9]\d{0,18}|@[A-Za-z][A-Za-z0-9_]{3,31}")
LONGEST_TEXT = 4096  # code points after entity parsing
LONGEST_TOAST = 200
LONGEST_BUTTON = 64  # bytes of callback_data
MOST_ENTITIES = 100  # what follows is dropped without an error
ENTITIES_BYTES = 9500

#: fault → status, description
REFUSALS = {
    "blocked": (403, "Forbidden: bot was blocked by the user"),
    "deactivated": (403, "Forbidden: user is deactivated"),
    "missing": (400, "Bad Request: chat not found"),
    "migrated": (400, "Bad Request: group chat was upgraded to a supergroup chat"),
    "throttle": (429, "Too Many Requests: retry after {seconds}"),
    "server-error": (502, "Bad Gateway"),
}
AFTER = ("server-error-after-accept", "garbage", "drop-after-accept", "slow")
BAD_GATEWAY = Reply(
    status=502, content_type="text/html", body=b"<html><body><h1>502 Bad Gateway</h1></body></html>"
)
GARBAGE = Reply(content_type="text/html", body=b"<html><body>It works!</body></html>")


@dataclass
class ApiError(Exception):
    """An answer with ok: false."""

    status: int
    description: str
    parameters: Mapping[str, int] = field(default_factory=dict)

    def reply(self) -> Reply:
        if self.status == BAD_GATEWAY.status:
            return BAD_GATEWAY
        data = {"ok": False, "error_code": self.status, "description": self.description}
        wait = self.parameters.get("retry_after")
        return json_reply(
            {**data, "parameters": self.parameters} if self.parameters else data,
            self.status,
            headers={"Retry-After": str(wait)} if wait else {},
        )


@dataclass(frozen=True)
class _Call:
    bot: str
    chat: str
    fields: Mapping[str, Any]


class TelegramApi:
    """Answers `/bot<token>/<method>` for any token of the right shape; what is stored names the bot by its id."""

    def __init__(self, inbox: Inbox, faults: Faults, limits: Limits) -> None:
        self.inbox, self.faults, self.limits = inbox, faults, limits
        self.talking = Talking()
        self._windows = Windows()
        self._methods: Mapping[str, Callable[[_Call], Reply | None]] = {
            "getme": self._get_me,
            "getchat": self._get_chat,
            "getupdates": self._get_updates,
            "setwebhook": self._set_webhook,
            "deletewebhook": self._set_webhook,
            "getwebhookinfo": lambda call: _result(self.talking.webhook_info(call.bot)),
            "answercallbackquery": self._answer_query,
            "setmycommands": self._set_commands,
            "sendmessage": self._send_message,
            "editmessagetext": self._edit_message,
            "sendrichmessage": self._send_rich_message,
        }

    def handle(self, request: Request) -> Reply | None:
        try:
            return self._handle(request)
        except ApiError as error:
            return error.reply()

    def _handle(self, request: Request) -> Reply | None:
        match = PATH.fullmatch(request.path)
        if match is None or ":" not in match[1]:
            raise ApiError(404, "Not Found")
        token = TOKEN.fullmatch(match[1])
        if token is None or self.faults.take("telegram", token[1], ("bad-token",)):
            self.inbox.refused("telegram", f"bot {match[1].partition(':')[0]}", "401 Unauthorized")
            raise ApiError(401, "Unauthorized")
        name = match[2].lower()
        old = name == "sendrichmessage" and self.faults.take("telegram", token[1], ("old-server",))
        method = None if old else self._methods.get(name)
        if method is None:
            raise ApiError(404, "Not Found")
        fields = _fields(request)
        self.talking.met(token[1])
        return method(_Call(token[1], str(fields.get("chat_id", "")).strip(), fields))

    def _get_me(self, call: _Call) -> Reply:
        bot = {"id": int(call.bot), "is_bot": True, "first_name": "Sandbox", "username": "sandbox_bot"}
        more = {
            "can_join_groups": True,
            "can_read_all_group_messages": False,
            "supports_inline_queries": False,
        }
        return json_reply({"ok": True, "result": {**bot, **more}})

    def _get_updates(self, call: _Call) -> Reply:
        limit = min(max(_integer(call, "limit", 100), 1), 100)
        timeout = min(max(_integer(call, "timeout", 0), 0), 50)
        allowed = _kinds(call)
        try:
            found = self.talking.get_updates(call.bot, _integer(call, "offset", 0), limit, timeout, allowed)
        except Conflicting as error:
            raise ApiError(409, f"Conflict: {error}") from None
        return _result(found)

    def _set_webhook(self, call: _Call) -> Reply:
        """Also deleteWebhook, which is the one without a URL."""
        url, secret = str(call.fields.get("url", "")), str(call.fields.get("secret_token", ""))
        if url and not re.match(r"https?://[^/]+", url):
            raise ApiError(400, "Bad Request: bad webhook: invalid URL")
        if not SECRET.fullmatch(secret):
            raise ApiError(400, "Bad Request: secret token contains unallowed characters")
        drop = str(call.fields.get("drop_pending_updates", "")).lower() == "true"
        self.talking.set_webhook(call.bot, url, secret, _kinds(call) or KINDS, drop=drop)
        return _result(True)

    def _answer_query(self, call: _Call) -> Reply:
        query, text = str(call.fields.get("callback_query_id", "")), str(call.fields.get("text", ""))
        if len(text) > LONGEST_TOAST:
            raise ApiError(400, "Bad Request: MESSAGE_TOO_LONG")
        try:
            self.talking.answer_query(query, text)
        except Unknown as error:
            raise ApiError(400, f"Bad Request: {error}") from None
        return _result(True)

    def _set_commands(self, call: _Call) -> Reply:
        self.talking.menus[str(call.fields.get("language_code", ""))] = _json(
            call.fields.get("commands") or []
        )
        return _result(True)

    def _get_chat(self, call: _Call) -> Reply:
        _check_chat(call.chat)
        if fault := self.faults.take("telegram", call.chat, ("missing", "migrated")):
            raise _refusal(fault)
        gifts = (
            "unlimited_gifts",
            "limited_gifts",
            "unique_gifts",
            "premium_subscription",
            "gifts_from_channels",
        )
        more = {
            "accent_color_id": 0,
            "max_reaction_count": 11,
            "accepted_gift_types": dict.fromkeys(gifts, False),
        }
        return json_reply({"ok": True, "result": {**_chat(call.chat), **more}})

    def _send_message(self, call: _Call) -> Reply | None:
        parsed, preview = self._or_refuse(call, self._checked)
        return self._answered(call, self._content(call, parsed, preview), _violations(parsed))

    def _send_rich_message(self, call: _Call) -> Reply | None:
        rich = self._or_refuse(call, self._checked_rich)
        content = {
            **self._content(call, Parsed(rich.text), {"is_disabled": True}),
            "source": _rich_source(call),
            "rich": True,
        }
        return self._answered(call, content, [])

    def _edit_message(self, call: _Call) -> Reply | None:
        """Replaces the text of a message that this bot sent into this chat."""
        parsed, preview = self._or_refuse(call, self._checked)
        content = self._content(call, parsed, preview)
        edited = self._or_refuse(call, lambda one: self._to_edit(one, content))
        self.inbox.accepted("telegram", call.chat, content, violations=_violations(parsed), revises=edited.id)
        message = _message(call, content, edited.id)
        return json_reply({"ok": True, "result": {**message, "edit_date": int(time.time())}})

    def _to_edit(self, call: _Call, content: Mapping[str, Any]) -> Entry:
        number = str(call.fields.get("message_id", ""))
        versions = [
            entry
            for entry in self.inbox.entries("telegram", call.chat)
            if entry.accepted and number in (str(entry.id), str(entry.revises))
        ]
        if self.faults.take("telegram", call.chat, ("uneditable",)):
            raise ApiError(400, "Bad Request: message can't be edited")
        if not versions or versions[0].content["bot"] != call.bot:
            raise ApiError(400, "Bad Request: message to edit not found")
        same = ("text", "entities", "preview", "keyboard")
        if [versions[-1].content.get(name) for name in same] == [content.get(name) for name in same]:
            raise ApiError(400, "Bad Request: message is not modified")
        return versions[0]

    def _or_refuse(self, call: _Call, check: Callable[[_Call], T]) -> T:
        """What `check` makes of the call; a refusal is kept in the inbox."""
        try:
            return check(call)
        except ApiError as error:
            said = {"source": _text(call) or _rich_source(call), "bot": call.bot}
            self.inbox.refused("telegram", call.chat, f"{error.status} {error.description}", said)
            raise

    def _answered(self, call: _Call, content: Mapping[str, Any], violations: Sequence[str]) -> Reply | None:
        fault = self.faults.take("telegram", call.chat, AFTER)
        note = fault.kind if fault else ""
        entry = self.inbox.accepted("telegram", call.chat, content, note=note, violations=violations)
        return _answer(fault, _message(call, content, entry.id))

    def _checked(self, call: _Call) -> tuple[Parsed, dict[str, Any]]:
        self._check_chat_and_faults(call)
        parsed = _parse(call)
        _check_size(parsed)
        preview = _object(call.fields, "link_preview_options")
        self._check_rate(call)
        return parsed, preview

    def _checked_rich(self, call: _Call) -> Rich:
        self._check_chat_and_faults(call)
        try:
            rich = parse_rich(_rich_source(call))
        except RichError as error:
            raise ApiError(400, f"Bad Request: can't parse rich message: {error}") from None
        self._check_rate(call)
        return rich

    def _check_chat_and_faults(self, call: _Call) -> None:
        if not call.chat:
            raise ApiError(400, "Bad Request: chat_id is empty")
        if fault := self.faults.take("telegram", call.chat, REFUSALS):
            raise _refusal(fault)
        if self.talking.is_blocked(call.bot, call.chat):
            raise ApiError(*REFUSALS["blocked"])
        _check_chat(call.chat)

    def _check_rate(self, call: _Call) -> None:
        rates: dict[str, Rate] = {
            f"bot {call.bot}": self.limits.telegram_bot,
            f"chat {call.bot} {call.chat}": self.limits.telegram_chat,
        }
        if call.chat.startswith(("-", "@")):
            rates[f"group {call.bot} {call.chat}"] = self.limits.telegram_group
        if wait := self._windows.take(rates):
            raise _too_many(math.ceil(wait))

    def _content(self, call: _Call, parsed: Parsed, preview: dict[str, Any]) -> dict[str, Any]:
        return {
            "bot": call.bot,
            "text": parsed.text,
            "entities": [entity.to_json() for entity in parsed.entities[:MOST_ENTITIES]],
            "source": _text(call),
            "preview": preview,
            "silent": str(call.fields.get("disable_notification", "")).lower() == "true",
            "thread": call.fields.get("message_thread_id"),
            **_keyboard(call),
        }


def _message(call: _Call, content: Mapping[str, Any], number: int) -> dict[str, Any]:
    return {
        "message_id": number,
        "date": int(time.time()),
        "from": {"id": int(call.bot), "is_bot": True, "first_name": "Sandbox"},
        "chat": _chat(call.chat),
        "text": content["text"],
        "entities": content["entities"],
    }


def _result(result: object) -> Reply:
    return json_reply({"ok": True, "result": result})


def _integer(call: _Call, name: str, otherwise: int) -> int:
    text = str(call.fields.get(name, ""))
    return int(text) if re.fullmatch(r"-?\d{1,18}", text) else otherwise


def _kinds(call: _Call) -> Sequence[str]:
    try:
        kinds = _json(call.fields.get("allowed_updates") or [])
    except ValueError:
        kinds = None
    if not isinstance(kinds, list):
        raise ApiError(400, "Bad Request: can't parse allowed updates: array expected")
    return [str(kind) for kind in kinds]


def _keyboard(call: _Call) -> dict[str, Any]:
    """The buttons under a message, row by row; nothing when it has none."""
    rows = _object(call.fields, "reply_markup").get("inline_keyboard", [])
    try:
        buttons = [[(str(one["text"]), str(one["callback_data"])) for one in row] for row in rows]
    except (KeyError, TypeError):
        raise ApiError(400, "Bad Request: can't parse inline keyboard button") from None
    if any(not 1 <= len(data.encode()) <= LONGEST_BUTTON for row in buttons for _, data in row):
        raise ApiError(400, "Bad Request: BUTTON_DATA_INVALID")
    shown = [[{"text": text, "data": data} for text, data in row] for row in buttons]
    return {"keyboard": shown} if shown else {}


def _fields(request: Request) -> dict[str, Any]:
    try:
        return request.fields()
    except ValueError:
        raise ApiError(400, "Bad Request: can't parse the request body") from None


def _text(call: _Call) -> str:
    return str(call.fields.get("text", ""))


def _rich_source(call: _Call) -> str:
    return str(_object(call.fields, "rich_message").get("html", ""))


def _check_chat(chat: str) -> None:
    if not CHAT.fullmatch(chat):
        raise ApiError(400, "Bad Request: chat not found")


def _parse(call: _Call) -> Parsed:
    text, mode = _text(call), str(call.fields.get("parse_mode", "")).lower()
    if not text:
        raise ApiError(400, "Bad Request: message text is empty")
    if not _is_utf8(text):
        raise ApiError(400, "Bad Request: strings must be encoded in UTF-8")
    if mode not in ("", "html"):
        raise ApiError(400, "Bad Request: unsupported parse_mode")
    if not mode:
        return trim(Parsed(text, _given_entities(call.fields)))
    try:
        return parse_html(text)
    except MarkupError as error:
        raise ApiError(400, f"Bad Request: can't parse entities: {error}") from None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _given_entities(fields: Mapping[str, Any]) -> list[Entity]:
    """Entities a client sends instead of a parse mode."""
    try:
        return [
            Entity(str(one["type"]), int(one["offset"]), int(one["length"]), str(one.get("url", "")))
            for one in _json(fields.get("entities") or [])
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ApiError(400, "Bad Request: can't parse entities JSON object") from None


def _object(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    try:
        value = _json(fields.get(name) or {})
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ApiError(400, f"Bad Request: can't parse {name.replace('_', ' ')} JSON object")
    return value


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _check_size(parsed: Parsed) -> None:
    if not parsed.text:
        raise ApiError(400, "Bad Request: text must be non-empty")
    if len(parsed.text) > LONGEST_TEXT:
        raise ApiError(400, "Bad Request: message is too long")
    if entities_bytes(parsed.entities) > ENTITIES_BYTES:
        raise ApiError(400, "Bad Request: ENTITIES_TOO_LONG")


def _violations(parsed: Parsed) -> list[str]:
    found = list(parsed.notes)
    if (count := len(parsed.entities)) > MOST_ENTITIES:
        found.append(f"{count} entities; those after number {MOST_ENTITIES} are dropped without an error")
    names = sorted(set(PLACEHOLDER.findall(parsed.text.encode())))
    return [*found, *(f"placeholder {name.decode()} was never filled" for name in names)]


def _refusal(fault: Fault) -> ApiError:
    status, description = REFUSALS[fault.kind]
    if fault.kind == "throttle":
        return _too_many(math.ceil(fault.seconds(2)))
    moved = {"migrate_to_chat_id": int(fault.value or 0)} if fault.kind == "migrated" else {}
    return ApiError(status, description, moved)


def _too_many(seconds: int) -> ApiError:
    status, description = REFUSALS["throttle"]
    return ApiError(status, description.format(seconds=seconds), {"retry_after": seconds})


def _answer(fault: Fault | None, message: dict[str, Any]) -> Reply | None:
    kind = fault.kind if fault else ""
    if kind == "drop-after-accept":
        return None
    odd = {"server-error-after-accept": BAD_GATEWAY, "garbage": GARBAGE}.get(kind)
    delay = fault.seconds(5) if fault and kind == "slow" else 0
    return odd or json_reply({"ok": True, "result": message}, delay=delay)


def _chat(chat: str) -> dict[str, Any]:
    if chat.startswith("@"):
        number = -1_000_000_000_000 - zlib.crc32(chat.lower().encode())
        return {"id": number, "type": "channel", "title": chat[1:], "username": chat[1:]}
    if chat.startswith("-"):
        return {"id": int(chat), "type": "supergroup", "title": f"Group {chat}"}
    return {"id": int(chat), "type": "private", "first_name": f"Reader {chat}"}
