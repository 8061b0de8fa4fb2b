"""Every provider: what its documented payloads mean, and that nothing is read which does not prove itself."""

import base64
import contextlib
import dataclasses
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import calls
import pytest
from calls import AT, CERTIFICATE, SECRET, TOPIC, Call, Fetched, forged, providers, resends_clock  # noqa: F401 - autouse
from hypothesis import given, settings
from hypothesis import strategies as st

from distributor.errors import ConfigError, ServiceDown
from distributor.model import Event, EventKind, Permanence, SuppressionReason
from distributor.providers import Forged, Malformed, load_providers
from distributor.providers.reading import moment
from distributor.settings import EventsSettings

K, P, S = EventKind, Permanence, SuppressionReason
READER = "reader@readers.example"
QQ = "smtp; 550 Domain frequency limited [MxfN7eYG/9m8 IP: 192.0.2.1]"

#: provider, call, kind, permanence, mirrored reason
MAPPED: Sequence[tuple[str, Call, EventKind, Permanence | None, SuppressionReason | None]] = [
    ("ses", calls.ses_bounce(), K.BOUNCED, P.PERMANENT, None),
    ("ses", calls.ses_bounce(form="notificationType"), K.BOUNCED, P.PERMANENT, None),
    ("ses", calls.ses_bounce("Transient", "MailboxFull", "smtp; 552 5.2.2 mailbox full", "5.2.2"), K.BOUNCED, P.TEMPORARY, None),
    ("ses", calls.ses_bounce("Undetermined", "Undetermined", "", ""), K.BOUNCED, P.TEMPORARY, None),
    ("ses", calls.ses_bounce("Transient", "ContentRejected", "", ""), K.BOUNCED, P.POLICY, None),
    ("ses", calls.ses_bounce("Permanent", "General", QQ, "5.0.0"), K.BOUNCED, P.POLICY, None),
    ("ses", calls.ses_bounce("Permanent", "General", "smtp; 550 5.7.1 blocked by SPF", "5.7.1"), K.BOUNCED, P.POLICY, None),
    ("ses", calls.ses_bounce("Permanent", "General", "smtp; 550 Mailbox unavailable or access denied", ""), K.BOUNCED, P.TEMPORARY, None),
    ("ses", calls.ses_bounce("Permanent", "OnAccountSuppressionList", "Amazon SES did not send it", "5.1.1"), K.REJECTED, P.PERMANENT, S.BOUNCED),
    ("ses", calls.ses("Complaint", {"complainedRecipients": [{"emailAddress": READER}], "complaintFeedbackType": "abuse", "timestamp": "2026-03-02T07:31:05.000Z"}), K.COMPLAINED, None, None),
    ("ses", calls.ses("Complaint", {"complainedRecipients": [{"emailAddress": READER}], "complaintFeedbackType": "not-spam"}), K.UNKNOWN, None, None),
    ("ses", calls.ses("Complaint", {"complainedRecipients": [{"emailAddress": READER}], "complaintSubType": "OnAccountSuppressionList"}), K.REJECTED, None, S.COMPLAINED),
    ("ses", calls.ses("Delivery", {"recipients": [READER], "timestamp": "2026-03-02T07:31:05.000Z", "smtpResponse": "250 ok"}), K.DELIVERED, None, None),
    ("ses", calls.ses("DeliveryDelay", {"delayedRecipients": [{"emailAddress": READER, "status": "4.4.1"}], "delayType": "TransientCommunicationFailure"}), K.DEFERRED, P.TEMPORARY, None),
    ("ses", calls.ses("DeliveryDelay", {"delayedRecipients": [{"emailAddress": READER, "status": "4.7.1"}], "delayType": "IPFailure"}), K.DEFERRED, P.POLICY, None),
    ("ses", calls.ses("Reject", {"reason": "Bad content"}), K.REJECTED, P.POLICY, None),
    ("ses", calls.ses("Send", {}), K.SENT, None, None),
    ("ses", calls.ses("Open", {"timestamp": "2026-03-02T07:40:00Z"}), K.OPENED, None, None),
    ("ses", calls.ses("Subscription", {"newTopicPreferences": {"unsubscribeAll": True, "topicSubscriptionStatus": []}, "source": "UnsubscribeHeader"}), K.UNSUBSCRIBED, None, None),
    ("ses", calls.ses("Something New", {}), K.UNKNOWN, None, None),
    ("mailgun", calls.mailgun({"event": "delivered", "delivery-status": {"code": 250, "message": "OK"}}), K.DELIVERED, None, None),
    ("mailgun", calls.mailgun_failed("permanent", "bounce", "5.1.1 The email account that you tried to reach does not exist"), K.BOUNCED, P.PERMANENT, None),
    ("mailgun", calls.mailgun_failed("temporary", "generic", "4.2.2 mailbox full", 452), K.DEFERRED, P.TEMPORARY, None),
    ("mailgun", calls.mailgun_failed("permanent", "old", "Too old", 602), K.BOUNCED, P.TEMPORARY, None),
    ("mailgun", calls.mailgun_failed("permanent", "generic", "5.7.1 message refused: DMARC"), K.BOUNCED, P.POLICY, None),
    ("mailgun", calls.mailgun_failed("permanent", "suppress-bounce", "Not delivering to previously bounced address", 605), K.REJECTED, None, S.BOUNCED),
    ("mailgun", calls.mailgun_failed("permanent", "suppress-complaint", "", 607), K.REJECTED, None, S.COMPLAINED),
    ("mailgun", calls.mailgun_failed("permanent", "suppress-unsubscribe", "", 606), K.UNSUBSCRIBED, None, None),
    ("mailgun", calls.mailgun({"event": "complained"}), K.COMPLAINED, None, None),
    ("mailgun", calls.mailgun({"event": "unsubscribed"}), K.UNSUBSCRIBED, None, None),
    ("mailgun", calls.mailgun({"event": "rejected", "reject": {"reason": "content"}}), K.REJECTED, P.POLICY, None),
    ("mailgun", calls.mailgun({"event": "clicked"}), K.CLICKED, None, None),
    ("sendgrid", calls.sendgrid({"event": "bounce", "type": "bounce", "status": "5.1.1", "reason": "550 5.1.1 no such user", "sg_event_id": "e1"}), K.BOUNCED, P.PERMANENT, None),
    ("sendgrid", calls.sendgrid({"event": "bounce", "type": "blocked", "status": "4.0.0", "reason": "unable to get mx info", "sg_event_id": "e2"}), K.BOUNCED, P.TEMPORARY, None),
    ("sendgrid", calls.sendgrid({"event": "bounce", "type": "blocked", "status": "5.7.1", "reason": "550 5.7.1 blocked", "sg_event_id": "e3"}), K.BOUNCED, P.POLICY, None),
    ("sendgrid", calls.sendgrid({"event": "dropped", "reason": "Bounced Address", "sg_event_id": "e4"}), K.REJECTED, None, S.BOUNCED),
    ("sendgrid", calls.sendgrid({"event": "dropped", "reason": "Spam Reporting Address", "sg_event_id": "e5"}), K.REJECTED, None, S.COMPLAINED),
    ("sendgrid", calls.sendgrid({"event": "dropped", "reason": "Unsubscribed Address", "sg_event_id": "e6"}), K.UNSUBSCRIBED, None, None),
    ("sendgrid", calls.sendgrid({"event": "deferred", "response": "451 try again", "attempt": "2", "sg_event_id": "e7"}), K.DEFERRED, P.TEMPORARY, None),
    ("sendgrid", calls.sendgrid({"event": "delivered", "response": "250 OK", "sg_event_id": "e8"}), K.DELIVERED, None, None),
    ("sendgrid", calls.sendgrid({"event": "spamreport", "sg_event_id": "e9"}), K.COMPLAINED, None, None),
    ("sendgrid", calls.sendgrid({"event": "group_unsubscribe", "asm_group_id": 1, "sg_event_id": "e10"}), K.UNSUBSCRIBED, None, None),
    ("sendgrid", calls.sendgrid({"event": "processed"}), K.QUEUED, None, None),
    ("postmark", calls.postmark_bounce("HardBounce", "smtp;550 5.1.1 user does not exist"), K.BOUNCED, P.PERMANENT, None),
    ("postmark", calls.postmark_bounce("SoftBounce", "smtp;552 mailbox full"), K.BOUNCED, P.TEMPORARY, None),
    ("postmark", calls.postmark_bounce("Transient"), K.DEFERRED, P.TEMPORARY, None),
    ("postmark", calls.postmark_bounce("Blocked", "smtp;554 blocked"), K.BOUNCED, P.POLICY, None),
    ("postmark", calls.postmark_bounce("SpamNotification"), K.COMPLAINED, None, None),
    ("postmark", calls.postmark_bounce("SpamComplaint"), K.COMPLAINED, None, None),
    ("postmark", calls.postmark_bounce("AutoResponder"), K.AUTORESPONDED, None, None),
    ("postmark", calls.postmark_bounce("Something New"), K.UNKNOWN, None, None),
    ("postmark", calls.postmark({"RecordType": "Delivery", "Recipient": READER, "DeliveredAt": "2026-03-02T07:31:05Z", "MessageID": "m", "Details": "250 ok"}), K.DELIVERED, None, None),
    ("postmark", calls.postmark({"RecordType": "SubscriptionChange", "Recipient": READER, "ChangedAt": "2026-03-02T07:31:05Z", "SuppressSending": True, "SuppressionReason": "ManualSuppression", "MessageID": "m"}), K.UNSUBSCRIBED, None, None),
    ("postmark", calls.postmark({"RecordType": "SubscriptionChange", "Recipient": READER, "ChangedAt": "2026-03-02T07:31:05Z", "SuppressSending": True, "SuppressionReason": "SpamComplaint", "MessageID": "m"}), K.REJECTED, None, S.COMPLAINED),
    ("postmark", calls.postmark({"RecordType": "SubscriptionChange", "Recipient": READER, "ChangedAt": "2026-03-02T07:31:05Z", "SuppressSending": False, "MessageID": "m"}), K.SUBSCRIBED, None, None),
    ("postmark", calls.postmark({"RecordType": "Open", "Recipient": READER, "ReceivedAt": "2026-03-02T07:31:05Z", "MessageID": "m"}), K.OPENED, None, None),
    ("resend", calls.resend("email.bounced", {"bounce": {"type": "Permanent", "subType": "General", "message": "550 5.1.1 no such user"}}), K.BOUNCED, P.PERMANENT, None),
    ("resend", calls.resend("email.bounced", {"bounce": {"type": "Transient", "subType": "MailboxFull", "message": ""}}), K.BOUNCED, P.TEMPORARY, None),
    ("resend", calls.resend("email.delivery_delayed", {}), K.DEFERRED, P.TEMPORARY, None),
    ("resend", calls.resend("email.delivered", {}), K.DELIVERED, None, None),
    ("resend", calls.resend("email.complained", {}), K.COMPLAINED, None, None),
    ("resend", calls.resend("email.failed", {"failed": {"reason": "reached_daily_quota"}}), K.FAILED, None, None),
    ("resend", calls.resend("email.suppressed", {}), K.REJECTED, None, S.BOUNCED),
    ("tencent", calls.tencent("bounce", {"reason": "551 5.1.1 recipient is not exist", "bounceType": "hard_bounce"}), K.BOUNCED, P.PERMANENT, None),
    ("tencent", calls.tencent("bounce", {"reason": "mailbox full", "bounceType": "soft"}), K.BOUNCED, P.TEMPORARY, None),
    ("tencent", calls.tencent("bounce", {"reason": "550 Sender frequency limited", "bounceType": "hard_bounce"}), K.BOUNCED, P.POLICY, None),
    ("tencent", calls.tencent("deferred"), K.DEFERRED, P.TEMPORARY, None),
    ("tencent", calls.tencent("delivered"), K.DELIVERED, None, None),
    ("tencent", calls.tencent("dropped", {"reason": "in blocklist"}), K.REJECTED, P.POLICY, None),
    ("tencent", calls.tencent("spamreport"), K.COMPLAINED, None, None),
    ("tencent", calls.tencent("unsubscribe"), K.UNSUBSCRIBED, None, None),
    ("aliyun", calls.aliyun("dm:Deliver:Succeed", {"status": "0", "err_code": "250"}), K.DELIVERED, None, None),
    ("aliyun", calls.aliyun_failed("SmtpNxBox", "554 RCPT reader@readers.example dosn't exist"), K.BOUNCED, P.PERMANENT, None),
    ("aliyun", calls.aliyun_failed("SmtpMfdFreq", "550 Domain frequency limited"), K.BOUNCED, P.POLICY, None),
    ("aliyun", calls.aliyun_failed("SmtpContSpam", "554 DT:SPM"), K.BOUNCED, P.POLICY, None),
    ("aliyun", calls.aliyun_failed("SysOutConnTimeout", ""), K.BOUNCED, P.TEMPORARY, None),
    ("aliyun", calls.aliyun_failed("SysOutRcptOnAccountLevelBounceList", ""), K.REJECTED, None, S.BOUNCED),
    ("aliyun", calls.aliyun_failed("SysOutRecipientUnsubscribed", ""), K.UNSUBSCRIBED, None, None),
    ("aliyun", calls.aliyun("dm:Feedback:FblReport", {"block_email": READER, "rcpt": "", "send_email": "paper@news.example.com", "message_id": "m"}), K.COMPLAINED, None, None),
    ("aliyun", calls.aliyun("dm:Feedback:UnSubscribe", {"operate_time": "2026-03-02T15:31:05"}), K.UNSUBSCRIBED, None, None),
    ("aliyun", calls.aliyun("dm:Trace:Open", {}), K.OPENED, None, None),
]  # fmt: skip
#: A call of each provider that would suppress somebody.
ONE_OF_EACH = [next(row for row in MAPPED if row[0] == name) for name in calls.NAMES]


def read(name: str, call: Call, now: datetime = AT, fetched: Fetched | None = None) -> Sequence[Event]:
    return providers(fetched)[name].events(call, now)


@pytest.mark.parametrize(
    ("name", "call", "kind", "permanence", "mirrors"),
    MAPPED,
    ids=[f"{row[0]}-{number}" for number, row in enumerate(MAPPED)],
)
def test_a_documented_payload_has_one_meaning(
    name: str, call: Call, kind: EventKind, permanence: Permanence | None, mirrors: SuppressionReason | None
) -> None:
    (event,) = read(name, call)
    assert (event.kind, event.permanence, event.mirrors) == (kind, permanence, mirrors)
    assert event.provider == name
    assert event.address == READER
    assert event.event_id
    assert event.occurred_at <= AT
    assert event.occurred_at > AT - timedelta(hours=1)
    assert event.occurred_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("name", "call"),
    [(row[0], row[1]) for row in MAPPED if row[2] is K.DELIVERED],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_call_that_comes_twice_is_the_same_event(name: str, call: Call) -> None:
    assert read(name, call) == read(name, call)


@pytest.mark.parametrize(("name", "call"), [row[:2] for row in ONE_OF_EACH], ids=calls.NAMES)
def test_what_proves_nothing_is_not_read(name: str, call: Call) -> None:
    assert read(name, call)
    for fake in forged(call):
        with pytest.raises((Forged, Malformed)) as caught:
            read(name, fake)
        if name != "mailgun" and fake.body != b"\x00":  # the proof of Mailgun and SNS stands within the JSON
            assert caught.type is Forged


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("mailgun", calls.mailgun({"event": "complained"}, at=AT - timedelta(hours=25))),
        ("sendgrid", calls.sendgrid({"event": "spamreport"}, at=AT - timedelta(hours=25))),
        ("resend", calls.resend("email.complained", {}, at=AT - timedelta(minutes=6))),
        ("resend", calls.resend("email.complained", {}, at=AT + timedelta(minutes=6))),
        ("aliyun", calls.aliyun("dm:Trace:Open", {}, at=AT - timedelta(seconds=61))),
        ("aliyun", calls.aliyun("dm:Trace:Open", {}, at=AT + timedelta(seconds=61))),
    ],
)
def test_an_old_signature_proves_nothing(name: str, call: Call) -> None:
    with pytest.raises(Forged, match="old"):
        read(name, call)


# ── SES ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("version", ["1", "2"])
def test_both_versions_of_sns_signatures(version: str) -> None:
    message = json.dumps(calls.ses_message("Delivery", {"recipients": [READER]}))
    fetched = Fetched()
    (event,) = read(
        "ses", calls.sns({"Message": message, "Subject": "Amazon SES"}, version=version), fetched=fetched
    )
    assert event.kind is K.DELIVERED
    assert fetched.asked == [CERTIFICATE]


def test_the_certificate_is_fetched_once() -> None:
    fetched = Fetched()
    ses = providers(fetched)["ses"]
    for _ in range(3):
        ses.events(calls.ses_bounce(), AT)
    assert fetched.asked == [CERTIFICATE]


@pytest.mark.parametrize(
    "changes",
    [
        {"Type": "SubscriptionConfirmation"},
        {"Type": "Other"},
        {"TopicArn": TOPIC.replace("bounces", "theirs")},
        {"Message": "{}"},
        {"Subject": "new"},
        {"SignatureVersion": "3"},
        {"SignatureVersion": "1"},
        {"Signature": "not base64!"},
        {"Signature": None},
        {"SigningCertURL": None},
        {"SigningCertURL": CERTIFICATE.replace("https", "http")},
        {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com.attacker.example/a.pem"},
        {"SigningCertURL": "https://attacker.example/sns.eu-west-1.amazonaws.com/a.pem"},
        {"SigningCertURL": "https://sns.us-east-1.amazonaws.com/a.pem"},
        {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com:8443/a.pem"},
        {"SigningCertURL": "https://me@sns.eu-west-1.amazonaws.com/a.pem"},
        {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com/a.pem?x=.pem"},
        {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com/../a.pem"},
        {"SigningCertURL": CERTIFICATE + "\n"},
    ],
    ids=str,
)
def test_a_message_of_sns_that_was_changed(changes: dict[str, Any]) -> None:
    fetched = Fetched()
    with pytest.raises(Forged):
        read(
            "ses",
            calls.sns(
                {"Message": json.dumps(calls.ses_message("Delivery", {"recipients": [READER]}))}, **changes
            ),
            fetched=fetched,
        )
    assert set(fetched.asked) <= {CERTIFICATE}  # no other address was ever asked


def confirmation(topic: str = TOPIC, **more: str) -> Call:
    return calls.sns(
        {
            "Type": "SubscriptionConfirmation",
            "Message": "You have chosen to subscribe …",
            "Token": "2336412f37&x=1",
            "TopicArn": topic,
            "SubscribeURL": "https://169.254.169.254/latest/meta-data",
            **more,
        }
    )


def test_a_subscription_is_confirmed_at_amazon_whatever_address_the_message_names() -> None:
    fetched = Fetched()
    assert read("ses", confirmation(), fetched=fetched) == []
    topic = "arn%3Aaws%3Asns%3Aeu-west-1%3A123456789012%3Abounces"
    asked = f"https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={topic}&Token=2336412f37%26x%3D1"
    assert fetched.asked == [CERTIFICATE, asked]


def test_a_subscription_to_a_topic_that_nobody_expects_is_not_confirmed() -> None:
    fetched = Fetched()
    with pytest.raises(Forged):
        read("ses", confirmation("arn:aws:sns:eu-west-1:999999999999:bounces"), fetched=fetched)
    assert fetched.asked == []


def test_the_region_of_china_has_a_host_of_its_own() -> None:
    topic, fetched = "arn:aws-cn:sns:cn-north-1:123456789012:bounces", Fetched()
    table = calls.settings().model_copy(
        update={"ses": calls.settings().ses.model_copy(update={"topics": (topic,)})}
    )
    where = "https://sns.cn-north-1.amazonaws.com.cn/a.pem"
    load_providers(table, fetched)["ses"].events(confirmation(topic, SigningCertURL=where), AT)
    assert [url.partition("?")[0] for url in fetched.asked] == [
        where,
        "https://sns.cn-north-1.amazonaws.com.cn/",
    ]


def test_several_recipients_are_several_events() -> None:
    who = [{"emailAddress": f"{name}@readers.example"} for name in ("a", "b")]
    found = read("ses", calls.ses("Bounce", {"bounceType": "Permanent", "bouncedRecipients": who}))
    assert [event.address for event in found] == ["a@readers.example", "b@readers.example"]
    assert len({event.event_id for event in found}) == 2


def test_what_sns_says_when_the_topic_is_set_up_is_no_event() -> None:
    text = "Successfully validated SNS topic for Amazon SES event publishing."
    assert read("ses", calls.sns({"Message": json.dumps(text)})) == []


def test_a_certificate_that_cannot_be_had_is_no_forgery() -> None:
    def away(_url: str) -> bytes:
        raise ServiceDown("sns.eu-west-1.amazonaws.com does not answer")

    with pytest.raises(ServiceDown):
        load_providers(calls.settings(), away)["ses"].events(calls.ses_bounce(), AT)
    with pytest.raises(Forged, match="certificate"):
        load_providers(calls.settings(), lambda _: b"no certificate")["ses"].events(calls.ses_bounce(), AT)


# ── the others ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["postmark", "tencent"])
def test_basic_authentication_is_as_good_as_a_secret_in_the_address(name: str) -> None:
    call = (
        calls.postmark_bounce("HardBounce", "550 5.1.1") if name == "postmark" else calls.tencent("delivered")
    )
    login = base64.b64encode(f"anybody:{SECRET}".encode()).decode()
    assert read(name, Call(headers={"authorization": f"Basic {login}"}, body=call.body))
    for wrong in (base64.b64encode(b"anybody:guess").decode(), login[:-4], "…", ""):
        with pytest.raises(Forged):
            read(name, Call(headers={"authorization": f"Basic {wrong}"}, body=call.body))


def test_the_same_signature_of_mailgun_is_the_same_event_whatever_the_body_says() -> None:
    first = read("mailgun", calls.mailgun({"event": "delivered"}, token="t"))
    other = read(
        "mailgun", calls.mailgun({"event": "complained", "recipient": "victim@readers.example"}, token="t")
    )
    assert first[0].event_id == other[0].event_id == "t"


def test_many_events_of_sendgrid_and_one_that_cannot_be_read() -> None:
    found = read(
        "sendgrid", calls.sendgrid({"event": "delivered"}, {"event": "bounce", "email": 7}, {"event": "open"})
    )
    assert [event.kind for event in found] == [K.DELIVERED, K.OPENED]
    with pytest.raises(Malformed):
        read("sendgrid", calls.sendgrid({"event": "bounce", "email": 7}))
    assert read("sendgrid", calls.sendgrid()) == []


def test_sendgrid_may_choose_another_encoding() -> None:
    body = json.dumps(
        [{"email": READER, "event": "bounce", "timestamp": int(AT.timestamp()), "reason": "boîte pleine"}],
        ensure_ascii=False,
    )
    (event,) = read("sendgrid", calls.sendgrid(body=body.encode("iso-8859-1")))
    assert event.detail == "boîte pleine"


def test_what_finds_the_delivery() -> None:
    ours = "<12.345.0.0123456789abcdef01234567@news.example.com>"
    (ses,) = read("ses", calls.ses_bounce(message_id=ours))
    assert (ses.message_id, ses.receipt) == (ours, "0102018e-ses-000000")
    (mailgun,) = read(
        "mailgun", calls.mailgun({"event": "delivered", "message": {"headers": {"message-id": ours[1:-1]}}})
    )
    assert mailgun.message_id == ours[1:-1]
    (sendgrid,) = read(
        "sendgrid",
        calls.sendgrid(
            {
                "event": "delivered",
                "smtp-id": ours,
                "sg_message_id": "14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0",
            }
        ),
    )
    assert (sendgrid.message_id, sendgrid.receipt) == (ours, "14c5d75ce93.dfd.64b469")
    (resend,) = read(
        "resend", calls.resend("email.delivered", {"headers": [{"name": "Message-ID", "value": ours}]})
    )
    assert resend.message_id == ours
    (tencent,) = read("tencent", calls.tencent("delivered", {"messageId": ours[1:-1]}))
    assert tencent.message_id == ours[1:-1]
    (aliyun,) = read("aliyun", calls.aliyun("dm:Deliver:Succeed", {"msg_id": ours[1:-1]}))
    assert (aliyun.message_id, aliyun.receipt) == (ours[1:-1], "600000123456")


@pytest.mark.parametrize(
    "call",
    [
        calls.aliyun("dm:Deliver:Succeed", {}, token="guess"),
        calls.aliyun("dm:Deliver:Succeed", {}, where="https://attacker.example/a.pem"),
        calls.aliyun(
            "dm:Deliver:Succeed",
            {},
            where="https://x-eventbridge.oss-accelerate.aliyuncs.com.attacker.example/a.pem",
        ),
        dataclasses.replace(
            calls.aliyun("dm:Deliver:Succeed", {}), url="https://other.example/events/aliyun"
        ),
    ],
    ids=["token", "host", "host below another", "address"],
)
def test_a_call_that_eventbridge_signed_for_somebody_else(call: Call) -> None:
    fetched = Fetched()
    with pytest.raises(Forged):
        read("aliyun", call, fetched=fetched)
    assert all(url == calls.ALIYUN_CERTIFICATE for url in fetched.asked)


def test_text_of_others_is_made_harmless() -> None:
    nasty = "550 <script>\r\nX: y\x00\u202e\ud800 " + "x" * 5000
    (event,) = read("tencent", calls.tencent("bounce", {"reason": nasty, "bounceType": "soft_bounce"}))
    assert len(event.detail) <= 300
    assert event.detail.startswith("550 <script> X: y x")
    assert event.detail.isprintable()


@pytest.mark.parametrize(
    "email", ["nobody", "", None, 7, "a@b c@d", "a" * 400 + "@x.example", ["a@b.example"]]
)
def test_what_is_no_address_is_refused(email: object) -> None:
    with pytest.raises(Malformed):
        read("tencent", calls.tencent("delivered", {"email": email}))


@pytest.mark.parametrize("when", [None, "yesterday", [], "", 10**20, "nan", "inf", True])
def test_what_is_no_time_is_refused(when: object) -> None:
    with pytest.raises(Malformed):
        read("tencent", calls.tencent("delivered", {"timestamp": when}))


@pytest.mark.parametrize("zero", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+08:00", -62135596800])
def test_a_time_that_nobody_has_written_is_now(zero: object) -> None:
    assert moment(zero, AT) == AT


def test_a_time_in_the_future_is_now() -> None:
    (event,) = read("tencent", calls.tencent("delivered", {"timestamp": int(AT.timestamp()) + 9999}))
    assert event.occurred_at == AT


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"providers": ["sendgrid"], "sendgrid": {"verification_key": "bm8ga2V5"}}, "sendgrid"),
        ({"providers": ["resend"], "resend": {"secret": "whsec_"}}, "RESEND"),
    ],
)
def test_a_key_that_is_none_stops_the_start(table: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_providers(EventsSettings.model_validate(table))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "mail",
                    "bounce",
                    "eventType",
                    "event",
                    "email",
                    "timestamp",
                    "event-data",
                    "data",
                    "to",
                    "type",
                    "RecordType",
                    "Type",
                    "rcpt",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(words=json_values)
def test_a_provider_may_say_anything_and_nothing_breaks(words: object) -> None:
    """Signed nonsense: events, or the one error that says so."""
    told = {
        "ses": calls.sns({"Message": json.dumps(words)}),
        "mailgun": calls.mailgun(
            {"event": "failed", "delivery-status": words, "message": words, "recipient": words}
        ),
        "sendgrid": calls.sendgrid(body=json.dumps(words).encode()),
        "postmark": Call(headers={}, body=json.dumps(words).encode(), secret=SECRET),
        "tencent": Call(headers={}, body=json.dumps(words).encode(), secret=SECRET),
        "aliyun": calls.aliyun(
            "dm:Deliver:Fail", {"rcpt": words, "err_msg": words, "header": words}, number="1"
        ),
    }
    for name, call in told.items():
        with contextlib.suppress(Malformed):
            assert all(event.provider == name for event in read(name, call))
