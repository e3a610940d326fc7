"""What became of messages is told once, and when it is true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from consumers.lag import LagMeter
from stream.metrics import REGISTRY
from stream.store.state import Answer
from tests.consumers.scene import (
    INPUTS,
    PARTITIONS,
    SETTLED,
    Scene,
    assert_true,
    events,
    write_marked,
)
from tests.fakes import Trouble


def told() -> Counter[tuple[str, str]]:
    """What metrics have counted of messages and changes, by name and labels."""
    found: Counter[tuple[str, str]] = Counter()
    for family in REGISTRY.collect():
        for sample in family.samples:
            if sample.name in COUNTED:
                found[sample.name, str(sorted(sample.labels.items()))] += int(sample.value)
    return found


COUNTED = {
    "segstream_events_total",
    "segstream_rejects_total",
    "segstream_changes_total",
    "segstream_segment_changes_total",
}


@pytest.mark.parametrize("answer", [Answer.FENCED, Answer.DIVERGED])
def test_what_is_made_again_is_counted_once(live: Scene, answer: Answer) -> None:
    before = told()
    live.store.trouble.extend([lambda: None, answer] * 12)
    assert_true(live.run(idle=SETTLED))
    assert sum(one is answer for _, _, one in live.store.commits) > 8
    gained = told() - before
    truth = sum((Counter(vars(live.position(n).counts)) for n in range(PARTITIONS)), Counter())
    sums: Counter[str] = Counter()
    for (name, labels), count in gained.items():
        sums[name] += count
        if name == "segstream_events_total":
            result = next(result for result in truth if repr(result) in labels)
            assert count == truth[result], result
    assert sums["segstream_rejects_total"] == truth["rejected"] > 0
    records = [change for n in range(PARTITIONS) for change in live.changes(n)]
    assert sums["segstream_changes_total"] == len(records) > 0
    moved = [record for record in records if record["from"] is not None]
    assert sums["segstream_segment_changes_total"] == len(moved)


@pytest.mark.parametrize("trouble", [Answer.FULL, "down"])
def test_while_a_commit_waits_the_lag_grows(live: Scene, trouble: Trouble) -> None:
    live.store.trouble.extend([trouble] * 10_000)
    lags: list[tuple[float, float]] = []

    def watch() -> None:
        lag = REGISTRY.get_sample_value("segstream_lag_seconds", {"partition": "0"})
        if lag is not None:
            lags.append((live.clock.seconds, lag))

    live.run(watch, until=lambda: len(lags) > 80, idle=10_000)
    (began, first), (ended, last) = lags[0], lags[-1]
    assert last - first == pytest.approx(ended - began, abs=0.05)
    assert last - first > 0.5


def test_what_waits_for_a_mark_of_the_other_topic_was_read_and_is_not_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, mode="watermark")
    write_marked(scene, events(2))
    clicks = len(scene.consumer.log[INPUTS[0], 0])
    scene.consumer.log[INPUTS[1], 0] = []
    told: dict[int, Sequence[int]] = {}

    def keep(_: LagMeter, number: int, offsets: Sequence[int]) -> None:
        told[number] = offsets

    monkeypatch.setattr(LagMeter, "read", keep)
    scene.run()
    assert scene.position(0).offsets == [0, 0]
    assert told[0] == [clicks, 0]
