"""What a WeCom robot's answer means. HTTP 200 says nothing there: `errcode` does, and its text must not be matched.

Source: developer.work.weixin.qq.com, path/99110 (group robots) and path/90313 (global codes).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from distributor.channels.redact import redact
from distributor.errors import Kind, Rejected, SendError, Unavailable

OK = 0

throttled = partial(Unavailable, kind=Kind.THROTTLE, counts=False, retry_after=timedelta(seconds=60))
malformed = partial(Rejected, kind=Kind.CONTENT)
#: An editor must look at this robot; the others are not concerned.
misconfigured = partial(Rejected, kind=Kind.CONFIG)


@dataclass(frozen=True)
class Row:
    """What one code means."""

    answer: Callable[..., SendError]
    meaning: str


ERRCODES: Mapping[int, Row] = {
    -1: Row(partial(Unavailable, kind=Kind.SERVER), "WeCom is busy"),
    45009: Row(throttled, "more than 20 messages a minute"),
    40058: Row(malformed, "the message is too long"),
    45002: Row(malformed, "the message is too long"),
    40008: Row(malformed, "WeCom does not know this kind of message"),
    40033: Row(malformed, "WeCom refuses the character encoding"),
    40035: Row(malformed, "WeCom refuses a parameter"),
    44004: Row(malformed, "the message is empty"),
    93000: Row(misconfigured, "the robot's key is wrong, or the robot was removed"),
}
#: Removed robots answer with several undocumented codes; trying again would not bring them back.
UNKNOWN_ERRCODE = Row(misconfigured, "a code this table does not know: see developer.work.weixin.qq.com")

#: A gateway's answer, without an errcode, before the robot has seen the message.
STATUSES: Mapping[int, Row] = {
    413: Row(malformed, "the message is too long"),
    429: Row(throttled, "too many requests"),
}
UNKNOWN_STATUS = Row(misconfigured, "not WeCom's interface: check wecom.api")


def from_errcode(errcode: int, errmsg: str, *secrets: str) -> SendError:
    """The error behind an errcode other than 0, with every secret masked in its text."""
    return _write(ERRCODES.get(errcode, UNKNOWN_ERRCODE), errcode, errmsg, secrets)


def from_status(status: int, text: str, *secrets: str) -> SendError:
    """The error behind an HTTP status from 300 to 499 without a readable errcode."""
    return _write(STATUSES.get(status, UNKNOWN_STATUS), status, text, secrets)


def _write(row: Row, code: int, text: str, secrets: tuple[str, ...]) -> SendError:
    return row.answer(code=str(code), text=f"{redact(text, *secrets)} [{row.meaning}]".strip())
