"""The files of an import as rows of cells: encodings, delimiters, and zips that are read without being unpacked."""

import codecs
import csv
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any

from distributor.errors import RequestRefused

BLOCK = 1 << 20
BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
#: Without a mark of its own a file is one of these: what fits UTF-8 by chance is next to nothing, GB18030 takes the rest.
GUESSES = ("utf-8", "gb18030")
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
#: Of a zip: more than any export has, little enough that a hostile one does no harm.
MOST_MEMBERS, LARGEST_MEMBER, HIGHEST_RATIO = 10_000, 4 << 30, 250


#: (the line where it begins, its cells), or what is wrong with it.
Row = tuple[int, list[str] | str]


@dataclass
class Sheet:
    """One CSV, in a file or inside a zip. `done` counts the bytes that were read as rows."""

    name: str
    open: Callable[[], IO[bytes]]
    size: int
    encoding_named: str | None = None
    done: int = field(default=0, init=False)

    @cached_property
    def encoding(self) -> str:
        """As named, as marked, or guessed from the whole file. Raises RequestRefused."""
        if self.encoding_named:
            return self.encoding_named
        with self._opened() as file:
            head = file.read(4)
        marked = (name for bom, name in BOMS.items() if head.startswith(bom))
        return next(marked, None) or self._guessed()

    @cached_property
    def header(self) -> Sequence[str]:
        """The names of its columns. Raises RequestRefused for an empty file."""
        line, cells = next(self._read(), (1, "is empty; it needs a header with a column `email`"))
        if isinstance(cells, str):
            raise RequestRefused(f"{self.name}: line {line}: {cells}")
        return [cell.strip() for cell in cells]

    @cached_property
    def delimiter(self) -> str:
        """The one that makes the most of the first line."""
        with self._text() as text:
            first = next((line for line in text if line.strip()), "")
        if said := re.fullmatch(r"sep=(.)\s*", first):  # how Excel marks its files
            return said[1]
        return max(DELIMITERS, key=lambda sign: len(next(csv.reader([first], delimiter=sign), [])))

    @property
    def separator(self) -> str:
        """The delimiter's name."""
        return DELIMITERS.get(self.delimiter, self.delimiter)

    def rows(self) -> Iterator[Row]:
        """What is behind the header; blank lines are passed over."""
        rows = self._read(count=True)
        next(rows, None)
        yield from rows

    def _read(self, *, count: bool = False) -> Iterator[Row]:
        """Every record; the reader goes on behind a broken one."""
        with self._text(count=count) as text:
            reader = csv.reader(text, delimiter=self.delimiter)
            begun = 1
            while True:
                try:
                    for cells in reader:
                        if any(cells) and not (begun == 1 and cells[0].startswith("sep=")):
                            yield begun, cells
                        begun = reader.line_num + 1
                except csv.Error as error:
                    yield (
                        begun,
                        f"lines {begun} to {reader.line_num} cannot be read: {error}; is a quote open?",
                    )
                    begun = reader.line_num + 1
                else:
                    return

    @contextmanager
    def _text(self, *, count: bool = False) -> Iterator[io.TextIOWrapper]:
        try:
            with (
                self._opened() as file,
                io.BufferedReader(_Counting(file, self if count else None), BLOCK) as blocks,
                io.TextIOWrapper(blocks, self.encoding, newline="") as text,
            ):
                yield text
        except UnicodeError as error:
            raise RequestRefused(
                f"{self.name}: is not {self.encoding} ({error}); name its encoding, as in --encoding gb18030"
            ) from None

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        try:
            with self.open() as file:
                yield file
        except OSError as error:
            raise RequestRefused(f"{self.name}: cannot be read: {error.strerror}") from None
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise RequestRefused(f"{self.name}: the zip is broken: {error}") from None
        except NotImplementedError as error:
            raise RequestRefused(
                f"{self.name}: is packed in a way that cannot be read ({error}); unpack the zip and import the CSVs"
            ) from None

    def _guessed(self) -> str:
        for name in GUESSES:
            if self._decodes(name):
                return name
        raise RequestRefused(
            f"{self.name}: is neither UTF-8 nor GB18030; name its encoding, as in --encoding windows-1252"
        )

    def _decodes(self, encoding: str) -> bool:
        decoder = codecs.getincrementaldecoder(encoding)()
        with self._opened() as file:
            try:
                while block := file.read(BLOCK):
                    decoder.decode(block)
                decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                return False
        return True


class _Counting(io.RawIOBase):
    """Tells a sheet how far its reader is."""

    def __init__(self, file: IO[bytes], sheet: Sheet | None) -> None:
        self._file, self._sheet = file, sheet

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        if self._sheet:
            self._sheet.done += len(data)
        return len(data)


def sheets_of(path: Path, encoding: str | None = None) -> Sequence[Sheet]:
    """The CSVs of a file: itself, or those in a zip. Raises RequestRefused."""
    if encoding:
        _check_encoding(encoding)
    try:
        if zipfile.is_zipfile(path):
            return _zipped(path, encoding)
        return [Sheet(_printable(path.name), lambda: path.open("rb"), path.stat().st_size, encoding)]
    except OSError as error:
        raise RequestRefused(f"{path}: cannot be read: {error.strerror}") from None


def _zipped(path: Path, encoding: str | None) -> Sequence[Sheet]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [one for one in archive.infolist() if one.filename.lower().endswith(".csv")]
            count = len(archive.infolist())
    except zipfile.BadZipFile as error:
        raise RequestRefused(f"{path}: is a broken zip: {error}") from None
    if count > MOST_MEMBERS:
        raise RequestRefused(f"{path}: holds {count} files; an export has a few")
    return [_member(path, member, encoding) for member in members]


def _member(path: Path, member: zipfile.ZipInfo, encoding: str | None) -> Sheet:
    name = _printable(PurePosixPath(member.filename.replace("\\", "/")).name)
    if member.flag_bits & 1:
        raise RequestRefused(f"{path}: {name} is encrypted; unpack it and import the CSVs")
    ratio = member.file_size / max(1, member.compress_size)
    if member.file_size > LARGEST_MEMBER or ratio > HIGHEST_RATIO:
        raise RequestRefused(
            f"{path}: {name} would be {member.file_size:,} bytes ({ratio:,.0f} times as packed): that is no export"
        )
    return Sheet(name, lambda: zipfile.ZipFile(path).open(member), member.file_size, encoding)


def _check_encoding(encoding: str) -> None:
    try:
        "".encode(encoding)  # of text: there are others, such as base64
    except LookupError:
        raise RequestRefused(f"there is no encoding {encoding!r}; utf-8, gb18030, utf-16 are usual") from None


def _printable(name: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in name)[:200]
