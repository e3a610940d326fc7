"""What a user's row is made of is declared once; what is packed and read follows."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream import rows
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.rows import (
    FIELDS,
    ROW_FORMAT,
    RowFormatError,
    blank_rows,
    published_type,
    put_rows,
    row_type,
    rows_at,
    unpacked,
)
from stream.segments import PublishRule, look

TABLE = FeatureTable(DEFAULT_FEATURES)


def test_rows_are_the_declared_fields_and_what_features_keep() -> None:
    names = [field.name for field in FIELDS]
    assert len(set(names)) == len(names)
    assert (TABLE.dtype.names or ())[: len(names)] == tuple(names)
    alone = row_type([])
    for field in FIELDS:
        kind, shape = alone[field.name].base, alone[field.name].shape
        assert (kind, shape) == (np.dtype(field.type), field.shape)
        assert TABLE.dtype[field.name] == alone[field.name]


def test_every_group_is_explained() -> None:
    explained = set(re.findall(r"(?m)^(\w+)  +\w", rows.__doc__ or "")) - {"group"}
    assert explained == {field.group for field in FIELDS}
    assert all(field.meaning for field in FIELDS)


def test_the_librarys_rows_are_what_the_publish_rule_writes() -> None:
    library = published_type()
    named = [field.name for field in FIELDS if field.group == "published"]
    assert library.names == tuple(named)
    assert {name: library[name] for name in named} == {name: TABLE.dtype[name] for name in named}
    blank = np.zeros(3, library)
    rule = PublishRule(margin=0.1, provisional_looks=3, dwell_ms=0)
    distances, causes = np.zeros((3, 1)), np.zeros(3, np.uint8)
    moves = look(blank, distances, np.array([7], np.int32), np.zeros((1, 1)), rule, causes, 5).moves
    assert (len(moves), blank["segment"].tolist()) == (3, [7, 7, 7])


def test_what_is_packed_is_read_again() -> None:
    made = blank_rows(3, TABLE.dtype)
    made["segment"] = [1, 2, 3]
    assert np.array_equal(unpacked(made.tobytes(), TABLE.dtype), made)
    assert len(unpacked(b"", TABLE.dtype)) == 0


def test_other_rows_are_refused() -> None:
    made = blank_rows(2, TABLE.dtype)
    with pytest.raises(RowFormatError, match="are no rows of"):
        unpacked(made.tobytes()[:-1], TABLE.dtype)
    made["format"][1] = ROW_FORMAT + 1
    with pytest.raises(RowFormatError, match="another format"):
        unpacked(made.tobytes(), TABLE.dtype)


@given(places=st.lists(st.integers(0, 19), unique=True), part=st.booleans())
def test_rows_are_taken_and_put_as_numpy_indexes_them(places: list[int], part: bool) -> None:
    kind = row_type([("sums", "<f8", (3,))])
    everyone = np.frombuffer(np.random.default_rng(1).bytes(40 * kind.itemsize), kind).copy()
    some = everyone[10:30] if part else everyone[:20]
    at = np.array(places, np.int64)
    taken = rows_at(some, at)
    assert taken.tobytes() == some[at].tobytes()
    taken["version"] += 1
    expected = everyone.copy()
    (expected[10:30] if part else expected[:20])[at] = taken
    put_rows(some, at, taken)
    assert everyone.tobytes() == expected.tobytes()
