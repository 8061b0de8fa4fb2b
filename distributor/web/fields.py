"""The fields of a call: texts cleaned, and what is wrong with them as a problem document."""

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from itertools import islice

from fastapi import FastAPI, Request, Response
from fastapi.exception_handlers import http_exception_handler, request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator, ValidationError
from starlette.exceptions import HTTPException

from distributor.web.problems import Problem, Wrong, is_machine

#: Line breaks and other control characters, which PostgreSQL, a header or a log would choke on.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
#: What JSON's escapes can write and UTF-8 cannot.
HALF = re.compile(r"[\ud800-\udfff]")
#: Fields that are told of at most, and characters of a reason that we give.
MOST_WRONG, LONGEST_DETAIL = 20, 200


def _clean(value: object) -> object:
    if not isinstance(value, str):
        return value
    if HALF.search(value):
        raise ValueError("half of a character (a lone surrogate)")
    return CONTROL.sub(" ", value).strip()


CLEAN = BeforeValidator(_clean)


def wrong_fields(error: ValidationError) -> Problem:
    """Where they stand in a body. What stands in them is not repeated."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return _problem(Wrong(_pointer(one["loc"]), _told(one["msg"])) for one in found)


def add_field_problems(app: FastAPI) -> None:
    """FastAPI's own refusals of a program's call become problem documents."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPStatus.BAD_REQUEST, _unreadable)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if not is_machine(request):
        return await request_validation_exception_handler(request, error)
    found = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        return Problem("unreadable", "the body is no JSON").answer()
    return _problem(_wrong(one["loc"], _told(one["msg"])) for one in found).answer()


async def _unreadable(request: Request, error: Exception) -> Response:
    """FastAPI's word for a body that is no text."""
    assert isinstance(error, HTTPException)
    if not is_machine(request):
        return await http_exception_handler(request, error)
    return Problem("unreadable", "the body is no JSON in UTF-8").answer()


def _problem(wrong: Iterable[Wrong]) -> Problem:
    told = list(islice(wrong, MOST_WRONG))
    return Problem("wrong-fields", "nothing was done; `errors` says what to mend", told)


def _wrong(place: Sequence[int | str], detail: str) -> Wrong:
    """FastAPI begins with where it looked: body, query, path."""
    where, *steps = place
    if where == "body":
        return Wrong(_pointer(steps), detail)
    return Wrong(parameter=str(steps[0]) if steps else "", detail=detail)


def _pointer(place: Sequence[int | str]) -> str:
    """The place as a JSON pointer. A name that nobody knows comes from the call: it is cut and escaped."""
    steps = [CONTROL.sub(" ", str(step))[:64].replace("~", "~0").replace("/", "~1") for step in place]
    return (
        "#/" + "/".join(step.encode("ascii", "backslashreplace").decode() for step in steps) if steps else "#"
    )


def _told(message: str) -> str:
    return CONTROL.sub(" ", message.removeprefix("Value error, "))[:LONGEST_DETAIL]
