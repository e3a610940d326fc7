"""JSON is read as people lay it out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from producers.mapped import NoText
from producers.mapping import MappingError, load_mapping, parse_mapping
from producers.tables.json_values import text_at

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


def test_what_is_no_text_is_nobody(tmp_path: Path) -> None:
    """An object, a list or a truth value names nobody, no order and no category."""
    mapping = parse_mapping(
        'user = ["customer", "mail"]\ntime = "date"\nevent = { column = "event" }\norder = "order"\n'
        'category = "kind"\namount = "amount"',
        "odd", "odd.toml",
    )  # fmt: skip
    good = {"customer": "a", "date": "2026-03-01", "event": "Order Completed", "amount": 1}
    odd: list[Any] = [{"id": "a"}, ["a"], True, False, [], {}]
    rows = [good | {"customer": one} for one in odd]
    rows += [good | {"customer": one, "mail": "a@shop.example"} for one in odd]
    rows += [good | {"order": one, "kind": one} for one in odd]
    rows += [good | {"event": one} for one in odd]
    rows += [good | {"amount": one} for one in odd]
    file = write(tmp_path / "odd.jsonl", "\n".join(map(json.dumps, rows)).encode())
    events, refused, _ = read(file, mapping)
    assert [(one.user, one.order, one.category) for one in events] == (
        [("a@shop.example", None, None)] * len(odd) + [("a", None, None)] * len(odd)
    )
    each = len(odd)
    assert [one.reason for one in refused] == (
        ["bad_user"] * each + ["no_event"] * each + ["bad_number"] * each
    )
    assert refused[0].why == 'customer or mail = {"id": "a"} is no text'


def test_rules_see_how_a_truth_value_is_written(tmp_path: Path) -> None:
    mapping = parse_mapping(
        'user = "customer"\ntime = "date"\n'
        'event = { column = "bought", values = { true = "Order Completed", false = "Cart Viewed" } }\n'
        '[[rules]]\ncolumn = "test"\nequals = "true"\nreject = "test_order"',
        "truths", "truths.toml",
    )  # fmt: skip
    rows = [
        {"customer": "a", "date": "2026-03-01", "bought": bought, "test": test}
        for bought, test in ((True, False), (False, False), (True, True))
    ]
    file = write(tmp_path / "truths.jsonl", "\n".join(map(json.dumps, rows)).encode())
    events, refused, _ = read(file, mapping)
    assert [one.event for one in events] == ["Order Completed", "Cart Viewed"]
    assert [one.reason for one in refused] == ["test_order"]


def test_objects_stand_in_an_answer_of_an_api(tmp_path: Path) -> None:
    row = {"customer": "a", "date": "2026-03-01", "amount": 1}
    answer = {"page": 1, "orders": [row, row], "links": []}
    for content in (
        json.dumps(answer),
        json.dumps(answer, indent=1),
        json.dumps([answer]),
        f"{json.dumps(answer | {'orders': [row]})}\n{json.dumps(answer | {'orders': [row]})}\n",
    ):
        events, refused, rows = read(
            write(tmp_path / "answer.json", content.encode()), load_mapping("simple")
        )
        assert not refused
        assert ([one.row for one in events], rows) == ([1, 2], 2)
    # Of two lists nobody can say which it is.
    file = write(tmp_path / "two.json", json.dumps(answer | {"links": [row]}).encode())
    with pytest.raises(MappingError, match='each = "orders"'):
        read(file, load_mapping("simple"))


@pytest.mark.parametrize(
    ("name", "is_number", "expected"),
    [
        ("lines.*.price", True, "4.75e0"),
        ("lines.*.price", False, "1.5"),
        ("lines.*.parts.*.n", True, "6.0e0"),
        ("lines.*.none", True, None),
        ("lines.*.odd", True, "many"),
        ("lines.*.truth", True, "true"),
        ("none.*.price", True, None),
        ("a.*.x", True, None),
        ("params.currency", False, "EUR"),
        ("params.session", False, "17"),
        ("params.empty", False, None),
        ("params.plain", False, "here"),
        ("params.absent", False, None),
        ("params.named", False, "x"),
        ("lines.1.price", True, "3.25"),
        ("lines.7.price", True, None),
        ("lines", False, NoText),
    ],
)
def test_a_path_reaches_into_lists(name: str, is_number: bool, expected: Any) -> None:
    content = {
        "a": 1,
        "lines": [
            {"price": "1.5", "parts": [{"n": 1}, {"n": 2}], "odd": 1, "truth": True},
            {"price": "3.25", "parts": [{"n": 3}, {}], "odd": "many"},
            {"price": None}, {"price": ""}, 7,
        ],
        "params": [
            {"key": "currency", "value": {"string_value": "EUR", "int_value": None}},
            {"key": "session", "value": {"string_value": None, "int_value": 17}},
            {"key": "empty", "value": {"string_value": None}},
            {"key": "plain", "value": "here"}, {"name": "named", "value": "x"}, 7,
        ],
    }  # fmt: skip
    found = text_at(content, name, name.split("."), is_number)
    if isinstance(expected, type):
        assert isinstance(found, expected)
    else:
        assert found == expected
