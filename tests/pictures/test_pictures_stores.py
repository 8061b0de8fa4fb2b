"""Where hosted pictures are kept: a folder, and a bucket behind a real HTTP server that speaks enough of S3."""

import re
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from picture_server import PictureServer, Visitor, picture_file

from distributor.errors import ConfigError, PictureError
from distributor.pictures import NAME, FolderStore, Picture, S3Store, as_jpeg_or_png
from distributor.pictures.stores import name_of
from distributor.settings import S3Settings

PICTURE = as_jpeg_or_png(picture_file("JPEG"), most_bytes=100_000, most_width=600)
BASE = "https://cdn.example/pictures"


class TestFolder:
    def test_a_picture_is_called_by_what_is_in_it(self, tmp_path: Path) -> None:
        store = FolderStore(tmp_path / "new" / "folder", BASE + "/")
        name = store.put(PICTURE)
        assert name == f"{PICTURE.hash[:16]}.jpg" == name_of(PICTURE)
        assert NAME.fullmatch(name)
        assert store.address(name) == f"{BASE}/{name}"
        assert (store.folder / name).read_bytes() == PICTURE.data
        assert store.read(store.address(name)) == PICTURE.data

    def test_a_web_server_of_another_user_may_read_it(self, tmp_path: Path) -> None:
        store = FolderStore(tmp_path, BASE)
        assert stat.S_IMODE((tmp_path / store.put(PICTURE)).stat().st_mode) == 0o644

    def test_the_same_picture_is_written_once(self, tmp_path: Path) -> None:
        store = FolderStore(tmp_path, BASE)
        before = (tmp_path / store.put(PICTURE)).stat()
        assert store.put(PICTURE) == name_of(PICTURE)
        after = (tmp_path / name_of(PICTURE)).stat()
        assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
        assert [path.name for path in tmp_path.iterdir()] == [name_of(PICTURE)]

    def test_many_at_once_leave_one_whole_file(self, tmp_path: Path) -> None:
        store = FolderStore(tmp_path, BASE)
        threads = [threading.Thread(target=store.put, args=(PICTURE,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [PICTURE.data]

    def test_a_folder_that_cannot_be_written_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(PictureError, match=r"cannot be kept in .*: is the folder ours to write"):
            FolderStore(tmp_path / "file", BASE).put(PICTURE)

    @pytest.mark.parametrize(
        "address",
        [
            f"{BASE}/../secret",
            f"{BASE}/secret.jpg",
            "https://else.example/0123456789abcdef.jpg",
            f"{BASE}/",
            "",
        ],
    )
    def test_nothing_but_pictures_of_ours_is_read(self, tmp_path: Path, address: str) -> None:
        (tmp_path / "pictures").mkdir()
        (tmp_path / "secret").write_text("s")
        (tmp_path / "pictures" / "secret.jpg").write_text("s")
        assert FolderStore(tmp_path / "pictures", BASE).read(address) is None


class Bucket:
    """A store's answers: what was put is there; `refuses` says with which status it answers instead."""

    def __init__(self, server: PictureServer) -> None:
        self.objects = dict[str, bytes]()
        self.refuses = dict[str, int]()
        self.server = server
        server.acts["*"] = self.act

    def act(self, visitor: Visitor) -> None:
        verb, path = visitor.command, visitor.path
        if status := self.refuses.get(verb):
            error = b"<Error><Code>AccessDenied</Code><Message>no such key id</Message></Error>"
            visitor.answer(status, error if verb != "HEAD" else b"", Content_Type="application/xml")
        elif verb == "PUT":
            self.objects[path] = self.server.asked[-1].body
            visitor.answer(200, ETag='"1"')
        else:
            visitor.answer(200 if path in self.objects else 404)

    def verbs(self) -> list[str]:
        return [request.verb for request in self.server.asked]

    def store(self, **changes: object) -> S3Store:
        table = {
            "endpoint": self.server.url("").rstrip("/"),
            "region": "cn-north-1",
            "bucket": "news",
            "prefix": "/daily/pictures/",
            "access_key": "AKIDOFNOBODY",
            "secret_key": "hunter2",
        }
        return S3Store(S3Settings.model_validate(table | changes), BASE)


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with PictureServer() as server:
        yield Bucket(server)


class TestS3:
    def test_a_picture_is_put_signed_and_for_ever(self, bucket: Bucket) -> None:
        store = bucket.store()
        name = store.put(PICTURE)
        assert store.address(name) == f"{BASE}/{name}"
        assert bucket.objects == {f"/news/daily/pictures/{name}": PICTURE.data}
        assert bucket.verbs() == ["HEAD", "PUT"]
        headers = {key.lower(): value for key, value in bucket.server.asked[-1].headers.items()}
        assert headers["content-type"] == "image/jpeg"
        assert headers["cache-control"] == "public, max-age=31536000, immutable"
        assert re.match(
            r"AWS4-HMAC-SHA256 Credential=AKIDOFNOBODY/\d{8}/cn-north-1/s3/aws4_request, SignedHeaders=",
            headers["authorization"],
        )
        assert "x-amz-acl" not in headers  # the bucket's policy makes it public

    def test_other_stores_understand_the_body(self, bucket: Bucket) -> None:
        """No chunks with trailers, as newer boto3 sends by default: many a store that speaks S3 keeps them as data."""
        bucket.store().put(PICTURE)
        headers = {key.lower() for key in bucket.server.asked[-1].headers}
        assert not {"x-amz-trailer", "x-amz-sdk-checksum-algorithm", "content-encoding"} & headers

    def test_what_is_there_is_not_put_again(self, bucket: Bucket) -> None:
        for _ in range(2):
            bucket.store().put(PICTURE)
        assert bucket.verbs() == ["HEAD", "PUT", "HEAD"]

    def test_without_the_right_to_list_it_is_put_all_the_same(self, bucket: Bucket) -> None:
        bucket.refuses["HEAD"] = 403
        bucket.store().put(PICTURE)
        assert bucket.verbs() == ["HEAD", "PUT"]

    def test_a_refusal_says_what_to_look_at_and_keeps_the_secret(self, bucket: Bucket) -> None:
        bucket.refuses["PUT"] = 403
        with pytest.raises(PictureError) as caught:
            bucket.store().put(PICTURE)
        assert "cannot be kept in the bucket news" in str(caught.value)
        assert "AccessDenied" in str(caught.value)
        assert "[pictures.s3]" in str(caught.value)
        assert "hunter2" not in str(caught.value)

    def test_a_store_that_is_unwell_or_away_is_told(self, bucket: Bucket) -> None:
        bucket.refuses["HEAD"] = 500
        with pytest.raises(PictureError, match="cannot be kept in the bucket"):
            bucket.store().holds("0123456789abcdef.png")
        away = bucket.store(endpoint="http://127.0.0.1:9")
        with pytest.raises(PictureError, match="cannot be kept in the bucket"):
            away.put(PICTURE)

    def test_without_prefix_and_path(self, bucket: Bucket) -> None:
        """By an IP address a bucket can stand in the path alone; by name, `addressing` says where."""
        name = bucket.store(prefix="").put(PICTURE)
        assert list(bucket.objects) == [f"/news/{name}"]
        named = {"endpoint": "https://oss.example.com", "addressing": "virtual"}
        address = bucket.store(**named).client.generate_presigned_url(
            "get_object", Params={"Bucket": "news", "Key": "a.png"}
        )
        assert urlsplit(address).hostname == "news.oss.example.com"

    def test_without_boto3_the_configuration_is_wrong(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("distributor.pictures.stores.find_spec", lambda _name: None)
        with pytest.raises(ConfigError, match=r'pip install "distributor\[s3\]"'):
            bucket.store()


def test_a_name_holds_for_every_kind() -> None:
    for kind, suffix in (("jpeg", "jpg"), ("png", "png"), ("gif", "gif")):
        name = name_of(Picture(b"data", kind, 1, 1))  # type: ignore[arg-type]
        assert NAME.fullmatch(name)
        assert name.endswith(f".{suffix}")
