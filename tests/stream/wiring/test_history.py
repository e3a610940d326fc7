"""What is read from files comes to the features that a person would expect of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from producers.files import Source
from producers.mapping import load_mapping, parse_mapping
from stream.config import Settings
from stream.features import FeatureTable
from stream.insight.explore import ExploreError, read_history
from stream.insight.history import History
from stream.partition import Partition
from stream.segments import PublishRule
from stream.store.state import Position
from stream.units import DAY_MS
from stream.wiring.history import open_history, opener

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from producers.mapped import Event
    from producers.mapping import Mapping
    from stream.events import EventColumns

SETTINGS = Settings()
TABLE = FeatureTable(SETTINGS.features)
MARCH_MS = 1_709_251_200_000
"""2024-03-01."""


def fold(
    sources: Sequence[tuple[Path, Mapping]], *, keep_outliers: bool = False, wall_ms: int = 1 << 41
) -> tuple[dict[str, dict[str, float]], History[Event]]:
    """Features of every user a minute after the last event."""
    rule = PublishRule(margin=0.0, provisional_looks=0, dwell_ms=0)
    partition = Partition(0, TABLE, rule, Position([0, 0], TABLE.schema), 0)

    def take(columns: Sequence[Callable[[Partition], EventColumns]]) -> int:
        return sum(partition.fold(one(partition))[1] for one in columns)

    (file, mapping), *more = sources
    with open_history(
        SETTINGS, TABLE, file, mapping, more=[Source(*one) for one in more],
        keep_outliers=keep_outliers, wall_ms=lambda: wall_ms,
    ) as history:  # fmt: skip
        ends = list(history.play(take))
    vectors = TABLE.vectors(partition.rows, ends[-1] + 60_000)
    users = (name.decode() for name in partition.names)
    return {
        user: dict(zip(TABLE.names, row, strict=True))
        for user, row in zip(users, vectors.tolist(), strict=True)
    }, history


def file_of(tmp_path: Path, name: str, *lines: str) -> Path:
    file = tmp_path / name
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


SHOPIFY = (
    "Name,Email,Financial Status,Created at,Total,Currency,Lineitem quantity,Lineitem price,"
    "Refunded Amount,Cancelled at"
)


def test_what_was_given_back_is_no_revenue(tmp_path: Path) -> None:
    file = file_of(
        tmp_path, "orders.csv", SHOPIFY,
        "#1,ann@shop.example,refunded,2024-03-01 10:00:00 +0000,30.00,EUR,1,10.00,30.00,",
        "#1,ann@shop.example,,2024-03-01 10:00:00 +0000,,,2,10.00,,",
        "#2,bob@shop.example,paid,2024-03-01 11:00:00 +0000,53.91,EUR,1,39.90,0.00,",
        "#2,,,,,,2,34.90,,",
        "#3,cat@shop.example,partially_refunded,2024-03-01 11:00:00 +0000,80.00,EUR,1,80.00,20.00,",
        "#4,dan@shop.example,paid,2024-03-01 10:00:00 +0000,30.00,EUR,1,30.00,0,2024-03-01 11:00:00 +0000",
    )  # fmt: skip
    users, history = fold([(file, load_mapping("shopify"))])
    assert not history.refused
    revenue = {user: features["revenue_180d"] for user, features in users.items()}
    assert revenue == pytest.approx(
        {"ann@shop.example": 0, "bob@shop.example": 53.91, "cat@shop.example": 60.0,
         "dan@shop.example": 0}, abs=0.05,
    )  # fmt: skip
    assert users["bob@shop.example"]["basket_items"] == pytest.approx(3)


@pytest.mark.parametrize("form", ["rule", "refund"])
def test_a_status_that_makes_an_order_a_refund_brings_no_debt(tmp_path: Path, form: str) -> None:
    declared = 'user = "u"\ntime = "t"\nevent = "Order Completed"\norder = "o"\namount = "a"\n'
    test = 'column = "s"\nequals = "refunded"\n'
    declared += (
        f'[[rules]]\n{test}event = "Order Refunded"\n' if form == "rule" else f"[[refund]]\n{test}"
    )
    file = file_of(
        tmp_path, "o.csv", "o,u,t,a,s", "1,ann,2024-03-01,30,refunded", "1,,,,",
        "2,ann,2024-03-02,5,paid",
    )  # fmt: skip
    users, history = fold([(file, parse_mapping(declared, "m", "m"))])
    assert users["ann"]["revenue_180d"] == pytest.approx(5, abs=0.01)
    assert bool(history.notes) == (form == "rule")


def test_files_of_the_same_time_are_one_history(tmp_path: Path) -> None:
    orders = file_of(
        tmp_path, "orders.csv", "customer,date,amount", "ann,2024-03-01,5", "ann,2024-03-20,5"
    )
    later = file_of(tmp_path, "later.csv", "customer,date,amount", "bob,2024-03-02,7")
    simple = load_mapping("simple")
    users, history = fold([(orders, simple), (later, simple)])
    assert (history.rows, history.mapped, history.folded) == (3, 3, 3)
    assert users["bob"]["days_since_seen"] == pytest.approx(18, abs=0.1)
    crowd = [f"u{n},2024-03-03,5" for n in range(30)]
    many = file_of(tmp_path, "many.csv", "customer,date,amount", *crowd)
    people = read_history(SETTINGS, TABLE, opener([Source(orders, simple), Source(many, simple)]))
    assert people.total == 31
    assert people.source == "orders.csv, many.csv"


def test_a_time_far_off_ends_nobodys_year(tmp_path: Path) -> None:
    days = [f"u{n % 30},2024-0{1 + n // 30}-{1 + n % 28:02},5" for n in range(90)]
    simple = load_mapping("simple")
    odd = ["x,1970-01-01T01:00Z,5", "x,1980-01-01,5", "x,2099-12-31,5", "x,2022-06-01,5"]
    file = file_of(tmp_path, "o.csv", "customer,date,amount", *days, *odd)
    users, history = fold([(file, simple)], wall_ms=MARCH_MS + 400 * DAY_MS)
    assert history.refused == {"bad_time": 3, "outlier_time": 1}
    assert "x" not in users
    told = "\n".join(history.refusal_lines())
    assert "row 91 of o.csv: date = '1970-01-01T01:00Z' is before 1995" in told
    assert "also rows 92, 93" in told
    assert "--keep-outliers" in told
    assert "x" in fold([(file, simple)], keep_outliers=True, wall_ms=MARCH_MS + 400 * DAY_MS)[0]


def test_a_line_that_is_a_message_is_mended_by_no_key_of_a_mapping(tmp_path: Path) -> None:
    lines = ['{"type": "track", "event": "Order Completed", "userId": ""}', '{"a": 1', "\xff"]
    file = tmp_path / "messages.jsonl"
    file.write_bytes("\n".join(lines).encode("latin-1"))
    with pytest.raises(ExploreError) as caught:
        read_history(SETTINGS, TABLE, opener([Source(file, load_mapping("segment"))]))
    notes = str(caught.value)
    assert "1 no_user, such as row 1 of messages.jsonl: line 1" in notes
    assert "1 truncated, such as row 2 of" in notes
    assert "the mapping's key" not in notes


def test_explore_tells_what_was_refused_and_the_key_that_mends_it(tmp_path: Path) -> None:
    file = file_of(
        tmp_path, "o.csv", "customer,date,amount", "ann,2024-03-01,5", 'bob,2024-03-01,"1,250"',
        "326.0,01.03.2024,5", *(f"u{n},2024-03-03,5" for n in range(30)),
    )  # fmt: skip
    people = read_history(SETTINGS, TABLE, opener([Source(file, load_mapping("simple"))]))
    notes = "\n".join(people.notes)
    assert "1 bad_number, such as row 2 of o.csv: amount = '1,250' is 1,250 or 1.25" in notes
    assert "the mapping's key: decimal" in notes
    assert "time.format can be '%d.%m.%Y'" in notes
    unwatched = parse_mapping(
        'user = "customer"\ntime = "date"\nevent = "Purchase"\n', "unwatched", "unwatched"
    )
    with pytest.raises(ExploreError, match="watched by no feature"):
        read_history(SETTINGS, TABLE, opener([Source(file, unwatched)]))
