"""Ids of the latest records are known, and no more of them than said."""

from __future__ import annotations

from consumers.change_log import LatestIds


def test_the_oldest_are_forgotten() -> None:
    ids = LatestIds(3)
    for number in range(5):
        ids.add(str(number))
        ids.add(str(number))
    assert list(ids) == ["2", "3", "4"]
    assert len(ids) == 3
    assert "4" in ids
    assert "1" not in ids
    ids.discard("3")
    ids.discard("nobody")
    assert list(ids) == ["2", "4"]
