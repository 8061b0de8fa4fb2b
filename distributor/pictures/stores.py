"""Where hosted pictures are kept: a folder that a web server shows, or a bucket of a store that speaks S3.

A picture is called by what is in it, `<16 hex digits of its SHA-256>.<ext>`: the same one is kept once, and whoever
has it may keep it for ever.
"""

import os
import re
from importlib.util import find_spec
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Lock
from typing import Any, Protocol

from distributor.errors import ConfigError, PictureError
from distributor.pictures.picture import Picture
from distributor.settings import S3Settings, Settings

NAME = re.compile(r"[0-9a-f]{16}\.(jpg|png|gif)")
#: What is called by its hash never changes: a year, as long as caches heed it.
FOR_EVER = "public, max-age=31536000, immutable"


def name_of(picture: Picture) -> str:
    return f"{picture.hash[:16]}.{picture.suffix}"


class Store(Protocol):
    """A place for pictures."""

    @property
    def place(self) -> str:
        """Which store it is, for people and for the index; no secret."""

    def holds(self, name: str) -> bool:
        """Whether a picture is there. Raises PictureError when that cannot be told."""

    def put(self, picture: Picture) -> str:
        """Keeps a picture, unless it is there already; returns its name. Raises PictureError."""

    def address(self, name: str) -> str:
        """Where readers get it from."""


class FolderStore:
    """A folder; `base_url` is where a web server shows it."""

    def __init__(self, folder: Path, base_url: str) -> None:
        self.folder, self.base_url = folder, base_url.rstrip("/")

    @property
    def place(self) -> str:
        return f"folder {self.folder}"

    def address(self, name: str) -> str:
        return f"{self.base_url}/{name}"

    def holds(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def put(self, picture: Picture) -> str:
        name = name_of(picture)
        try:
            if not self.holds(name):
                write_whole(self.folder / name, picture.data)
        except OSError as error:
            reason = f"cannot be kept in {self.folder} ({error.strerror}): is the folder ours to write?"
            raise PictureError(name, reason) from None
        return name

    def read(self, address: str) -> bytes | None:
        """The picture behind an address of ours; None for any other."""
        base, _, name = address.rpartition("/")
        ours = base == self.base_url and NAME.fullmatch(name) is not None
        return (self.folder / name).read_bytes() if ours and self.holds(name) else None


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file so that nobody ever sees a part of it, and a web server of another user may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


class S3Store:
    """A bucket. It is public by its own policy: not every store knows ACLs, and Amazon's new buckets refuse them."""

    def __init__(self, settings: S3Settings, base_url: str) -> None:
        """Raises ConfigError without boto3."""
        if find_spec("boto3") is None:
            raise ConfigError(['pictures.rehost = "s3" needs boto3: pip install "distributor[s3]"'])
        self.settings, self.base_url = settings, base_url.rstrip("/")
        self.lock, self._client = Lock(), None

    @property
    def place(self) -> str:
        return f"s3 {self.settings.endpoint} {self.settings.bucket}/{self.settings.prefix}"

    def address(self, name: str) -> str:
        return f"{self.base_url}/{name}"

    def key(self, name: str) -> str:
        prefix = self.settings.prefix.strip("/")
        return f"{prefix}/{name}" if prefix else name

    def holds(self, name: str) -> bool:
        """Without the right to list, a store answers 403 for what is not there: then it is put, and that tells."""
        return self.status(name) == "200"

    def status(self, name: str) -> str:
        """What the store says of a picture: "200", "403" or "404". Raises PictureError for anything else."""
        from botocore.exceptions import ClientError  # noqa: PLC0415 - an optional extra, 0.3 s

        try:
            self._ask("head_object", name)
        except ClientError as error:
            code = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
            if code not in {"403", "404"}:
                raise self._refused(name, error) from None
            return code
        return "200"

    def put(self, picture: Picture) -> str:
        from botocore.exceptions import ClientError  # noqa: PLC0415 - as above

        name = name_of(picture)
        if self.holds(name):
            return name
        try:
            self._ask(
                "put_object",
                name,
                Body=picture.data,
                ContentType=picture.content_type,
                CacheControl=FOR_EVER,
            )
        except ClientError as error:
            raise self._refused(name, error) from None
        return name

    def _ask(self, verb: str, name: str, **facts: object) -> None:
        """Raises ClientError for an answer that is no, PictureError without an answer."""
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - as above

        try:
            getattr(self.client, verb)(Bucket=self.settings.bucket, Key=self.key(name), **facts)
        except (BotoCoreError, ValueError) as error:
            raise self._refused(name, error) from None

    def _refused(self, name: str, error: Exception) -> PictureError:
        return PictureError(
            name,
            f"cannot be kept in the bucket {self.settings.bucket}: {error}. "
            "Look at [pictures.s3] and its keys in the environment",
        )

    @property
    def client(self) -> Any:
        with self.lock:
            if self._client is None:
                self._client = _s3_client(self.settings)
            return self._client


def _s3_client(settings: S3Settings) -> Any:
    import boto3  # noqa: PLC0415 - an optional extra, 0.3 s
    from botocore.config import Config  # noqa: PLC0415 - as above

    access, secret = settings.access_key.get_secret_value(), settings.secret_key.get_secret_value()
    return boto3.client(
        "s3",
        endpoint_url=settings.endpoint or None,
        region_name=settings.region or "us-east-1",
        aws_access_key_id=access or None,
        aws_secret_access_key=secret or None,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": settings.addressing},
            connect_timeout=5,
            read_timeout=20,
            retries={"max_attempts": 2, "mode": "standard"},
            # The checksum trailers that boto3 sends by default since 1.36 are unknown to many a store that speaks S3.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def store_of(settings: Settings) -> Store:
    """The store of `[pictures]`. Raises ConfigError."""
    table = settings.pictures
    if table.rehost == "s3":
        return S3Store(table.s3, settings.pictures_url)
    return FolderStore(settings.path(table.folder), settings.pictures_url)
