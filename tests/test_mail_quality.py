"""Our mails before the judges of others: HTML validators, what mail clients support, SpamAssassin."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pytest
from mails import html_of, mail_of, sample_mails
from quality.judges import html_judgements, spamassassin
from services import started_or_skipped

#: html-validate's rules that a mail has to break, and why.
ALLOWED_RULES = {
    "no-inline-style": "Gmail drops style sheets for other accounts: a mail must be complete with inline styles",
    "no-deprecated-attr": "Outlook for Windows lays out by align, valign, width, border, cellpadding",
    "no-conditional-comment": "Outlook for Windows is told its width and fonts there",
    "prefer-tbody": "mail clients add none, and our tables are layout",
    "presentation-role-style": "both words mean the same; mail clients know the older one",
}

#: Features that a client lacks and a mail uses all the same: what that client's reader sees instead.
ALLOWED_FEATURES = {
    "<body> element": "renamed by some; our backdrop stands on a table cell as well",
    "<style> element": "improves only: Gmail's mobile webmail drops it, and the inline styles are complete",
    "@media": "the same: narrow screens and dark mode are improvements",
    "Attribute selector": "[data-ogsc] is there for Outlook on the web alone",
    "Class selector": "in the improving style sheet alone",
    "Descendant combinator": "the same",
    "Type selector": "the same",
    "aria-hidden attribute": "on the preheader, which is hidden by other means too",
    "border-radius": "corners are square there",
    "color-scheme meta tag": "asks for our own dark colours; others invert, and our colours survive that",
    "display:none": "the preheader is also cut by max-height, overflow and mso-hide",
    "height property": "pictures have width attributes",
    "max-height property": "a second lock on the preheader",
    "overflow": "the same",
    "overflow-wrap": "long words may overhang; addresses in the open are rare",
    "role attribute": "layout tables are announced as tables there",
    "white-space": "long lines of code may overhang",
    "word-break": "the same",
}


#: SpamAssassin's rules that may give points, and why: any other is a fault of ours.
ALLOWED_SPAM_RULES = {
    "HTML_OBFUSCATE_05_10": "counts a tag between characters without a blank, and Chinese writes none around emphasis",
}


@pytest.fixture(scope="module")
def judgements() -> Mapping[str, Any]:
    return started_or_skipped(
        lambda: html_judgements({name: html_of(mail) for name, mail in sample_mails().items()})
    )


def test_every_mail_is_judged(judgements: Mapping[str, Any]) -> None:
    assert set(judgements) == set(sample_mails())
    # A judge that has nothing to say of inline styles has not looked.
    assert all(any(m["rule"] == "no-inline-style" for m in j["validate"]) for j in judgements.values())


def test_html_validate_finds_nothing_that_is_not_meant(judgements: Mapping[str, Any]) -> None:
    found = {
        f"{name}:{m['line']}:{m['column']} {m['rule']}: {m['message']}"
        for name, judged in judgements.items()
        for m in judged["validate"]
        if m["rule"] not in ALLOWED_RULES
    }
    assert not found


def test_no_mail_uses_what_clients_lack_without_a_reason(judgements: Mapping[str, Any]) -> None:
    lacking = defaultdict(set)
    for judged in judgements.values():
        for one in judged["clients"]:
            if one["kind"] == "errors" and one["title"] not in ALLOWED_FEATURES:
                lacking[one["title"]].add(one["client"])
    assert not lacking


def test_nothing_is_allowed_that_no_mail_needs(judgements: Mapping[str, Any]) -> None:
    rules = {m["rule"] for judged in judgements.values() for m in judged["validate"]}
    features = {one["title"] for judged in judgements.values() for one in judged["clients"]}
    assert set(ALLOWED_RULES) <= rules
    assert set(ALLOWED_FEATURES) <= features


def test_a_fault_would_be_found() -> None:
    bad = '<!DOCTYPE html><html lang="en"><head><title>t</title></head><body><img src="https://e.com/a.png"></body></html>'
    judged = started_or_skipped(lambda: html_judgements({"bad": bad}))["bad"]
    assert "wcag/h37" in {m["rule"] for m in judged["validate"]}


@pytest.mark.parametrize("name", ["issue", "confirm", "welcome", "goodbye", "confirm-en", "alert"])
def test_spamassassin_has_no_complaint(name: str) -> None:
    points = started_or_skipped(lambda: spamassassin(mail_of(sample_mails()[name])))
    assert "HTML_MESSAGE" in points  # it has looked
    assert {rule for rule, value in points.items() if value > 0} <= set(ALLOWED_SPAM_RULES)
