"""From a post with pictures anywhere to messages with pictures of ours: fetched once, of known size."""

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeChannel
from hypothesis import given
from hypothesis import strategies as st
from picture_server import PictureServer, Visitor, picture_file
from rendering_samples import make_newsletter, make_post
from services import Project

from distributor import dispatch
from distributor.bootstrap import build, prepare
from distributor.channels.email.render import render_email
from distributor.channels.telegram.render import render_telegram
from distributor.dispatch import open_issue, render
from distributor.errors import PictureError, PostError
from distributor.model import Hosted, OpenedBy, Post
from distributor.pictures import Fetched, FetchRules, FolderStore, Hosting, fetcher_of
from distributor.pictures.hosting import AT_ONCE, FAILED_FOR, Kept
from distributor.rendering import parse, template_environment, to_html, to_text
from distributor.rendering.pictures import change_pictures
from distributor.settings import PictureSettings, Settings

BASE = "https://news.example/pictures"
WIDE = picture_file("WEBP", (1600, 800))
SMALL = picture_file("PNG", (80, 40))


@dataclass
class Place:
    """A picture server, a store, and a clock that the test moves."""

    server: PictureServer
    folder: Path
    now: float = 1_000_000.0

    def hosting(self, **table: Any) -> Hosting:
        settings = PictureSettings.model_validate({"rehost": "folder", "allow_private": True, **table})
        store = FolderStore(self.folder / "pictures", BASE)
        return Hosting(store, self.folder / "index", settings, now=lambda: self.now)

    @property
    def kept(self) -> list[str]:
        folder = self.folder / "pictures"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with PictureServer() as server:
        yield Place(server, tmp_path)


def only(found: Mapping[str, Hosted]) -> Hosted:
    (hosted,) = found.values()
    return hosted


class TestHosting:
    def test_a_picture_is_fetched_once_made_fit_and_kept(self, place: Place) -> None:
        address = place.server.shows("/wide.webp", WIDE)
        first = only(place.hosting().hosted([address]))
        assert (first.width, first.height, first.trouble) == (1200, 600, "")
        assert place.kept == [first.address.removeprefix(f"{BASE}/")]
        assert first.address.endswith(".jpg")
        assert only(place.hosting().hosted([address, address])) == first
        assert len(place.server.asked) == 1

    def test_the_index_holds_no_address(self, place: Place) -> None:
        place.server.shows("/wide.webp", WIDE)
        place.hosting().hosted([place.server.url("/wide.webp?signature=hunter2")])
        (path,) = (place.folder / "index").iterdir()
        assert set(json.loads(path.read_text())) == {"name", "width", "height", "at"}
        assert "hunter2" not in path.read_text() + path.name

    def test_without_fetching_nobody_is_asked(self, place: Place) -> None:
        known, new = place.server.shows("/a.png", SMALL), place.server.shows("/b.png", SMALL)
        hosted = place.hosting().hosted([known])[known]
        place.now += 10_000_000
        assert place.hosting().hosted([known, new], fetch=False) == {known: hosted, new: Hosted(new)}
        assert place.server.paths == ["/a.png"]

    def test_after_a_while_it_is_fetched_again(self, place: Place) -> None:
        """`https://…/today.png` is another picture every day."""
        address = place.server.shows("/today.png", SMALL)
        first = only(place.hosting(fresh="12h").hosted([address]))
        place.server.shows("/today.png", picture_file("PNG", (90, 30)))
        place.now += timedelta(hours=11).total_seconds()
        assert only(place.hosting(fresh="12h").hosted([address])) == first
        place.now += timedelta(hours=2).total_seconds()
        second = only(place.hosting(fresh="12h").hosted([address]))
        assert (second.width, second.height) == (90, 30)
        assert len(place.kept) == 2

    def test_an_older_copy_is_better_than_none_and_told(self, place: Place) -> None:
        address = place.server.shows("/a.png", SMALL)
        first = only(place.hosting().hosted([address]))
        place.now += timedelta(days=3).total_seconds()
        del place.server.acts["/a.png"]
        again = only(place.hosting().hosted([address]))
        assert (again.address, again.width) == (first.address, 80)
        assert "answered 404" in again.trouble
        assert "(the copy of 1970-01-12 is shown)" in again.trouble

    def test_what_the_store_lost_is_fetched_again(self, place: Place) -> None:
        address = place.server.shows("/a.png", SMALL)
        first = only(place.hosting().hosted([address]))
        (place.folder / "pictures" / place.kept[0]).unlink()
        assert only(place.hosting().hosted([address])) == first
        assert len(place.kept) == 1

    def test_other_limits_are_another_picture(self, place: Place) -> None:
        address = place.server.shows("/wide.webp", WIDE)
        assert only(place.hosting().hosted([address])).width == 1200
        assert only(place.hosting(most_width=400).hosted([address])).width == 400

    @pytest.mark.parametrize("damage", [b"", b"{", b'{"name": 1}', b"[]", b"null", b"\xff"])
    def test_a_damaged_index_is_no_reason_to_fail(self, place: Place, damage: bytes) -> None:
        address = place.server.shows("/a.png", SMALL)
        first = only(place.hosting().hosted([address]))
        (path,) = (place.folder / "index").iterdir()
        path.write_bytes(damage)
        assert only(place.hosting().hosted([address])) == first

    def test_what_cannot_be_had_keeps_its_address_and_says_why(self, place: Place) -> None:
        gone, svg = place.server.url("/gone.png?key=hunter2"), place.server.shows("/a.png", b"<svg/>")
        hosted = place.hosting().hosted([gone, svg])
        assert hosted[gone].address == gone
        assert hosted[gone].trouble.startswith(f"{place.server.url('/gone.png')}?…: the server answered 404")
        assert "export it as PNG" in hosted[svg].trouble
        assert place.kept == []

    def test_private_networks_are_refused_unless_the_operator_says_so(self, place: Place) -> None:
        address = place.server.shows("/a.png", SMALL)
        assert "private network" in only(place.hosting(allow_private=False).hosted([address])).trouble
        assert place.server.asked == []

    def test_a_store_that_takes_nothing_is_told(self, place: Place) -> None:
        (place.folder / "pictures").write_text("a file")
        hosted = only(place.hosting().hosted([place.server.shows("/a.png", SMALL)]))
        assert hosted.address == place.server.url("/a.png")
        assert hosted.trouble.startswith(f"{hosted.address}: cannot be kept in ")

    def test_an_index_that_takes_nothing_is_told(self, place: Place) -> None:
        (place.folder / "index").write_text("a file")
        assert (
            "cannot be noted in"
            in only(place.hosting().hosted([place.server.shows("/a.png", SMALL)])).trouble
        )

    def test_a_post_has_its_time_and_no_more(self, place: Place) -> None:
        def slowly(visitor: Visitor) -> None:
            place.server.stopped.wait(0.5)
            visitor.answer(200, SMALL)

        place.server.acts["*"] = slowly
        addresses = [place.server.url(f"/{number}.png") for number in range(12)]
        hosted = place.hosting(post_time="1s").hosted(addresses)
        assert sum(not found.trouble for found in hosted.values()) in range(4, 9)
        assert "the time for the post's pictures" in hosted[addresses[-1]].trouble

    def test_a_store_that_is_away_is_asked_once_by_each_that_fetches_and_fresh_copies_are_trusted(
        self, place: Place
    ) -> None:
        """An outage costs a post one answer of the store, not one for each of its pictures."""
        addresses = [f"https://pictures.example/{number}.png" for number in range(40)]
        hosting, asked = place.hosting(), list[str]()

        def away(name: str) -> bool:
            asked.append(name)
            time.sleep(0.05)
            raise PictureError(name, "no answer")

        for number, address in enumerate(addresses):
            hosting.index.put(address, Kept(f"{number:016}.png", 80, 40, place.now))
        hosting.store.holds = away  # type: ignore[method-assign]
        found = hosting.hosted(addresses)
        assert {(hosted.width, hosted.trouble) for hosted in found.values()} == {(80, "")}
        assert 1 <= len(asked) <= AT_ONCE

    def test_what_is_new_is_not_fetched_for_a_store_that_is_away(self, place: Place) -> None:
        (place.folder / "pictures").write_text("a file")
        place.server.acts["*"] = lambda visitor: visitor.answer(200, SMALL)
        addresses = [place.server.url(f"/{number}.png") for number in range(20)]
        found = place.hosting().hosted(addresses)
        assert all("cannot be kept in " in hosted.trouble for hosted in found.values())
        assert len(place.server.asked) <= 2 * AT_ONCE

    def test_when_the_time_is_over_the_store_is_asked_nothing(self, place: Place) -> None:
        address = place.server.shows("/a.png", SMALL)
        hosting = place.hosting()
        first = only(hosting.hosted([address]))
        hosting.settings = hosting.settings.model_copy(update={"post_time": timedelta(0)})
        hosting.store.holds = pytest.fail  # type: ignore[method-assign, assignment]
        assert only(hosting.hosted([address])) == first

    def test_a_failure_is_remembered_for_some_minutes(self, place: Place) -> None:
        """Each tick of each process looks at a held post anew."""
        address = place.server.url("/a.png?key=hunter2")
        first = only(place.hosting().hosted([address]))
        place.now += 60
        assert only(place.hosting().hosted([address])) == first
        assert len(place.server.asked) == 1
        assert "hunter2" not in "".join(path.read_text() for path in (place.folder / "index").iterdir())
        place.server.acts["*"] = lambda visitor: visitor.answer(200, SMALL)
        place.now += FAILED_FOR.total_seconds()
        assert only(place.hosting().hosted([address])).trouble == ""
        assert [path.suffix for path in (place.folder / "index").iterdir()] == [".json"]

    @pytest.mark.parametrize("error", [ValueError("Invalid IPv6 URL"), RecursionError(), ZeroDivisionError()])
    def test_whatever_a_library_raises_is_the_picture_s_trouble(
        self, place: Place, error: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        hosting = place.hosting()

        def fetch(_address: str, _rules: FetchRules) -> Fetched:
            raise error

        hosting.fetch = fetch
        found = only(hosting.hosted(["https://pictures.example/a.png?key=hunter2"]))
        assert found.trouble == (
            f"https://pictures.example/a.png?…: cannot be had ({type(error).__name__}): see the log"
        )
        assert "raise error" in caplog.text
        assert "hunter2" not in caplog.text

    def test_pictures_are_fetched_side_by_side(self, place: Place) -> None:
        together = threading.Barrier(4, timeout=5)

        def when_all_are_there(visitor: Visitor) -> None:
            together.wait()
            visitor.answer(200, SMALL)

        place.server.acts["*"] = when_all_are_there
        hosted = place.hosting().hosted(place.server.url(f"/{number}.png") for number in range(4))
        assert [found.trouble for found in hosted.values()] == [""] * 4

    def test_pictures_of_our_own_folder_are_read_there(self, project: Project) -> None:
        settings = project.settings(pictures={"rehost": "folder"})
        store = FolderStore(settings.path(settings.pictures.folder), settings.pictures_url)
        (store.folder).mkdir(parents=True)
        (store.folder / "0123456789abcdef.png").write_bytes(SMALL)
        read = fetcher_of(settings)
        assert read(f"{settings.pictures_url}/0123456789abcdef.png", FetchRules()) == Fetched(SMALL, "png")
        with pytest.raises(PictureError, match="private network"):
            read(f"{settings.pictures_url}/0123456789abcdee.png", FetchRules())


# ── in a post ────────────────────────────────────────────────────────────────────────────────────────────────────

A, B, C = (f"https://pictures.example/{name}" for name in ("a.webp", "b.png", "c.jpg"))
HOSTED = {
    A: Hosted(f"{BASE}/a.jpg", 1200, 600),
    B: Hosted(f"{BASE}/b.png", 120, 90),
    C: Hosted(f"{BASE}/c.jpg", 1201, 803),
}


#: Ways to write a picture → its address, and what looks like one.
TAGS = {'<img src="a">': "a", "<IMG\n alt='>' SRC=b />": "b", '<img src="c" src="d">': "c"}
PIECES = (*TAGS, "图\n", "&amp; < img", '<!-- <img src="a"> -->', '<p title="<img>">', "</p>", "<![if x]>")


def html_of(body: str, hosted: Mapping[str, Hosted] = HOSTED, **facts: Any) -> str:
    return to_html(parse(make_post(body, **facts).with_pictures(hosted)), picture_width=536)


class TestInAPost:
    def test_a_picture_has_its_new_address_and_its_size_in_the_column(self) -> None:
        assert f'<img src="{BASE}/a.jpg" alt="wide" width="536" height="268">' in html_of(f"![wide]({A})")

    def test_a_small_picture_is_not_enlarged(self) -> None:
        assert f'<img src="{BASE}/b.png" alt="" width="120" height="90">' in html_of(f"![]({B})")

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ("", 'width="536" height="268"'),
            (' width="300"', 'width="300" height="150"'),
            (' width="2000" height="17"', 'width="536" height="268"'),
            (' width="50%"', 'width="536" height="268"'),
            (' height="17"', 'width="536" height="268"'),
        ],
    )
    def test_raw_html_keeps_the_author_s_width(self, given: str, expected: str) -> None:
        html = html_of(f'text <img alt="x" src="{A}"{given}> text')
        assert re.search(rf'<img alt="x" src="{re.escape(BASE)}/a\.jpg" {expected}>', html), html

    def test_everything_beside_the_pictures_stays_letter_by_letter(self) -> None:
        body = f'<div>\n<!-- <img src="{A}"> -->\n<b>é &amp; 图</b> <IMG\n SRC=\'{A}\' alt="a > b"><img src="{B}"/>\n</div>'
        (token,) = (found for found in parse(make_post(body).with_pictures(HOSTED)).tokens if found.content)
        assert token.content == (
            f'<div>\n<!-- <img src="{A}"> -->\n<b>é &amp; 图</b> '
            f'<img src="{BASE}/a.jpg" alt="a &gt; b" width="1200" height="600">'
            f'<img src="{BASE}/b.png" width="120" height="90">\n</div>'
        )

    @given(st.lists(st.sampled_from(PIECES), max_size=12))
    def test_each_picture_is_changed_where_it_stands(self, pieces: list[str]) -> None:
        html = "".join(pieces)
        seen = list[str]()

        def counted(attributes: dict[str, str]) -> dict[str, str]:
            seen.append(attributes["src"])
            return {"n": attributes["src"]}

        changed = change_pictures(html, counted)
        expected = [f'<img n="{TAGS[piece]}">' if piece in TAGS else piece for piece in pieces]
        assert changed == "".join(expected)
        assert sorted(seen) == sorted(TAGS[piece] for piece in pieces if piece in TAGS)

    def test_without_re_hosting_a_picture_has_the_column_s_width_and_no_height(self) -> None:
        html = html_of(f'![a]({B})\n\n<img src="{C}"> <img src="{C}" height="40">', {})
        assert re.findall(r"<img [^>]*>", html) == [
            f'<img src="{B}" alt="a" width="536">',
            f'<img src="{C}" width="536">',
            f'<img src="{C}" width="536">',
        ]

    def test_the_author_s_own_size_shrinks_as_a_whole(self) -> None:
        assert 'width="536" height="268"' in html_of(f'<img src="{C}" width="1072" height="536">', {})
        assert 'width="200" height="100"' in html_of(f'<img src="{C}" width="200" height="100">', {})

    def test_text_names_the_new_address_too(self) -> None:
        assert f"{BASE}/a.jpg" in to_text(parse(make_post(f"![wide]({A})").with_pictures(HOSTED)))

    def test_the_cover_of_every_channel_is_the_hosted_one(self) -> None:
        post = make_post("text", cover_image=C).with_pictures(HOSTED)
        mail = render_email(post, make_newsletter(), template_environment()).content["html"]
        assert re.search(rf'<img [^>]*src="{re.escape(BASE)}/c\.jpg"[^>]* width="600" height="401"', mail)
        assert render_telegram(post, make_newsletter())[0].content["preview_url"] == f"{BASE}/c.jpg"

    def test_the_post_s_hash_is_that_of_what_the_editor_wrote(self) -> None:
        post = make_post(f"![a]({A})")
        assert post.with_pictures(HOSTED).hash == post.hash

    def test_pictures_are_listed_with_their_lines(self) -> None:
        body = f'![a]({A})\n\ntext\n\n- <img src="{B}"> and ![again]({A})'
        assert parse(make_post(body, cover_image=C)).pictures == {C: None, A: 5, B: 9}


class TestWarnings:
    @pytest.mark.parametrize(
        ("address", "part"),
        [
            (
                "https://e.example/a.webp?w=1",
                "https://e.example/a.webp?…: Outlook shows no WebP: link a JPEG or PNG",
            ),
            ("https://e.example/A.AVIF", "show no AVIF: link a JPEG or PNG, or set [pictures] rehost"),
            ("https://e.example/a.svg", "Gmail and Outlook show no SVG: export it as PNG"),
            ("http://e.example/a.png", "many mail programs load nothing over http://: use https://, or set"),
        ],
    )
    def test_what_readers_may_miss_is_told_with_its_line(self, address: str, part: str) -> None:
        for body in (f"text\n\n![a]({address})", f'text\n\n<img src="{address}">'):
            (warning,) = parse(make_post(body)).warnings
            assert warning.startswith("posts/sample.md:7: picture http")
            assert part in warning
        (warning,) = parse(make_post("text", cover_image=address)).warnings
        assert warning.startswith("posts/sample.md: cover_image: picture http")

    def test_a_hosted_picture_is_no_reason_to_warn(self) -> None:
        post = make_post(f"![a]({A})\n\n![b](http://e.example/b.webp)")
        hosted = {**HOSTED, "http://e.example/b.webp": Hosted(f"{BASE}/b.jpg", 9, 9)}
        assert parse(post.with_pictures(hosted)).warnings == ()

    def test_a_trouble_is_told_with_its_line(self) -> None:
        post = make_post(f"text\n\n![a]({A})").with_pictures({A: Hosted(A, trouble=f"{A}: gone")})
        assert parse(post).warnings == (f"posts/sample.md:7: {A}: gone",)


class TestHost:
    def test_a_post_is_hosted_once(self, place: Place) -> None:
        wide, small = place.server.shows("/w.webp", WIDE), place.server.shows("/s.png", SMALL)
        hosting = place.hosting()
        post = make_post(f'![w]({wide})\n\n<img src="{small}">', cover_image=wide)
        once = hosting.host(post, fetch=True)
        assert once.cover_image == once.pictures[wide].address
        assert hosting.host(once, fetch=True) == once
        assert sorted(place.server.paths) == ["/s.png", "/w.webp"]
        html = to_html(parse(once), picture_width=536)
        assert 'width="536" height="268"' in html
        assert 'width="80" height="40"' in html
        assert "127.0.0.1" not in html

    def test_on_error_keep_warns_and_refuse_refuses_with_the_line(self, place: Place) -> None:
        post = make_post(f"text\n\n![a]({place.server.url('/gone.png')})")
        (warning,) = parse(place.hosting().host(post, fetch=True)).warnings
        assert re.match(
            r"posts/sample\.md:7: http://127\.0\.0\.1:\d+/gone\.png: the server answered 404", warning
        )
        with pytest.raises(PostError, match=r"^posts/sample\.md:7: .*answered 404"):
            place.hosting(on_error="refuse").host(post, fetch=True)
        assert place.hosting(on_error="refuse").host(post, fetch=False).body == post.body

    def test_what_is_not_fetched_yet_is_no_reason_to_warn(self, place: Place) -> None:
        hosted = place.hosting().host(make_post("![a](https://e.example/a.webp)"), fetch=False)
        assert parse(hosted).warnings == ()


# ── through the engine ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def shop(project: Project, place: Place) -> tuple[Settings, Post]:
    """A project that re-hosts, and a post with a cover and a picture."""
    table = {"rehost": "folder", "allow_private": True, "base_url": BASE}
    settings = project.settings(pictures=table, newsletter={"channels": {"email": {}, "telegram": {}}})
    body = f"头条\n\n![图]({place.server.shows('/w.webp', WIDE)})"
    return settings, make_post(
        body, cover_image=place.server.shows("/c.avif", picture_file("AVIF", (900, 450)))
    )


class TestEngine:
    def test_a_mail_shows_hosted_pictures_with_their_sizes(
        self, shop: tuple[Settings, Post], place: Place
    ) -> None:
        settings, post = shop
        distributor = build(settings)
        newsletter = settings.newsletters["ai-daily"]
        mail, chat = render(distributor.engine, newsletter, post, fetch=True)
        pictures = re.findall(r"<img [^>]*>", mail.content["html"])
        assert [re.findall(r'(?<= )(?:width|height)="\d+"', picture) for picture in pictures] == [
            ['width="600"', 'height="300"'],
            ['width="536"', 'height="268"'],
        ]
        assert all(re.search(rf'src="{BASE}/[0-9a-f]{{16}}\.jpg"', picture) for picture in pictures)
        assert "127.0.0.1" not in mail.content["html"] + mail.content["text"]
        assert chat.content["preview_url"].startswith(BASE)
        assert [*mail.warnings, *chat.warnings] == []
        again = render(distributor.engine, newsletter, post)
        assert [message.hash for message in again] == [mail.hash, chat.hash]
        assert sorted(place.server.paths) == ["/c.avif", "/w.webp"]
        distributor.close()

    def test_an_issue_freezes_hosted_pictures_and_the_editor_s_hash(
        self, shop: tuple[Settings, Post]
    ) -> None:
        settings, post = shop
        distributor = build(settings)
        prepare(distributor)
        newsletter = settings.newsletters["ai-daily"]
        issue, _ = open_issue(
            distributor.engine, newsletter, post, date(2026, 3, 5), by=OpenedBy.PERSON, guarded=False
        )
        (mail,) = distributor.ledger.messages(issue.id, "email")["default"]
        assert BASE in mail.content["html"]
        assert "127.0.0.1" not in mail.content["html"]
        assert issue.post_hash == post.hash
        distributor.close()

    def test_a_test_send_shows_what_a_send_would(self, project: Project) -> None:
        def titled(post: Post, *, fetch: bool) -> Post:
            return replace(post, title=f"hosted, fetch={fetch}")

        distributor, channel = build(project.settings()), FakeChannel()
        engine = replace(distributor.engine, channels={"email": channel}, host_pictures=titled)
        newsletter = project.settings().newsletters["ai-daily"]
        dispatch.test_send(engine, newsletter, make_post("text"), "email", "li@readers.example")
        (parcel,) = channel.accepted
        assert "hosted, fetch=True" in parcel.message.content["text"]
        distributor.close()

    def test_a_look_fetches_nothing(self, shop: tuple[Settings, Post], place: Place) -> None:
        settings, post = shop
        distributor = build(settings)
        render(distributor.engine, settings.newsletters["ai-daily"], post)
        assert place.server.asked == []
        distributor.close()

    def test_by_default_pictures_stay_where_they_are(
        self, project: Project, shop: tuple[Settings, Post], place: Place
    ) -> None:
        distributor = build(project.settings())
        (mail,) = render(distributor.engine, project.settings().newsletters["ai-daily"], shop[1], fetch=True)
        assert place.server.url("/w.webp") in mail.content["html"]
        assert place.server.asked == []
        assert any("Outlook shows no WebP" in warning for warning in mail.warnings)
        distributor.close()
