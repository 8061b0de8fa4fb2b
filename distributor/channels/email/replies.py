"""What an SMTP refusal means: one table, read from the top; the first row that fits decides.

A reply's code alone misleads: QQ answers 550 to "too fast", and one busy morning would suppress every reader there.
So text counts before code, a mailbox is suppressed only when the reply says that it does not exist, and whatever
concerns our reputation never suppresses anybody. Sources: RFC 3463, RFC 5321 and the providers' own lists of texts.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from distributor.channels.redact import redact
from distributor.errors import Kind, Rejected, Scope, SendError, Unavailable

MINUTE = timedelta(minutes=1)

#: The mailbox does not exist: not to be used again.
gone = partial(Rejected, kind=Kind.MAILBOX, suppress=True)
#: This mailbox does not take this mail; another day it may.
closed = partial(Rejected, kind=Kind.MAILBOX)
#: Reputation, authentication or a content filter: ours to mend, with everybody behind that domain concerned.
policy = partial(Rejected, kind=Kind.POLICY, scope=Scope.DOMAIN)
#: This very message is malformed or too large.
malformed = partial(Rejected, kind=Kind.CONTENT)
#: Our relay or our settings: nothing goes to anybody until a person has mended them.
misconfigured = partial(Unavailable, kind=Kind.CONFIG, scope=Scope.CHANNEL, counts=False)
#: Too fast for the recipient's provider.
throttled = partial(Unavailable, kind=Kind.THROTTLE, scope=Scope.DOMAIN, counts=False)
#: Too fast for the relay itself, or it is going down.
relay_busy = partial(Unavailable, kind=Kind.THROTTLE, scope=Scope.CHANNEL, counts=False)
#: Try this one again later; a try is used up.
later = partial(Unavailable, kind=Kind.SERVER)
mailbox_later = partial(Unavailable, kind=Kind.MAILBOX)

QQ = ("qq.com", "foxmail.com")
NETEASE = ("163.com", "126.com", "yeah.net", "188.com")


@dataclass(frozen=True)
class Row:
    """`code` and `text` are regular expressions: the reply code in full, and anywhere in the text (any case).

    `domains` narrows a row to recipients of a provider whose words mean something else elsewhere.
    """

    code: str
    text: str
    answer: Callable[..., SendError]
    meaning: str
    domains: Sequence[str] = ()

    def fits(self, code: int, text: str, domain: str) -> bool:
        return (
            re.fullmatch(self.code, str(code)) is not None
            and (not self.domains or _is_within(domain, self.domains))
            and re.search(self.text, text, re.IGNORECASE) is not None
        )


REPLIES: Sequence[Row] = (
    # Too fast. These come first: some wear a permanent code.
    Row("[45]..", r"\b[45]\.4\.5\b|\b(daily|hourly)\b.{0,40}\b(limit|quota)", partial(relay_busy, retry_after=60 * MINUTE), "the relay's quota for the day or hour is used up"),
    Row("[45]..", r"\b(ip|connection) frequency limited", partial(throttled, retry_after=10 * MINUTE), "QQ: too many connections from our address"),
    Row("[45]..", r"frequency (is )?limited", partial(throttled, retry_after=30 * MINUTE), "QQ: too much mail from our domain or sender"),
    Row("[45]..", r"\bHL:(ICC|IFC)\b", partial(throttled, retry_after=10 * MINUTE), "NetEase: too many connections or mails"),
    Row("[45]..", r"\b(MI:DMC|RP:DRC|MI:CEL|RP:CEL)\b", partial(throttled, retry_after=5 * MINUTE), "NetEase: too many mails or recipients on one connection"),
    Row("[45]..", r"\bMI:SFQ\b", partial(throttled, retry_after=15 * MINUTE), "NetEase: the sender's quota for 15 minutes is used up"),
    Row("4..", r"\bHL:REP\b", partial(throttled, retry_after=60 * MINUTE), "NetEase: too many unknown addresses from us; clean the list"),
    Row("4..", r"\bDT:SPM\b", partial(later, kind=Kind.POLICY, retry_after=2 * MINUTE), "NetEase: looks like spam; it asks for two minutes"),
    Row("4..", r"too many (concurrent|simultaneous)|concurrent connections|too many connections", partial(relay_busy, retry_after=MINUTE), "too many connections: lower engine.lanes or engine.connections"),
    Row("4..", r"\b4\.7\.(28|650)\b|\bTSS\d\d\b|unusual rate|unexpected volume|rate limited|too (many|much) (e?mails?|messages)|sending rate", partial(throttled, retry_after=10 * MINUTE), "the provider slows us down"),
    Row("4..", r"gr[ae]y-?list", partial(later, kind=Kind.THROTTLE, retry_after=5 * MINUTE), "greylisted: a second try is expected"),
    # Our relay and our settings. Before the mailbox: "sender address … domain not found" is not about the reader.
    Row("530|535|538", r"", misconfigured, "the relay wants a login: check email.smtp and DISTRIBUTOR_SMTP_PASSWORD"),
    Row("[45]..", r"relay(ing)? (access )?(denied|not permitted|prohibited)|unable to relay|not permitted to relay|authentication (is )?required", misconfigured, "the relay does not send for us: check email.smtp"),
    Row("5..", r"sender (address )?(rejected|not (verified|allowed|owned))|not owned by user|mail from (address )?must|\b5\.1\.[78]\b", misconfigured, "the relay does not accept our sender address: check [sender] of the newsletter"),
    # By enhanced code (RFC 3463): it says more than the words around it.
    Row("4..", r"\b4\.2\.2\b", partial(mailbox_later, retry_after=60 * MINUTE), "the mailbox is full"),
    Row("5..", r"\b5\.2\.2\b", closed, "the mailbox is full"),
    Row("5..", r"\b5\.1\.(1|10)\b", gone, "no such mailbox"),
    Row("5..", r"\b5\.1\.2\b", closed, "the recipient's domain takes no mail"),
    Row("5..", r"\b5\.2\.1\b", closed, "the mailbox is disabled"),
    Row("5..", r"\b5\.(2\.3|3\.4)\b", malformed, "the message is too large"),
    Row("5..", r"\b5\.6\.\d", malformed, "the message is malformed"),
    Row("5..", r"\b5\.7\.\d", policy, "refused for policy: check SPF, DKIM, DMARC and the content"),
    # By the words alone.
    Row("5..", r"\b(spf|dkim|dmarc)\b", policy, "refused for policy: check SPF, DKIM and DMARC"),
    Row("5..", r"\b(DT|HL|MI|RP):[A-Z]{2,4}\b", policy, "NetEase: taken for spam, or our address or domain is not trusted"),
    Row("4..", r"(over|exceed\w*) (its |the )?(storage )?quota|(mailbox|quota)( is)? (full|exceeded)", partial(mailbox_later, retry_after=60 * MINUTE), "the mailbox is full"),
    Row("5..", r"(over|exceed\w*) (its |the )?(storage )?quota|(mailbox|quota)( is)? (full|exceeded)", closed, "the mailbox is full"),
    Row("550", r"mailbox unavailable or access denied", partial(mailbox_later, retry_after=30 * MINUTE), "QQ: the reader got too much in a short time, or does not exist"),
    Row("550", r"^(mailbox|requested).{0,30}unavailable", partial(mailbox_later, retry_after=30 * MINUTE), "QQ: the reader got too much in a short time, or does not exist", domains=QQ),
    Row("5..", r"\b(user|recipient|account|mailbox|address)\b[^.]{0,60}\b(unknown|not found|(does not|doesn't|not) exist)|\b(unknown|no such|invalid) (user|recipient|mailbox|account)\b|doesn't have an? \S+ account", gone, "no such mailbox"),
    Row("5..", r"(user|account|mailbox)( is| has been)? (disabled|suspended|inactive|locked)", closed, "the mailbox is disabled"),
    Row("5..", r"rejected by (the )?recipient", closed, "the reader has blocked the sender"),
    Row("5..", r"domain (name )?not found|host unknown", closed, "the recipient's domain takes no mail"),
    Row("5..", r"(message|mail) ?(size|too (big|large))|exceed\w* .{0,30}size|maximum (message )?size", malformed, "the message is too large"),
    Row("5..", r"malformed|(invalid|missing|duplicate) (header|date|from|message-id)|bare (lf|cr)|not rfc ?5?[28]22 compliant", malformed, "the message is malformed"),
    Row("5..", r"(content|mail|message) .{0,20}(denied|rejected|blocked)|spam|blacklist|block(ed)? ?list|reputation|suspected bounce", policy, "refused for policy: check the content and our reputation"),
    Row("554", r"", policy, "NetEase: refused, most often taken for spam", domains=NETEASE),
    # By code alone.
    Row("421", r"", partial(relay_busy, kind=Kind.SERVER, retry_after=MINUTE), "the server is closing the connection"),
    Row("45[02]", r"\b4\.3\.1\b|system storage|out of (memory|disk)", partial(relay_busy, kind=Kind.SERVER, retry_after=5 * MINUTE), "the server is out of space"),
    Row("450", r"", mailbox_later, "the mailbox is not available now"),
    Row("452", r"", partial(mailbox_later, retry_after=30 * MINUTE), "no space, or too many recipients, now"),
    Row("4..", r"", later, "a temporary refusal"),
    Row("552", r"", malformed, "the message is too large"),
    Row("55[0135]", r"", closed, "the mailbox refuses, for no stated reason"),
    Row("554", r"", partial(policy, scope=Scope.RECIPIENT), "refused, for no stated reason"),
    Row("50[0-4]", r"", malformed, "the server does not understand us"),
    Row("5..", r"", closed, "a permanent refusal"),
)  # fmt: skip

#: A server that breaks the protocol before it has the message.
NONSENSE = Row("...?", r"", later, "the server's answer makes no sense")


def classify(code: int, text: str, domain: str) -> SendError:
    """The error that a refusal stands for. `text` as smtplib gives it, decoded; `domain` is the recipient's."""
    words = redact(text)
    row = next((row for row in REPLIES if row.fits(code, words, domain)), NONSENSE)
    return row.answer(code=str(code), text=f"{words} [{row.meaning}]".strip())


def _is_within(domain: str, parents: Sequence[str]) -> bool:
    """Whether `domain` is one of `parents`, or below one (vip.qq.com)."""
    return any(domain.lower() == parent or domain.lower().endswith(f".{parent}") for parent in parents)
