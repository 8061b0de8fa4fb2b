"""A parcel → the bytes of an RFC 5322 message: multipart/alternative, base64, CRLF.

What all recipients share is built once and kept (the stdlib needs about a millisecond for it), base64 included; each
recipient costs a join and the base64 of a few values. The headers that differ by recipient, and those of mailing lists, are written by hand from
checked ASCII: the stdlib turns any List-Unsubscribe longer than 77 characters into an encoded-word, and Gmail then
shows no one-click button.
"""

import binascii
import hashlib
import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from functools import cached_property, lru_cache
from urllib.parse import quote

from email_validator import validate_email

from distributor.channels.placeholders import cut, require_values
from distributor.model import Parcel

UNSUBSCRIBE_URL = "__UNSUBSCRIBE_URL__"

#: Gmail clips a message that holds C1 controls; none of these has a meaning in mail.
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
LINE_END = re.compile(r"\r\n|\r|\n")
ADDRESS = re.compile(r"[^\s<>()\[\]\\,;:\"@\x00-\x1f\x7f]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
HEADER_URL = re.compile(r"https?://[!#-;=?-~]+")
TOKEN = re.compile(r"[A-Za-z0-9._-]+")
#: Subtype → where its text stands in the frozen message; a reader's program shows the last it can.
PARTS = (("plain", "text"), ("html", "html"))
BASE64_LINE = 76  # RFC 2045 §6.8

#: Every mail is written by a machine: holiday notices must not answer it.
ALWAYS = (("Auto-Submitted", "auto-generated"), ("X-Auto-Response-Suppress", "All"))


def compose(parcel: Parcel) -> bytes:
    """The message as it goes over the wire, without dot-stuffing. The same parcel gives the same bytes.

    Raises:
        ValueError: a placeholder without a value, or a value that must not stand in a header.
    """
    require_values(parcel.message.placeholders, parcel.values)
    names = tuple(sorted({*parcel.message.placeholders, *parcel.values}))
    frozen = _freeze(tuple(parcel.message.content.items()), names)
    headers = (*_personal_headers(parcel, frozen), *_list_headers(parcel, frozen))
    personal = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return b"".join((frozen.head, personal.encode("ascii"), frozen.body(parcel.values)))


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


@dataclass(frozen=True)
class _Stretch:
    """A text between two placeholders, encoded beforehand for each way the value before it may end.

    Base64 turns three bytes into four characters. `by_skip[n]` leaves the first n bytes to the value before; it holds
    the lines of the whole triples after them, and the bytes left over for what follows.
    """

    text: bytes
    by_skip: Sequence[tuple[bytes, bytes]]

    @classmethod
    def of(cls, text: str) -> "_Stretch":
        data = text.encode("utf-8")
        ends = [skip + (len(data) - skip) // 3 * 3 for skip in range(3)]
        return cls(data, tuple((_base64(data[skip:end]), data[end:]) for skip, end in enumerate(ends)))


@dataclass(frozen=True)
class _Part:
    """A text of the mail: a stretch, then pairs of a placeholder's name and the stretch behind it."""

    subtype: str
    first: _Stretch
    rest: Sequence[tuple[str, _Stretch]]
    escape: Callable[[str], str]

    @classmethod
    def read(cls, subtype: str, text: str, names: Sequence[str]) -> "_Part":
        pieces = cut(LINE_END.sub("\r\n", CONTROLS.sub("", text)), names)
        rest = zip(pieces[1::2], map(_Stretch.of, pieces[2::2]), strict=True)
        escape = html.escape if subtype == "html" else str
        return cls(subtype, _Stretch.of(pieces[0]), tuple(rest), escape)

    def write(self, values: Mapping[str, str]) -> bytes:
        lines, over = self.first.by_skip[0]
        written = [self.head, lines]
        for name, stretch in self.rest:
            over += self.escape(values[name]).encode("utf-8")
            skip = -len(over) % 3
            if skip > len(stretch.text):
                over += stretch.text
                continue
            lines, left = stretch.by_skip[skip]
            written += (_base64(over + stretch.text[:skip]), lines)
            over = left
        return b"".join((*written, _base64(over)))

    @cached_property
    def head(self) -> bytes:
        # quoted-printable costs Chinese text ×3.03, base64 ×1.35
        kind = f'Content-Type: text/{self.subtype}; charset="utf-8"\r\n'
        return f"{kind}Content-Transfer-Encoding: base64\r\n\r\n".encode("ascii")


@dataclass(frozen=True)
class _Frozen:
    """What all recipients of a message share."""

    head: bytes
    parts: Sequence[_Part]
    boundary: str
    content: Mapping[str, str]
    sender: str
    reply_to: str

    @property
    def domain(self) -> str:
        return self.sender.rpartition("@")[2]

    @cached_property
    def unsubscribe_mailto(self) -> str:
        return f"mailto:{quote(self.reply_to, safe='@+')}?subject=unsubscribe"

    @cached_property
    def bulk_headers(self) -> Sequence[tuple[str, str]]:
        return (
            ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),  # RFC 8058
            ("List-Id", f"<{_list_id(self)}>"),
            ("Precedence", "bulk"),
            ("Feedback-ID", _feedback_id(self)),
        )

    def body(self, values: Mapping[str, str]) -> bytes:
        if len(self.parts) == 1:
            return self.parts[0].write(values)
        line = b"--" + self.boundary.encode("ascii")
        head = f'Content-Type: multipart/alternative; boundary="{self.boundary}"\r\n\r\n'.encode("ascii")
        parts = (line + b"\r\n" + part.write(values) for part in self.parts)
        return b"".join((head, *parts, line, b"--\r\n"))


@lru_cache(maxsize=32)  # the messages of a few issues under way; a str keeps its hash, so a hit is cheap
def _freeze(content_items: tuple[tuple[str, str], ...], names: tuple[str, ...]) -> _Frozen:
    content = dict(content_items)
    texts = [(kind, text) for kind, key in PARTS if (text := content.get(key))]
    if not texts:
        raise ValueError("a mail needs a text")
    sender = sender_address(content)
    return _Frozen(
        head=_shared_headers(content, sender, names),
        parts=tuple(_Part.read(subtype, text, names) for subtype, text in texts),
        # "=_" occurs in no base64 text, so the boundary cannot occur in a part
        boundary="=_" + hashlib.sha256(repr(content_items).encode()).hexdigest()[:32],
        content=content,
        sender=sender,
        reply_to=ascii_address(content.get("reply_to") or sender),
    )


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


def _personal_headers(parcel: Parcel, frozen: _Frozen) -> Sequence[tuple[str, str]]:
    return (
        ("To", ascii_address(parcel.recipient.address)),
        ("Date", format_datetime(parcel.sent_date)),
        ("Message-ID", _message_id(parcel, frozen)),
    )


def _message_id(parcel: Parcel, frozen: _Frozen) -> str:
    """Equal for every try of a delivery; address and date keep apart the test sends, which share one identity."""
    newsletter = frozen.content.get("newsletter", "")
    seed = "\0".join((newsletter, str(parcel.identity), parcel.recipient.address, str(parcel.sent_date)))
    return f"<{parcel.identity}.{hashlib.sha256(seed.encode()).hexdigest()[:24]}@{frozen.domain}>"


def _list_headers(parcel: Parcel, frozen: _Frozen) -> Sequence[tuple[str, str]]:
    """The headers of bulk mail; none for a mail that nobody can unsubscribe from (a test send, a notice)."""
    url = parcel.values.get(UNSUBSCRIBE_URL)
    if not url:
        return ()
    if not HEADER_URL.fullmatch(url):
        raise ValueError("the unsubscribe URL must be an ASCII http(s) URL without spaces, quotes or <>")
    # folded at the comma, never inside a URI
    return (("List-Unsubscribe", f"<{url}>,\r\n <{frozen.unsubscribe_mailto}>"), *frozen.bulk_headers)


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
    """Lines of at most 76 characters; nothing for nothing."""
    step = BASE64_LINE // 4 * 3
    chunks = (data[start : start + step] for start in range(0, len(data), step))
    return b"".join(binascii.b2a_base64(chunk, newline=False) + b"\r\n" for chunk in chunks)
