"""Waiting ends when the pipeline has taken in what there is, and not before."""

from __future__ import annotations

import pytest

from stream.insight.waiting import CaughtUp, wait_until_caught_up
from stream.store.state import Position

Answers = list[list[Position | None]]


class Answering:
    """A store that gives one answer after another, and stays with the last."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.asked = 0

    def position(self, number: int) -> Position | None:
        found = self.answers[min(self.asked // 2, len(self.answers) - 1)][number]
        self.asked += 1
        return found


def at(first: int, second: int, mark_ms: int = 0) -> Position:
    return Position([first, second], "schema", mark_ms=mark_ms)


def wait(answers: Answers, mark_ms: int = 0, patience: int = 100) -> tuple[bool, list[CaughtUp]]:
    told: list[CaughtUp] = []
    clock = iter(range(100_000))
    found = wait_until_caught_up(
        Answering(answers), [[3, 4], [0, 2]], mark_ms, told.append,
        lambda: len(told) == patience, lambda _: None, lambda: float(next(clock)),
    )  # fmt: skip
    return found, told


def test_it_ends_when_every_partition_has_read_to_the_end() -> None:
    found, told = wait([[None, None], [at(3, 4), at(0, 1)], [at(3, 4), at(0, 2)]])
    assert found
    assert [(one.done, one.total) for one in told] == [(0, 9), (8, 9), (9, 9)]


def test_records_that_came_later_are_no_progress_of_these() -> None:
    found, told = wait([[at(90, 90), at(0, 0)]], patience=3)
    assert not found
    assert told[-1].done == 7


@pytest.mark.parametrize(("marks", "expected"), [((50, 50), True), ((50, 49), False)])
def test_with_marks_the_last_one_has_to_be_completed(
    marks: tuple[int, int], expected: bool
) -> None:
    # What stands behind the last mark waits for the next one, and is not waited for.
    found, _ = wait([[at(2, 2, marks[0]), at(0, 1, marks[1])]], mark_ms=50, patience=3)
    assert found == expected


def test_silence_is_told_and_a_wish_to_stop_is_heard() -> None:
    found, told = wait([[at(1, 1), None]], patience=30)
    assert not found
    assert not told[0].remark
    assert "segstream run activity" in told[-1].remark
