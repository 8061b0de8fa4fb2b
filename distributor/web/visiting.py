"""What a request says: the form's fields, the language, who asks."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request

from distributor.web.words import WORDS

#: What no token and no number is; a database may choke on the rest (NUL, numbers beyond 64 bits).
TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
NUMBER = re.compile(r"[0-9]{1,18}")
#: Scanners look at links with HEAD; an answer of 405 makes a good link look broken.
LOOKING = ["GET", "HEAD"]
#: More than any form of ours has.
MOST_FIELDS = 500


@dataclass(frozen=True)
class Form:
    """The fields of a form that a browser sent, in the encoding of plain ones; of any other body there are none.

    Nothing is refused here: RFC 8058 lets a mail provider send what it likes.
    """

    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def one(self, name: str) -> str:
        return next(iter(self.all(name)), "")

    def all(self, name: str) -> Sequence[str]:
        return self.fields.get(name, ())


async def read_form(request: Request) -> Form:
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if kind != "application/x-www-form-urlencoded":
        return Form()
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:  # more fields, or not UTF-8
        return Form()
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return Form(fields)


#: A parameter of a page: FastAPI reads the body before the page runs in its thread.
SentForm = Annotated[Form, Depends(read_form)]


def chosen_language(request: Request, default: str) -> str:
    """By `?lang=`, else by the first of the browser's languages that we have, else the default."""
    asked = request.query_params.get("lang", "")
    if asked in WORDS:
        return asked
    return next(filter(None, map(_known_language, _browsers_languages(request))), default)


def _browsers_languages(request: Request) -> Sequence[str]:
    """Of Accept-Language, the most wanted first."""
    weighed = []
    for element in request.headers.get("Accept-Language", "")[:500].split(","):
        name, _, weight = element.strip().partition(";q=")
        try:
            weighed.append((-float(weight or 1), name.lower()))
        except ValueError:
            continue
    return [name for weight, name in sorted(weighed, key=lambda pair: pair[0]) if weight < 0]


def _known_language(name: str) -> str | None:
    """Chinese of any kind gets the one that we have."""
    return {"zh": "zh-CN", "en": "en"}.get(name.partition("-")[0])
