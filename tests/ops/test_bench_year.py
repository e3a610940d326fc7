"""`ops.bench.year` on a shop small enough to know the answer, and its counting by hand."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from ops.bench import year
from ops.bench.year import Changes, Kept, Snapshot, kept, kind_of_event, share
from producers.mapping import load_mapping
from stream.clustering import FeatureMap
from stream.config import Settings
from stream.events import SegmentChange
from stream.model import Model, Segment
from stream.units import DAY_MS
from tests.strategies import of_everyone

START = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of 120 customers buy every ten days, half stop after the first month."""
    rng = np.random.default_rng(1)
    file = tmp_path_factory.mktemp("year") / "orders.csv"
    with file.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(("customer", "date", "amount"))
        for number in range(120):
            last = 120 if number % 2 else 30
            for day in np.arange(rng.uniform(0, 10), last, 10):
                amount = rng.lognormal(3, 0.3)
                rows.writerow((f"c{number}", START + timedelta(days=float(day)), f"{amount:.2f}"))
    return file


@pytest.mark.slow
def test_a_tiny_shop(
    shop: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results = tmp_path / "year.md"
    monkeypatch.setattr(year, "RESULTS", results)
    settings = Settings.model_validate(
        {
            "clock": {"mode": "watermark", "mark_seconds": "5d"},
            "learning": {
                "segments": 2,
                "first_model_users": 50,
                "refit_seconds": "15d",
                # The shop changes its nature after a month; who looks later flaps meanwhile.
                "alarm_share": 0.2,
            },
        }
    )
    report = year.play(settings, shop, load_mapping("simple"))
    assert report["users"] == report["assigned"] == 120
    assert report["marks"] == 26
    assert report["segments"] == 2
    assert [quarter["users"] for quarter in report["quarters"]] == [120, 120]
    assert report["quarters"][-1]["ari"] == pytest.approx(1.0)
    assert len(report["months"]) == 3
    assert report["identity_kept"] == 1.0
    assert report["reverted"] <= 0.2
    assert report["into_risk_total"] >= 0
    assert sum(report["causes"].values()) == pytest.approx(1.0 if report["changes"] else 0.0)

    again = [str(shop), "--mapping", "simple", "--mark", "20d", "--segments", "2", "--json"]
    assert year.main(again) == 0
    assert not results.exists()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["marks"] == 8
    assert year.main([*again, "--append"]) == 0
    text = results.read_text()
    assert text.startswith(f"{year.HEADER}\n## ")
    assert "`python -m ops.bench.year orders.csv --mapping simple" in text


def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert year.main([str(tmp_path / "none.csv")]) == 1
    assert "no such file" in capsys.readouterr().err
    assert year.main([str(tmp_path / "none.csv"), "--segments", "1"]) == 2


def a_model(*ids: int) -> Model:
    """Segments side by side along one feature, two standard deviations apart."""
    unit = np.ones(1)
    return of_everyone(
        epoch=1,
        version=0,
        at_ms=0,
        schema="s",
        feature_map=FeatureMap(-9 * unit, 9 * unit, 0 * unit, unit, unit),
        centroids=2.0 * np.arange(len(ids), dtype=float)[:, None],
        segments=tuple(Segment(i, f"s{i}", "new", 0, "1.0") for i in ids),
    )


def logs(*values: float) -> Any:
    """Vectors that the map takes to these."""
    return np.expm1(np.array(values))[:, None]


def test_identity_is_asked_of_those_with_no_reason_to_move() -> None:
    then = Snapshot(0, logs(0.0, 0.0, 0.0, 2.0, 2.0), np.array([7, 7, 7, 8, 0]), a_model(7, 8))
    now = replace(
        then,
        at_ms=DAY_MS,
        vectors=logs(0.4, 0.4, 1.8, 2.0, 2.0, 0.0),
        segments=np.array([7, 8, 8, 9, 8, 7]),
        model=a_model(7, 9),
    )
    # The third walked, the fifth had no segment, the sixth was not there; the fourth's was retired.
    assert kept(then, now) == Kept(DAY_MS, users=4, stayed=3, same=1, retired=1)


def moved(user: str, number: int, before: int | None, after: int) -> SegmentChange:
    kind = None if before is None else "loyal"
    change: Any = {
        "user": user, "version": number, "from": before, "to": after, "kind_from": kind,
        "kind_to": "at_risk", "cause": "user_moved",
    }  # fmt: skip
    return cast("SegmentChange", change)


def test_a_change_is_reverted_if_it_is_soon_taken_back() -> None:
    changes = Changes()
    path = [1, 2, 1, 3, 4, 5, 6, 7, 2]
    changes.add([moved("one", 1, None, 1)], 0)
    for number, (before, after) in enumerate(pairwise(path), start=2):
        changes.add([moved("one", number, before, after)], number * DAY_MS)
    assert (changes.assigned, changes.total) == (1, 8)
    # 1 to 2 and back; 2 was left for 1 seven changes before it is 2 again.
    assert changes.reverted.total() == 1
    turned = Changes()
    for number, (before, after) in enumerate([(1, 1), (1, 1), (1, 2), (2, 2), (2, 1)], start=2):
        turned.add([moved("one", number, before, after)], number * DAY_MS)
    assert (turned.turned, turned.total, turned.reverted.total()) == (3, 2, 1)
    late = Changes()
    for at_ms, (before, after) in ((0, (1, 2)), (31 * DAY_MS, (2, 1)), (40 * DAY_MS, (1, 2))):
        late.add([moved("one", 1, before, after)], at_ms)
    assert late.reverted.total() == 1, "the first was kept for more than thirty days"
    assert late.kinds == {("loyal", "at_risk"): 3}


def test_words_of_the_report() -> None:
    kind: Any = {"event": "kind:loyal->at_risk"}
    assert kind_of_event(kind) == "kind"
    assert share(0, 0) is None
