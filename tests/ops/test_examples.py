"""README and guide show what the code says today."""

from __future__ import annotations

import json
import re

import pytest

from ops.examples import PAGES, examples, with_example
from stream.events import SEGMENT_CHANGE

pytestmark = pytest.mark.slow


def rounded(text: str) -> str:
    """To nine digits: another machine may add up in another order."""
    return re.sub(r"\d+\.\d{9,}", lambda number: f"{float(number[0]):.9g}", text)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_the_example_of_a_run(name: str) -> None:
    page = PAGES[name].read_text(encoding="utf-8")
    assert rounded(with_example(page, name)) == rounded(page), "make examples writes it anew"


def test_the_change_is_one() -> None:
    record = json.loads(examples()["change"].removeprefix("```json").removesuffix("```"))
    assert SEGMENT_CHANGE.validate_python(record) == record
    parts = sum(reason["contribution"] for reason in record["why"])
    assert parts + record["rest"] == pytest.approx(record["margin"])
    assert all(len(line) <= 110 for line in examples()["change"].splitlines())


def test_why_has_all_that_the_guide_speaks_of() -> None:
    """If not, there is somebody better than `ops.examples.WHO`."""
    what, acts, silence = re.split("If they (?:act now|stay silent)\n", examples()["why"])
    assert "What alone would move them to" in what
    assert " sd, by acting)" in what
    assert len(acts.splitlines()) >= 2
    assert re.search(r"in \d+ days: to ", silence)


def test_a_page_without_a_place_for_an_example_is_told() -> None:
    with pytest.raises(LookupError, match="0 places for the example 'change'"):
        with_example("# nothing", "change")
