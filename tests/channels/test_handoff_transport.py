"""Packs on their way to a person, over real sockets, and how the delivery stands then."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest
from pydantic import SecretStr
from rendering_samples import DIGEST, make_newsletter, make_post

from distributor.channels.handoff.render import render_handoff
from distributor.channels.handoff.transport import HandoffTransport
from distributor.errors import AWAITING, AwaitingPerson, Rejected, Scope, SendError, Unavailable, Unconfirmed
from distributor.model import DeliveryId, Message, Parcel, Recipient
from distributor.rehearsal import SANDBOX_KEY, SANDBOX_TOKEN
from distributor.sandbox.faults import Fault
from distributor.sandbox.limits import UNLIMITED
from distributor.sandbox.server import Sandbox
from distributor.settings import EmailSettings, Settings, Smtp, TelegramSettings, WecomSettings

TO = {"email": "desk@example.com", "telegram": "4711", "wecom": "desk"}
NUMBER = DeliveryId(12, 3)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(None, limits=UNLIMITED) as running:
        yield running


def settings_of(sandbox: Sandbox) -> Settings:
    return Settings.model_construct(
        root=Path(),
        email=EmailSettings(smtp=Smtp(port=sandbox.smtp_port)),
        telegram=TelegramSettings(api=sandbox.url, token=SecretStr(SANDBOX_TOKEN)),
        wecom=WecomSettings(api=sandbox.url),
        wecom_keys={"desk": SecretStr(SANDBOX_KEY.format(1))},
    )


def packs(via: str) -> list[Message]:
    place = {"name": "group-one", "title": "读者一群", "via": via, "to": TO[via]}
    post = make_post(DIGEST, cover_image="https://example.com/c.png")
    return render_handoff(post, make_newsletter(channels={"handoff": {"destinations": [place]}}))


def parcel_of(message: Message, identity: DeliveryId = NUMBER) -> Parcel:
    recipient = Recipient(
        channel="handoff", address="group-one", variant="group-one", destination="group-one"
    )
    values = {"__UNSUBSCRIBE_URL__": "https://example.com/u", "__VIEW_URL__": "https://example.com/v"}
    return Parcel(message, recipient, identity, datetime.now(UTC), values)


def hand_over(sandbox: Sandbox, via: str, identity: DeliveryId = NUMBER) -> SendError | None:
    """Sends every part; how the last one ended."""
    *before, last = packs(via)
    with HandoffTransport(settings_of(sandbox)) as transport:
        for message in before:
            transport.send(parcel_of(message, identity))
        try:
            transport.send(parcel_of(last, identity))
        except SendError as error:
            return error
    return None


@pytest.mark.parametrize("via", TO)
def test_the_person_has_it_and_the_delivery_awaits_their_word(sandbox: Sandbox, via: str) -> None:
    error = hand_over(sandbox, via)
    assert isinstance(error, AwaitingPerson)
    assert (error.code, error.scope) == (AWAITING, Scope.RECIPIENT)
    assert error.text == (
        f"awaiting a person: what to post in '读者一群' is with them (by {via}); "
        "once it is out: distributor resolve 12.3 --sent"
    )
    assert sandbox.inbox.count(via) == len(packs(via))


def test_a_pack_that_names_nobody_goes_to_the_delivery_s_address(sandbox: Sandbox) -> None:
    """As an issue has it that was opened before packs named their person."""
    (message,) = packs("email")
    before = {name: text for name, text in message.content.items() if name != "to"}
    parcel = parcel_of(replace(message, content=before))
    parcel = parcel._replace(recipient=parcel.recipient._replace(address=TO["email"]))
    with HandoffTransport(settings_of(sandbox)) as transport, pytest.raises(AwaitingPerson):
        transport.send(parcel)
    assert message_from_bytes(sandbox.inbox.mail(1), policy=default)["To"] == TO["email"]


def test_the_mail_has_text_picture_and_the_exact_command(sandbox: Sandbox) -> None:
    hand_over(sandbox, "email")
    mail = message_from_bytes(sandbox.inbox.mail(1), policy=default)
    body = mail.get_body()
    assert body is not None
    text = body.get_content()
    assert mail["To"] == "desk@example.com"
    assert "distributor resolve 12.3 --sent" in text
    assert "distributor resolve 12.3 --not-sent" in text
    assert "https://example.com/c.png" in text
    assert "新模型发布，价格减半" in text


@pytest.mark.parametrize(("via", "key"), [("telegram", "text"), ("wecom", "content")])
def test_in_a_chat_the_command_stands_in_the_first_message(sandbox: Sandbox, via: str, key: str) -> None:
    hand_over(sandbox, via)
    first, second = (str(sandbox.inbox.entry(number).content[key]) for number in (1, 2))
    assert first.endswith("distributor resolve 12.3 --not-sent")
    assert "resolve" not in second
    assert second.startswith("样刊：一天的新闻")


@pytest.mark.parametrize("via", TO)
def test_a_test_send_is_over_when_the_person_has_it(sandbox: Sandbox, via: str) -> None:
    assert hand_over(sandbox, via, DeliveryId(0, 1)) is None
    assert "resolve" not in str(sandbox.inbox.entry(1).content)


@pytest.mark.parametrize(
    ("fault", "kind"), [("disabled", Rejected), ("throttle", Unavailable), ("drop-after-accept", Unconfirmed)]
)
def test_trouble_on_the_way_is_no_waiting_and_concerns_this_place(
    sandbox: Sandbox, fault: str, kind: type[SendError]
) -> None:
    sandbox.faults.add(Fault("wecom", "*", fault))
    with HandoffTransport(settings_of(sandbox)) as transport, pytest.raises(kind) as caught:
        transport.send(parcel_of(packs("wecom")[1]))
    assert not isinstance(caught.value, AwaitingPerson)
    assert (caught.value.scope, caught.value.code == AWAITING) == (Scope.RECIPIENT, False)
    assert caught.value.text.startswith("the pack for '读者一群': ")


def test_a_relay_that_is_down_is_tried_later_and_a_new_connection_is_made(sandbox: Sandbox) -> None:
    (message,) = packs("email")
    dead = settings_of(sandbox).model_copy(update={"email": EmailSettings(smtp=Smtp(port=1))})
    with HandoffTransport(dead) as transport, pytest.raises(Unavailable) as caught:
        transport.send(parcel_of(message))
    assert (caught.value.scope, caught.value.counts) == (Scope.RECIPIENT, False)
    sandbox.faults.add(Fault("wecom", "*", "busy", times=1))
    with HandoffTransport(settings_of(sandbox)) as transport:
        with pytest.raises(Unavailable):
            transport.send(parcel_of(packs("wecom")[1]))
        with pytest.raises(AwaitingPerson):
            transport.send(parcel_of(packs("wecom")[1]))


def test_a_pack_that_names_no_way_is_refused(sandbox: Sandbox) -> None:
    message = Message(channel="handoff", variant="x", content={"via": "pigeon", "place": "屋顶"})
    recipient = Recipient(channel="handoff", address="x", variant="x", destination="x")
    with HandoffTransport(settings_of(sandbox)) as transport, pytest.raises(Rejected, match="not 'pigeon'"):
        transport.send(Parcel(message, recipient, NUMBER, datetime.now(UTC)))
