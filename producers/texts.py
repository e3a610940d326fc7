"""Opens files of text in whatever encoding they have, and proposes one where it does not fit.

Comes in: a file, gzipped or not, and the encoding that is declared. Goes out: lines of text; a byte
order mark decides where there is one, and bytes that are no text become halves of surrogate pairs,
by which `is_text` knows them. `tables` is next.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

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


class FileError(Exception):
    """A file that cannot be read; the message names the file and what is wrong with it."""


def is_gzipped(file: Path) -> bool:
    """Whether a file's name says so."""
    return file.suffix.lower() == ".gz"


@contextmanager
def open_bytes(file: Path) -> Iterator[io.BufferedReader]:
    """A file's bytes, unpacked if its name ends in ``.gz``, or if that is how it begins.

    Raises:
        FileError: it cannot be read. While it is read, too.
    """
    try:
        with file.open("rb") as stream:
            packed = is_gzipped(file) or stream.peek(2)[:2] == b"\x1f\x8b"
        with gzip.open(file, "rb") if packed else file.open("rb") as stream:
            yield cast("io.BufferedReader", stream)  # or the like of it
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileError(f"{file}: broken or truncated gzip: {error}") from None
    except OSError as error:
        raise FileError(f"{file}: cannot be read: {error.strerror or error}") from None


@contextmanager
def open_lines(file: Path, encoding: str) -> Iterator[Iterator[str]]:
    """A file's lines with their ends, whatever ends them.

    Raises:
        FileError: it cannot be read, or is in another encoding altogether. While it is read, too.
    """
    with open_bytes(file) as stream:
        found = marked_encoding(stream.peek(4)[:4]) or encoding
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
        mark = stream.read(3)
    if codecs.lookup(encoding).name == "utf-8" and marked_encoding(mark) in (None, "utf-8-sig"):
        with open_bytes(file) as stream:
            if mark == codecs.BOM_UTF8:
                stream.read(len(mark))
            yield stream
        return
    with open_lines(file, encoding) as lines:
        yield (line.encode("utf-8", "surrogateescape") for line in lines)


def marked_encoding(start: bytes) -> str | None:
    """The encoding that a byte order mark at the start of a file tells."""
    return next((name for mark, name in _MARKS if start.startswith(mark)), None)


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
    if sample.isascii() or marked_encoding(sample) is not None:
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
