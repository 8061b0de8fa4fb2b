"""What SMTP refusals mean: providers' real words, and the table itself."""

from dataclasses import dataclass
from datetime import timedelta
from itertools import product

import pytest

from distributor.channels.email.replies import REPLIES, Row, classify
from distributor.errors import Kind, Rejected, Scope, SendError, Unavailable


@dataclass(frozen=True)
class Sample:
    reply: str
    error: type[SendError]
    kind: Kind
    scope: Scope = Scope.RECIPIENT
    suppress: bool = False
    counts: bool = True
    domain: str = "example.net"

    def classify(self) -> SendError:
        code, _, text = self.reply.partition(" ")
        return classify(int(code), text, self.domain)


def gone(reply: str, domain: str = "example.net") -> Sample:
    return Sample(reply, Rejected, Kind.MAILBOX, suppress=True, domain=domain)


def closed(reply: str) -> Sample:
    return Sample(reply, Rejected, Kind.MAILBOX)


def policy(reply: str, domain: str = "example.net") -> Sample:
    return Sample(reply, Rejected, Kind.POLICY, Scope.DOMAIN, domain=domain)


def content(reply: str) -> Sample:
    return Sample(reply, Rejected, Kind.CONTENT)


def throttled(reply: str, domain: str = "example.net") -> Sample:
    return Sample(reply, Unavailable, Kind.THROTTLE, Scope.DOMAIN, counts=False, domain=domain)


def busy(reply: str, kind: Kind = Kind.THROTTLE) -> Sample:
    return Sample(reply, Unavailable, kind, Scope.CHANNEL, counts=False)


def config(reply: str) -> Sample:
    return Sample(reply, Unavailable, Kind.CONFIG, Scope.CHANNEL, counts=False)


def later(reply: str, kind: Kind, domain: str = "example.net") -> Sample:
    return Sample(reply, Unavailable, kind, domain=domain)


QQ_HELP = "http://service.mail.qq.com/cgi-bin/help?subtype=1&&id=20022&&no=1000726"

SAMPLES = [
    # QQ
    throttled(f"550 Domain frequency limited. {QQ_HELP}", "qq.com"),
    throttled(f"550 Sender frequency limited. {QQ_HELP}", "qq.com"),
    throttled(f"550 Ip frequency limited. {QQ_HELP}", "qq.com"),
    throttled(f"550 Connection frequency limited. {QQ_HELP}", "foxmail.com"),
    later(f"550 Mailbox unavailable or access denied. {QQ_HELP}", Kind.MAILBOX, "qq.com"),
    later("550 Mailbox unavailable or access denied", Kind.MAILBOX, "company.example"),
    later("550 Mailbox unavailable", Kind.MAILBOX, "vip.qq.com"),
    gone(f"550 Mailbox not found. {QQ_HELP}", "qq.com"),
    policy(f"550 Mail content denied. {QQ_HELP}", "qq.com"),
    policy("550 SPF check failed", "qq.com"),
    policy("550 Suspected bounce attacks", "qq.com"),
    closed("550 Mail is rejected by recipients"),
    # NetEase
    throttled("421 HL:ICC 163 smtp5,D9GowACXlZRr+51c.1", "163.com"),
    throttled("421 HL:IFC 163 smtp9,DdGowAAn8v+p9", "163.com"),
    throttled("421 HL:REP 163 smtp1,xyz", "163.com"),
    throttled("450 MI:DMC 163 smtp2,xyz", "126.com"),
    throttled("450 RP:DRC 163 smtp2,xyz", "163.com"),
    throttled("451 MI:SFQ 163 smtp2,xyz", "163.com"),
    later("451 DT:SPM 163 smtp3,xyz", Kind.POLICY, "163.com"),
    policy("554 DT:SPM 163 smtp3,xyz", "163.com"),
    policy("554 HL:IPB 163 smtp3,xyz", "163.com"),
    policy("554 IP<192.0.2.1> refused", "yeah.net"),
    gone("550 User not found: nobody@163.com", "163.com"),
    content("552 Requested mail action aborted: exceeded mailsize limit"),
    # Gmail
    gone("550 5.1.1 The email account that you tried to reach does not exist. Please try double-checking"),
    closed("550 5.2.1 The email account that you tried to reach is inactive."),
    later("452 4.2.2 The recipient's inbox is out of storage space.", Kind.MAILBOX),
    closed("552 5.2.2 The recipient's inbox is out of storage space and inactive."),
    throttled("421 4.7.28 Gmail has detected an unusual rate of unsolicited mail"),
    policy("550 5.7.26 Your email has been blocked because the sender is unauthenticated."),
    content("552 5.3.4 Your message exceeded Google's message size limits."),
    busy("550 5.4.5 Daily user sending limit exceeded."),
    # Microsoft
    policy("550 5.7.515 Access denied, sending domain does not meet the required authentication level."),
    policy(
        "550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. part of their network is on our block list (S3150)."
    ),
    throttled(
        "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation."
    ),
    gone("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup"),
    busy("432 4.3.2 Concurrent connections limit exceeded."),
    closed("550 5.5.0 Requested action not taken: mailbox unavailable"),
    # Yahoo
    gone("554 delivery error: dd This user doesn't have a yahoo.com account (nobody@yahoo.com)"),
    throttled("421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume"),
    # Postfix, Exim and other relays
    gone("550 5.1.1 <nobody@example.net>: Recipient address rejected: User unknown in local recipient table"),
    gone("550 No such user here"),
    gone("550 Invalid recipient"),
    gone("553 Unknown user"),
    closed("550 5.1.2 Bad destination system address"),
    closed("550 Account disabled"),
    closed("550 Host unknown"),
    later("450 4.2.0 <reader@example.net>: Recipient address rejected: Greylisted", Kind.THROTTLE),
    later("451 4.7.1 Greylisting in action, please come back later", Kind.THROTTLE),
    later("452 4.2.2 Mailbox full", Kind.MAILBOX),
    later("450 Mailbox is full", Kind.MAILBOX),
    closed("550 Mailbox quota exceeded"),
    config("554 5.7.1 <reader@example.net>: Relay access denied"),
    config("454 4.7.1 <reader@example.net>: Relay access denied"),
    config("530 5.7.0 Must issue a STARTTLS command first"),
    config("553 5.1.8 <daily@example.invalid>: Sender address rejected: Domain not found"),
    config("553 Mail from must equal authorized user"),
    busy("452 4.3.1 Insufficient system storage", Kind.SERVER),
    busy("421 4.3.2 Service shutting down", Kind.SERVER),
    busy("421 4.7.0 Error: too many connections from 192.0.2.1"),
    content("554 5.6.0 Message contains bare LF"),
    content("550 Duplicate header: From"),
    content("550 Message too large"),
    policy("550 Message rejected as spam"),
    # By code alone
    closed("550"),
    closed("550 Requested action not taken"),
    closed("571 Delivery refused"),
    content("552"),
    content("503 Bad sequence of commands"),
    Sample("554 Transaction failed", Rejected, Kind.POLICY),
    busy("421", Kind.SERVER),
    later("450", Kind.MAILBOX),
    later("452", Kind.MAILBOX),
    later("451 Local error in processing", Kind.SERVER),
    later("250 to DATA", Kind.SERVER),
    later("-1", Kind.SERVER),
]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.reply[:60])
def test_sample(sample: Sample) -> None:
    error = sample.classify()
    assert (type(error), error.kind, error.scope) == (sample.error, sample.kind, sample.scope), error.text
    assert getattr(error, "suppress", False) is sample.suppress
    assert getattr(error, "counts", True) is sample.counts
    assert error.code == sample.reply.split(" ", 1)[0]


def deciding_row(sample: Sample) -> Row | None:
    code, _, text = sample.reply.partition(" ")
    return next((row for row in REPLIES if row.fits(int(code), text, sample.domain)), None)


@pytest.mark.parametrize("row", REPLIES, ids=lambda row: f"{row.code} {row.text}"[:50])
def test_every_row_decides_some_sample(row: Row) -> None:
    assert row in [deciding_row(sample) for sample in SAMPLES]


@pytest.mark.parametrize("row", REPLIES, ids=lambda row: f"{row.code} {row.text}"[:50])
def test_row_keeps_the_rules_of_the_house(row: Row) -> None:
    error = row.answer(text="")
    assert isinstance(error, Rejected | Unavailable)
    if isinstance(error, Rejected):
        assert not error.suppress or error.kind is Kind.MAILBOX, "reputation never suppresses anybody"
    if isinstance(error, Unavailable) and error.kind is Kind.THROTTLE:
        assert error.retry_after, "a throttle says how long"
    assert row.meaning


@pytest.mark.parametrize("code", [*range(400, 460), *range(500, 560)])
def test_every_code_is_temporary_or_permanent_as_its_first_digit_says(code: int) -> None:
    error = classify(code, "words of no known provider", "example.net")
    temporary = code < 500 or code in {530, 535, 538}  # a login that we can mend loses nobody
    assert isinstance(error, Unavailable if temporary else Rejected)


def test_our_own_fault_never_suppresses() -> None:
    words = (
        "frequency limited",
        "5.7.1 blocked",
        "DT:SPM",
        "spam",
        "SPF fail",
        "relay denied",
        "content denied",
    )
    for code, text in product((550, 553, 554), words):
        assert not getattr(classify(code, text, "qq.com"), "suppress", False), (code, text)


def test_text_is_one_short_line_with_the_meaning() -> None:
    error = classify(550, "5.1.1 The account\n5.1.1 does not exist" + "x" * 999, "gmail.com")
    assert "\n" not in error.text
    assert len(error.text) < 400
    assert error.text.endswith("[no such mailbox]")


def test_wait_of_the_provider() -> None:
    error = classify(550, "Domain frequency limited", "qq.com")
    assert isinstance(error, Unavailable)
    assert error.retry_after == timedelta(minutes=30)
