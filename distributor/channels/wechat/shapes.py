"""What an answer must hold to be of use, by interface. A `null` is as good as nothing; what is not named here is not looked at."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

#: WeChat writes some as numbers.
Id = Annotated[str, Field(min_length=1)]


class Shape(BaseModel):
    """An answer, or a part of one."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, answer: object) -> object:
        if not isinstance(answer, dict):
            return answer
        return {name: value for name, value in answer.items() if value is not None}


class NewToken(Shape):
    """stable_token; `expires_in` in seconds."""

    access_token: Id
    expires_in: int = Field(ge=0, le=10_000_000)


class Uploaded(Shape):
    """media/uploadimg: the picture's address at WeChat."""

    url: Id


class Kept(Shape):
    """material/add_material and draft/add."""

    media_id: Id


class Left(Shape):
    """Of the day's calls of an interface."""

    remain: int = 1


class Quota(Shape):
    """openapi/quota/get."""

    quota: Left = Left()


class Submitted(Shape):
    """freepublish/submit."""

    publish_id: Id


class Progress(Shape):
    """freepublish/get: 0 is done, 1 is under way, the others are in PUBLISH_STATUSES."""

    publish_status: int = 1
    article_id: str = ""


class HandedIn(Shape):
    """mass/sendall. The errcode says all; an odd `msg_id` makes no message unsent."""

    errcode: int = 0
    msg_id: object = ""


class Articles(Shape):
    """The articles of one draft or publication."""

    news_item: tuple[dict[str, object], ...] = ()


class Item(Shape):
    """A draft, with a `media_id`, or a publication, with an `article_id`; `update_time` in seconds."""

    media_id: str = ""
    article_id: str = ""
    update_time: float = 0.0
    content: Articles = Articles()


class Listing(Shape):
    """draft/batchget and freepublish/batchget."""

    item: tuple[Item, ...] = ()
