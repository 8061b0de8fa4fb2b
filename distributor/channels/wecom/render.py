"""A post as WeCom group messages: a digest in each dialect of a robot, and a card.

A message's variant is the robot's mode, and what its destination asks for besides: "markdown_v2", "text+split+all".
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from urllib.parse import quote

from distributor.channels.wecom.dialects import DIALECTS, Dialect
from distributor.channels.wecom.digest import ADDRESS, MOST_ITEMS, digest_of, fit, split, usable_address
from distributor.errors import PostError
from distributor.model import Message, Post
from distributor.rendering import (
    Outline,
    ai_label,
    cut_text,
    headline,
    outline,
    parse,
    summary_of,
    utf8_bytes,
    web_address,
)
from distributor.settings import Newsletter, WecomDestination

__all__ = ["DIALECTS", "NEWS_DESCRIPTION", "NEWS_TITLE", "Dialect", "mode_of", "render_wecom", "variant_of"]

#: Bytes of a card's texts. WeCom cuts what is longer, in the middle of a word.
NEWS_TITLE, NEWS_DESCRIPTION = 128, 512
SPLIT, ALL = "split", "all"


def variant_of(robot: WecomDestination) -> str:
    """Which of the messages a robot gets."""
    asked = [SPLIT] * (robot.overflow == "split") + [ALL] * robot.mention_all
    return "+".join([robot.mode, *asked])


def mode_of(variant: str) -> str:
    """WeCom's msgtype of a variant."""
    return variant.partition("+")[0]


def render_wecom(post: Post, newsletter: Newsletter) -> list[Message]:
    """A message in each dialect, a card when the full text has an address, and what the robots ask for besides.

    Raises PostError, also when a robot sends cards and there is nothing to link to.
    """
    document = parse(post)
    robots = newsletter.channel_settings.wecom.destinations if newsletter.channel_settings.wecom else ()
    wanted = [variant_of(robot) for robot in robots]
    _refuse_card_without_address(post, newsletter, robots)
    variants = dict.fromkeys([*DIALECTS, *(["news"] if web_address(post, newsletter) else []), *wanted])
    warnings, skeleton = [*document.warnings, *_address_warnings(post, newsletter)], outline(document)
    return [
        replace(message, warnings=warnings)
        for variant in variants
        for message in _messages(variant, post, skeleton, newsletter)
    ]


def _messages(variant: str, post: Post, skeleton: Outline, newsletter: Newsletter) -> Iterator[Message]:
    mode, *asked = variant.split("+")
    if mode == "news":
        yield Message(channel="wecom", variant=variant, content=_card(post, skeleton, newsletter))
        return
    in_parts = SPLIT in asked
    digest = digest_of(post, skeleton, newsletter, DIALECTS[mode], None if in_parts else MOST_ITEMS)
    texts = split(digest) if in_parts else [fit(digest)]
    for part, text in enumerate(texts, 1):
        mentioned = {"mentioned": "@all"} if ALL in asked and part == 1 else {}
        yield Message(
            channel="wecom",
            variant=variant,
            content={DIALECTS[mode].key: text, **mentioned},
            part=part,
            parts=len(texts),
        )


def _card(post: Post, skeleton: Outline, newsletter: Newsletter) -> dict[str, str]:
    label = ai_label(post, newsletter)
    below = f"\n{label}" if label else ""
    words = summary_of(post, skeleton, NEWS_DESCRIPTION - utf8_bytes(below), utf8_bytes)
    card = {
        "title": cut_text(headline(post) or newsletter.title, NEWS_TITLE, utf8_bytes),
        "description": (words + below).strip(),
        "url": web_address(post, newsletter) or "",
    }
    if post.cover_image:
        card["picurl"] = quote(post.cover_image, safe=":/?#[]@!$&'()*+,;=%~")
    return card


def _refuse_card_without_address(
    post: Post, newsletter: Newsletter, robots: Sequence[WecomDestination]
) -> None:
    cards = [robot.name for robot in robots if robot.mode == "news"]
    if cards and not web_address(post, newsletter):
        raise PostError(
            post.path,
            f"the WeCom robot {cards[0]!r} sends a card, and a card must lead somewhere: set `url` in the post or "
            f"`url_pattern` in config/newsletters/{newsletter.slug}.toml, or give the robot another `mode`",
        )


def _address_warnings(post: Post, newsletter: Newsletter) -> list[str]:
    address = web_address(post, newsletter)
    if not address:
        return [f"{post.path}: no address for the full text: set `url` or `url_pattern`"]
    if not usable_address(address):
        return [f"{post.path}: the address of the full text is longer than {ADDRESS} bytes and is left out"]
    return []
