"""What a WeChat Official Account's answer means. HTTP 200 says nothing there: `errcode` does.

Source: developers.weixin.qq.com, global return codes, and the page of each interface.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

from distributor.channels.redact import redact
from distributor.errors import Kind, Rejected, Scope, SendError, Unavailable, Unconfirmed

OK = 0
#: The token is not (or no longer) valid: a new one, once, and the call again.
STALE_TOKEN = frozenset({40001, 40014, 42001})
#: The same `clientmsgid` was sent already: what we wanted.
SENT_BEFORE = 45065
#: A material that the draft names is gone: an editor may have deleted a cover that we remember.
NO_SUCH_MEDIA = 40007

BEIJING = ZoneInfo("Asia/Shanghai")

busy = partial(Unavailable, kind=Kind.SERVER)
throttled = partial(Unavailable, kind=Kind.THROTTLE, counts=False, retry_after=timedelta(seconds=60))
#: Until midnight in Beijing, when the quotas of a day begin anew.
spent = partial(Unavailable, kind=Kind.THROTTLE, counts=False)
#: An earlier try came through.
in_doubt = partial(Unconfirmed, kind=Kind.SERVER)
malformed = partial(Rejected, kind=Kind.CONTENT)
#: Nothing goes through this account until a person has mended it.
misconfigured = partial(Unavailable, kind=Kind.CONFIG, scope=Scope.CHANNEL, counts=False)
forbidden = partial(Rejected, kind=Kind.CONFIG, scope=Scope.CHANNEL)
unwanted = partial(Rejected, kind=Kind.MAILBOX)

RIGHTS = (
    "the account has no right to this: drafts need an account whose verification has not expired; publishing and mass "
    'sending, one that is verified (personal and unverified accounts lost them in July 2025). Set mode = "draft"'
)
RELOGIN = (
    "the token is refused even after a new one: is another system asking /cgi-bin/token for this account?"
)


@dataclass(frozen=True)
class Row:
    """What one code means."""

    answer: Callable[..., SendError]
    meaning: str


ERRCODES: Mapping[int, Row] = {
    -1: Row(busy, "WeChat is busy"),
    **dict.fromkeys(STALE_TOKEN, Row(misconfigured, RELOGIN)),
    40013: Row(misconfigured, "WeChat does not know this AppID"),
    40125: Row(misconfigured, "the AppSecret is wrong"),
    40164: Row(misconfigured, "put this server's address on the account's IP list (设置与开发 → 基本配置)"),
    40243: Row(misconfigured, "the AppSecret is frozen: an administrator must release it"),
    48001: Row(forbidden, RIGHTS),
    48004: Row(misconfigured, "WeChat has blocked this interface for the account"),
    50002: Row(misconfigured, "the account is restricted: an administrator must look at it"),
    61004: Row(misconfigured, "put this server's address on the account's IP list (设置与开发 → 基本配置)"),
    76021: Row(forbidden, RIGHTS),
    76022: Row(forbidden, RIGHTS),
    45009: Row(spent, "the day's quota of this interface is used up"),
    45028: Row(spent, "the quota of mass messages is used up"),
    45011: Row(throttled, "too many calls a minute"),
    42010: Row(throttled, "too many mass messages a minute"),
    45066: Row(
        in_doubt, "WeChat was handed this very mass message a moment ago, and does not say whether it goes"
    ),
    53501: Row(throttled, "too many publications in a short time"),
    SENT_BEFORE: Row(malformed, "the same mass message was sent before"),
    45067: Row(malformed, "clientmsgid is too long"),
    40004: Row(malformed, "WeChat does not take this kind of file"),
    40005: Row(malformed, "WeChat does not take this kind of file"),
    NO_SUCH_MEDIA: Row(malformed, "the cover or the draft does not exist (any more)"),
    40009: Row(malformed, "the picture is too large"),
    44003: Row(malformed, "the article is empty"),
    45001: Row(malformed, "the file is too large"),
    45002: Row(malformed, "`content` is too long"),
    45003: Row(malformed, "`title` is too long"),
    45004: Row(malformed, "`digest` is too long"),
    45110: Row(malformed, "`author` is too long"),
    45166: Row(malformed, "`content` holds what WeChat does not allow"),
    47001: Row(malformed, "WeChat cannot read the request"),
    47003: Row(malformed, "WeChat refuses a parameter"),
    53503: Row(malformed, "the draft does not pass WeChat's checks"),
    53504: Row(malformed, "the draft must be published by hand, on mp.weixin.qq.com"),
    53505: Row(malformed, "the draft must be saved by hand first, on mp.weixin.qq.com"),
    40003: Row(unwanted, "WeChat does not know this reader"),
    43004: Row(unwanted, "the reader does not follow the account"),
    43101: Row(unwanted, "the reader refuses such messages"),
    45015: Row(unwanted, "the time to answer this reader is over"),
    45047: Row(unwanted, "too many messages to this reader without an answer"),
}
#: Trying again would not help, and the account's other articles may well go.
UNKNOWN_ERRCODE = Row(
    partial(Rejected, kind=Kind.CONFIG), "a code this table does not know: see developers.weixin.qq.com"
)

#: A gateway's answer, without an errcode, before WeChat has seen the request.
STATUSES: Mapping[int, Row] = {
    413: Row(malformed, "the request is too large"),
    429: Row(throttled, "too many requests"),
}
UNKNOWN_STATUS = Row(misconfigured, "not WeChat's interface: check wechat.api")

#: `publish_status` of freepublish/get → what it means; 0 is done, 1 is under way.
PUBLISH_STATUSES: Mapping[int, str] = {
    2: "WeChat's check of originality failed",
    3: "publishing failed",
    4: "WeChat's editors refuse it",
    5: "it was published, and a person has deleted all of it",
    6: "it was published, and WeChat has banned all of it",
}


def from_errcode(errcode: int, errmsg: str, *secrets: str, now: datetime | None = None) -> SendError:
    """The error behind an errcode other than 0, with every secret masked in its text."""
    row = ERRCODES.get(errcode, UNKNOWN_ERRCODE)
    error = _written(row, errcode, _without_request_id(errmsg), secrets)
    if row.answer is spent and isinstance(error, Unavailable):
        error.retry_after = until_midnight(now or datetime.now(UTC))
    return error


def from_status(status: int, text: str, *secrets: str) -> SendError:
    """The error behind an HTTP status from 300 to 499 without a readable errcode."""
    return _written(STATUSES.get(status, UNKNOWN_STATUS), status, text, secrets)


def quota_spent(path: str) -> SendError:
    """What an interface whose quota is used up would answer, before it is asked."""
    return from_errcode(45009, f"nothing left of {path}")


def until_midnight(now: datetime) -> timedelta:
    """From now until the next day begins in Beijing."""
    here = now.astimezone(BEIJING)
    return here.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1) - here


def _written(row: Row, code: int, text: str, secrets: tuple[str, ...]) -> SendError:
    return row.answer(code=str(code), text=f"{redact(text, *secrets)} [{row.meaning}]".strip())


def _without_request_id(errmsg: str) -> str:
    return re.sub(r"\s*(?:rid|hints?):\s*\[?[\w-]+\]?.*$", "", errmsg)
