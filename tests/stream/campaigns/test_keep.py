"""What is kept of campaigns is read as it was written, or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from stream.campaigns.declare import Limits
from stream.campaigns.keep import HEAD, Keeper


def test_rows_of_another_version_are_refused_with_what_to_do() -> None:
    head = np.zeros(1, HEAD)
    assert Keeper((), Limits(), rows={b"u": head.tobytes()}).rows == 1
    head["bought"] = 1
    shorter = head.tobytes() + bytes(41)
    with pytest.raises(
        ValueError, match=r"another version of segstream; use another store\.namespace"
    ):
        Keeper((), Limits(), rows={b"u": shorter})
