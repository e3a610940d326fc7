"""A bounded look at what `make fuzz` looks at without end, and everything it ever found, again."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import grammar
from tests.fuzz.properties import CHECKS
from tests.strategies import MESSAGES

CORPUS = Path(__file__).parent / "corpus"
KEPT = sorted(file for file in CORPUS.glob("*/*") if file.is_file())


@pytest.mark.parametrize("file", KEPT, ids=lambda file: f"{file.parent.name}/{file.name[:12]}")
def test_nothing_that_was_found_is_found_again(file: Path) -> None:
    CHECKS[file.parent.name](file.read_bytes())


def test_every_target_has_a_corpus_of_small_files() -> None:
    assert {file.parent.name for file in KEPT} == set(CHECKS)
    assert max(file.stat().st_size for file in KEPT) <= 8_192


@pytest.mark.parametrize("number", range(len(MESSAGES)))
def test_the_known_messages_hold(number: int) -> None:
    raw, _, _ = MESSAGES[number]
    CHECKS["messages"](raw or b"")


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32))
def test_messages_of_the_grammar(seed: int) -> None:
    CHECKS["messages"](grammar.message(Random(seed)))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=64))
def test_noise(raw: bytes) -> None:
    CHECKS["messages"](raw)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32))
def test_rows_of_the_grammar(seed: int) -> None:
    CHECKS["rows"](grammar.row(Random(seed)))


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_letters_of_the_grammar(seed: int) -> None:
    CHECKS["letters"](grammar.letter(Random(seed)))
