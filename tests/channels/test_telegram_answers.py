"""What Telegram's errors mean: real descriptions, and the table itself."""

from dataclasses import dataclass
from datetime import timedelta

import httpx
import pytest
from telegram.error import (
    BadRequest,
    ChatMigrated,
    Conflict,
    EndPointNotFound,
    Forbidden,
    InvalidToken,
    NetworkError,
    RetryAfter,
    TelegramError,
    TimedOut,
)

from distributor.channels.telegram.answers import ANSWERS, Fallback, Row, row_for, translate
from distributor.errors import Kind, Rejected, Scope, SendError, Unavailable, Unconfirmed


@dataclass(frozen=True)
class Sample:
    error: TelegramError
    answer: type[SendError]
    kind: Kind
    scope: Scope = Scope.RECIPIENT
    suppress: bool = False
    counts: bool = True
    fallback: Fallback | None = None


def caused(error: TelegramError, cause: Exception) -> TelegramError:
    error.__cause__ = cause
    return error


def gone(error: TelegramError) -> Sample:
    return Sample(error, Rejected, Kind.MAILBOX)


def misplaced(error: TelegramError) -> Sample:
    return Sample(error, Rejected, Kind.CONFIG)


def malformed(error: TelegramError, fallback: Fallback | None = None) -> Sample:
    return Sample(error, Rejected, Kind.CONTENT, fallback=fallback)


def whole_channel(error: TelegramError, kind: Kind) -> Sample:
    return Sample(error, Unavailable, kind, Scope.CHANNEL, counts=False)


def throttled(error: TelegramError) -> Sample:
    return Sample(error, Unavailable, Kind.THROTTLE, Scope.CREDENTIAL, counts=False)


def in_doubt(error: TelegramError) -> Sample:
    return Sample(error, Unconfirmed, Kind.NETWORK)


SAMPLES = [
    throttled(RetryAfter(17)),
    throttled(RetryAfter(timedelta(seconds=17))),
    throttled(NetworkError("Too Many Requests (429)")),
    Sample(ChatMigrated(-1001234567890), Unavailable, Kind.MAILBOX, counts=False),
    Sample(Forbidden("Forbidden: bot was blocked by the user"), Rejected, Kind.MAILBOX, suppress=True),
    Sample(Forbidden("Forbidden: user is deactivated"), Rejected, Kind.MAILBOX, suppress=True),
    gone(Forbidden("Forbidden: bot can't initiate conversation with a user")),
    misplaced(Forbidden("Forbidden: bot was kicked from the supergroup chat")),
    misplaced(Forbidden("Forbidden: bot is not a member of the channel chat")),
    whole_channel(InvalidToken("Unauthorized"), Kind.CONFIG),
    whole_channel(InvalidToken("Not Found"), Kind.CONFIG),
    whole_channel(Conflict("Conflict: terminated by other getUpdates request"), Kind.CONFIG),
    whole_channel(EndPointNotFound("Endpoint 'sendMessage' not found in Bot API"), Kind.CONFIG),
    malformed(
        BadRequest('Can\'t parse entities: unsupported start tag "br" at byte offset 5'), Fallback.MARKUP
    ),
    malformed(BadRequest("ENTITIES_TOO_LONG"), Fallback.MARKUP),
    malformed(BadRequest("Message is too long")),
    malformed(BadRequest("Message text is empty")),
    malformed(BadRequest("Text must be non-empty")),
    malformed(BadRequest("Wrong type of the web page content"), Fallback.PREVIEW),
    malformed(BadRequest("Failed to get HTTP URL content"), Fallback.PREVIEW),
    malformed(BadRequest("WEBPAGE_URL_INVALID"), Fallback.PREVIEW),
    malformed(BadRequest("PHOTO_INVALID_DIMENSIONS"), Fallback.PREVIEW),
    malformed(BadRequest("Some words of tomorrow")),
    misplaced(BadRequest("Message thread not found")),
    misplaced(BadRequest("TOPIC_CLOSED")),
    misplaced(BadRequest("Not enough rights to send text messages to the chat")),
    misplaced(BadRequest("Need administrator rights in the channel chat")),
    misplaced(BadRequest("CHAT_WRITE_FORBIDDEN")),
    gone(BadRequest("Chat not found")),
    gone(BadRequest("PEER_ID_INVALID")),
    gone(BadRequest("User not found")),
    gone(BadRequest("Group chat was deactivated")),
    malformed(NetworkError("Request Entity Too Large (413)")),
    whole_channel(caused(TimedOut(), httpx.ConnectTimeout("")), Kind.NETWORK),
    whole_channel(caused(TimedOut("Pool timeout"), httpx.PoolTimeout("")), Kind.NETWORK),
    whole_channel(
        caused(NetworkError("httpx.ConnectError: refused"), httpx.ConnectError("refused")), Kind.NETWORK
    ),
    whole_channel(caused(NetworkError("httpx.ProxyError: 407"), httpx.ProxyError("407")), Kind.NETWORK),
    whole_channel(
        caused(NetworkError("httpx.UnsupportedProtocol"), httpx.UnsupportedProtocol("ftp")), Kind.CONFIG
    ),
    in_doubt(caused(TimedOut(), httpx.ReadTimeout(""))),
    in_doubt(caused(TimedOut(), httpx.WriteTimeout(""))),
    in_doubt(caused(NetworkError("httpx.ReadError"), httpx.ReadError(""))),
    in_doubt(caused(NetworkError("httpx.RemoteProtocolError"), httpx.RemoteProtocolError("hung up"))),
    in_doubt(NetworkError("Bad Gateway")),
    in_doubt(NetworkError("Internal Server Error (500)")),
    in_doubt(TelegramError("Invalid server response")),
]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: repr(sample.error)[:70])
def test_sample(sample: Sample) -> None:
    answer = translate(sample.error)
    assert (type(answer), answer.kind, answer.scope) == (sample.answer, sample.kind, sample.scope)
    assert getattr(answer, "suppress", False) is sample.suppress
    assert getattr(answer, "counts", True) is sample.counts
    assert row_for(sample.error).fallback is sample.fallback
    assert answer.code == type(sample.error).__name__


@pytest.mark.parametrize("row", ANSWERS, ids=lambda row: f"{row.error.__name__} {row.text}"[:50])
def test_every_row_decides_some_sample(row: Row) -> None:
    assert row in [row_for(sample.error) for sample in SAMPLES]
    assert row.meaning


@pytest.mark.parametrize("wait", [17, timedelta(seconds=17)], ids=["int", "timedelta"])
@pytest.mark.parametrize("setting", ["", "true"])
def test_wait_of_telegram(wait: int | timedelta, setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTB_TIMEDELTA", setting)
    answer = translate(RetryAfter(wait))
    assert isinstance(answer, Unavailable)
    assert answer.retry_after == timedelta(seconds=17)


def test_migrated_chat_is_tried_again_at_once_under_its_new_id() -> None:
    answer = translate(ChatMigrated(-1001234567890))
    assert isinstance(answer, Unavailable)
    assert (answer.new_address, answer.retry_after) == ("-1001234567890", timedelta(0))


def test_secret_is_masked() -> None:
    answer = translate(
        NetworkError("no answer from https://api.telegram.org/bot123:abc/sendMessage"), "123:abc"
    )
    assert "123:abc" not in str(answer)
    assert "bot***/sendMessage" in answer.text
