"""The transport of WeChat Official Accounts against the simulator, over real sockets."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from PIL import Image
from pydantic import SecretStr
from rendering_samples import DIGEST, make_newsletter, make_post, shared_posts
from scripted_http import HANG_UP, Answer, ScriptedHttp
from services import free_port

from distributor.channels import Channel
from distributor.channels.wechat import WechatChannel
from distributor.channels.wechat.store import MemoryStore, SharedStore
from distributor.channels.wechat.transport import SENDALL, SUBMIT, WechatTransport
from distributor.errors import Kind, Rejected, Scope, SendError, Unavailable, Unconfirmed
from distributor.model import DeliveryId, Parcel, Post, Receipt, Recipient
from distributor.pictures import Fetched, FetchRules
from distributor.pictures import fetch as fetch_picture
from distributor.sandbox.faults import Fault
from distributor.sandbox.server import Sandbox
from distributor.settings import Newsletter, Settings, WechatAccount

APPID, SECRET = "wx00000000000000aa", "0" * 31 + "a"
PLACES = [
    {"name": "main", "author": "编辑部"},
    {"name": "page", "mode": "publish"},
    {"name": "all", "mode": "mass"},
    {"name": "covered", "default_cover": "brand/cover.png"},
]
NEWSLETTER = make_newsletter(channels={"wechat": {"destinations": PLACES}})
NUMBERS = {"main": "a", "page": "b", "all": "c", "covered": "d"}


def picture(kind: str, size: tuple[int, int] = (900, 383)) -> bytes:
    file = BytesIO()
    Image.new("RGB", size, "#0f5f8c").save(file, kind)
    return file.getvalue()


class Pictures:
    """A web server with pictures; it counts what is asked for."""

    FILES: Mapping[str, bytes] = {
        "/cover.webp": picture("WEBP"),
        "/chart.png": picture("PNG", (640, 360)),
        "/photo.jpg": picture("JPEG", (1600, 900)),
        "/page.jpg": b"<!doctype html><p>no picture",
    }

    def __init__(self) -> None:
        self.asked: list[str] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.asked.append(self.path)
                data = owner.FILES.get(self.path, b"")
                self.send_response(200 if data else 404)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the stdlib's
                """Nothing on the terminal."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture(scope="module")
def pictures() -> Iterator[Pictures]:
    server = Pictures()
    server.thread.start()
    yield server
    server.server.shutdown()
    server.server.server_close()


@dataclass
class World:
    """The simulator, a web server with pictures, and settings that lead to them."""

    sandbox: Sandbox
    pictures: Pictures
    root: Path
    store: SharedStore = field(default_factory=MemoryStore)
    timeout: str = "5s"

    @property
    def settings(self) -> Settings:
        table: dict[str, Any] = {
            "root": self.root,
            "wechat": {"api": self.sandbox.url, "timeout": self.timeout, "publish_patience": "20s"},
            "newsletters": {"brief": NEWSLETTER},
            "wechat_accounts": {
                name: WechatAccount(appid=APPID[:-1] + number, secret=SecretStr(SECRET[:-1] + number))
                for name, number in NUMBERS.items()
            },
        }
        return Settings.model_validate(table)

    @property
    def post(self) -> Post:
        body = (
            f"{DIGEST}\n\n![图表]({self.pictures.url}/chart.png)\n\n![照片]({self.pictures.url}/photo.jpg)\n"
        )
        return make_post(body, cover_image=f"{self.pictures.url}/cover.webp")

    def parcel(
        self,
        place: str = "main",
        post: Post | None = None,
        *,
        identity: DeliveryId = DeliveryId(7, 1),  # noqa: B008 - frozen
        sent: datetime | None = None,
    ) -> Parcel:
        # rendered for no destination: what a cover is needed for is the renderer's to check, and this one's to survive
        (message,) = WechatChannel(self.settings).render(post or self.post, make_newsletter())
        recipient = Recipient(channel="wechat", address=place, variant="article", destination=place)
        return Parcel(message, recipient, identity, sent or datetime.now(UTC))

    def transport(self, store: SharedStore | None = None) -> WechatTransport:
        return WechatTransport(
            self.settings,
            store or self.store,
            rules=FetchRules(allow_private=True),
            sleep=lambda _seconds: None,
        )

    def send(self, place: str = "main", post: Post | None = None, **facts: Any) -> Receipt:
        with self.transport() as opened:
            return opened.send(self.parcel(place, post, **facts))

    def failure(self, place: str = "main", post: Post | None = None, **facts: Any) -> SendError:
        with pytest.raises(SendError) as caught:
            self.send(place, post, **facts)
        return caught.value

    def kept(self, kind: str) -> list[Mapping[str, Any]]:
        entries = self.sandbox.inbox.entries("wechat")
        return [entry.content for entry in entries if entry.accepted and entry.content["kind"] == kind]

    @property
    def violations(self) -> list[str]:
        return [line for entry in self.sandbox.inbox.entries("wechat") for line in entry.violations]

    def fault(self, kind: str, *, times: int | None = None, value: float | None = None) -> None:
        self.sandbox.faults.add(Fault("wechat", "*", kind, times=times, value=value))

    def ask(self, path: str, body: Mapping[str, object], place: str = "main") -> Any:
        """What another system with the same login would ask."""
        number = NUMBERS[place]
        login = {
            "grant_type": "client_credential",
            "appid": APPID[:-1] + number,
            "secret": SECRET[:-1] + number,
        }
        token = httpx.post(f"{self.sandbox.url}/cgi-bin/stable_token", json=login).json()["access_token"]
        return httpx.post(f"{self.sandbox.url}{path}", params={"access_token": token}, json=body).json()


@pytest.fixture
def world(pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    pictures.asked.clear()
    with Sandbox(None) as sandbox:
        yield World(sandbox, pictures, tmp_path)


# ── drafts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_post_becomes_a_draft_with_its_cover_and_pictures(world: World) -> None:
    receipt = world.send()
    (draft,) = world.kept("draft")
    assert receipt.provider_id == draft["id"]
    assert receipt.text == (
        f"draft created (media_id {draft['id']}): an editor publishes it on mp.weixin.qq.com"
    )
    assert (draft["title"], draft["author"]) == ("样刊：一天的新闻", "编辑部")
    assert draft["content_source_url"] == "https://brief.example.com/2026-03-05/sample/"
    assert draft["thumb_media_id"]
    assert draft["content"].count("http://mmbiz.qpic.cn/") == 3, "cover, chart, photo"
    assert world.pictures.url not in draft["content"]
    assert world.violations == []


def test_real_posts_are_accepted(world: World) -> None:
    for number, post in enumerate(shared_posts(), 1):
        covered = make_post(
            post.body, title=post.title, cover_image=f"{world.pictures.url}/cover.webp", path=post.path
        )
        with world.transport() as opened:
            opened.send(world.parcel("main", covered, identity=DeliveryId(number, 1)))
        if number == 3:
            break
    assert len(world.kept("draft")) == 3
    assert [line for line in world.violations if "the title has" not in line] == []


def test_what_was_uploaded_once_is_not_uploaded_again(world: World) -> None:
    world.send()
    paths = world.sandbox._wechat.accounts[APPID].used
    world.send(
        post=make_post(
            f"别的\n\n![]({world.pictures.url}/chart.png)", title="别的", cover_image=world.post.cover_image
        )
    )
    counted = {path: count for (_, path), count in paths.items()}
    assert counted["/cgi-bin/media/uploadimg"] == 3
    assert counted["/cgi-bin/material/add_material"] == 1
    assert counted["/cgi-bin/draft/add"] == 2


def test_a_picture_that_cannot_be_had_leaves_its_text_and_a_note(world: World) -> None:
    body = f"文\n\n![不见了]({world.pictures.url}/gone.png)\n\n文 ![网页]({world.pictures.url}/page.jpg) 后"
    receipt = world.send(post=make_post(body, cover_image=world.post.cover_image))
    content = world.kept("draft")[0]["content"]
    assert "🖼<figcaption" in content
    assert "不见了</figcaption>" in content
    assert "文 🖼 网页 后" in content
    assert f"picture left out: {world.pictures.url}/gone.png: the server answered 404" in receipt.text
    assert "a web page, not a picture" in receipt.text
    assert world.violations == []


@pytest.mark.parametrize("error", [ValueError("//u:secret@e.org"), OSError(), RecursionError(), KeyError(1)])
def test_no_picture_ends_a_send(world: World, error: Exception) -> None:
    """Whatever goes wrong with it; the error's text may hold a signed address, and is not shown."""

    def fetch(address: str, rules: FetchRules) -> Fetched:
        if address.endswith(".png"):
            raise error
        return fetch_picture(address, rules)

    with world.transport() as opened:
        opened._fetch = fetch
        receipt = opened.send(world.parcel())
    assert f"picture left out: {world.pictures.url}/chart.png: cannot be fetched or read (" in receipt.text
    assert "secret" not in receipt.text
    assert world.kept("draft")[0]["content"].count("http://mmbiz.qpic.cn/") == 2


def test_the_pictures_of_an_article_have_their_time_together(world: World) -> None:
    """A fetch has no more than what is left of it; the pictures behind it are left out."""
    seconds: list[float] = []

    def fetch(address: str, rules: FetchRules) -> Fetched:
        seconds.append(rules.seconds)
        uploads.until = time.monotonic() + (5 if len(seconds) == 1 else -1)
        return fetch_picture(address, rules)

    names = ("chart.png", "photo.jpg", "cover.webp", "page.jpg")
    html = "".join(f'<p><img src="{world.pictures.url}/{name}" alt="{name}"></p>' for name in names)
    with world.transport() as opened:
        uploads = opened._job(world.parcel()).uploads
        uploads.fetch = fetch
        assert 39 < uploads.until - time.monotonic() <= 40
        assert uploads.content(html).endswith("<p>🖼 cover.webp</p><p>🖼 page.jpg</p>")
    assert len(seconds) == 2
    assert seconds[0] == 10
    assert 0 < seconds[1] <= 5
    assert "cover.webp: no time left: an article's pictures have 40 s together" in uploads.said


def test_private_addresses_are_not_asked_unless_allowed(world: World) -> None:
    with (
        WechatTransport(world.settings, world.store) as opened,
        pytest.raises(Rejected, match="private network") as caught,
    ):
        opened.send(world.parcel())
    assert caught.value.kind is Kind.CONTENT
    assert world.pictures.asked == []


def test_a_file_of_the_project_stands_in_for_a_cover(world: World) -> None:
    (world.root / "brand").mkdir()
    (world.root / "brand" / "cover.png").write_bytes(picture("PNG"))
    post = make_post("文", cover_image=f"{world.pictures.url}/gone.png")
    receipt = world.send("covered", post)
    assert "cover left out" in receipt.text
    assert world.kept("draft")[0]["thumb_media_id"]
    assert "cover left out" not in world.send("covered", make_post("没有封面", title="二")).text


@pytest.mark.parametrize(
    ("place", "cover", "said"),
    [
        ("main", None, "the post has none"),
        ("main", "/gone.png", "answered 404"),
        ("covered", "/page.jpg", r"brand/cover\.png: cannot be read"),
    ],
)
def test_without_any_cover_the_editor_is_told_what_to_do(
    world: World, place: str, cover: str | None, said: str
) -> None:
    error = world.failure(place, make_post("文", cover_image=cover and f"{world.pictures.url}{cover}"))
    assert (type(error), error.kind) == (Rejected, Kind.CONTENT)
    assert "`default_cover`" in error.text
    with pytest.raises(Rejected, match=said):
        raise error
    assert world.kept("draft") == []


def test_a_cover_that_was_deleted_is_uploaded_again(world: World) -> None:
    world.send()
    material = world.kept("draft")[0]["thumb_media_id"]
    assert world.ask("/cgi-bin/material/del_material", {"media_id": material})["errcode"] == 0
    world.send(identity=DeliveryId(8, 1), sent=datetime.now(UTC) + timedelta(minutes=5))
    drafts = world.kept("draft")
    assert len(drafts) == 2
    assert drafts[1]["thumb_media_id"] != material


def test_the_body_is_raw_utf8(world: World) -> None:
    world.send()
    assert not [line for line in world.violations if "UTF-8" in line]


def test_a_test_send_is_a_marked_draft_whatever_the_mode(world: World) -> None:
    world.send("all", identity=DeliveryId(0, 1))
    world.send("all", identity=DeliveryId(0, 2))
    assert [draft["title"] for draft in world.kept("draft")] == ["[TEST] 样刊：一天的新闻"] * 2
    assert world.kept("mass message") == []


# ── retries ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fault", ["drop-after-accept", "garbage", "slow"])
def test_a_lost_answer_leaves_one_draft(world: World, fault: str) -> None:
    """The next try finds it, even in another process that remembers nothing."""
    world.fault(fault, times=1, value=5 if fault == "slow" else None)
    world.timeout = "1s"
    parcel = world.parcel()
    with world.transport() as opened, pytest.raises(Unavailable, match="asking again is safe") as caught:
        opened.send(parcel)
    assert caught.value.counts
    with world.transport(MemoryStore()) as opened:
        receipt = opened.send(parcel)
    (draft,) = world.kept("draft")
    assert receipt.provider_id == draft["id"]
    assert receipt.text.startswith("draft found, created by an earlier try")


@pytest.mark.parametrize(
    ("title", "body"), [('AT&T & "Q" <1>', "x & y"), ("图", "![](https://127.0.0.1:1/only-a-picture.png)")]
)
def test_a_draft_is_found_as_wechat_gives_it_back(world: World, title: str, body: str) -> None:
    """With entities in its texts, and with a digest that we did not write."""
    url = "https://e.org/?a=1&b=2"
    post = make_post(body, title=title, url=url, cover_image=world.post.cover_image)
    parcel = world.parcel("main", post)
    with world.transport() as opened:
        first, second = opened.send(parcel), opened.send(parcel)
    assert first.provider_id == second.provider_id
    assert len(world.kept("draft")) == 1


def test_yesterdays_draft_of_the_same_name_is_another_one(world: World) -> None:
    world.send()
    world.send(identity=DeliveryId(8, 1), sent=datetime.now(UTC) + timedelta(minutes=5))
    assert len(world.kept("draft")) == 2


@pytest.mark.parametrize(
    ("fault", "error", "scope", "kind", "counts"),
    [
        ("busy", Unavailable, Scope.RECIPIENT, Kind.SERVER, True),
        ("quota", Unavailable, Scope.RECIPIENT, Kind.THROTTLE, False),
        ("ip-list", Unavailable, Scope.CHANNEL, Kind.CONFIG, False),
        ("secret", Unavailable, Scope.CHANNEL, Kind.CONFIG, False),
        ("frozen", Unavailable, Scope.CHANNEL, Kind.CONFIG, False),
        ("expired", Rejected, Scope.CHANNEL, Kind.CONFIG, None),
    ],
)
def test_refusals(
    world: World, fault: str, error: type[SendError], scope: Scope, kind: Kind, counts: bool | None
) -> None:
    world.fault(fault, times=1)
    caught = world.failure()
    assert (type(caught), caught.scope, caught.kind) == (error, scope, kind)
    assert getattr(caught, "counts", None) is counts
    world.send()
    assert len(world.kept("draft")) == 1


@pytest.mark.parametrize(
    ("field_", "value", "code"),
    [
        ("title", "题" * 65, "45003"),
        ("author", "人" * 17, "45110"),
        ("digest", "要" * 129, "45004"),
        ("content", "字" * 20_000, "45002"),
        ("content", "<p>x</p><script>1</script>", "45166"),
        ("content", "", "44003"),
    ],
)
def test_content_that_wechat_refuses_is_ours_to_mend(
    world: World, field_: str, value: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The renderer keeps to these limits; should it fail, the refusal names the field."""
    monkeypatch.setattr("distributor.channels.wechat.transport.cut", lambda text, *_: text)
    parcel = world.parcel("page", identity=DeliveryId(0, 1)) if field_ == "author" else world.parcel()
    content = {**parcel.message.content, field_: value}
    message = type(parcel.message)(channel="wechat", variant="article", content=content)
    with world.transport() as opened, pytest.raises(Rejected) as caught:
        opened.send(parcel._replace(message=message))
    assert (caught.value.code, caught.value.kind) == (code, Kind.CONTENT)


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────


def forced(world: World) -> int:
    account = world.sandbox._wechat.accounts[APPID]
    return sum(count for (_, path), count in account.used.items() if path == "force_refresh")


def test_a_token_that_wechat_refuses_is_replaced_in_passing(world: World) -> None:
    world.send()
    world.fault("stale-token", times=1)
    world.send(identity=DeliveryId(8, 1))
    assert forced(world) == 1


def test_a_token_that_another_system_ended_is_asked_for_plainly(world: World) -> None:
    world.send()
    world.sandbox._wechat.accounts[APPID].stable.renew(world.sandbox._wechat.clock(), overlap=0)
    world.send(identity=DeliveryId(8, 1))
    assert forced(world) == 0


def test_a_token_that_stays_refused_stops_the_account(world: World) -> None:
    world.fault("stale-token")
    error = world.failure()
    assert (type(error), error.scope, error.kind) == (Unavailable, Scope.CHANNEL, Kind.CONFIG)
    assert "another system" in error.text
    assert forced(world) == 1


def test_two_workers_in_threads_share_one_token(world: World) -> None:
    """Another system ends the token: all are refused at once, and every draft arrives with the next one."""
    world.send()
    account = world.sandbox._wechat.accounts[APPID]
    account.stable.renew(world.sandbox._wechat.clock(), overlap=0)
    cover = world.post.cover_image
    posts = [make_post(f"第 {n} 篇", title=f"第 {n} 篇", cover_image=cover) for n in range(8)]
    lanes = [world.transport(), world.transport()]
    with lanes[0], lanes[1], ThreadPoolExecutor(4) as pool:
        sent = [
            pool.submit(lanes[n % 2].send, world.parcel("main", post, identity=DeliveryId(8, n)))
            for n, post in enumerate(posts)
        ]
        assert len({one.result().provider_id for one in sent}) == 8
    assert (forced(world), len(world.kept("draft"))) == (0, 9)
    assert account.stable.value == world.store.get(f"wechat:{APPID}:token")


# ── publishing and mass messages ─────────────────────────────────────────────────────────────────────────────────


def test_publishing_waits_for_the_result(world: World) -> None:
    receipt = world.send("page")
    assert receipt.text == "published on the account's page"
    assert receipt.provider_id == "article_100000"
    assert len(world.kept("publication")) == 1
    assert world.ask("/cgi-bin/draft/count", {}, "page")["total_count"] == 0, "a published draft is none"


def test_a_retry_publishes_nothing_again(world: World) -> None:
    parcel = world.parcel("page")
    for store in (world.store, world.store, MemoryStore()):
        with world.transport(store) as opened:
            opened.send(parcel)
    assert (len(world.kept("draft")), len(world.kept("publication"))) == (1, 1)


@pytest.mark.parametrize(
    ("status", "said"), [(2, "originality"), (3, "publishing failed"), (4, "editors refuse")]
)
def test_a_publication_that_fails(world: World, status: int, said: str) -> None:
    world.fault("publish-fails", times=1, value=status)
    error = world.failure("page")
    assert (type(error), error.kind, error.code) == (Rejected, Kind.POLICY, f"publish_status {status}")
    assert said in error.text


def test_a_publication_whose_result_does_not_come(world: World) -> None:
    with WechatTransport(
        world.settings.model_copy(
            update={"wechat": world.settings.wechat.model_copy(update={"publish_patience": timedelta(0)})}
        ),
        world.store,
        rules=FetchRules(allow_private=True),
    ) as opened:
        receipt = opened.send(world.parcel("page"))
    assert receipt.provider_id == "100000"
    assert "WeChat has not told the result yet" in receipt.text


@pytest.mark.parametrize(
    "look",
    [
        HANG_UP,
        Answer(500, b"oops"),
        Answer(404, b"no such page"),
        Answer.of({"errcode": -1, "errmsg": "system error"}),
        Answer.of({"errcode": 45009, "errmsg": "reach max api daily quota limit"}),
        Answer.of({"errcode": 48001, "errmsg": "api unauthorized"}),
        Answer.of({"errcode": 0, "publish_status": [1]}),
        Answer.of({"errcode": 0, "publish_status": None}),
    ],
)
def test_a_publication_is_not_submitted_again_when_its_result_cannot_be_asked_for(
    world: World, look: Answer
) -> None:
    answers = [TOKEN, Answer.of({"quota": {"remain": 9}}), Answer.of({"item": []}), *UPLOADED]
    answers += [Answer.of({"errcode": 0, "publish_id": "100000"}), look]
    post = make_post("文", cover_image=world.post.cover_image)
    with (
        ScriptedHttp(*answers) as server,
        scripted(world, server.url, publish_patience=timedelta(seconds=0.3)) as opened,
    ):
        receipt = opened.send(world.parcel("page", post))
    assert receipt.provider_id == "100000"
    assert "handed in for publication (publish_id 100000); " in receipt.text
    assert "result" in receipt.text
    assert [request.path for request in server.requests].count(SUBMIT) == 1
    assert "token-not-to-print" not in receipt.text


def test_a_later_try_of_a_submitted_publication_asks_for_its_result_alone(world: World) -> None:
    """Not for the quota again: it may be used up by that very publication."""
    with (
        ScriptedHttp(
            TOKEN, Answer.of({"errcode": 45009, "errmsg": "reach max api daily quota limit"})
        ) as server,
        scripted(world, server.url, publish_patience=timedelta(seconds=0.3)) as opened,
    ):
        parcel = world.parcel("page")
        opened._store.set(opened._job(parcel).key, "100000", timedelta(minutes=1))
        receipt = opened.send(parcel)
    assert receipt.provider_id == "100000"
    assert {request.path for request in server.requests[1:]} == {"/cgi-bin/freepublish/get"}


def test_a_result_that_comes_after_trouble_is_told(world: World) -> None:
    publish_id = {"errcode": 0, "publish_id": "100000"}
    answers = [TOKEN, Answer.of({"quota": {"remain": 9}}), Answer.of({"item": []}), *UPLOADED]
    answers += [Answer.of(publish_id), HANG_UP, Answer.of({"publish_status": 4})]
    post = make_post("文", cover_image=world.post.cover_image)
    with (
        ScriptedHttp(*answers) as server,
        scripted(world, server.url, sleep=lambda _: None) as opened,
        pytest.raises(Rejected, match="editors refuse"),
    ):
        opened.send(world.parcel("page", post))


def test_a_publication_whose_answer_is_lost_is_in_doubt(world: World) -> None:
    """The draft's answer came; that of the submission did not."""
    parcel = world.parcel("page")
    with world.transport() as opened:
        opened.send(world.parcel("page", identity=DeliveryId(0, 1)))  # pictures and cover are known now
        title = {**parcel.message.content, "title": "[TEST] 样刊：一天的新闻"}
        known = type(parcel.message)(channel="wechat", variant="article", content=title)
        world.fault("drop-after-accept", times=1)
        with pytest.raises(Unconfirmed):
            opened.send(parcel._replace(message=known))
    assert len(world.kept("publication")) == 1


@pytest.mark.parametrize("place", ["page", "all"])
@pytest.mark.parametrize("kind", ["personal", "unverified"])
def test_an_account_without_the_right_is_told_before_anything_is_made(
    world: World, place: str, kind: str
) -> None:
    world.fault(kind)
    error = world.failure(place)
    assert (type(error), error.scope, error.code) == (Rejected, Scope.CHANNEL, "76022")
    assert "personal and unverified accounts" in error.text
    assert world.kept("draft") == []
    world.send("main")
    assert len(world.kept("draft")) == 1, "a draft it may have"


def test_a_mass_message_goes_once(world: World) -> None:
    parcel = world.parcel("all")
    world.fault("drop-after-accept", times=1)
    with world.transport() as opened:
        with pytest.raises(Unavailable, match="asking again is safe"):
            opened.send(parcel)  # the draft
        assert opened.send(parcel).text.startswith("draft created and handed in for mass sending (msg_id ")
        with pytest.raises(Unconfirmed) as soon:
            opened.send(parcel)
        assert soon.value.code == "45066"
        world.sandbox._wechat.clock = lambda: time.time() + 60
        receipt = opened.send(parcel)
    assert (receipt.code, receipt.provider_id) == ("45065", "3000000")
    assert "by an earlier try" in receipt.text
    assert (len(world.kept("draft")), len(world.kept("mass message"))) == (1, 1)


def mass(world: World, *answers: Answer) -> tuple[WechatTransport, ScriptedHttp]:
    """A transport whose `sendall` meets these answers; the draft is known already."""
    server = ScriptedHttp(TOKEN, *answers)
    opened = scripted(world, server.url, sleep=lambda _: None)
    opened._store.set(opened._job(world.parcel("all")).key, "draft_1", timedelta(minutes=1))
    return opened, server


SENT = Answer.of({"errcode": 0, "msg_id": 7})
SENT_BEFORE = Answer.of({"errcode": 45065, "errmsg": "clientmsgid exist", "msg_id": 7})
GARBAGE = Answer(200, b"<html>")


@pytest.mark.parametrize("answers", [[HANG_UP, SENT], [GARBAGE, SENT_BEFORE], [HANG_UP, Answer(502), SENT]])
def test_a_mass_message_whose_answer_is_lost_is_asked_for_at_once(
    world: World, answers: list[Answer]
) -> None:
    opened, server = mass(world, *answers)
    with server, opened:
        assert opened.send(world.parcel("all")).provider_id == "7"
    sent = [request.json for request in server.requests if request.path == SENDALL]
    assert len(sent) == len(answers)
    assert len({body["clientmsgid"] for body in sent}) == 1


@pytest.mark.parametrize(
    "then",
    [
        HANG_UP,
        Answer(500, b"oops"),
        Answer.of({"errcode": -1, "errmsg": "system error"}),
        Answer.of({"errcode": 45028, "errmsg": "has no masssend quota"}),
        Answer.of({"errcode": 45066, "errmsg": "same clientmsgid retry too fast"}),
        Answer.of({"errcode": 40007, "errmsg": "invalid media_id"}),
        Answer(404, b"no such page"),
    ],
)
def test_a_mass_message_stays_in_doubt_once_an_answer_was_lost(world: World, then: Answer) -> None:
    """Were it "failed", a resend of what failed would reach all followers again, under another clientmsgid."""
    opened, server = mass(world, HANG_UP, then)
    with server, opened, pytest.raises(Unconfirmed, match="distributor resolve") as caught:
        opened.send(world.parcel("all"))
    assert caught.value.scope is Scope.RECIPIENT
    assert [request.path for request in server.requests].count(SENDALL) == 3


@pytest.mark.parametrize("answer", [{"errcode": -1}, {"errcode": 45028}, {"errcode": 48001}])
def test_a_mass_message_that_is_refused_at_once_is_in_no_doubt(
    world: World, answer: Mapping[str, int]
) -> None:
    opened, server = mass(world, Answer.of(answer))
    with server, opened, pytest.raises(SendError) as caught:
        opened.send(world.parcel("all"))
    assert not isinstance(caught.value, Unconfirmed)
    assert [request.path for request in server.requests].count(SENDALL) == 1


def test_the_mark_of_a_mass_message_is_the_deliverys_own(world: World) -> None:
    def mark(parcel: Parcel) -> str:
        return world.transport()._job(parcel).mark

    one = world.parcel("all")
    assert mark(one) == mark(one._replace(sent_date=datetime.now(UTC)))
    assert len(mark(one)) == 32
    others = [
        one._replace(identity=DeliveryId(7, 1, 1)),
        one._replace(identity=DeliveryId(8, 1)),
        world.parcel("all", make_post("别的", cover_image=world.post.cover_image)),
    ]
    assert len({mark(one), *map(mark, others)}) == 4


def test_a_spent_quota_waits_for_midnight(world: World) -> None:
    world.send("all")
    error = world.failure(
        "all", make_post("又一篇", title="二", cover_image=world.post.cover_image), identity=DeliveryId(8, 1)
    )
    assert isinstance(error, Unavailable)
    assert (error.code, error.kind, error.counts) == ("45028", Kind.THROTTLE, False)
    assert error.retry_after is not None
    assert timedelta(0) < error.retry_after <= timedelta(days=1)


def test_a_quota_that_is_spent_before_is_seen_first(world: World) -> None:
    world.send("page", identity=DeliveryId(0, 1))
    account = world.sandbox._wechat.accounts[APPID[:-1] + "b"]
    account.used[world.sandbox._wechat._today(), "/cgi-bin/freepublish/submit"] = 100
    error = world.failure("page")
    assert (error.code, error.kind) == ("45009", Kind.THROTTLE)
    assert len(world.kept("draft")) == 1


# ── the wire ─────────────────────────────────────────────────────────────────────────────────────────────────────


def scripted(
    world: World, api: str, *, sleep: Callable[[float], None] = time.sleep, **table: timedelta
) -> WechatTransport:
    wechat = world.settings.wechat.model_copy(update={"api": api, "timeout": timedelta(seconds=2), **table})
    return WechatTransport(
        world.settings.model_copy(update={"wechat": wechat}),
        MemoryStore(),
        rules=FetchRules(allow_private=True),
        sleep=sleep,
    )


TOKEN = Answer.of({"access_token": "token-not-to-print", "expires_in": 7200})
#: No draft is there yet; a cover, its picture in the article, and a draft come to be.
UPLOADED = [
    Answer.of({"item": []}),
    Answer.of({"media_id": "cover_1"}),
    Answer.of({"url": "http://mmbiz.qpic.cn/mmbiz_png/1/0"}),
    Answer.of({"media_id": "draft_1"}),
]
#: A success without what was asked for: no drafts are listed, no picture gets an address.
NOTHING = Answer.of({"errcode": 0})
STALE = Answer.of({"errcode": 40001, "errmsg": "invalid credential token-not-to-print"})


@pytest.mark.parametrize(
    ("answers", "error", "kind"),
    [
        ([Answer(500, b"oops")], Unavailable, Kind.SERVER),
        ([Answer(200, b"<html>welcome</html>")], Unavailable, Kind.SERVER),
        ([Answer(404, b"no such page")], Unavailable, Kind.CONFIG),
        ([Answer(429, b"slow down")], Unavailable, Kind.THROTTLE),
        ([Answer.of({"expires_in": 7200})], Unavailable, Kind.SERVER),
        ([HANG_UP], Unavailable, Kind.NETWORK),
        ([TOKEN, Answer(200, b"[]")], Unavailable, Kind.SERVER),
        ([TOKEN, Answer(200, b"{}")], Unavailable, Kind.SERVER),
        ([TOKEN, Answer.of({"errcode": "0"})], Unavailable, Kind.SERVER),
        ([TOKEN, Answer(502, b"{}")], Unavailable, Kind.SERVER),
        ([TOKEN, Answer(413, b"")], Rejected, Kind.CONTENT),
        ([TOKEN, HANG_UP], Unavailable, Kind.NETWORK),
        ([TOKEN, NOTHING, NOTHING], Unavailable, Kind.SERVER),
        (
            [TOKEN, STALE, TOKEN, TOKEN, STALE],
            Unavailable,
            Kind.CONFIG,
        ),
    ],
)
def test_other_answers_and_no_secret_in_any(
    world: World, answers: list[Answer], error: type[SendError], kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "httpcore")  # the command line, run in this process before, quiets it
    with (
        ScriptedHttp(*answers) as server,
        scripted(world, server.url) as opened,
        pytest.raises(SendError) as caught,
    ):
        opened.send(world.parcel())
    assert (type(caught.value), caught.value.kind) == (error, kind)
    said = f"{caught.value!r} {caught.value} {caplog.text}"
    assert SECRET not in said
    assert "token-not-to-print" not in said


LISTED: Mapping[str, object] = {"media_id": "d", "update_time": 4e9, "content": {"news_item": []}}


@pytest.mark.parametrize(
    "answers",
    [
        [Answer.of({"access_token": None, "expires_in": 7200})],
        [Answer.of({"access_token": "t", "expires_in": 10**30})],
        [TOKEN, Answer(200, b'{"a":' * 100_000)],
        [TOKEN, Answer.of({"item": "none"})],
        [TOKEN, Answer.of({"item": [1]})],
        [TOKEN, Answer.of({"item": [{**LISTED, "update_time": "soon"}]})],
        [TOKEN, Answer.of({"item": [{**LISTED, "content": []}]})],
        [TOKEN, Answer.of({"item": [{**LISTED, "content": {"news_item": [None]}}]})],
        [TOKEN, Answer.of({"item": []}), Answer.of({"media_id": None})],
        [TOKEN, Answer.of({"item": []}), Answer.of({"media_id": "c"}), Answer.of({"url": [1]})],
        [TOKEN, *UPLOADED[:3], Answer.of({"media_id": {}})],
    ],
)
def test_an_answer_of_an_odd_shape_is_tried_later(world: World, answers: list[Answer]) -> None:
    post = make_post("文", cover_image=world.post.cover_image)
    with (
        ScriptedHttp(*answers) as server,
        scripted(world, server.url) as opened,
        pytest.raises(Unavailable) as caught,
    ):
        opened.send(world.parcel("main", post))
    assert caught.value.kind is Kind.SERVER
    assert len(server.requests) == len(answers)


@pytest.mark.parametrize("quota", [{}, {"quota": None}, {"quota": {"remain": None}}])
@pytest.mark.parametrize("listed", [{"item": None}, {"item": [{"content": None}]}, {"errcode": 0}])
def test_what_wechat_leaves_out_or_calls_null(
    world: World, quota: Mapping[str, object], listed: Mapping[str, object]
) -> None:
    answers = [TOKEN, Answer.of({"errcode": 0, **quota}), Answer.of(listed), *UPLOADED[1:]]
    post = make_post("文", cover_image=world.post.cover_image)
    with ScriptedHttp(*answers, SENT) as server, scripted(world, server.url) as opened:
        assert opened.send(world.parcel("all", post)).provider_id == "7"


@pytest.mark.parametrize("quota", ["much", {"remain": "much"}])
def test_a_quota_of_an_odd_shape_is_asked_for_later(world: World, quota: object) -> None:
    with (
        ScriptedHttp(TOKEN, Answer.of({"quota": quota})) as server,
        scripted(world, server.url) as opened,
        pytest.raises(Unavailable, match="no usable `quota"),
    ):
        opened.send(world.parcel("all"))


@pytest.mark.parametrize("publish_id", [None, "", [1]])
def test_a_publication_without_a_number_is_in_doubt(world: World, publish_id: object) -> None:
    answers = [TOKEN, Answer.of({"quota": {"remain": 9}}), Answer.of({"item": []}), *UPLOADED]
    post = make_post("文", cover_image=world.post.cover_image)
    with (
        ScriptedHttp(*answers, Answer.of({"publish_id": publish_id})) as server,
        scripted(world, server.url) as opened,
        pytest.raises(Unconfirmed, match="no usable `publish_id`"),
    ):
        opened.send(world.parcel("page", post))


@pytest.mark.parametrize(
    ("api", "kind"), [("http://127.0.0.1:{closed}", Kind.NETWORK), ("http://[::bad", Kind.CONFIG)]
)
def test_no_connection(world: World, api: str, kind: Kind) -> None:
    with scripted(world, api.format(closed=free_port())) as opened, pytest.raises(Unavailable) as caught:
        opened.send(world.parcel())
    assert (caught.value.scope, caught.value.kind, caught.value.counts) == (Scope.CHANNEL, kind, False)


def without_login(settings: Settings) -> Settings:
    return settings.model_copy(update={"wechat_accounts": {"main": WechatAccount(appid=APPID)}})


def without_newsletter(settings: Settings) -> Settings:
    return settings.model_copy(update={"newsletters": {}})


@pytest.mark.parametrize(
    ("change", "said"),
    [(without_login, "DISTRIBUTOR_WECHAT_MAIN_SECRET"), (without_newsletter, "no destination")],
)
def test_what_the_configuration_lacks(
    world: World, change: Callable[[Settings], Settings], said: str
) -> None:
    with (
        WechatTransport(change(world.settings), world.store) as opened,
        pytest.raises(Rejected, match=said) as caught,
    ):
        opened.send(world.parcel())
    assert (caught.value.kind, caught.value.scope) == (Kind.CONFIG, Scope.RECIPIENT)


def test_channel(world: World) -> None:
    channel: Channel = WechatChannel(world.settings)
    assert isinstance(channel, Channel)
    places = channel.destinations(NEWSLETTER)
    assert [(place.address, place.variant, place.destination) for place in places] == [
        (name, "article", name) for name in ("main", "page", "all", "covered")
    ]
    assert {relay.name: relay.domains for relay in channel.relays} == {name: {name} for name in NUMBERS}
    limits = channel.limits(places[0], "main")
    assert [limit.key for limit in limits] == ["wechat/main", "wechat:main"]
    with channel.open("main") as transport:
        assert isinstance(transport, WechatTransport)


def test_a_channel_without_an_account_has_a_way_all_the_same(tmp_path: Path) -> None:
    newsletter = Newsletter.model_validate(
        {"slug": "a", "title": "A", "sender": {"name": "A", "address": "a@example.com"}}
    )
    channel = WechatChannel(Settings(root=tmp_path, newsletters={"a": newsletter}))
    assert [relay.name for relay in channel.relays] == ["wechat"]
    assert channel.destinations(newsletter) == []
