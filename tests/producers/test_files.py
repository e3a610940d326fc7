"""Files come out as rows of text, and their events in the order of their times."""

from __future__ import annotations

import gzip
import json
import random
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producers import files
from producers.files import (
    EventSorter,
    FileError,
    Source,
    open_table,
    read_sources,
    stage,
    stem,
)
from producers.mapping import Event, Mapping, MappingError, Refusal, load_mapping, parse_mapping
from producers.texts import propose_encoding

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


# -- what programs write ahead of, in and behind a table ---------------------------------------


def amounts(events: list[Event]) -> list[float | None]:
    return [event.amount for event in events]


KUNDEN = 'user = "Kunde"\ntime = "Tag"\nevent = "Order Completed"\namount = "Größe"\n'
TABELLE = "Kunde;Tag;Größe\nJürgen;2026-01-01;1.234,50 €\nann;2026-01-02;7,5\n"


def kunden(more: str = "") -> Mapping:
    return parse_mapping(KUNDEN + more, "de", "de.toml")


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-32", "iso8859-15"]
)
@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("ahead", ["", "sep=;\n", '"sep=;"\r\n'])
def test_any_encoding_can_be_named(tmp_path: Path, encoding: str, packed: str, ahead: str) -> None:
    file = write(tmp_path / f"orders.csv{packed}", (ahead + TABELLE).encode(encoding))
    declared = "" if encoding in ("utf-8-sig", "utf-16", "utf-32") else f'encoding = "{encoding}"'
    events, refused, rows = read(file, kunden(declared))
    assert not refused
    assert rows == 2
    assert [(e.user, e.amount) for e in events] == [("Jürgen", 1234.5), ("ann", 7.5)]


@pytest.mark.parametrize(
    ("encoding", "text", "proposed"),
    [
        ("cp1252", "Größe;Straße", "cp1252"),
        ("shift_jis", "お客様;カテゴリ", "shift_jis"),
        ("cp1251", "клиент;дата", "cp1251"),
        ("euc_kr", "고객이름;날짜", "euc_kr"),
        ("gb18030", "客户编号;日期时间", "gb18030"),
        ("utf-16-le", "Größe;Straße und Haus", "utf-16-le"),
        ("utf-16-be", "Größe;Straße und Haus", "utf-16-be"),
    ],
)
def test_an_encoding_is_proposed_that_reads_the_file(
    tmp_path: Path, encoding: str, text: str, proposed: str
) -> None:
    assert propose_encoding(f"{text}\nx;y\n".encode(encoding)) == proposed
    file = write(tmp_path / "orders.csv", f"{text}\nx;y\n".encode(encoding))
    with pytest.raises((FileError, MappingError)) as caught:
        read(file, load_mapping("simple"))
    if not encoding.startswith("utf"):
        assert f'encoding = "{proposed}"' in str(caught.value)
        assert text.partition(";")[0] in str(caught.value)


def test_a_file_that_is_utf8_after_all_is_told(tmp_path: Path) -> None:
    for encoding, told in (("utf-8", True), ("cp1252", False)):
        file = write(tmp_path / f"{encoding}.csv", TABELLE.encode(encoding))
        if encoding == "utf-8":
            mapping = kunden('encoding = "cp1252"').model_copy(update={"amount": ()})
        else:
            mapping = kunden('encoding = "cp1252"')
        with EventSorter() as sorter:
            stage(file, mapping, sorter, lambda _: None)
            assert [("is UTF-8" in note) for note in sorter.notes] == [True] * told


def test_an_encoding_that_nobody_knows_is_refused() -> None:
    with pytest.raises(MappingError, match=r"encoding = 'excel'.*cp1252"):
        kunden('encoding = "excel"')


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_json_lines_in_other_encodings(tmp_path: Path, encoding: str) -> None:
    lines = '{"customer":"Jürgen","date":"2026-01-01","amount":5}\n' * 2
    declared = load_mapping("simple").model_copy(update={"encoding": "cp1252"})
    mapping = declared if encoding == "cp1252" else load_mapping("simple")
    events, refused, _ = read(write(tmp_path / "o.jsonl", lines.encode(encoding)), mapping)
    assert not refused
    assert [event.user for event in events] == ["Jürgen", "Jürgen"]


def test_json_lines_in_a_wrong_encoding_propose_one(tmp_path: Path) -> None:
    lines = '{"customer":"Jürgen","date":"2026-01-01","amount":5}\n'
    lines += '{"customer":"a","date":"2026-01-01","amount":5}\n'
    _, refused, _ = read(
        write(tmp_path / "o.jsonl", lines.encode("cp1252")), load_mapping("simple")
    )
    assert len(refused) == 1
    assert 'encoding = "cp1252"' in refused[0].why


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_delimiters_and_line_ends_are_found_out(tmp_path: Path, delimiter: str, end: str) -> None:
    rows = [
        ["note; a, b | c", " customer ", "date", "amount", ""],
        ['say "hi",\nthere; | \t', "ann", "2026-03-02", "20", ""],
        ["", "bob", "2026-03-01", "10", ""],
        ["", "", "", "", ""],
        [],
    ]
    lines = [
        delimiter.join('"' + value.replace('"', '""') + '"' if value else "" for value in row)
        for row in rows
    ]
    file = write(tmp_path / "orders.csv", end.join([*lines, "", ""]).encode())
    events, refused, rows_read = read(file, load_mapping("simple"))
    assert not refused
    assert [(e.user, e.amount, e.row) for e in events] == [("bob", 10.0, 2), ("ann", 20.0, 1)]
    assert rows_read == 2


def test_values_behind_the_last_column_may_be_empty(tmp_path: Path) -> None:
    content = "customer,date,amount\nann,2026-03-01,5,,\nbob,2026-03-02,5,x\n"
    events, refused, _ = read(write(tmp_path / "o.csv", content.encode()), load_mapping("simple"))
    assert [event.user for event in events] == ["ann"]
    assert "line 3: 4 columns instead of 3" in refused[0].why


@pytest.mark.parametrize("rest", [5, 3_000])
def test_a_quote_that_nobody_closes_costs_its_line_only(tmp_path: Path, rest: int) -> None:
    good = [f"u{n},2026-03-01,5" for n in range(rest)]
    lines = ["customer,date,amount", *good[:2], '"eve,2026-03-01,5', *good[2:], 'zoe,2026-03-01,"5']
    events, refused, _ = read(
        write(tmp_path / "o.csv", "\n".join(lines).encode()), load_mapping("simple")
    )
    assert [event.user for event in events] == [f"u{n}" for n in range(rest)]
    assert [refusal.row for refusal in refused] == [3, rest + 2]
    assert {refusal.reason for refusal in refused} == {"unreadable"}
    assert "a quote is never closed" in refused[-1].why


def test_names_of_columns_that_are_nearly_right_are_proposed(tmp_path: Path) -> None:
    file = write(tmp_path / "o.csv", b"E-Mail,Customer_,date,Amount\n")
    with pytest.raises(MappingError, match=r"user: .*did you mean 'Customer_'"):
        read(file, load_mapping("simple"))
    file = write(tmp_path / "p.csv", b"customer,date,amount,amount\na,2026-01-01,1,2\n")
    with pytest.raises(FileError, match="2 columns 'amount'"):
        read(file, load_mapping("simple"))
    with pytest.raises(FileError, match="names of columns"):
        read(write(tmp_path / "q.csv", b""), load_mapping("simple"))


# -- numbers of a whole column -----------------------------------------------------------------


def amounts_of(tmp_path: Path, *texts: str, declared: str = "") -> tuple[list[Any], list[Refusal]]:
    mapping = load_mapping("simple").model_copy(update={"decimal": declared or None})
    rows = [f'c{n},2026-01-01,"{text}"' for n, text in enumerate(texts)]
    content = "\n".join(["customer,date,amount", *rows]).encode()
    events, refused, rows_read = read(write(tmp_path / "a.csv", content), mapping)
    assert rows_read == len(texts)
    return amounts(events), refused


def test_what_is_ambiguous_is_told_by_the_column(tmp_path: Path) -> None:
    assert amounts_of(tmp_path, "1,250", "9.99", "2,500") == ([1250.0, 9.99, 2500.0], [])
    assert amounts_of(tmp_path, "1.250", "9,99", "2.500") == ([1250.0, 9.99, 2500.0], [])
    assert amounts_of(tmp_path, "1.250", "0.125") == ([1.25, 0.125], [])
    found, refused = amounts_of(tmp_path, "1,250", "7")
    assert found == [7.0]
    assert refused[0].row == 1
    assert refused[0].file == "a.csv"
    assert 'decimal = "." for the first' in refused[0].why
    assert amounts_of(tmp_path, "1,250", "7", declared=".")[0] == [1250.0, 7.0]
    assert amounts_of(tmp_path, "1,250", "7", declared=",")[0] == [1.25, 7.0]


def test_a_rule_on_an_ambiguous_amount_needs_only_its_sign(tmp_path: Path) -> None:
    content = 'customer,date,amount\na,2026-01-01,"(1,250)"\nb,2026-01-02,"9.99"\n'
    events, refused, _ = read(write(tmp_path / "a.csv", content.encode()), load_mapping("simple"))
    assert not refused
    assert [(e.event, e.amount) for e in events] == [
        ("Order Refunded", -1250.0), ("Order Completed", 9.99),
    ]  # fmt: skip


def test_numbers_that_are_typed_are_never_ambiguous(tmp_path: Path) -> None:
    lines = b'{"customer":1.0,"date":"2026-01-01","amount":1.125}\n'
    file = write(tmp_path / "a.jsonl", lines)
    parquet = tmp_path / "a.parquet"
    duckdb.sql(f"COPY (SELECT 1.0::DOUBLE AS customer, '2026-01-01' AS date, "
               f"1.125::DOUBLE AS amount) TO '{parquet}'")  # fmt: skip
    for declared in (None, ".", ","):
        mapping = load_mapping("simple").model_copy(update={"decimal": declared})
        for one in (file, parquet):
            events, refused, _ = read(one, mapping)
            assert not refused
            assert [(e.user, e.amount) for e in events] == [("1", 1.125)]


@given(
    st.lists(st.integers(0, 10**8), min_size=1, max_size=20),
    st.sampled_from([(".", ","), (",", "."), (",", " "), (".", "'"), (".", ""), (",", "")]),
)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10, deadline=None
)
def test_a_column_of_a_locale_is_read_back_or_refused(
    tmp_path: Path, cents: list[int], locale: tuple[str, str]
) -> None:
    decimal, group = locale
    texts = []
    for number in cents:
        whole, rest = divmod(number, 100)
        text = f"{whole:,}".replace(",", group)
        texts.append(f"{text}{decimal}{rest:02}" if rest else text)
    expected = [number / 100 for number in cents]
    found, refused = amounts_of(tmp_path, *texts)
    refused_rows = {refusal.row for refusal in refused}
    assert found == [one for row, one in enumerate(expected, 1) if row not in refused_rows]
    if any(number % 100 for number in cents):
        assert not refused, "one amount with cents tells the whole column"


# -- ids ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("326.0", "326"), ("326.00", "326"), ("326", "326"), ("1e+05", "100000"),
        ("1.5E+05", "150000"), ("1e5", "1e5"), ("326.5", "326.5"), ("1.2.0", "1.2.0"),
        ("a326.0", "a326.0"), ("007.0", "007"),
    ],
)  # fmt: skip
def test_an_id_that_became_a_float_is_the_same_id(tmp_path: Path, text: str, expected: str) -> None:
    mapping = parse_mapping(
        'user = "u"\ntime = "t"\nevent = "Order Completed"\norder = "o"\nsession = "s"', "m", "m"
    )
    file = write(tmp_path / "a.csv", f"u,t,o,s\n{text},2026-01-01,{text},{text}\n".encode())
    refused: list[Refusal] = []
    with EventSorter() as sorter:
        stage(file, mapping, sorter, refused.append)
        sorter.sort()
        (event,) = next(sorter.batches())
        notes = sorter.notes
    assert (event.user, event.order, event.session) == (expected,) * 3
    if text != expected:
        assert repr(text) in notes[0]
        assert repr(expected) in notes[0]
    assert bool(notes) == (text != expected or text == "1e5")


def test_an_id_that_lost_its_digits_is_refused(tmp_path: Path) -> None:
    content = b"customer,date,amount\n1.23457E+11,2026-01-01,5\n"
    events, refused, _ = read(write(tmp_path / "a.csv", content), load_mapping("simple"))
    assert not events
    assert refused[0].reason == "bad_user"
    assert "lost its last digits" in refused[0].why


@pytest.mark.parametrize("number", ["9007199254740993", "12345678901234567890"])
def test_an_id_too_large_for_a_float_is_refused_as_one(tmp_path: Path, number: str) -> None:
    content = f"customer,date,amount\n{number}.0,2026-01-01,5\n{number},2026-01-01,5\n".encode()
    (event,), (refused,), _ = read(write(tmp_path / "a.csv", content), load_mapping("simple"))
    assert event.user == number
    assert (refused.reason, refused.row) == ("bad_user", 1)
    parquet = tmp_path / "a.parquet"
    duckdb.sql(
        f"COPY (SELECT {number}::DOUBLE AS customer, DATE '2026-01-01' AS date, 5 AS amount) "
        f"TO '{parquet}'"
    )
    events, (refused,), _ = read(parquet, load_mapping("simple"))
    assert not events
    assert "has lost its last digits" in refused.why


def test_floats_of_parquet_are_ids(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    rows = "(326::DOUBLE, DATE '2026-01-01', 5), (NULL, DATE '2026-01-02', 5)"
    duckdb.sql(f"COPY (FROM (VALUES {rows}) AS t(customer, date, amount)) TO '{file}'")
    events, refused, _ = read(file, load_mapping("simple"))
    assert [event.user for event in events] == ["326"]
    assert [refusal.reason for refusal in refused] == ["no_user"]


@pytest.mark.parametrize(
    "user", ["null", "NaN", "undefined", "(not set)", "None", "[object Object]"]
)
def test_a_placeholder_is_nobody(tmp_path: Path, user: str) -> None:
    content = f"customer,date,amount\n{user},2026-01-01,5\n".encode()
    _, refused, _ = read(write(tmp_path / "a.csv", content), load_mapping("simple"))
    assert refused[0].reason == "placeholder_user"
    assert repr(user) in refused[0].why


def test_a_placeholder_gives_way_to_the_next_column(tmp_path: Path) -> None:
    mapping = parse_mapping(
        'user = ["u", "v"]\ntime = "t"\nevent = "Order Completed"\norder = ["o", "p"]', "m", "m"
    )
    content = (
        b"u,v,t,o,p\n(not set),7.0,2026-01-01,null,9\n3,7,2026-01-02,5,9\nnull,,2026-01-03,,\n"
    )
    events, refused, _ = read(write(tmp_path / "a.csv", content), mapping)
    assert [(event.user, event.order) for event in events] == [("7", "9"), ("3", "5")]
    assert [refusal.reason for refusal in refused] == ["placeholder_user"]


# -- orders of several rows --------------------------------------------------------------------

SHOP = 'user = "u"\ntime = "t"\nevent = "Order Completed"\norder = "o"\namount = "a"\nprice = "p"\nquantity = "q"\n'


def orders(
    tmp_path: Path, content: str, more: str = ""
) -> tuple[list[tuple[Any, ...]], list[Refusal], list[str]]:
    refused: list[Refusal] = []
    with EventSorter() as sorter:
        file = write(tmp_path / "o.csv", content.encode())
        mapping = parse_mapping(SHOP + more, "m", "m")
        read_sources([Source(file, mapping)], sorter, refused.append)
        found = [
            (event.event[6:], event.user, event.order, event.amount, event.quantity)
            for batch in sorter.batches()
            for event in batch
        ]
    return found, refused, sorter.notes


def test_an_amount_on_one_line_is_the_orders(tmp_path: Path) -> None:
    found, _, _ = orders(
        tmp_path,
        "o,u,t,a,p,q\n1,ann,2026-01-01,53.91,39.90,1\n1,,,,34.90,1\n1,,,,4.00,2\n"
        "2,bob,2026-01-02,,39.90,1\n2,,,,4.00,2\n",
    )
    assert found == [("Completed", "ann", "1", 53.91, 4.0), ("Completed", "bob", "2", 47.9, 3.0)]


def test_lines_that_stand_apart_find_their_order(tmp_path: Path) -> None:
    found, refused, _ = orders(
        tmp_path,
        "o,u,t,a,p,q\n1,ann,2026-01-01,5,,1\n2,bob,2026-01-02,6,,1\n1,,,,,2\n3,,,,,1\n",
    )
    assert found == [("Completed", "ann", "1", 5.0, 3.0), ("Completed", "bob", "2", 6.0, 1.0)]
    assert [(one.row, one.reason) for one in refused] == [(4, "no_user")]


def test_a_number_that_comes_again_for_another_user_is_another_order(tmp_path: Path) -> None:
    found, _, _ = orders(tmp_path, "o,u,t,a,p,q\n1,ann,2026-01-01,5,,1\n1,bob,2026-01-02,6,,1\n")
    assert [one[1] for one in found] == ["ann", "bob"]


@pytest.mark.parametrize(
    ("rows", "amount", "quantity"),
    [("lines", 40.0, 3.0), ("total", 20.0, 3.0), ("repeats", 20.0, 1.0)],
)
def test_what_rows_of_an_order_are_is_declared(
    tmp_path: Path, rows: str, amount: float, quantity: float
) -> None:
    content = "o,u,t,a,p,q\n1,ann,2026-01-01,20,,1\n1,ann,2026-01-01,20,,2\n"
    found, _, _ = orders(tmp_path, content, f'order_rows = "{rows}"')
    assert found == [("Completed", "ann", "1", amount, quantity)]


def test_totals_that_were_added_up_are_told(tmp_path: Path) -> None:
    lines = [f"{n},ann,2026-01-0{n},20,,1" for n in range(1, 6) for _ in range(2)]
    _, _, notes = orders(tmp_path, "\n".join(["o,u,t,a,p,q", *lines]))
    assert "5 of 5 orders" in notes[0]
    assert 'order_rows = "total"' in notes[0]


def test_an_order_in_two_currencies_is_refused(tmp_path: Path) -> None:
    content = (
        "o,u,t,a,p,q\n1,ann,2026-01-01,€20,,1\n1,ann,2026-01-01,$20,,1\n2,ann,2026-01-01,$2,,1\n"
    )
    found, refused, _ = orders(tmp_path, content)
    assert [one[2] for one in found] == ["2"]
    assert refused[0].reason == "bad_currency"


def test_the_mapping_says_which_currency_a_sign_is(tmp_path: Path) -> None:
    def currencies(more: str) -> list[str | None] | str:
        content = b"u,t,a,c\nann,2026-01-01,$20,cad\nbob,2026-01-01,20,\n"
        mapping = parse_mapping(
            'user = "u"\ntime = "t"\nevent = "Order Completed"\namount = "a"\n' + more, "m", "m"
        )
        events, refused, _ = read(write(tmp_path / "c.csv", content), mapping)
        return refused[0].why if refused else [event.currency for event in events]

    assert currencies("") == ["USD", None]
    assert currencies('currency = "c"') == ["CAD", None]
    assert currencies('currency = { constant = "AUD" }') == ["AUD", "AUD"]
    with pytest.raises(MappingError, match="ISO 4217"):
        currencies('currency = { constant = "euro" }')


REFUND = """\
[[refund]]
column = "s"
equals = "refunded"
time = "back"
[[refund]]
amount = "r"
"""


def test_an_order_that_was_given_back_is_an_order_and_then_a_refund(tmp_path: Path) -> None:
    found, refused, notes = orders(
        tmp_path,
        "o,u,t,a,p,q,s,r,back\n"
        "1,ann,2026-01-01,30,,1,refunded,,2026-01-05\n1,,,,,2,,,\n"
        "2,bob,2026-01-02,80,,4,,20,\n"
        "3,cat,2026-01-03,9,,1,paid,0.00,\n",
        REFUND,
    )
    assert not refused
    assert not notes
    assert found == [
        ("Completed", "ann", "1", 30.0, 3.0),
        ("Completed", "bob", "2", 80.0, 4.0),
        ("Refunded", "bob", "2", 20.0, None),
        ("Completed", "cat", "3", 9.0, 1.0),
        ("Refunded", "ann", "1", 30.0, 3.0),
    ]


def test_a_rule_for_refunds_of_orders_that_are_nowhere_is_told(tmp_path: Path) -> None:
    rule = '[[rules]]\ncolumn = "s"\nequals = "refunded"\nevent = "Order Refunded"\n'
    content = "o,u,t,a,p,q,s\n1,ann,2026-01-01,30,,1,refunded\n1,,,,,2,\n2,bob,2026-01-01,3,,1,\n"
    found, _, notes = orders(tmp_path, content, rule)
    assert found == [("Refunded", "ann", "1", 30.0, 3.0), ("Completed", "bob", "2", 3.0, 1.0)]
    assert "1 refunds are of orders that are not in the files" in notes[0]


def test_a_refund_that_says_nothing_says_no_pieces_either(tmp_path: Path) -> None:
    rule = '[[rules]]\ncolumn = "s"\nequals = "back"\nevent = "Order Refunded"\n'
    content = "o,u,t,a,p,q,s\n1,ann,2026-01-01,30,,,\n1,ann,2026-01-02,,,,back\n"
    found, _, notes = orders(tmp_path, content, rule)
    assert found == [("Completed", "ann", "1", 30.0, 1.0), ("Refunded", "ann", "1", None, None)]
    assert not notes


# -- several files, and times far from all others ----------------------------------------------


def test_several_files_are_merged_by_time(tmp_path: Path) -> None:
    one = write(tmp_path / "one.csv", b"customer,date,amount\na,2026-01-01,1\na,2026-01-03,1\n")
    two = write(tmp_path / "two.csv", b"customer,date,amount\nb,2026-01-02,1\nb,2026-01-03,1\n")
    simple = load_mapping("simple")
    with EventSorter() as sorter:
        sources = [Source(one, simple), Source(two, simple)]
        assert read_sources(sources, sorter, lambda _: None) == (4, 4)
        events = [event for batch in sorter.batches() for event in batch]
    assert [(event.user, event.file, event.row) for event in events] == [
        ("a", 0, 1), ("b", 1, 1), ("a", 0, 2), ("b", 1, 2),
    ]  # fmt: skip
    (tmp_path / "again").mkdir()
    twin = write(tmp_path / "again" / "one.csv", one.read_bytes())
    with EventSorter() as sorter, pytest.raises(FileError, match="are called one"):
        read_sources([Source(one, simple), Source(twin, simple)], sorter, lambda _: None)


DAYS = [f"u{n},2024-0{1 + n // 28}-{1 + n % 28:02},5" for n in range(84)]


@pytest.mark.parametrize(
    ("odd", "kept"),
    [
        ("2003-01-01", False), ("2022-12-01", False), ("2025-06-01", False), ("2023-11-01", True),
        ("2024-06-01", True),
    ],
)  # fmt: skip
def test_a_row_far_from_all_others_is_an_outlier(tmp_path: Path, odd: str, kept: bool) -> None:
    file = write(
        tmp_path / "o.csv", "\n".join(["customer,date,amount", *DAYS, f"x,{odd},5"]).encode()
    )
    for keep in (False, True):
        refused: list[Refusal] = []
        with EventSorter() as sorter:
            source = Source(file, load_mapping("simple"))
            rows, count = read_sources([source], sorter, refused.append, keep_outliers=keep)
        assert rows == 85
        assert count == 85 - len(refused)
        assert [one.reason for one in refused] == ([] if keep or kept else ["outlier_time"])
        if refused:
            assert refused[0].row == 85
            assert refused[0].columns["user"] == "x"
            assert "--keep-outliers" in refused[0].why


def test_few_rows_and_long_histories_have_no_outliers(tmp_path: Path) -> None:
    few = ["u,2020-01-01,5", "u,2024-01-01,5", "u,2024-01-02,5"]
    years = [f"u,{year}-0{month}-01,5" for year in range(2010, 2024) for month in (1, 5, 9)]
    for lines in (few, [*years, "u,2008-06-01,5"]):
        file = write(tmp_path / "o.csv", "\n".join(["customer,date,amount", *lines]).encode())
        with EventSorter() as sorter:
            source = Source(file, load_mapping("simple"))
            assert read_sources([source], sorter, lambda _: None)[1] == len(lines)


@pytest.mark.parametrize(
    "above",
    [
        "Orders of 2026\nMade on 2026-04-01\n\n",
        '"Includes Marketplace, FBA and others"\n"All amounts in USD, unless specified"\n',
        "Report;Orders;March\n",
    ],
)
def test_lines_above_the_names_of_columns_are_passed_over(tmp_path: Path, above: str) -> None:
    file = write(tmp_path / "orders.csv", (above + CSV).encode())
    mapping = load_mapping("simple")
    refused: list[Refusal] = []
    with EventSorter() as sorter:
        stage(file, mapping, sorter, refused.append)
        notes = sorter.notes
        sorter.sort()
        found = [event for batch in sorter.batches() for event in batch]
    assert not refused
    assert found == read(write(tmp_path / "plain.csv", CSV.encode()), mapping)[0]
    number = above.count("\n") + 1
    assert notes == [f"orders.csv: the names of its columns were found in line {number}"]


def test_below_a_title_a_missing_column_is_named_beside_those_there_are(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", b"Orders\ncustomer,date,total\nann,2026-03-01,5\n")
    with pytest.raises(MappingError, match="no column 'amount'; it has customer, date, total"):
        read(file, load_mapping("simple"))


def test_what_excel_leaves_out_at_the_end_of_a_row_is_empty(tmp_path: Path) -> None:
    content = (
        b"customer,date,amount,note,\nann,2026-03-01,1.5,hi,\nbob,2026-03-01,2.5\ncy,2026-03-01\n"
    )
    events, (refused,), _ = read(write(tmp_path / "a.csv", content), load_mapping("simple"))
    assert [(e.user, e.amount) for e in events] == [("ann", 1.5), ("bob", 2.5)]
    assert refused.row == 3
    assert "2 columns instead of 5; the line ends early" in refused.why

    content = b"customer,date,amount,back\nann,2026-03-01,1.5\n"
    mapping = load_mapping("simple").model_copy(update={"category": ("back",)})
    events, refusals, _ = read(write(tmp_path / "b.csv", content), mapping)
    assert (events, len(refusals)) == ([], 1), "a column that is looked at is missed"
    mapping = mapping.model_copy(update={"optional": ("back",)})
    assert [e.user for e in read(tmp_path / "b.csv", mapping)[0]] == ["ann"]


def test_quotes_between_tabs_and_behind_backslashes(tmp_path: Path) -> None:
    rows = [
        'ann\t2026-03-01\t1\t"big" pan',
        'bob\t2026-03-01\t2\t12" pan',
        'cy\t2026-03-01\t3\t"x"',
    ]
    content = "customer\tdate\tamount\tname\n" + "\n".join(rows) + "\n"
    mapping = load_mapping("simple").model_copy(update={"category": ("name",)})
    events, refused, _ = read(write(tmp_path / "a.txt", content.encode()), mapping)
    assert not refused
    assert [e.category for e in events] == ['"big" pan', '12" pan', "x"]

    content = 'customer,date,amount,name\nann,2026-03-01,1,"Mug \\"blue\\", big"\n'
    content += 'bob,2026-03-01,1,"Mug "blue", big"\n'
    (event,), (refusal,), _ = read(write(tmp_path / "b.csv", content.encode()), mapping)
    assert event.category == 'Mug "blue", big'
    assert "a quote within quotes is written twice" in refusal.why


def test_gzip_is_known_by_its_name_in_any_case_and_by_its_content(tmp_path: Path) -> None:
    mapping = load_mapping("simple")
    expected = read(write(tmp_path / "orders.csv", CSV.encode()), mapping)
    for name in ("orders.CSV.GZ", "packed.csv"):
        file = write(tmp_path / name, gzip.compress(CSV.encode()))
        assert read(file, mapping) == expected


JSON_OBJECT = '{"customer": "ann", "date": "2026-03-01", "amount": 1.5}'
PRETTY = JSON_OBJECT.replace("{", "{\n  ").replace(", ", ",\n  ").replace("}", "\n}")


@pytest.mark.parametrize(
    "content",
    [
        f"\n[{JSON_OBJECT},{JSON_OBJECT}]",
        f"[{JSON_OBJECT},{JSON_OBJECT},\n]",
        f"{PRETTY}\n{PRETTY}\n",
        f"[\n{PRETTY},\n{PRETTY}\n]\n",
        f"{JSON_OBJECT},\n{JSON_OBJECT}\n",
        f"{JSON_OBJECT}\r\n\r\n{JSON_OBJECT}",
    ],
)
def test_json_as_people_lay_it_out(tmp_path: Path, content: str) -> None:
    file = write(tmp_path / "orders.json", content.encode())
    events, refused, rows = read(file, load_mapping("simple"))
    assert not refused
    assert [(e.user, e.amount) for e in events] == [("ann", 1.5)] * 2
    assert rows == 2


@pytest.mark.parametrize("form", ["[{0},{1}]", "{0}\n{1}\n"])
def test_nan_of_python_is_nothing_and_costs_no_file(tmp_path: Path, form: str) -> None:
    content = form.format(JSON_OBJECT, JSON_OBJECT.replace("1.5", "NaN"))
    events, refused, _ = read(write(tmp_path / "a.json", content.encode()), load_mapping("simple"))
    assert not refused
    assert [e.amount for e in events] == [1.5, None]


def test_orders_in_a_list_of_one_object_are_told_of(tmp_path: Path) -> None:
    file = write(tmp_path / "a.json", f'{{\n"orders": [{PRETTY}]\n}}\n'.encode())
    with pytest.raises(MappingError, match=r"'orders' is a list of objects.*each = \"orders\""):
        read(file, load_mapping("simple"))
    mapping = parse_mapping(
        'each = "orders"\nuser = "orders.customer"\ntime = "orders.date"\n'
        'event = "Order Completed"\namount = "orders.amount"',
        "m", "m.toml",
    )  # fmt: skip
    assert [e.user for e in read(file, mapping)[0]] == ["ann"]


def test_a_dash_is_no_amount_and_no_reason_to_refuse(tmp_path: Path) -> None:
    events, refused = amounts_of(tmp_path, "12.50", "-", " $ - ", "\u2014", "-20")
    assert events == [12.5, None, None, None, -20]
    assert not refused


def test_addresses_that_differ_in_letter_case_are_told(tmp_path: Path) -> None:
    content = b"customer,date,amount\nAnn@x.org,2026-03-01,1\nann@x.org,2026-03-02,1\nA1,2026-03-02,1\na1,2026-03-02,1\n"
    file = write(tmp_path / "orders.csv", content)
    with EventSorter() as sorter:
        stage(file, load_mapping("simple"), sorter, lambda _: None)
        sorter.sort()
        (note,) = sorter.notes
    assert note.startswith("1 addresses are written in several ways, such as 'Ann@x.org'")


def test_an_order_that_an_export_cut_in_two_is_one(tmp_path: Path) -> None:
    head = "order,email,total,date,price,pieces\n"
    first = write(tmp_path / "a.csv", f"{head}1,ann,30,2026-03-01,20,1\n".encode())
    second = write(
        tmp_path / "b.csv",
        f"{head}1,ann,,2026-03-01,5,2\n2,bob,7,2026-03-02,7,1\n3,cy,,2026-03-02,4,2\n".encode(),
    )
    mapping = orders_by("total")
    with EventSorter() as sorter:
        read_sources([Source(first, mapping), Source(second, mapping)], sorter, lambda _: None)
        events = [event for batch in sorter.batches() for event in batch]
        assert not sorter.notes
    assert [(e.user, e.amount, e.quantity) for e in events] == [
        ("ann", 30, 3), ("bob", 7, 1), ("cy", 8, 2)
    ]  # fmt: skip


def test_an_order_that_two_files_tell_differently_is_told(tmp_path: Path) -> None:
    head = "order,email,total,date,price,pieces\n"
    rows = ["1,ann,30,2026-03-01,,1", "2,bob,5,2026-03-01,,1"]
    first = write(tmp_path / "a.csv", "\n".join([head.strip(), *rows]).encode())
    rows[0] = rows[0].replace("30", "25")
    second = write(tmp_path / "b.csv", "\n".join([head.strip(), *rows]).encode())
    for order_rows in ("lines", "total", "repeats"):
        mapping = orders_by(order_rows)
        with EventSorter() as sorter:
            read_sources([Source(first, mapping), Source(second, mapping)], sorter, lambda _: None)
            assert sorter.count == 4
            (note,) = sorter.notes
        assert note.startswith("1 orders are in several files with different amounts")


def orders_by(order_rows: str) -> Mapping:
    return parse_mapping(
        f'user = "email"\ntime = "date"\nevent = "Order Completed"\norder = "order"\n'
        f'order_rows = "{order_rows}"\namount = "total"\nprice = "price"\nquantity = "pieces"',
        "orders", "orders.toml",
    )  # fmt: skip
