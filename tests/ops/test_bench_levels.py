"""`ops/bench/levels_cost`: both owners are swept, and only one of them has levels."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ops.bench import shops
from ops.bench.levels_cost import cost, section
from ops.bench.shops import of_demo


def test_what_levels_cost_is_told_of_a_shop_that_has_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shops, "DEMO_USERS", 600)
    found = cost(of_demo(11), 3)
    assert found["users"] > 100
    assert "purchase_stage" in found["levels"]
    assert min(found["sweep_ms"], found["first_times"]) > 0
    assert found["scores_of_all"] == pytest.approx(found["scores"] / 60)
    told = section({"sweeps": 3, "shops": [found]}, datetime(2026, 11, 26, tzinfo=UTC))
    assert f"| {found['users']:,} |" in told
    assert "3 sweeps" in told
