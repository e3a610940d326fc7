"""Ids are read as they were meant, or refused where digits are lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb
import pytest

from producers.files import stage
from producers.mapped import Refusal
from producers.mapping import load_mapping, parse_mapping
from producers.row_mapper import RowMapper
from producers.sorting import EventSorter
from stream.config import PLACEHOLDER_IDS

if TYPE_CHECKING:
    from pathlib import Path

from tests.producers.tables.reading import read, write


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("326.0", "326"), ("326.00", "326"), ("326", "326"), ("1e+05", "100000"),
        ("1.5E+05", "150000"), ("1e5", "1e5"), ("326.5", "326.5"), ("1.2.0", "1.2.0"),
        ("a326.0", "a326.0"), ("007.0", "007"), ("2.00E+00", "2"), ("1.20E+01", "12"),
        ("1.25E+01", "1.25E+01"),
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


def test_every_declared_placeholder_is_nobody_in_files_too() -> None:
    mapper = RowMapper(load_mapping("simple"), ("customer", "date", "amount"))
    for placeholder in PLACEHOLDER_IDS:
        for text in (placeholder, placeholder.upper(), f" {placeholder} "):
            found = mapper.map(1, (text, "2026-03-01", "5"))
            assert isinstance(found, Refusal), text
            # A file's blanks are blanks, of whatever alphabet.
            assert found.reason == ("placeholder_user" if text.strip() else "no_user")
