"""The words a reader agrees to, with their version."""

from collections.abc import Sequence

from jinja2 import Environment

from distributor.model import ConsentText
from distributor.settings import Newsletter


def consent_text(
    newsletters: Sequence[Newsletter],
    language: str,
    templates: Environment,
    channel: str = "email",
    *,
    ticked: bool = False,
) -> ConsentText:
    """The consent to get these newsletters (one or more; the first one's sender asks for it).

    `ticked`: those of them that the reader ticks; the words name none, and are the same whatever is ticked.
    """
    sender = newsletters[0].sender
    text = templates.get_template(f"consent/{language}.txt.j2").render(
        sender=sender.name,
        contact=sender.contact,
        titles=[] if ticked else [newsletter.title for newsletter in newsletters],
        channel=channel,
    )
    return ConsentText.of(text.strip(), language)
