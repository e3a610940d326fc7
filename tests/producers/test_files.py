"""Files come out as events, whatever their format."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumers.native import NativeReader
from producers.files import Source, read_sources
from producers.mapped import Refusal
from producers.mapping import Currency, load_mapping
from producers.sorting import EventSorter
from producers.tables.opening import stem
from producers.texts import FileError
from stream.config import Money, Reviews, Worker
from stream.features import DEFAULT_FEATURES, FeatureTable

if TYPE_CHECKING:
    from pathlib import Path

from tests.producers.tables.reading import CSV, amounts, read, write


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


@pytest.mark.parametrize("packed", ["", ".gz", ".zip"])
def test_every_format_gives_the_same_events_in_order(plain: Path, packed: str) -> None:
    file = write(plain.with_name(plain.name + packed), plain.read_bytes())
    events, refused, rows = read(file, load_mapping("simple"))
    assert [(e.user, e.event, e.amount, e.row) for e in events] == [
        ("bob", "Order Completed", 10.0, 2),
        ("ann", "Order Completed", 20.0, 1),
        ("ann", "Order Refunded", -5.0, 3),
    ]
    assert rows == 3
    assert not refused
    assert stem(file) == "orders"


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


def test_a_dash_is_no_amount_and_no_reason_to_refuse(tmp_path: Path) -> None:
    events, refused = amounts_of(tmp_path, "12.50", "-", " $ - ", "\u2014", "-20")
    assert events == [12.5, None, None, None, -20]
    assert not refused


@pytest.mark.parametrize("form", ["csv", "messages"])
@pytest.mark.parametrize(
    ("codes", "money", "told"),
    [
        ("EUR USD EUR JPY", Money(), "in 3 currencies (2 EUR, 1 USD, 1 JPY): currencies are not"),
        ("EUR eur", Money(), ""),
        ("", Money(), ""),
        ("EUR USD", Money(currency="EUR", rates={"USD": 0.9}), ""),
        ("EUR USD JPY JPY", Money(currency="EUR", rates={"USD": 0.9}), "not have: 2 JPY; workers"),
    ],
)
def test_currencies_that_would_be_added_up_or_refused_are_told(
    tmp_path: Path, form: str, codes: str, money: Money, told: str
) -> None:
    if form == "csv":
        content = "customer,date,amount,code\n" + "".join(
            f"a,2026-01-0{n},5,{code}\n" for n, code in enumerate(codes.split() or [""], 1)
        )
        mapping = load_mapping("simple").model_copy(update={"currency": Currency(column=("code",))})
    else:
        content = "".join(
            json.dumps(
                {
                    "type": "track", "event": "Order Completed", "userId": "a",
                    "timestamp": f"2026-01-0{n}T00:00:00Z",
                    "properties": {"order_id": n, "total": 5, "currency": code},
                }
            ) + "\n"
            for n, code in enumerate(codes.split() or [""], 1)
        )  # fmt: skip
        mapping = load_mapping("segment")
    suffix = "csv" if form == "csv" else "jsonl"
    file = write(tmp_path / f"orders.{suffix}", content.encode())
    native = NativeReader(FeatureTable(DEFAULT_FEATURES), Worker(), money)
    refused: list[Refusal] = []
    with EventSorter() as sorter:
        read_sources([Source(file, mapping)], sorter, refused.append, native=native, money=money)
        notes = "; ".join(sorter.notes)
    if form == "messages" and "JPY" in codes and money.currency:
        assert [one.reason for one in refused] == ["unknown_currency"] * 2
    else:
        assert told in notes
        assert bool(notes) == bool(told)


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        (
            {"enabled": True},
            "2 ratings such as 9 are not within 1 to 5: workers refuse their events",
        ),
        ({"enabled": True, "worst_rating": 0, "best_rating": 10}, ""),
        ({}, ""),
    ],
)
def test_ratings_that_no_review_can_give_are_told(
    tmp_path: Path, declared: dict[str, Any], told: str
) -> None:
    content = "customer,date,rating\n" + "".join(f"a,2026-01-0{n},{n}\n" for n in (1, 5, 9))
    content += "b,2026-01-02,0\nb,2026-01-03,\n"
    file = write(tmp_path / "reviews.csv", content.encode())
    with EventSorter() as sorter:
        sources = [Source(file, load_mapping("reviews"))]
        assert read_sources(
            sources, sorter, lambda _: None, ratings=Reviews.model_validate(declared)
        ) == (5, 5)
        assert [note[: len(told)] for note in sorter.notes] == ([told] if told else [])
