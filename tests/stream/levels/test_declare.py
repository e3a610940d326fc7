"""Levels are declared in settings, and what could never be said is refused by its name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stream.config import Settings
from stream.features import DEFAULT_FEATURES, Feature
from stream.levels.declare import MOST_LEVELS, USUAL_LEVELS, Level, step_names

STAGE: dict[str, Any] = {
    "name": "stage",
    "of": "orders_total",
    "steps": [{"name": "customer", "least": 1}, {"name": "prospect"}],
}
RISK: dict[str, Any] = {
    "name": "risk",
    "of": "buy_probability_90d",
    "steps": [{"name": "low", "least_of_base": 0.8}, {"name": "high"}],
}

STEP: dict[str, Any] = {"least": 1}


def declared(*levels: dict[str, Any], **rest: Any) -> Settings:
    return Settings.model_validate({"levels": levels, **rest})


def test_what_is_declared_comes_to_the_trainer_with_where_all_begin() -> None:
    wanted = declared(STAGE, RISK).foretold()
    assert [level.name for level in wanted.levels] == ["stage", "risk"]
    assert wanted.absent["orders_total"] == 0.0
    assert wanted.absent["days_since_order"] == 400.0


def test_what_is_absent_is_what_a_row_of_nothing_reads() -> None:
    settings = declared(STAGE)
    table = settings.table()
    read = table.vectors(table.blank(1), 1_700_000_000_000)[0]
    assert dict(zip(table.names, read.tolist(), strict=True)) == settings.foretold().absent


def test_rows_keep_levels_only_where_there_are_any() -> None:
    without, with_them = Settings().table(), declared(STAGE).table()
    assert without.dtype.itemsize + MOST_LEVELS == with_them.dtype.itemsize
    assert without.schema != with_them.schema
    other = declared(STAGE | {"name": "another"}, RISK).table()
    assert other.schema == with_them.schema, "another level asks for no new namespace"


def step(**fields: Any) -> dict[str, Any]:
    return STAGE | {"steps": [{"name": "customer", **fields}, {"name": "prospect"}]}


def ruled(name: str, **when: dict[str, float]) -> dict[str, Any]:
    return STAGE | {"rules": [{"step": name, "when": when}]}


@pytest.mark.parametrize(
    ("levels", "told"),
    [
        ([STAGE, STAGE], "'stage' is used twice"),
        ([STAGE | {"of": "orders_ever"}], "'orders_ever', which is no feature and no score"),
        ([STAGE | {"of": None}], "looks at nothing"),
        ([step()], "needs one of least"),
        ([step(least=1, least_quantile=0.5)], "needs one of least"),
        ([step(least_of_base=1)], "which is no probability"),
        ([RISK | {"of": "expected_spend_90d"}], "which is no probability"),
        ([STAGE | {"steps": [*STAGE["steps"][:1], {"name": "customer"}]}], "is there twice"),
        (
            [STAGE | {"steps": [*(STEP | {"name": n} for n in "aba"), {"name": "c"}]}],
            "not one behind the other",
        ),
        ([STAGE | {"steps": [*STAGE["steps"][:1], {"name": "b", "least": 0}]}], "has no limit"),
        ([STAGE | {"steps": [*STAGE["steps"][:1], {"name": "b", "of": "x"}]}], "has no limit"),
        ([STAGE | {"steps": [{"name": "prospect"}]}], "at least 2 items"),
        ([STAGE | {"slack": 1.0}], "less than 1"),
        ([step(least_quantile=1.0)], "less than 1"),
        ([ruled("gone", orders_total={"min": 1})], "which is no step of it"),
        ([ruled("customer", orders_ever={"min": 1})], "a rule of 'stage' looks at 'orders_ever'"),
        ([ruled("customer", orders_total={"min_times": 1})], "no usual value here"),
        ([ruled("customer")], "at least 1 item"),
        ([STAGE | {"name": f"level_{n}"} for n in range(MOST_LEVELS + 1)], "9 are more than 8"),
    ],
)
def test_what_cannot_be_is_refused(levels: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        declared(*levels)


def test_a_step_may_be_there_twice_and_is_named_once() -> None:
    assert step_names(USUAL_LEVELS)["churn_risk"] == ("low", "medium", "high")


def test_a_score_that_is_not_declared_is_none() -> None:
    with pytest.raises(ValidationError, match="which is no feature and no score"):
        declared(RISK, scores=[])
    features: tuple[Feature, ...] = DEFAULT_FEATURES
    assert declared(STAGE, scores=[], features=features).levels[0] == Level.model_validate(STAGE)


def test_the_usual_levels_fit_the_default_features_and_scores() -> None:
    settings = Settings(levels=USUAL_LEVELS)
    assert Settings.model_validate(settings.model_dump(mode="json")).levels == USUAL_LEVELS


def test_the_guide_declares_the_usual_levels() -> None:
    page = (Path(__file__).parents[3] / "ops" / "guide" / "shoppers.md").read_text()
    (block,) = (
        one for one in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if "[[levels]]" in one
    )
    assert Settings.model_validate(tomllib.loads(block)).levels == USUAL_LEVELS
