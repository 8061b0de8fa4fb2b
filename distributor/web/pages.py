"""How a page is made: template, words, colours, and the headers that keep it to itself."""

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment
from markupsafe import Markup

from distributor.channels.email.theme import palettes
from distributor.rendering import WORDING, template_environment
from distributor.settings import Newsletter, Settings
from distributor.web.words import WORDS

#: Pages load nothing, from elsewhere or from us; their style sheet is known by its hash.
POLICY = "default-src 'none'; style-src {style}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
#: What the proof of work needs besides, on the pages that ask for one.
PROOF_POLICY = "; script-src 'self'; worker-src 'self'"


@dataclass(frozen=True)
class Sheet:
    """The style sheet of a newsletter's pages, and how a policy names it."""

    css: str
    source: str


@dataclass(frozen=True)
class Pages:
    """Makes pages in the colours of a newsletter. None of them shows its logo: whoever hosts that would learn who reads."""

    settings: Settings
    templates: Environment
    _sheets: dict[str, Sheet] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> "Pages":
        return cls(settings, template_environment(settings.root))

    @property
    def first(self) -> Newsletter:
        """Whose colours a page has that is about none of them."""
        newsletters = list(self.settings.newsletters.values())
        return next((each for each in newsletters if each.public), newsletters[0])

    def newsletter(self, slug: str) -> Newsletter:
        """That newsletter, or the first for one that is gone from the settings."""
        return self.settings.newsletters.get(slug) or self.first

    def language(self, wanted: str | None, newsletter: Newsletter) -> str:
        """The reader's, when we have its words; else the newsletter's."""
        return wanted if wanted and wanted in WORDS else newsletter.language

    def show(
        self,
        name: str,
        newsletter: Newsletter | None = None,
        language: str = "",
        *,
        status: int = 200,
        proof: bool = False,
        **facts: Any,
    ) -> HTMLResponse:
        """The page `web/NAME.html.j2`. `proof`: it asks for a proof of work, and may run the script that makes one."""
        about = newsletter or self.first
        language = self.language(language, about)
        sheet = self._sheet(about)
        frame = {
            "newsletter": about,
            "language": language,
            "words": WORDS[language],
            "wording": WORDING[language],
            "css": Markup(sheet.css),  # noqa: S704 - ours, and the colours and fonts of checked settings
            "contact": about.sender.contact or about.sender.reply_to or about.sender.address,
        }
        text = self.templates.get_template(f"web/{name}.html.j2").render({**frame, **facts})
        policy = POLICY.format(style=sheet.source) + (PROOF_POLICY if proof else "")
        return HTMLResponse(text, status_code=status, headers={"Content-Security-Policy": policy})

    def unknown(self) -> HTMLResponse:
        """For what is not there: one and the same page, whatever was asked."""
        return self.message("unknown", status=404)

    def message(
        self, name: str, newsletter: Newsletter | None = None, language: str = "", *, status: int = 200
    ) -> HTMLResponse:
        """A page that says one thing: the words `NAME` and `NAME_text`."""
        return self.show("message", newsletter, language, status=status, message=name)

    def _sheet(self, newsletter: Newsletter) -> Sheet:
        if newsletter.slug not in self._sheets:
            facts = {"font": newsletter.theme.font, **palettes(newsletter.theme)}
            css = self.templates.get_template("web/style.css.j2").render(facts)
            digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
            self._sheets[newsletter.slug] = Sheet(css, f"'sha256-{digest}'")
        return self._sheets[newsletter.slug]
