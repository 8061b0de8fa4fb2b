"""What the post became on each channel, and what its renderer had to say."""

import re
from collections.abc import Iterator

from distributor.preflight.findings import Said
from distributor.preflight.proof import Proof
from distributor.rendering import WORDING, language_of

MOST_PARTS = 3


def many_parts(proof: Proof) -> Iterator[Said]:
    """In a chat every part is a notification."""
    parts = max((message.parts for message in proof.messages if message.channel == "telegram"), default=0)
    if parts > MOST_PARTS:
        yield Said(None, f"Telegram gets {parts} messages")


def items_left_out(proof: Proof) -> Iterator[Said]:
    """Told once: the dialects of a robot have the same items."""
    wording = WORDING[language_of(proof.post, proof.newsletter)].items_in_all
    pattern = re.compile(re.escape(wording).replace(re.escape("{count}"), r"\d+"))
    texts = [
        text for message in proof.messages if message.channel == "wecom" for text in message.content.values()
    ]
    if found := next((match[0] for text in texts if (match := pattern.search(text))), None):
        yield Said(None, f"WeCom has no room for all items: {found}")


def said_by_renderers(proof: Proof) -> Iterator[Said]:
    """Once, whichever channels say it; a renderer that names the file and line has them taken from its words."""
    place = re.compile(rf"{re.escape(str(proof.post.path))}(?::(\d+))?: ")
    for warning in dict.fromkeys(text for message in proof.messages for text in message.warnings):
        match = place.match(warning)
        line = int(match[1]) if match and match[1] else None
        yield Said(line, warning[match.end() :] if match else warning)
