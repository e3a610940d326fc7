"""Opens files of text in whatever encoding they have, and proposes one where it does not fit.

Comes in: a file, packed by gzip or ZIP or not, and the encoding that is declared. Goes out: lines of
text; a byte order mark decides where there is one, so does UTF-16 without one, and bytes that are no
text become halves of surrogate pairs, by which `is_text` knows them. `tables` is next.
"""

from __future__ import annotations

import codecs
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

from stream.told import WRONG, ToldError

_SAMPLE = 1 << 20
_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]+")
_ALONE = 0.5
"""In Western languages fewer letters beyond ASCII than this stand three or more together."""


WORKBOOK_ADVICE = (
    "this is a workbook, which is not read; open it and save the sheet as CSV (in Excel: Save As, CSV "
    "UTF-8)"
)


class FileError(ToldError):
    """A file that cannot be read; the message names the file and what is wrong with it."""

    exit_code = WRONG


def is_packed(file: Path) -> bool:
    """Whether a file's name says that another file is in it."""
    return file.suffix.lower() in (".gz", ".zip")


def unpacked_name(file: Path) -> Path:
    """What the file is called that is in a packed one; any other's own name.

    Raises:
        FileError: it is a ZIP that cannot be read, or that has not one file in it.
    """
    if file.suffix.lower() == ".zip":
        with _explained(file), zipfile.ZipFile(file) as archive:
            return Path(_only_member(file, archive))
    return Path(file.stem if is_packed(file) else file.name)


@contextmanager
def open_bytes(file: Path) -> Iterator[io.BufferedReader]:
    """A file's bytes, unpacked if its name ends in ``.gz`` or ``.zip``, or if that is how it begins.

    Raises:
        FileError: it cannot be read. While it is read, too.
    """
    with _explained(file), ExitStack() as opened:
        with file.open("rb") as stream:
            start = stream.peek(4)[:4]
        if file.suffix.lower() == ".gz" or start.startswith(b"\x1f\x8b"):
            found: Any = opened.enter_context(gzip.open(file, "rb"))
        elif file.suffix.lower() == ".zip" or start == b"PK\x03\x04":
            archive = opened.enter_context(zipfile.ZipFile(file))
            found = opened.enter_context(archive.open(_only_member(file, archive)))
        else:
            found = opened.enter_context(file.open("rb"))
        yield cast("io.BufferedReader", found)  # or the like of it


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Errors of reading bytes, in words."""
    try:
        yield
    except (zipfile.BadZipFile, lzma.LZMAError) as error:
        raise FileError(f"{file}: broken or truncated ZIP: {error}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileError(f"{file}: broken or truncated gzip: {error}") from None
    except OSError as error:
        raise FileError(f"{file}: cannot be read: {error.strerror or error}") from None


def _only_member(file: Path, archive: zipfile.ZipFile) -> str:
    """The one file in a ZIP, beside what macOS leaves in it.

    Raises:
        FileError: there is none, or there are several, or it has a password, or it is a workbook.
    """
    members = [
        member
        for member in archive.infolist()
        if not member.is_dir()
        and not member.filename.startswith("__MACOSX/")
        and not Path(member.filename).name.startswith(".")
    ]
    names = [member.filename for member in members]
    if any(name in names for name in ("[Content_Types].xml", "content.xml")):
        raise FileError(f"{file}: {WORKBOOK_ADVICE}")
    if len(names) != 1:
        shown = ", ".join(names[:3]) + (" .." if len(names) > 3 else "")
        raise FileError(
            f"{file}: has {len(names)} files in it ({shown}); unpack it and name those to be read"
            if names
            else f"{file}: has no file in it"
        )
    if members[0].flag_bits & 1:
        raise FileError(f"{file}: has a password; unpack it first")
    return names[0]


@contextmanager
def open_lines(file: Path, encoding: str) -> Iterator[Iterator[str]]:
    """A file's lines with their ends, whatever ends them.

    Raises:
        FileError: it cannot be read, or is in another encoding altogether. While it is read, too.
    """
    with open_bytes(file) as stream:
        found = encoding_at(stream.peek(4)[:4]) or encoding
        text = io.TextIOWrapper(stream, found, errors="surrogateescape", newline="")
        try:
            yield text
        except UnicodeError as error:
            raise FileError(f"{file}: is not in {found} ({error}){advice(file)}") from None
        finally:
            text.detach()


@contextmanager
def open_utf8_lines(file: Path, encoding: str) -> Iterator[Iterator[bytes]]:
    """A file's lines as UTF-8, whatever encoding it has; bytes that are no text stay what they are.

    Raises:
        FileError: it cannot be read, or is in another encoding altogether. While it is read, too.
    """
    with open_bytes(file) as stream:
        found = encoding_at(stream.read(4))
    if codecs.lookup(encoding).name == "utf-8" and found in (None, "utf-8-sig"):
        with open_bytes(file) as stream:
            if found is not None:
                stream.read(len(codecs.BOM_UTF8))
            yield stream
        return
    with open_lines(file, encoding) as lines:
        yield (line.encode("utf-8", "surrogateescape") for line in lines)


def encoding_at(start: bytes) -> str | None:
    """The encoding that the first four bytes of a file tell: a byte order mark, or UTF-16 without one.

    Where every other byte is zero there are letters of ASCII in UTF-16; no other text has such bytes.
    """
    marked = next((name for mark, name in _MARKS if start.startswith(mark)), None)
    if marked is None and len(start) == 4:
        zeros = [byte == 0 for byte in start]
        if zeros == [False, True, False, True]:
            return "utf-16-le"
        if zeros == [True, False, True, False]:
            return "utf-16-be"
    return marked


def is_text(text: str) -> bool:
    """Whether it can be written again: halves of surrogate pairs stand for bytes that are no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_utf8_after_all(file: Path, encoding: str) -> bool:
    """Whether a file has letters beyond ASCII in UTF-8, and is read in another encoding."""
    if codecs.lookup(encoding).name.startswith("utf"):
        return False
    with open_bytes(file) as stream:
        sample = stream.read(_SAMPLE)
    if sample.isascii() or encoding_at(sample[:4]) is not None:
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return True


def advice(file: Path) -> str:
    """What a mapping can say of a file whose text is not in the declared encoding."""
    with open_bytes(file) as stream:
        sample = stream.read(_SAMPLE)
    proposed = propose_encoding(sample)
    if proposed is None:
        return ""
    read = next(
        (word for word in sample.decode(proposed, "replace").split() if not word.isascii()), ""
    )
    return f'; the mapping can say encoding = "{proposed}", which reads {read[:40]!r}'


def propose_encoding(sample: bytes) -> str | None:
    """An encoding in which some bytes are text as people write it; None if they are ASCII."""
    evens, odds = sample[0:4_096:2].count(0), sample[1:4_096:2].count(0)
    if evens + odds > len(sample[:4_096]) // 4:
        return "utf-16-be" if evens > odds else "utf-16-le"
    beyond = [len(run) for run in _BEYOND_ASCII.findall(sample)]
    if not beyond:
        return None
    # The sample may end within a character.
    complete = sample[: sample.rfind(b"\n") + 1] or sample
    if _share(complete, "shift_jis", "\u3041", "\u30ff") > 0.2:
        return "shift_jis"
    if sum(length for length in beyond if length > 2) > _ALONE * sum(beyond):
        if _share(complete, "cp1251", "\u0400", "\u045f") > 0.9:
            return "cp1251"
        if _share(complete, "euc_kr", "\uac00", "\ud7a3") > 0.9:
            return "euc_kr"
        if _share(complete, "gb18030", "\u4e00", "\u9fff") > 0.7:
            return "gb18030"
    try:
        complete.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def _share(sample: bytes, encoding: str, first: str, last: str) -> float:
    """How many of a sample's letters beyond ASCII lie in a range; 0 if it cannot be read so."""
    try:
        letters = [letter for letter in sample.decode(encoding) if not letter.isascii()]
    except UnicodeDecodeError:
        return 0.0
    return sum(first <= letter <= last for letter in letters) / max(1, len(letters))
