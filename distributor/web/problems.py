"""What went wrong with a call of a program, as RFC 9457 has it."""

from http import HTTPStatus

from fastapi.responses import JSONResponse

KIND = "application/problem+json"


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """`detail` says what to do about it; nothing in it comes from the call."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(body, status_code=status, media_type=KIND, headers=headers)
