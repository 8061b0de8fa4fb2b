"""What stands around a post on Telegram alone, in the newsletter's language."""

from collections.abc import Mapping
from dataclasses import dataclass

#: Where the address of a part belongs, in the part that is an edit: the renderer writes it, the transport fills it in.
PART_ADDRESS = "__PART_{}_ADDRESS__"


@dataclass(frozen=True, kw_only=True)
class Words:
    """`joint` stands between a name and its value; `picture` is what a picture without a text is called."""

    contents: str
    joint: str
    picture: str
    media: str


WORDS: Mapping[str, Words] = {
    "zh-CN": Words(contents="目录", joint="：", picture="图片", media="音视频"),
    "en": Words(contents="Contents", joint=": ", picture="picture", media="media"),
}
