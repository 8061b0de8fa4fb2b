"""WeChat Official Accounts: tokens, pictures, drafts, publications, mass messages; HTTP 200 and the truth in `errcode`.

Source: developers.weixin.qq.com. Any AppID and AppSecret of the right shape is an account, a verified one until a fault says
otherwise; the first secret that an AppID comes with is its own.
"""

import hashlib
import json
import re
import secrets
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from html import escape
from typing import Any

from distributor.sandbox.article import Article, picture_kind, visible_text
from distributor.sandbox.checks import PLACEHOLDER
from distributor.sandbox.faults import Fault, Faults
from distributor.sandbox.httpd import Reply, Request, json_reply
from distributor.sandbox.inbox import Inbox

APPID = re.compile(r"wx[0-9a-f]{16}")
SECRET = re.compile(r"[0-9a-f]{32}")
BEIJING = timezone(timedelta(hours=8))

TOKEN_LASTS = 7200
OVERLAP = 300  # seconds in which an old token and its successor both hold
FORCED_EVERY = 30
SAME_MASS_PAUSE = 1.0  # seconds before the same clientmsgid is answered 45065 instead of 45066

#: Interface → calls a day, of a new account.
QUOTAS: Mapping[str, int] = {
    "/cgi-bin/token": 2000,
    "/cgi-bin/draft/add": 1000,
    "/cgi-bin/draft/batchget": 500,
    "/cgi-bin/draft/get": 500,
    "/cgi-bin/draft/delete": 1000,
    "/cgi-bin/draft/count": 1000,
    "/cgi-bin/media/uploadimg": 100_000,
    "/cgi-bin/material/add_material": 1000,
    "/cgi-bin/material/del_material": 1000,
    "/cgi-bin/freepublish/submit": 100,
    "/cgi-bin/freepublish/get": 100,
    "/cgi-bin/freepublish/batchget": 500,
    "/cgi-bin/message/mass/sendall": 100,
    "/cgi-bin/openapi/quota/get": 1000,
}
FORCED_A_DAY, MASS_A_DAY = 20, 1
#: What an account that is not verified has no right to, since July 2025.
VERIFIED_ONLY = ("/cgi-bin/freepublish/submit", "/cgi-bin/message/mass/sendall")

TITLE, NEW_TITLE, AUTHOR, DIGEST = 64, 32, 16, 128
MADE_UP_DIGEST = 54  # characters of the text, where an article has no digest
CHARACTERS, CONTENT_BYTES, SOURCE_BYTES = 20_000, 1024 * 1024, 1024
MOST_ARTICLES = 8
#: type of add_material → kinds, bytes
MATERIALS: Mapping[str, tuple[frozenset[str], int]] = {
    "image": (frozenset({"JPEG", "PNG", "GIF", "BMP"}), 10 * 1024 * 1024),
    "thumb": (frozenset({"JPEG"}), 64 * 1024),
}
IN_ARTICLE = (frozenset({"JPEG", "PNG"}), 1024 * 1024)

#: fault → errcode, errmsg
REFUSALS: Mapping[str, tuple[int, str]] = {
    "busy": (-1, "system error"),
    "quota": (45009, "reach max api daily quota limit"),
    "stale-token": (42001, "access_token expired"),
    "expired": (48001, "api unauthorized"),
}
LOGIN_REFUSALS: Mapping[str, tuple[int, str]] = {
    "ip-list": (40164, "invalid ip 127.0.0.1 ipv6 ::ffff:127.0.0.1, not in whitelist"),
    "secret": (40125, "invalid appsecret"),
    "frozen": (40243, "AppSecret is frozen"),
}
UNAUTHORIZED = (48001, "api unauthorized")
AFTER = ("drop-after-accept", "garbage", "slow")
#: What an article may be lost behind: the calls after which a broken connection leaves its sender in doubt.
KEEPING = ("/cgi-bin/draft/add", "/cgi-bin/freepublish/submit", "/cgi-bin/message/mass/sendall")


@dataclass
class WechatError(Exception):
    """An answer with an errcode."""

    code: int
    message: str
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Live:
    """The token of one kind, and the one before it while both hold."""

    value: str = ""
    until: float = 0.0
    old: str = ""
    old_until: float = 0.0

    def renew(self, now: float, *, overlap: float) -> None:
        self.old, self.old_until = self.value, min(self.until, now + overlap)
        self.value, self.until = secrets.token_urlsafe(96), now + TOKEN_LASTS

    def holds(self, token: str, now: float) -> bool:
        return (token == self.value and now < self.until) or (token == self.old and now < self.old_until)


@dataclass
class Publication:
    """A job of freepublish: under way at the first look, then `status`."""

    media_id: str
    article: Mapping[str, Any]
    at: int
    status: int
    looks: int = 0


@dataclass
class Account:
    """All that WeChat keeps of one AppID."""

    secret: str
    stable: Live = field(default_factory=Live)
    legacy: Live = field(default_factory=Live)
    forced_at: float = float("-inf")
    used: Counter[tuple[str, str]] = field(default_factory=Counter)
    materials: dict[str, str] = field(default_factory=dict)
    drafts: dict[str, dict[str, Any]] = field(default_factory=dict)
    publications: dict[str, Publication] = field(default_factory=dict)
    mass: dict[str, tuple[int, float]] = field(default_factory=dict)


Answer = dict[str, Any]


class WechatApi:
    """Answers `/cgi-bin/…` of Official Accounts; one call after another, as far as its state is concerned."""

    def __init__(self, inbox: Inbox, faults: Faults, *, clock: Callable[[], float] = time.time) -> None:
        self.inbox, self.faults, self.clock = inbox, faults, clock
        self.accounts: dict[str, Account] = {}
        #: The pictures of articles, by the address that they were given.
        self.pictures: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._serial: defaultdict[str, int] = defaultdict(int)

    def handle(self, request: Request) -> Reply | None:
        appid = "unknown"
        try:
            with self._lock:
                appid, answer = self._answer(request)
        except WechatError as error:
            appid = self._owner(request) or appid
            self.inbox.refused("wechat", appid, f"{error.code} {error.message}", _kept(request))
            return json_reply({"errcode": error.code, "errmsg": error.message, **error.more})
        fault = self.faults.take("wechat", appid, AFTER) if request.path in KEEPING else None
        return _disturbed(json_reply(answer), fault)

    def _answer(self, request: Request) -> tuple[str, Answer]:
        if request.path in _LOGINS:
            data = _json(request) if request.method == "POST" else dict(request.query)
            return str(data.get("appid")), _LOGINS[request.path](self, data)
        appid = self._owner(request)
        if appid is None:
            code = 40001 if request.query.get("access_token") else 41001
            raise WechatError(code, "invalid credential, access_token is invalid or not latest")
        account = self.accounts[appid]
        self._refuse(appid, request.path)
        call = _CALLS.get(request.path)
        if call is None:
            raise WechatError(40066, "invalid url")
        self._count(account, request.path)
        return appid, {"errcode": 0, "errmsg": "ok", **call(self, appid, account, request)}

    def _owner(self, request: Request) -> str | None:
        """Whose token it is."""
        token, now = request.query.get("access_token", ""), self.clock()
        for appid, account in self.accounts.items():
            if token and (account.stable.holds(token, now) or account.legacy.holds(token, now)):
                return appid
        return None

    def _refuse(self, appid: str, path: str) -> None:
        if fault := self.faults.take("wechat", appid, (*REFUSALS, *LOGIN_REFUSALS)):
            raise WechatError(*{**REFUSALS, **LOGIN_REFUSALS}[fault.kind])
        if path in VERIFIED_ONLY and self._is_unverified(appid):
            raise WechatError(*UNAUTHORIZED)

    def _is_unverified(self, appid: str) -> bool:
        return self.faults.take("wechat", appid, ("personal", "unverified")) is not None

    def _count(self, account: Account, path: str, *, most: int | None = None) -> None:
        """Raises WechatError when the day's quota is used up; days begin at midnight in Beijing."""
        limit = QUOTAS[path] if most is None else most
        if account.used[self._today(), path] >= limit:
            raise WechatError(45009, "reach max api daily quota limit")
        account.used[self._today(), path] += 1

    def _today(self) -> str:
        return f"{datetime.fromtimestamp(self.clock(), UTC).astimezone(BEIJING):%Y-%m-%d}"

    def _new_id(self, what: str) -> str:
        self._serial[what] += 1
        return f"{what}_{self._serial[what]:06d}_{secrets.token_urlsafe(24)}"

    # ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _login(self, data: Mapping[str, Any]) -> Account:
        appid, secret = str(data.get("appid", "")), str(data.get("secret", ""))
        if data.get("grant_type") != "client_credential":
            raise WechatError(40002, "invalid grant_type")
        if not APPID.fullmatch(appid):
            raise WechatError(40013, "invalid appid")
        if fault := self.faults.take("wechat", appid, LOGIN_REFUSALS):
            raise WechatError(*LOGIN_REFUSALS[fault.kind])
        if not SECRET.fullmatch(secret):
            raise WechatError(40125, "invalid appsecret")
        account = self.accounts.setdefault(appid, Account(secret))
        if account.secret != secret:
            raise WechatError(40125, "invalid appsecret")
        return account

    def _stable_token(self, data: Mapping[str, Any]) -> Answer:
        account, now = self._login(data), self.clock()
        if data.get("force_refresh") is True and now - account.forced_at >= FORCED_EVERY:
            self._count(account, "force_refresh", most=FORCED_A_DAY)
            account.forced_at = now
            account.stable.renew(now, overlap=0)
        elif account.stable.until - now <= OVERLAP:
            account.stable.renew(now, overlap=OVERLAP)
        return {"access_token": account.stable.value, "expires_in": int(account.stable.until - now)}

    def _token(self, data: Mapping[str, Any]) -> Answer:
        """Each call ends the token before; that of stable_token is another one."""
        account = self._login(data)
        self._count(account, "/cgi-bin/token")
        account.legacy.renew(self.clock(), overlap=OVERLAP)
        return {"access_token": account.legacy.value, "expires_in": TOKEN_LASTS}

    # ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _upload_picture(self, _: str, __: Account, request: Request) -> Answer:
        data = _file(request)
        kind = _checked_picture(data, *IN_ARTICLE)
        name = hashlib.sha256(data).hexdigest()
        address = f"http://mmbiz.qpic.cn/mmbiz_{kind.lower()}/{name}{name[:22]}/0?wx_fmt={kind.lower()}"
        self.pictures[address] = data
        return {"url": address}

    def _add_material(self, _: str, account: Account, request: Request) -> Answer:
        kind = request.query.get("type", "")
        if kind not in MATERIALS:
            raise WechatError(40004, "invalid media type")
        _checked_picture(_file(request), *MATERIALS[kind])
        media_id = self._new_id("material")
        account.materials[media_id] = kind
        return {"media_id": media_id, "url": f"http://mmbiz.qpic.cn/mmbiz/{media_id}/0"}

    def _delete_material(self, _: str, account: Account, request: Request) -> Answer:
        if account.materials.pop(str(_json(request).get("media_id")), None) is None:
            raise WechatError(40007, "invalid media_id")
        return {}

    # ── drafts ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _add_draft(self, appid: str, account: Account, request: Request) -> Answer:
        articles = _json(request).get("articles")
        if not isinstance(articles, list) or not 1 <= len(articles) <= MOST_ARTICLES:
            raise WechatError(47003, f"argument invalid! articles: 1 to {MOST_ARTICLES} are expected")
        checked = [self._checked_article(one, account) for one in articles]
        media_id = self._new_id("draft")
        account.drafts[media_id] = {"articles": [one for one, _ in checked], "at": int(self.clock())}
        violations = [*_escapes(request.body), *(line for _, found in checked for line in found)]
        self._keep("draft", appid, checked[0][0], media_id, violations)
        return {"media_id": media_id}

    def _checked_article(self, article: object, account: Account) -> tuple[dict[str, Any], list[str]]:
        if not isinstance(article, dict):
            raise WechatError(47003, "argument invalid! an article is an object")
        _check_texts(article)
        if account.materials.get(str(article.get("thumb_media_id"))) is None:
            raise WechatError(40007, "invalid media_id")
        read = Article(str(article["content"]), self.pictures.__contains__)
        if read.refused:
            raise WechatError(45166, f"invalid content: {', '.join(read.refused)}")
        digest = article.get("digest") or visible_text(read.html)[:MADE_UP_DIGEST]
        return {**article, "digest": digest, "content": read.html}, [*_notes(article), *read.violations]

    def _count_drafts(self, _: str, account: Account, __: Request) -> Answer:
        return {"total_count": len(account.drafts)}

    def _get_draft(self, _: str, account: Account, request: Request) -> Answer:
        return {"news_item": _draft(account, _json(request))["articles"]}

    def _delete_draft(self, _: str, account: Account, request: Request) -> Answer:
        data = _json(request)
        _draft(account, data)
        del account.drafts[data["media_id"]]
        return {}

    def _list_drafts(self, _: str, account: Account, request: Request) -> Answer:
        items = [
            {
                "media_id": media_id,
                "content": {"news_item": [_escaped(one) for one in draft["articles"]]},
                "update_time": draft["at"],
            }
            for media_id, draft in account.drafts.items()
        ]
        return _page(items, _json(request))

    # ── publishing and mass messages ─────────────────────────────────────────────────────────────────────────────

    def _submit(self, appid: str, account: Account, request: Request) -> Answer:
        data = _json(request)
        article = _draft(account, data)["articles"][0]
        media_id = str(data["media_id"])
        if any(job.media_id == media_id and job.looks == 0 for job in account.publications.values()):
            raise WechatError(53501, "frequent publish")
        fault = self.faults.take("wechat", appid, ("publish-fails",))
        publish_id = str(100_000 + len(account.publications))
        status = int(fault.seconds(3)) if fault else 0
        account.publications[publish_id] = Publication(media_id, article, int(self.clock()), status)
        self._keep("publication", appid, article, publish_id, [])
        return {"publish_id": publish_id, "msg_data_id": int(publish_id) + 1}

    def _look(self, _: str, account: Account, request: Request) -> Answer:
        """Under way at the first look; a published draft is none any more."""
        publish_id = str(_json(request).get("publish_id"))
        job = account.publications.get(publish_id)
        if job is None:
            raise WechatError(53600, "article_id or publish_id is invalid")
        job.looks += 1
        if job.looks == 1:
            return {"publish_id": publish_id, "publish_status": 1}
        if job.status == 0:
            account.drafts.pop(job.media_id, None)
        found = {"article_id": f"article_{publish_id}"} if job.status == 0 else {}
        return {"publish_id": publish_id, "publish_status": job.status, **found}

    def _list_published(self, _: str, account: Account, request: Request) -> Answer:
        items = [
            {
                "article_id": f"article_{number}",
                "content": {"news_item": [_escaped(job.article)]},
                "update_time": job.at,
            }
            for number, job in account.publications.items()
            if job.status == 0
        ]
        return _page(items, _json(request))

    def _send_all(self, appid: str, account: Account, request: Request) -> Answer:
        data = _json(request)
        mark, now = str(data.get("clientmsgid", "")), self.clock()
        if len(mark.encode()) > 64:
            raise WechatError(45067, "clientmsgid is too long")
        if mark in account.mass:
            self._refuse_repeated(account, mark, now)
        part = data.get("mpnews")
        if data.get("msgtype") != "mpnews" or not isinstance(part, dict):
            raise WechatError(40008, "invalid message type")
        article = _draft(account, part)["articles"][0]
        if account.used[self._today(), "mass"] >= MASS_A_DAY:
            raise WechatError(45028, "has no masssend quota")
        account.used[self._today(), "mass"] += 1
        message_id = 3_000_000 + len(account.mass)
        account.mass[mark or secrets.token_hex(8)] = message_id, now
        self._keep("mass message", appid, article, str(message_id), [])
        return {"msg_id": message_id, "msg_data_id": message_id + 1}

    def _refuse_repeated(self, account: Account, mark: str, now: float) -> None:
        message_id, at = account.mass[mark]
        account.mass[mark] = message_id, now
        if now - at < SAME_MASS_PAUSE:
            raise WechatError(45066, "same clientmsgid retry too fast")
        raise WechatError(45065, "clientmsgid exist", {"msg_id": message_id, "msg_data_id": message_id + 1})

    def _quota(self, appid: str, account: Account, request: Request) -> Answer:
        path = str(_json(request).get("cgi_path"))
        if path not in QUOTAS:
            raise WechatError(76021, "cgi_path not found, please check")
        if path in VERIFIED_ONLY and self._is_unverified(appid):
            raise WechatError(76022, "could not use this cgi_path, no permission")
        used = account.used[self._today(), path]
        return {"quota": {"daily_limit": QUOTAS[path], "used": used, "remain": QUOTAS[path] - used}}

    def _keep(
        self, what: str, appid: str, article: Mapping[str, Any], number: str, violations: list[str]
    ) -> None:
        content = {"kind": what, "id": number, **article}
        seen = json.dumps([what, dict(article)], ensure_ascii=False, sort_keys=True)
        self.inbox.accepted(
            "wechat",
            appid,
            content,
            fingerprint=hashlib.sha256(seen.encode("utf-8", "surrogatepass")).hexdigest(),
            violations=violations,
        )


_LOGINS: Mapping[str, Callable[[WechatApi, Mapping[str, Any]], Answer]] = {
    "/cgi-bin/stable_token": WechatApi._stable_token,  # noqa: SLF001 - the table of this very class
    "/cgi-bin/token": WechatApi._token,  # noqa: SLF001 - as above
}
_CALLS: Mapping[str, Callable[[WechatApi, str, Account, Request], Answer]] = {
    "/cgi-bin/media/uploadimg": WechatApi._upload_picture,  # noqa: SLF001 - as above
    "/cgi-bin/material/add_material": WechatApi._add_material,  # noqa: SLF001 - as above
    "/cgi-bin/material/del_material": WechatApi._delete_material,  # noqa: SLF001 - as above
    "/cgi-bin/draft/add": WechatApi._add_draft,  # noqa: SLF001 - as above
    "/cgi-bin/draft/count": WechatApi._count_drafts,  # noqa: SLF001 - as above
    "/cgi-bin/draft/get": WechatApi._get_draft,  # noqa: SLF001 - as above
    "/cgi-bin/draft/delete": WechatApi._delete_draft,  # noqa: SLF001 - as above
    "/cgi-bin/draft/batchget": WechatApi._list_drafts,  # noqa: SLF001 - as above
    "/cgi-bin/freepublish/submit": WechatApi._submit,  # noqa: SLF001 - as above
    "/cgi-bin/freepublish/get": WechatApi._look,  # noqa: SLF001 - as above
    "/cgi-bin/freepublish/batchget": WechatApi._list_published,  # noqa: SLF001 - as above
    "/cgi-bin/message/mass/sendall": WechatApi._send_all,  # noqa: SLF001 - as above
    "/cgi-bin/openapi/quota/get": WechatApi._quota,  # noqa: SLF001 - as above
}


def _disturbed(reply: Reply, fault: Fault | None) -> Reply | None:
    """The answer after a fault; what was sent is kept all the same."""
    if fault is None:
        return reply
    if fault.kind == "drop-after-accept":
        return None
    if fault.kind == "garbage":
        return Reply(content_type="text/html", body=b"<html>welcome</html>")
    return Reply(body=reply.body, delay=fault.seconds(5))


def _json(request: Request) -> dict[str, Any]:
    try:
        data = json.loads(request.body.decode())
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise WechatError(47001, "data format error")
    return data


def _escapes(body: bytes) -> list[str]:
    found = re.search(rb"(?<!\\)(?:\\\\)*\\u[0-9a-fA-F]{4}", body)
    return ["\\uXXXX instead of UTF-8: WeChat shows it as it stands"] if found else []


def _file(request: Request) -> bytes:
    """The form's field `media`."""
    boundary = re.search(r'boundary="?([^";]+)', request.content_type)
    for part in request.body.split(b"--" + boundary[1].encode()) if boundary else ():
        head, _, data = part.partition(b"\r\n\r\n")
        if re.search(rb'\bname="media"', head) and re.search(rb'\bfilename="[^"]+\.\w+"', head):
            return data.removesuffix(b"\r\n")
    raise WechatError(41005, "media data missing")


def _checked_picture(data: bytes, kinds: frozenset[str], most: int) -> str:
    if not data:
        raise WechatError(41005, "media data missing")
    if len(data) > most:
        raise WechatError(40009, "invalid image size")
    kind = picture_kind(data)
    if kind not in kinds:
        raise WechatError(40005, "invalid file type")
    return kind


def _check_texts(article: Mapping[str, Any]) -> None:
    """Lengths of the texts, in characters or bytes."""
    texts = {name: article.get(name, "") for name in ("title", "author", "digest", "content")}
    source = article.get("content_source_url", "")
    if not all(isinstance(text, str) for text in (*texts.values(), source)):
        raise WechatError(47003, "argument invalid! a text is expected")
    if not texts["content"].strip() or not texts["title"].strip():
        raise WechatError(44003, "empty news data")
    if len(texts["content"]) >= CHARACTERS or len(texts["content"].encode()) >= CONTENT_BYTES:
        raise WechatError(45002, "content size out of limit")
    for name, (most, code) in LENGTHS.items():
        if len(texts[name]) > most:
            raise WechatError(code, f"{name} size out of limit")
    if len(source.encode()) > SOURCE_BYTES:
        raise WechatError(47003, "argument invalid! content_source_url is over 1 KB")


#: field → most characters, errcode beyond
LENGTHS: Mapping[str, tuple[int, int]] = {
    "title": (TITLE, 45003),
    "author": (AUTHOR, 45110),
    "digest": (DIGEST, 45004),
}


def _notes(article: Mapping[str, Any]) -> list[str]:
    title = str(article["title"])
    notes = [f"the title has {len(title)} characters: newer pages say {NEW_TITLE}"]
    texts = json.dumps(article, ensure_ascii=False).encode("utf-8", "replace")
    names = sorted(set(PLACEHOLDER.findall(texts)))
    return [
        *(notes if len(title) > NEW_TITLE else []),
        *(f"placeholder {name.decode()} was never filled" for name in names),
    ]


def _draft(account: Account, data: Mapping[str, Any]) -> dict[str, Any]:
    draft = account.drafts.get(str(data.get("media_id")))
    if draft is None:
        raise WechatError(40007, "invalid media_id")
    return draft


def _escaped(article: Mapping[str, Any]) -> dict[str, Any]:
    """As it is given back: HTML's entities stand in the texts."""
    texts = {name: escape(str(article.get(name, ""))) for name in ("title", "digest", "content_source_url")}
    return {**article, **texts}


def _page(items: list[dict[str, Any]], data: Mapping[str, Any]) -> Answer:
    """The newest first; `no_content` leaves the articles' bodies out."""
    offset, count = data.get("offset", 0), data.get("count", 20)
    if not isinstance(offset, int) or not isinstance(count, int) or not 1 <= count <= 20:
        raise WechatError(47003, "argument invalid! count is 1 to 20")
    shown = items[::-1][offset : offset + count]
    if data.get("no_content"):
        shown = [
            {
                **item,
                "content": {"news_item": [{**one, "content": ""} for one in item["content"]["news_item"]]},
            }
            for item in shown
        ]
    return {"total_count": len(items), "item_count": len(shown), "item": shown}


def _kept(request: Request) -> dict[str, Any]:
    """What was refused; pictures and secrets are left out."""
    secret = request.path in _LOGINS or not request.content_type.startswith("application/json")
    return {"call": request.path, "source": "" if secret else request.body.decode(errors="replace")}
