"""The pages themselves: entries in, bytes out. Nothing here knows the ledger or where the pages go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from urllib.parse import quote

from jinja2 import Environment

from distributor.errors import PostError
from distributor.model import Post
from distributor.rendering import (
    CONTROLS,
    MONTHS,
    WORDING,
    ai_label,
    cut,
    description,
    language_of,
    outline,
    parse,
    squeeze,
    web_address,
)
from distributor.settings import Newsletter, Settings
from distributor.site.body import render_body
from distributor.site.entries import Entry
from distributor.site.feed import Place, render_feed

#: What a page may do, as a header and, for the files of a folder, in the page: no script, pictures and nothing else.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src https:; base-uri 'none'; form-action 'none'"
DESCRIPTION = 120  # characters: what a chat's card shows
LATEST = 5  # on the page of all newsletters


@dataclass(frozen=True, kw_only=True)
class Words:
    """What a page says around the post."""

    home: str
    contents: str
    back: str
    older: str
    newer: str
    all: str
    feed: str
    empty: str
    skip: str
    locale: str
    month: str


WORDS: Mapping[str, Words] = {
    "zh-CN": Words(
        home="全部通讯",
        contents="目录",
        back="返回正文",
        older="上一期",
        newer="下一期",
        all="往期目录",
        feed="Atom 订阅",
        empty="还没有发出过一期。",
        skip="跳到正文",
        locale="zh_CN",
        month="{year} 年 {month} 月",
    ),
    "en": Words(
        home="All newsletters",
        contents="Contents",
        back="Back to the text",
        older="Previous",
        newer="Next",
        all="All issues",
        feed="Atom feed",
        empty="No issue has gone out yet.",
        skip="Skip to the text",
        locale="en_US",
        month="{name} {year}",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """An entry as a page links to it; `href` is relative, so that the pages may be served from anywhere."""

    title: str
    href: str
    date: str
    iso: str
    description: str = ""


@dataclass(frozen=True)
class Pages:
    """Renders every kind of page of the site."""

    settings: Settings
    templates: Environment

    def index_url(self, newsletter: Newsletter) -> str:
        return f"{self.settings.site_url}/{newsletter.slug}/"

    def url(self, newsletter: Newsletter, name: str) -> str:
        """The address of a page, percent-encoded."""
        return f"{self.index_url(newsletter)}{quote(name)}/"

    def post(
        self, newsletter: Newsletter, entry: Entry, *, older: Entry | None = None, newer: Entry | None = None
    ) -> bytes:
        """A post's page. Raises PostError for a post that was edited since, and now leads somewhere it must not."""
        post = entry.post
        if post is None:
            raise PostError(entry.slug, "its source is gone")
        document = parse(post)
        language = language_of(post, newsletter)
        body = render_body(document, back=WORDS[language].back)
        return self._page(
            "post",
            newsletter,
            language,
            title=entry.title,
            post=post,
            entry=entry,
            date=WORDING[language].date(entry.day),
            ai=ai_label(post, newsletter),
            categories=[
                name
                for name in (squeeze(CONTROLS.sub(" ", each)) for each in post.categories)
                if name != newsletter.title
            ],
            body=body.html,
            contents=body.contents,
            description=_described(post, outline(document).lead),
            # Empty when readers reach no home: nobody should learn of an address of this computer.
            canonical=web_address(post, newsletter) or "",
            older=older and self._neighbour(newsletter, older),
            newer=newer and self._neighbour(newsletter, newer),
        )

    def index(self, newsletter: Newsletter, entries: Sequence[Entry]) -> bytes:
        """All posts of a newsletter by month, the newest first."""
        months = [
            (self._month(newsletter, key), [self._listed(entry) for entry in found])
            for key, found in groupby(entries, key=lambda entry: (entry.day.year, entry.day.month))
        ]
        url = self.index_url(newsletter) if self.settings.site_is_reached else ""
        return self._page("newsletter", newsletter, newsletter.language, months=months, canonical=url)

    def home(self, newsletters: Sequence[tuple[Newsletter, Sequence[Entry]]]) -> bytes:
        """Every newsletter with its latest posts, in the language of the first."""
        shelves = [
            (
                newsletter,
                [self._neighbour(newsletter, entry, newsletter.slug + "/") for entry in entries[:LATEST]],
            )
            for newsletter, entries in newsletters
        ]
        first = newsletters[0][0]
        return self._page("home", first, first.language, shelves=shelves)

    def feed(self, newsletter: Newsletter, entries: Sequence[Entry]) -> bytes:
        places = [Place(entry, self.url(newsletter, entry.name)) for entry in entries]
        site = self.index_url(newsletter)
        return render_feed(newsletter, places, site=site, feed=f"{site}feed.xml")

    def _page(self, name: str, newsletter: Newsletter, language: str, **facts: object) -> bytes:
        page = self.templates.get_template(f"site/{name}.html.j2")
        text = page.render(
            newsletter=newsletter,
            language=language,
            words=WORDS[language],
            policy=POLICY,
            listed=self.settings.site.index,
            **facts,
        )
        return text.encode()

    def _neighbour(self, newsletter: Newsletter, entry: Entry, base: str = "../") -> Neighbour:
        return Neighbour(
            title=entry.title,
            href=f"{base}{quote(entry.name)}/",
            date=WORDING[newsletter.language].date(entry.day),
            iso=entry.day.isoformat(),
        )

    def _listed(self, entry: Entry) -> Neighbour:
        return Neighbour(
            title=entry.title,
            href=f"{quote(entry.name)}/",
            date=str(entry.day.day),
            iso=entry.day.isoformat(),
            description=_described(entry.post) if entry.post else "",
        )

    def _month(self, newsletter: Newsletter, key: tuple[int, int]) -> str:
        year, month = key
        return WORDS[newsletter.language].month.format(year=year, month=month, name=MONTHS[month - 1])


# strftime would follow the server's locale
def _described(post: Post, lead: str = "") -> str:
    """What a chat's card and a search engine show below the title."""
    return cut(description(post) or squeeze(lead), DESCRIPTION)
