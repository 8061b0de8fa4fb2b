"""The words a reader agrees to, with their version."""

import hashlib
from collections.abc import Sequence

from jinja2 import Environment

from distributor.model import ConsentText
from distributor.settings import Newsletter

#: Digits of the SHA-256 that name a version.
VERSION = 16


def consent_text(
    newsletters: Sequence[Newsletter], language: str, templates: Environment, channel: str = "email"
) -> ConsentText:
    """The consent to get these newsletters (one or more; the first one's sender asks for it)."""
    sender = newsletters[0].sender
    text = templates.get_template(f"consent/{language}.txt.j2").render(
        sender=sender.name,
        contact=sender.contact,
        titles=[newsletter.title for newsletter in newsletters],
        channel=channel,
    )
    words = text.strip()
    return ConsentText(
        version=hashlib.sha256(words.encode()).hexdigest()[:VERSION], language=language, text=words
    )
