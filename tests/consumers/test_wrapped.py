"""A message in another is read where the settings say it is, live and replayed alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from consumers.audit.sample import Sample
from consumers.decode import Decoder
from consumers.native import NativeReader
from consumers.placement import Users
from consumers.wrapped import Unwrapper
from producers.files import Source, read_sources
from producers.mapping import load_mapping
from producers.sorting import EventSorter
from stream.config import Money, Settings, Worker
from stream.events import Reason
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.oracle import Judge, Message
from tests.fakes import FakeMessage
from tests.fuzz.properties import WAYS
from tests.strategies import ORDER, START_MS, encoded

TABLE = FeatureTable(DEFAULT_FEATURES)
PLAIN = encoded(properties={"order_id": "o1", "revenue": 25})
TRACK = json.loads(PLAIN)
LATEST_MS = START_MS + 86_400_000


def wrapped(path: str, inner: Any) -> bytes:
    """A message in a field, with others beside it."""
    for name in reversed(path.split(".")):
        inner = {"schema": {"type": "struct"}, name: inner, "op": "c"}
    return json.dumps(inner).encode()


WRAPPED = [
    ("payload.after", wrapped("payload.after", TRACK)),
    ("payload", wrapped("payload", PLAIN.decode())),
    ("Message", wrapped("Message", PLAIN.decode())),
    ("Message.detail", wrapped("Message", json.dumps({"detail": TRACK}))),
    ("detail", b"\xef\xbb\xbf" + wrapped("detail", TRACK)),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("path", "value"), WRAPPED)
def test_it_is_what_it_would_be_alone(way: Any, path: str, value: bytes) -> None:
    worker = Worker(decoder=way, unwrap=path)
    # Beside one that is not wrapped, such as a mark would be, and one that nobody can read.
    block = Decoder(TABLE, worker).decode([FakeMessage(one) for one in (value, PLAIN, b"{")])
    alone = Decoder(TABLE, Worker(decoder=way)).decode([FakeMessage(PLAIN)])
    assert [one.reason for one in block.rejects.values()] == [Reason.TRUNCATED]
    for name in ("kind", "time_ms", "id", "value", "quantity", "order", "whole"):
        [first, second, _] = getattr(block, name).tolist()
        assert [first] == [second] == getattr(alone, name).tolist()
    assert block.users[:2] == alone.users * 2
    judge = Judge(DEFAULT_FEATURES, worker, now_ms=LATEST_MS)
    judged = judge.judge(Message(value, START_MS, 1)).event
    assert judged == judge.judge(Message(PLAIN, START_MS, 1)).event
    assert judged is not None


@pytest.mark.parametrize(("path", "value"), WRAPPED)
def test_a_replay_and_whoever_looks_where_users_lie_read_it_alike(
    path: str, value: bytes, tmp_path: Path
) -> None:
    settings = Settings.model_validate({"worker": {"unwrap": path}})
    assert Users(settings).of([value]) == ["u1"] == Users(Settings()).of([PLAIN])
    file = tmp_path / "messages.jsonl"
    file.write_bytes(value + b"\n")
    refused: list[Any] = []
    with EventSorter() as sorter:
        _, mapped = read_sources(
            [Source(file, load_mapping("segment"))],
            sorter,
            refused.append,
            latest_ms=LATEST_MS,
            native=NativeReader(TABLE, settings.worker, Money()),
        )
        [[event]] = [list(batch) for batch in sorter.batches()]
    assert (mapped, refused) == (1, [])
    assert (event.user, event.event) == ("u1", ORDER)
    assert not Sample(0.0, settings.worker).skips(value), "whose it is stands inside"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (wrapped("payload.after", None), Reason.MISSING_FIELD),
        (wrapped("payload.after", [TRACK]), Reason.MISSING_FIELD),
        (wrapped("payload.after", "no object"), Reason.MISSING_FIELD),
        (wrapped("payload.after", '{"event": '), Reason.TRUNCATED),
        (wrapped("payload", 7), Reason.MISSING_FIELD),
        (wrapped("payload", "7"), Reason.MISSING_FIELD),
        (wrapped("payload.after", TRACK)[:-9], Reason.TRUNCATED),
        (wrapped("payload.after", TRACK | {"userId": None}), Reason.NO_USER),
        (b'{"payload": {"after": {}}, "\xff": 1}', Reason.NOT_JSON),
        (b"[" * 3_000, None),
        (b"", Reason.EMPTY),
        (None, Reason.EMPTY),
        (b"\xef\xbb\xbf", Reason.EMPTY),
    ],
)
def test_what_has_nothing_there_is_judged_as_it_is(
    way: Any, value: bytes | None, reason: Reason | None
) -> None:
    worker = Worker(decoder=way, unwrap="payload.after")
    [reject] = Decoder(TABLE, worker).decode([FakeMessage(value)]).rejects.values()
    expected = Judge(DEFAULT_FEATURES, worker).judge(Message(value, START_MS, 1)).reason
    assert reason is None or reject.reason is reason
    assert {reject.reason, expected} <= {reject.reason, Reason.TRUNCATED, Reason.NOT_JSON} or (
        reject.reason is expected
    )


def test_a_message_that_is_too_large_stays_so() -> None:
    worker = Worker(decoder="plain", unwrap="payload", message_bytes=400)
    large = wrapped("payload", TRACK | {"context": "x" * 400})
    [reject] = Decoder(TABLE, worker).decode([FakeMessage(large)]).rejects.values()
    assert reject.reason is Reason.TOO_LARGE


def test_without_a_path_nothing_is_touched() -> None:
    values = [PLAIN, None, b"{"]
    assert Unwrapper("", 1_000)(values) is values


@pytest.mark.parametrize("path", [".", "a.", ".a", "a b", "a..b"])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"unwrap"):
        Worker(unwrap=path)
