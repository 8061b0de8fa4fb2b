"""Each delivery has an envelope sender of its own, and nothing else about the mail changes."""

import pytest
from parcels import mail, notice
from scripted_smtp import Mail, ScriptedSmtp

from distributor.channels.email import EmailChannel
from distributor.channels.email.identity import BounceAddresses
from distributor.channels.email.mime import compose
from distributor.channels.email.smtp import SmtpTransport
from distributor.model import DeliveryId
from distributor.settings import Settings, Smtp

ADDRESSES = BounceAddresses("bounce@bounces.example.com", "k")


@pytest.mark.parametrize("extensions", [(), ("PIPELINING", "SIZE 1000000")], ids=["plain", "pipelined"])
def test_the_envelope_names_the_delivery_and_the_mail_is_the_same(extensions: tuple[str, ...]) -> None:
    parcels = [mail(identity=DeliveryId(7, number)) for number in range(3)]
    server = ScriptedSmtp(extensions=extensions)
    smtp = Smtp(host="127.0.0.1", port=server.port, helo="tests.example")
    with server, SmtpTransport(smtp, bounces=ADDRESSES) as opened:
        for parcel, then in zip(parcels, [*parcels[1:], None], strict=True):
            opened.send(parcel, then)
    assert [sent.data for sent in server.mails] == [compose(parcel) for parcel in parcels]
    senders = [sent.sender.partition(" ")[0] for sent in server.mails]
    assert senders == [f"FROM:<{ADDRESSES.of(parcel.identity)}>" for parcel in parcels]
    assert len(set(senders)) == 3
    assert isinstance(server.mails[0], Mail)


@pytest.mark.parametrize(
    "identity", [DeliveryId(1, 1), DeliveryId(10**15, 2**31 - 1, 10**6), DeliveryId(0, 1772438400)]
)
def test_an_address_is_one_that_smtp_allows(identity: DeliveryId) -> None:
    local, _, domain = ADDRESSES.of(identity).partition("@")
    assert len(local) <= 64
    assert domain == "bounces.example.com"
    assert ADDRESSES.delivery_in(f"To: <{local}@{domain}>".encode()) == identity


def settings(**email: object) -> Settings:
    bounces = {"address": "bounce@bounces.example.com", "key": "k"}
    table = {
        "root": "/nowhere",
        "email": {"smtp": {"host": "127.0.0.1", **email}},
        "events": {"bounces": bounces},
    }
    return Settings.model_validate(table)


@pytest.mark.parametrize(
    ("own_bounces", "sender"),
    [(False, ADDRESSES.of(DeliveryId(7, 42))), (True, "daily@news.example.com")],
)
def test_a_relay_that_takes_no_other_sender_keeps_the_newsletters(own_bounces: bool, sender: str) -> None:
    server = ScriptedSmtp(extensions=())
    with server:
        channel = EmailChannel(settings(port=server.port, own_bounces=own_bounces))
        with channel.open("smtp") as opened:
            opened.send(notice())
    assert [sent.sender for sent in server.mails] == [f"FROM:<{sender}>"]
