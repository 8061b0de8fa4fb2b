"""POST /events/<provider>: what mail providers tell us. Proven first, then read, recorded, and answered at once."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from distributor.bootstrap import Distributor
from distributor.errors import ServiceDown
from distributor.providers import Forged, Malformed, Provider, ProviderRequest, load_providers
from distributor.web.problems import problem

log = logging.getLogger(__name__)

RETRY_AFTER = {"Retry-After": "60"}


def events_router(distributor: Distributor) -> APIRouter:
    """The addresses of the providers that the settings name. Raises ConfigError.

    Not among the descriptions of /docs: what is said here is the providers' own (docs/events.md).
    """
    calls = ProviderCalls(distributor, load_providers(distributor.settings.events))
    router = APIRouter(include_in_schema=False)
    for path in ("/events/{provider}", "/events/{provider}/{secret}"):
        router.add_api_route(path, calls.take, methods=["POST"])
    return router


class ProviderCalls:
    """Takes the calls of providers."""

    def __init__(self, distributor: Distributor, providers: Mapping[str, Provider]) -> None:
        self.distributor, self.providers = distributor, providers

    async def take(self, request: Request, provider: str, secret: str = "") -> Response:
        """Records what the call says, and answers with how many events of it were new."""
        known = self.providers.get(provider)
        if known is None:
            return problem(404, "no such provider is set up: see events.providers")
        call = self._call(request, await request.body(), secret)
        return await run_in_threadpool(self._answer, provider, known, call)

    def _call(self, request: Request, body: bytes, secret: str) -> ProviderRequest:
        """The address is the public one: a proxy in front of us knows us by another."""
        asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return ProviderRequest(
            headers={name.lower(): value for name, value in request.headers.items()},
            body=body,
            url=self.distributor.settings.web.base_url + asked,
            secret=secret,
        )

    def _answer(self, name: str, provider: Provider, call: ProviderRequest) -> Response:
        try:
            recorded = self.distributor.events.record(provider.events(call, datetime.now(UTC)))
        except Forged as error:
            log.warning("event_forged provider=%s why=%s", name, error)
            return problem(401, str(error))
        except Malformed as error:
            log.warning("event_malformed provider=%s why=%s", name, error)
            return problem(422, str(error))
        except ServiceDown as error:
            log.warning("event_postponed provider=%s why=%s", name, error)
            return problem(503, "not available right now; nothing was lost, come again", RETRY_AFTER)
        return JSONResponse({"recorded": recorded})
