"""What is told of crossings is held to the rules of populations, and so is who is where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from consumers.audit import crossings as checking
from consumers.audit.crossings import Crossings
from ops.bench.shops import of_made
from ops.bench.shops_made import JUDGED
from stream.events import Cause
from stream.rehearsal import Rehearsal
from tests.consumers.audit.world import failed, truthful

SHOP = next(one for one in JUDGED if one.name == "much sent back")


@lru_cache(maxsize=1)
def played() -> tuple[Crossings, Rehearsal, list[dict[str, Any]], int]:
    """A shop in which customers come and lapse, with everything that was told of it."""
    shop = of_made(replace(SHOP.scaled(0.15), days=300), 5)
    rehearsal, told, at_ms = Rehearsal(shop.settings), [], 0
    for at_ms in shop.play(rehearsal, lambda _: None):
        told += [dict(change) for change in rehearsal.mark(at_ms).changes]
    model = rehearsal.state.model
    assert model is not None
    return Crossings(model, rehearsal.table), rehearsal, told, at_ms


def crossing(*, yes: bool) -> dict[str, Any]:
    """One of the changes, between two populations or within one."""
    crossings, _, told, _ = played()
    of = {number: one.population for number, one in crossings.model.by_id.items()}
    return next(
        dict(change)
        for change in told
        if crossings.knows(change)
        and (of[change["from"]] != of[change["to"]]) == yes
        and (yes or change["margin"] is not None)
    )


def test_a_truthful_shop_has_no_fault() -> None:
    crossings, rehearsal, told, at_ms = played()
    known = [change for change in told if crossings.knows(change)]
    assert {crossings.fault_of(change) for change in known} == {""}
    assert sum(change["margin"] is None for change in known) > 20
    assert sum(change["margin"] is not None for change in known) > 20
    assert crossings.misplaced(rehearsal.partition.rows, at_ms).tolist() == []


@pytest.mark.parametrize(
    ("yes", "changed", "words"),
    [
        (True, {"margin": 0.3}, "by a margin, not by a rule"),
        (True, {"why": []}, "not those of a rule"),
        (True, {"why": [{"feature": "views_7d", "value": 1.0, "contribution": None}]}, "not those"),
        (
            True,
            {"why": [{"feature": "orders_total", "value": 1.0, "contribution": 0.1}]},
            "not those",
        ),
        (False, {"margin": None}, "has no margin"),
        (False, {"why": [{"feature": "views_7d", "value": 1.0, "contribution": None}]}, "a share"),
    ],
)
def test_a_crossing_that_is_told_as_something_else_is_named(
    yes: bool, changed: dict[str, Any], words: str
) -> None:
    crossings = played()[0]
    assert crossings.fault_of(crossing(yes=yes)) == ""
    assert words in crossings.fault_of(crossing(yes=yes) | changed)


def test_who_leaves_a_retired_segment_needs_no_margin() -> None:
    change = crossing(yes=False) | {"margin": None, "cause": Cause.SEGMENT_RETIRED, "why": []}
    assert played()[0].fault_of(change) == ""


def test_what_the_model_does_not_know_is_not_judged() -> None:
    crossings, change = played()[0], crossing(yes=True)
    assert not crossings.knows(change | {"from": None})
    assert not crossings.knows(change | {"from": 9_999})
    assert not crossings.knows(change | {"from": change["to"]})
    assert not crossings.knows(change | {"model": "0.0"}), "the rules may have been others"


def test_who_is_in_a_segment_of_another_population_is_named() -> None:
    crossings, rehearsal, _, at_ms = played()
    rows = rehearsal.partition.rows.copy()
    place = int(np.flatnonzero(rows["segment"] > 0)[0])
    inside = int(crossings.model.place_of(rows["segment"][[place]])[0])
    other = next(
        one for one in crossings.model.ids
        if crossings.model.place_of(np.array([one], np.int32))[0] != inside
    )  # fmt: skip
    rows["segment"][place] = other
    assert crossings.misplaced(rows, at_ms).tolist() == [place]


class EveryoneIsWrong:
    """By this model, ann crosses wrongly, and somebody is where they do not belong."""

    def __init__(self, model: str) -> None:
        self.model = SimpleNamespace(name=model)

    def knows(self, change: Mapping[str, Any]) -> bool:
        return bool(change["user"] == "ann")

    def fault_of(self, change: Mapping[str, Any]) -> str:
        return "" if change["version"] == 1 else "it goes by a margin, not by a rule"

    def misplaced(self, rows: Any, _: int) -> Any:
        return np.flatnonzero(rows["segment"] > 0)[:1]


def test_an_audit_names_crossings_and_users_that_do_not_follow_the_rules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = EveryoneIsWrong("1.0")

    def read(one: checking.PopulationsCheck, _: object) -> None:
        one._crossings = found  # type: ignore[assignment]

    monkeypatch.setattr(checking.PopulationsCheck, "read", read)
    told = failed(truthful().audit())["populations_follow_their_rules"]
    assert all("by a margin, not by a rule (" in offender for offender in told)
    # Nobody was looked at under that model yet; under their own, rows are judged as well.
    found.model.name = ""
    told = failed(truthful().audit())["populations_follow_their_rules"]
    assert any("in a segment of another population" in offender for offender in told)
