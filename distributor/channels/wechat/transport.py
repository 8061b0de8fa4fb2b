"""Puts articles into an Official Account: a draft, and only where a newsletter asks for it, a publication or a mass message.

A draft may be added twice without harm, but leftovers would pile up: what an earlier try of the same delivery left behind is
looked for first, by title, digest and source. Publishing and mass sending ask for the account's right to it before anything
is uploaded.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from html import unescape
from typing import Literal

from distributor.channels.http import OverHttp
from distributor.channels.wechat.answers import NO_SUCH_MEDIA, PUBLISH_STATUSES, SENT_BEFORE, quota_spent
from distributor.channels.wechat.api import WechatApi
from distributor.channels.wechat.render import TITLE
from distributor.channels.wechat.shapes import HandedIn, Kept, Listing, Progress, Quota, Submitted
from distributor.channels.wechat.store import SharedStore
from distributor.channels.wechat.uploads import Uploads
from distributor.errors import Kind, Rejected, SendError, Unconfirmed
from distributor.model import Parcel, Receipt
from distributor.pictures import FetchRules, fetcher_of, rules_of
from distributor.rendering import cut, utf16_units
from distributor.settings import Newsletter, Settings, WechatDestination, wechat_secret_names

TEST_MARK = "[TEST] "
#: Clocks differ: what WeChat dates so much before the issue may still be ours.
CLOCKS = timedelta(minutes=2)
#: Drafts and publications looked through for what an earlier try left; WeChat lists the newest first, 20 at most.
LATEST = 20
REMEMBERED = timedelta(days=7)
FIRST_LOOK, LONGEST_LOOK = (
    1.0,
    8.0,
)  # seconds between looks at a publication: freepublish/get has 100 calls a day

#: Seconds before a mass message whose answer was lost is handed in again, as the same one.
ASKED_AGAIN_AFTER = (1.0, 3.0)
IN_DOUBT = (
    "[the mass message was handed in, and its answer was lost: see on mp.weixin.qq.com whether it is out, then "
    "`distributor resolve`]"
)

SUBMIT, SENDALL = "/cgi-bin/freepublish/submit", "/cgi-bin/message/mass/sendall"
#: Which interface a mode needs a right to.
NEEDS: Mapping[str, str] = {"publish": SUBMIT, "mass": SENDALL}


@dataclass(frozen=True)
class Job:
    """One delivery: where it goes, over which account, with which pictures."""

    parcel: Parcel
    place: WechatDestination
    api: WechatApi
    uploads: Uploads

    @property
    def is_test(self) -> bool:
        return self.parcel.identity.issue_id == 0

    @property
    def mode(self) -> str:
        """A test is never more than a draft."""
        return "draft" if self.is_test else self.place.mode

    @property
    def mark(self) -> str:
        """The same for every try of this delivery, and for no other: 32 hexadecimal digits, as a short clientmsgid."""
        seen = f"{self.parcel.identity}:{self.parcel.message.hash}"
        return hashlib.sha256(seen.encode()).hexdigest()[:32]

    @property
    def key(self) -> str:
        """Under which what this delivery has reached is remembered."""
        return f"wechat:{self.api.appid}:{self.mode}:{self.mark}"

    def article(self) -> dict[str, object]:
        """The fields of draft/add that do not depend on uploads."""
        content = self.parcel.message.content
        title = f"{TEST_MARK}{content['title']}" if self.is_test else content["title"]
        return {
            "article_type": "news",
            "title": cut(title, TITLE, utf16_units),
            "author": self.place.author or content["author"],
            "digest": content["digest"],
            "content_source_url": content["content_source_url"],
            "need_open_comment": 0,
            "only_fans_can_comment": 0,
        }


class WechatTransport(OverHttp):
    """Sends parcels; the recipient's address is the name of an account."""

    def __init__(
        self,
        settings: Settings,
        store: SharedStore,
        *,
        rules: FetchRules | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(settings.wechat.timeout)
        self._settings, self._store, self._sleep = settings, store, sleep
        self._rules, self._fetch = rules or rules_of(settings.pictures), fetcher_of(settings)

    def send(self, parcel: Parcel, then: Parcel | None = None) -> Receipt:  # noqa: ARG002 - nothing to announce
        job = self._job(parcel)
        if job.mode in NEEDS and self._store.get(job.key) is None:  # an earlier try that got so far had it
            _require_right(job.api, NEEDS[job.mode])
        receipt = MODES[job.mode](self, job)
        left_out = job.uploads.said
        return receipt._replace(text=f"{receipt.text}; {left_out}") if left_out else receipt

    # ── what a parcel needs ──────────────────────────────────────────────────────────────────────────────────────

    def _job(self, parcel: Parcel) -> Job:
        place = self._place(parcel)
        api = self._api(place.name)
        return Job(
            parcel, place, api, Uploads(api, self._store, self._rules, self._fetch, self._settings.root)
        )

    def _place(self, parcel: Parcel) -> WechatDestination:
        newsletter = self._settings.newsletters.get(parcel.message.content.get("newsletter", ""))
        name = parcel.recipient.address
        found = [place for place in places(newsletter) if place.name == name] if newsletter else []
        if not found:
            text = (
                f"no destination of the newsletter is called {name!r}: see [[channels.wechat.destinations]]"
            )
            raise Rejected(text=text, kind=Kind.CONFIG)
        return found[0]

    def _api(self, name: str) -> WechatApi:
        account = self._settings.wechat_accounts.get(name)
        if account is None or not account.complete:
            variables = " and ".join(wechat_secret_names(name))
            text = f"the account {name!r} has no login: set {variables} (or …_FILE)"
            raise Rejected(text=text, kind=Kind.CONFIG)
        return WechatApi(self._settings.wechat.api, account, self._connected(), self._store)

    # ── the three modes ──────────────────────────────────────────────────────────────────────────────────────────

    def _draft(self, job: Job) -> Receipt:
        media_id, found = self._draft_of(job)
        said = "draft found, created by an earlier try" if found else "draft created"
        text = f"{said} (media_id {media_id}): an editor publishes it on mp.weixin.qq.com"
        return Receipt(provider_id=media_id, code="0", text=text)

    def _publish(self, job: Job) -> Receipt:
        """Submits once for a delivery, and waits a little for the result."""
        publish_id = self._store.get(job.key)
        if publish_id is None and (article_id := _find(job, "/cgi-bin/freepublish/batchget", "article_id")):
            return Receipt(provider_id=article_id, code="0", text="published by an earlier try")
        if publish_id is None:
            media_id, _ = self._draft_of(job)
            body = {"media_id": media_id}
            publish_id = job.api.call(SUBMIT, body, Submitted, repeatable=False).publish_id
            self._store.set(job.key, publish_id, REMEMBERED)
        return self._published(job, publish_id)

    def _published(self, job: Job, publish_id: str) -> Receipt:
        """Waits a little for the result. Raises Rejected when there is one, and it is a failure.

        Nothing else is an error from here on: the article is handed in, and must not be a second time.
        """
        until = time.monotonic() + self._settings.wechat.publish_patience.total_seconds()
        pause, untold = FIRST_LOOK, "WeChat has not told the result yet"
        while time.monotonic() < until:
            try:
                progress = job.api.call("/cgi-bin/freepublish/get", {"publish_id": publish_id}, Progress)
            except SendError as error:
                untold = f"the result is not known ({error})"
            else:
                if receipt := _result(progress, publish_id):
                    return receipt
            self._sleep(min(pause, max(until - time.monotonic(), 0.0)))
            pause = min(pause * 2, LONGEST_LOOK)
        text = f"draft created and handed in for publication (publish_id {publish_id}); {untold}"
        return Receipt(provider_id=publish_id, code="0", text=text)

    def _mass(self, job: Job) -> Receipt:
        """One message to all followers; WeChat knows a second try of this delivery by its clientmsgid."""
        media_id = self._store.get(job.key) or self._draft_of(job)[0]
        self._store.set(job.key, media_id, REMEMBERED)
        body = {
            "filter": {"is_to_all": True},
            "mpnews": {"media_id": media_id},
            "msgtype": "mpnews",
            "send_ignore_reprint": 0,
            "clientmsgid": job.mark,
        }
        answer = self._sent_to_all(job, body)
        code, message_id = str(answer.errcode), str(answer.msg_id)
        when = " by an earlier try" if code == str(SENT_BEFORE) else ""
        text = f"draft created and handed in for mass sending{when} (msg_id {message_id})"
        return Receipt(provider_id=message_id, code=code, text=text)

    def _sent_to_all(self, job: Job, body: Mapping[str, object]) -> HandedIn:
        """The answer of sendall. One that is lost is asked for again at once, by the same clientmsgid.

        Raises SendError; Unconfirmed as soon as one answer was lost, whatever WeChat says afterwards: a used-up quota may be
        this very message's, and a delivery that fails may be sent again under another clientmsgid.
        """
        try:
            return job.api.call(SENDALL, body, HandedIn, welcome=SENT_BEFORE, repeatable=False)
        except Unconfirmed as lost:
            said: SendError = lost
        for pause in ASKED_AGAIN_AFTER:
            self._sleep(pause)
            try:
                return job.api.call(SENDALL, body, HandedIn, welcome=SENT_BEFORE, repeatable=False)
            except SendError as error:
                said = error
        raise Unconfirmed(text=f"{said.text} {IN_DOUBT}", code=said.code, kind=said.kind) from None

    # ── the draft ────────────────────────────────────────────────────────────────────────────────────────────────

    def _draft_of(self, job: Job) -> tuple[str, bool]:
        """The media id of this delivery's draft, and whether an earlier try had created it."""
        if not job.is_test and (media_id := _find(job, "/cgi-bin/draft/batchget", "media_id")):
            return media_id, True
        covers = (job.parcel.message.content["cover"], job.place.default_cover)
        cover = job.uploads.cover(covers)  # first: without one, nothing else is worth an upload
        content = job.uploads.content(job.parcel.message.content["content"])
        try:
            return _add(job, content, cover.media_id), False
        except Rejected as error:
            if cover.fresh or error.code != str(NO_SUCH_MEDIA):
                raise
        # the cover that we remember was deleted from the account's library
        return _add(job, content, job.uploads.cover(covers, anew=True).media_id), False


MODES: Mapping[str, Callable[[WechatTransport, Job], Receipt]] = {
    "draft": WechatTransport._draft,  # noqa: SLF001 - the table of this very class
    "publish": WechatTransport._publish,  # noqa: SLF001 - as above
    "mass": WechatTransport._mass,  # noqa: SLF001 - as above
}


def places(newsletter: Newsletter) -> Sequence[WechatDestination]:
    """The accounts that a newsletter goes to."""
    table = newsletter.channel_settings.wechat
    return table.destinations if table else ()


def _add(job: Job, content: str, cover: str) -> str:
    article = {**job.article(), "content": content, "thumb_media_id": cover}
    return job.api.call("/cgi-bin/draft/add", {"articles": [article]}, Kept).media_id


def _result(progress: Progress, publish_id: str) -> Receipt | None:
    """What became of a publication; None while it is under way. Raises Rejected when it has failed."""
    status = progress.publish_status
    if status == 0:
        return Receipt(
            provider_id=progress.article_id or publish_id, code="0", text="published on the account's page"
        )
    if why := PUBLISH_STATUSES.get(status):
        text = f"{why}: look at the draft on mp.weixin.qq.com"
        raise Rejected(text=text, code=f"publish_status {status}", kind=Kind.POLICY)
    return None


def _find(job: Job, path: str, name: Literal["media_id", "article_id"]) -> str | None:
    """The id of what an earlier try of this delivery left: the same title, digest and source, not older than the issue."""
    listing = job.api.call(path, {"offset": 0, "count": LATEST, "no_content": 1}, Listing)
    wanted, since = job.article(), (job.parcel.sent_date - CLOCKS).timestamp()
    for item in listing.item:
        if item.update_time >= since and any(_same(one, wanted) for one in item.content.news_item):
            return str(getattr(item, name)) or None
    return None


def _same(one: Mapping[str, object], wanted: Mapping[str, object]) -> bool:
    """WeChat gives texts back with `&amp;` in them, and makes up a digest where there was none."""
    names = [name for name in ("title", "digest", "content_source_url") if wanted[name] or name != "digest"]
    return all(unescape(str(one.get(name, ""))) == unescape(str(wanted[name])) for name in names)


def _require_right(api: WechatApi, path: str) -> None:
    """Asks for the quota of an interface: an account without a right to it is told so. Raises SendError."""
    answer = api.call("/cgi-bin/openapi/quota/get", {"cgi_path": path}, Quota)
    if answer.quota.remain <= 0:
        raise quota_spent(path)
