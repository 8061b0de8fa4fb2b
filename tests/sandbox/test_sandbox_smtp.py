"""The SMTP catcher over real sockets: what it keeps, what it finds wrong, and each of its faults."""

import smtplib
import socket
import time
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP

import pytest

from distributor.sandbox.faults import Fault
from distributor.sandbox.limits import Limits
from distributor.sandbox.server import Sandbox

TO = "lin@example.org"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(None) as running:
        yield running


def _mail(to: str = TO) -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "早报 <news@example.org>", to, "今日三件事"
    mail["Date"], mail["Message-ID"] = "Tue, 24 Nov 2026 07:30:00 +0800", f"<1.{to}>"
    mail["List-Unsubscribe"] = "<https://example.org/u/1>"
    mail.set_content("第一件。\n.一行以点开头\n")
    mail.add_alternative("<p>第一件。</p>", subtype="html")
    return mail


def _raw(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


WELL = _raw(
    "From: a@example.org\nTo: lin@example.org\nSubject: x\nDate: Tue, 24 Nov 2026 07:30:00 +0800\n"
    "Message-ID: <1@example.org>\nContent-Type: text/plain; charset=utf-8\n\nbody\n"
)


def _send(sandbox: Sandbox, to: str = TO, raw: bytes | None = None) -> None:
    with smtplib.SMTP("127.0.0.1", sandbox.smtp_port, timeout=5) as client:
        client.sendmail("news@example.org", [to], raw or _mail(to).as_bytes(policy=SMTP))


def _refusal(sandbox: Sandbox, to: str = TO) -> tuple[int, bytes]:
    with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
        _send(sandbox, to)
    return caught.value.recipients[to]


def test_a_good_mail_is_kept_as_it_came_without_violations(sandbox: Sandbox) -> None:
    raw = _mail().as_bytes(policy=SMTP)
    _send(sandbox, raw=raw)
    entry = sandbox.inbox.entry(1)
    assert (entry.address, entry.content["subject"], entry.fingerprint) == (TO, "今日三件事", f"<1.{TO}>")
    assert list(entry.violations) == []
    assert sandbox.inbox.mail(1) == raw


@pytest.mark.parametrize(
    "body", [b"", b".\r\n", b"..\r\n.x\r\n", b"ends with a dot.\r\n", b"a.\r\n.\r\n.\r\nb\r\n"]
)
def test_dots_come_through_untouched(sandbox: Sandbox, body: bytes) -> None:
    _send(sandbox, raw=WELL + body)
    assert sandbox.inbox.mail(1) == WELL + body


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("From: a@example.org\n", "", "From is missing"),
        ("Message-ID: <1@example.org>\n", "", "Message-ID is missing"),
        ("Subject: x\n", "Subject: x\nSubject: y\n", "Subject stands 2 times"),
        ("Subject: x\n", "Subject: x\nList-Unsubscribe: =?utf-8?q?=3Chttps=3A//e.org=3E?=\n", "RFC 2047"),
        ("Subject: x\n", "Subject: x\nList-Unsubscribe: https://e.org\n", "not a list of <URI>s"),
        ("text/plain", "text/html", "no text/plain part"),
        ("body", "x" * 999, "a line of 999 octets"),
        ("body", "__UNSUBSCRIBE_URL__", "placeholder __UNSUBSCRIBE_URL__ was never filled"),
        ("text/plain; charset=utf-8", "multipart/mixed", "NoBoundaryInMultipartDefect"),
    ],
)
def test_violations_are_noted_not_refused(sandbox: Sandbox, old: str, new: str, finding: str) -> None:
    _send(sandbox, raw=WELL.replace(_raw(old), _raw(new)))
    assert any(finding in line for line in sandbox.inbox.entry(1).violations)


def test_a_bare_line_feed_is_noted(sandbox: Sandbox) -> None:
    with (
        socket.create_connection(("127.0.0.1", sandbox.smtp_port), 5) as wire,
        wire.makefile("rb") as replies,
    ):
        wire.sendall(b"HELO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<lin@example.org>\r\nDATA\r\n")
        for _ in range(5):
            replies.readline()
        wire.sendall(WELL.replace(b"body\r\n", b"one\n.\ntwo\r\n") + b".\r\n")
        assert replies.readline().startswith(b"250 ")
    assert list(sandbox.inbox.entry(1).violations) == ["a line does not end in CRLF"]
    assert b"one\n.\ntwo\r\n" in sandbox.inbox.mail(1)


def test_pipelined_commands_are_answered_in_order() -> None:
    with (
        Sandbox(None, pipelining=True, faults=[Fault("email", "gone@*", "refuse")]) as sandbox,
        smtplib.SMTP("127.0.0.1", sandbox.smtp_port, timeout=5) as client,
    ):
        client.ehlo()
        assert client.has_extn("pipelining")
        client.send("MAIL FROM:<a@example.org>\r\nRCPT TO:<gone@example.org>\r\nDATA\r\nRSET\r\n")
        assert [client.getreply()[0] for _ in range(4)] == [250, 550, 503, 250]


def test_too_large_a_message_is_refused_and_the_connection_goes_on() -> None:
    with (
        Sandbox(None, limits=Limits(mail_bytes=20_000)) as sandbox,
        smtplib.SMTP("127.0.0.1", sandbox.smtp_port, timeout=5) as client,
    ):
        client.helo()  # without SIZE the client cannot be told before it sends
        with pytest.raises(smtplib.SMTPDataError) as caught:
            client.sendmail("a@example.org", TO, WELL + b"x" * 300_000)
        assert caught.value.smtp_code == 552
        client.sendmail("a@example.org", TO, WELL)
        assert sandbox.inbox.count("email") == 1


@pytest.mark.parametrize("method", ["auth_plain", "auth_login"])
def test_login_wants_the_password_sandbox(sandbox: Sandbox, method: str) -> None:
    for password, expected in (("sandbox", 235), ("wrong", 535)):
        with smtplib.SMTP("127.0.0.1", sandbox.smtp_port, timeout=5) as client:
            client.ehlo()
            client.user, client.password = "anybody", password
            mechanism = method.removeprefix("auth_").upper()
            if expected == 235:
                assert client.auth(mechanism, getattr(client, method))[0] == 235
            else:
                with pytest.raises(smtplib.SMTPAuthenticationError):
                    client.auth(mechanism, getattr(client, method))


@pytest.mark.parametrize(
    ("kind", "reply"),
    [
        ("refuse", "550 5.1.1 "),
        ("refuse-bare", "550 Mailbox"),
        ("defer", "450 4.2.1 "),
        ("throttle", "550 Domain frequency limited"),
    ],
)
def test_faults_at_rcpt_once_for_each_address(sandbox: Sandbox, kind: str, reply: str) -> None:
    sandbox.faults.add(Fault("email", "*@example.org", kind, times=1))
    for to in (TO, "mei@example.org"):
        code, text = _refusal(sandbox, to)
        assert f"{code} {text.decode()}".startswith(reply)
        _send(sandbox, to)
    assert (sandbox.inbox.count("email"), sandbox.inbox.count("email", accepted=False)) == (2, 2)
    assert sandbox.inbox.entry(1).reason.startswith(reply)


def test_fault_spam_refuses_after_the_dot(sandbox: Sandbox) -> None:
    sandbox.faults.add(Fault("email", TO, "spam"))
    with pytest.raises(smtplib.SMTPDataError) as caught:
        _send(sandbox)
    assert (caught.value.smtp_code, caught.value.smtp_error[:6]) == (554, b"DT:SPM")
    assert sandbox.inbox.count("email") == 0


@pytest.mark.parametrize(("kind", "kept"), [("drop-before-dot", 0), ("drop-after-dot", 1)])
def test_faults_that_break_the_connection(sandbox: Sandbox, kind: str, kept: int) -> None:
    sandbox.faults.add(Fault("email", TO, kind, times=1))
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionError)):
        _send(sandbox)
    assert sandbox.inbox.count("email") == kept
    _send(sandbox)
    assert sandbox.inbox.count("email") == kept + 1


def test_fault_slow_keeps_first_and_answers_late(sandbox: Sandbox) -> None:
    sandbox.faults.add(Fault("email", TO, "slow", value=0.2))
    start = time.monotonic()
    _send(sandbox)
    assert time.monotonic() - start >= 0.2
    assert sandbox.inbox.entry(1).note == "slow"


def test_fault_login_is_for_the_user(sandbox: Sandbox) -> None:
    sandbox.faults.add(Fault("email", "news", "login"))
    with smtplib.SMTP("127.0.0.1", sandbox.smtp_port, timeout=5) as client:
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("news", "sandbox")
        assert client.login("other", "sandbox")[0] == 235


def test_fault_down_greets_with_421(sandbox: Sandbox) -> None:
    sandbox.faults.add(Fault("email", "127.0.0.1", "down", times=1))
    with pytest.raises(smtplib.SMTPConnectError) as caught:
        smtplib.SMTP("127.0.0.1", sandbox.smtp_port, timeout=5)
    assert caught.value.smtp_code == 421
    _send(sandbox)


def test_a_taken_port_is_an_os_error_and_leaves_nothing_open(sandbox: Sandbox) -> None:
    with pytest.raises(OSError, match="in use"):
        Sandbox(None, smtp_port=sandbox.smtp_port)
