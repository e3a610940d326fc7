"""How the demo's clock is cut and its end cut short; it runs in `tests/integration/test_demo.py`."""

from __future__ import annotations

import signal

import pytest

from stream.wiring.demo import MARKS_A_SECOND, SHOP_DAYS, ending_at_once, mark_hours


@pytest.mark.parametrize(("seconds", "hours"), [(60, 6), (40, 12), (30, 12), (20, 24), (5, 24)])
def test_a_shorter_demo_has_fewer_marks(seconds: float, hours: int) -> None:
    assert mark_hours(seconds) == hours
    assert hours == 24 or SHOP_DAYS * 24 / hours <= MARKS_A_SECOND * seconds


def test_an_audit_ends_at_once_and_what_follows_is_not_interrupted() -> None:
    def asked(number: int, frame: object) -> None:
        raise AssertionError(f"{number} at {frame}")

    usual = signal.signal(signal.SIGINT, asked)
    try:
        with ending_at_once():
            pass
        assert signal.getsignal(signal.SIGINT) is asked
        with pytest.raises(KeyboardInterrupt), ending_at_once():
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, usual)
