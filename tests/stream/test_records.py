"""Records are built as their types are declared, and told apart by their identity."""

from __future__ import annotations

from typing import Any, get_type_hints

import msgspec
import pytest

from stream import events, records


@pytest.mark.parametrize(
    ("built", "declared"),
    [
        (records.Change, events.SegmentChange),
        (records.Why, events.Contribution),
        (records.Membership, events.MembershipRecord),
    ],
)
def test_what_is_built_has_the_declared_fields_in_their_order(built: Any, declared: Any) -> None:
    fields = [field.encode_name for field in msgspec.structs.fields(built)]
    assert fields == list(get_type_hints(declared))


def test_a_change_has_one_identity() -> None:
    one = records.change_id(b"ann", b"key", 2, 7)
    assert one == records.change_id(b"ann", b"key", 2, 7)
    assert one.endswith("-2-7")
    others = [(b"bob", b"key", 2, 7), (b"ann", b"other", 2, 7), (b"ann", b"key", 1, 7)]
    assert len({one, *(records.change_id(*other) for other in others)}) == 4
    assert "ann" not in one
