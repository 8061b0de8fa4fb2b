"""Sends to WeCom group robots over HTTP. A robot's key stands in the URL: it is masked in every text."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx
from pydantic import SecretStr

from distributor.channels.http import NEVER_LEFT, UNUSABLE_ADDRESS, OverHttp, quiet
from distributor.channels.placeholders import fill
from distributor.channels.redact import redact
from distributor.channels.wecom.answers import OK, from_errcode, from_status
from distributor.channels.wecom.render import mode_of
from distributor.errors import Kind, Rejected, Scope, SendError, Unavailable, Unconfirmed
from distributor.model import Parcel, Receipt
from distributor.settings import WecomSettings, wecom_key_name

PATH = "/cgi-bin/webhook/send"
JSON_HEADERS = {"Content-Type": "application/json; charset=utf-8"}

Texts = Mapping[str, str]


def _markdown(content: Texts) -> Mapping[str, object]:
    return {"content": content["markdown"]}


def _text(content: Texts) -> Mapping[str, object]:
    mentioned = {"mentioned_list": [content["mentioned"]]} if "mentioned" in content else {}
    return {"content": content["text"], **mentioned}


def _news(content: Texts) -> Mapping[str, object]:
    article = {name: content[name] for name in ("title", "description", "url")}
    picture = {"picurl": content["picurl"]} if content.get("picurl") else {}
    return {"articles": [{**article, **picture}]}


#: WeCom's msgtype → how it is written from the frozen message's content.
MODES: Mapping[str, Callable[[Texts], Mapping[str, object]]] = {
    "markdown_v2": _markdown,
    "markdown": _markdown,
    "text": _text,
    "news": _news,
}

quiet("httpx")


class WecomTransport(OverHttp):
    """Sends parcels; the recipient's address is a robot's name, the message's variant its kind of message."""

    def __init__(self, settings: WecomSettings, keys: Mapping[str, SecretStr]) -> None:
        super().__init__(settings.timeout)
        self._settings = settings
        self._keys = keys

    def send(self, parcel: Parcel, then: Parcel | None = None) -> Receipt:  # noqa: ARG002 - nothing to announce
        key = self._key(parcel.recipient.address)
        response = self._post(key, _body(parcel))
        return _read(response, key)

    def _key(self, robot: str) -> str:
        key = self._keys.get(robot)
        if key is None or not key.get_secret_value():
            name = wecom_key_name(robot)
            text = f"the robot {robot!r} has no key: set {name} (or {name}_FILE)"
            raise Rejected(text=text, kind=Kind.CONFIG)
        return key.get_secret_value()

    def _post(self, key: str, body: bytes) -> httpx.Response:
        try:
            return self._connected().post(
                f"{self._settings.api}{PATH}", params={"key": key}, content=body, headers=JSON_HEADERS
            )
        except Exception as error:
            # from None: httpx's exceptions carry the request, and with it the key
            raise _connection_error(error, key) from None


def _body(parcel: Parcel) -> bytes:
    """Raw UTF-8: WeCom refuses `\\uXXXX`, or shows it to the reader."""
    message, mode = parcel.message, mode_of(parcel.message.variant)
    if mode not in MODES:
        raise _unwritable(f"it knows {', '.join(MODES)}, not {mode!r}")
    try:
        texts = {
            key: fill(text, message.placeholders, parcel.values) for key, text in message.content.items()
        }
        said = MODES[mode](texts)
    except (KeyError, ValueError) as error:
        raise _unwritable(str(error)) from error
    return json.dumps({"msgtype": mode, mode: said}, ensure_ascii=False).encode("utf-8")


def _unwritable(reason: str) -> Rejected:
    return Rejected(text=f"cannot be written as a WeCom message: {reason}", kind=Kind.CONTENT)


def _connection_error(error: Exception, key: str) -> SendError:
    said = redact(f"{type(error).__name__} {error}", key)
    if isinstance(error, NEVER_LEFT):
        return Unavailable(
            text=f"no connection to WeCom: {said}", kind=Kind.NETWORK, scope=Scope.CHANNEL, counts=False
        )
    if isinstance(error, UNUSABLE_ADDRESS):
        return Unavailable(
            text=f"check wecom.api: {said}", kind=Kind.CONFIG, scope=Scope.CHANNEL, counts=False
        )
    return Unconfirmed(text=f"the request left, no answer came: {said}", kind=Kind.NETWORK)


def _read(response: httpx.Response, key: str) -> Receipt:
    """The robot's answer: errcode decides, whatever the status; a server error or a riddle leaves it in doubt."""
    status, answer = response.status_code, _answer(response)
    if status < 500 and answer is not None:
        errcode, errmsg = answer
        if errcode == OK:
            return Receipt(code=str(OK), text=redact(errmsg, key))
        raise from_errcode(errcode, errmsg, key)
    if 300 <= status < 500:
        raise from_status(status, response.text, key)
    said = redact(response.text, key)
    raise Unconfirmed(text=f"no readable answer from WeCom: {said}", code=str(status), kind=Kind.SERVER)


def _answer(response: httpx.Response) -> tuple[int, str] | None:
    """(errcode, errmsg) of a well-formed answer."""
    try:
        answer: Any = json.loads(response.content)
    except ValueError:
        return None
    if not isinstance(answer, dict) or not isinstance(answer.get("errcode"), int):
        return None
    return answer["errcode"], str(answer.get("errmsg", ""))
