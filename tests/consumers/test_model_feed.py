"""Following the trainer's model."""

from __future__ import annotations

import json

import pytest

from stream.store.state import StoreUnavailableError
from tests.consumers.scene import (
    PARTITIONS,
    Scene,
    assert_true,
)


def test_a_trainers_state_that_cannot_be_fetched_is_fetched_later(
    live: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [0]
    model = live.store.model

    def flaky() -> tuple[int, bytes] | None:
        calls[0] += 1
        if 3 < calls[0] < 9:
            raise StoreUnavailableError("away")
        return model()

    live.run(until=lambda: bool(live.models))
    monkeypatch.setattr(live.store, "model", flaky)
    assert live.trainer is not None
    live.trainer = None
    assert_true(live.run())


def test_a_model_of_another_feature_table_is_not_adopted(live: Scene) -> None:
    live.run(until=lambda: bool(live.models))
    found = live.store.model()
    assert found is not None
    data = json.loads(found[1])
    data["model"]["geometry"]["schema"] = "another"
    live.store.lead("another")
    live.store.put_model("another", json.dumps(data).encode(), found[0] + 1)
    live.trainer = None
    live.run()
    assert_true(live)
    assert not any(live.changes(n) for n in range(PARTITIONS))
