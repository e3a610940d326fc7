"""Events come in the order of their times, and the rows of an order as one."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producers import sorting
from producers.files import Source, read_sources, stage
from producers.mapped import Event, Refusal
from producers.mapping import MappingError, load_mapping, parse_mapping
from producers.sorting import EventSorter
from producers.tables import delimited

if TYPE_CHECKING:
    from pathlib import Path

from tests.producers.tables.reading import orders_by, read, write


@pytest.mark.slow
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None
)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 50), st.sampled_from("abc"), st.sampled_from(["x", "y", None]),
            st.integers(-3, 9),
        ),
        max_size=60,
    )
)  # fmt: skip
def test_order_lines_add_up_in_event_time_order(
    rows: list[tuple[int, str, str | None, int]],
) -> None:
    events = [
        Event(at, row, user, "Order Completed", order, None, f"c{row}", None, 1.0, None, amount / 4)
        for row, (at, user, order, amount) in enumerate(rows, 1)
    ]
    groups: dict[tuple[str, str | int], list[Event]] = {}
    for event in events:
        groups.setdefault((event.user, event.order or event.row), []).append(event)
    expected = sorted(
        (min(e.time_ms for e in lines), lines[0].row, lines[0].user, lines[0].category,
         float(len(lines)), sum(e.amount or 0 for e in lines))
        for lines in groups.values()
    )  # fmt: skip
    with EventSorter() as sorter:
        sorter.add(events[: len(events) // 2])
        sorter.add(events[len(events) // 2 :])
        sorter.sort()
        found = [event for batch in sorter.batches() for event in batch]
    assert [(e.time_ms, e.row, e.user, e.category, e.quantity, e.amount) for e in found] == expected


def test_absent_numbers_stay_absent() -> None:
    bare = Event(1, 1, "u", "Product Viewed", None, None, None, None, None, None, None)
    lines = [
        Event(2, 2, "u", "Order Completed", "o", None, None, None, 1.0, None, None),
        Event(2, 3, "u", "Order Completed", "o", None, None, None, 1.0, None, 2.5),
        Event(2, 4, "u", "Order Completed", "p", None, None, None, 1.0, None, None),
    ]
    with EventSorter() as sorter:
        sorter.add([bare, *lines])
        sorter.sort()
        found = [event for batch in sorter.batches() for event in batch]
    assert found[0] == bare
    assert [e.amount for e in found[1:]] == [2.5, None]


def test_more_rows_than_a_batch_keep_ties_in_file_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (delimited, sorting):
        monkeypatch.setattr(module, "BATCH_ROWS", 100)
    days = [random.Random(1).randrange(1, 4) for _ in range(950)]
    lines = [f"u{n},2026-03-0{day},1" for n, day in enumerate(days)]
    file = write(tmp_path / "many.csv", "\n".join(["customer,date,amount", *lines]).encode())
    events, _, rows = read(file, load_mapping("simple"))
    assert rows == 950
    assert [e.row for e in events] == sorted(range(1, 951), key=lambda row: days[row - 1])


SHOP = 'user = "u"\ntime = "t"\nevent = "Order Completed"\norder = "o"\namount = "a"\nprice = "p"\nquantity = "q"\n'


def orders(
    tmp_path: Path, content: str, more: str = ""
) -> tuple[list[tuple[Any, ...]], list[Refusal], list[str]]:
    refused: list[Refusal] = []
    with EventSorter() as sorter:
        file = write(tmp_path / "o.csv", content.encode())
        mapping = parse_mapping(SHOP + more, "m", "m")
        read_sources([Source(file, mapping)], sorter, refused.append)
        found = [
            (event.event[6:], event.user, event.order, event.amount, event.quantity)
            for batch in sorter.batches()
            for event in batch
        ]
    return found, refused, sorter.notes


def test_an_amount_on_one_line_is_the_orders(tmp_path: Path) -> None:
    found, _, _ = orders(
        tmp_path,
        "o,u,t,a,p,q\n1,ann,2026-01-01,53.91,39.90,1\n1,,,,34.90,1\n1,,,,4.00,2\n"
        "2,bob,2026-01-02,,39.90,1\n2,,,,4.00,2\n",
    )
    assert found == [("Completed", "ann", "1", 53.91, 4.0), ("Completed", "bob", "2", 47.9, 3.0)]


def test_lines_that_stand_apart_find_their_order(tmp_path: Path) -> None:
    found, refused, _ = orders(
        tmp_path,
        "o,u,t,a,p,q\n1,ann,2026-01-01,5,,1\n2,bob,2026-01-02,6,,1\n1,,,,,2\n3,,,,,1\n",
    )
    assert found == [("Completed", "ann", "1", 5.0, 3.0), ("Completed", "bob", "2", 6.0, 1.0)]
    assert [(one.row, one.reason) for one in refused] == [(4, "no_user")]


def test_a_number_that_comes_again_for_another_user_is_another_order(tmp_path: Path) -> None:
    found, _, _ = orders(tmp_path, "o,u,t,a,p,q\n1,ann,2026-01-01,5,,1\n1,bob,2026-01-02,6,,1\n")
    assert [one[1] for one in found] == ["ann", "bob"]


@pytest.mark.parametrize(
    ("rows", "amount", "quantity"),
    [("lines", 40.0, 3.0), ("total", 20.0, 3.0), ("repeats", 20.0, 1.0)],
)
def test_what_rows_of_an_order_are_is_declared(
    tmp_path: Path, rows: str, amount: float, quantity: float
) -> None:
    content = "o,u,t,a,p,q\n1,ann,2026-01-01,20,,1\n1,ann,2026-01-01,20,,2\n"
    found, _, _ = orders(tmp_path, content, f'order_rows = "{rows}"')
    assert found == [("Completed", "ann", "1", amount, quantity)]


def test_totals_that_were_added_up_are_told(tmp_path: Path) -> None:
    lines = [f"{n},ann,2026-01-0{n},20,,1" for n in range(1, 6) for _ in range(2)]
    _, _, notes = orders(tmp_path, "\n".join(["o,u,t,a,p,q", *lines]))
    assert "5 of 5 orders" in notes[0]
    assert 'order_rows = "total"' in notes[0]


def test_an_order_in_two_currencies_is_refused(tmp_path: Path) -> None:
    content = (
        "o,u,t,a,p,q\n1,ann,2026-01-01,€20,,1\n1,ann,2026-01-01,$20,,1\n2,ann,2026-01-01,$2,,1\n"
    )
    found, refused, _ = orders(tmp_path, content)
    assert [one[2] for one in found] == ["2"]
    assert refused[0].reason == "bad_currency"


def test_the_mapping_says_which_currency_a_sign_is(tmp_path: Path) -> None:
    def currencies(more: str) -> list[str | None] | str:
        content = b"u,t,a,c\nann,2026-01-01,$20,cad\nbob,2026-01-01,20,\n"
        mapping = parse_mapping(
            'user = "u"\ntime = "t"\nevent = "Order Completed"\namount = "a"\n' + more, "m", "m"
        )
        events, refused, _ = read(write(tmp_path / "c.csv", content), mapping)
        return refused[0].why if refused else [event.currency for event in events]

    assert currencies("") == ["USD", None]
    assert currencies('currency = "c"') == ["CAD", None]
    assert currencies('currency = { constant = "AUD" }') == ["AUD", "AUD"]
    with pytest.raises(MappingError, match="ISO 4217"):
        currencies('currency = { constant = "euro" }')


REFUND = """\
[[refund]]
column = "s"
equals = "refunded"
time = "back"
[[refund]]
amount = "r"
"""


def test_an_order_that_was_given_back_is_an_order_and_then_a_refund(tmp_path: Path) -> None:
    found, refused, notes = orders(
        tmp_path,
        "o,u,t,a,p,q,s,r,back\n"
        "1,ann,2026-01-01,30,,1,refunded,,2026-01-05\n1,,,,,2,,,\n"
        "2,bob,2026-01-02,80,,4,,20,\n"
        "3,cat,2026-01-03,9,,1,paid,0.00,\n",
        REFUND,
    )
    assert not refused
    assert not notes
    assert found == [
        ("Completed", "ann", "1", 30.0, 3.0),
        ("Completed", "bob", "2", 80.0, 4.0),
        ("Refunded", "bob", "2", 20.0, None),
        ("Completed", "cat", "3", 9.0, 1.0),
        ("Refunded", "ann", "1", 30.0, 3.0),
    ]


def test_a_rule_for_refunds_of_orders_that_are_nowhere_is_told(tmp_path: Path) -> None:
    rule = '[[rules]]\ncolumn = "s"\nequals = "refunded"\nevent = "Order Refunded"\n'
    content = "o,u,t,a,p,q,s\n1,ann,2026-01-01,30,,1,refunded\n1,,,,,2,\n2,bob,2026-01-01,3,,1,\n"
    found, _, notes = orders(tmp_path, content, rule)
    assert found == [("Refunded", "ann", "1", 30.0, 3.0), ("Completed", "bob", "2", 3.0, 1.0)]
    assert "1 refunds are of orders that are not in the files" in notes[0]


def test_a_refund_that_says_nothing_says_no_pieces_either(tmp_path: Path) -> None:
    rule = '[[rules]]\ncolumn = "s"\nequals = "back"\nevent = "Order Refunded"\n'
    content = "o,u,t,a,p,q,s\n1,ann,2026-01-01,30,,,\n1,ann,2026-01-02,,,,back\n"
    found, _, notes = orders(tmp_path, content, rule)
    assert found == [("Completed", "ann", "1", 30.0, 1.0), ("Refunded", "ann", "1", None, None)]
    assert not notes


DAYS = [f"u{n},2024-0{1 + n // 28}-{1 + n % 28:02},5" for n in range(84)]


@pytest.mark.parametrize(
    ("odd", "kept"),
    [
        ("2003-01-01", False), ("2022-12-01", False), ("2025-06-01", False), ("2023-11-01", True),
        ("2024-06-01", True),
    ],
)  # fmt: skip
def test_a_row_far_from_all_others_is_an_outlier(tmp_path: Path, odd: str, kept: bool) -> None:
    file = write(
        tmp_path / "o.csv", "\n".join(["customer,date,amount", *DAYS, f"x,{odd},5"]).encode()
    )
    for keep in (False, True):
        refused: list[Refusal] = []
        with EventSorter() as sorter:
            source = Source(file, load_mapping("simple"))
            rows, count = read_sources([source], sorter, refused.append, keep_outliers=keep)
        assert rows == 85
        assert count == 85 - len(refused)
        assert [one.reason for one in refused] == ([] if keep or kept else ["outlier_time"])
        if refused:
            assert refused[0].row == 85
            assert refused[0].columns["user"] == "x"
            assert "--keep-outliers" in refused[0].why


def test_few_rows_and_long_histories_have_no_outliers(tmp_path: Path) -> None:
    few = ["u,2020-01-01,5", "u,2024-01-01,5", "u,2024-01-02,5"]
    years = [f"u,{year}-0{month}-01,5" for year in range(2010, 2024) for month in (1, 5, 9)]
    for lines in (few, [*years, "u,2008-06-01,5"]):
        file = write(tmp_path / "o.csv", "\n".join(["customer,date,amount", *lines]).encode())
        with EventSorter() as sorter:
            source = Source(file, load_mapping("simple"))
            assert read_sources([source], sorter, lambda _: None)[1] == len(lines)


def test_addresses_that_differ_in_letter_case_are_told(tmp_path: Path) -> None:
    content = b"customer,date,amount\nAnn@x.org,2026-03-01,1\nann@x.org,2026-03-02,1\nA1,2026-03-02,1\na1,2026-03-02,1\n"
    file = write(tmp_path / "orders.csv", content)
    with EventSorter() as sorter:
        stage(file, load_mapping("simple"), sorter, lambda _: None)
        sorter.sort()
        (note,) = sorter.notes
    assert note.startswith("1 addresses are written in several ways, such as 'Ann@x.org'")


def test_an_order_that_an_export_cut_in_two_is_one(tmp_path: Path) -> None:
    head = "order,email,total,date,price,pieces\n"
    first = write(tmp_path / "a.csv", f"{head}1,ann,30,2026-03-01,20,1\n".encode())
    second = write(
        tmp_path / "b.csv",
        f"{head}1,ann,,2026-03-01,5,2\n2,bob,7,2026-03-02,7,1\n3,cy,,2026-03-02,4,2\n".encode(),
    )
    mapping = orders_by("total")
    with EventSorter() as sorter:
        read_sources([Source(first, mapping), Source(second, mapping)], sorter, lambda _: None)
        events = [event for batch in sorter.batches() for event in batch]
        assert not sorter.notes
    assert [(e.user, e.amount, e.quantity) for e in events] == [
        ("ann", 30, 3), ("bob", 7, 1), ("cy", 8, 2)
    ]  # fmt: skip


def test_an_order_that_two_files_tell_differently_is_told(tmp_path: Path) -> None:
    head = "order,email,total,date,price,pieces\n"
    rows = ["1,ann,30,2026-03-01,,1", "2,bob,5,2026-03-01,,1"]
    first = write(tmp_path / "a.csv", "\n".join([head.strip(), *rows]).encode())
    rows[0] = rows[0].replace("30", "25")
    second = write(tmp_path / "b.csv", "\n".join([head.strip(), *rows]).encode())
    for order_rows in ("lines", "total", "repeats"):
        mapping = orders_by(order_rows)
        with EventSorter() as sorter:
            read_sources([Source(first, mapping), Source(second, mapping)], sorter, lambda _: None)
            assert sorter.count == 4
            (note,) = sorter.notes
        assert note.startswith("1 orders are in several files with different amounts")


def test_message_ids_that_are_said_again_are_told(tmp_path: Path) -> None:
    """A worker takes them for one event; so is what was meant to be an id, and is a session's."""
    mapping = parse_mapping(
        'user = "user"\ntime = "date"\nevent = { column = "event" }\nmessage_id = "id"',
        "m", "m.toml",
    )  # fmt: skip
    rows = [
        ("a", "Product Viewed", "s1"), ("a", "Product Viewed", "s1"), ("a", "Cart Viewed", "s1"),
        ("a", "Order Completed", "s1"), ("b", "Product Viewed", "s1"),
        ("b", "Product Viewed", ""), ("b", "Product Viewed", "null"),
    ]  # fmt: skip
    lines = [f"{user},2026-01-0{n},{event},{id_}" for n, (user, event, id_) in enumerate(rows, 1)]
    for count, told in ((len(rows), "2 events say the message id.*'s1'"), (1, "")):
        content = "\n".join(["user,date,event,id", *lines[:count]])
        file = write(tmp_path / f"views{count}.csv", content.encode())
        with EventSorter() as sorter:
            stage(file, mapping, sorter, lambda _: None)
            assert sorter.sort() == count
        assert len(sorter.notes) == bool(told)
        assert re.match(told, "".join(sorter.notes))
