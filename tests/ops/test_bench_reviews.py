"""`ops/bench/reviews`: what it measures is what is said, on texts whose words are known."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import numpy as np
import pytest

from ops.bench import reviews
from ops.bench.reviews import measure, progressive, read, section
from stream.config import ConfigError


def written(file: Path, count: int) -> Path:
    """Reviews that say in one word of eight how they were rated."""
    chance = Random(3)
    with file.open("w", encoding="utf-8", newline="") as lines:
        rows = csv.writer(lines)
        rows.writerow(["title", "body", "stars"])
        for _ in range(count):
            stars = chance.choice([1, 2, 3, 4, 5, 5, 5])
            told = {1: "bad", 2: "bad", 3: "so"}.get(stars, "good")
            rest = chance.choices(["it", "is", "the", "of", "and", "a", "size"], k=7)
            rows.writerow([told, " ".join(rest), stars])
        rows.writerow(["", "", 5])
        rows.writerow(["good", "no stars", ""])
    return file


def test_texts_that_say_it_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviews, "SEEN", (100, 1_000))
    file = written(tmp_path / "reviews.csv", 900)
    report = measure(file, ["title", "body"], "stars")
    assert report["texts"] == 900, "those with a text and a rating"
    assert min(report["auc"], report["auc_tenth"], report["auc_no_blanks"]) > 0.9
    assert report["auc_after"].keys() == {100}, "as far as there are texts"
    told = section(report, datetime.now(UTC))
    assert "| every tenth rating shown |" in told
    assert "| 12 partitions |" in told


def test_a_text_is_judged_before_it_is_learned_from() -> None:
    same = [np.array([1, 2])] * 3
    found = progressive(same, np.array([1, 0, 1]))
    assert found[0] == 0.5
    assert found[0] < found[1] == found[2], "what is neither teaches nothing"
    assert progressive(same, np.array([1, 1, 1]), shown=2)[1] == found[1]


def test_columns_that_are_not_there_are_named(tmp_path: Path) -> None:
    file = written(tmp_path / "reviews.csv", 1)
    with pytest.raises(ConfigError, match="no column 'rating'"):
        read(file, ["title"], "rating")
