"""The body of a sign-up webhook: JSON, or the form that a site builder posts, read into one schema."""

import ipaddress
import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import parse_qsl

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser

from distributor.audience import normalise
from distributor.dispatch.subscribing import LONGEST_ADDRESS, LONGEST_NAME
from distributor.errors import RequestRefused
from distributor.web.fields import CLEAN, wrong_fields
from distributor.web.problems import Problem, Wrong

JSON = "application/json"
URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"

#: Levels of JSON, fields of a form, tags and attributes: more than a sign-up has.
DEEPEST, MOST_FIELDS, MOST_TAGS = 8, 100, 20
#: `attributes[city]` and `attributes.city`, as forms write a table.
ATTRIBUTE = re.compile(r"attributes(?:\[(.+)\]|\.(.+))", re.IGNORECASE)
LISTS = ("newsletters", "tags")


def _address(value: str) -> str:
    try:
        return normalise("email", value)
    except RequestRefused as error:
        raise ValueError(str(error).partition(": ")[2] or "not an e-mail address") from None


def _ip(value: str) -> str:
    return str(ipaddress.ip_address(value))


Slug = Annotated[str, Field(min_length=1, max_length=64), CLEAN]
Tag = Annotated[str, Field(min_length=1, max_length=64), CLEAN]
Value = Annotated[str, Field(max_length=500), CLEAN]


class SignUpBody(BaseModel):
    """Who wants which newsletters."""

    model_config = ConfigDict(extra="forbid")

    email: Annotated[
        str, Field(min_length=3, max_length=LONGEST_ADDRESS), CLEAN, AfterValidator(_address)
    ] = Field(
        description="the reader's address",
        examples=["li.wei@readers.example"],
        json_schema_extra={"format": "email"},
    )
    newsletters: list[Slug] = Field(
        default_factory=list,
        max_length=MOST_TAGS,
        description="names of newsletters; may be left out where there is only one to choose",
        examples=[["ai-daily"]],
    )
    name: Annotated[str, Field(max_length=LONGEST_NAME), CLEAN] = Field(
        "", description="as the reader calls themselves; stands in no mail that asks them to confirm"
    )
    language: Annotated[str, Field(max_length=35), CLEAN] = Field(
        "",
        description="of the mails to the reader, zh-CN or en; any other: the newsletter's",
        examples=["zh-CN"],
    )
    tags: list[Tag] = Field(
        default_factory=list,
        max_length=MOST_TAGS,
        description="of a new subscription, for segments",
        examples=[["beta"]],
    )
    attributes: dict[Tag, Value] = Field(
        default_factory=dict,
        max_length=MOST_TAGS,
        description="the same, with values; in forms attributes[city]",
        examples=[{"city": "北京"}],
    )
    confirm: bool = Field(
        default=False,
        description="true: ask the reader to confirm, although this caller may vouch for them; never less than that",
    )
    ip: Annotated[str, AfterValidator(_ip), CLEAN] | None = Field(
        None, description="the reader's IP address, kept as evidence", examples=["192.0.2.7"]
    )
    consent: Annotated[str, Field(max_length=2000), CLEAN] = Field(
        "", description="the words the reader agreed to on your page, kept as evidence"
    )


async def read_body(content_type: str, raw: bytes) -> SignUpBody:
    """Raises Problem: 415 for another type, 400 for what is no such text, 422 for wrong fields."""
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip().lower()
    charset = re.search(r"charset=\"?([^\s;\"]*)", parameters, re.IGNORECASE)
    if kind not in {JSON, URLENCODED, MULTIPART} or (charset and charset[1].lower() not in {"utf-8", "utf8"}):
        raise Problem("wrong-type", f"expected {JSON}, {URLENCODED} or {MULTIPART}, in UTF-8")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise Problem("unreadable", f"no UTF-8 at byte {error.start}") from None
    if kind == JSON:
        return _validate(_json(text), strict=True)
    if kind == URLENCODED:
        return _validate(_of_form(_urlencoded(text)), strict=False)
    return _validate(_of_form(await _multipart(content_type, raw)), strict=False)


def _json(text: str) -> object:
    try:
        found: object = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise Problem("unreadable", f"no JSON: line {error.lineno}, column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        said = str(error) if isinstance(error, _Unreadable) else "numbers or levels beyond all measure"
        raise Problem("unreadable", f"no JSON that is read here: {said}") from None
    if _depth(found) > DEEPEST:
        raise Problem("unreadable", f"the JSON has more than {DEEPEST} levels")
    return found


class _Unreadable(ValueError):
    """JSON to the letter, and not read all the same."""


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Of two equal names, readers of JSON take either."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Unreadable("a name stands there twice in one object")
    return found


def _no_number(_name: str) -> None:
    raise _Unreadable("NaN and Infinity are no JSON")


def _depth(value: object) -> int:
    """Levels, counted up to one more than may be."""
    depth, level = 0, [value]
    while level and depth <= DEEPEST:
        depth += 1
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return depth


def _urlencoded(text: str) -> Sequence[tuple[str, str]]:
    try:
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except UnicodeDecodeError:
        raise Problem("unreadable", "what is percent-encoded is no UTF-8") from None
    except ValueError:
        raise Problem("unreadable", f"the form has more than {MOST_FIELDS} fields") from None


async def _multipart(content_type: str, raw: bytes) -> Sequence[tuple[str, str]]:
    async def stream() -> AsyncGenerator[bytes]:
        yield raw
        yield b""

    headers = Headers({"content-type": content_type})
    try:
        form = await MultiPartParser(headers, stream(), max_files=0, max_fields=MOST_FIELDS).parse()
    except (MultiPartException, KeyError, ValueError):
        raise Problem(
            "unreadable", f"no form: expected up to {MOST_FIELDS} fields without files between the boundaries"
        ) from None
    return [(name, value) for name, value in form.multi_items() if isinstance(value, str)]


def _of_form(fields: Sequence[tuple[str, str]]) -> Mapping[str, object]:
    """Fields that nobody knows are left out: site builders add their own, and the operator cannot stop them."""
    found: dict[str, object] = {}
    lists: dict[str, list[str]] = {name: [] for name in LISTS}
    attributes: dict[str, str] = {}
    for name, value in fields:
        key = name.strip().removesuffix("[]").lower()
        if key in LISTS:
            lists[key] += [part for part in map(str.strip, value.split(",")) if part]
        elif match := ATTRIBUTE.fullmatch(name.strip()):
            attributes[match[1] or match[2]] = value
        elif key in SignUpBody.model_fields and value.strip() and found.setdefault(key, value) != value:
            raise Problem("wrong-fields", "a field has two values", [Wrong(f"#/{key}", "given twice")])
    return {**found, **lists, "attributes": attributes}


def _validate(value: object, *, strict: bool) -> SignUpBody:
    try:
        return SignUpBody.model_validate(value, strict=strict)
    except ValidationError as error:
        raise wrong_fields(error) from None
