"""Text that others chose does nothing in a terminal, and ordinary text is left alone."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.safe import safe, safe_facts, safe_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("two\nlines\r\tand a tab", r"two\nlines\r\tand a tab"),
        ("\x00\x08\x7f\x85", r"\x00\x08\x7f\x85"),
        ("abc\u202etxt.exe", r"abc\u202etxt.exe"),
        ("\u2066a\u2069\u200e\u200f\u061c", r"\u2066a\u2069\u200e\u200f\u061c"),
        ("a\u200bb\ufeffc\u00add\u2060", r"a\u200bb\ufeffc\xadd\u2060"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("lone \ud83d half", r"lone \ud83d half"),
        ("\U000e0041\u3164\u034f", r"\U000e0041\u3164\u034f"),
        ("a\u200db", r"a\u200db"),
        ("\ufe0fa\ufe0f\ufe0f", "\\ufe0fa\ufe0f\\ufe0f"),
    ],
)
def test_what_a_terminal_obeys_or_hides_is_written_out(text: str, shown: str) -> None:
    assert safe(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "plain id-17850",
        "Zoë Ångström, Łódź",
        "e\u0301 in two characters",
        "山田\u3000太郎",
        "김철수",
        "משה كريم",
        "1\u00a0000 €",
        "👩🏽\u200d🚀 ❤\ufe0f\u200d🔥 👨\u200d👩\u200d👧 🇩🇪",
        "葛\U000e0100城",
        r"C:\new\x1b",
        "[bold]no markup[/]",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert safe(text) == text


@given(st.text(st.characters(exclude_categories=())))
def test_nothing_that_is_obeyed_is_left(text: str) -> None:
    shown = safe(text)
    obeyed = [
        char
        for char in shown
        if unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}
        or unicodedata.bidirectional(char)
        in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    ]
    assert obeyed == []
    assert safe(shown) == shown


def test_lines_of_a_message_after_the_first_are_indented() -> None:
    assert safe_lines("one\ntwo\x1b[2J") == "one\n    two\\x1b[2J"


def test_facts_are_made_safe_in_every_corner() -> None:
    facts = {"a\n": ["b\x07", ("c\x1b", 1, None)], "d": {"e": 2.5, "f": True}}
    assert safe_facts(facts) == {
        r"a\n": [r"b\x07", (r"c\x1b", 1, None)],
        "d": {"e": 2.5, "f": True},
    }
