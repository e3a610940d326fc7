"""Files come out as rows of text, and their events in the order of their times."""

from __future__ import annotations

import gzip
import json
import random
from typing import TYPE_CHECKING

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producers import files
from producers.files import EventSorter, FileError, open_table, stage, stem
from producers.mapping import Event, Mapping, MappingError, Refusal, load_mapping, parse_mapping

if TYPE_CHECKING:
    from pathlib import Path

CSV = "customer,date,amount\nann,2026-03-02,20\nbob,2026-03-01,10\nann,2026-03-03,-5\n"


def read(file: Path, mapping: Mapping) -> tuple[list[Event], list[Refusal], int]:
    refused: list[Refusal] = []
    with EventSorter() as sorter:
        rows = stage(file, mapping, sorter, refused.append)
        count = sorter.sort()
        events = [event for batch in sorter.batches() for event in batch]
    assert count == len(events)
    return events, refused, rows


def write(file: Path, content: bytes) -> Path:
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
    return file


@pytest.fixture(params=["csv", "tsv", "jsonl", "parquet"])
def plain(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The same table in each format."""
    kind: str = request.param
    file = tmp_path / f"orders.{kind}"
    if kind == "csv":
        return write(file, CSV.encode())
    if kind == "tsv":
        return write(file, CSV.replace(",", "\t").encode())
    header, *rows = [line.split(",") for line in CSV.splitlines()]
    if kind == "jsonl":
        lines = [dict(zip(header, row, strict=True)) for row in rows]
        typed = [line | {"amount": float(line["amount"])} for line in lines]
        return write(file, "\n".join(json.dumps(line) for line in typed).encode())
    source = tmp_path / "source.csv"
    source.write_text(CSV)
    duckdb.sql(f"COPY (FROM read_csv('{source}')) TO '{file}'")  # typed: DATE and BIGINT
    return file


@pytest.mark.parametrize("packed", [False, True])
def test_every_format_gives_the_same_events_in_order(plain: Path, packed: bool) -> None:
    file = write(plain.with_name(plain.name + ".gz"), plain.read_bytes()) if packed else plain
    events, refused, rows = read(file, load_mapping("simple"))
    assert [(e.user, e.event, e.amount, e.row) for e in events] == [
        ("bob", "Order Completed", 10.0, 2),
        ("ann", "Order Completed", 20.0, 1),
        ("ann", "Order Refunded", -5.0, 3),
    ]
    assert rows == 3
    assert not refused
    assert stem(file) == "orders"


@pytest.mark.slow
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None
)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 50), st.sampled_from("abc"), st.sampled_from(["x", "y", None]),
            st.integers(-3, 9),
        ),
        max_size=60,
    )
)  # fmt: skip
def test_order_lines_add_up_in_event_time_order(
    rows: list[tuple[int, str, str | None, int]],
) -> None:
    events = [
        Event(at, row, user, "Order Completed", order, None, f"c{row}", None, 1.0, None, amount / 4)
        for row, (at, user, order, amount) in enumerate(rows, 1)
    ]
    groups: dict[tuple[str, str | int], list[Event]] = {}
    for event in events:
        groups.setdefault((event.user, event.order or event.row), []).append(event)
    expected = sorted(
        (min(e.time_ms for e in lines), lines[0].row, lines[0].user, lines[0].category,
         float(len(lines)), sum(e.amount or 0 for e in lines))
        for lines in groups.values()
    )  # fmt: skip
    with EventSorter() as sorter:
        sorter.add(events[: len(events) // 2])
        sorter.add(events[len(events) // 2 :])
        sorter.sort()
        found = [event for batch in sorter.batches() for event in batch]
    assert [(e.time_ms, e.row, e.user, e.category, e.quantity, e.amount) for e in found] == expected


def test_absent_numbers_stay_absent() -> None:
    bare = Event(1, 1, "u", "Product Viewed", None, None, None, None, None, None, None)
    lines = [
        Event(2, 2, "u", "Order Completed", "o", None, None, None, 1.0, None, None),
        Event(2, 3, "u", "Order Completed", "o", None, None, None, 1.0, None, 2.5),
        Event(2, 4, "u", "Order Completed", "p", None, None, None, 1.0, None, None),
    ]
    with EventSorter() as sorter:
        sorter.add([bare, *lines])
        sorter.sort()
        found = [event for batch in sorter.batches() for event in batch]
    assert found[0] == bare
    assert [e.amount for e in found[1:]] == [2.5, None]


def test_more_rows_than_a_batch_keep_ties_in_file_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BATCH_ROWS", 100)
    days = [random.Random(1).randrange(1, 4) for _ in range(950)]
    lines = [f"u{n},2026-03-0{day},1" for n, day in enumerate(days)]
    file = write(tmp_path / "many.csv", "\n".join(["customer,date,amount", *lines]).encode())
    events, _, rows = read(file, load_mapping("simple"))
    assert rows == 950
    assert [e.row for e in events] == sorted(range(1, 951), key=lambda row: days[row - 1])


# -- what is wrong with a file -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("gone.csv", None, "no such file"),
        ("orders.bin", b"PK", "cannot tell what this is"),
        ("orders.csv", b"PK\x03\x04", "this is a workbook or a ZIP"),
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


def test_other_encodings_and_delimiters(tmp_path: Path) -> None:
    mapping = parse_mapping(
        'user = "Kunde"\ntime = "Tag"\nevent = "Order Completed"\namount = "Betrag"\n'
        'decimal = ","\nencoding = "latin-1"\ndelimiter = ";"',
        "de", "de.toml",
    )  # fmt: skip
    content = "Kunde;Tag;Betrag\nJürgen;2026-01-01;1.234,5\n".encode("latin-1")
    events, refused, _ = read(write(tmp_path / "orders.csv", content), mapping)
    assert not refused
    assert [(e.user, e.amount) for e in events] == [("Jürgen", 1234.5)]


def test_a_wrong_encoding_is_refused_with_its_remedy(tmp_path: Path) -> None:
    content = "customer,date,amount\nJürgen,2026-01-01,3\nann,2026-01-01,3\n".encode("latin-1")
    file = write(tmp_path / "orders.csv", content)
    (event,), (refused,), _ = read(file, load_mapping("simple"))
    assert event.user == "ann"
    assert "encoding" in refused.why


def test_json_and_parquet_reach_into_objects(tmp_path: Path) -> None:
    track = {
        "type": "track", "event": "Order Completed", "userId": "u", "messageId": "m",
        "timestamp": "2026-11-21T09:00:00.000Z",
        "properties": {"revenue": 12.5, "category": "shoes"},
    }  # fmt: skip
    file = write(tmp_path / "tracks.jsonl", (json.dumps(track) + "\n").encode())
    (event,), _, _ = read(file, load_mapping("segment"))
    assert (event.amount, event.category, event.id) == (12.5, "shoes", "m")
    parquet = tmp_path / "tracks.parquet"
    duckdb.sql(f"COPY (FROM read_json('{file}')) TO '{parquet}'")
    assert read(parquet, load_mapping("segment"))[0] == [event]


def test_lines_that_no_reader_can_hold_are_refused(tmp_path: Path) -> None:
    good = b'{"customer":"a","date":"2026-03-01","amount":1}'
    odd = [
        b'{"customer":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"customer":' + b"[" * 900 + b"]" * 900 + b',"date":"2026-03-01"}',
        b'{"customer":"\\ud800","date":"2026-03-01","amount":1}',
        b'{"customer":"\xff","date":"2026-03-01","amount":1}',
        b'{"customer":"a","date":"2026-03-01","amount":1e999}',
        b'{"customer":"a","date":"2026-03-01","amount":' + b"1" * 4_000 + b"}",
        b'{"customer":"a","date":"2026-03-01","amount":' + b"1" * 5_000 + b"}",
        b'{"customer":{"\\u0000":[]},"date":"\\u0000","amount":NaN}',
    ]
    file = write(tmp_path / "odd.jsonl", b"\n".join([good, *odd, good]))
    events, refusals, _ = read(file, load_mapping("simple"))
    assert [event.row for event in events] == [1, len(odd) + 2]
    assert sorted(refusal.row for refusal in refusals) == list(range(2, len(odd) + 2))


def test_an_empty_table_has_no_events(tmp_path: Path) -> None:
    for name, content in (("a.csv", b"customer,date,amount\n"), ("a.jsonl", b"")):
        assert read(write(tmp_path / name, content), load_mapping("simple")) == ([], [], 0)


def test_names_that_look_like_patterns(tmp_path: Path) -> None:
    file = write(tmp_path / "orders[1]*.csv", CSV.encode())
    write(tmp_path / "orders1x.csv", b"something,else\n1,2\n")
    with open_table(file, load_mapping("simple"), lambda _: None) as table:
        assert table.columns == ("customer", "date", "amount")
        assert sum(len(batch) for batch in table.batches) == 3
