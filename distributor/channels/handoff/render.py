"""The pack that a person gets: what to post where, in words that can be pasted, with the picture's address.

By mail it is one message; in a chat it is two, so that the second one, copied whole, is what to post. Each message holds
what the channel it goes over needs; the transport adds the delivery's number, which nobody knows before it is sent.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

from distributor.channels.wecom.dialects import DIALECTS
from distributor.channels.wecom.digest import digest_of, fit
from distributor.model import Message, Post
from distributor.rendering import headline, language_of, local_day, outline, parse, utf8_bytes
from distributor.settings import HandoffDestination, Newsletter

#: UTF-8 bytes of the text to paste; a robot takes no more, and elsewhere more would not be read in a chat.
LIMITS: Mapping[str, int] = {"email": 4096, "telegram": 4096, "wecom": 2048}
LONGEST_ADDRESS = 1024
RULE = "─" * 12


@dataclass(frozen=True, kw_only=True)
class Words:
    """What a person is told around the text, in the newsletter's language."""

    subject: str
    between_lines: str
    next_message: str
    picture: str
    settle: str


WORDS: Mapping[str, Words] = {
    "zh-CN": Words(
        subject="请发到「{place}」：{title}",
        between_lines="请把横线之间的文字发到「{place}」。",
        next_message="请把下一条消息发到「{place}」。",
        picture="配图：{address}",
        settle="发好之后登记：\n  distributor resolve {delivery} --sent\n决定不发：\n  distributor resolve {delivery} --not-sent",
    ),
    "en": Words(
        subject="To post in “{place}”: {title}",
        between_lines="Please post the text between the lines in “{place}”.",
        next_message="Please post the next message in “{place}”.",
        picture="The picture: {address}",
        settle="Once it is out:\n  distributor resolve {delivery} --sent\n"
        "If it will not be:\n  distributor resolve {delivery} --not-sent",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Pack:
    """What one place needs. `text` is what to paste."""

    place: HandoffDestination
    words: Words
    title: str
    picture: str
    text: str
    day: str

    def told(self, task: str) -> str:
        """What to do, without how to settle it."""
        picture = [self.words.picture.format(address=self.picture)] if self.picture else []
        return "\n".join([task.format(place=self.place.title), *picture])


def render_handoff(post: Post, newsletter: Newsletter) -> list[Message]:
    """A pack for each place, in one part or two. Raises PostError."""
    table = newsletter.channel_settings.handoff
    document = parse(post)
    skeleton = outline(document)
    messages: list[Message] = []
    for place in table.destinations if table else ():
        dialect = replace(DIALECTS["text"], limit=LIMITS[place.via])
        pack = Pack(
            place=place,
            words=WORDS[language_of(post, newsletter)],
            title=headline(post),
            picture=_usable(post.cover_image or ""),
            text=fit(digest_of(post, skeleton, newsletter, dialect)),
            day=str(local_day(post, newsletter) or post.slug),
        )
        parts = list(_WRITERS[place.via](pack, newsletter))
        messages += [
            _message(pack, content, number, len(parts), document.warnings)
            for number, content in enumerate(parts, 1)
        ]
    return messages


def _usable(address: str) -> str:
    """The picture's address, unless it alone would fill a message."""
    return address if utf8_bytes(address) <= LONGEST_ADDRESS else ""


def _message(
    pack: Pack, content: Mapping[str, str], part: int, parts: int, warnings: Sequence[str]
) -> Message:
    """`settle` is written below the part that says what to do."""
    settle = {"settle": pack.words.settle} if part == 1 else {}
    return Message(
        channel="handoff",
        variant=pack.place.name,
        content={
            "via": pack.place.via,
            "to": pack.place.to,
            "place": pack.place.title,
            **settle,
            **content,
        },
        part=part,
        parts=parts,
        warnings=warnings,
    )


Content = Mapping[str, str]


def _mail(pack: Pack, newsletter: Newsletter) -> Iterator[Content]:
    sender = newsletter.sender
    yield {
        "subject": pack.words.subject.format(place=pack.place.title, title=pack.title),
        "text": f"{pack.told(pack.words.between_lines)}\n\n{RULE}\n\n{pack.text}\n\n{RULE}",
        "from_name": sender.name,
        "from_address": sender.address,
        "reply_to": sender.reply_to or sender.address,
        "language": newsletter.language,
        "newsletter": newsletter.slug,
        "title": newsletter.title,
        "list_id": "",
        "slug": f"handoff-{pack.place.name}-{pack.day}",
    }


def _telegram(pack: Pack, _newsletter: Newsletter) -> Iterator[Content]:
    for text in (pack.told(pack.words.next_message), pack.text):
        yield {"html": escape(text, quote=False), "plain": text, "preview_url": ""}


def _robot(pack: Pack, _newsletter: Newsletter) -> Iterator[Content]:
    for text in (pack.told(pack.words.next_message), pack.text):
        yield {"text": text}


_WRITERS: Mapping[str, Callable[[Pack, Newsletter], Iterator[Content]]] = {
    "email": _mail,
    "telegram": _telegram,
    "wecom": _robot,
}
