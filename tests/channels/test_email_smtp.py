"""The SMTP transport against a server that does every bad thing at every stage."""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from email import message_from_bytes
from email.policy import default
from itertools import count
from pathlib import Path
from typing import Literal

import pytest
from parcels import SENT_DATE, UNSUBSCRIBE, mail, notice
from pydantic import SecretStr
from scripted_smtp import HANG_UP, SILENCE, Mail, Say, ScriptedSmtp
from services import free_port

from distributor.channels import Channel
from distributor.channels.email import EmailChannel
from distributor.channels.email.mime import compose
from distributor.channels.email.smtp import SmtpTransport, _Wire
from distributor.errors import Kind, Rejected, Scope, SendError, Unavailable, Unconfirmed
from distributor.model import Parcel, Post, Receipt
from distributor.settings import EmailSettings, Newsletter, Sender, Settings, Smtp

CERTS = Path(__file__).parent / "certs"
PASSWORD = "opensesame-4711"
PLAIN: tuple[str, ...] = ("SIZE 1000000",)
PIPELINED: tuple[str, ...] = ("PIPELINING", "SIZE 1000000")

Security = Literal["none", "starttls", "tls"]


def settings(
    port: int, *, security: Security = "none", username: str = "", host: str = "127.0.0.1", seconds: float = 5
) -> Smtp:
    return Smtp(
        host=host,
        port=port,
        security=security,
        username=username,
        password=SecretStr(PASSWORD if username else ""),
        timeout=timedelta(seconds=seconds),
        helo="tests.example",
    )


@contextmanager
def transport(server: ScriptedSmtp, *, seconds: float = 5) -> Iterator[SmtpTransport]:
    with server, SmtpTransport(settings(server.port, seconds=seconds)) as opened:
        yield opened


def failure(server: ScriptedSmtp, parcel: Parcel | None = None, *, seconds: float = 5) -> SendError:
    """The error of one send, after which a healthy send must succeed on the same transport."""
    with transport(server, seconds=seconds) as opened:
        with pytest.raises(SendError) as caught:
            opened.send(parcel or mail())
        opened.send(notice("后一封\n"))
    return caught.value


@pytest.fixture(params=[PLAIN, PIPELINED], ids=["plain", "pipelined"])
def extensions(request: pytest.FixtureRequest) -> tuple[str, ...]:
    chosen: tuple[str, ...] = request.param
    return chosen


def test_sends_exactly_the_composed_bytes(extensions: tuple[str, ...]) -> None:
    server = ScriptedSmtp(extensions=extensions)
    with transport(server) as opened:
        receipt = opened.send(mail())
    assert receipt == Receipt(provider_id="4F7Qx81zLp", code="250", text="2.0.0 Ok: queued as 4F7Qx81zLp")
    size = len(compose(mail()))
    assert server.mails == [
        Mail(f"FROM:<daily@news.example.com> SIZE={size}", "TO:<reader@example.net>", compose(mail()))
    ]
    assert server.commands[0] == "ehlo tests.example"
    assert server.commands[-1].lower() == "quit"


def test_one_connection_for_many_messages(extensions: tuple[str, ...]) -> None:
    server = ScriptedSmtp(extensions=extensions)
    with transport(server) as opened:
        for number in range(20):
            opened.send(mail(address=f"reader{number}@example.net"))
    assert server.connections == 1
    assert [sent.recipient for sent in server.mails] == [f"TO:<reader{n}@example.net>" for n in range(20)]
    assert not server.said("RSET")


def test_size_is_not_announced_to_a_server_that_does_not_know_it() -> None:
    server = ScriptedSmtp(extensions=())
    with transport(server) as opened:
        opened.send(mail())
    assert server.mails[0].sender == "FROM:<daily@news.example.com>"


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "dot"])
@pytest.mark.parametrize(
    ("reply", "error", "kind"),
    [
        ("451 4.3.0 not now", Unavailable, Kind.SERVER),
        ("550 5.1.1 user unknown", Rejected, Kind.MAILBOX),
        ("554 5.7.1 spam", Rejected, Kind.POLICY),
    ],
)
def test_refusal_at_every_stage_keeps_the_connection(
    stage: str, reply: str, error: type[SendError], kind: Kind, extensions: tuple[str, ...]
) -> None:
    server = ScriptedSmtp({stage: [Say(reply)]}, extensions=extensions)
    caught = failure(server)
    assert (type(caught), caught.kind, caught.code) == (error, kind, reply[:3])
    assert server.connections == 1
    assert len(server.said("RSET")) == 1
    assert len(server.mails) == 1, "the next message alone"


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "dot"])
def test_421_gives_up_the_connection(stage: str, extensions: tuple[str, ...]) -> None:
    server = ScriptedSmtp({stage: [Say("421 4.3.2 going down", hang_up=True)]}, extensions=extensions)
    caught = failure(server)
    assert isinstance(caught, Unavailable)
    assert (caught.code, caught.scope, caught.counts) == ("421", Scope.CHANNEL, False)
    assert server.connections == 2


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "body"])
def test_hang_up_before_the_final_dot_is_certain(stage: str, extensions: tuple[str, ...]) -> None:
    server = ScriptedSmtp({stage: [HANG_UP]}, extensions=extensions)
    # larger than what the kernel buffers, so that a hang-up in the body is seen while it is written
    caught = failure(server, mail(text="长文" * 3_000_000))
    assert (type(caught), caught.kind, caught.scope) == (Unavailable, Kind.NETWORK, Scope.RECIPIENT)
    assert server.connections == 2
    assert len(server.mails) == 1


def test_silence_before_the_final_dot_is_certain(extensions: tuple[str, ...]) -> None:
    caught = failure(ScriptedSmtp({"rcpt": [SILENCE]}, extensions=extensions), seconds=0.3)
    assert (type(caught), caught.kind) == (Unavailable, Kind.NETWORK)


@pytest.mark.parametrize(
    "say",
    [HANG_UP, Say("250", hang_up=True), SILENCE, Say("gibberish"), Say("354 more?"), Say("999 ?")],
    ids=lambda say: say.text or ("silence" if say.silent else "hang-up"),
)
def test_only_a_reply_tells_after_the_final_dot(say: Say, extensions: tuple[str, ...]) -> None:
    server = ScriptedSmtp({"dot": [say]}, extensions=extensions)
    if say.text == "250":  # the shortest yes
        with transport(server) as opened:
            assert opened.send(mail()) == Receipt(code="250")
        return
    caught = failure(server, seconds=0.3)
    assert type(caught) is Unconfirmed
    assert server.connections == 2, "a connection out of step must not be used again"


def test_the_wait_for_a_reply_begins_with_the_final_dot(extensions: tuple[str, ...]) -> None:
    with transport(ScriptedSmtp({"dot": [SILENCE]}, extensions=extensions), seconds=0.3) as opened:
        opened.start(mail())
        assert 0.2 < opened.patience() <= 0.3
        time.sleep(0.3)
        assert opened.patience() == 0
        began = time.monotonic()
        with pytest.raises(Unconfirmed, match="timed out"):
            opened.finish()
        assert time.monotonic() - began < 0.1
        assert opened.send(notice("后一封\n")).code == "250"


def test_a_reply_that_came_while_nobody_looked_counts(extensions: tuple[str, ...]) -> None:
    with transport(ScriptedSmtp(extensions=extensions), seconds=0.3) as opened:
        opened.start(mail())
        time.sleep(0.4)
        assert opened.finish().code == "250"


def test_refusal_then_hang_up_still_says_why(extensions: tuple[str, ...]) -> None:
    server = ScriptedSmtp({"rcpt": [Say("550 5.1.1 user unknown", hang_up=True)]}, extensions=extensions)
    caught = failure(server)
    assert isinstance(caught, Rejected)
    assert caught.suppress
    assert server.connections == 2


def test_pipelined_data_behind_a_refused_recipient_gets_a_lone_dot() -> None:
    script = {
        "rcpt": [Say("550 5.1.1 user unknown")],
        "data": [Say("354 go ahead")],
        "dot": [Say("554 5.5.1 no valid recipients")],
    }
    server = ScriptedSmtp(script, extensions=PIPELINED)
    caught = failure(server)
    assert isinstance(caught, Rejected)
    assert [sent.data for sent in server.mails] == [compose(notice("后一封\n"))]


def test_data_answered_with_250_never_gets_the_body(extensions: tuple[str, ...]) -> None:
    server = ScriptedSmtp({"data": [Say("250 what?")]}, extensions=extensions)
    caught = failure(server)
    assert type(caught) is Unavailable
    assert server.connections == 2
    assert {command.split()[0].lower() for command in server.commands} <= {
        "ehlo",
        "mail",
        "rcpt",
        "data",
        "quit",
    }


@pytest.mark.parametrize("worn_out", [Say("421 4.7.0 too many messages", hang_up=True), HANG_UP])
def test_connection_that_has_carried_enough_is_replaced(worn_out: Say, extensions: tuple[str, ...]) -> None:
    server = ScriptedSmtp({"mail": [Say("250 Ok"), worn_out]}, extensions=extensions)
    with transport(server) as opened:
        opened.send(mail())
        opened.send(mail())
    assert server.connections == 2
    assert len(server.mails) == 2


def test_new_connection_that_is_closed_as_well_is_not_tried_for_ever() -> None:
    closing = Say("421 4.7.0 too many messages", hang_up=True)
    server = ScriptedSmtp({"mail": [Say("250 Ok"), closing, closing]})
    with transport(server) as opened:
        opened.send(mail())
        with pytest.raises(Unavailable, match="421"):
            opened.send(mail())
    assert server.connections == 2


@pytest.mark.parametrize("word", ["", "\r\n421 4.4.2 idle for too long"], ids=["silent", "421"])
def test_hang_up_while_idle_costs_nothing(word: str) -> None:
    server = ScriptedSmtp({"dot": [Say(f"250 Ok{word}", hang_up=True)]})
    with transport(server) as opened:
        opened.send(mail())
        time.sleep(0.05)  # the end of the connection is on its way
        opened.send(mail())
    assert server.connections == 2
    assert len(server.mails) == 2


@pytest.mark.parametrize("say", [HANG_UP, Say("502 5.5.1 not here")], ids=["hang-up", "502"])
def test_reset_that_fails_gives_up_the_connection(say: Say) -> None:
    server = ScriptedSmtp({"rcpt": [Say("550 5.1.1 user unknown")], "rset": [say]})
    assert isinstance(failure(server), Rejected)
    assert server.connections == 2


@pytest.mark.parametrize(
    ("reply", "provider_id"),
    [
        ("250 2.0.0 Ok: queued as 3Bz7Xy0m1Kz", "3Bz7Xy0m1Kz"),
        ("250 OK id=1tFxYz-000abc-2X", "1tFxYz-000abc-2X"),
        ("250 2.6.0 <x@y> [InternalId=20538, Hostname=mx.example] Queued mail for delivery", "20538"),
        ("250 2.0.0 OK  1764000000 d9443c01a7336-29b5b sm1234 - gsmtp", None),
        ("250 2.0.0 OK 1764000000 d9443c01a7336 - gsmtp", "d9443c01a7336"),
        ("250 Ok 0102018f3a4b5c6d-1a2b3c4d-0000", "0102018f3a4b5c6d-1a2b3c4d-0000"),
        ("250 Mail OK queued as smtp5,D9GowACX", "smtp5"),
        ("250 accepted", None),
    ],
)
def test_provider_id(reply: str, provider_id: str | None) -> None:
    with transport(ScriptedSmtp({"dot": [Say(reply)]})) as opened:
        receipt = opened.send(mail())
    assert (receipt.provider_id, receipt.code) == (provider_id, "250")


@pytest.mark.parametrize(
    "parcel",
    [mail(values={}), mail(address="a@b\r\nDATA"), mail(subject="x\r\ny"), mail(from_address="nobody")],
    ids=["placeholder", "recipient", "subject", "sender"],
)
def test_parcel_that_cannot_be_written_is_rejected_before_a_word_is_said(parcel: Parcel) -> None:
    server = ScriptedSmtp()
    caught = failure(server, parcel)
    assert (type(caught), caught.kind) == (Rejected, Kind.CONTENT)
    assert len(server.said("MAIL")) == 1


def test_channel_renders_and_sends(tmp_path: Path) -> None:
    newsletter = Newsletter(
        slug="ai-daily", title="AI 日报", sender=Sender(name="AI 日报", address="daily@news.example.com")
    )
    post = Post(
        slug="today", title="AI Daily 早报", date=SENT_DATE, body="早上好。", path=tmp_path / "today.md"
    )
    server = ScriptedSmtp()
    with server:
        smtp = EmailSettings(smtp=settings(server.port))
        channel: Channel = EmailChannel(Settings(root=tmp_path, email=smtp))
        assert isinstance(channel, Channel)
        assert channel.destinations(newsletter) == []
        (message,) = channel.render(post, newsletter)
        with channel.open(channel.relays[0].name) as opened:
            parcel = mail()._replace(message=message)
            preferences = {"__PREFERENCES_URL__": "https://news.example.com/p/token"}
            opened.send(parcel._replace(values={**parcel.values, **preferences}))
    sent = message_from_bytes(server.mails[0].data, policy=default)
    assert str(sent["Subject"]) == "AI Daily 早报"
    body = sent.get_body(("plain",))
    assert body is not None
    assert UNSUBSCRIBE in body.get_content()


@pytest.mark.parametrize(
    ("method", "call", "error"),
    [
        ("write", 1, Unavailable),  # MAIL
        ("reply", 1, Unavailable),
        ("reply", 3, Unavailable),  # the reply to DATA
        ("write", 4, Unavailable),  # the body, before a byte of it went
        ("reply", 4, Unconfirmed),  # the reply to the dot
    ],
)
def test_a_foreign_exception_is_translated(
    method: str, call: int, error: type[SendError], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = getattr(_Wire, method), count(1)

    def break_down(wire: _Wire, *rest: bytes) -> object:
        if next(calls) == call:
            raise RuntimeError("surprise")
        return real(wire, *rest)

    with transport(ScriptedSmtp(extensions=PLAIN)) as opened:
        with monkeypatch.context() as broken:
            broken.setattr(_Wire, method, break_down)
            with pytest.raises(SendError, match="surprise") as caught:
                opened.send(mail())
        assert type(caught.value) is error
        assert opened.send(mail()).code == "250"


# Connecting


def connection_failure(smtp: Smtp, context: ssl.SSLContext | None = None) -> SendError:
    with pytest.raises(SendError) as caught, SmtpTransport(smtp, context):
        pytest.fail("it connected")
    error = caught.value
    assert isinstance(error, Unavailable)
    assert (error.scope, error.counts) == (Scope.CHANNEL, False)
    assert PASSWORD not in str(error)
    assert f"{smtp.host}:{smtp.port}" in error.text
    return error


def test_nobody_listens() -> None:
    assert connection_failure(settings(free_port())).kind is Kind.NETWORK


def test_name_that_is_no_name() -> None:
    assert connection_failure(settings(25, host="x" * 70 + ".example")).kind is Kind.CONFIG


@pytest.mark.parametrize(
    ("stage", "say", "kind"),
    [
        ("connect", Say("421 4.7.0 too many connections", hang_up=True), Kind.SERVER),
        ("connect", Say("554 5.7.1 we do not talk to you", hang_up=True), Kind.CONFIG),
        ("connect", HANG_UP, Kind.NETWORK),
        ("connect", SILENCE, Kind.NETWORK),
        ("ehlo", HANG_UP, Kind.NETWORK),
    ],
)
def test_unfriendly_greeting(stage: str, say: Say, kind: Kind) -> None:
    with ScriptedSmtp({stage: [say, say]}) as server:
        error = connection_failure(settings(server.port, seconds=0.3))
    assert error.kind is kind
    assert error.code == (say.text[:3] if say.text else "")


def test_relay_that_comes_back_is_used_again() -> None:
    down = Say("421 starting up", hang_up=True)
    with ScriptedSmtp({"connect": [down]}) as server:
        opened = SmtpTransport(settings(server.port))
        with pytest.raises(Unavailable):
            opened.send(mail())
        assert opened.send(mail()).code == "250"
        opened.close()


def test_login() -> None:
    server = ScriptedSmtp(extensions=("AUTH PLAIN",))
    with server, SmtpTransport(settings(server.port, username="daily")) as opened:
        opened.send(mail())
    assert server.said("AUTH") == [
        f"AUTH PLAIN {server.commands[1].split()[2]} = '\\x00daily\\x00{PASSWORD}'"
    ]


@pytest.mark.parametrize(
    ("extensions", "reply", "kind", "words"),
    [
        (("AUTH PLAIN",), f"535 5.7.8 bad password {PASSWORD}", Kind.CONFIG, "DISTRIBUTOR_SMTP_PASSWORD"),
        (("AUTH PLAIN",), "454 4.7.0 try later", Kind.SERVER, "now"),
        (("AUTH PLAIN",), "421 4.7.0 busy", Kind.SERVER, "now"),
        (("AUTH GSSAPI",), "", Kind.CONFIG, "email.smtp.username"),
        ((), "", Kind.CONFIG, "email.smtp.username"),
    ],
    ids=["535", "454", "421", "no common method", "no login offered"],
)
def test_login_refused(extensions: tuple[str, ...], reply: str, kind: Kind, words: str) -> None:
    with ScriptedSmtp({"auth": [Say(reply)] * 2}, extensions=extensions) as server:
        error = connection_failure(settings(server.port, username="daily"))
    assert error.kind is kind
    assert words in error.text


# Encryption


@pytest.fixture
def server_side() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTS / "localhost.pem", CERTS / "localhost.key")
    return context


@pytest.fixture
def client_side() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=CERTS / "localhost.pem")


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_encrypted(security: Security, server_side: ssl.SSLContext, client_side: ssl.SSLContext) -> None:
    server = ScriptedSmtp(
        extensions=("STARTTLS", "AUTH PLAIN", *PIPELINED), tls=server_side, implicit_tls=security == "tls"
    )
    smtp = settings(server.port, security=security, username="daily")
    with server, SmtpTransport(smtp, client_side) as opened:
        for _ in range(3):
            opened.send(mail())
    assert len(server.mails) == 3
    assert server.connections == 1
    assert len(server.said("STARTTLS")) == (1 if security == "starttls" else 0)


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_unknown_certificate_is_refused_by_default(security: Security, server_side: ssl.SSLContext) -> None:
    server = ScriptedSmtp(extensions=("STARTTLS",), tls=server_side, implicit_tls=security == "tls")
    with server:
        error = connection_failure(settings(server.port, security=security))
    assert error.kind is Kind.CONFIG
    assert "certificate" in error.text
    assert not server.mails


def test_certificate_of_another_host_is_refused(
    server_side: ssl.SSLContext, client_side: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *rest, **more: resolve("127.0.0.1", *rest, **more))
    with ScriptedSmtp(tls=server_side, implicit_tls=True) as server:
        error = connection_failure(settings(server.port, security="tls", host="mx.example.com"), client_side)
    assert error.kind is Kind.CONFIG
    assert "certificate" in error.text


def test_login_is_not_sent_in_the_clear_when_starttls_is_missing(client_side: ssl.SSLContext) -> None:
    with ScriptedSmtp(extensions=("AUTH PLAIN",)) as server:
        error = connection_failure(settings(server.port, security="starttls", username="daily"), client_side)
    assert error.kind is Kind.CONFIG
    assert not server.said("AUTH")


def test_tls_against_a_server_without_it(client_side: ssl.SSLContext) -> None:
    with ScriptedSmtp() as server:
        error = connection_failure(settings(server.port, security="tls"), client_side)
    assert error.kind is Kind.CONFIG
    assert "email.smtp.security" in error.text


def test_closing_is_polite_and_quick() -> None:
    server = ScriptedSmtp({"quit": [SILENCE]})
    with server:
        opened = SmtpTransport(settings(server.port, seconds=60))
        opened.send(mail())
        start = time.monotonic()
        opened.close()
        assert time.monotonic() - start < 5
        opened.close()
