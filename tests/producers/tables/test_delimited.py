"""CSV is read as people and programs write it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from producers.files import stage
from producers.mapped import Refusal
from producers.mapping import Mapping, MappingError, load_mapping, parse_mapping
from producers.sorting import EventSorter
from producers.texts import FileError, propose_encoding

if TYPE_CHECKING:
    from pathlib import Path

from tests.producers.tables.reading import CSV, read, write

KUNDEN = 'user = "Kunde"\ntime = "Tag"\nevent = "Order Completed"\namount = "Größe"\n'


TABELLE = "Kunde;Tag;Größe\nJürgen;2026-01-01;1.234,50 €\nann;2026-01-02;7,5\n"


def kunden(more: str = "") -> Mapping:
    return parse_mapping(KUNDEN + more, "de", "de.toml")


def test_other_encodings_and_delimiters(tmp_path: Path) -> None:
    mapping = parse_mapping(
        'user = "Kunde"\ntime = "Tag"\nevent = "Order Completed"\namount = "Betrag"\n'
        'decimal = ","\nencoding = "latin-1"\ndelimiter = ";"',
        "de", "de.toml",
    )  # fmt: skip
    content = "Kunde;Tag;Betrag\nJürgen;2026-01-01;1.234,5\n".encode("latin-1")
    events, refused, _ = read(write(tmp_path / "orders.csv", content), mapping)
    assert not refused
    assert [(e.user, e.amount) for e in events] == [("Jürgen", 1234.5)]


def test_a_wrong_encoding_is_refused_with_its_remedy(tmp_path: Path) -> None:
    content = "customer,date,amount\nJürgen,2026-01-01,3\nann,2026-01-01,3\n".encode("latin-1")
    file = write(tmp_path / "orders.csv", content)
    (event,), (refused,), _ = read(file, load_mapping("simple"))
    assert event.user == "ann"
    assert "encoding" in refused.why


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "iso8859-15"],
)
@pytest.mark.parametrize("packed", ["", ".gz", ".zip"])
@pytest.mark.parametrize("ahead", ["", "sep=;\n", '"sep=;"\r\n'])
def test_any_encoding_can_be_named(tmp_path: Path, encoding: str, packed: str, ahead: str) -> None:
    file = write(tmp_path / f"orders.csv{packed}", (ahead + TABELLE).encode(encoding))
    declared = "" if encoding.startswith("utf") else f'encoding = "{encoding}"'
    events, refused, rows = read(file, kunden(declared))
    assert not refused
    assert rows == 2
    assert [(e.user, e.amount) for e in events] == [("Jürgen", 1234.5), ("ann", 7.5)]


@pytest.mark.parametrize(
    ("encoding", "text", "proposed"),
    [
        ("cp1252", "Größe;Straße", "cp1252"),
        ("shift_jis", "お客様;カテゴリ", "shift_jis"),
        ("cp1251", "клиент;дата", "cp1251"),
        ("euc_kr", "고객이름;날짜", "euc_kr"),
        ("gb18030", "客户编号;日期时间", "gb18030"),
        ("utf-16-le", "Größe;Straße und Haus", "utf-16-le"),
        ("utf-16-be", "Größe;Straße und Haus", "utf-16-be"),
    ],
)
def test_an_encoding_is_proposed_that_reads_the_file(
    tmp_path: Path, encoding: str, text: str, proposed: str
) -> None:
    assert propose_encoding(f"{text}\nx;y\n".encode(encoding)) == proposed
    file = write(tmp_path / "orders.csv", f"{text}\nx;y\n".encode(encoding))
    with pytest.raises((FileError, MappingError)) as caught:
        read(file, load_mapping("simple"))
    if not encoding.startswith("utf"):
        assert f'encoding = "{proposed}"' in str(caught.value)
        assert text.partition(";")[0] in str(caught.value)


def test_a_file_that_is_utf8_after_all_is_told(tmp_path: Path) -> None:
    for encoding, told in (("utf-8", True), ("cp1252", False)):
        file = write(tmp_path / f"{encoding}.csv", TABELLE.encode(encoding))
        if encoding == "utf-8":
            mapping = kunden('encoding = "cp1252"').model_copy(update={"amount": ()})
        else:
            mapping = kunden('encoding = "cp1252"')
        with EventSorter() as sorter:
            stage(file, mapping, sorter, lambda _: None)
            assert [("is UTF-8" in note) for note in sorter.notes] == [True] * told


def test_an_encoding_that_nobody_knows_is_refused() -> None:
    with pytest.raises(MappingError, match=r"encoding = 'excel'.*cp1252"):
        kunden('encoding = "excel"')


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_delimiters_and_line_ends_are_found_out(tmp_path: Path, delimiter: str, end: str) -> None:
    rows = [
        ["note; a, b | c", " customer ", "date", "amount", ""],
        ['say "hi",\nthere; | \t', "ann", "2026-03-02", "20", ""],
        ["", "bob", "2026-03-01", "10", ""],
        ["", "", "", "", ""],
        [],
    ]
    lines = [
        delimiter.join('"' + value.replace('"', '""') + '"' if value else "" for value in row)
        for row in rows
    ]
    file = write(tmp_path / "orders.csv", end.join([*lines, "", ""]).encode())
    events, refused, rows_read = read(file, load_mapping("simple"))
    assert not refused
    assert [(e.user, e.amount, e.row) for e in events] == [("bob", 10.0, 2), ("ann", 20.0, 1)]
    assert rows_read == 2


def test_values_behind_the_last_column_may_be_empty(tmp_path: Path) -> None:
    content = "customer,date,amount\nann,2026-03-01,5,,\nbob,2026-03-02,5,x\n"
    events, refused, _ = read(write(tmp_path / "o.csv", content.encode()), load_mapping("simple"))
    assert [event.user for event in events] == ["ann"]
    assert "line 3: 4 columns instead of 3" in refused[0].why


@pytest.mark.parametrize("rest", [5, 3_000])
def test_a_quote_that_nobody_closes_costs_its_line_only(tmp_path: Path, rest: int) -> None:
    good = [f"u{n},2026-03-01,5" for n in range(rest)]
    lines = ["customer,date,amount", *good[:2], '"eve,2026-03-01,5', *good[2:], 'zoe,2026-03-01,"5']
    events, refused, _ = read(
        write(tmp_path / "o.csv", "\n".join(lines).encode()), load_mapping("simple")
    )
    assert [event.user for event in events] == [f"u{n}" for n in range(rest)]
    assert [refusal.row for refusal in refused] == [3, rest + 2]
    assert {refusal.reason for refusal in refused} == {"unreadable"}
    assert "a quote is never closed" in refused[-1].why


def test_names_of_columns_that_are_nearly_right_are_proposed(tmp_path: Path) -> None:
    file = write(tmp_path / "o.csv", b"E-Mail,Customer_,date,Amount\n")
    with pytest.raises(MappingError, match=r"user: .*did you mean 'Customer_'"):
        read(file, load_mapping("simple"))
    file = write(tmp_path / "p.csv", b"customer,date,amount,amount\na,2026-01-01,1,2\n")
    with pytest.raises(FileError, match="2 columns 'amount'"):
        read(file, load_mapping("simple"))
    with pytest.raises(FileError, match="names of columns"):
        read(write(tmp_path / "q.csv", b""), load_mapping("simple"))


@pytest.mark.parametrize(
    "above",
    [
        "Orders of 2026\nMade on 2026-04-01\n\n",
        '"Includes Marketplace, FBA and others"\n"All amounts in USD, unless specified"\n',
        "Report;Orders;March\n",
    ],
)
def test_lines_above_the_names_of_columns_are_passed_over(tmp_path: Path, above: str) -> None:
    file = write(tmp_path / "orders.csv", (above + CSV).encode())
    mapping = load_mapping("simple")
    refused: list[Refusal] = []
    with EventSorter() as sorter:
        stage(file, mapping, sorter, refused.append)
        notes = sorter.notes
        sorter.sort()
        found = [event for batch in sorter.batches() for event in batch]
    assert not refused
    assert found == read(write(tmp_path / "plain.csv", CSV.encode()), mapping)[0]
    number = above.count("\n") + 1
    assert notes == [f"orders.csv: the names of its columns were found in line {number}"]


def test_below_a_title_a_missing_column_is_named_beside_those_there_are(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", b"Orders\ncustomer,date,total\nann,2026-03-01,5\n")
    with pytest.raises(MappingError, match="no column 'amount'; it has customer, date, total"):
        read(file, load_mapping("simple"))


def test_what_excel_leaves_out_at_the_end_of_a_row_is_empty(tmp_path: Path) -> None:
    content = (
        b"customer,date,amount,note,\nann,2026-03-01,1.5,hi,\nbob,2026-03-01,2.5\ncy,2026-03-01\n"
    )
    events, (refused,), _ = read(write(tmp_path / "a.csv", content), load_mapping("simple"))
    assert [(e.user, e.amount) for e in events] == [("ann", 1.5), ("bob", 2.5)]
    assert refused.row == 3
    assert "2 columns instead of 5; the line ends early" in refused.why

    content = b"customer,date,amount,back\nann,2026-03-01,1.5\n"
    mapping = load_mapping("simple").model_copy(update={"category": ("back",)})
    events, refusals, _ = read(write(tmp_path / "b.csv", content), mapping)
    assert (events, len(refusals)) == ([], 1), "a column that is looked at is missed"
    mapping = mapping.model_copy(update={"optional": ("back",)})
    assert [e.user for e in read(tmp_path / "b.csv", mapping)[0]] == ["ann"]


def test_quotes_between_tabs_and_behind_backslashes(tmp_path: Path) -> None:
    rows = [
        'ann\t2026-03-01\t1\t"big" pan',
        'bob\t2026-03-01\t2\t12" pan',
        'cy\t2026-03-01\t3\t"x"',
    ]
    content = "customer\tdate\tamount\tname\n" + "\n".join(rows) + "\n"
    mapping = load_mapping("simple").model_copy(update={"category": ("name",)})
    events, refused, _ = read(write(tmp_path / "a.txt", content.encode()), mapping)
    assert not refused
    assert [e.category for e in events] == ['"big" pan', '12" pan', "x"]

    content = 'customer,date,amount,name\nann,2026-03-01,1,"Mug \\"blue\\", big"\n'
    content += 'bob,2026-03-01,1,"Mug "blue", big"\n'
    (event,), (refusal,), _ = read(write(tmp_path / "b.csv", content.encode()), mapping)
    assert event.category == 'Mug "blue", big'
    assert "a quote within quotes is written twice" in refusal.why


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("Customer,DATE,amount", ["Customer", "DATE"]),
        ("\ufeffcustomer,date, amount ", []),
        ("customer,date,Amount,AMOUNT", None),
        ("customer,date,amount,AMOUNT", []),
    ],
)
def test_names_of_columns_are_known_in_any_case(
    tmp_path: Path, header: str, taken: list[str] | None
) -> None:
    """A byte order mark may stand twice; of two names that differ in case only none is taken."""
    cells = ["ann", "2026-03-01", "5", "6"][: header.count(",") + 1]
    content = f"{header}\n{','.join(cells)}\n".encode("utf-8-sig")
    file = write(tmp_path / "orders.csv", content)
    if taken is None:
        with pytest.raises(MappingError, match="the file has no column 'amount'"):
            read(file, load_mapping("simple"))
        return
    with EventSorter() as sorter:
        stage(file, load_mapping("simple"), sorter, lambda _: None)
        sorter.sort()
        events = list(next(sorter.batches(), []))
    told = [f"its column {name!r} was taken for {name.lower()!r}" for name in taken]
    assert sorter.notes == ([f"orders.csv: {'; '.join(told)}"] if told else [])
    assert [(one.user, one.amount) for one in events] == [("ann", 5.0)]


def test_a_name_that_the_mapping_looks_for_is_no_other(tmp_path: Path) -> None:
    mapping = parse_mapping(
        'user = "user"\ntime = "date"\nevent = "Order Completed"\namount = ["net", "NET"]',
        "m",
        "m.toml",
    )
    file = write(tmp_path / "orders.csv", b"user,date,NET\nann,2026-03-01,5\n")
    (event,), _, _ = read(file, mapping)
    assert event.amount == 5.0


def test_parquet_knows_columns_in_any_case(tmp_path: Path) -> None:
    file = tmp_path / "orders.parquet"
    duckdb.sql(
        f"COPY (SELECT 'ann' AS Customer, DATE '2026-03-01' AS DATE, 5 AS amount) TO '{file}'"
    )
    (event,), _, _ = read(file, load_mapping("simple"))
    assert (event.user, event.amount) == ("ann", 5.0)


def test_formulas_for_texts_are_the_texts(tmp_path: Path) -> None:
    """Programs write ids so, lest Excel cuts their zeros off."""
    content = (
        "customer,date,amount\n"
        '="00123",="2026-03-01",="5"\n'
        '"=""00123""","=""2026-03-02""","=""1,250.50"""\n'
        '"=""say """"hi""""""",2026-03-03,1\n'
        '"=""",2026-03-04,1\n'
    )
    events, refused, _ = read(
        write(tmp_path / "orders.csv", content.encode()), load_mapping("simple")
    )
    assert not refused
    assert [(one.user, one.amount) for one in events] == [
        ("00123", 5.0), ("00123", 1250.5), ('say "hi"', 1.0), ('="', 1.0),
    ]  # fmt: skip


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
@pytest.mark.parametrize("first", ["", "customer,date,amount\n", "sep=;\n"])
def test_a_file_without_names_has_those_that_the_mapping_says(
    tmp_path: Path, sign: str, first: str
) -> None:
    simple = load_mapping("simple")
    rows = "ann,2026-03-01,5\nbob,2026-03-02,6\n"
    content = (first if first.startswith("sep") else "") + (
        ("" if first.startswith("sep") else first) + rows
    ).replace(",", ";" if first.startswith("sep") else sign)
    file = write(tmp_path / "orders.csv", content.encode())
    mapping = simple.model_copy(update={"header": ("customer", "date", "amount")})
    events, refused, _ = read(file, mapping)
    assert not refused
    assert [(one.user, one.amount, one.row) for one in events] == [("ann", 5.0, 1), ("bob", 6.0, 2)]
    if not first.startswith("customer"):
        with pytest.raises(MappingError, match=r"the mapping can say them: header = \["):
            read(file, simple)


def test_names_that_a_mapping_says_are_not_forced_on_another_table(tmp_path: Path) -> None:
    mapping = load_mapping("simple").model_copy(update={"header": ("customer", "date", "amount")})
    file = write(tmp_path / "orders.csv", b"who,when\nann,2026-03-01\n")
    with pytest.raises(MappingError, match="it has when, who"):
        read(file, mapping)


def cell(**said: Any) -> str:
    """An object of JSON as a cell of CSV."""
    return '"' + json.dumps(said).replace('"', '""') + '"'


def test_paths_reach_into_json_that_a_cell_holds(tmp_path: Path) -> None:
    mapping = parse_mapping(
        'user = "who"\ntime = "at"\nevent = "Order Completed"\norder = "said.id"\n'
        'amount = "said.revenue"\nquantity = "said.lines.*.pieces"\n'
        'optional = ["said.id", "said.lines.*.pieces"]',
        "m", "m.toml",
    )  # fmt: skip
    day = "2026-03-01"
    lines = [
        f"ann,{day}," + cell(id=7, revenue=20.5, lines=[{"pieces": 1}, {"pieces": 2}]),
        f"bob,{day}," + cell(revenue="1,250.00"),
        f"cid,{day},",
        f"dan,{day},\"{{'revenue': 3}}\"",
        f"eve,{day},7",
    ]
    file = write(tmp_path / "a.csv", ("who,at,said\n" + "\n".join(lines)).encode())
    events, refused, _ = read(file, mapping)
    found = [(e.user, e.order, e.amount, e.quantity) for e in events]
    assert sorted(found) == [
        ("ann", "7", 20.5, 3.0), ("bob", None, 1250.0, 1.0), ("cid", None, None, 1.0),
    ]  # fmt: skip
    # What is no JSON is told, and no amount is lost silently.
    assert [(one.row, one.reason) for one in refused] == [(4, "bad_number"), (5, "bad_number")]
    assert "revenue" in refused[0].why
    # A column of that name counts before what is in another one.
    file = write(tmp_path / "b.csv", f"who,at,said,said.revenue\nann,{day},x,4\n".encode())
    without = mapping.model_copy(update={"order": (), "quantity": ()})
    events, refused, _ = read(file, without)
    assert [e.amount for e in events] == [4.0]
    file = write(tmp_path / "c.csv", b"who,at,more\n")
    with pytest.raises(MappingError, match=r"has no column 'said\.revenue'"):
        read(file, mapping)


def test_json_within_a_text_of_json_is_reached(tmp_path: Path) -> None:
    mapping = parse_mapping(
        'user = "who"\ntime = "at"\nevent = "Order Completed"\namount = "said.revenue"',
        "m",
        "m.toml",
    )
    said = {"who": "ann", "at": "2026-03-01", "said": json.dumps({"revenue": 20})}
    events, refused, _ = read(write(tmp_path / "a.jsonl", json.dumps(said).encode()), mapping)
    assert not refused
    assert [e.amount for e in events] == [20.0]


def test_of_two_delimiters_that_fit_alike_the_tab_is_the_one(tmp_path: Path) -> None:
    mapping = parse_mapping(
        'user = "who"\ntime = "at"\nevent = "Order Completed"\ncategory = "list"\n'
        'header = ["at", "who", "order", "list"]',
        "m", "m.toml",
    )  # fmt: skip
    file = write(tmp_path / "a.tsv", b"1772323200\tann\to1\t;sku;2;39.98\n")
    events, _, _ = read(file, mapping)
    assert [(e.user, e.category) for e in events] == [("ann", ";sku;2;39.98")]
