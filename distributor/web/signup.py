"""Where readers come in: the form, what it answers, and the form for other people's sites.

Whoever sends the form gets one and the same page, whatever we know of the address: it tells nobody who reads us. There
is no cookie and no session, so there is nothing that a form on a foreign site could abuse: it may sign readers up, as
ours does, and they confirm.
"""

from asyncio import gather, sleep
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse
from markupsafe import escape

from distributor.abuse import PROOF_FIELD, SEAL_FIELD, TRAP_FIELD, Outcome, SignupAttempt, Verdict
from distributor.audience import normalise
from distributor.bootstrap import Distributor
from distributor.dispatch import Request as Asked
from distributor.dispatch import takes_subscribers
from distributor.dispatch.subscribing import LONGEST_ADDRESS
from distributor.errors import RequestRefused
from distributor.model import ConsentText
from distributor.settings import Newsletter
from distributor.web.client import ClientAddress
from distributor.web.pages import Pages
from distributor.web.visiting import LOOKING, Form, SentForm, chosen_language
from distributor.web.words import WORDS

#: Seconds that an answer takes at the least; a sign-up takes 5 to 30 ms. No thread waits meanwhile.
EVEN = 0.1
#: Field → the name of the words that say what is wrong with it.
NOTHING_WRONG: Mapping[str, str] = {"address": "", "newsletter": ""}


def add_signup(app: FastAPI, distributor: Distributor, pages: Pages, client: ClientAddress) -> None:
    """The pages below /subscribe, unless `signup.form` says no."""
    if not distributor.settings.signup.form:
        return
    signup = SignupPages(distributor, pages, client)
    app.add_api_route("/", home, methods=LOOKING, response_class=RedirectResponse)
    for path in ("/subscribe", "/subscribe/{slug}"):
        app.add_api_route(path, signup.show, methods=LOOKING, response_class=HTMLResponse)
        app.add_api_route(path, signup.send, methods=["POST"], response_class=HTMLResponse)
    app.add_api_route("/subscribe/{slug}/embed", signup.embed, methods=LOOKING, response_class=HTMLResponse)


def home() -> RedirectResponse:
    """Who types in the name of the site alone comes to the form."""
    return RedirectResponse("/subscribe", 302)


@dataclass(frozen=True)
class SignupPages:
    """One method a page."""

    distributor: Distributor
    pages: Pages
    client: ClientAddress

    def show(self, request: Request, slug: str = "") -> Response:
        """The empty form. `slug` empty: all newsletters to choose from."""
        offered = self._offered(slug)
        if not offered:
            return self.pages.unknown()
        return self._form(request, offered, chosen_language(request, offered[0].language))

    async def send(self, request: Request, form: SentForm, slug: str = "") -> Response:
        """The form, filled in. What the database has to do differs by address; how long the answer takes should not."""
        answer, _ = await gather(run_in_threadpool(self._answer, request, form, slug), sleep(EVEN))
        return answer

    def _answer(self, request: Request, form: Form, slug: str) -> Response:
        offered = self._offered(slug)
        if not offered:
            return self.pages.unknown()
        language = form.one("language") if form.one("language") in WORDS else ""
        language = language or chosen_language(request, offered[0].language)
        wanted = _wanted(form, offered)
        if wrong := _mistakes(form, wanted):
            return self._form(request, offered, language, form, wrong=wrong)
        verdict = self.distributor.guard.judge(self._attempt(request, form, wanted))
        if verdict.outcome in {Outcome.ALLOWED, Outcome.DROPPED}:
            if verdict.allowed:
                self._sign_up(request, form, offered, wanted, language)
            return self.pages.show("look", offered[0], language, offered=offered)
        return self._once_more(request, offered, language, form, verdict)

    def embed(self, request: Request, slug: str) -> Response:
        """The form's HTML, to copy."""
        offered = self._offered(slug)
        if not offered:
            return self.pages.unknown()
        language = chosen_language(request, offered[0].language)
        words = WORDS[language]
        snippet = SNIPPET.format(
            action=escape(f"{self.distributor.settings.web.base_url}/subscribe/{slug}"),
            language=language,
            address=escape(words.address),
            consent=escape(self._consent(offered, language).text),
            button=escape(words.agree),
        )
        return self.pages.show("embed", offered[0], language, snippet=snippet)

    def _offered(self, slug: str) -> Sequence[Newsletter]:
        """What may be signed up for at this address: public, and sent by mail."""
        public = [each for each in self.distributor.reception.public if takes_subscribers(each, "email")]
        return [each for each in public if slug in {"", each.slug}]

    def _form(
        self,
        request: Request,
        offered: Sequence[Newsletter],
        language: str,
        form: Form | None = None,
        *,
        status: int = HTTPStatus.UNPROCESSABLE_ENTITY,
        insist: bool = False,
        wrong: Mapping[str, str] = NOTHING_WRONG,
    ) -> HTMLResponse:
        """`form`: what was sent, when it is shown once more; `wrong`: as NOTHING_WRONG."""
        shown = self.distributor.guard.form(self.client.of(request), insist=insist)
        site = self.distributor.settings.site
        response = self.pages.show(
            "subscribe",
            offered[0],
            language,
            status=HTTPStatus.OK if form is None else status,
            proof=bool(shown.challenge),
            offered=offered,
            address=form.one("address")[:LONGEST_ADDRESS] if form else "",
            ticked=_wanted(form, offered) if form else [each.slug for each in offered[:1]],
            consent=self._consent(offered, language).text,
            form=shown,
            insists=insist,
            wrong={**NOTHING_WRONG, **wrong},
            archive=self.distributor.settings.site_url if site.serve or site.folder else "",
            languages={name: known.name for name, known in WORDS.items() if name != language},
        )
        response.headers["X-Robots-Tag"] = "all"
        response.headers["Vary"] = "Accept-Language"
        return response

    def _once_more(
        self, request: Request, offered: Sequence[Newsletter], language: str, form: Form, verdict: Verdict
    ) -> Response:
        """What the guard wants: nothing of it depends on who is subscribed."""
        if verdict.outcome is Outcome.CHALLENGE:
            return self._form(request, offered, language, form, status=HTTPStatus.OK, insist=True)
        if verdict.outcome is Outcome.REFUSED:
            return self._form(request, offered, language, form, wrong={"address": "disposable"})
        minutes = -(-verdict.retry_after // 60)
        response = self.pages.show("limited", offered[0], language, status=429, minutes=minutes)
        response.headers["Retry-After"] = str(verdict.retry_after)
        return response

    def _sign_up(
        self,
        request: Request,
        form: Form,
        offered: Sequence[Newsletter],
        wanted: Sequence[str],
        language: str,
    ) -> None:
        self.distributor.reception.sign_up(
            Asked(
                address=form.one("address"),
                newsletters=wanted,
                source="form",
                language=language,
                words=self._consent(offered, language).text,
                ip=self.client.of(request) or None,
            )
        )

    def _consent(self, offered: Sequence[Newsletter], language: str) -> ConsentText:
        """The words that stand above the button."""
        slugs = [each.slug for each in offered]
        return self.distributor.reception.wording(slugs, language, ticked=len(offered) > 1)

    def _attempt(self, request: Request, form: Form, wanted: Sequence[str]) -> SignupAttempt:
        return SignupAttempt(
            ip=self.client.of(request),
            address=normalise("email", form.one("address")),
            newsletter=" ".join(wanted),
            seal=form.one(SEAL_FIELD),
            proof=form.one(PROOF_FIELD),
            trap=form.one(TRAP_FIELD),
        )


def _wanted(form: Form, offered: Sequence[Newsletter]) -> Sequence[str]:
    """What is ticked of what may be; a form for one newsletter has nothing to tick."""
    ticked = form.all("newsletter")
    return [each.slug for each in offered if len(offered) == 1 or each.slug in ticked]


def _mistakes(form: Form, wanted: Sequence[str]) -> Mapping[str, str]:
    """What is wrong, as NOTHING_WRONG; empty when all is well."""
    wrong = {} if wanted else {"newsletter": "none_chosen"}
    address = form.one("address")
    try:
        normalise("email", address[: LONGEST_ADDRESS + 1])
    except RequestRefused:
        wrong["address"] = "bad_address"
    if len(address) > LONGEST_ADDRESS:
        wrong["address"] = "bad_address"
    return wrong


#: For any page: no script, no style, no class of ours. Its charset is ours, whatever the page's.
SNIPPET = """\
<form method="post" action="{action}" accept-charset="utf-8">
  <input type="hidden" name="language" value="{language}">
  <p><label>{address}<br>
    <input type="email" name="address" required maxlength="254" autocomplete="email"></label></p>
  <p><small>{consent}</small></p>
  <p><button type="submit">{button}</button></p>
</form>
"""
