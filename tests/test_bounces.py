"""Bounces that come as mail: what is believed, what they mean, and a mailbox that is read again and again."""

import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import Message
from typing import Any

import imap
import pytest
from fakes import World, make_world
from imap import PASSWORD, Account, RealMailbox, serving

from distributor.bounces import Collected, Mailbox, collect, read_bounce
from distributor.channels.email.identity import BounceAddresses, delivery_of_message_id
from distributor.channels.email.mime import compose
from distributor.db import Database
from distributor.errors import MailboxDown, ServiceDown
from distributor.events import Events
from distributor.model import DeliveryId, Event, EventKind, Parcel, Permanence, Recipient
from distributor.model import Message as Frozen
from distributor.settings import BounceMailbox

K, P = EventKind, Permanence
NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
ADDRESSES = BounceAddresses("bounce@bounces.example.com", "thirty-two random characters here")
FORGER = BounceAddresses("bounce@bounces.example.com", "a guess")
DELIVERY = DeliveryId(1, 2)


def report(
    *,
    to: str = "",
    action: str = "failed",
    status: str = "5.1.1",
    said: str = "smtp; 550 5.1.1 <b@readers.example>: Recipient address rejected: User unknown",
    who: str = "b@readers.example",
    headers: str = "",
) -> bytes:
    """A delivery status notification (RFC 3464), as Postfix writes them."""
    diagnostic = f"Diagnostic-Code: {said}\r\n" if said else ""
    return (
        f"Return-Path: <>\r\nFrom: MAILER-DAEMON@mx.example.org\r\nTo: {to or ADDRESSES.of(DELIVERY)}\r\n"
        f"Subject: Undelivered Mail Returned to Sender\r\nDate: Mon, 02 Mar 2026 08:31:05 +0000\r\n"
        f"Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n{headers}"
        'Content-Type: multipart/report; report-type=delivery-status; boundary="B"\r\n\r\n'
        "--B\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\nI'm sorry to have to inform you …\r\n\r\n"
        "--B\r\nContent-Type: message/delivery-status\r\n\r\n"
        "Reporting-MTA: dns; mx.example.org\r\nArrival-Date: Mon,  2 Mar 2026 07:31:05 +0000\r\n\r\n"
        f"Final-Recipient: rfc822; {who}\r\nOriginal-Recipient: rfc822;{who}\r\nAction: {action}\r\nStatus: {status}\r\n"
        f"{diagnostic}\r\n"
        "--B\r\nContent-Type: text/rfc822-headers\r\n\r\nSubject: AI\r\n\r\n--B--\r\n"
    ).encode()


def complaint(form: str = "abuse", sender: str = "") -> bytes:
    """A feedback report (RFC 5965), to an address that the provider knows: the delivery's stands in it alone."""
    return (
        "From: <feedback@mail.example.net>\r\nTo: <fbl@news.example.com>\r\nSubject: FW: AI\r\n"
        "Date: Mon, 02 Mar 2026 08:31:05 +0000\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/report; report-type=feedback-report; boundary="B"\r\n\r\n'
        "--B\r\nContent-Type: text/plain\r\n\r\nThis is an email abuse report.\r\n\r\n"
        "--B\r\nContent-Type: message/feedback-report\r\n\r\n"
        f"Feedback-Type: {form}\r\nUser-Agent: SomeGenerator/1.0\r\nVersion: 1\r\n"
        f"Original-Mail-From: <{sender or ADDRESSES.of(DELIVERY)}>\r\n\r\n"
        "--B\r\nContent-Type: message/rfc822\r\n\r\nFrom: <paper@news.example.com>\r\n\r\nHello\r\n--B--\r\n"
    ).encode()


def plain(text: str, headers: str = "", sender: str = "MAILER-DAEMON@old.example.org") -> bytes:
    return f"From: {sender}\r\nTo: {ADDRESSES.of(DELIVERY)}\r\nSubject: failure notice\r\n{headers}\r\n{text}".encode()


QMAIL = (
    "Hi. This is the qmail-send program at old.example.org.\r\nI'm afraid I wasn't able to deliver your message to the "
    "following addresses.\r\nThis is a permanent error; I've given up. Sorry it didn't work out.\r\n\r\n"
    "<b@readers.example>:\r\nSorry, no mailbox here by that name. (#5.1.1)\r\n"
)


def read(raw: bytes) -> Event | None:
    return read_bounce(raw, ADDRESSES, NOW)


@pytest.mark.parametrize(
    ("raw", "kind", "permanence"),
    [
        (report(), K.BOUNCED, P.PERMANENT),
        (report(to=ADDRESSES.of(DELIVERY).upper()), K.BOUNCED, P.PERMANENT),
        (report(said="", status="5.1.1"), K.BOUNCED, P.PERMANENT),
        (report(said="smtp; 552 5.2.2 mailbox full", status="5.2.2"), K.BOUNCED, P.TEMPORARY),
        (report(said="smtp; 550 Domain frequency limited", status="5.0.0"), K.BOUNCED, P.POLICY),
        (report(said="smtp; 550 5.7.26 unauthenticated email is not accepted: DMARC", status="5.7.26"), K.BOUNCED, P.POLICY),
        (report(said="smtp; 550 Mailbox unavailable or access denied", status="5.0.0"), K.BOUNCED, P.TEMPORARY),
        (report(said="", status="5.0.0"), K.BOUNCED, P.TEMPORARY),
        (report(said="smtp; 451 4.3.0 try later", status="4.4.7"), K.BOUNCED, P.TEMPORARY),
        (report(action="delayed", said="smtp; 451 4.3.0 try later", status="4.4.1"), K.DEFERRED, P.TEMPORARY),
        (plain(QMAIL), K.BOUNCED, P.PERMANENT),
        (complaint(), K.COMPLAINED, None),
        (complaint("fraud"), K.COMPLAINED, None),
        (complaint("opt-out"), K.UNSUBSCRIBED, None),
    ],
)  # fmt: skip
def test_what_a_mail_that_came_back_means(raw: bytes, kind: EventKind, permanence: Permanence | None) -> None:
    event = read(raw)
    assert event is not None
    assert (event.kind, event.permanence, event.delivery) == (kind, permanence, DELIVERY)
    assert event.address == ""  # it is about its delivery, whoever it names
    assert event.occurred_at <= NOW
    assert event == read(raw)


@pytest.mark.parametrize(
    "raw",
    [
        report(to="bounce@bounces.example.com"),
        report(to=FORGER.of(DELIVERY)),
        report(to=ADDRESSES.of(DELIVERY).replace("1.2.0", "1.3.0")),
        report(to=ADDRESSES.of(DELIVERY).replace("bounces.example.com", "bounces.example.org")),
        report(to=f"{ADDRESSES.of(DELIVERY)}, {ADDRESSES.of(DeliveryId(1, 3))}"),
        complaint(sender="bounce@bounces.example.com"),
        complaint(sender=FORGER.of(DELIVERY)),
    ],
    ids=[
        "bare",
        "another key",
        "another delivery",
        "another domain",
        "two",
        "complaint bare",
        "complaint forged",
    ],
)
def test_what_does_not_carry_our_address_is_not_believed(raw: bytes) -> None:
    assert read(raw) is None


@pytest.mark.parametrize(
    "raw",
    [
        report(action="delivered", status="2.0.0", said="smtp; 250 ok"),
        report(action="relayed", status="2.0.0", said=""),
        complaint("not-spam"),
        complaint("auth-failure"),
        plain(
            "Ich bin bis zum 9. März nicht im Büro.", "Auto-Submitted: auto-replied\r\n", "b@readers.example"
        ),
        plain(QMAIL, "Auto-Submitted: auto-replied (vacation)\r\n"),
        plain("我正在休假。", "X-Autoreply: yes\r\n", "b@readers.example"),
        plain("Thanks, I liked today's issue!", "", "b@readers.example"),
        plain("", "Content-Type: multipart/report; boundary=x\r\n"),
        plain("", "Content-Type: multipart/mixed\r\n"),
        f"{ADDRESSES.of(DELIVERY)}".encode(),
        b"\xff\xfe\x00" * 100 + ADDRESSES.of(DELIVERY).encode(),
        b"",
    ],
)
def test_what_reports_no_failure_is_nothing(raw: bytes) -> None:
    assert read(raw) is None


def test_text_of_a_bounce_is_made_harmless() -> None:
    event = read(report(said="smtp; 550 5.1.1 user unknown <script>\u202e\x07" + "x" * 5000))
    assert event is not None
    assert len(event.detail) <= 300
    assert event.detail.isprintable()


def test_a_thousand_bounces_of_one_delivery_are_one_event() -> None:
    first, second = (
        read(report()),
        read(report(said="smtp; 550 5.1.1 no such user here", headers="X-Other: 1\r\n")),
    )
    assert first is not None
    assert second is not None
    assert first.event_id == second.event_id


def test_a_message_id_of_ours_names_its_delivery(mail_of: Callable[..., bytes]) -> None:
    written: Message = message_from_bytes(mail_of(DeliveryId(7, 42, 3)))
    assert delivery_of_message_id(str(written["Message-ID"])) == DeliveryId(7, 42, 3)
    for other in ("", "<a@b.example>", "<7.42.3@news.example.com>", "<7.42.3.xyz@news.example.com>", "7.42"):
        assert delivery_of_message_id(other) is None


@pytest.fixture
def mail_of() -> Callable[..., bytes]:
    def written(identity: DeliveryId) -> bytes:
        content = {
            "subject": "AI",
            "text": "hello",
            "from_address": "paper@news.example.com",
            "newsletter": "daily",
        }
        frozen = Frozen(channel="email", variant="default", content=content)
        recipient = Recipient(channel="email", address="b@readers.example")
        return compose(Parcel(message=frozen, recipient=recipient, identity=identity, sent_date=NOW))

    return written


# ── the mailbox ──────────────────────────────────────────────────────────────────────────────────────────────────────


def mailbox(port: int, **more: Any) -> Mailbox:
    table = {
        "address": "bounce@bounces.example.com",
        "key": "k",
        "host": "127.0.0.1",
        "port": port,
        "security": "none",
        "username": 'bounces "at" example',
        "password": PASSWORD,
        "timeout": timedelta(seconds=5),
        **more,
    }
    return Mailbox(BounceMailbox.model_validate(table))


def recorder() -> tuple[list[Event], Callable[[Sequence[Event]], object]]:
    told: list[Event] = []
    return told, told.extend


@pytest.mark.parametrize(
    "without", [(), ("MOVE",), ("MOVE", "UIDPLUS")], ids=["move", "copy", "copy, no expunge"]
)
def test_what_was_read_is_moved_away(without: Sequence[str]) -> None:
    account = Account(without=without)
    for raw in (report(), b"Subject: hello\r\n\r\nnothing", complaint()):
        account.put(raw)
    told, record = recorder()
    with serving(account) as port:
        assert collect(mailbox(port), ADDRESSES, record) == Collected(mails=3, events=2)
        assert collect(mailbox(port), ADDRESSES, record) == Collected(mails=0, events=0)
    assert [event.kind for event in told] == [K.BOUNCED, K.COMPLAINED]
    assert len(account.folders["Processed"]) == 3
    assert [mail.deleted for mail in account.folders["INBOX"]] == ([True] * 3 if "UIDPLUS" in without else [])


def test_over_tls_with_a_certificate_that_is_verified(tmp_path_factory: pytest.TempPathFactory) -> None:
    account = Account()
    account.put(report())
    told, record = recorder()
    trust = ssl.create_default_context(cafile=imap.CERTS / "localhost.pem")
    with serving(account, tls=True) as port:
        settings = mailbox(port, host="localhost", security="tls")._settings
        with pytest.raises(MailboxDown, match="certificate"):
            collect(Mailbox(settings), ADDRESSES, record)
        collect(Mailbox(settings, trust), ADDRESSES, record)
    assert [event.kind for event in told] == [K.BOUNCED]


@pytest.mark.parametrize("command", ["UID SEARCH", "UID FETCH", "UID MOVE", "SELECT", "LOGIN"])
def test_a_server_that_hangs_up_in_the_middle_loses_nothing(command: str) -> None:
    account = Account(breaks=command)
    for number in range(3):
        account.put(report(to=ADDRESSES.of(DeliveryId(1, number))))
    told, record = recorder()
    with serving(account) as port:
        with pytest.raises(MailboxDown):
            collect(mailbox(port), ADDRESSES, record)
        collect(mailbox(port), ADDRESSES, record)
    assert {event.delivery for event in told} == {DeliveryId(1, number) for number in range(3)}
    assert account.folders["INBOX"] == []


def test_a_database_that_is_away_leaves_the_mail_where_it_is() -> None:
    account = Account()
    account.put(report())

    def away(_events: Sequence[Event]) -> None:
        raise ServiceDown("the database does not answer")

    with serving(account) as port, pytest.raises(ServiceDown):
        collect(mailbox(port), ADDRESSES, away)
    assert len(account.folders["INBOX"]) == 1


def test_a_mail_that_brings_out_a_bug_does_not_hold_up_the_others(caplog: pytest.LogCaptureFixture) -> None:
    account = Account()
    for number in range(3):
        account.put(report(to=ADDRESSES.of(DeliveryId(1, number))))

    def stumbles(events: Sequence[Event]) -> None:
        if events[0].delivery == DeliveryId(1, 1):
            raise ZeroDivisionError

    with serving(account) as port:
        assert collect(mailbox(port), ADDRESSES, stumbles) == Collected(mails=2, events=2)
    assert [mail.uid for mail in account.folders["INBOX"]] == [2]
    assert "bounce_failed uid=2" in caplog.text


def test_one_look_reads_so_many_mails() -> None:
    account = Account()
    for number in range(5):
        account.put(report(to=ADDRESSES.of(DeliveryId(1, number))))
    with serving(account) as port:
        assert [collect(mailbox(port), ADDRESSES, recorder()[1], most=2).mails for _ in range(4)] == [
            2,
            2,
            1,
            0,
        ]


def test_of_a_large_mail_the_beginning_is_read() -> None:
    account = Account()
    account.put(report() + b"x" * 1_000_000)
    told, record = recorder()
    with serving(account) as port:
        collect(mailbox(port), ADDRESSES, record)
    assert [event.kind for event in told] == [K.BOUNCED]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"password": "guess"}, "DISTRIBUTOR_BOUNCE_PASSWORD"),
        ({"password": "ключ"}, "log in"),
        ({"folder": "Nowhere"}, "open the folder Nowhere"),
    ],
)
def test_what_is_wrong_is_said_without_the_password(more: dict[str, str], said: str) -> None:
    with serving(Account()) as port, pytest.raises(MailboxDown, match=said) as caught:
        collect(mailbox(port, **more), ADDRESSES, recorder()[1])
    assert PASSWORD not in str(caught.value)
    assert more.get("password", PASSWORD) not in str(caught.value)


def test_a_server_that_is_not_there() -> None:
    with serving(Account()) as port:
        pass
    with pytest.raises(MailboxDown, match=r"events\.bounces\.host"):
        collect(mailbox(port), ADDRESSES, recorder()[1])


@pytest.mark.services
def test_a_real_server() -> None:
    real = RealMailbox.named()
    if real is None:
        pytest.skip("set TEST_IMAP_URL=imap://user:password@host:port to run against a mail server")
    real.fill([report(), complaint(), b"Subject: hello\r\n\r\nnothing\r\n"], "Processed")
    told, record = recorder()
    login = {"host": real.host, "username": real.username, "password": real.password}
    assert collect(mailbox(real.port, **login), ADDRESSES, record) == Collected(mails=3, events=2)
    assert [event.kind for event in told] == [K.BOUNCED, K.COMPLAINED]
    assert (real.count("INBOX"), real.count("Processed")) == (0, 3)
    with mailbox(real.port, **login) as opened:
        assert opened.count() == 0


# ── and the ledger ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with one_database(tmp_path_factory) as database:
        world = make_world(database)
        world.subscribe("a", "b", "c")
        yield world


@contextmanager
def one_database(folders: pytest.TempPathFactory) -> Iterator[Database]:
    database = Database(f"sqlite:///{folders.mktemp('sqlite')}/distributor.sqlite3")
    database.upgrade()
    yield database
    database.close()


def test_a_forged_bounce_changes_nothing_and_a_genuine_one_ends_the_reader(world: World) -> None:
    issue = world.open()
    world.drain()
    heard = Events(world.database, world.ledger, world.audience)
    account = Account()
    for raw in (
        report(to=FORGER.of(DeliveryId(issue.id, 1)), who="a@readers.example"),
        report(to=ADDRESSES.of(DeliveryId(issue.id, 77)), who="a@readers.example"),  # nobody got that mail
        report(to=ADDRESSES.of(DeliveryId(0, 1)), who="a@readers.example"),  # a test send
        complaint(sender=FORGER.of(DeliveryId(issue.id, 1))),
    ):
        account.put(raw)
    with serving(account) as port:
        collect(mailbox(port), ADDRESSES, heard.record)
        assert world.ledger.events() == []
        account.put(report(to=ADDRESSES.of(DeliveryId(issue.id, 2)), who="a@readers.example"))
        collect(mailbox(port), ADDRESSES, heard.record)
    (found,) = world.ledger.events()
    assert (found.address, found.kind, found.issue_id, found.seq) == (
        "b@readers.example",
        "bounced",
        issue.id,
        2,
    )
    assert [item.suppressed for item in world.audience.listing("daily")] == [None, "bounced", None]
