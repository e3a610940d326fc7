"""What must hold for whatever a stranger sends: nothing raises, and everybody comes to the same.

Comes in: bytes, from the grammar, from the corpus, or from a fuzzer. Goes out: nothing, or an
`AssertionError`, or whatever should not have been raised. Bytes mean: to `check_message` a message; to
`check_row` a mapping and the cells of a row, a line each; to `check_letter` the parts of a refused
message, a line each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal
from zlib import crc32

import numpy as np
from confluent_kafka import Producer

from consumers.decode import Batch, Block, Decoder, Reject
from consumers.letters import Letter, _letter_of
from producers import rejects
from producers.dead_letters import _message
from producers.mapped import Event, Refusal
from producers.mapping import Mapping, load_mapping, parse_mapping, shipped_names
from producers.messages import encoded_message
from producers.rejects import DeadLetters
from producers.row_mapper import RowMapper
from stream.acting import Acting, act_together
from stream.config import Money, Settings, Worker
from stream.events import EventColumns, Reason
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.oracle import Fate, Judge, Marks, Message, Outcome
from stream.partition import Partition
from stream.segments import PublishRule
from stream.store.memory import MemoryStore
from stream.store.state import Position
from stream.units import DAY_MS, iso
from tests.fakes import SIGNER, FakeMessage, mark_value
from tests.strategies import EVERY_AGGREGATE, START_MS, VIEW, encoded

MESSAGE_BYTES = 16_384
MARK_SECONDS = 3_600.0
TABLE = FeatureTable(EVERY_AGGREGATE)
PLACE = ("clickstream", 0)
TIMES = (
    START_MS, START_MS, START_MS - 1_000, START_MS + 100 * DAY_MS, -1, 0, 1, -(1 << 63),
    (1 << 63) - 1, 4_102_444_800_000, 4_102_444_799_999, 86_400_000, 788_918_399_999,
    START_MS // 1_000, START_MS * 1_000, START_MS + DAY_MS + 300_000, START_MS + DAY_MS + 300_001,
    788_918_400_000,
)  # fmt: skip
"""Of records: sane ones, none, those after `NOW_MS`, and absurd ones."""
NOW_MS = START_MS + DAY_MS
NEIGHBOURS = (
    encoded(userId="before", messageId="m2", event=VIEW),
    mark_value(START_MS + DAY_MS),
    encoded(userId="after", messageId="m3"),
)
WAYS: tuple[Literal["plain", "compiled"], ...] = (
    ("plain", "compiled") if find_spec("numba") else ("plain",)
)
UNSURE = frozenset({Reason.TRUNCATED, Reason.NOT_JSON})
"""Whether what is no JSON was cut or wrong, two readers may judge differently."""


@lru_cache(maxsize=1)
def _decoders() -> list[tuple[list[Decoder], Judge]]:
    """Every decoder, and the judge they are held to: in live mode, then by marks and in a currency."""
    made = []
    for marks, money in ((False, Money()), (True, Money(currency="EUR", rates={"USD": 0.5}))):
        workers = [Worker(decoder=way, message_bytes=MESSAGE_BYTES) for way in WAYS]
        signer = SIGNER if marks else None
        known = Marks(MemoryStore().namespace_key(), MARK_SECONDS) if marks else None
        made.append(
            (
                [Decoder(TABLE, worker, signer, MARK_SECONDS, money) for worker in workers],
                Judge(EVERY_AGGREGATE, workers[0], known, NOW_MS, money=money),
            )
        )
    return made


# -- messages ------------------------------------------------------------------------------------


def check_message(raw: bytes) -> None:
    """Both parsers and the judge agree on a message; its neighbours are as without it."""
    time_ms = TIMES[crc32(raw) % len(TIMES)]
    for decoders, judge in _decoders():
        expected = judge.judge(Message(raw, time_ms, 0, PLACE))
        blocks = [decoder.decode(_messages([raw], time_ms), NOW_MS) for decoder in decoders]
        for block in blocks:
            _agrees(block, 0, expected)
            assert _told(block, 0) == _told(blocks[0], 0)
            _reaches_the_store(block)
        alone = decoders[0].decode(_messages(NEIGHBOURS, START_MS), NOW_MS)
        for decoder in decoders:
            messages = _messages([*NEIGHBOURS[:2], raw, NEIGHBOURS[2]], START_MS)
            messages[2] = _messages([raw], time_ms)[0]
            together = decoder.decode(messages, NOW_MS)
            assert _told(together, 2) == _told(blocks[0], 0)
            for place, there in enumerate((0, 1, 3)):
                assert _told(together, there) == _told(alone, place)


def _messages(values: Any, time_ms: int) -> list[FakeMessage]:
    return [FakeMessage(value, timestamp_ms=time_ms, place=i) for i, value in enumerate(values)]


def _told(block: Block, place: int) -> tuple[Any, ...]:
    """What a decoder says of a message; to the bit, if it is an event."""
    reject = block.rejects.get(place)
    if reject is not None:
        return "refused", reject.reason, reject.detail
    if place in block.marks:
        return "mark", block.marks[place]
    counts = block.batch(0, place, place + 1).counts
    if not counts.applied:
        return "ignored" if counts.ignored else "late", block.time_ms[place] if counts.late else 0
    columns = [
        getattr(block, name)[place].tobytes()
        for name in (
            "kind",
            "time_ms",
            "id",
            "value",
            "quantity",
            "category",
            "order",
            "whole",
            "clamped",
        )
    ]
    return "applied", block.users[place], _review(block.batch(0, place, place + 1)), *columns


def _review(batch: Batch) -> tuple[str, tuple[int, ...]]:
    """Rating and words of a message; NaN and none where it says neither."""
    if batch.reviews is None:
        return "nan", ()
    return repr(float(batch.reviews.rating[0])), tuple(batch.reviews.words[0].tolist())


def _agrees(block: Block, place: int, expected: Outcome) -> None:
    """The fate and the reason are those of the judge, and so is every number."""
    batch = block.batch(0, place, place + 1)
    counts = batch.counts
    if expected.fate is Fate.REJECTED:
        [reject] = batch.rejects
        assert reject.reason is not Reason.UNREADABLE, reject.detail
        assert reject.reason == expected.reason or {reject.reason, expected.reason} <= UNSURE
        assert reject.detail
        return
    assert not batch.rejects, batch.rejects
    assert {
        Fate.MARK: counts.marks,
        Fate.IGNORED: counts.ignored,
        Fate.LATE: counts.late,
        Fate.APPLIED: counts.applied,
    }[expected.fate] == 1
    if (event := expected.event) is not None:
        found = (
            batch.users[0], TABLE.codes[event.name], event.time_ms, event.id, event.category,
            event.order, event.whole, -event.rate if event.in_own else event.rate, counts.clamped,
        )  # fmt: skip
        assert found == (
            event.user, int(batch.kind[0]), int(batch.time_ms[0]), int(batch.id[0]),
            int(batch.category[0]), int(batch.order[0]), bool(batch.whole[0]), float(batch.rate[0]),
            event.clamped,
        )  # fmt: skip
        assert (batch.value[0], batch.quantity[0]) == (event.value, event.quantity)
        rating = math.nan if event.rating is None else event.rating
        assert _review(batch) == (repr(rating), event.words)


def _reaches_the_store(block: Block) -> None:
    """An event is folded, looked at and committed; no feature of its user becomes no number."""
    batch = block.batch(0, 0, 1)
    if not batch.users:
        return
    position = Position([0, 0], TABLE.schema)
    partition = Partition(0, TABLE, PublishRule(0.2, 3, 0), position, 0, key=b"key")
    events: EventColumns = batch.columns(partition)
    act_together([Acting(partition, events, batch.oldest_ms)], START_MS)
    statistics = partition.sweep(START_MS + DAY_MS, START_MS)
    commit = partition.commit([1, 0], batch.counts, START_MS + DAY_MS, statistics=statistics)
    assert commit.users == [batch.users[0].encode()]
    assert np.isfinite(TABLE.vectors(partition.rows, START_MS + DAY_MS)).all()


# -- rows ----------------------------------------------------------------------------------------

_RULES = """
user = ["user", "visitor"]
time = { column = "at", format = "%d.%m.%Y %H:%M", zone = "Europe/Berlin" }
event = { column = "what" }
order = "order"
amount = "amount"
price = "price"
quantity = "pieces"
category = "category"
session = "session"
message_id = "id"
decimal = ","
rules = [
  { column = "amount", less_than = 0, event = "Order Refunded" },
  { column = "what", matches = "x.*", reject = "no_good" },
  { column = "pieces", more_than = 1e9, reject = "too_many" },
]
"""


@lru_cache(maxsize=1)
def _mappings() -> list[tuple[Mapping, RowMapper]]:
    mappings = [load_mapping(name) for name in shipped_names()]
    mappings.append(parse_mapping(_RULES, "rules", "rules"))
    for form in ("auto", "iso", "seconds", "milliseconds", "microseconds"):
        time = {"column": ("at",), "format": form}
        mappings.append(
            Mapping.model_validate(
                {"user": "user", "time": time, "event": "Order Completed", "amount": "amount"}
            )
        )
    return [(mapping, RowMapper(mapping, mapping.columns)) for mapping in mappings]


def check_row(raw: bytes) -> None:
    """A row becomes an event whose message a worker takes, or a refusal; nothing is raised."""
    mappings = _mappings()
    number, _, rest = raw.partition(b"\n")
    which = int(number) if number.isdigit() and len(number) < 4 else 0
    mapping, mapper = mappings[which % len(mappings)]
    columns = mapping.columns
    # As a file of one's own would have them: half characters are kept as such.
    cells: list[str | None] = [*rest.decode("utf-8", "surrogateescape").split("\n")]
    row = [cell or None for cell in (cells + [None] * len(columns))[: len(columns)]]
    found = mapper.map(1, row)
    if isinstance(found, Refusal):
        assert found.reason
        assert found.why
        assert dict(zip(columns, row, strict=True)) == found.columns
        return
    assert isinstance(found, Event)
    try:
        value = encoded_message(found, iso(found.time_ms), "file")
    except ValueError:
        return
    assert found.user.encode()
    judge = Judge(DEFAULT_FEATURES, Worker(message_bytes=1 << 30))
    outcome = judge.judge(Message(value, found.time_ms, 0))
    assert outcome.fate is not Fate.REJECTED, (outcome, value)


# -- dead letters --------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _producer() -> Producer:
    """One that takes records and never sends them."""
    return Producer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})


def check_letter(raw: bytes) -> None:
    """A letter of any message can be made, sent, read, and sent again as the message was."""
    parts = raw.split(b"\n")
    detail, key, *rest = [*parts, b"", b""][: max(len(parts), 2)]
    told: list[tuple[str, str | bytes | None]] = [
        (name.decode(errors="replace").replace("\0", ""), None if data == b"-" else data)
        for name, _, data in (one.partition(b"=") for one in rest[1:])
    ]
    message = FakeMessage(rest[0] if rest else None, key or None, told=told)
    reject = Reject(Reason.NOT_JSON, detail.decode("utf-8", "surrogateescape"), message)
    letters = DeadLetters(Settings())
    record = letters._record(reject, rejects._headers(reject))
    filed = FakeMessage(record.value, record.key, told=list(record.headers))
    letter = _letter_of(filed, "clickstream")
    assert isinstance(letter, Letter)
    assert (letter.id, letter.reason) == ("clickstream/0/0", Reason.NOT_JSON)
    assert letter.is_mark in (True, False)
    message_again = _message(letter)
    if not letter.lacks:
        assert (message_again.key, message_again.value) == (key or None, message.raw)
        *originals, ours = message_again.headers
        assert originals == told
        assert ours == ("segstream-replayed-from", letter.id)
    producer = _producer()
    producer.produce(record.topic, record.value, record.key, headers=list(record.headers))
    if len(producer) > 1_000:
        producer.purge()
        producer.flush(1)


CHECKS: dict[str, Callable[[bytes], None]] = {
    "messages": check_message,
    "rows": check_row,
    "letters": check_letter,
}
