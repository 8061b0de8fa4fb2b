"""Mails outside an issue, and the colours of all of them."""

import re
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default

import pytest
from pydantic import ValidationError
from rendering_samples import make_newsletter

from distributor.channels.email.letters import (
    CONFIRM_URL,
    PLANS,
    SUBSCRIBE_URL,
    render_alert,
    render_letter,
)
from distributor.channels.email.mime import compose
from distributor.channels.email.render import PREFERENCES_URL, UNSUBSCRIBE_URL
from distributor.channels.email.theme import PAIRS, palettes, theme_facts
from distributor.colours import HEX, READABLE, contrast, lightened
from distributor.model import DeliveryId, Letter, Parcel, Recipient
from distributor.preview import sample_values
from distributor.rendering import template_environment
from distributor.settings import Theme

TEMPLATES = template_environment()


@pytest.mark.parametrize("language", ["zh-CN", "en"])
@pytest.mark.parametrize("letter", Letter)
def test_a_letter_is_a_mail_of_two_parts_that_say_the_same(letter: Letter, language: str) -> None:
    message = render_letter(letter, make_newsletter(language=language, title="N & Co"), TEMPLATES)
    parcel = Parcel(
        message=message,
        recipient=Recipient(channel="email", address="reader@example.com"),
        identity=DeliveryId(0, 1),
        sent_date=datetime(2026, 3, 5, tzinfo=UTC),
        values=sample_values(message),
    )
    parsed = message_from_bytes(compose(parcel), policy=default)
    assert not parsed.defects
    html, text = message.content["html"], message.content["text"]
    assert f'lang="{language}"' in html
    assert "N &amp; Co" in html
    assert "N & Co" in text
    assert "{" not in text
    for name in message.placeholders:
        assert name in html
        assert name in text


def test_only_the_letter_to_a_reader_can_be_unsubscribed_from() -> None:
    assert PLANS[Letter.WELCOME].placeholders == (UNSUBSCRIBE_URL, PREFERENCES_URL)
    assert PLANS[Letter.CONFIRM].placeholders == (CONFIRM_URL,)
    assert PLANS[Letter.GOODBYE].placeholders == (SUBSCRIBE_URL,)


def test_a_confirmation_can_be_copied_when_its_button_fails() -> None:
    message = render_letter(Letter.CONFIRM, make_newsletter(), TEMPLATES)
    assert message.content["subject"] == "请确认您的订阅"
    assert ">请确认订阅《晨间简报》</h1>" in message.content["html"]
    assert f"<br>{CONFIRM_URL}" in message.content["html"]
    assert "忽略这封邮件" in message.content["text"]


def test_an_alert_keeps_its_lines_and_is_escaped() -> None:
    parts = render_alert("relay <down>", "first\nrun: distributor resume\n\nsecond & last\x07", TEMPLATES)
    assert "relay &lt;down&gt;" in parts["html"]
    assert re.search(r"first<br>\s*run: distributor resume</p>", parts["html"])
    assert "second &amp; last</p>" in parts["html"]
    assert "first\nrun: distributor resume\n\nsecond & last\n" in parts["text"]


# Colours


@pytest.mark.parametrize("theme", [Theme(), Theme(accent="#0a6b3d", link="#5b21b6"), Theme(accent="#000000")])
def test_every_text_can_be_read_in_light_and_dark(theme: Theme) -> None:
    for name, palette in palettes(theme).items():
        for text, background in PAIRS:
            ratio = contrast(getattr(palette, text), getattr(palette, background))
            assert ratio >= READABLE, (name, text, background, ratio)


def test_style_sheets_use_no_colour_of_their_own() -> None:
    known = {colour for palette in palettes(Theme()).values() for colour in vars(palette).values()}
    for name in ("style", "enhanced"):
        css = TEMPLATES.get_template(f"email/partials/{name}.css.j2").render(theme_facts(Theme()))
        assert set(HEX.findall(css)) <= known


def test_a_theme_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValidationError, match="too pale to read"):
        Theme(accent="#ffcc00")
    with pytest.raises(ValidationError, match="expected a colour"):
        Theme(link="red")
    with pytest.raises(ValidationError, match="full https"):
        Theme(logo="http://example.com/logo.png")
    with pytest.raises(ValidationError, match="names of fonts"):
        Theme(font="Arial; } body { display: none")


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert contrast(lightened("#b3261e", "#262c33"), "#262c33") >= READABLE


def test_a_logo_takes_the_place_of_the_name() -> None:
    newsletter = make_newsletter(theme={"logo": "https://example.com/logo.png", "logo_width": 160})
    html = render_letter(Letter.CONFIRM, newsletter, TEMPLATES).content["html"]
    assert re.search(r'<img class="logo" src="https://example.com/logo.png" alt="晨间简报" width="160"', html)
