"""What a mail looks like on the wire."""

import re
from binascii import b2a_base64
from collections.abc import Mapping
from datetime import timedelta, timezone
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from email.utils import format_datetime
from html import escape
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parcels import SENT_DATE, UNSUBSCRIBE, VIEW, mail, notice, resent

from distributor.channels.email import mime
from distributor.channels.email.mime import ascii_address, compose, write
from distributor.model import DeliveryId, Parcel


def read(parcel: Parcel) -> EmailMessage:
    return message_from_bytes(compose(parcel), policy=default)


def text_of(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    content = part.get_content()
    assert isinstance(content, str)
    return content


def decoded(message: EmailMessage, kind: str) -> str:
    """The part's bytes as they were encoded: get_content would make line ends alike."""
    part = message.get_body((kind,))
    assert part is not None
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content.decode()


def raw_header(parcel: Parcel, name: str) -> str:
    """The header as it stands in the bytes, folding and all."""
    found = re.search(
        rf"^{name}: (.*?)\r\n(?![ \t])", compose(parcel).decode("ascii"), re.DOTALL | re.MULTILINE
    )
    assert found
    return found[1]


def test_two_alternatives_text_first_both_base64() -> None:
    message = read(mail())
    assert message.get_content_type() == "multipart/alternative"
    parts = list(message.iter_parts())
    assert [part.get_content_type() for part in parts] == ["text/plain", "text/html"]
    assert {part["Content-Transfer-Encoding"] for part in parts} == {"base64"}
    assert {part.get_content_charset() for part in parts} == {"utf-8"}


def test_parses_without_defects() -> None:
    message = read(mail())
    assert [part.defects for part in message.walk()] == [[], [], []]
    assert [header.defects for header in message.values() if hasattr(header, "defects")] == [()] * len(
        message.keys()
    )


@pytest.mark.parametrize("parcel", [mail(), notice()], ids=["issue", "notice"])
def test_wire_rules(parcel: Parcel) -> None:
    wire = compose(parcel)
    assert wire.isascii()
    assert wire.endswith(b"\r\n")
    lines = wire.split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line for line in lines), "CRLF alone"
    assert max(map(len, lines)) <= 998
    assert wire.count(b"\r\n\r\n") >= 1


def test_text_lines_end_in_crlf_before_base64() -> None:
    assert text_of(read(mail(text="一\n二\r\n三\r四")), "plain") == "一\r\n二\r\n三\r\n四"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("From", "AI 日报 <daily@news.example.com>"),
        ("Reply-To", "editor@example.com"),
        ("To", "reader@example.net"),
        ("Subject", "AI 日报：OpenAI 开源了一个新模型"),
        ("Date", "Tue, 24 Nov 2026 07:30:00 +0000"),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
        ("List-Id", "<ai-daily.news.example.com>"),
        ("Precedence", "bulk"),
        ("Auto-Submitted", "auto-generated"),
        ("X-Auto-Response-Suppress", "All"),
        ("Feedback-ID", "2026-11-24:ai-daily:newsletter:news-example-co"),
        ("MIME-Version", "1.0"),
    ],
)
def test_header(name: str, value: str) -> None:
    assert str(read(mail())[name]) == value


def test_every_header_stands_once() -> None:
    names = [name.lower() for name in read(mail())]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("tail", ["short", "x" * 60, "x" * 400])
def test_list_unsubscribe_is_never_encoded_nor_broken_inside_a_uri(tail: str) -> None:
    url = f"https://news.example.com/u/{tail}"
    raw = raw_header(mail(values={"__UNSUBSCRIBE_URL__": url, "__VIEW_URL__": VIEW}), "List-Unsubscribe")
    assert raw == f"<{url}>,\r\n <mailto:editor@example.com?subject=unsubscribe>"


def test_unsubscribe_mail_goes_to_the_sender_without_a_reply_address() -> None:
    parcel = mail(reply_to="", from_address="a+b%c@example.org")
    assert "<mailto:a+b%25c@example.org?subject=unsubscribe>" in raw_header(parcel, "List-Unsubscribe")
    assert read(parcel)["Reply-To"] is None


def test_long_list_id_stays_plain() -> None:
    list_id = f"{'long-' * 20}name.example.org"
    assert raw_header(mail(list_id=list_id), "List-Id") == f"<{list_id}>"


def test_configured_list_id_wins() -> None:
    assert raw_header(mail(list_id="<daily.example.org>"), "List-Id") == "<daily.example.org>"


def test_long_subject_is_folded_into_words_that_decode() -> None:
    subject = "今天的头条：" + "一个很长很长的标题" * 12
    parcel = mail(subject=subject)
    assert str(read(parcel)["Subject"]) == subject
    assert max(len(line) for line in raw_header(parcel, "Subject").split("\r\n")) <= 78


@pytest.mark.parametrize("url", [None, ""], ids=["no value", "empty value"])
def test_mail_that_nobody_can_unsubscribe_from_has_no_list_headers(url: str | None) -> None:
    parcel = notice() if url is None else mail(values={"__UNSUBSCRIBE_URL__": "", "__VIEW_URL__": VIEW})
    message = read(parcel)
    assert not [name for name in message if name.startswith("List-") or name in {"Precedence", "Feedback-ID"}]
    assert message["Auto-Submitted"] == "auto-generated"


def test_text_only() -> None:
    message = read(notice("发送完成。\n"))
    assert message.get_content_type() == "text/plain"
    assert message.get_content() == "发送完成。\r\n"


def test_no_text_at_all() -> None:
    with pytest.raises(ValueError, match="needs a text"):
        compose(notice(""))


def test_placeholders_are_escaped_in_html_and_raw_in_text() -> None:
    message = read(mail())
    assert f'<a href="{VIEW.replace("&", "&amp;")}">' in text_of(message, "html")
    assert f"在浏览器中查看：{VIEW}" in text_of(message, "plain")
    assert UNSUBSCRIBE in text_of(message, "html")
    assert "__VIEW_URL__" not in text_of(message, "html") + text_of(message, "plain")


def test_a_value_is_not_searched_for_placeholders() -> None:
    values = {"__UNSUBSCRIBE_URL__": UNSUBSCRIBE, "__VIEW_URL__": "https://example.com/__UNSUBSCRIBE_URL__"}
    assert "https://example.com/__UNSUBSCRIBE_URL__" in text_of(read(mail(values=values)), "plain")


@pytest.mark.parametrize("before", ["", "一", "ab", "x" * 57])
@pytest.mark.parametrize("between", ["", ",", "与", "y" * 200])
def test_values_of_any_length_between_texts_of_any_length(before: str, between: str) -> None:
    for first, second in product(("", "a", "ab", "abc", "中", "z" * 100), repeat=2):
        parcel = mail(
            html="",
            text=f"{before}__A__{between}__B____A__!",
            placeholders=("__A__", "__B__"),
            values={"__A__": first, "__B__": second},
        )
        assert read(parcel).get_content() == f"{before}{first}{between}{second}{first}!"
        assert max(map(len, compose(parcel).split(b"\r\n"))) <= 78


TEXTS = st.text(alphabet=st.sampled_from("a.b 中\U0001f600<>&\"'\n="), max_size=130)
NAMES = st.sampled_from(["__UNSUBSCRIBE_URL__", "__VIEW_URL__", "__NAME__"])
#: Names, with the text in front of each and the one at the end; often nothing stands between two of them.
TEMPLATES = st.tuples(st.lists(st.tuples(TEXTS, NAMES), max_size=6), TEXTS.map(lambda text: f"{text}."))
URLS = st.text(alphabet="abc/?&'=%", max_size=150).map(lambda path: f"https://news.example.com/{path}")


def filled(template: tuple[list[tuple[str, str]], str], values: Mapping[str, str]) -> str:
    """The template's text with names replaced; without values, the template as it is frozen."""
    pairs, end = template
    return "".join(text.replace("\n", "\r\n") + values.get(name, name) for text, name in pairs) + end.replace(
        "\n", "\r\n"
    )


@given(text=TEMPLATES, html=TEMPLATES, readers=st.lists(st.tuples(URLS, URLS, TEXTS), min_size=1, max_size=4))
def test_what_is_decoded_is_the_frozen_text_with_the_values_filled_in(
    text: tuple[list[tuple[str, str]], str],
    html: tuple[list[tuple[str, str]], str],
    readers: list[tuple[str, str, str]],
) -> None:
    base = mail(
        text=filled(text, {}),
        html=filled(html, {}),
        placeholders=("__UNSUBSCRIBE_URL__", "__VIEW_URL__", "__NAME__"),
    )
    for reader in readers:
        values = dict(zip(base.message.placeholders, reader, strict=True))
        parcel = base._replace(values=values)
        message = read(parcel)
        escaped = {name: escape(value) for name, value in values.items()}
        assert decoded(message, "plain") == filled(text, values)
        assert decoded(message, "html") == filled(html, escaped)
        assert [part.defects for part in message.walk()] == [[], [], []]
        lines = compose(parcel).split(b"\r\n")
        assert not [line for line in lines if line.startswith(b".")], "nothing needs stuffing"
        assert max(map(len, lines)) <= 998
        body = compose(parcel).partition(b"\r\n\r\n")[2]
        assert max(map(len, body.split(b"\r\n"))) <= 76


def test_what_readers_share_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parcel = mail(title="encoded once")
    compose(parcel)
    encoded: list[bytes] = []

    def watched(data: bytes, *, newline: bool) -> bytes:
        encoded.append(data)
        return b2a_base64(data, newline=newline)

    monkeypatch.setattr(mime, "b2a_base64", watched)
    compose(parcel._replace(identity=DeliveryId(7, 43)))
    assert len(encoded) == 2, "the reader's own link, in either part"
    assert all(len(data) <= len(UNSUBSCRIBE) + 4 for data in encoded)


def test_equal_messages_with_other_values_do_not_mix() -> None:
    one = mail()
    views = ["https://news.example.com/v/1", "https://news.example.com/v/2"]
    parcels = [one._replace(values={**one.values, "__VIEW_URL__": view}) for view in views] * 2
    parcels.append(one._replace(values=dict(sorted(one.values.items(), reverse=True))))
    shown = [text_of(read(parcel), "plain").split("查看：")[1].split("\r\n")[0] for parcel in parcels]
    assert shown == [*views, *views, VIEW]


@pytest.mark.parametrize("hours", [0, 8])
def test_moments_that_are_equal_are_written_in_their_own_zone(hours: int) -> None:
    moment = SENT_DATE.astimezone(timezone(timedelta(hours=hours)))
    assert raw_header(mail()._replace(sent_date=moment), "Date") == format_datetime(moment)


def test_message_id_is_the_one_that_older_workers_made() -> None:
    expected = "<7.42.0.1fc3550db34fee71ae5b56a3@news.example.com>"
    assert raw_header(mail(), "Message-ID") == expected


@pytest.mark.parametrize("parcel", [mail(text="a __VIEW\x00_URL__ b"), mail(html="a __VIEW\x85_URL__ b")])
def test_placeholder_with_a_control_character_inside(parcel: Parcel) -> None:
    with pytest.raises(ValueError, match="inside a placeholder"):
        compose(parcel)


@pytest.mark.parametrize(
    "parcel",
    [
        mail(subject=".", from_name="." * 90, list_id="..a"),
        mail(subject=". " * 200, address="a.b@example.net"),
        mail(subject="." * 300 + "中"),
    ],
)
def test_no_header_line_begins_with_a_dot(parcel: Parcel) -> None:
    assert b"\n." not in compose(parcel)


def test_write_gives_the_envelope_too() -> None:
    assert write(mail(address="info@例子.测试")) == (
        "daily@news.example.com",
        "info@xn--fsqu00a.xn--0zwm56d",
        compose(mail(address="info@例子.测试")),
    )


def test_missing_value() -> None:
    with pytest.raises(ValueError, match="no value for the placeholder __VIEW_URL__"):
        compose(mail(values={"__UNSUBSCRIBE_URL__": UNSUBSCRIBE}))


def test_a_value_that_was_not_announced_is_filled_in_too() -> None:
    parcel = mail(text="__NAME__，早上好", placeholders=(), values={"__NAME__": "读者"}, html="")
    assert read(parcel).get_content() == "读者，早上好"


def test_placeholder_in_the_subject() -> None:
    with pytest.raises(ValueError, match="the subject must be the same for everybody"):
        compose(mail(subject="__VIEW_URL__"))


def test_same_parcel_same_bytes() -> None:
    assert compose(mail()) == compose(mail())


def test_message_id_repeats_for_a_retry_and_differs_otherwise() -> None:
    base = mail()
    others = [
        resent(base),
        mail(identity=DeliveryId(7, 43)),
        mail(identity=DeliveryId(8, 42)),
        mail(newsletter="other"),
        mail(address="second@example.net"),
        base._replace(sent_date=SENT_DATE + timedelta(minutes=5)),
    ]
    ids = [str(read(parcel)["Message-ID"]) for parcel in (base, *others)]
    assert str(read(mail())["Message-ID"]) == ids[0]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"<[\w.]+@news\.example\.com>", message_id) for message_id in ids)


@pytest.mark.parametrize(
    "parcel",
    [
        mail(subject="Hello\r\nBcc: all@example.com"),
        mail(subject="Hello\n"),
        mail(subject="Hello\x00"),
        mail(from_name="Daily\r\nBcc: all@example.com"),
        mail(from_address="daily@example.com\r\nBcc: all@example.com"),
        mail(reply_to="a@example.com, b@example.com"),
        mail(address="a@example.net\r\nBcc: all@example.com"),
        mail(address="a@example.net\n"),
        mail(address="a@example.net, b@example.net"),
        mail(address="<a@example.net>"),
        mail(address="no-at-sign"),
        mail(list_id="x\r\nBcc: all@example.com"),
        mail(values={"__UNSUBSCRIBE_URL__": "https://example.com/\r\nBcc: x@y.z", "__VIEW_URL__": VIEW}),
        mail(values={"__UNSUBSCRIBE_URL__": "https://example.com/>,<mailto:x@y.z", "__VIEW_URL__": VIEW}),
        mail(values={"__UNSUBSCRIBE_URL__": "javascript:alert(1)", "__VIEW_URL__": VIEW}),
    ],
)
def test_nothing_enters_a_header(parcel: Parcel) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        compose(parcel)


@pytest.mark.parametrize("newsletter", ["新闻", "a b", "a\r\nb"])
def test_a_name_that_is_no_token_is_digested_in_the_feedback_id(newsletter: str) -> None:
    parcel = mail(newsletter=newsletter, list_id="daily.example.org", slug="二〇二六")
    assert re.fullmatch(
        r"[0-9a-f]{12}:[0-9a-f]{12}:newsletter:news-example-co", raw_header(parcel, "Feedback-ID")
    )


def test_control_characters_are_left_out_of_the_body() -> None:
    assert text_of(read(mail(text="a\x00b\x85c\x0bd\te")), "plain") == "abcd\te"


@pytest.mark.parametrize(
    ("address", "ascii_form"),
    [("a.b+c@example.com", "a.b+c@example.com"), ("info@例子.测试", "info@xn--fsqu00a.xn--0zwm56d")],
)
def test_ascii_address(address: str, ascii_form: str) -> None:
    assert ascii_address(address) == ascii_form


def test_local_part_must_be_ascii() -> None:
    with pytest.raises(ValueError, match="before the @-sign"):
        ascii_address("张三@example.com")
