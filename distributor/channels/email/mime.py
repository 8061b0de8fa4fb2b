"""A parcel → the bytes of an RFC 5322 message: multipart/alternative, base64, CRLF.

What all recipients share is built once and kept (the stdlib needs about a millisecond for it), base64 included; each
recipient costs a few header lines, the base64 of its own link and a join: about 7 µs for 12 KB. The headers that
differ by recipient, and those of mailing lists, are written by hand from checked ASCII: the stdlib turns any
List-Unsubscribe longer than 77 characters into an encoded-word, and Gmail then shows no one-click button.
"""

import hashlib
import html
import re
from binascii import a2b_base64, b2a_base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from functools import cached_property, lru_cache
from typing import NamedTuple
from urllib.parse import quote

from email_validator import validate_email

from distributor.channels.placeholders import cut, require_values, settle
from distributor.model import Message, Parcel

UNSUBSCRIBE_URL = "__UNSUBSCRIBE_URL__"
#: The same for all recipients of an issue: filled in before the base64. A value that differed would be slow, not wrong.
VIEW_URL = "__VIEW_URL__"

#: Gmail clips a message that holds C1 controls; none of these has a meaning in mail.
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
LINE_END = re.compile(r"\r\n|\r|\n")
ADDRESS = re.compile(r"[^\s<>()\[\]\\,;:\"@\x00-\x1f\x7f]++@[A-Za-z0-9-]++(?:\.[A-Za-z0-9-]++)*+")
HEADER_URL = re.compile(r"https?://[!#-;=?-~]+")
TOKEN = re.compile(r"[A-Za-z0-9._-]+")
#: Subtype → where its text stands in the frozen message; a reader's program shows the last it can.
PARTS = (("plain", "text"), ("html", "html"))
BASE64_LINE = 76  # RFC 2045 §6.8
LINE_BYTES = BASE64_LINE // 4 * 3
CRLF = b"\r\n"
KEPT = 64  # messages: those of a few issues under way, and the mail outside of them

#: Every mail is written by a machine: holiday notices must not answer it.
ALWAYS = (("Auto-Submitted", "auto-generated"), ("X-Auto-Response-Suppress", "All"))


def compose(parcel: Parcel) -> bytes:
    """The message as it goes over the wire. The same parcel gives the same bytes.

    Raises:
        ValueError: a placeholder without a value, or a value that must not stand in a header.
    """
    return write(parcel)[2]


def write(parcel: Parcel) -> tuple[str, str, bytes]:
    """The sender and the recipient of the envelope, checked ASCII, and the message. Raises ValueError, as `compose` does.

    No line begins with a dot, so nothing needs stuffing: base64 has none, a boundary begins with "--", every header
    line with its name or a space.
    """
    values = parcel.values
    frozen = _frozen(parcel.message, values)
    recipient = ascii_address(parcel.recipient.address)
    headers = _personal_headers(parcel, frozen, recipient)
    url = values.get(UNSUBSCRIBE_URL)
    if url:
        headers += _list_headers(url, frozen)
    pieces = [frozen.head, headers.encode("ascii")]
    frozen.body.write(values, pieces)
    return frozen.sender, recipient, b"".join(pieces)


def sender_address(content: Mapping[str, str]) -> str:
    """The address the mail is from, which is also the envelope's. Raises ValueError."""
    return ascii_address(content["from_address"])


def ascii_address(address: str) -> str:
    """An address fit for a header and an envelope; a domain in Chinese is written in its ASCII form.

    Raises:
        ValueError: not an address, or its local part is not ASCII (that would need SMTPUTF8).
    """
    if not address.isascii():
        checked = validate_email(address, check_deliverability=False, allow_smtputf8=False)
        address = checked.ascii_email or address
    if not ADDRESS.fullmatch(address):
        raise ValueError(f"not an e-mail address: {address!r}")
    return address


class _Stretch(NamedTuple):
    """The text behind a placeholder, encoded beforehand for one way in which the value may end.

    Base64 turns three bytes into four characters: `taken` completes the value's last triple, `lines` ends its line and
    holds the whole triples after it, and `left` are the bytes that start the next value's first.
    """

    taken: bytes
    lines: bytes
    left: bytes


class _Step(NamedTuple):
    """A placeholder, and the text behind it by the number of bytes that the value's last triple lacks.

    A text of one byte or none cannot complete a triple that lacks more: then `by_lack` has none, and it is encoded
    together with the next value.
    """

    name: str
    escaped: bool
    text: bytes
    by_lack: tuple[_Stretch | None, _Stretch | None, _Stretch | None]


class _Part(NamedTuple):
    """A text of the mail; `pieces` are stretches of text and names of placeholders in turn, as `cut` gives them."""

    subtype: str
    pieces: Sequence[str]

    @property
    def escaped(self) -> bool:
        return self.subtype == "html"

    @property
    def head(self) -> bytes:
        # quoted-printable costs Chinese text ×3.03, base64 ×1.35
        kind = f'Content-Type: text/{self.subtype}; charset="utf-8"\r\n'
        return f"{kind}Content-Transfer-Encoding: base64\r\n".encode(
            "ascii"
        )  # the text starts with the empty line

    @property
    def template(self) -> bytes:
        """The text with the names of its placeholders left in place."""
        return "".join(self.pieces).encode("utf-8")


@dataclass(frozen=True)
class _Body:
    """Everything below the personal headers: what stands before the first value, then a step a value."""

    opening: _Stretch
    steps: Sequence[_Step]

    @classmethod
    def of(cls, parts: Sequence[_Part], boundary: str) -> "_Body":
        line = f"--{boundary}".encode("ascii") if len(parts) > 1 else b""
        following = _Stretch(b"", line + b"--\r\n" if line else b"", b"")
        steps: list[_Step] = []
        for part in reversed(parts):
            stretches = [piece.encode("utf-8") for piece in part.pieces[0::2]]
            ends = [None] * (len(stretches) - 1) + [following]
            rest = zip(part.pieces[1::2], stretches[1:], ends[1:], strict=True)
            steps[:0] = [_Step(name, part.escaped, text, _by_lack(text, end)) for name, text, end in rest]
            first = _stretch(stretches[0], 0, ends[0])
            head = line + b"\r\n" + part.head if line else part.head
            following = first._replace(lines=head + first.lines)
        kind = f'Content-Type: multipart/alternative; boundary="{boundary}"\r\n\r\n' if line else ""
        opening = following._replace(lines=kind.encode("ascii") + following.lines)
        return cls(opening, tuple(steps))

    def write(self, values: Mapping[str, str], pieces: list[bytes]) -> None:
        """Adds the body with the values filled in to `pieces`."""
        _, lines, left = self.opening
        pieces.append(lines)
        for name, escaped, text, by_lack in self.steps:
            value = values[name]
            data = left + (html.escape(value) if escaped else value).encode()
            stretch = by_lack[-len(data) % 3]
            if stretch is None:
                left = data + text
                continue
            taken, lines, left = stretch
            data += taken
            encoded = b2a_base64(data, newline=False) if len(data) <= LINE_BYTES else _base64(data)
            pieces += (encoded, lines)


def _by_lack(text: bytes, end: _Stretch | None) -> tuple[_Stretch | None, _Stretch | None, _Stretch | None]:
    lacks = (_stretch(text, lack, end) if end or lack <= len(text) else None for lack in range(3))
    none, one, two = lacks
    return none, one, two


def _stretch(text: bytes, lack: int, end: _Stretch | None) -> _Stretch:
    """`text` behind a value that lacks `lack` bytes; `end` is what follows when the part ends with this text."""
    whole = len(text) if end else lack + (len(text) - lack) // 3 * 3
    lines = CRLF + _base64(text[lack:whole]) + CRLF if whole > lack else CRLF
    if end is None:
        return _Stretch(text[:lack], lines, text[whole:])
    return _Stretch(text[:lack], lines + end.lines, end.left)


@dataclass(frozen=True)
class _Frozen:
    """What all recipients of a message share."""

    head: bytes
    body: _Body
    content: Mapping[str, str]
    sender: str
    reply_to: str

    @cached_property
    def newsletter(self) -> str:
        return self.content.get("newsletter", "")

    @cached_property
    def domain(self) -> str:
        return self.sender.rpartition("@")[2]

    @cached_property
    def list_headers(self) -> str:
        """Everything behind the reader's own URL in List-Unsubscribe. Folded at the comma, never inside a URI."""
        mailto = f"mailto:{quote(self.reply_to, safe='@+')}?subject=unsubscribe"
        headers = (
            ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),  # RFC 8058
            ("List-Id", f"<{_list_id(self)}>"),
            ("Precedence", "bulk"),
            ("Feedback-ID", _feedback_id(self)),
        )
        return f">,\r\n <{mailto}>\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers)


#: id of a message → the message, the names of the values, the shared value, and what was made of them. The message is
#: held, so that its id means nothing else. Content would be a slow key: it has kilobytes, and lanes ask for each mail.
_known: dict[int, tuple[Message, tuple[str, ...], str | None, _Frozen]] = {}


def _frozen(message: Message, values: Mapping[str, str]) -> _Frozen:
    names, shared = tuple(values), values.get(VIEW_URL)
    known = _known.get(id(message))
    if known is not None and known[0] is message and known[1] == names and known[2] == shared:
        return known[3]
    require_values(message.placeholders, values)
    every_name = tuple(sorted({*message.placeholders, *names}))
    frozen = _freeze(tuple(message.content.items()), every_name, shared)
    if len(_known) >= KEPT:
        _known.clear()
    _known[id(message)] = (message, names, shared, frozen)
    return frozen


@lru_cache(maxsize=KEPT)  # each lane reads the messages of an issue anew
def _freeze(
    content_items: tuple[tuple[str, str], ...], names: tuple[str, ...], shared: str | None
) -> _Frozen:
    content = dict(content_items)
    parts = [_part(kind, text, names, shared) for kind, key in PARTS if (text := content.get(key))]
    if not parts:
        raise ValueError("a mail needs a text")
    sender = sender_address(content)
    # "=_" occurs in no base64 text, so the boundary cannot occur in a part
    boundary = "=_" + hashlib.sha256(repr(content_items).encode()).hexdigest()[:32]
    body = _Body.of(parts, boundary)
    _prove(body, parts, boundary)
    return _Frozen(
        head=_shared_headers(content, sender, names),
        body=body,
        content=content,
        sender=sender,
        reply_to=ascii_address(content.get("reply_to") or sender),
    )


def _part(subtype: str, text: str, names: Sequence[str], shared: str | None) -> _Part:
    pieces = cut(LINE_END.sub("\r\n", CONTROLS.sub("", text)), names)
    if Counter(pieces[1::2]) != Counter(cut(text, names)[1::2]):
        raise ValueError("a control character stands inside a placeholder")
    if shared is not None:
        pieces = settle(pieces, {VIEW_URL: html.escape(shared) if subtype == "html" else shared})
    return _Part(subtype, pieces)


def _prove(body: _Body, parts: Sequence[_Part], boundary: str) -> None:
    """Raises ValueError unless the encoded template, decoded again, is every text with each of its placeholders."""
    written: list[bytes] = []
    body.write({step.name: step.name for step in body.steps}, written)
    sections = b"".join(written).split(f"--{boundary}".encode("ascii"))
    encoded = [section.partition(b"\r\n\r\n")[2] for section in sections]
    texts = [a2b_base64(text) for text in (encoded[1:-1] if len(parts) > 1 else encoded)]
    if texts != [part.template for part in parts]:
        raise ValueError("the encoded mail does not hold what its texts hold")


def _shared_headers(content: Mapping[str, str], sender: str, names: Sequence[str]) -> bytes:
    """From, Reply-To and Subject need RFC 2047: that is the stdlib's work."""
    subject = _one_line("Subject", content["subject"])
    if found := [name for name in names if name in subject]:
        raise ValueError(f"the subject must be the same for everybody, and holds {', '.join(found)}")
    headers = EmailMessage(policy=SMTP)
    headers["From"] = Address(display_name=_one_line("From", content.get("from_name", "")), addr_spec=sender)
    if content.get("reply_to"):
        headers["Reply-To"] = Address(addr_spec=ascii_address(content["reply_to"]))
    headers["Subject"] = subject
    headers["MIME-Version"] = "1.0"
    for name, value in ALWAYS:
        headers[name] = value
    return headers.as_bytes().removesuffix(b"\r\n")


def _personal_headers(parcel: Parcel, frozen: _Frozen, recipient: str) -> str:
    """To, Date, Message-ID: equal for every try of a delivery.

    Address and date keep apart the Message-IDs of test sends, which share one identity.
    """
    moment, identity = parcel.sent_date, str(parcel.identity)
    stamp, date = _dates(moment, moment.tzinfo, moment.fold)
    seed = f"{frozen.newsletter}\0{identity}\0{parcel.recipient.address}\0{stamp}"
    digest = hashlib.sha256(seed.encode()).hexdigest()[:24]
    message_id = f"<{identity}.{digest}@{frozen.domain}>"
    return f"To: {recipient}\r\nDate: {date}\r\nMessage-ID: {message_id}\r\n"


@lru_cache(maxsize=64)
def _dates(moment: datetime, _zone: tzinfo | None, _fold: int) -> tuple[str, str]:
    """`moment` in ISO and as a Date header. Zone and fold tell apart moments that are equal and written differently."""
    return str(moment), format_datetime(moment)


def _list_headers(url: str, frozen: _Frozen) -> str:
    """The headers of bulk mail; a mail that nobody can unsubscribe from (a test send, a notice) has none."""
    if not HEADER_URL.fullmatch(url):
        raise ValueError("the unsubscribe URL must be an ASCII http(s) URL without spaces, quotes or <>")
    return f"List-Unsubscribe: <{url}{frozen.list_headers}"


def _list_id(frozen: _Frozen) -> str:
    """`list.domain` (RFC 2919): the configured one, else the newsletter's name under the sending domain."""
    given = frozen.content.get("list_id") or f"{frozen.content['newsletter']}.{frozen.domain}"
    bare = given.strip().strip("<>")
    if not TOKEN.fullmatch(bare):
        raise ValueError(f"the list id must look like news.example.com, not {given!r}")
    return bare


def _feedback_id(frozen: _Frozen) -> str:
    """campaign:list:type:sender for Gmail's Postmaster Tools; the sender's name has 5 to 15 characters there."""
    sender = f"{frozen.domain.replace('.', '-')[:15]:-<5}"
    return f"{_token(frozen.content['slug'])}:{_token(frozen.content['newsletter'])}:newsletter:{sender}"


def _token(name: str) -> str:
    """`name`, or a short digest of one that is not plain ASCII (a Chinese slug)."""
    return name if TOKEN.fullmatch(name) else hashlib.sha256(name.encode()).hexdigest()[:12]


def _one_line(header: str, value: str) -> str:
    if CONTROLS.search(value) or LINE_END.search(value):
        raise ValueError(f"{header} must be one line without control characters, not {value!r}")
    return value


def _base64(data: bytes) -> bytes:
    """Lines of at most 76 characters, without the end of the last."""
    lines = (data[start : start + LINE_BYTES] for start in range(0, len(data), LINE_BYTES))
    return CRLF.join(b2a_base64(line, newline=False) for line in lines)
