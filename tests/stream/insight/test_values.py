"""A value is written as a person would say it."""

from __future__ import annotations

import pytest

from stream.features import DEFAULT_FEATURES
from stream.insight import values

ORDER = next(f for f in DEFAULT_FEATURES if f.name == "days_since_order")


@pytest.mark.parametrize(
    ("value", "text"),
    [(400.0, "never"), (399.0, "never"), (352.0, "mostly never"), (20.0, "20"), (1_381.8, "1,382")],
)
def test_never_is_said_of_what_never_was(value: float, text: str) -> None:
    assert values.reading(value, ORDER) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(400.0, "never"), (399.9, "400"), (352.0, "352"), (20.0, "20"), (1_381.8, "1,382")],
)
def test_of_one_user_never_is_said_only_if_it_never_was(value: float, text: str) -> None:
    assert values.exact(value, ORDER) == text
