"""A file is known by its name and what it begins with; what cannot be read is told."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest

from producers.mapping import MappingError, load_mapping
from producers.tables.opening import open_table
from producers.texts import FileError

if TYPE_CHECKING:
    from pathlib import Path

from tests.producers.tables.reading import CSV, read, write, zipped


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("gone.csv", None, "no such file"),
        ("orders.bin", b"PK", "cannot tell what this is"),
        ("orders.csv", b"PK\x03\x04", "broken or truncated ZIP"),
        ("orders.csv", zipped({"[Content_Types].xml": b"", "xl/workbook.xml": b""}), "a workbook"),
        ("orders.csv", zipped({"content.xml": b""}), "a workbook.*save the sheet as CSV"),
        ("orders.zip", b"this is no zip", "broken or truncated ZIP"),
        ("orders.zip", zipped({"a.csv": b"", "b.csv": b""}), r"has 2 files in it \(a.csv, b.csv\); unpack"),
        ("orders.csv.zip", zipped({"x/": b""}), "no file in it"),
        ("orders.zip", zipped({"readme": b""}), "cannot tell what this is"),
        ("orders.csv.zip", zipped({"orders.csv": CSV.encode() * 50})[:-40], "broken or truncated ZIP"),
        ("orders.xlsx", b"PK", "this is a workbook.*save the sheet as CSV"),
        ("orders.csv.gz", gzip.compress(CSV.encode() * 5_000)[:-200], "orders.csv.gz: broken or trunc"),
        ("orders.csv.gz", b"this is not gzip", "orders.csv.gz: broken or truncated"),
        ("orders.jsonl.gz", b"this is not gzip", "broken or truncated gzip"),
        ("orders.jsonl.gz", gzip.compress(b'{"customer":"a"}\n' * 9_999)[:-9], "broken or trunc"),
        ("orders.parquet", b"PAR1 not really", "orders.parquet: cannot be read"),
        ("orders.parquet.gz", b"this is not gzip", "broken or truncated gzip"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read(
    tmp_path: Path, name: str, content: bytes | None, expected: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(FileError, match=expected) as caught:
        read(file, load_mapping("simple"))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("orders.csv", b"buyer,date,amount\na,2026-01-01,1\n"),
        ("orders.jsonl", b'{"buyer":"a","date":"2026-01-01","amount":1}\n'),
    ],
)
def test_a_missing_column_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    file = write(tmp_path / name, content)
    with pytest.raises(MappingError, match=r"user: the file has no column 'customer'.*buyer"):
        read(file, load_mapping("simple"))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="folder"):
        read(tmp_path, load_mapping("simple"))


def test_broken_lines_are_refused_and_their_neighbours_kept(tmp_path: Path) -> None:
    broken = CSV + "carl,2026-03-04\ndora,2026-03-05,7,8,9\nemil,2026-03-06,6\n"
    events, refused, rows = read(
        write(tmp_path / "orders.csv", broken.encode()), load_mapping("simple")
    )
    assert [e.user for e in events] == ["bob", "ann", "ann", "emil"]
    assert [(r.reason, r.row) for r in refused] == [("unreadable", 4), ("unreadable", 5)]
    assert rows == 6

    lines = b'{"customer":"a","date":"2026-01-01","amount":1}\n\n{"customer":\n[1]\n\xff\n'
    events, refused, rows = read(write(tmp_path / "orders.jsonl", lines), load_mapping("simple"))
    assert [e.user for e in events] == ["a"]
    assert [(r.reason, r.row) for r in refused] == [("unreadable", n) for n in (3, 4, 5)]
    assert rows == 4


def test_an_empty_table_has_no_events(tmp_path: Path) -> None:
    for name, content in (("a.csv", b"customer,date,amount\n"), ("a.jsonl", b"")):
        assert read(write(tmp_path / name, content), load_mapping("simple")) == ([], [], 0)


def test_names_that_look_like_patterns(tmp_path: Path) -> None:
    file = write(tmp_path / "orders[1]*.csv", CSV.encode())
    write(tmp_path / "orders1x.csv", b"something,else\n1,2\n")
    with open_table(file, load_mapping("simple"), lambda _: None) as table:
        assert table.columns == ("customer", "date", "amount")
        assert sum(len(batch) for batch in table.batches) == 3


def test_gzip_is_known_by_its_name_in_any_case_and_by_its_content(tmp_path: Path) -> None:
    mapping = load_mapping("simple")
    expected = read(write(tmp_path / "orders.csv", CSV.encode()), mapping)
    for name in ("orders.CSV.GZ", "packed.csv"):
        file = write(tmp_path / name, gzip.compress(CSV.encode()))
        assert read(file, mapping) == expected
