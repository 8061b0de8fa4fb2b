"""The sandbox as a whole: its JSON, its faults by HTTP, its pages, and that nothing sent can run in them."""

import smtplib
import sys
from collections.abc import Iterator
from email.message import EmailMessage

import httpx
import pytest

from distributor.sandbox.faults import KINDS, Fault, Faults, demo_faults
from distributor.sandbox.server import Sandbox

TOKEN = "123456:sandbox-token-0001"
KEY = "693a91f6-7a0c-4bc4-97a0-0ec2c1f2aaaa"
EVIL = '<script>alert(1)</script><img src=x onerror="alert(2)">'


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(None, faults=demo_faults()) as running:
        yield running


@pytest.fixture
def http(sandbox: Sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sandbox.url, timeout=5, verify=False) as client:
        yield client


def _mail(sandbox: Sandbox, to: str, html: str = "<p>早</p>") -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"], mail["Message-ID"] = (
        "news@example.org",
        to,
        "早报 <b>",
        "<1@e>",
    )
    mail.set_content("正文 https://example.org/p\n")
    mail.add_alternative(html, subtype="html")
    with smtplib.SMTP("127.0.0.1", sandbox.smtp_port, timeout=5) as client:
        client.send_message(mail)


def _telegram(http: httpx.Client, chat: str, text: str) -> int:
    body = {"chat_id": chat, "text": text, "parse_mode": "HTML"}
    return http.post(f"/bot{TOKEN}/sendMessage", json=body).status_code


def test_health_counts_and_entries(sandbox: Sandbox, http: httpx.Client) -> None:
    assert http.get("/healthz").json() == {"ok": True}
    _mail(sandbox, "lin@example.org")
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        _mail(sandbox, "refused-1@example.org")
    for chat in ("42", "42", "43"):
        _telegram(http, chat, "x")
    counts = http.get("/api/counts").json()
    assert (counts["email"]["accepted"], counts["email"]["refused"]) == (1, 1)
    assert counts["telegram"] == {"accepted": 3, "refused": 0, "addresses": 2, "unique": 2, "duplicates": 1}
    found = http.get("/api/entries", params={"channel": "telegram", "limit": "1", "offset": "1"}).json()
    assert (found["total"], [entry["id"] for entry in found["entries"]]) == (3, [4])
    one = http.get("/api/entries", params={"channel": "telegram", "address": "43"}).json()
    assert [entry["content"]["text"] for entry in one["entries"]] == ["x"]


def test_faults_are_switched_by_http(http: httpx.Client) -> None:
    http.delete("/faults")
    rule = {"channel": "telegram", "pattern": "4*", "kind": "blocked", "times": 1}
    shown = http.post("/faults", json=rule).json()["faults"]
    assert shown == [{**rule, "value": None}]
    assert [_telegram(http, "42", "x"), _telegram(http, "42", "x"), _telegram(http, "7", "x")] == [
        403,
        200,
        200,
    ]
    assert len(http.post("/faults", json=[rule, rule]).json()["faults"]) == 3
    assert http.delete("/faults").json()["faults"] == []


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"channel": "fax", "pattern": "*", "kind": "slow"}, "no channel 'fax'"),
        ({"channel": "email", "pattern": "*", "kind": "explode"}, "email has no fault 'explode'"),
        ({"channel": "email", "pattern": "*", "kind": "slow", "times": 0}, "`times` is a whole number"),
        ({"channel": "email", "pattern": "*", "kind": "slow", "value": "5"}, "`value` is a number"),
        ({"channel": "telegram", "pattern": "*", "kind": "migrated"}, "needs the new chat id"),
        ({"channel": "email", "kind": "slow"}, "a fault is an object"),
        ({"channel": "email", "pattern": "*", "kind": "slow", "often": 1}, "unknown key: often"),
    ],
)
def test_a_wrong_fault_is_refused_and_explained(
    http: httpx.Client, rule: dict[str, object], words: str
) -> None:
    answer = http.post("/faults", json=rule)
    assert answer.status_code == 422
    assert words in answer.json()["error"]


def test_a_page_elsewhere_cannot_switch_faults(http: httpx.Client) -> None:
    answer = http.post("/faults", content=b"[]", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


def test_every_fault_kind_can_be_asked_for() -> None:
    rules = [Fault(channel, "*", kind, value=1) for channel, kinds in KINDS.items() for kind in kinds]
    faults = Faults(rules)
    assert all(faults.take(rule.channel, "x", (rule.kind,)) == rule for rule in rules)


def test_the_demos_addresses_meet_what_their_names_say(sandbox: Sandbox, http: httpx.Client) -> None:
    for to, codes in (
        ("refused-9@example.org", [550, 550]),
        ("busy-9@example.org", [450, 250]),
        ("throttled-9@example.org", [550, 250]),
    ):
        with smtplib.SMTP("127.0.0.1", sandbox.smtp_port, timeout=5) as client:
            client.ehlo()
            client.mail("news@example.org")
            assert [client.rcpt(to)[0] for _ in codes] == codes
    assert [_telegram(http, chat, "x") for chat in ("900101", "900201", "900201")] == [403, 429, 200]


def test_the_list_shows_filters_and_searches(sandbox: Sandbox, http: httpx.Client) -> None:
    _mail(sandbox, "lin@example.org")
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        _mail(sandbox, "refused-1@example.org")
    _telegram(http, "42", EVIL.replace("<", "&lt;"))
    page = http.get("/")
    assert "script" not in page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "早报 &lt;b&gt;" in page.text
    assert "550 5.1.1 &lt;refused-1@example.org&gt;" in page.text
    assert "<script" not in page.text
    only = http.get("/", params={"channel": "email", "search": "LIN@"}).text
    assert "lin@example.org" in only
    assert "refused-1" not in only
    assert "Nothing matches" in http.get("/", params={"search": "nobody"}).text


def test_the_list_has_pages(sandbox: Sandbox, http: httpx.Client) -> None:
    for number in range(60):
        sandbox.inbox.refused("email", f"reader{number}@example.org", "550")
    assert "page 1 of 2" in http.get("/").text
    last = http.get("/", params={"page": "2"}).text
    assert "reader9@example.org" in last
    assert "reader10@example.org" not in last


def test_a_mail_is_shown_in_a_frame_without_scripts(sandbox: Sandbox, http: httpx.Client) -> None:
    _mail(sandbox, "lin@example.org", f'<html><head></head><body>{EVIL}"</body></html>')
    page = http.get("/mail/1").text
    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox"' in page
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;base target=&#34;_blank&#34;&gt;" in page
    assert '<a href="https://example.org/p"' in page
    assert http.get("/mail/99").status_code == 404


def test_a_mail_can_be_fetched_as_it_came(sandbox: Sandbox, http: httpx.Client) -> None:
    _mail(sandbox, "lin@example.org")
    answer = http.get("/api/mail/1")
    assert answer.headers["Content-Type"] == "message/rfc822"
    assert answer.content == sandbox.inbox.mail(1)
    assert http.get("/api/mail/2").status_code == 404


def test_a_chat_is_rebuilt_from_text_and_entities(http: httpx.Client) -> None:
    text = '<b>早<i>报</i></b> &lt;script&gt; <a href="https://e.org/?a=1&amp;b=2">🎉链接</a>'
    _telegram(http, "42", text)
    _telegram(http, "42", "<br>")
    page = http.get("/chat/42").text
    assert "<b>早<i>报</i></b> &lt;script&gt; " in page
    assert '<a href="https://e.org/?a=1&amp;b=2" rel="noreferrer">🎉链接</a>' in page
    assert "refused: 400 Bad Request" in page
    assert http.get("/chat/43").status_code == 404


def test_a_robots_cards_hold_no_foreign_markup(http: httpx.Client) -> None:
    text = f'## 早报\n<font color="warning">重要</font> {EVIL} ![x](https://e.org/x.png) [y](javascript:alert(3))'
    body = {"msgtype": "markdown", "markdown": {"content": text}}
    http.post("/cgi-bin/webhook/send", params={"key": KEY}, json=body)
    page = http.get("/robot/693a****aaaa").text
    assert "<h2>早报</h2>" in page
    assert '<span class="warning">重要</span>' in page
    assert all(word not in page for word in ("<script", "<img", 'href="javascript', KEY))


def test_an_unknown_place_is_404_and_names_no_secret(http: httpx.Client) -> None:
    answer = http.post(f"/robots/{KEY}")
    assert answer.status_code == 404
    assert KEY not in answer.text


def test_without_aiosmtpd_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiosmtpd.smtp", None)
    monkeypatch.delitem(sys.modules, "distributor.sandbox.smtp")
    with pytest.raises(ImportError, match=r"pip install 'distributor\[sandbox\]'"):
        __import__("distributor.sandbox.smtp")
