"""What a strict reader of the mail standards finds wrong with a message. Nothing here refuses; it takes notes."""

import re
from collections.abc import Iterator
from email.header import decode_header, make_header
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32

ONCE = ("From", "To", "Subject", "Date", "Message-ID")  # RFC 5322 §3.6 and every large provider
LONGEST_LINE = 998  # octets without CRLF, RFC 5322 §2.1.1
PLACEHOLDER = re.compile(rb"__[A-Z]+(?:_[A-Z]+)+__")


def parse_mail(raw: bytes) -> Message:
    return BytesParser(policy=compat32).parsebytes(raw)


def header(message: Message, name: str) -> str:
    """A header as a reader sees it; as it stands when it cannot be decoded."""
    value = str(message.get(name, ""))
    try:
        return str(make_header(decode_header(value)))
    except (LookupError, ValueError):
        return value


def part_text(part: Message) -> str:
    """A text part's text, whatever its charset claims."""
    payload = part.get_payload(decode=True)
    raw = payload if isinstance(payload, bytes) else b""
    try:
        return raw.decode(part.get_content_charset("utf-8"), "replace")
    except LookupError:
        return raw.decode("utf-8", "replace")


def first_text(message: Message, kind: str) -> str | None:
    """The first part of that content type ("text/html"), or None."""
    return next((part_text(part) for part in message.walk() if part.get_content_type() == kind), None)


def mail_violations(raw: bytes, message: Message) -> list[str]:
    """Empty when all is well."""
    return [*_wire(raw), *_headers(message), *_list_unsubscribe(message), *_parts(message)]


def _wire(raw: bytes) -> Iterator[str]:
    if not raw.count(b"\r") == raw.count(b"\n") == raw.count(b"\r\n"):
        yield "a line does not end in CRLF"
    if (longest := max(map(len, raw.split(b"\r\n")))) > LONGEST_LINE:
        yield f"a line of {longest} octets; {LONGEST_LINE} are allowed"


def _headers(message: Message) -> Iterator[str]:
    for name in ONCE:
        if (times := len(message.get_all(name, []))) != 1:
            yield f"{name} stands {times} times" if times else f"{name} is missing"


def _list_unsubscribe(message: Message) -> Iterator[str]:
    for name in ("List-Unsubscribe", "List-Unsubscribe-Post"):
        if "=?" in str(message.get(name, "")):
            yield f"{name} is RFC 2047 encoded: no provider reads that"
    value = "".join(str(message.get("List-Unsubscribe", "")).split())
    if value and not re.fullmatch(r"<[^<>]+>(,<[^<>]+>)*", value):
        yield "List-Unsubscribe is not a list of <URI>s"


def _parts(message: Message) -> Iterator[str]:
    parts = list(message.walk())
    if not any(part.get_content_type() == "text/plain" for part in parts):
        yield "no text/plain part"
    for part in parts:
        for defect in part.defects:
            yield f"{part.get_content_type()}: {type(defect).__name__}"
        if part.get_content_maintype() == "text":
            yield from _placeholders(part)


def _placeholders(part: Message) -> Iterator[str]:
    payload = part.get_payload(decode=True)
    found = set(PLACEHOLDER.findall(payload)) if isinstance(payload, bytes) else set()
    for name in sorted(found):
        yield f"{part.get_content_type()}: placeholder {name.decode()} was never filled"
