"""What went wrong with a call of a program, as RFC 9457 has it: one shape for all of them.

`type` leads to the place on /docs that explains it; "about:blank" says no more than the status does. Nothing of the
call is repeated, but the names of its fields.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

KIND = "application/problem+json"
#: Where programs call; readers get pages everywhere else.
MACHINES = ("/api/", "/events/", "/telegram/", "/openapi.json")
#: Seconds after which a database that is away is worth another try.
DATABASE_BACK = 60


class Wrong(NamedTuple):
    """A field that cannot be used. `pointer`: where it stands in the body (RFC 6901, as a fragment); empty: all of it.

    `parameter` instead: what it is called in the address.
    """

    pointer: str = ""
    detail: str = ""
    parameter: str = ""

    def told(self) -> Mapping[str, str]:
        where = {"parameter": self.parameter} if self.parameter else {"pointer": self.pointer}
        return {**where, "detail": self.detail}


class Sort(NamedTuple):
    """A sort of problem: the last part of its `type`, its status, its title and what to do, as /docs has it."""

    name: str
    status: int
    title: str
    remedy: str

    @property
    def address(self) -> str:
        return f"/docs#{self.name}"


SORTS: Mapping[str, Sort] = {
    sort.name: sort
    for sort in (
        Sort(
            "not-signed",
            401,
            "The call is not signed by a known secret",
            "Sign the body as it is sent, by the rules of Standard Webhooks: the headers webhook-id, webhook-timestamp "
            "and webhook-signature. A copy of an old call is refused as well: sign it anew.",
        ),
        Sort("unreadable", 400, "The body cannot be read", "Send JSON, or a form, in UTF-8."),
        Sort(
            "wrong-type",
            415,
            "The body is of a type that is not read",
            "Send application/json, application/x-www-form-urlencoded or multipart/form-data, in UTF-8.",
        ),
        Sort("too-large", 413, "The body is too large", "A sign-up needs less than that."),
        Sort("wrong-fields", 422, "Some fields cannot be used", "`errors` says which, and why."),
        Sort(
            "id-used",
            409,
            "The id was used for another body",
            "Each call has a webhook-id of its own; only a repeated call repeats it, with the same body.",
        ),
        Sort("too-often", 429, "Too many sign-ups", "Repeat the call after the seconds of Retry-After."),
        Sort(
            "no-token",
            401,
            "The call brings no token that is known",
            "Send a token that `distributor tokens create` showed, as `Authorization: Bearer dst_…`.",
        ),
        Sort(
            "not-allowed",
            403,
            "The token does not allow this",
            "Make a token with the scope that the call names: `distributor tokens create`.",
        ),
        Sort("not-found", 404, "There is no such thing", "Look whether the number is right."),
        Sort(
            "not-possible",
            409,
            "This cannot be done now",
            "`detail` says why; an issue that is over, for one, cannot be stopped.",
        ),
        Sort(
            "unavailable",
            503,
            "Not available right now",
            "Nothing was done. Repeat the call, with the same webhook-id, after the seconds of Retry-After.",
        ),
    )
}


class ProblemField(BaseModel):
    """A field that cannot be used."""

    pointer: str | None = Field(
        None, examples=["#/email"], description="where it stands in the body: a JSON pointer, as a fragment"
    )
    parameter: str | None = Field(None, description="or what it is called in the address")
    detail: str


class ProblemDocument(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field(examples=["/docs#wrong-fields"])
    title: str
    status: int
    detail: str
    errors: list["ProblemField"] | None = Field(None, description="of each field that cannot be used")


@dataclass
class Problem(Exception):
    """Ends a call with a problem document. `sort`: a name of SORTS."""

    sort: str
    detail: str
    errors: Sequence[Wrong] = ()
    headers: Mapping[str, str] | None = None

    def answer(self) -> JSONResponse:
        known = SORTS[self.sort]
        return _document(known.status, known.title, self.detail, known.address, self.errors, self.headers)


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """One that needs no explanation beyond its status. `detail` says what to do about it."""
    return _document(status, HTTPStatus(status).phrase, detail, headers=headers)


def unavailable() -> Problem:
    return Problem(
        "unavailable",
        "the database does not answer; nothing was done",
        headers={"Retry-After": str(DATABASE_BACK)},
    )


def is_machine(request: Request) -> bool:
    """Whether a program asks, which wants no page."""
    return request.url.path.startswith(MACHINES)


def add_problems(app: FastAPI, unknown: Callable[[], Response]) -> None:
    """Programs get documents for what the routing itself refuses, too; readers a page, `unknown`."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if is_machine(request):
            return problem(error.status_code, "see /docs for what can be called, and how", error.headers)
        if error.status_code == HTTPStatus.NOT_FOUND:
            return await run_in_threadpool(unknown)
        return await http_exception_handler(request, error)

    app.add_exception_handler(Problem, _told)
    for status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
        app.add_exception_handler(status, refused)


async def _told(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Problem)
    return error.answer()


def _document(
    status: int,
    title: str,
    detail: str,
    kind: str = "about:blank",
    errors: Sequence[Wrong] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    body: dict[str, object] = {"type": kind, "title": title, "status": status, "detail": detail}
    if errors:
        body["errors"] = [error.told() for error in errors]
    return JSONResponse(body, status, headers, media_type=KIND)
