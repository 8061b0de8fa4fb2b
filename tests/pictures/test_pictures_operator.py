"""What an operator sees of hosted pictures: settings, the doctor, and the web app that shows them."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from picture_server import PictureServer, picture_file
from services import Project

from distributor.bootstrap import build
from distributor.doctor import Finding, effective, examine
from distributor.errors import ConfigError
from distributor.pictures import FolderStore, as_jpeg_or_png
from distributor.settings import Settings
from distributor.web import create_app

PICTURE = as_jpeg_or_png(picture_file("JPEG"), most_bytes=100_000, most_width=600)
OWN = "http://127.0.0.1:8025/pictures"


class TestSettings:
    def test_pictures_are_shown_by_our_own_web_app_unless_told_otherwise(self, project: Project) -> None:
        assert project.settings().pictures_url == OWN
        web = {"base_url": "https://news.example/"}
        assert project.settings(web=web).pictures_url == "https://news.example/pictures"
        elsewhere = {"base_url": "https://cdn.example/daily/"}
        assert project.settings(web=web, pictures=elsewhere).pictures_url == "https://cdn.example/daily"

    @pytest.mark.parametrize(
        ("table", "mistake"),
        [
            ({"rehost": "s3"}, "needs `base_url` and `s3.bucket`"),
            ({"rehost": "s3", "base_url": "https://cdn.example"}, "needs `base_url` and `s3.bucket`"),
            ({"base_url": "cdn.example"}, "expected a URL that begins with https://"),
            ({"rehost": "ftp"}, "pictures.rehost"),
            ({"most_width": 20}, "pictures.most_width"),
            ({"s3": {"secret_key": "hunter2"}}, "set DISTRIBUTOR_S3_SECRET_KEY"),
        ],
    )
    def test_mistakes_are_told(self, project: Project, table: dict[str, Any], mistake: str) -> None:
        with pytest.raises(ConfigError) as caught:
            project.settings(pictures=table)
        assert mistake in str(caught.value)
        assert "hunter2" not in str(caught.value)

    def test_the_keys_come_from_the_environment_or_a_file(self, project: Project, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("hunter2\n")
        environment = {
            "DISTRIBUTOR_S3_ACCESS_KEY": "AKIDOFNOBODY",
            "DISTRIBUTOR_S3_SECRET_KEY_FILE": str(tmp_path / "secret"),
        }
        table = {"rehost": "s3", "base_url": "https://cdn.example", "s3": {"bucket": "news"}}
        settings = project.settings(pictures=table, environment=environment)
        assert settings.pictures.s3.secret_key.get_secret_value() == "hunter2"
        assert settings.pictures.s3.access_key.get_secret_value() == "AKIDOFNOBODY"
        shown = dict(effective(settings))
        assert shown["pictures.s3.secret_key"] == shown["pictures.s3.access_key"] == "********"


def findings(settings: Settings) -> list[Finding]:
    found = examine(settings, probe_database=lambda: "SQLite", now=lambda: datetime.now(UTC), timeout=0.5)
    return [finding for finding in found if finding.check == "pictures"]


class TestDoctor:
    def test_nothing_to_check(self, project: Project) -> None:
        assert [str(finding.level) for finding in findings(project.settings())] == ["ok"]

    def test_a_folder(self, project: Project) -> None:
        good = {"rehost": "folder", "base_url": "https://cdn.example"}
        assert [str(finding.level) for finding in findings(project.settings(pictures=good))] == ["ok"]
        _, told = findings(project.settings(pictures={"rehost": "folder"}))
        assert (str(told.level), told.fix) == ("warn", "set pictures.base_url to an https:// address")
        (bad,) = findings(project.settings(pictures={**good, "folder": "/proc/nowhere"}))
        assert (str(bad.level), bad.text[:35]) == ("fail", "/proc/nowhere cannot be written: No")

    @pytest.mark.parametrize(("status", "level"), [(404, "ok"), (403, "warn"), (500, "fail")])
    def test_a_bucket(self, project: Project, status: int, level: str) -> None:
        keys = {"DISTRIBUTOR_S3_ACCESS_KEY": "AKIDOFNOBODY", "DISTRIBUTOR_S3_SECRET_KEY": "hunter2"}
        with PictureServer() as server:
            server.acts["*"] = lambda visitor: visitor.answer(status)
            s3 = {"endpoint": server.url("").rstrip("/"), "bucket": "news", "prefix": "daily"}
            table = {"rehost": "s3", "base_url": "https://cdn.example", "s3": s3}
            (told,) = findings(project.settings(pictures=table, environment=keys))
            assert server.asked[0].path == "/news/daily/0000000000000000.png"
        assert str(told.level) == level
        assert "hunter2" not in told.text


def ask(app: FastAPI, path: str, method: str = "GET") -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://news.example") as client:
            return await client.request(method, path)

    return asyncio.run(asked())


@pytest.fixture
def app(project: Project) -> Iterator[FastAPI]:
    """The web app of a project with one hosted picture, and files beside it that are none of anybody's business."""
    settings = project.settings(pictures={"rehost": "folder"})
    store = FolderStore(settings.path(settings.pictures.folder), settings.pictures_url)
    store.put(PICTURE)
    for name in (".new-x", "notes.txt", "0123456789abcdef.svg", "0123456789abcdef.jpg.bak"):
        (store.folder / name).write_text("secret")
    distributor = build(settings)
    yield create_app(distributor)
    distributor.close()


class TestWeb:
    def test_a_picture_may_be_kept_for_ever(self, app: FastAPI) -> None:
        name = f"/pictures/{PICTURE.hash[:16]}.jpg"
        answer = ask(app, name)
        assert (answer.status_code, answer.content) == (200, PICTURE.data)
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["x-content-type-options"] == "nosniff"
        looked = ask(app, name, "HEAD")
        assert (looked.status_code, looked.content) == (200, b"")
        assert looked.headers["content-length"] == str(len(PICTURE.data))

    @pytest.mark.parametrize(
        "name",
        [
            *(
                "0123456789abcdef.jpg",
                "0123456789abcdef.svg",
                "0123456789abcdef.jpg.bak",
                "notes.txt",
                ".new-x",
                "",
            ),
            *(
                "..%2f..%2fconfig%2fdistributor.toml",
                "%2e%2e/distributor.sqlite3",
                "0123456789abcdef.jpg%0a",
                "%00",
            ),
        ],
    )
    def test_nothing_else_is_shown(self, app: FastAPI, name: str) -> None:
        answer = ask(app, f"/pictures/{name}")
        assert answer.status_code == 404
        assert "secret" not in answer.text
        assert "immutable" not in answer.headers.get("cache-control", "")

    @pytest.mark.parametrize(
        "table",
        [{}, {"rehost": "folder", "base_url": "https://cdn.example"}],
        ids=["off", "shown elsewhere"],
    )
    def test_no_page_without_need(self, project: Project, table: dict[str, Any]) -> None:
        settings = project.settings(pictures=table)
        store = FolderStore(settings.path(settings.pictures.folder), OWN)
        name = store.put(PICTURE)
        distributor = build(settings)
        assert ask(create_app(distributor), f"/pictures/{name}").status_code == 404
        distributor.close()
