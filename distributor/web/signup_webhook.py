"""POST /api/subscribers: another system signs a reader up. Proven first, over the bytes as they came; then read."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from distributor.abuse import Outcome, SignupAttempt, Verdict
from distributor.audience import Answer, Received, masked
from distributor.bootstrap import Distributor
from distributor.dispatch.subscribing import Reception
from distributor.dispatch.subscribing import Request as Wish
from distributor.errors import RequestRefused, ServiceDown
from distributor.settings import SignupSource
from distributor.standard_webhooks import NotSigned, Signatures, Signed
from distributor.web.describing import described, request_body
from distributor.web.problems import Problem, Wrong, unavailable
from distributor.web.signup_body import JSON, MULTIPART, URLENCODED, SignUpBody, read_body

log = logging.getLogger(__name__)

PROBLEMS = (
    "not-signed",
    "unreadable",
    "too-large",
    "wrong-type",
    "wrong-fields",
    "id-used",
    "too-often",
    "unavailable",
)

#: Bytes of a body: what all the fields of a sign-up may hold together, several times over.
LARGEST = 64 * 1024
#: The scheme of a call that has to prove itself; 401 must name one (RFC 9110 §11.6.1).
SCHEME = {"WWW-Authenticate": "StandardWebhooks"}

#: The headers that sign a call, for the description.
SIGNED = [
    {
        "name": name,
        "in": "header",
        "required": True,
        "description": text,
        "schema": {"type": "string"},
        "example": example,
    }
    for name, text, example in (
        ("webhook-id", "this call's own; the same when it is repeated", "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"),
        ("webhook-timestamp", "when it is sent, in seconds since 1970", "1674087231"),
        (
            "webhook-signature",
            "v1, and the base64 of HMAC-SHA256 over id.timestamp.body; several, separated by blanks",
            "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
        ),
    )
]
EXAMPLE = {
    "email": "li.wei@readers.example",
    "newsletters": ["ai-daily"],
    "language": "zh-CN",
    "tags": ["beta"],
    "attributes": {"city": "北京"},
}
#: Lists repeat their name, or stand in one field with commas; attributes are written attributes[city].
FORM = {"encoding": {"attributes": {"style": "deepObject", "explode": True}}}
TYPES: Mapping[str, Mapping[str, Any]] = {JSON: {"example": EXAMPLE}, URLENCODED: FORM, MULTIPART: FORM}


class Accepted(BaseModel):
    """The same for new, known and suppressed addresses."""

    accepted: Literal[True] = True
    confirm: bool = Field(description="whether the reader is asked to confirm, as far as this call goes")


def signup_router(distributor: Distributor) -> APIRouter:
    """The address that the sources of `[signup]` call."""
    router = APIRouter(tags=["sign-up"])
    router.add_api_route(
        "/api/subscribers",
        SignupCalls(distributor).take,
        methods=["POST"],
        status_code=202,
        response_model=Accepted,
        responses=described(*PROBLEMS),
        summary="Sign a reader up",
        response_description="Taken. It says nothing about the address.",
        openapi_extra={"parameters": SIGNED, "requestBody": request_body(SignUpBody, TYPES)},
    )
    return router


class SignupCalls:
    """Takes the calls of `signup.sources`."""

    def __init__(self, distributor: Distributor) -> None:
        settings = distributor.settings.signup
        self.reception: Reception = distributor.reception
        self.guard = distributor.guard
        self.sources: Mapping[str, SignupSource] = {source.name: source for source in settings.sources}
        self.signatures = Signatures(
            {
                name: [secret.get_secret_value() for secret in source.secrets]
                for name, source in self.sources.items()
            },
            settings.tolerance,
        )

    async def take(self, request: Request) -> Response:
        """Signs a reader up, or asks them to confirm: as the source's scope says, and never less than the call asks.

        The answer tells nothing about the address: new, known and suppressed ones get the same. A repeated call (the
        same `webhook-id`, the same body) does nothing and is answered like the first. In JSON, fields that are not
        listed are refused; in forms they are left out.
        """
        raw = await _body(request)
        signed = self._proven(request, raw)
        try:
            wish = self._wish(await read_body(request.headers.get("content-type", ""), raw), signed, raw)
        except Problem as problem:
            log.warning("signup_refused source=%s id=%s why=%s", signed.source, signed.id, problem.sort)
            raise
        await run_in_threadpool(self._sign_up, wish, signed)
        return JSONResponse(Accepted(confirm=not wish.vouched).model_dump(), 202)

    def _proven(self, request: Request, raw: bytes) -> Signed:
        try:
            return self.signatures.verify(request.headers, raw)
        except NotSigned as error:
            log.warning("signup_forged why=%s", error)
            raise Problem("not-signed", str(error), headers=SCHEME) from None

    def _wish(self, body: SignUpBody, signed: Signed, raw: bytes) -> Wish:
        source = self.sources[signed.source]
        return Wish(
            address=body.email,
            newsletters=self._newsletters(body.newsletters, source),
            source=f"webhook {source.name}",
            language=_spoken(body.language),
            ip=body.ip,
            name=body.name,
            tags=body.tags,
            attributes=body.attributes,
            vouched=source.scope == "confirmed" and not body.confirm,
            received=Received(
                source=f"webhook {source.name}", key=signed.id, body_hash=hashlib.sha256(raw).hexdigest()
            ),
            words=body.consent,
        )

    def _newsletters(self, asked: Sequence[str], source: SignupSource) -> Sequence[str]:
        """What it may not sign up for is as unknown to it as what does not exist."""
        allowed = [
            slug
            for slug in self.reception.newsletters
            if not source.newsletters or slug in source.newsletters
        ]
        if not asked and len(allowed) == 1:
            return allowed
        wrong = [
            Wrong(f"#/newsletters/{place}", "there is no such newsletter")
            for place, slug in enumerate(asked)
            if slug not in allowed
        ]
        if not asked:
            wrong = [Wrong("#/newsletters", "name at least one newsletter")]
        if wrong:
            raise Problem("wrong-fields", "nothing was done; `errors` says what to mend", wrong)
        return asked

    def _sign_up(self, wish: Wish, signed: Signed) -> None:
        try:
            self._judge(wish, signed)
            answer = self.reception.sign_up(wish)
        except RequestRefused:
            raise Problem(
                "wrong-fields", "the address cannot be used", [Wrong("#/email", "no address")]
            ) from None
        except ServiceDown as error:
            log.warning(
                "signup_postponed source=%s id=%s why=%s", signed.source, signed.id, type(error).__name__
            )
            raise unavailable() from None
        log.info(
            "signup_taken source=%s id=%s answer=%s vouched=%s address=%s newsletters=%s",
            signed.source,
            signed.id,
            answer,
            wish.vouched,
            masked(wish.address),
            ",".join(wish.newsletters),
        )
        if answer is Answer.CONFLICT:
            raise Problem("id-used", "this webhook-id came before, with another body; nothing was done")

    def _judge(self, wish: Wish, signed: Signed) -> None:
        """What a mailbox may get in a day holds whoever asks. Raises Problem."""
        attempt = SignupAttempt(ip="", address=wish.address, newsletter=wish.newsletters[0], signed=True)
        verdict = self.guard.judge(attempt)
        if verdict.allowed or self._is_repeated(wish, verdict):
            return
        log.warning("signup_refused source=%s id=%s why=%s", signed.source, signed.id, verdict.reason)
        if verdict.outcome is Outcome.LIMITED:
            wait = {"Retry-After": str(verdict.retry_after)}
            raise Problem(
                "too-often", f"too many sign-ups for this {verdict.reason}; nothing was done", headers=wait
            )
        wrong = Wrong("#/email", "addresses of this domain live for a day; another one is needed")
        raise Problem("wrong-fields", "nothing was done; `errors` says what to mend", [wrong])

    def _is_repeated(self, wish: Wish, verdict: Verdict) -> bool:
        """Whether one that is too many is no sign-up but a call that came before: it is answered as it was then."""
        if verdict.outcome is not Outcome.LIMITED or wish.received is None:
            return False
        return self.reception.audience.has_received(wish.received)


async def _body(request: Request) -> bytes:
    """All of it, read no further than allowed: its length may be a lie, or missing."""
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > LARGEST:
        raise _too_large()
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST:
            raise _too_large()
    return bytes(body)


def _too_large() -> Problem:
    return Problem("too-large", f"the body is larger than {LARGEST} bytes")


def _spoken(language: str) -> str:
    """The languages we speak; empty for the newsletter's own."""
    return {"zh": "zh-CN", "en": "en"}.get(language.replace("_", "-").partition("-")[0].lower(), "")
