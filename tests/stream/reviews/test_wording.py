"""What words say is learned once from each rated text, to the same bits whoever learns it."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from stream.events import Ints
from stream.oracle import OracleWording
from stream.reviews.wording import LEAST, Wording
from stream.reviews.words import words_of

GOOD, BAD = ("love", "perfect", "soft"), ("awful", "itchy", "returned")
PLAIN = ("the", "dress", "is", "a", "shirt", "very", "of", "size", "and", "colour")


def texts(count: int, seed: int = 1) -> list[tuple[Ints, bool]]:
    """Words of texts, and whether each was rated good: a word or two in ten tell it."""
    chance, found = Random(seed), []
    for _ in range(count):
        good = chance.random() < 0.8
        told = chance.choices(GOOD if good else BAD, k=chance.randrange(1, 3))
        drawn = [*told, *chance.choices(PLAIN, k=9)]
        chance.shuffle(drawn)
        found.append((np.array(words_of(" ".join(drawn)), np.int64), good))
    return found


def test_what_was_rated_good_is_told_from_what_was_rated_bad() -> None:
    wording, right = Wording(), []
    for place, (words, good) in enumerate(texts(600)):
        if place >= 300:
            right.append((wording.likely_good(words) > 0.5) == good)
        wording.learn(words, good=good)
    assert np.mean(right) > 0.97
    assert wording.likely_good(np.array(words_of("awful"))) < 0.5


def test_nothing_is_known_before_enough_of_both_was_seen() -> None:
    wording = Wording()
    for _ in range(5 * LEAST):
        wording.learn(np.array([1]), good=True)
    assert not wording.knows
    for place in range(LEAST):
        assert not wording.knows, place
        wording.learn(np.array([2]), good=False)
    assert wording.knows


def test_what_is_stored_is_all_there_is() -> None:
    first, second = texts(80), texts(80, seed=2)
    through, stored = Wording(), dict[bytes, bytes]()
    for words, good in first:
        through.learn(words, good=good)
    changes = through.changes()
    assert changes is not None
    take(stored, changes)
    through.keep()
    assert through.changes() is None
    restored = Wording(through.told)
    assert restored.missing == len(stored)
    for key, entry in stored.items():
        restored.load(key, entry)
        restored.load(key, entry)
    assert restored.missing == 0
    assert restored.changes() is None
    for words, good in second:
        for one in (through, restored):
            one.learn(words, good=good)
    assert restored.told == through.told
    assert restored.changes() == through.changes()
    assert Wording(through.told).missing == through.told[-1] > 0, "nothing was given back"


def take(stored: dict[bytes, bytes], changes: tuple[bytes, bytes]) -> None:
    keys, entries = changes
    for place in range(len(keys) // 2):
        stored[keys[2 * place :][:2]] = entries[16 * place :][:16]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_oracle_comes_to_the_same_bits(seed: int) -> None:
    wording, oracle = Wording(), OracleWording()
    for words, good in texts(200, seed):
        known = [*words.tolist()]
        assert wording.likely_good(words) == oracle.likely_good(known)
        # In another order: a sum of weights does not depend on it.
        oracle.sentiment(1.0 if good else -0.5, known[::-1])
        wording.learn(words, good=good)


def test_a_text_without_words_teaches_what_is_usual() -> None:
    wording = Wording()
    assert wording.told == []
    for _ in range(50):
        wording.learn(np.empty(0, np.int64), good=True)
    assert wording.likely_good(np.empty(0, np.int64)) > 0.8
    assert wording.changes() is None
