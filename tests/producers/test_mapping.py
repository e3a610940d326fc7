"""A mapping is declared so that what is wrong with it is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from producers.mapping import MappingError, load_mapping, shipped_names
from producers.mapping_help import EXAMPLE_PURCHASES, EXAMPLE_VIEWS, HELP_EXAMPLE
from stream.units import iso
from tests.producers.test_row_mapper import RULE, event, mapping, message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("user = ", "this is no TOML"),
        ('time = "t"\nevent = "e"', "user: is missing"),
        ('user = "u"\ntime = "t"\nevent = "e"\nwho = 1', "who: there is no such key"),
        (
            'user = "u"\ntime = "t"\nevent = "e"\nrules = [{column = "p", equals = false, reject = "x"}]',
            "rules.1.equals = false: expected text, as it stands in the file",
        ),
        ('user = 3\ntime = "t"\nevent = "e"', "user = 3"),
        ('user = "u"\ntime = "t"\nevent = ""', "event.constant"),
        ('user = "u"\ntime = "t"\nevent = 5', "event = 5: Input should be a valid table"),
        ('user = "u"\ntime = "t"\nevent = {}', "expected an event name"),
        ('user = "u"\nevent = "e"\ntime = {column = "t", zone = "Mars/Base"}', "'Mars/Base'"),
        ('user = "u"\nevent = "e"\ntime = {column = "t", zones = {IST = "India"}}', "time.zones"),
        ('user = "u"\nevent = "e"\ntime = {column = "t", format = "DD.MM"}', "strptime"),
        ('user = "u"\nevent = "e"\ntime = {column = "t", format = "%Q"}', "time.format = '%Q'"),
        (f'{RULE}event = "e"', "rules.1: expected a test"),
        (f"{RULE}empty = true", "rules.1: expected either event"),
        (f'{RULE}matches = "("\nreject = "x"', "regular expression"),
        ('user = "u"\ntime = "t"\nevent = "e"\ndecimal = ";"', "decimal = ';'"),
    ],
)  # fmt: skip
def test_a_wrong_mapping_names_file_key_and_expectation(text: str, expected: str) -> None:
    with pytest.raises(MappingError) as caught:
        mapping(text)
    assert str(caught.value).startswith("mapping test.toml: ")
    assert expected in str(caught.value)


def test_mappings_are_found_by_name_or_path(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(EXAMPLE_PURCHASES, encoding="utf-8")
    assert load_mapping(tmp_path / "mine.toml").name == "mine"
    assert load_mapping(str(tmp_path / "mine.toml")).columns == (
        "customer", "date", "amount",
    )  # fmt: skip
    with pytest.raises(MappingError, match=r"no mapping 'onlineretail'; shipped are .*taobao"):
        load_mapping("onlineretail")
    with pytest.raises(MappingError, match="no such file"):
        load_mapping("nowhere.toml")


def test_every_shipped_mapping_loads_and_says_what_it_is_for() -> None:
    found = {name: load_mapping(name) for name in shipped_names()}
    assert set(found) == {
        "ga4", "matomo", "online_retail", "rees46", "retailrocket", "reviews", "rudderstack", "segment",
        "shopify", "shopify_api", "simple", "snowplow", "stripe", "stripe_api", "taobao", "woocommerce",
        "woocommerce_api",
    }  # fmt: skip
    assert all(one.description for one in found.values())


def test_the_guide_names_every_shipped_mapping_that_people_choose() -> None:
    page = (Path(__file__).parents[2] / "ops" / "guide" / "files.md").read_text(encoding="utf-8")
    listed = page[page.index("These ship") : page.index("To change one")]
    # Those for JSON come along with another of the same source.
    alone = [name for name in shipped_names() if not name.endswith("_api")]
    assert sorted(re.findall(r"`(\w+)`", listed)) == alone


def test_missing_columns_are_named_with_what_there_is() -> None:
    with pytest.raises(MappingError, match=r"user: .* no column 'customer'.*'Customer'.*has Custo"):
        load_mapping("simple").check({"Customer", "date", "amount"})
    load_mapping("ga4").check({"user_pseudo_id", "event_timestamp", "event_name"})


def test_a_shipped_mapping_that_would_fit_is_named() -> None:
    columns = {"Name", "Email", "Financial Status", "Created at", "Lineitem quantity", "Total"}
    with pytest.raises(MappingError, match=r"Total; of those that ship, shopify would fit$"):
        load_mapping("simple").check(columns)
    with pytest.raises(MappingError, match=r"it has a$"):
        load_mapping("simple").check({"a"})


def test_the_examples_in_the_help_work() -> None:
    for example in (EXAMPLE_PURCHASES, EXAMPLE_VIEWS):
        for line in example.splitlines():
            assert line in HELP_EXAMPLE
    bought = event(mapping(EXAMPLE_PURCHASES), customer="ann", date="2026-03-01", amount="19.90")
    assert message(bought)["properties"]["revenue"] == 19.9
    shipped = load_mapping("simple")
    assert mapping(EXAMPLE_PURCHASES).model_dump(exclude={"name", "description"}) == (
        shipped.model_dump(exclude={"name", "description"})
    )
    seen = event(
        mapping(EXAMPLE_VIEWS), visitor="bob", seen_at="01.03.2026 12:00", action="look",
        department="shoes",
    )  # fmt: skip
    assert seen.event == "Product Viewed"
    assert iso(seen.time_ms) == "2026-03-01T11:00:00.000Z"
