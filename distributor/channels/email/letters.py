"""Mails outside an issue: confirm, welcome, goodbye, and what the operator is told."""

from collections.abc import Mapping
from dataclasses import dataclass

from jinja2 import Environment

from distributor.channels.email.render import (
    PREFERENCES_URL,
    UNSUBSCRIBE_URL,
    envelope_content,
    frame_facts,
    inline_css,
)
from distributor.channels.email.theme import theme_facts
from distributor.channels.email.words import WORDS, Words
from distributor.model import Letter, Message
from distributor.rendering import CONTROLS, WORDING, wrap
from distributor.settings import Newsletter, Theme

CONFIRM_URL = "__CONFIRM_URL__"
SUBSCRIBE_URL = "__SUBSCRIBE_URL__"


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """One letter: fields of `Words`, and where its button leads."""

    subject: str
    title: str
    paragraphs: tuple[str, ...]
    why: str
    button: str = ""
    address: str = ""
    copy_link: bool = False  # the address also in the open: a confirmation must not fail with a button
    unsubscribe: bool = False

    @property
    def placeholders(self) -> tuple[str, ...]:
        also = (UNSUBSCRIBE_URL, PREFERENCES_URL) if self.unsubscribe else ()
        return (*((self.address,) if self.address else ()), *also)


PLANS: Mapping[Letter, _Plan] = {
    Letter.CONFIRM: _Plan(
        subject="confirm_subject",
        title="confirm_title",
        paragraphs=("confirm", "confirm_ignore"),
        why="confirm_why",
        button="confirm_button",
        address=CONFIRM_URL,
        copy_link=True,
    ),
    Letter.REMIND: _Plan(
        subject="remind_subject",
        title="confirm_title",
        paragraphs=("remind", "confirm_ignore"),
        why="confirm_why",
        button="confirm_button",
        address=CONFIRM_URL,
        copy_link=True,
    ),
    Letter.WELCOME: _Plan(
        subject="welcome_subject",
        title="welcome_title",
        paragraphs=("welcome", "welcome_when"),
        why="why",
        unsubscribe=True,
    ),
    Letter.GOODBYE: _Plan(
        subject="goodbye_subject",
        title="goodbye_title",
        paragraphs=("goodbye", "goodbye_mistake"),
        why="goodbye_why",
        button="goodbye_button",
        address=SUBSCRIBE_URL,
    ),
}


def render_letter(
    letter: Letter, newsletter: Newsletter, templates: Environment, language: str = ""
) -> Message:
    """A letter in this language, or the newsletter's; its placeholders are those of its plan."""
    language = language or newsletter.language
    plan, words = PLANS[letter], WORDS[language]
    said = {
        "title": newsletter.title,
        "time": f"{newsletter.schedule.time:%H:%M}",
        "address": newsletter.sender.address,
    }
    title, subject = _said(words, plan.title, said), _said(words, plan.subject, said)
    facts = {
        **frame_facts(newsletter, language),
        "subject": subject,
        "title": title,
        "date": "",
        "preheader": _said(words, plan.paragraphs[0], said),
        "paragraphs": [_said(words, name, said) for name in plan.paragraphs],
        "action": _said(words, plan.button, said) if plan.button else "",
        "action_url": plan.address,
        "copy_link": plan.copy_link,
        "why": _said(words, plan.why, said),
        "unsubscribe_url": UNSUBSCRIBE_URL if plan.unsubscribe else "",
        "preferences_url": PREFERENCES_URL,
    }
    return Message(
        channel="email",
        variant=letter.value,
        content={
            **envelope_content(newsletter, language),
            "subject": subject,
            "html": inline_css(templates.get_template(f"email/{letter}.html.j2").render(facts)),
            "text": templates.get_template(f"email/{letter}.txt.j2").render(facts),
            "slug": letter.value,
        },
        placeholders=plan.placeholders,
    )


def render_alert(subject: str, body: str, templates: Environment) -> Mapping[str, str]:
    """The operator's mail as `html` and `text`; `body` is plain text, its empty lines part paragraphs."""
    lines = CONTROLS.sub("", body).strip()
    facts = {
        **theme_facts(Theme()),
        "language": "en",
        "words": WORDS["en"],
        "wording": WORDING["en"],
        "newsletter": "distributor",
        "subject": subject,
        "title": subject,
        "date": "",
        "preheader": lines.partition("\n")[0],
        "paragraphs": [paragraph.split("\n") for paragraph in lines.split("\n\n") if paragraph.strip()],
        "why": "You receive this because your address is a route of [operator] in the settings.",
        "wrap": wrap,
    }
    return {
        "html": inline_css(templates.get_template("email/alert.html.j2").render(facts)),
        "text": templates.get_template("email/alert.txt.j2").render(facts),
    }


def _said(words: Words, name: str, values: Mapping[str, str]) -> str:
    template: str = getattr(words, name)
    return template.format(**values)
