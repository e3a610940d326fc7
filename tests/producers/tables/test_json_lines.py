"""JSON is read as people lay it out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import duckdb
import pytest

from producers.mapping import MappingError, load_mapping, parse_mapping

if TYPE_CHECKING:
    from pathlib import Path

from tests.producers.tables.reading import read, write


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


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "cp1252"])
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
