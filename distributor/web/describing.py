"""GET /openapi.json and GET /docs: what programs may call, and every answer that can come.

/docs is a page without scripts, made here from the same description: the usual ones load theirs from elsewhere.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from jinja2 import Environment
from markupsafe import Markup, escape
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from distributor.web.problems import KIND, SORTS, ProblemDocument, Sort

CODE = re.compile("`([^`]+)`")
LOOKING = ["GET", "HEAD"]
#: The page brings its style sheet along, and nothing else.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
REFERENCE = "#/components/schemas/"
RETRY_AFTER = {"Retry-After": {"description": "seconds to wait", "schema": {"type": "integer", "minimum": 1}}}
#: What any call may be answered before our code sees it (limits.py).
BEFOREHAND: Mapping[int, str] = {
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    431: "The URL and the headers are too large.",
}


def described(*names: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation that may end with these sorts of problems."""
    found: dict[int | str, dict[str, Any]] = {status: _refused(text) for status, text in BEFOREHAND.items()}
    for name in names:
        sort = SORTS[name]
        found[sort.status] = _refused(f"{sort.title}. {sort.remedy}")
        found[sort.status]["content"][KIND]["example"] = _example(sort)
        if sort.status in {429, 503}:
            found[sort.status]["headers"] = RETRY_AFTER
    return found


def request_body(body: type[BaseModel], types: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The `requestBody` of an operation that reads its bytes itself. types: media type → what it adds."""
    schema = body.model_json_schema()
    return {"required": True, "content": {name: {"schema": schema, **more} for name, more in types.items()}}


def add_description(app: FastAPI, programs: APIRouter, templates: Environment) -> None:
    """Describes the routes of `programs`."""
    schema = describe(programs)
    text = json.dumps(schema, ensure_ascii=False)
    page = templates.get_template("web/docs.html.j2").render(
        api=schema, sorts=list(SORTS.values()), operations=list(_operations(schema))
    )

    async def openapi() -> Response:
        return Response(text, media_type="application/json")

    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})

    for path, answer in (("/openapi.json", openapi), ("/docs", docs)):
        app.add_api_route(path, answer, methods=LOOKING, include_in_schema=False)


def describe(programs: APIRouter) -> dict[str, Any]:
    """The OpenAPI document."""
    schema = get_openapi(
        title="distributor",
        version=version("distributor"),
        summary="A newsletter's interface for programs",
        routes=programs.routes,
    )
    _, problems = models_json_schema([(ProblemDocument, "serialization")], ref_template=REFERENCE + "{model}")
    schema.setdefault("components", {}).setdefault("schemas", {}).update(problems["$defs"])
    return schema


def _refused(text: str) -> dict[str, Any]:
    return {
        "description": text,
        "content": {KIND: {"schema": {"$ref": f"{REFERENCE}{ProblemDocument.__name__}"}}},
    }


def _example(sort: Sort) -> dict[str, Any]:
    example: dict[str, Any] = {
        "type": sort.address,
        "title": sort.title,
        "status": sort.status,
        "detail": sort.remedy,
    }
    if sort.name == "wrong-fields":
        example["errors"] = [{"pointer": "#/newsletters/0", "detail": "there is no such newsletter"}]
    return example


def _operations(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What the page shows of each operation, with nothing left out that the template would have to look for."""
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            content: Mapping[str, Any] = operation.get("requestBody", {}).get("content", {})
            first: Mapping[str, Any] = next(iter(content.values()), {})
            body = _resolved(schema, first.get("schema", {}))
            yield {
                "call": f"{method.upper()} {path}",
                "id": operation["operationId"],
                "summary": operation["summary"],
                "paragraphs": [
                    _marked(text) for text in operation.get("description", "").split("\n\n") if text
                ],
                "parameters": operation.get("parameters", ()),
                "scopes": [scope for way in operation.get("security", ()) for scope in way["token"]],
                "types": list(content),
                "fields": _fields(body),
                "examples": _examples(content, body),
                "answers": [
                    (status, list(answer.get("content", ())), _marked(answer["description"]))
                    for status, answer in sorted(operation["responses"].items())
                ],
            }


def _resolved(schema: Mapping[str, Any], body: Mapping[str, Any]) -> Mapping[str, Any]:
    """A body's own schema, or the one that it refers to."""
    name = body.get("$ref", "").removeprefix(REFERENCE)
    found: Mapping[str, Any] = schema["components"]["schemas"][name] if name else body
    return found


def _examples(content: Mapping[str, Any], body: Mapping[str, Any]) -> Sequence[str]:
    ours = [one["example"] for one in (*content.values(), body) if "example" in one]
    return list(map(_pretty, ours))


def _fields(schema: Mapping[str, Any]) -> Sequence[tuple[str, str, str]]:
    """(name, what it is, what it means)"""
    needed = schema.get("required", ())
    return [
        (name, _kind(field) + ("; needed" if name in needed else ""), field.get("description", ""))
        for name, field in schema.get("properties", {}).items()
    ]


def _kind(field: Mapping[str, Any]) -> str:
    field = field.get("anyOf", [field])[0]
    kind = str(field.get("type", "anything"))
    if "items" in field:
        kind += f" of {field['items'].get('type', 'anything')}"
    if "maxLength" in field:
        kind += f", up to {field['maxLength']} characters"
    if "maxItems" in field:
        kind += f", up to {field['maxItems']}"
    return kind


def _marked(text: str) -> Markup:
    """`code` as the description writes it."""
    return Markup(CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped before


def _pretty(example: object) -> str:
    return json.dumps(example, ensure_ascii=False, indent=2)
