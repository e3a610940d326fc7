"""The vectorised fold is held to the oracle, however its input arrives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stream.config import Publish, Worker
from stream.events import Counts, Rows
from stream.features import (
    DEFAULT_FEATURES,
    SESSION_GAP_MS,
    Feature,
    FeatureTable,
    over_time,
)
from stream.hashing import hash_text
from stream.memory import Memory
from stream.oracle import Event, Oracle, OracleUser
from stream.partition import Partition
from stream.store.memory import MemoryStore
from stream.store.state import Position
from stream.units import DAY_MS, HOUR_MS
from tests.strategies import (
    CANCEL,
    CART,
    EVERY_AGGREGATE,
    ORDER,
    REFUND,
    SHIP,
    START_MS,
    UPDATE,
    VIEW,
    columns,
    cuts,
    feature,
    feature_tables,
    histories,
)

TABLES = {features: FeatureTable(features) for features in (DEFAULT_FEATURES, EVERY_AGGREGATE)}
RELATIVE = 1e-9
WORKER = Worker()
NOTHING = 1e-12
"""Sums that have all but decayed away differ by less than this."""


def table_of(features: tuple[Feature, ...]) -> FeatureTable:
    return TABLES.get(features) or FeatureTable(features)


def partition_of(
    table: FeatureTable, worker: Worker, position: Position | None = None
) -> Partition:
    position = position or Position([0, 0], table.schema)
    return Partition(0, table, Publish().rule(), position, 0, memory=Memory(worker.limits()))


SILENT_MS = (0, HOUR_MS, DAY_MS, 8 * DAY_MS, 40 * DAY_MS, 400 * DAY_MS)


@given(history=histories())
def test_it_is_known_how_each_feature_goes_on_for_whoever_does_nothing(
    history: list[Event],
) -> None:
    table = table_of(EVERY_AGGREGATE)
    partition = partition_of(table, WORKER)
    fold_in(partition, history)
    last_ms = max(event.time_ms for event in history)
    rows = partition.rows[partition.rows["seen"] > 0]
    assume(len(rows))
    then = np.array([table.vectors(rows, last_ms + silent_ms) for silent_ms in SILENT_MS])
    turns = over_time(EVERY_AGGREGATE)
    assert set(turns.values()) == {"stays", "rises", "falls", "ages", "moves"}
    for column, one in enumerate(table.features):
        name, values = one.name, then[:, :, column]
        slack = 1e-9 * np.abs(values).max()
        match turns[name]:
            case "rises":
                assert (np.diff(values, axis=0) >= -slack).all(), name
            case "falls":
                assert (np.diff(np.maximum(values, 0.0), axis=0) <= slack).all(), name
            case "ages":
                silent = np.array(SILENT_MS)[:, None] / DAY_MS
                assert np.allclose(values - silent, values[:1]), name
            case "stays":
                assert np.isclose(values, values[:1]).all(), name


@pytest.mark.parametrize(
    ("half_life", "turn"), [("7d", "moves"), ("90d", "stays"), ("180d", "stays"), (None, "stays")]
)
def test_a_mean_that_is_forgotten_soon_does_not_stay(half_life: str | None, turn: str) -> None:
    """After twenty half-lives it is of nothing: a score with a weight below nothing would jump up."""
    mean = feature("basket", "mean", on=(ORDER,), of="value", half_life=half_life)
    assert over_time([mean]) == {"basket": turn}


def fold_in(partition: Partition, batch: Sequence[Event]) -> int:
    """Fold a batch; returns the number of duplicates."""
    slots = {event.user: int(partition.slots([event.user])[0]) for event in batch}
    return partition.fold(columns(partition.table, slots, batch))[1]


def fold(
    table: FeatureTable, batches: Sequence[Sequence[Event]], worker: Worker = WORKER
) -> tuple[dict[str, int], Rows, int]:
    """Slots and rows of all users, and the number of duplicates."""
    partition = partition_of(table, worker)
    duplicates = sum(fold_in(partition, batch) for batch in batches)
    names = [name.decode() for name in partition.names]
    return {name: slot for slot, name in enumerate(names)}, partition.rows, duplicates


def truth(
    features: Sequence[Feature], events: Sequence[Event], worker: Worker = WORKER
) -> tuple[dict[str, OracleUser], int]:
    """Oracle's users, and the number of duplicates."""
    oracle = Oracle(features, worker)
    return oracle.users, sum(not oracle.fold(event) for event in events)


def watched(table: FeatureTable, events: Sequence[Event]) -> list[Event]:
    """The events that a decoder would not have ignored."""
    return [event for event in events if event.name in table.codes]


def times_of_interest(events: Sequence[Event]) -> list[int]:
    newest = max((event.time_ms for event in events), default=START_MS)
    return [0, START_MS, newest, newest + 1, newest + 3_600_000, newest + 5 * DAY_MS]


def assert_equal(
    table: FeatureTable,
    slots: dict[str, int],
    rows: Rows,
    events: Sequence[Event],
    worker: Worker = WORKER,
) -> None:
    users, _ = truth(table.features, events, worker)
    assert slots.keys() == users.keys()
    for now in times_of_interest(events):
        vectors = table.vectors(rows, now)
        for name, user in users.items():
            for column, (feature_name, reading) in enumerate(
                user.readings(table.features, now).items()
            ):
                got = float(vectors[slots[name], column])
                assert reading.agrees(got, RELATIVE, NOTHING), (
                    f"{feature_name} of {name} at {now}: {got} is not {reading}"
                )
    for name, user in users.items():
        row = rows[slots[name]]
        assert row["first"] == user.first_ms
        assert row["seen"] == user.seen_ms
        assert row["click"] == (user.click_ms or 0)
        assert row["arrivals"].tolist() == user.arrivals
        assert row["as_of"] == user.as_of_ms


@pytest.mark.slow
@given(feature_tables, st.data())
@settings(max_examples=150, deadline=None)
def test_any_history_in_any_batches_is_what_the_oracle_says(
    features: tuple[Feature, ...], data: st.DataObject
) -> None:
    table = table_of(features)
    events = watched(table, data.draw(histories()))
    slots, rows, duplicates = fold(table, data.draw(cuts(events)))
    assert duplicates == truth(features, events)[1]
    assert_equal(table, slots, rows, events)


LITTLE = Worker().model_copy(update={"remembered_ids": 5})
"""Remembers so few ids that the cap is reached."""


@pytest.mark.slow
@given(feature_tables, st.sampled_from([WORKER, LITTLE]), st.data())
@settings(max_examples=150, deadline=None)
def test_a_takeover_between_batches_changes_nothing(
    features: tuple[Feature, ...], worker: Worker, data: st.DataObject
) -> None:
    """Whoever takes over remembers what was committed, and nothing else."""
    table = table_of(features)
    events = watched(table, data.draw(histories()))
    store = MemoryStore()
    store.create(0, "token", Position([0, 0], table.schema))
    partition, duplicates = partition_of(table, worker), 0
    for batch in data.draw(cuts(events)):
        duplicates += fold_in(partition, batch)
        if data.draw(st.booleans()):
            commit = partition.commit([0, 0], Counts(), 0)
            store.commit(0, "token", commit)
            partition.committed(commit)
        if data.draw(st.booleans()):
            commit = partition.commit([0, 0], Counts(), 0)
            store.commit(0, "token", commit)
            taken = store.acquire(0, "token")
            assert taken is not None
            partition = Partition(
                0, table, Publish().rule(), taken[1], taken[0], memory=Memory(worker.limits())
            )
            partition.load(store.load(0))
            partition.past.load_ids(store.load_ids(0))
            partition.past.load_words(store.load_words(0))
            orders = store.load_orders(0)
            while partition.past.load_some_orders(orders):
                pass
            assert partition.past.missing() == ""
    assert duplicates == truth(features, events, worker)[1]
    slots = {name.decode(): slot for slot, name in enumerate(partition.names)}
    assert_equal(table, slots, partition.rows, events, worker)


@given(histories(max_events=30))
@settings(max_examples=30, deadline=None)
def test_users_do_not_see_each_other(events: list[Event]) -> None:
    table = TABLES[EVERY_AGGREGATE]
    # The clock by which they are forgotten is that of all of them.
    events = [event._replace(recorded_ms=START_MS) for event in events]
    together, rows, _ = fold(table, [events])
    for user, slot in together.items():
        _, alone, _ = fold(table, [[event for event in events if event.user == user]])
        assert alone[0].tobytes() == rows[slot].tobytes()


@given(histories())
@settings(max_examples=30, deadline=None)
def test_reading_writes_nothing_and_says_the_same_twice(events: list[Event]) -> None:
    table = TABLES[EVERY_AGGREGATE]
    _, rows, _ = fold(table, [events])
    before = rows.tobytes()
    first = table.vectors(rows, START_MS + 9 * DAY_MS)
    assert np.array_equal(first, table.vectors(rows, START_MS + 9 * DAY_MS))
    assert rows.tobytes() == before


def test_the_fold_tells_whom_it_touched_and_leaves_the_others_alone() -> None:
    table = TABLES[DEFAULT_FEATURES]
    rows = table.blank(3)
    before = rows.tobytes()
    slots = {"a": 0, "b": 1, "c": 2}
    folded = table.fold(
        rows.__getitem__, columns(table, slots, [event("c"), event("a"), event("c", id=1)])
    )
    assert folded.touched.tolist() == [0, 2]
    assert folded.rows["seen"].all()
    assert rows.tobytes() == before
    assert len(folded.duplicates) == 0


def test_no_events_change_nothing() -> None:
    table = TABLES[DEFAULT_FEATURES]
    rows = table.blank(2)
    before = rows.tobytes()
    assert len(table.fold(rows.__getitem__, columns(table, {}, [])).touched) == 0
    assert rows.tobytes() == before


def test_who_never_did_anything_reads_as_absent() -> None:
    for features in (DEFAULT_FEATURES, EVERY_AGGREGATE):
        vector = TABLES[features].vectors(TABLES[features].blank(1), START_MS)[0]
        absent = {f.name: f.absent for f in features}
        assert dict(zip(absent, vector.tolist(), strict=True)) == absent


# -- one rule at a time ----------------------------------------------------------------------


def event(
    user: str = "u",
    name: str = VIEW,
    at_ms: int = 0,
    id: int = 0,  # noqa: A002 - the word everywhere
    **rest: float,
) -> Event:
    order = int(rest.get("order", 0))
    return Event(
        order=hash_text(b"order %d" % order) if order else 0,
        whole=bool(rest.get("whole", 0)),
        recorded_ms=START_MS + int(rest.get("recorded", at_ms)),
        user=user,
        topic=int(rest.get("topic", name in (ORDER, REFUND, CANCEL, UPDATE, SHIP))),
        name=name,
        time_ms=START_MS + at_ms,
        id=hash_text(b"%d" % (id or at_ms)),
        value=rest.get("value", 0.0),
        quantity=rest.get("quantity", 1.0),
        category=int(rest.get("category", 0)),
    )


def value_of(declared: Feature, events: Sequence[Event], now_ms: int, *, each: bool) -> float:
    """One feature of one user, folded one by one or at once."""
    table = FeatureTable([declared, *EVERY_AGGREGATE])
    batches = [[e] for e in events] if each else [list(events)]
    _, rows, _ = fold(table, batches)
    return float(table.vectors(rows, START_MS + now_ms)[0, 0])


def both_ways(declared: Feature, events: Sequence[Event], now_ms: int = 0) -> float:
    one, all_at_once = (value_of(declared, events, now_ms, each=e) for e in (True, False))
    assert one == all_at_once or abs(one - all_at_once) <= 1e-12 * abs(one)
    return one


COUNT = feature("x", "count", half_life="1d")
SESSIONS = feature("x", "count", of="sessions", half_life="36500d")


def test_a_repeated_message_counts_once_while_it_is_remembered() -> None:
    """However many came between: by the log's own clock, and not by the events' times."""
    hour = 3_600_000
    others = [event(at_ms=1, id=i) for i in range(1, 100)]
    near = [event(id=999), *others, event(id=999, recorded=hour)]
    far = [event(id=999), *others, event(id=999, recorded=hour + hour // 8)]
    assert round(both_ways(COUNT, near)) == 100
    assert round(both_ways(COUNT, far)) == 101


def test_a_repeat_does_not_keep_itself_in_memory() -> None:
    """What is remembered is a matter of when it counted, so a batch may be cut anywhere."""
    hour = 3_600_000
    events = [event(id=1, at_ms=1, recorded=at * hour) for at in (0, 1, 2)]
    assert round(both_ways(COUNT, events)) == 2


def test_what_has_no_id_counts_each_time() -> None:
    events = [event(at_ms=1)._replace(id=0) for _ in range(10)]
    assert round(both_ways(COUNT, events)) == 10


def test_the_same_id_on_the_other_topic_is_another_message() -> None:
    assert round(both_ways(COUNT, [event(id=1), event(id=1, name=ORDER)])) == 2


def test_a_late_event_weighs_what_it_would_have_weighed() -> None:
    newer, older = event(at_ms=DAY_MS), event(at_ms=0, id=5)
    in_time = both_ways(COUNT, [older, newer], 2 * DAY_MS)
    assert both_ways(COUNT, [newer, older], 2 * DAY_MS) == in_time == 0.5 + 0.25


def test_a_refund_takes_back() -> None:
    net = feature("x", "sum", on=(ORDER,), minus=(REFUND,), of="value", half_life="1d")
    events = [event(name=ORDER, value=80.0, id=1), event(name=REFUND, value=30.0, id=2)]
    assert both_ways(net, events) == 50.0
    assert both_ways(net, events, DAY_MS) == 25.0


def test_a_session_ends_after_half_an_hour_of_silence() -> None:
    gap = SESSION_GAP_MS
    for times, sessions in (
        ([0], 1),
        ([0, gap], 1),
        ([0, gap + 1], 2),
        ([0, gap, 2 * gap], 1),
        ([gap + 1, 0], 1),
        ([0, 2 * gap + 2, gap + 1], 2),
    ):
        clicks = [event(at_ms=t, id=i + 1) for i, t in enumerate(times)]
        assert round(both_ways(SESSIONS, clicks), 3) == sessions, times


def test_a_repeated_click_opens_no_session() -> None:
    repeated = [event(at_ms=0, id=1), event(at_ms=2 * SESSION_GAP_MS, id=1)]
    assert round(both_ways(SESSIONS, repeated), 3) == 1


def test_browsing_time_is_between_clicks_of_a_session() -> None:
    browsed = feature("x", "sum", on=(VIEW,), of="browse_seconds", half_life="36500d")
    clicks = [
        event(at_ms=0),
        event(at_ms=60_000),
        event(at_ms=90_000, name=CART),
        event(at_ms=100_000),
        event(at_ms=100_000 + 2 * SESSION_GAP_MS),
        event(at_ms=50_000, id=7),
    ]
    assert round(both_ways(browsed, clicks, 100_000 + 2 * SESSION_GAP_MS), 3) == 60 + 10


def test_a_window_is_exact_in_tiles() -> None:
    window = feature("x", "count", window="7d", tiles=7)
    events = [event(at_ms=day * DAY_MS, id=day + 1) for day in range(10)]
    assert both_ways(window, events, 9 * DAY_MS) == 7
    assert both_ways(window, events, 10 * DAY_MS - 1) == 7
    assert both_ways(window, events, 10 * DAY_MS) == 6
    assert both_ways(window, events, 15 * DAY_MS) == 1
    assert both_ways(window, events, 16 * DAY_MS) == 0
    assert both_ways(window, [events[9], events[2], events[3]], 9 * DAY_MS) == 2


def test_breadth_counts_categories_about_right() -> None:
    breadth = feature("x", "distinct", of="category", half_life="36500d")
    events = [event(at_ms=i, id=i + 1, category=hash_text(b"%d" % (i % 12))) for i in range(100)]
    assert 9 < both_ways(breadth, events) < 16


def test_a_schema_is_a_matter_of_meaning_not_of_words() -> None:
    one, *rest = EVERY_AGGREGATE
    schema = FeatureTable(EVERY_AGGREGATE).schema
    assert FeatureTable([one.model_copy(update={"weight": 0.5}), *rest]).schema == schema
    assert FeatureTable([one.model_copy(update={"absent": 9.0}), *rest]).schema != schema
    assert FeatureTable(rest).schema != schema
