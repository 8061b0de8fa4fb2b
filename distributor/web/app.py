"""The web app: verify, parse, call a story, answer. Each room adds its own pages."""

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse

from distributor.bootstrap import Distributor
from distributor.errors import ServiceDown
from distributor.web.api import operators_router
from distributor.web.client import client_address_of
from distributor.web.confirm import add_confirm
from distributor.web.describing import add_description
from distributor.web.events import events_router
from distributor.web.fields import add_field_problems
from distributor.web.hardening import DefaultHeaders
from distributor.web.limits import RequestLimits
from distributor.web.old_links import add_old_links
from distributor.web.pages import Pages
from distributor.web.preferences import add_preferences
from distributor.web.problems import DATABASE_BACK, add_problems, is_machine, unavailable
from distributor.web.proof import add_proof_script
from distributor.web.reading import add_reading
from distributor.web.signup import add_signup
from distributor.web.signup_webhook import signup_router
from distributor.web.site import add_site
from distributor.web.unsubscribe import UnsubscribePages, add_unsubscribe

#: Of whatever has none of its own.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


def create_app(distributor: Distributor) -> FastAPI:
    """The app for one installation."""
    app = FastAPI(title="distributor", docs_url=None, redoc_url=None, openapi_url=None)
    pages, client = Pages.of(distributor.settings), client_address_of(distributor.settings)
    add_signup(app, distributor, pages, client)
    add_confirm(app, distributor, pages, client)
    add_unsubscribe(app, distributor, pages, client)
    add_preferences(app, distributor, pages, client)
    add_reading(app, distributor, pages)
    add_site(app, distributor, pages.unknown)
    add_proof_script(app, pages.templates)
    programs = APIRouter()
    programs.include_router(signup_router(distributor))
    programs.include_router(operators_router(distributor))
    app.include_router(programs)
    app.include_router(events_router(distributor))
    add_old_links(app, distributor, UnsubscribePages(distributor, pages, client).ask, pages.unknown)
    if distributor.settings.bot.mode == "webhook":
        from distributor.web.telegram import add_bot  # noqa: PLC0415 - 0.3 s, python-telegram-bot, that only a bot needs

        add_bot(app, distributor)
    app.add_exception_handler(ServiceDown, _service_down)
    add_problems(app, pages.unknown)
    add_field_problems(app)
    add_description(app, programs, pages.templates)
    app.add_middleware(DefaultHeaders, headers=HEADERS)
    web = distributor.settings.web
    # The last one added is the outermost.
    app.add_middleware(RequestLimits, most=web.most_body, seconds=web.receive_time.total_seconds())
    return app


async def _service_down(request: Request, _error: Exception) -> Response:
    if is_machine(request):
        return unavailable().answer()
    return PlainTextResponse(
        "Not available right now; please try again in a minute.\n",
        status_code=503,
        headers={"Retry-After": str(DATABASE_BACK)},
    )
