"""Effects as Prometheus gets them: of all partitions together, and of the declaration in force alone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stream.campaigns.keep import Own
from stream.campaigns.windows import Sums
from stream.config import Settings
from stream.metrics import REGISTRY
from stream.wiring import campaign_effects
from tests.stream.campaigns.making import campaign

GOAL: dict[str, Any] = {"holdout": 0.5, "goal": {"within": "7d"}}
HELD = Sums(1_000, 50, 600, 900.0, 9_000.0)
SENT = Sums(1_000, 120, 700, 2_000.0, 20_000.0)


class Store:
    """What the role keeps of three partitions, of which one has not begun."""

    def __init__(self, *owns: Own) -> None:
        self._owns = [msgspec.json.encode(own) for own in owns]

    def own(self, number: int) -> bytes:
        return self._owns[number] if number < len(self._owns) else b""


def effect(arm: str, what: str, value: str, name: str = "win-back") -> float | None:
    labels = {"campaign": name, "arm": arm, "what": what, "value": value}
    return REGISTRY.get_sample_value("segstream_campaign_effect", labels)


def evidence(name: str) -> float:
    labels = {"campaign": name}
    return known(REGISTRY.get_sample_value("segstream_campaign_ratio_evidence", labels))


def known(value: float | None) -> float:
    assert value is not None
    return value


def test_the_effect_of_all_partitions_is_told() -> None:
    one, before = campaign(**GOAL), campaign(**GOAL, cooldown="1d")
    few = campaign("small", **GOAL)
    settings = Settings().model_copy(update={"campaigns": (one, few)})
    texts = [x.model_dump_json(by_alias=True, exclude_defaults=True) for x in (before, one, few)]
    sums = {
        one.name: {
            one.version: {"holdout": HELD, "sent": SENT},
            before.version: {"holdout": SENT, "sent": HELD},
        },
        few.name: {few.version: {"holdout": Sums(2, 1), "sent": Sums(40, 1)}},
    }
    store: Any = Store(*[Own(texts, sums=sums)] * 2)
    campaign_effects.tell(settings, store)
    low, high = (
        known(effect("sent", "conversion", "low")),
        known(effect("sent", "conversion", "high")),
    )
    assert known(effect("sent", "conversion", "difference")) == pytest.approx(0.07)
    assert 0 < low < 0.07 < high
    assert known(effect("sent", "revenue", "difference")) == pytest.approx(1.1)
    assert effect("sent", "conversion", "low", "small") is None
    assert evidence("win-back") < 1
    assert evidence("small") > 1_000
