"""The simulator of WeChat Official Accounts over HTTP: tokens, pictures, drafts, rights, and each of its faults."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import httpx
import pytest
from PIL import Image

from distributor.sandbox.article import Article, picture_kind
from distributor.sandbox.faults import Fault
from distributor.sandbox.server import Sandbox
from distributor.sandbox.wechat import QUOTAS

APPID, SECRET = "wx0123456789abcdef", "0123456789abcdef" * 2
LOGIN = {"grant_type": "client_credential", "appid": APPID, "secret": SECRET}
HOUR = 3600.0


def picture(kind: str, size: tuple[int, int] = (8, 8)) -> bytes:
    file = BytesIO()
    Image.new("RGB", size, "red").save(file, kind)
    return file.getvalue()


def padded(data: bytes, size: int) -> bytes:
    """A picture that is still one, of exactly so many bytes: decoders stop at its end."""
    return data + b"\0" * (size - len(data))


class Client:
    """What an account's owner would write."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox, self.http = sandbox, httpx.Client(base_url=sandbox.url, timeout=5)
        self.now = 1_800_000_000.0
        sandbox._wechat.clock = lambda: self.now
        self._token = ""

    @property
    def token(self) -> str:
        return self._token or self.stable()

    def stable(self, **more: object) -> str:
        """The token of stable_token; it is used from now on."""
        answer = self.http.post("/cgi-bin/stable_token", json={**LOGIN, **more}).json()
        self._token = str(answer["access_token"])
        return self._token

    def ask(self, path: str, body: Any = None, token: str | None = None, **request: Any) -> Any:
        params = {**request.pop("params", {}), "access_token": self.token if token is None else token}
        request = request or {"json": {} if body is None else body}
        answer = self.http.post(f"/cgi-bin/{path}", params=params, **request)
        assert answer.status_code == 200
        return answer.json()

    def upload(self, path: str, data: bytes, name: str = "a.jpg", **params: str) -> Any:
        return self.ask(path, files={"media": (name, data, "image/jpeg")}, params=params)

    def cover(self) -> str:
        media_id = self.upload("material/add_material", picture("JPEG"), type="thumb")["media_id"]
        return str(media_id)

    def article(self, **changes: object) -> dict[str, Any]:
        if "thumb_media_id" not in changes:
            changes["thumb_media_id"] = self.cover()
        return {"title": "题", "author": "人", "digest": "要", "content": "<p>文</p>", **changes}

    def add(self, **changes: object) -> Any:
        return self.ask("draft/add", {"articles": [self.article(**changes)]})

    def draft(self) -> str:
        return str(self.add()["media_id"])

    def fault(self, kind: str, **more: Any) -> None:
        self.sandbox.faults.add(Fault("wechat", APPID, kind, **more))


@pytest.fixture
def client() -> Iterator[Client]:
    with Sandbox(None) as sandbox:
        made = Client(sandbox)
        with made.http:
            yield made


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"grant_type": "x"}, 40002),
        ({"appid": "wx1"}, 40013),
        ({"secret": "short"}, 40125),
        ({"secret": SECRET[::-1]}, 40125),
    ],
)
def test_logins(client: Client, change: dict[str, str], code: int) -> None:
    client.stable()
    answer = client.http.post("/cgi-bin/stable_token", json={**LOGIN, **change}).json()
    assert answer["errcode"] == code
    assert SECRET not in str(client.sandbox.inbox.entries("wechat"))


def test_stable_token_answers_everybody_the_same_until_shortly_before_its_end(client: Client) -> None:
    first = client.stable()
    client.now += 2 * HOUR - 301
    assert client.stable() == first
    client.now += 1
    second = client.stable()
    assert second != first
    for token in (first, second):
        assert client.ask("draft/count", token=token)["errcode"] == 0, "both hold for five minutes"
    client.now += 300
    assert client.ask("draft/count", token=first)["errcode"] == 40001
    assert client.ask("draft/count", token=second)["errcode"] == 0


def test_a_forced_token_ends_the_one_before(client: Client) -> None:
    first = client.stable()
    second = client.stable(force_refresh=True)
    assert client.ask("draft/count", token=first)["errcode"] == 40001
    assert client.stable(force_refresh=True) == second, "not twice within 30 s"
    client.now += 30
    assert client.stable(force_refresh=True) != second


def test_twenty_forces_a_day_in_beijing(client: Client) -> None:
    client.now = 1_800_028_800.0  # 00:00 in Beijing
    for _ in range(20):
        client.now += 30
        client.stable(force_refresh=True)
    client.now += 30
    refused = client.http.post("/cgi-bin/stable_token", json={**LOGIN, "force_refresh": True}).json()
    assert refused["errcode"] == 45009
    client.now += 24 * HOUR
    assert client.stable(force_refresh=True)


def test_the_legacy_token_ends_its_own_predecessor_alone(client: Client) -> None:
    stable = client.stable()
    legacy = [client.http.get("/cgi-bin/token", params=LOGIN).json()["access_token"] for _ in range(3)]
    codes = [client.ask("draft/count", token=token)["errcode"] for token in (stable, *legacy)]
    assert codes == [0, 40001, 0, 0]
    client.now += 301
    assert client.ask("draft/count", token=legacy[1])["errcode"] == 40001


@pytest.mark.parametrize(("token", "code"), [("", 41001), ("nonsense", 40001)])
def test_no_token_no_call(client: Client, token: str, code: int) -> None:
    assert client.ask("draft/count", token=token)["errcode"] == code


def test_an_interface_that_does_not_exist(client: Client) -> None:
    assert client.ask("draft/publish")["errcode"] == 40066


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────────────

MB = 1024 * 1024


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (picture("JPEG"), 0),
        (picture("PNG"), 0),
        (picture("GIF"), 40005),
        (picture("WEBP"), 40005),
        (b"<svg/>", 40005),
        (b"\xff\xd8\xff and nothing behind", 40005),
        (picture("PNG")[:40], 40005),
        (b"", 41005),
        (padded(picture("JPEG"), MB), 0),
        (padded(picture("JPEG"), MB + 1), 40009),
    ],
)
def test_pictures_of_articles(client: Client, data: bytes, code: int) -> None:
    answer = client.upload("media/uploadimg", data)
    assert answer["errcode"] == code
    assert answer.get("url", "http://mmbiz.qpic.cn/").startswith("http://mmbiz.qpic.cn/")


@pytest.mark.parametrize(
    ("kind", "data", "code"),
    [
        ("image", picture("GIF"), 0),
        ("image", picture("BMP"), 0),
        ("image", picture("WEBP"), 40005),
        ("image", padded(picture("PNG"), 10 * MB + 1), 40009),
        ("thumb", picture("JPEG"), 0),
        ("thumb", picture("PNG"), 40005),
        ("thumb", padded(picture("JPEG"), 64 * 1024 + 1), 40009),
        ("poem", picture("JPEG"), 40004),
    ],
)
def test_materials(client: Client, kind: str, data: bytes, code: int) -> None:
    answer = client.upload("material/add_material", data, type=kind)
    assert answer["errcode"] == code
    assert bool(answer.get("media_id")) == (code == 0)


def test_a_file_needs_its_field_and_name(client: Client) -> None:
    token = client.token
    for files in ({"file": ("a.jpg", picture("JPEG"))}, {"media": ("nameless", picture("JPEG"))}):
        answer = client.http.post(
            "/cgi-bin/media/uploadimg", params={"access_token": token}, files=files
        ).json()
        assert answer["errcode"] == 41005


def test_kinds_by_content_not_by_name() -> None:
    assert [picture_kind(picture(kind)) for kind in ("JPEG", "PNG", "GIF", "BMP")] == [
        "JPEG",
        "PNG",
        "GIF",
        "BMP",
    ]
    assert picture_kind(picture("WEBP")) == picture_kind(b"GIF89a") == picture_kind(b"BM") == ""


# ── drafts ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, 0),
        ({"title": "题" * 64}, 0),
        ({"title": "题" * 65}, 45003),
        ({"title": " "}, 44003),
        ({"author": "人" * 16}, 0),
        ({"author": "人" * 17}, 45110),
        ({"digest": "要" * 128}, 0),
        ({"digest": "要" * 129}, 45004),
        ({"content": "字" * 19_999}, 0),
        ({"content": "字" * 20_000}, 45002),
        ({"content": ""}, 44003),
        ({"content": 5}, 47003),
        ({"content_source_url": f"https://e.org/{'a' * 1010}"}, 0),
        ({"content_source_url": f"https://e.org/{'a' * 1011}"}, 47003),
        ({"thumb_media_id": "gone"}, 40007),
        ({"content": "<p>x</p><script>alert(1)</script>"}, 45166),
        ({"content": '<p onclick="x()">x</p>'}, 45166),
        ({"content": "<iframe></iframe>x"}, 45166),
    ],
)
def test_what_a_draft_may_hold(client: Client, changes: dict[str, Any], code: int) -> None:
    assert client.add(**changes)["errcode"] == code
    assert client.sandbox.inbox.count("wechat", accepted=code == 0) == 1


@pytest.mark.parametrize("body", [{"articles": []}, {"articles": [{}] * 9}, {"articles": ["x"]}, {}])
def test_one_to_eight_articles(client: Client, body: dict[str, Any]) -> None:
    assert client.ask("draft/add", body)["errcode"] == 47003


def test_a_body_that_is_no_json(client: Client) -> None:
    assert client.ask("draft/add", content=b"articles=1")["errcode"] == 47001
    assert client.ask("draft/add", content="{}".encode("utf-16"))["errcode"] == 47001


def test_pictures_from_elsewhere_are_dropped_and_noted(client: Client) -> None:
    own = client.upload("media/uploadimg", picture("PNG"))["url"]
    client.add(content=f'<p>文</p><img src="{own}"><img src="https://e.org/a.png">')
    (entry,) = client.sandbox.inbox.entries("wechat")
    assert entry.content["content"] == f'<p>文</p><img src="{own}">'
    assert list(entry.violations) == ["the picture 'https://e.org/a.png' is not WeChat's own and is dropped"]


@pytest.mark.parametrize(
    ("html", "note"),
    [
        ('<p class="a">x</p>', "`class` of <p> is dropped"),
        ('<p id="a">x</p>', "`id` of <p> is dropped"),
        ("<style>p{}</style>x", "<style> is dropped"),
        ('<p style="position:fixed">x</p>', "`position` in a style is dropped"),
        ('<p style="background:url(x)">x</p>', "an address in a style is dropped"),
        ('<p style="color:var(--ink)">x</p>', "a variable in a style is not resolved"),
        ('<a href="https://e.org">x</a>', "the link to 'https://e.org' is dead"),
        ('<a href="#a">x</a>', "the link to '#a' is dead"),
        ("<ul><li>a<ul><li>b</li></ul></li></ul>", "a list inside a list is taken apart"),
        ("<p>x", "<p> is never closed"),
        ("x</p>", "</p> closes nothing, or too much"),
        ("<p>__VIEW_URL__</p>", "placeholder __VIEW_URL__ was never filled"),
    ],
)
def test_what_readers_would_miss_is_noted(client: Client, html: str, note: str) -> None:
    assert client.add(content=html)["errcode"] == 0
    assert list(client.sandbox.inbox.entry(1).violations) == [note]


@pytest.mark.parametrize(
    "html",
    [
        '<section style="font-size:16px"><p>x<br>y</p></section>',
        '<a href="https://mp.weixin.qq.com/s/abc">往期</a>',
        "<ul><li>a</li></ul>",
    ],
)
def test_what_the_editor_keeps(html: str) -> None:
    read = Article(html, lambda _: False)
    assert (read.html, read.violations, read.refused) == (html, [], [])


def test_long_titles_and_escapes_are_noted(client: Client) -> None:
    client.add(title="题" * 33)
    article = client.article()
    body = '{"articles": [{"title": "\\u9898", "content": "C:\\\\u9898", "thumb_media_id": "%s"}]}'
    client.ask("draft/add", content=(body % article["thumb_media_id"]).encode())
    first, second = client.sandbox.inbox.entries("wechat")
    assert list(first.violations) == ["the title has 33 characters: newer pages say 32"]
    assert list(second.violations) == ["\\uXXXX instead of UTF-8: WeChat shows it as it stands"]


def test_an_article_without_a_digest_gets_its_first_words(client: Client) -> None:
    client.add(digest="", content=f"<p>{'一二三四五六七八九十' * 6}</p>")
    (item,) = client.ask("draft/batchget", {"no_content": 1})["item"]
    assert len(item["content"]["news_item"][0]["digest"]) == 54


def test_texts_are_given_back_with_entities(client: Client) -> None:
    client.add(title="A & B")
    (item,) = client.ask("draft/batchget", {})["item"]
    assert item["content"]["news_item"][0]["title"] == "A &amp; B"


def test_drafts_are_listed_read_and_deleted(client: Client) -> None:
    made = [client.draft() for _ in range(3)]
    page = client.ask("draft/batchget", {"offset": 1, "count": 2, "no_content": 1})
    assert (page["total_count"], [item["media_id"] for item in page["item"]]) == (3, [made[1], made[0]])
    (news,) = page["item"][0]["content"]["news_item"]
    assert (news["title"], news["content"]) == ("题", "")
    assert client.ask("draft/get", {"media_id": made[0]})["news_item"][0]["content"] == "<p>文</p>"
    assert client.ask("draft/delete", {"media_id": made[0]})["errcode"] == 0
    assert client.ask("draft/get", {"media_id": made[0]})["errcode"] == 40007
    assert client.ask("draft/count")["total_count"] == 2
    assert client.ask("draft/batchget", {"count": 21})["errcode"] == 47003


# ── publishing and mass messages ─────────────────────────────────────────────────────────────────────────────────


def test_a_publication_takes_its_time(client: Client) -> None:
    media_id = client.draft()
    publish_id = client.ask("freepublish/submit", {"media_id": media_id})["publish_id"]
    assert client.ask("freepublish/submit", {"media_id": media_id})["errcode"] == 53501
    looks = [client.ask("freepublish/get", {"publish_id": publish_id}) for _ in range(2)]
    assert [look["publish_status"] for look in looks] == [1, 0]
    assert client.ask("freepublish/submit", {"media_id": media_id})["errcode"] == 40007, "the draft is gone"
    (item,) = client.ask("freepublish/batchget", {"no_content": 1})["item"]
    assert item["article_id"] == looks[1]["article_id"]
    assert client.ask("freepublish/get", {"publish_id": "1"})["errcode"] == 53600


def test_a_publication_that_fails_keeps_its_draft(client: Client) -> None:
    client.fault("publish-fails", value=4)
    publish_id = client.ask("freepublish/submit", {"media_id": client.draft()})["publish_id"]
    looks = [client.ask("freepublish/get", {"publish_id": publish_id})["publish_status"] for _ in range(2)]
    assert looks == [1, 4]
    assert client.ask("draft/count")["total_count"] == 1
    assert client.ask("freepublish/batchget", {})["total_count"] == 0


def mass(media_id: str, mark: str) -> dict[str, Any]:
    return {
        "filter": {"is_to_all": True},
        "mpnews": {"media_id": media_id},
        "msgtype": "mpnews",
        "clientmsgid": mark,
    }


def test_a_mass_message_is_known_by_its_mark(client: Client) -> None:
    media_id = client.draft()
    first = client.ask("message/mass/sendall", mass(media_id, "a" * 64))
    assert first["errcode"] == 0
    assert client.ask("message/mass/sendall", mass(media_id, "a" * 64))["errcode"] == 45066
    client.now += 2
    again = client.ask("message/mass/sendall", mass(media_id, "a" * 64))
    assert (again["errcode"], again["msg_id"]) == (45065, first["msg_id"])
    assert client.ask("message/mass/sendall", mass(media_id, "a" * 65))["errcode"] == 45067
    assert client.ask("message/mass/sendall", mass(media_id, "b"))["errcode"] == 45028, "one a day"
    client.now += 24 * HOUR
    client.stable()
    assert client.ask("message/mass/sendall", {"msgtype": "text"})["errcode"] == 40008
    assert client.ask("message/mass/sendall", mass("gone", "b"))["errcode"] == 40007
    assert client.ask("message/mass/sendall", mass(media_id, "b"))["errcode"] == 0


@pytest.mark.parametrize("kind", ["personal", "unverified"])
def test_accounts_that_are_not_verified(client: Client, kind: str) -> None:
    media_id = client.draft()
    client.fault(kind)
    assert client.ask("freepublish/submit", {"media_id": media_id})["errcode"] == 48001
    assert client.ask("message/mass/sendall", mass(media_id, "a"))["errcode"] == 48001
    path = "/cgi-bin/freepublish/submit"
    assert client.ask("openapi/quota/get", {"cgi_path": path})["errcode"] == 76022
    assert client.ask("openapi/quota/get", {"cgi_path": "/cgi-bin/draft/add"})["quota"]["used"] == 1
    assert client.add()["errcode"] == 0


def test_an_account_whose_verification_has_run_out(client: Client) -> None:
    client.fault("expired")
    assert client.ask("draft/count")["errcode"] == 48001


def test_quotas_of_a_day(client: Client) -> None:
    media_id = client.draft()
    account = client.sandbox._wechat.accounts[APPID]
    account.used[client.sandbox._wechat._today(), "/cgi-bin/freepublish/get"] = QUOTAS[
        "/cgi-bin/freepublish/get"
    ]
    publish_id = client.ask("freepublish/submit", {"media_id": media_id})["publish_id"]
    assert client.ask("freepublish/get", {"publish_id": publish_id})["errcode"] == 45009
    quota = client.ask("openapi/quota/get", {"cgi_path": "/cgi-bin/freepublish/get"})["quota"]
    assert quota == {"daily_limit": 100, "used": 100, "remain": 0}
    assert client.ask("openapi/quota/get", {"cgi_path": "/cgi-bin/none"})["errcode"] == 76021


# ── faults and the inbox ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("busy", -1),
        ("quota", 45009),
        ("stale-token", 42001),
        ("ip-list", 40164),
        ("frozen", 40243),
        ("secret", 40125),
    ],
)
def test_faults_that_refuse_once(client: Client, kind: str, code: int) -> None:
    assert client.token
    client.fault(kind, times=1)
    assert [client.ask("draft/count")["errcode"], client.ask("draft/count")["errcode"]] == [code, 0]


@pytest.mark.parametrize(("kind", "code"), [("ip-list", 40164), ("frozen", 40243), ("secret", 40125)])
def test_faults_of_the_login(client: Client, kind: str, code: int) -> None:
    client.fault(kind, times=1)
    assert client.http.post("/cgi-bin/stable_token", json=LOGIN).json()["errcode"] == code


def test_faults_after_the_draft_is_kept(client: Client) -> None:
    article = client.article()
    for kind, error in (("drop-after-accept", httpx.RemoteProtocolError), ("garbage", ValueError)):
        client.fault(kind, times=1)
        with pytest.raises(error):
            client.ask("draft/add", {"articles": [article]})
    client.fault("slow", times=1, value=30)
    with pytest.raises(httpx.ReadTimeout):
        client.ask("draft/add", {"articles": [article]}, timeout=0.3, json={"articles": [article]})
    counts = client.sandbox.inbox.counts()["wechat"]
    assert (counts["accepted"], counts["duplicates"]) == (3, 2), "leftovers of one article"


def test_the_inbox_shows_an_article_with_its_pictures(client: Client) -> None:
    own = client.upload("media/uploadimg", picture("PNG"))["url"]
    client.add(content=f'<p>文</p><img src="{own}">', content_source_url="https://e.org/full")
    client.add(title="")
    listing = client.http.get("/", params={"channel": "wechat"}).text
    assert "/article/1" in listing
    assert "44003 empty news data" in listing
    page = client.http.get("/article/1").text
    assert "data:image/png;base64," in page
    assert "https://e.org/full" in page
    assert client.http.get("/article/2").status_code == client.http.get("/article/9").status_code == 404
