"""A mail that came back → an event, or nothing.

Anybody can write a bounce. What makes one believable is the address it was sent to, which only our own mail to that very
reader carried (channels/email/identity.py); so whatever else it says, it speaks of that delivery alone. The original's
Message-ID is no proof: it can be guessed.

RFC 3464 reports and the free forms of old servers are told apart by flufl.bounce; complaints (RFC 5965, ARF) are read
here. A permanent failure suppresses when its words say that there is no such mailbox; else it counts.
"""

import email
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime

from flufl.bounce import all_failures

from distributor.channels.email.identity import BounceAddresses
from distributor.channels.http import quiet
from distributor.model import DeliveryId, Event, EventKind, Permanence
from distributor.providers.judging import judge_words
from distributor.providers.reading import text

PROVIDER = "bounces"
#: A feedback report's type → what it means. "not-spam" takes a complaint back, and "auth-failure" is about our DNS.
FEEDBACK = {
    "abuse": EventKind.COMPLAINED,
    "fraud": EventKind.COMPLAINED,
    "virus": EventKind.COMPLAINED,
    "other": EventKind.COMPLAINED,
    "opt-out": EventKind.UNSUBSCRIBED,
}

# It logs a traceback, with the mail's text, for each mail that one of its detectors stumbles over.
quiet("flufl.bounce", below=logging.CRITICAL + 1)


def read_bounce(raw: bytes, addresses: BounceAddresses, now: datetime) -> Event | None:
    """What a mail to the bounce address says about a delivery of ours; None when it says nothing, or proves nothing."""
    delivery = addresses.delivery_in(raw)
    if delivery is None:
        return None
    mail = email.message_from_bytes(raw)
    kind, permanence, said = _complaint(mail) or _failure(mail) or (None, None, "")
    if kind is None:
        return None
    return Event(
        provider=PROVIDER,
        event_id=_event_id(delivery, kind, permanence),
        kind=kind,
        address="",
        occurred_at=_date(mail, now),
        permanence=permanence,
        detail=said,
        delivery=delivery,
    )


_Meaning = tuple[EventKind, Permanence | None, str]


def _event_id(delivery: DeliveryId, kind: EventKind, permanence: Permanence | None) -> str:
    """One of a kind for each delivery: whoever has our mail can send its bounce a thousand times."""
    return f"{delivery} {kind}" + (f" {permanence}" if permanence else "")


def _complaint(mail: Message) -> _Meaning | None:
    for part in mail.walk():
        if part.get_content_type() == "message/feedback-report":
            fields = email.message_from_string(_text_of(part))
            form = text(fields.get("Feedback-Type")).lower()
            kind = FEEDBACK.get(form)
            return (kind, None, form) if kind else None
    return None


def _failure(mail: Message) -> _Meaning | None:
    report = [field for part in _status_parts(mail) for field in _recipient_fields(part)]
    if not report and _is_automatic(mail):
        return None
    temporary, permanent = _failures(mail)
    said = " ".join(report) or text(_first_text(mail), 1000)
    if permanent:
        # No report, or none with a reason: the words around it are all there is.
        return EventKind.BOUNCED, judge_words(said, ""), text(said)
    return (EventKind.DEFERRED, Permanence.TEMPORARY, text(said)) if temporary else None


def _failures(mail: Message) -> tuple[frozenset[bytes], frozenset[bytes]]:
    try:
        temporary, permanent = all_failures(mail)
    except Exception:  # its detectors expect mails to be well-formed, and say so in a dozen ways
        return frozenset(), frozenset()
    return frozenset(temporary), frozenset(permanent)


def _is_automatic(mail: Message) -> bool:
    """An answer of a holiday program and its like (RFC 3834). Reports are "auto-replied" too, so these are asked first."""
    said = text(mail.get("Auto-Submitted")).lower().partition(";")[0].strip()
    return said not in {"", "no"} or "X-Autoreply" in mail or "X-Autorespond" in mail


def _status_parts(mail: Message) -> Iterator[Message]:
    for part in mail.walk():
        if part.get_content_type() in {"message/delivery-status", "message/global-delivery-status"}:
            payload = part.get_payload()
            yield from (
                (block for block in payload if isinstance(block, Message))
                if isinstance(payload, list)
                else ()
            )


def _recipient_fields(block: Message) -> Iterator[str]:
    """The words of one block of a report about one recipient: what the server said, else its status alone."""
    said = text(str(block.get("Diagnostic-Code") or "").partition(";")[2])
    status = text(block.get("Status"))
    if status and status not in said:
        said = f"{status} {said}".strip()
    if said:
        yield said


def _first_text(mail: Message) -> str:
    parts = (part for part in mail.walk() if part.get_content_type() == "text/plain")
    return _text_of(next(parts, None))


def _text_of(part: Message | None) -> str:
    """The decoded text of a part; the report of an ARF mail is parsed as a mail within the mail."""
    if part is None:
        return ""
    payload = part.get_payload()
    if isinstance(payload, list):
        return "\n".join(str(inner) for inner in payload)
    data = part.get_payload(decode=True)
    return data.decode("utf-8", "replace") if isinstance(data, bytes) else str(payload)


def _date(mail: Message, now: datetime) -> datetime:
    try:
        found = parsedate_to_datetime(str(mail.get("Date")))
        aware = found if found.tzinfo else found.replace(tzinfo=UTC)
        return min(aware.astimezone(UTC), now)
    except (ValueError, OverflowError, TypeError):
        return now
