"""How the demo's clock is cut; the demo itself runs in `tests/integration/test_demo.py`."""

from __future__ import annotations

import pytest

from stream.cli.demo import MARKS_A_SECOND, SHOP_DAYS, mark_hours


@pytest.mark.parametrize(("seconds", "hours"), [(60, 6), (40, 12), (30, 12), (20, 24), (5, 24)])
def test_a_shorter_demo_has_fewer_marks(seconds: float, hours: int) -> None:
    assert mark_hours(seconds) == hours
    assert hours == 24 or SHOP_DAYS * 24 / hours <= MARKS_A_SECOND * seconds
