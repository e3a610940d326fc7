"""What waits, what is tried, what is given up: by arithmetic, with crashes in between."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from stream.webhooks.declare import Endpoint
from stream.webhooks.letters import Letter
from stream.webhooks.queue import Attempt, Queue
from stream.webhooks.rules import Rules
from stream.webhooks.schedule import Answer
from tests.stream.webhooks.making import DAY_MS, NOW_MS, RULES, endpoint, trigger

UNTIL_MS = NOW_MS + DAY_MS
OK, FAILED, GONE = Answer(200), Answer(500), Answer(410)


class Kept:
    """What a store has of a partition, and the letters that were sent."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.own = b""
        self.letters: list[Letter] = []

    def start(self, *endpoints: Endpoint, rules: Rules = RULES) -> Queue:
        queue = Queue(endpoints, rules)
        queue.load(self.rows.items())
        queue.load(list(self.rows.items())[:1])
        queue.begin(self.own)
        assert len(queue) == len(self.rows)
        return queue

    def commit(self, queue: Queue) -> None:
        kept = queue.keep()
        if kept is not None:
            size = len(kept.rows) // max(len(kept.names), 1)
            assert size * len(kept.names) == len(kept.rows)
            for place, name in enumerate(kept.names):
                self.rows[name] = kept.rows[place * size : (place + 1) * size]
            for name in kept.gone:
                self.rows.pop(name, None)
            assert not set(kept.gone) & set(kept.names)
            self.own = self.own if kept.own is None else kept.own
            self.letters += map(json.loads, kept.letters)
        queue.committed()
        assert len(queue) == len(self.rows)

    def counts(self, name: str = "crm") -> dict[str, int]:
        found: dict[str, int] = json.loads(self.own)["counts"][name]
        return found


def test_nothing_is_tried_before_it_is_kept() -> None:
    kept = Kept()
    queue = kept.start(endpoint())
    queue.take(trigger(), UNTIL_MS, NOW_MS)
    assert queue.start(NOW_MS) == []
    kept.commit(queue)
    (attempt,) = queue.start(NOW_MS)
    assert attempt.trigger == trigger()
    assert queue.start(NOW_MS + DAY_MS) == []


def test_what_arrived_is_kept_no_longer() -> None:
    kept = Kept()
    queue = kept.start(endpoint())
    queue.take(trigger(), UNTIL_MS, NOW_MS)
    queue.take(trigger(), UNTIL_MS, NOW_MS)
    kept.commit(queue)
    (attempt,) = queue.start(NOW_MS)
    queue.answered(attempt.key, OK, NOW_MS)
    kept.commit(queue)
    assert kept.rows == {}
    assert kept.counts() == {"taken": 1, "delivered": 1}


def test_a_schedule_outlives_a_crash_at_every_step() -> None:
    kept, now_ms, tried = Kept(), NOW_MS, []
    first = kept.start(endpoint())
    first.take(trigger(), UNTIL_MS, NOW_MS)
    kept.commit(first)
    while kept.rows:
        queue = kept.start(endpoint())
        attempts = queue.start(now_ms)
        if not attempts:
            now_ms += 500
            continue
        # Killed while it was under way, so it is tried again, and is still the same.
        (again,) = kept.start(endpoint()).start(now_ms)
        assert again == attempts[0]
        tried.append(now_ms - NOW_MS)
        queue.answered(again.key, FAILED, now_ms)
        kept.commit(queue)
    waits = [after - before for before, after in pairwise(tried)]
    assert len(tried) == 4
    for wait_ms, least_ms in zip(waits, RULES.retries_ms, strict=True):
        assert least_ms <= wait_ms <= least_ms * 1.2 + 500
    (letter,) = kept.letters
    assert (letter["reason"], letter["attempts"], letter["detail"]) == ("exhausted", 4, "HTTP 500")
    assert letter["trigger"] == trigger()
    assert kept.counts() == {"taken": 1, "exhausted": 1}


def test_a_trigger_is_not_sent_later_than_it_is_valid() -> None:
    kept = Kept()
    queue = kept.start(endpoint())
    queue.take(trigger(1), NOW_MS + 4_000, NOW_MS)
    queue.take(trigger(2), NOW_MS - 1, NOW_MS)
    kept.commit(queue)
    (attempt,) = queue.start(NOW_MS)
    queue.answered(attempt.key, FAILED, NOW_MS)
    assert queue.start(NOW_MS + DAY_MS) == []
    kept.commit(queue)
    assert [letter["reason"] for letter in kept.letters] == ["expired", "expired"]
    assert kept.counts() == {"taken": 2, "expired": 2}


def test_an_endpoint_that_is_gone_gets_nothing_until_somebody_asks() -> None:
    kept = Kept()
    queue = kept.start(endpoint())
    for number in range(4):
        queue.take(trigger(number), UNTIL_MS, NOW_MS)
    kept.commit(queue)
    first, second, *_ = queue.start(NOW_MS)
    queue.answered(first.key, GONE, NOW_MS)
    queue.give_up(NOW_MS)
    kept.commit(queue)
    # Those under way end first.
    assert len(kept.letters) == 1
    queue.answered(second.key, FAILED, NOW_MS)
    queue.give_up(NOW_MS)
    kept.commit(queue)
    queue = kept.start(endpoint())
    queue.give_up(NOW_MS)
    queue.take(trigger(9), UNTIL_MS, NOW_MS)
    kept.commit(queue)
    assert kept.rows == {}
    assert [letter["reason"] for letter in kept.letters] == ["gone"] * 5
    queue.replay(kept.letters[0], UNTIL_MS, NOW_MS)
    kept.commit(queue)
    (again,) = queue.start(NOW_MS)
    assert again.trigger == kept.letters[0]["trigger"]
    queue.answered(again.key, GONE, NOW_MS)
    kept.commit(queue)
    ids = [letter["id"] for letter in kept.letters]
    assert len(set(ids)) == len(ids)
    assert kept.counts() == {"taken": 6, "gone": 6}


def test_another_address_is_tried_whatever_the_one_before_said() -> None:
    kept = Kept()
    queue = kept.start(endpoint())
    queue.take(trigger(1), UNTIL_MS, NOW_MS)
    kept.commit(queue)
    queue.answered(queue.start(NOW_MS)[0].key, GONE, NOW_MS)
    kept.commit(queue)
    moved = kept.start(endpoint(url="https://crm.example/new"))
    moved.give_up(NOW_MS)
    moved.take(trigger(2), UNTIL_MS, NOW_MS)
    kept.commit(moved)
    assert len(moved.start(NOW_MS)) == 1


def test_what_waits_for_an_endpoint_that_is_declared_no_more_is_parked() -> None:
    kept = Kept()
    queue = kept.start(endpoint("crm"), endpoint("mail"))
    queue.take(trigger(), UNTIL_MS, NOW_MS)
    kept.commit(queue)
    queue = kept.start(endpoint("mail"))
    queue.give_up(NOW_MS)
    kept.commit(queue)
    assert [letter["reason"] for letter in kept.letters] == ["undeclared"]
    assert [one.endpoint.name for one in queue.start(NOW_MS)] == ["mail"]


def test_as_much_waits_as_may_and_the_rest_is_parked() -> None:
    kept = Kept()
    queue = kept.start(endpoint(), rules=RULES._replace(waiting=3))
    for number in range(5):
        queue.take(trigger(number), UNTIL_MS, NOW_MS)
    kept.commit(queue)
    assert len(kept.rows) == 3
    assert kept.counts() == {"taken": 5, "full": 2}


def test_a_dead_endpoint_is_probed_and_does_not_hold_another_up() -> None:
    kept = Kept()
    queue = kept.start(endpoint("crm", at_once=4), endpoint("mail"))
    for number in range(8):
        queue.take(trigger(number), UNTIL_MS, NOW_MS)
    kept.commit(queue)
    attempts = queue.start(NOW_MS)
    assert Counter(one.endpoint.name for one in attempts) == {"crm": 4, "mail": 8}
    for attempt in attempts:
        answer = OK if attempt.endpoint.name == "mail" else FAILED
        queue.answered(attempt.key, answer, NOW_MS)
    assert queue.open_circuits() == {"crm": True, "mail": False}
    assert queue.start(NOW_MS) == []
    (probe,) = queue.start(NOW_MS + 5_000)
    assert queue.start(NOW_MS + 60_000) == []
    queue.answered(probe.key, OK, NOW_MS + 6_000)
    assert len(queue.start(NOW_MS + 60_000)) == 4
    assert queue.waiting() == {"crm": 7, "mail": 0}


def test_a_rate_is_shared_by_the_partitions() -> None:
    kept, began = Kept(), 0
    queue = kept.start(endpoint(per_second=20), rules=RULES._replace(share=0.25))
    for number in range(100):
        queue.take(trigger(number), UNTIL_MS, NOW_MS)
    kept.commit(queue)
    for step in range(101):
        for attempt in queue.start(NOW_MS + 40 * step):
            began += 1
            queue.answered(attempt.key, OK, NOW_MS + 40 * step)
    assert began == 20


def test_a_user_who_is_dropped_gets_nothing_even_of_what_waits() -> None:
    kept = Kept()
    queue = kept.start(endpoint())
    queue.take(trigger(1), UNTIL_MS, NOW_MS)
    queue.take(trigger(2), UNTIL_MS, NOW_MS)
    kept.commit(queue)
    queue.take(trigger(3, user="u1"), UNTIL_MS, NOW_MS)
    queue.suppress("u1")
    kept.commit(queue)
    queue = kept.start(endpoint())
    queue.take(trigger(4, user="u1"), UNTIL_MS, NOW_MS)
    kept.commit(queue)
    (attempt,) = queue.start(NOW_MS)
    assert attempt.trigger["user"] == "u2"
    assert kept.counts() == {"taken": 4, "dropped": 3}
    assert not any(b"u1" in name + row for name, row in kept.rows.items())
    queue.allow("u1")
    queue.take(trigger(5, user="u1"), UNTIL_MS, NOW_MS)
    kept.commit(queue)
    assert [one.trigger["user"] for one in queue.start(NOW_MS)] == ["u1"]
    assert len(kept.rows) == 2


def test_what_is_dropped_under_way_does_not_hold_its_place() -> None:
    kept = Kept()
    queue = kept.start(endpoint(at_once=1))
    queue.take(trigger(1), UNTIL_MS, NOW_MS)
    kept.commit(queue)
    (attempt,) = queue.start(NOW_MS)
    queue.suppress("u1")
    queue.take(trigger(2), UNTIL_MS, NOW_MS)
    kept.commit(queue)
    assert queue.start(NOW_MS) == []
    queue.answered(attempt.key, FAILED, NOW_MS)
    assert len(queue.start(NOW_MS)) == 1
    kept.commit(queue)
    assert len(kept.rows) == 2


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["take", "crash", "wait", "answer", "answer", "drop", "replay"]),
            st.integers(0, 9),
            st.sampled_from([OK, FAILED, FAILED, GONE, Answer(429, "60"), Answer(None)]),
        ),
        max_size=60,
    )
)
def test_whatever_happens_each_delivery_has_one_end(
    steps: list[tuple[str, int, Answer]],
) -> None:
    kept, now_ms = Kept(), NOW_MS
    endpoints = (endpoint("crm", at_once=3), endpoint("mail", campaigns=["win-back"]))
    queue = kept.start(*endpoints)
    under_way: list[Attempt] = []
    for what, number, answer in steps:
        match what:
            case "take":
                queue.take(trigger(number), now_ms + 10 * 60_000, now_ms)
            case "crash":
                queue, under_way = kept.start(*endpoints), []
            case "wait":
                now_ms += 10_000 * number
            case "answer" if under_way:
                attempt = under_way.pop(number % len(under_way))
                queue.answered(attempt.key, answer, now_ms)
            case "drop":
                (queue.suppress if number % 2 else queue.allow)(f"u{number // 2}")
            case "replay" if kept.letters:
                queue.replay(kept.letters[number % len(kept.letters)], UNTIL_MS, now_ms)
        queue.give_up(now_ms)
        under_way += queue.start(now_ms)
        if number % 3:
            kept.commit(queue)
    kept.commit(queue)
    waiting = Counter(
        json.loads(row)[0] for name, row in kept.rows.items() if not name.startswith(b"/")
    )
    for name, counts in queue.counts.items():
        ends = {key: count for key, count in counts.items() if key != "taken"}
        assert counts["taken"] == sum(ends.values()) + waiting[name]
        assert queue.waiting()[name] == waiting[name]
    ids = [letter["id"] for letter in kept.letters]
    taken = [number for what, number, _ in steps if what == "take"]
    # A trigger that is told once more after its delivery has ended is another one.
    again = len(taken) - len(set(taken)) + sum(what in ("replay", "crash") for what, *_ in steps)
    assert len(ids) - len(set(ids)) <= again


def test_rows_of_one_commit_are_of_one_length() -> None:
    kept = Kept()
    queue = kept.start(endpoint())
    for number, user in enumerate(["a", "a much longer name", "ü"]):
        queue.take(trigger(number, user=user), UNTIL_MS, NOW_MS)
    kept.commit(queue)
    assert {len(row) for row in kept.rows.values()} == {max(map(len, kept.rows.values()))}
    assert len(kept.start(endpoint()).start(NOW_MS)) == 3


def test_an_answer_nobody_waits_for_is_passed_over() -> None:
    queue = Kept().start(endpoint())
    queue.answered("crm/unknown", OK, NOW_MS)
    assert queue.keep() is None
    assert queue.waiting() == {"crm": 0}
