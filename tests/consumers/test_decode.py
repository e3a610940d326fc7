"""Both decoders are held to the oracle's judge, message by message and block by block."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumers.decode import Batch, Decoder
from consumers.plain import Parsed, parse_times
from stream.config import Worker
from stream.events import Reason
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.hashing import hash_text
from stream.marks import MarkSigner
from stream.oracle import Fate, Judge, Marks, Message, Outcome
from stream.partition import Partition
from stream.segments import PublishRule
from stream.store.memory import MemoryStore
from stream.store.state import Position
from stream.units import iso
from tests.fakes import SIGNER, FakeMessage, mark_value
from tests.strategies import (
    CART,
    EVERY_AGGREGATE,
    MESSAGES,
    ORDER,
    REFUND,
    START_MS,
    VIEW,
    encoded,
    track,
)

TABLE = FeatureTable(DEFAULT_FEATURES)
WORKER = Worker()
JUDGE = Judge(DEFAULT_FEATURES, WORKER)
MARK_SECONDS = 3_600.0
MARKS = Marks(MemoryStore().namespace_key(), MARK_SECONDS)
JUDGE_BY_MARKS = Judge(DEFAULT_FEATURES, WORKER, MARKS)
NAMES = {code: name for name, code in TABLE.codes.items()}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module", params=["plain", "compiled"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    """Each of the two."""
    if request.param == "compiled":
        pytest.importorskip("numba", reason="needs the extra segstream[fast]")
    return Decoder(TABLE, Worker(decoder=request.param))


@pytest.fixture(scope="module")
def by_marks(decoder: Decoder) -> Decoder:
    """The same where the shop's clock goes by marks."""
    return Decoder(TABLE, Worker(decoder=decoder.way), SIGNER, MARK_SECONDS)


def message(value: bytes | None, offset: int = 0, timestamp_ms: int = START_MS) -> FakeMessage:
    return FakeMessage(value, timestamp_ms=timestamp_ms, place=offset)


def decoded(
    decoder: Decoder, values: Sequence[bytes | None], timestamp_ms: int = START_MS
) -> Batch:
    messages = [message(v, i, timestamp_ms) for i, v in enumerate(values)]
    return decoder.decode(messages).batch(1, 0, len(messages))


def events_of(batch: Batch) -> list[tuple[Any, ...]]:
    """Events as plain values, a tuple each."""
    return list(
        zip(
            batch.users,
            batch.kind.tolist(),
            batch.time_ms.tolist(),
            batch.id.tolist(),
            batch.value.tolist(),
            batch.quantity.tolist(),
            batch.category.tolist(),
            batch.order.tolist(),
            batch.whole.tolist(),
            batch.rate.tolist(),
            strict=True,
        )
    )


def verdict(batch: Batch) -> tuple[Fate, Reason | None]:
    """What became of a batch of one message."""
    counts = batch.counts
    assert counts.consumed + counts.marks == 1, counts
    assert len(batch.rejects) == counts.rejected
    assert len(batch.users) == counts.applied
    if counts.rejected:
        return Fate.REJECTED, batch.rejects[0].reason
    if counts.marks:
        return Fate.MARK, None
    if counts.ignored:
        return Fate.IGNORED, None
    return (Fate.LATE, None) if counts.late else (Fate.APPLIED, None)


def assert_agrees(batch: Batch, outcome: Outcome, codes: dict[str, int] = TABLE.codes) -> None:
    """A batch of one message is what the judge made of it."""
    found = verdict(batch)
    unreadable = {Reason.TRUNCATED, Reason.NOT_JSON}
    if found[1] in unreadable and outcome.reason in unreadable:
        # Whether what is no JSON could still have become some is judged a little differently:
        # "fx" is cut short to msgspec, which has not looked at the letters yet. Both refuse it.
        return
    assert found == (outcome.fate, outcome.reason)
    if outcome.event is None:
        return
    event = outcome.event
    [columns] = events_of(batch)
    assert columns == (
        event.user,
        codes[event.name],
        event.time_ms,
        event.id,
        event.value,
        event.quantity,
        event.category,
        event.order,
        event.whole,
        -event.rate if event.in_own else event.rate,
    )
    assert batch.counts.clamped == event.clamped


def assert_adds_up(
    decoder: Decoder, values: Sequence[bytes | None], timestamp_ms: int = START_MS
) -> Batch:
    """A block gives what its messages give one by one, in their order."""
    whole = decoded(decoder, values, timestamp_ms)
    ones = [decoded(decoder, [value], timestamp_ms) for value in values]
    assert events_of(whole) == [event for one in ones for event in events_of(one)]
    assert whole.marks == [mark for one in ones for mark in one.marks]
    assert whole.next_offset == len(values)
    assert whole.counts.consumed + whole.counts.marks == len(values)
    for name in ("applied", "late", "ignored", "rejected", "clamped", "marks"):
        assert getattr(whole.counts, name) == sum(getattr(one.counts, name) for one in ones)
    refused = [(i, o.rejects[0].reason) for i, o in enumerate(ones) if o.rejects]
    assert sorted((r.message.offset(), r.reason) for r in whole.rejects) == refused
    return whole


# -- the decoder and the judge -------------------------------------------------------------------


@pytest.mark.parametrize(("value", "fate", "reason"), MESSAGES, ids=range(len(MESSAGES)))
def test_every_message_gets_its_fate(
    decoder: Decoder, value: bytes | None, fate: Fate, reason: Reason | None
) -> None:
    batch = decoded(decoder, [value])
    assert verdict(batch) == (fate, reason), value
    assert_agrees(batch, JUDGE.judge(Message(value, START_MS, 1)))


@pytest.mark.parametrize("more", [b'"x": NaN', b'"x": ' + b"[" * 20_000])
def test_a_number_out_of_range_hides_nothing_worse(decoder: Decoder, more: bytes) -> None:
    # Only for such a number is a message read by something more lenient than msgspec.
    value = encoded().replace(b"20.0", b"1e999, " + more)
    batch = decoded(decoder, [value])
    assert verdict(batch) == (Fate.REJECTED, Reason.NOT_JSON)
    assert_agrees(batch, JUDGE.judge(Message(value, START_MS, 1)))


def test_a_block_of_everything_is_the_sum_of_its_messages(decoder: Decoder) -> None:
    whole = assert_adds_up(decoder, [value for value, _, _ in MESSAGES])
    fates = Counter(fate for _, fate, _ in MESSAGES)
    assert whole.counts.applied == fates[Fate.APPLIED]
    assert whole.counts.rejected == fates[Fate.REJECTED]
    assert whole.counts.ignored == fates[Fate.IGNORED]
    assert whole.counts.late == fates[Fate.LATE]


_REFUSED = {reason: value for value, fate, reason in MESSAGES if reason is not None}


@pytest.mark.parametrize("reason", _REFUSED)
def test_good_neighbours_of_a_refused_message_count(decoder: Decoder, reason: Reason) -> None:
    before, after = encoded(userId="before"), encoded(userId="after", messageId="m2")
    batch = assert_adds_up(decoder, [before, _REFUSED[reason], after])
    assert batch.users == ["before", "after"]
    [reject] = batch.rejects
    assert reject.reason == reason
    assert reject.detail
    assert reject.message.offset() == 1
    assert reject.message.value() == _REFUSED[reason]


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A field, or ``...`` for a field that is not there; now and then of any type."""
    return st.one_of(values, values, values, values, st.just(...), _ANY)


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=3,
)
_NUMBER = st.one_of(
    st.sampled_from([0, 1, -1, 19.99, 1e12, 1.0000001e12, -1e13, 1e300, -0.0]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(10**20), 10**20),
    st.none(),
)
_TIME = st.one_of(
    st.integers(START_MS - 100 * 86_400_000, START_MS + 600_000).map(
        lambda ms: (_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds")
    ),
    st.sampled_from(
        [
            "2025-12-01T00:00:00.000Z",
            "2025-11-30T23:59:59.999Z",
            "2025-12-01T00:05:00.000Z",
            "2025-12-01T00:05:00.001Z",
            "2025-12-01T00:00:00+01:00",
            "2024-02-29T12:00:00Z",
        ]
    ),
    st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    st.text(max_size=30),
)
_PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "category": maybe(st.sampled_from(["shoes", "", "Möbel", "a" * 200, None])),
        "quantity": maybe(_NUMBER),
        "price": maybe(_NUMBER),
        "revenue": maybe(_NUMBER),
        "total": maybe(_NUMBER),
        "value": maybe(_NUMBER),
        "coupon": _ANY,
    },
).map(lambda found: {key: value for key, value in found.items() if value is not ...})
_TRACKS = st.builds(
    track,
    type=maybe(st.sampled_from(["track", "track", "page", "identify", "order"])),
    event=maybe(st.sampled_from([ORDER, REFUND, VIEW, CART, "Page Scrolled", ""])),
    userId=maybe(st.sampled_from(["u1", "", "Zoë", None, "é" * 128, "é" * 129, "x" * 65])),
    anonymousId=maybe(st.sampled_from(["a1", "", None])),
    messageId=maybe(st.text(max_size=40)),
    timestamp=maybe(_TIME),
    properties=maybe(_PROPERTIES),
)


def as_json(data: Any, ascii_only: bool) -> bytes:
    return json.dumps(data, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


@st.composite
def wire(draw: st.DrawFn) -> bytes | None:
    """A message as a stranger sends it: whole, cut short, or with a byte gone wrong."""
    raw = as_json(draw(_TRACKS), draw(st.booleans()))
    damage = draw(st.sampled_from(["none", "none", "none", "cut", "byte", "more", "mark"]))
    if damage == "cut":
        return raw[: draw(st.integers(0, len(raw)))]
    if damage == "byte":
        place = draw(st.integers(0, len(raw) - 1))
        return raw[:place] + draw(st.binary(min_size=1, max_size=1)) + raw[place + 1 :]
    if damage == "more":
        return raw + draw(st.binary(max_size=3))
    if damage == "mark":
        mark = {
            "type": "segstream-mark",
            "timestamp": draw(maybe(_TIME)),
            "sentAt": draw(maybe(_TIME)),
        }
        return as_json({k: v for k, v in mark.items() if v is not ...}, ascii_only=True)
    return raw


@pytest.mark.slow
@given(wire())
@settings(max_examples=150, deadline=None)
@example(b'{"messageId": "\\u00e9')
@example(b'{"messageId": "\\ud800\\udc00')
@example(b'{"event": "x", "userId": "u", "messageId": "m", "timestamp": NaN}')
@example(b'{"a": 1, "a": 2}')
@example(b'"' + b"\\" * 3)
@example(b'{"properties":{"price":-0}}')
@example(b"-")
@example(b"nul")
@example(b"01")
@example(b"\x00")
@example(b'"\t')
@example(b'"\n ')
def test_the_decoder_agrees_with_the_judge(decoder: Decoder, value: bytes | None) -> None:
    assert_agrees(decoded(decoder, [value]), JUDGE.judge(Message(value, START_MS, 1)))


@given(st.binary(max_size=12))
@settings(max_examples=150, deadline=None)
def test_both_make_the_same_of_noise(decoder: Decoder, value: bytes) -> None:
    assert_agrees(decoded(decoder, [value]), JUDGE.judge(Message(value, START_MS, 1)))


@pytest.mark.slow
@given(st.lists(wire(), min_size=1, max_size=12), st.integers(-10, 10))
@settings(max_examples=30, deadline=None)
def test_a_block_is_the_sum_of_its_messages(
    decoder: Decoder, values: list[bytes | None], shift: int
) -> None:
    assert_adds_up(decoder, values, START_MS + shift * 86_400_000)


@given(_TRACKS, st.integers(-200, 200), st.integers(0, 100), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_both_know_the_limits_of_the_settings(
    decoder: Decoder, fields: dict[str, Any], hours: int, late_hours: int, future_hours: int
) -> None:
    worker = Worker(
        late_seconds=late_hours * 3_600.0,
        future_seconds=future_hours * 3_600.0,
        message_bytes=256,
        decoder=decoder.way,
    )
    value, appended = as_json(fields, ascii_only=True), START_MS + hours * 3_600_000
    table = FeatureTable(EVERY_AGGREGATE)
    batch = decoded(Decoder(table, worker), [value], appended)
    outcome = Judge(EVERY_AGGREGATE, worker).judge(Message(value, appended, 1))
    assert_agrees(batch, outcome, table.codes)


# -- faults of a parser --------------------------------------------------------------------------


class FaultyParser:
    """A parser that fails at every block with a certain word in it."""

    def __init__(self, decoder: Decoder, fault: BaseException) -> None:
        self.calls = 0
        self._parser = decoder._parser
        self._fault = fault

    def parse(self, values: Sequence[Any]) -> Parsed:
        self.calls += 1
        if any(b"culprit" in (value or b"") for value in values):
            raise self._fault
        return self._parser.parse(values)


def faulty(decoder: Decoder, fault: BaseException) -> tuple[Decoder, FaultyParser]:
    made = Decoder(TABLE, Worker(decoder=decoder.way))
    parser = FaultyParser(decoder, fault)
    made._parser = parser
    return made, parser


@pytest.mark.parametrize("fault", [ZeroDivisionError("how?"), RecursionError(), SystemError("x")])
def test_a_message_at_which_a_parser_fails_is_refused_and_no_other(
    decoder: Decoder, fault: Exception
) -> None:
    culprit = encoded(userId="culprit")
    values = [value for value, _, _ in MESSAGES]
    expected = decoded(decoder, values)
    for places in ([0], [17], [3, 4, 90], [0, len(MESSAGES)]):
        broken = list(values)
        for place in places:
            broken.insert(place, culprit)
        made, parser = faulty(decoder, fault)
        batch = decoded(made, broken)
        assert events_of(batch) == events_of(expected)
        assert batch.marks == expected.marks
        refused = [reject for reject in batch.rejects if reject.reason is Reason.UNREADABLE]
        assert [reject.message.value() for reject in refused] == [culprit] * len(places)
        assert all(type(fault).__name__ in reject.detail for reject in refused)
        others = [reject for reject in batch.rejects if reject.reason is not Reason.UNREADABLE]
        assert [(r.reason, r.message.value()) for r in others] == [
            (r.reason, r.message.value()) for r in expected.rejects
        ]
        assert batch.counts.rejected == expected.counts.rejected + len(places)
        assert parser.calls < 20 * len(places)


@pytest.mark.parametrize("fault", [MemoryError(), KeyboardInterrupt()])
def test_what_is_no_fault_of_a_message_is_none(decoder: Decoder, fault: BaseException) -> None:
    made, parser = faulty(decoder, fault)
    with pytest.raises(type(fault)):
        decoded(made, [encoded(), encoded(userId="culprit")])
    assert parser.calls == 1


NO_TIMES = (
    -(1 << 63),
    -1,
    0,
    1,
    86_399_999,
    1_764_547_200,
    788_918_399_999,
    4_102_444_800_000,
    (1 << 63) - 1,
)


@pytest.mark.parametrize("timestamp_ms", NO_TIMES)
def test_an_absurd_record_timestamp_limits_nothing(decoder: Decoder, timestamp_ms: int) -> None:
    values = [encoded(), encoded(timestamp="1996-01-01T00:00:00Z"), b"hello"]
    batch = decoded(decoder, values, timestamp_ms)
    assert batch.time_ms.tolist() == [START_MS, 820_454_400_000]
    assert batch.oldest_ms == 820_454_400_000
    for value in values:
        assert_agrees(
            decoded(decoder, [value], timestamp_ms),
            JUDGE.judge(Message(value, timestamp_ms, 1)),
        )


def test_limits_beyond_all_times_are_none() -> None:
    worker = Worker(late_seconds=1e300, future_seconds=1e300, decoder="plain")
    batch = decoded(Decoder(TABLE, worker), [encoded()], START_MS)
    assert batch.time_ms.tolist() == [START_MS]


# -- times ---------------------------------------------------------------------------------------


def milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


_MOMENTS = st.datetimes(
    datetime(1970, 1, 2),  # noqa: DTZ001 - the zone comes with the next argument but one
    datetime(2099, 12, 30),  # noqa: DTZ001
    timezones=st.just(UTC),
)


@given(st.lists(_MOMENTS, min_size=1, max_size=20))
def test_times_in_the_usual_form_are_what_datetime_says(moments: list[datetime]) -> None:
    texts = [m.isoformat(timespec="milliseconds").replace("+00:00", "Z") for m in moments]
    assert parse_times(texts).tolist() == [milliseconds(m) for m in moments]


@pytest.mark.parametrize(
    ("text", "usual"),
    [
        ("20251130T233000.25-0030", "2025-12-01T00:00:00.250Z"),
        ("20251201T0130+0130", "2025-12-01T00:00:00.000Z"),
        ("2025-11-30T24:00:00Z", "2025-12-01T00:00:00.000Z"),
        ("2025-11-30T23:59:60Z", "2025-12-01T00:00:00.000Z"),
        ("2025-11-30T23:30:00\N{MINUS SIGN}00:30", "2025-12-01T00:00:00.000Z"),
        ("2025-12-01 01:00:00 +0100 CET", "2025-12-01T00:00:00.000Z"),
        (" 2025-12-01T01:00:00+01:00[Europe/Berlin] ", "2025-12-01T00:00:00.000Z"),
    ],
)
def test_times_as_other_libraries_write_them(text: str, usual: str) -> None:
    assert parse_times([text]).tolist() == parse_times([usual]).tolist()
    assert parse_times([usual, text]).tolist() == parse_times([usual, usual]).tolist()


@given(_MOMENTS, st.integers(-1_439, 1_439), st.sampled_from(["seconds", "microseconds"]))
def test_times_with_an_offset_are_what_datetime_says(
    moment: datetime, minutes: int, timespec: str
) -> None:
    local = moment.astimezone(timezone(timedelta(minutes=minutes)))
    whole = moment.replace(microsecond=0) if timespec == "seconds" else moment
    for text in (local.isoformat(timespec=timespec), local.isoformat(" ", timespec=timespec)):
        assert parse_times([text]).tolist() == [milliseconds(whole)]
        assert parse_times([text, "2025-12-01T00:00:00.000Z"]).tolist()[0] == milliseconds(whole)


@pytest.mark.parametrize("year", [1972, 2000, 2024, 2025, 2099])
def test_leap_days_are_days_in_leap_years_only(year: int) -> None:
    usual = "2025-12-01T00:00:00.000Z"
    for month in range(14):
        for day in (0, 1, 28, 29, 30, 31, 32):
            text = f"{year}-{month:02}-{day:02}T12:34:56.789Z"
            try:
                expected = milliseconds(datetime.fromisoformat(text))
            except ValueError:
                expected = -1
            # Alone, beside its equal, and among other days: three ways through the code.
            assert parse_times([text]).tolist() == [expected], text
            assert parse_times([text, text]).tolist() == [expected] * 2, text
            assert parse_times([usual, text]).tolist() == [START_MS, expected], text


@given(
    st.lists(
        st.one_of(
            st.text(max_size=30),
            st.text("0123456789-:.TZ+ ", min_size=24, max_size=24),
            st.just("2025-12-01T00:00:00.000Z"),
        ),
        max_size=6,
    )
)
def test_a_time_does_not_depend_on_its_neighbours(texts: list[str]) -> None:
    assert parse_times(texts).tolist() == [parse_times([text]).tolist()[0] for text in texts]


def test_a_digit_of_another_script_is_no_digit() -> None:
    usual, arabic, wide = "2025-12-01T00:00:00.000Z", "\N{ARABIC-INDIC DIGIT FIVE}", "\uff12"
    texts = [usual, usual.replace("5", arabic), usual.replace("2", wide)]
    assert parse_times(texts).tolist() == [START_MS, -1, -1]


# -- the rest of a batch -------------------------------------------------------------------------


def test_a_mark_tells_both_its_times(by_marks: Decoder) -> None:
    mark = mark_value(START_MS + 1_000, START_MS + 2_000)
    batch = decoded(by_marks, [encoded(), mark, encoded()])
    assert batch.marks == [(START_MS + 1_000, START_MS + 2_000)]
    assert batch.counts.applied == 2
    assert batch.next_offset == 3


SOON = "2026-11-21T09:00:00.000Z"
MARK = mark_value(START_MS, START_MS)
SIGNATURE = json.loads(MARK)["signature"]


def signed(time: str, sent: str = SOON) -> bytes:
    """A mark with any times, signed by who may."""
    signature = SIGNER._sign("clickstream", 0, time, sent)
    return json.dumps(
        {"type": "segstream-mark", "timestamp": time, "sentAt": sent, "signature": signature}
    ).encode()


FORGED = {
    "unsigned": MARK.replace(SIGNATURE.encode(), b""),
    "no signature": encoded(type="segstream-mark", sentAt=SOON),
    "nothing": b'{"type":"segstream-mark"}',
    "no texts": b'{"type":"segstream-mark","timestamp":1,"sentAt":null,"signature":[]}',
    "made up": MARK.replace(SIGNATURE.encode(), b"0" * 64),
    "upper case": MARK.replace(SIGNATURE.encode(), SIGNATURE.upper().encode()),
    "no ascii": MARK.replace(SIGNATURE.encode(), "é".encode()),
    "another time": MARK.replace(b"2025-12-01", b"2025-12-02", 1),
    "another moment of sending": mark_value(START_MS, START_MS + 1).replace(b"00.001Z", b"00.000Z"),
    "another partition's": mark_value(START_MS, at=("clickstream", 1)),
    "another topic's": mark_value(START_MS, at=("purchases", 0)),
    "another namespace's": mark_value(START_MS, signer=MarkSigner(b"x" * 32)),
    "with an unreadable neighbour": b'{"type":"segstream-mark","a":1e999}',
}
LATE_MS = 4_102_444_800_000
BAD_TIMES = {
    "no time": signed("soon"),
    "no moment of sending": signed(iso(START_MS), "now"),
    "too early": signed(iso(0)),
    "too late": signed(iso(LATE_MS), iso(LATE_MS)),
    "ahead of the wall clock": mark_value(START_MS + 3_900_001, START_MS),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_mark_that_is_not_signed_for_its_place_is_refused(by_marks: Decoder, what: str) -> None:
    batch = decoded(by_marks, [encoded(), FORGED[what], MARK])
    [reject] = batch.rejects
    assert (reject.reason, reject.message.value()) == (Reason.FORGED_MARK, FORGED[what])
    assert "not signed" in reject.detail
    assert batch.marks == [(START_MS, START_MS)]
    assert batch.users == ["u1"]


@pytest.mark.parametrize("what", BAD_TIMES)
def test_a_mark_with_a_time_that_cannot_be_is_refused(by_marks: Decoder, what: str) -> None:
    [reject] = decoded(by_marks, [BAD_TIMES[what]]).rejects
    assert reject.reason is Reason.BAD_TIME


def test_a_mark_may_end_a_time_that_has_begun(by_marks: Decoder) -> None:
    ahead = mark_value(START_MS + 3_900_000, START_MS)
    assert decoded(by_marks, [ahead]).marks == [(START_MS + 3_900_000, START_MS)]


@pytest.mark.parametrize("value", [MARK, *FORGED.values(), *BAD_TIMES.values()])
def test_where_the_wall_clock_rules_marks_mean_nothing(decoder: Decoder, value: bytes) -> None:
    batch = decoded(decoder, [value])
    assert verdict(batch) == (Fate.IGNORED, None)
    assert_agrees(batch, JUDGE.judge(Message(value, START_MS, 1)))


@pytest.mark.parametrize("value", [MARK, *FORGED.values(), *BAD_TIMES.values()])
def test_the_oracle_knows_the_same_marks(by_marks: Decoder, value: bytes) -> None:
    for place in [("clickstream", 0), ("clickstream", 1), ("purchases", 0)]:
        one = FakeMessage(value, topic_name=place[0], number=place[1])
        batch = by_marks.decode([one]).batch(0, 0, 1)
        assert_agrees(batch, JUDGE_BY_MARKS.judge(Message(value, one.timestamp_ms, 0, place)))


def test_the_next_offset_follows_the_last_message_whatever_it_was(decoder: Decoder) -> None:
    gap = [message(encoded(), 7), message(b"hello", 9)]
    assert decoder.decode(gap).batch(0, 0, 2).next_offset == 10


def test_the_oldest_record_is_that_of_an_event(decoder: Decoder) -> None:
    assert decoded(decoder, [b"hello"]).oldest_ms == 0
    messages = [message(encoded(), 0, START_MS + 5), message(encoded(), 1, START_MS + 2)]
    assert decoder.decode(messages).batch(0, 0, 2).oldest_ms == START_MS + 2


def test_a_block_is_cut_into_batches_by_place(by_marks: Decoder) -> None:
    values = [encoded(userId=f"u{number}") for number in range(6)]
    values[1] = b"hello"
    values[4] = mark_value(START_MS, START_MS)
    block = by_marks.decode([message(v, 10 + place) for place, v in enumerate(values)])
    left, right = block.batch(0, 0, 3), block.batch(1, 3, 6)
    assert (left.users, right.users) == (["u0", "u2"], ["u3", "u5"])
    assert (left.topic, left.next_offset, right.topic, right.next_offset) == (0, 13, 1, 16)
    assert (left.counts.rejected, left.counts.marks) == (1, 0)
    assert (right.counts.rejected, right.counts.marks) == (0, 1)
    assert [reject.reason for reject in left.rejects] == [Reason.NOT_JSON]
    assert not right.rejects


def test_refusals_are_told_in_stretches_that_end_with_them(by_marks: Decoder) -> None:
    good, bad, mark = encoded(), b"hello", mark_value(START_MS, START_MS)
    values = [bad, good, good, bad, mark, bad, good, mark]
    block = by_marks.decode([message(v, place) for place, v in enumerate(values)])
    assert block.refusals() == [(1, 1), (4, 2), (1, 0)]
    assert by_marks.decode([message(mark)]).refusals() == []


def test_columns_take_the_partitions_slots(decoder: Decoder) -> None:
    position = Position([0, 0], TABLE.schema)
    partition = Partition(0, TABLE, PublishRule(0.2, 3, 0), position, 0)
    first = decoded(decoder, [encoded(userId="a"), b"?", encoded(userId="b"), encoded(userId="a")])
    second = decoded(decoder, [encoded(userId="c"), encoded(userId="b")])
    columns = first.columns(partition)
    assert columns.slot.tolist() == [0, 1, 0]
    assert columns.topic.tolist() == [1, 1, 1]
    assert [NAMES[kind] for kind in columns.kind.tolist()] == [ORDER] * 3
    assert columns.id.tolist() == [hash_text(b"m1")] * 3
    assert second.columns(partition).slot.tolist() == [2, 1]
    assert len(decoded(decoder, [b"?"]).columns(partition)) == 0
    assert len(partition) == 3


def test_categories_beyond_the_cache_hash_as_before(decoder: Decoder) -> None:
    for start in range(0, 100_500, 10_000):
        values = [encoded(properties={"category": f"c{i}"}) for i in range(start, start + 2)]
        decoded(decoder, values)
    assert np.array_equal(
        decoded(decoder, [encoded(properties={"category": "c0"})]).category,
        np.array([hash_text(b"c0")], np.uint64),
    )


@pytest.mark.parametrize(
    ("name", "properties", "whole"),
    [
        ("Order Updated", {"order_id": "o", "status": "packed"}, True),
        ("Order Completed", {"order_id": "o"}, True),
        ("Order Updated", {"order_id": "o", "products": [{"product_id": "p"}]}, True),
        ("Order Updated", {"order_id": "o", "revenue": 0}, False),
        ("Order Refunded", {"order_id": "o"}, True),
        ("Order Refunded", {"order_id": "o", "total": 3}, False),
        ("Order Refunded", {"order_id": "o", "products": [{"product_id": "p"}]}, False),
        ("Order Cancelled", {"order_id": "o", "products": [{"product_id": "p"}]}, True),
        ("Order Canceled", {"order_id": "o", "products": [{"price": 3}]}, False),
        ("Order Cancelled", {"order_id": "o", "products": [{}], "total": 3}, False),
        ("Order Cancelled", {"order_id": "o", "total": 0}, True),
        ("Order Refunded", {"order_id": "o", "total": 0}, False),
        ("Product Viewed", {}, False),
    ],
)
def test_an_order_that_says_no_value_is_known_as_such(
    decoder: Decoder, name: str, properties: dict[str, Any], whole: bool
) -> None:
    """What corrects an order must not take it for one of nothing."""
    batch = decoded(decoder, [encoded(event=name, properties=properties)], START_MS)
    assert batch.whole.tolist() == [whole]
    judged = Judge(DEFAULT_FEATURES, Worker()).judge(
        Message(encoded(event=name, properties=properties), START_MS, 1)
    )
    assert judged.event is not None
    assert judged.event.whole is whole


@pytest.mark.parametrize(
    ("name", "properties", "pieces"),
    [
        ("Order Refunded", {"order_id": "o", "total": 30}, 0.0),
        ("Order Refunded", {"order_id": "o", "refund_amount": "30"}, 0.0),
        ("Order Cancelled", {"order_id": "o", "value": -30}, 0.0),
        ("Order Refunded", {"order_id": "o", "total": 30, "quantity": 2}, 2.0),
        ("Order Refunded", {"order_id": "o", "total": 30, "products": [{}]}, 1.0),
        ("Order Refunded", {"order_id": "o", "price": 30}, 1.0),
        ("Order Completed", {"order_id": "o", "total": 30}, 1.0),
    ],
)
def test_an_amount_alone_takes_back_no_piece(
    decoder: Decoder, name: str, properties: dict[str, Any], pieces: float
) -> None:
    """Who gets some money back and keeps the mug has a mug."""
    value = encoded(event=name, properties=properties)
    assert decoded(decoder, [value], START_MS).quantity.tolist() == [pieces]
    judged = Judge(DEFAULT_FEATURES, Worker()).judge(Message(value, START_MS, 1))
    assert judged.event is not None
    assert judged.event.quantity == pieces


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2025-12-01T00:00:00", "names no zone"),
        ("2025-12-01 00:00:00.000 ", "names no zone"),
        ("20251201T0000", "names no zone"),
        ("1970-01-21T10:09:07.200Z", "from 1995 to 2099"),
        ("2025-02-29T00:00:00.000Z", "from 1995 to 2099"),
        ("1764547200", "is no time in ISO 8601"),
        ("2025-12-01", "is no time in ISO 8601"),
    ],
)
def test_a_refused_time_says_what_is_wrong_with_it(decoder: Decoder, text: str, why: str) -> None:
    for more in ({}, {"messageId": 7}):  # as a usual message, and as one with odd fields
        [reject] = decoded(decoder, [encoded(timestamp=text, **more)]).rejects
        assert reject.reason is Reason.BAD_TIME
        assert repr(text) in reject.detail
        assert why in reject.detail
