"""Calls to one Official Account's interfaces. The token stands in the URL: it is masked in every text."""

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx
from pydantic import ValidationError

from distributor.channels.http import NEVER_LEFT, UNUSABLE_ADDRESS, quiet
from distributor.channels.redact import redact
from distributor.channels.wechat.answers import OK, STALE_TOKEN, from_errcode, from_status
from distributor.channels.wechat.shapes import NewToken, Shape
from distributor.channels.wechat.store import SharedStore
from distributor.channels.wechat.tokens import Token, Tokens
from distributor.errors import Kind, Scope, SendError, Unavailable, Unconfirmed
from distributor.pictures import Picture
from distributor.rendering import cut
from distributor.settings import WechatAccount

JSON_HEADERS = {"Content-Type": "application/json; charset=utf-8"}

quiet("httpx")

Answer = Mapping[str, Any]
S = TypeVar("S", bound=Shape)


class WechatApi:
    """One account over one HTTP client."""

    def __init__(self, base: str, account: WechatAccount, client: httpx.Client, store: SharedStore) -> None:
        self.appid = account.appid
        self._base, self._client = base, client
        self._secret = account.secret.get_secret_value()
        self._tokens = Tokens(store, account.appid, self._ask_token)

    def call(
        self,
        path: str,
        body: Mapping[str, object],
        shape: type[S],
        *,
        repeatable: bool = True,
        welcome: int = OK,
    ) -> S:
        """Posts JSON; the answer has this shape; the errcode `welcome` is as good as 0. Raises SendError.

        An answer that is lost or of another shape is Unavailable when the call is `repeatable`, else Unconfirmed.
        """
        content = _json(body)
        answer = self._with_token(
            lambda token: self._post(
                path,
                token,
                repeatable=repeatable,
                params={"access_token": token},
                content=content,
                headers=JSON_HEADERS,
            ),
            welcome,
        )
        return _shaped(answer, shape, repeatable)

    def upload(self, path: str, picture: Picture, shape: type[S], **query: str) -> S:
        """Posts a picture as the form's field `media`. Raises SendError."""
        name = f"{picture.hash[:16]}.{picture.suffix}"
        files = {"media": (name, picture.data, picture.content_type)}
        answer = self._with_token(
            lambda token: self._post(path, token, params={**query, "access_token": token}, files=files)
        )
        return _shaped(answer, shape, True)

    def _ask_token(self, force: bool) -> Token:
        body = {
            "grant_type": "client_credential",
            "appid": self.appid,
            "secret": self._secret,
            "force_refresh": force,
        }
        answer = self._post("/cgi-bin/stable_token", "", content=_json(body), headers=JSON_HEADERS)
        if _errcode(answer) != OK:
            raise self._refusal(answer, "")
        try:
            token = NewToken.model_validate(answer)
        except ValidationError:
            raise Unavailable(text="WeChat answers without a token: check wechat.api") from None
        return Token(token.access_token, token.expires_in)

    def _with_token(self, post: Callable[[str], Answer], welcome: int = OK) -> Answer:
        """Once more with a new token when the first one is refused."""
        token = self._tokens.current()
        answer = post(token)
        if _errcode(answer) in STALE_TOKEN:
            token = self._tokens.instead_of(token)
            answer = post(token)
        if _errcode(answer) not in {OK, welcome}:
            raise self._refusal(answer, token)
        return answer

    def _refusal(self, answer: Answer, token: str) -> SendError:
        return from_errcode(_errcode(answer), str(answer.get("errmsg", "")), token, self._secret)

    def _post(self, path: str, token: str, *, repeatable: bool = True, **request: Any) -> Answer:
        secrets = (token, self._secret)
        try:
            response = self._client.post(f"{self._base}{path}", **request)
        except Exception as error:
            # from None: httpx's exceptions carry the request, and with it the token
            raise _connection_error(error, repeatable, secrets) from None
        answer = _answer(response)
        if response.status_code < 500 and answer is not None:
            return answer
        if 300 <= response.status_code < 500:
            raise from_status(response.status_code, response.text, *secrets)
        said = redact(response.text, *secrets)
        raise _lost(repeatable, Kind.SERVER, f"no readable answer: {said}", str(response.status_code))


def _json(body: Mapping[str, object]) -> bytes:
    """Raw UTF-8: WeChat shows `\\uXXXX` to the reader as it stands."""
    return json.dumps(body, ensure_ascii=False).encode("utf-8")


def _errcode(answer: Answer) -> int:
    """Success comes with `errcode` 0, or without any."""
    return int(answer.get("errcode", OK))


def _answer(response: httpx.Response) -> Answer | None:
    """The answer when it is one of WeChat's."""
    try:
        answer: Any = json.loads(response.content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict) or not isinstance(answer.get("errcode", OK), int):
        return None
    return answer or None


def _shaped(answer: Answer, shape: type[S], repeatable: bool) -> S:
    try:
        return shape.model_validate(answer)
    except ValidationError as error:
        places = (".".join(map(str, mistake["loc"])) for mistake in error.errors())
        named = ", ".join(f"`{place}`" for place in dict.fromkeys(places))
    raise _lost(repeatable, Kind.SERVER, f"WeChat's answer has no usable {cut(named, 200)}")


def _connection_error(error: Exception, repeatable: bool, secrets: tuple[str, ...]) -> SendError:
    said = redact(f"{type(error).__name__} {error}", *secrets)
    if isinstance(error, NEVER_LEFT):
        return Unavailable(
            text=f"no connection to WeChat: {said}", kind=Kind.NETWORK, scope=Scope.CHANNEL, counts=False
        )
    if isinstance(error, UNUSABLE_ADDRESS):
        return Unavailable(
            text=f"check wechat.api: {said}", kind=Kind.CONFIG, scope=Scope.CHANNEL, counts=False
        )
    return _lost(repeatable, Kind.NETWORK, f"the request left, no answer came: {said}")


def _lost(repeatable: bool, kind: Kind, text: str, code: str = "") -> SendError:
    if repeatable:
        return Unavailable(text=f"{text} [asking again is safe]", code=code, kind=kind)
    return Unconfirmed(text=text, code=code, kind=kind)
