"""The simulated shop is the same every time, lively, and honest about what it sent."""

from __future__ import annotations

import json
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from consumers.decode import Decoder
from producers.replay import Progress
from producers.traffic import (
    EVENTS,
    SHOP_START_MS,
    EventBatch,
    Shoppers,
    bench_events,
    encode,
    run_shop,
    run_shop_at_rate,
    simulate,
)
from stream.config import Clock
from stream.events import ORDER_COMPLETED, ORDER_REFUNDED
from stream.features import FeatureTable
from stream.units import DAY_MS, milliseconds
from tests.fakes import SIGNER
from tests.producers.test_replay import WATERMARK, Hand, Recorder

USERS, DAYS = 4_000, 42


@pytest.fixture(scope="module")
def life() -> list[EventBatch]:
    return list(simulate(7, USERS, DAYS))


def column(life: list[EventBatch], name: str) -> Any:
    return np.concatenate([getattr(batch, name) for batch in life])


# -- the simulation ----------------------------------------------------------------------------


def test_a_seed_decides_everything(life: list[EventBatch]) -> None:
    again = list(simulate(7, USERS, DAYS))
    for name in ("time_ms", "user", "event", "category", "quantity", "money", "session", "number"):
        np.testing.assert_array_equal(column(life, name), column(again, name))
    assert len(column(list(simulate(8, USERS, DAYS)), "user")) != len(column(life, "user"))


def test_events_come_in_order_a_day_a_batch(life: list[EventBatch]) -> None:
    assert len(life) == DAYS
    for day, batch in enumerate(life):
        start = SHOP_START_MS + day * DAY_MS
        assert (batch.time_ms >= start).all()
        assert (batch.time_ms < start + DAY_MS).all()
        assert (np.diff(batch.time_ms) >= 0).all()
    assert len(np.unique(column(life, "number"))) == len(column(life, "number"))


def test_everyone_comes_and_some_do_not_come_back(life: list[EventBatch]) -> None:
    user, at = column(life, "user"), column(life, "time_ms")
    assert len(np.unique(user)) == USERS
    last = np.zeros(USERS, np.int64)
    np.maximum.at(last, user, at)
    silent = (SHOP_START_MS + DAYS * DAY_MS - last) > 14 * DAY_MS
    assert 0.2 < silent.mean() < 0.33

    order = np.lexsort((at, user))
    who, gaps = user[order][1:], np.diff(at[order])
    back = who[(gaps > 14 * DAY_MS) & (np.diff(user[order]) == 0)]
    assert len(np.unique(back)) > 0.1 * USERS


def test_types_differ_as_a_marketer_would_expect(life: list[EventBatch]) -> None:
    kinds = Shoppers(np.random.default_rng([7, USERS, DAYS]), USERS, DAYS).type
    ordered = column(life, "event") == EVENTS.index(ORDER_COMPLETED)
    who = kinds[column(life, "user")[ordered]]
    number = np.bincount(who, minlength=5) / np.bincount(kinds, minlength=5)
    spent = np.bincount(who, column(life, "money")[ordered], 5) / np.bincount(kinds, minlength=5)
    regular, bargain, _, window, big = number
    assert regular > 2 * bargain > 2 * window
    assert spent[4] == spent.max() > 2 * spent[0]
    assert big > bargain


def test_the_week_the_evening_and_the_sales_show(life: list[EventBatch]) -> None:
    hours = np.bincount(column(life, "time_ms") // 3_600_000 % 24, minlength=24)
    assert hours.argmax() in range(18, 23)
    assert hours.max() > 5 * hours.min()
    sizes = np.array([len(batch) for batch in life])
    sales = Shoppers(np.random.default_rng([7, USERS, DAYS]), USERS, DAYS).sales
    assert len(sales) == 2
    for first, end in sales.tolist():
        assert sizes[first:end].min() > 1.3 * np.median(sizes)


def test_refunds_follow_orders_and_give_back_no_more(life: list[EventBatch]) -> None:
    event, money, user = (column(life, name) for name in ("event", "money", "user"))
    bought, refunded = (event == EVENTS.index(name) for name in (ORDER_COMPLETED, ORDER_REFUNDED))
    assert refunded.any()
    spent = np.bincount(user[bought], money[bought], USERS)
    given = np.bincount(user[refunded], money[refunded], USERS)
    assert (given <= spent + 1e-6).all()
    assert (column(life, "quantity")[bought] >= 1).all()
    assert (column(life, "quantity")[refunded] >= 1).all()


@pytest.mark.parametrize(("users", "days"), [(1, 1), (50, 2), (200, 10)])
def test_small_shops_work_too(users: int, days: int) -> None:
    life = list(simulate(1, users, days))
    assert len(life) == days
    assert len(np.unique(column(life, "user"))) == users


# -- on the topics -----------------------------------------------------------------------------


def decoded(recorder: Recorder) -> tuple[Any, int]:
    """What a worker makes of the records: counts, and duplicates by message id."""
    decoder = Decoder(FeatureTable(WATERMARK.features), WATERMARK.worker, SIGNER)
    total: Any = None
    doubled = 0
    for topic, name in enumerate(WATERMARK.topics.inputs):
        records = [r for r in recorder.records if r.topic == name]
        messages = [
            SimpleNamespace(
                topic=lambda r=r: r.topic,
                partition=lambda r=r: r.partition,
                value=lambda r=r: r.value,
                timestamp=lambda r=r: (1, r.timestamp),
                offset=lambda: 0,
            )
            for r in records
        ]
        batch = decoder.decode(messages).batch(topic, 0, len(messages))
        doubled += len(batch.id) - len(np.unique(batch.id))
        if total is None:
            total = batch.counts
        else:
            total.add(batch.counts)
    return total, doubled


def test_a_worker_finds_exactly_what_the_report_says() -> None:
    recorder = Recorder()
    report = run_shop(
        WATERMARK, SIGNER, seed=3, users=400, days=14, seconds=None, faults=0.05,
        make_producer=recorder.make,
    )  # fmt: skip
    assert min(report.duplicates, report.late, report.malformed) > 10
    counts, doubled = decoded(recorder)
    assert counts.rejected == report.malformed
    assert counts.late == report.late
    assert doubled == report.duplicates
    assert counts.applied == report.events + report.duplicates
    assert counts.ignored == 0
    assert counts.marks == report.marks * 4
    assert counts.consumed == report.records
    assert report.marks == 14 * 24 + 1
    assert report.users == 400


def test_faults_leave_the_events_alone() -> None:
    plain, faulty = Recorder(), Recorder()
    for recorder, faults in ((plain, 0.0), (faulty, 0.1)):
        run_shop(
            WATERMARK, SIGNER, seed=3, users=100, days=3, seconds=None, faults=faults,
            make_producer=recorder.make, clock=Hand().clock,
        )  # fmt: skip
    expected = [r.value for r in plain.records]
    rest = iter([r.value for r in faulty.records])
    assert all(value in rest for value in expected)  # in this order, others between
    assert len(faulty.records) > len(plain.records)


def test_the_shop_keeps_to_its_time_and_stops_when_asked() -> None:
    hand, recorder, told = Hand(), Recorder(), list[Progress]()
    report = run_shop(
        WATERMARK, SIGNER, seed=1, users=300, days=7, seconds=10, progress=told.append,
        make_producer=recorder.make, clock=hand.clock,
    )  # fmt: skip
    assert report.seconds == pytest.approx(10, abs=0.3)
    assert report.complete
    assert told

    hand, recorder = Hand(), Recorder()
    report = run_shop(
        WATERMARK, SIGNER, seed=1, users=300, days=7, seconds=10, stop=lambda: hand.at > 5,
        make_producer=recorder.make, clock=hand.clock,
    )  # fmt: skip
    assert report.seconds == pytest.approx(5, abs=0.3)
    assert not report.complete
    assert json.loads(recorder.records[-1].value)["type"] == "segstream-mark"


def test_by_the_wall_clock_every_event_happens_when_it_is_sent() -> None:
    hand, recorder = Hand(), Recorder()
    live = WATERMARK.model_copy(update={"clock": Clock(mode="live")})
    begun = hand.clock.now()
    report = run_shop_at_rate(
        live, None, rate=200, seed=3, users=300, days=7,
        make_producer=recorder.make, clock=hand.clock,
    )  # fmt: skip
    assert report.complete
    assert report.marks == 0
    assert len(recorder.records) == report.events > 500
    assert report.events / report.seconds == pytest.approx(200, rel=0.02)
    told = [json.loads(record.value)["timestamp"] for record in recorder.records]
    times = [milliseconds(datetime.fromisoformat(text)) for text in told]
    assert times == [record.timestamp for record in recorder.records]
    assert times == sorted(times)
    assert times[0] == pytest.approx(begun * 1_000, abs=10)
    assert times[-1] == pytest.approx((begun + report.seconds) * 1_000, abs=100)
    counts, doubled = decoded(recorder)
    assert (counts.applied, doubled) == (report.events, 0)


def test_by_marks_the_days_are_those_up_to_today_at_the_rate_by_the_mean() -> None:
    hand, recorder = Hand(), Recorder()
    report = run_shop_at_rate(
        WATERMARK, SIGNER, rate=100, seed=3, users=300, days=7,
        make_producer=recorder.make, clock=hand.clock,
    )  # fmt: skip
    now_ms = round(hand.clock.now() * 1_000)
    assert report.events / report.seconds == pytest.approx(100, rel=0.05)
    assert report.first_event_ms is not None
    assert report.last_event_ms is not None
    assert 6 * DAY_MS < now_ms - report.first_event_ms < 8 * DAY_MS
    assert 0 < now_ms - report.last_event_ms < 2 * DAY_MS


def test_messages_are_tracks_with_stable_ids(life: list[EventBatch]) -> None:
    outgoing = encode(life[20], 7)
    assert len(outgoing) == len(life[20])
    for out, at in zip(outgoing, life[20].time_ms.tolist(), strict=True):
        message = json.loads(out.value)
        assert message["type"] == "track"
        assert message["userId"].encode() == out.key
        assert out.time_ms == at
        bought = message["event"] in (ORDER_COMPLETED, ORDER_REFUNDED)
        assert out.topic == bought
        assert ("revenue" in message["properties"]) == bought


# -- the benchmark -----------------------------------------------------------------------------


@pytest.mark.slow
def test_bench_events_are_of_the_declared_make() -> None:
    n = 60_000
    made = list(bench_events(n, 5_000, 1, start_ms=SHOP_START_MS))
    assert made == list(bench_events(n, 5_000, 1, start_ms=SHOP_START_MS))
    assert len(made) == n
    sizes = [len(value) for _, value, _ in made]
    assert 235 < np.mean(sizes) < 255
    names = [json.loads(value)["event"] for _, value, _ in made]
    assert 0.04 < names.count("Product Added") / n < 0.06
    assert 0.02 < names.count("Order Completed") / n < 0.04
    assert all(
        topic == (name == "Order Completed")
        for (_, _, topic), name in zip(made, names, strict=True)
    )
    counts = np.unique([key for key, _, _ in made], return_counts=True)[1]
    assert counts.max() > 50 * np.median(counts)  # few shoppers do much
    recorder = Recorder()
    recorder.records = [
        SimpleNamespace(
            topic=("clickstream", "purchases")[topic], value=value, timestamp=SHOP_START_MS
        )
        for _, value, topic in made
    ]
    counted, doubled = decoded(recorder)
    assert counted.applied == n
    assert doubled == 0
