"""Bytes that others wrote stop nobody, however they are nested."""

from __future__ import annotations

import ast
from pathlib import Path

import msgspec
import pytest

from stream.unreadable import UNREADABLE

ROOT = Path(__file__).parents[2]
ROOMS = ("consumers", "stream/campaigns", "stream/webhooks")
OURS = {"lag.py"}
"""Reads what librdkafka says, and nothing that others wrote."""


@pytest.mark.parametrize(
    "value",
    [b"", b"{", b'"\xff"', b'{"a": 1} {', b"1e999", b"[" * 100_000 + b"]" * 100_000],
)
def test_whatever_cannot_be_read_is_named(value: bytes) -> None:
    with pytest.raises(UNREADABLE):
        msgspec.json.decode(value)


def test_whoever_reads_what_others_wrote_catches_all_of_it() -> None:
    found = []
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ExceptHandler) and node.type is not None:
                    caught = ast.unparse(node.type)
                    if "msgspec." in caught and "RecursionError" not in caught:
                        found.append((path.name, node.lineno))
    assert [one for one in found if one[0] not in OURS] == []
