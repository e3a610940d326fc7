"""Of a text the words are taken, in any language, and nothing from which it could be read again."""

from __future__ import annotations

import pytest

from stream.reviews.words import BUCKETS, MOST_WORDS, words_of


def test_words_count_however_they_are_written() -> None:
    assert (
        words_of("Great fit!")
        == words_of("  great,\nFIT ... ")
        == words_of("\uff47\uff52\uff45\uff41\uff54 fit")
    )
    assert words_of("great fit") != words_of("great"), "a second word"
    assert words_of("don't") == words_of("DON'T")
    assert words_of("") == words_of(" .,! ") == []


def test_pairs_tell_not_good_from_good() -> None:
    apart = {*words_of("not"), *words_of("good")}
    pair = set(words_of("not good")) - apart
    assert len(pair) == 1
    assert not pair & set(words_of("good, not"))


def test_forms_of_a_word_share_its_beginning() -> None:
    assert set(words_of("disappointed")) & set(words_of("disappointing"))
    assert not set(words_of("good")) & set(words_of("goat"))


@pytest.mark.parametrize(
    ("text", "alike"),
    [
        ("这件衣服很好", "衣服"),
        ("とても良いです", "良い"),
        ("คุณภาพดีมาก", "ดีมาก"),
        ("ພາສາລາວ", "ລາວ"),
        ("អាវនេះល្អ", "ល្អ"),
    ],
)
def test_where_there_are_no_blanks_groups_of_letters_count(text: str, alike: str) -> None:
    found, part = set(words_of(text)), set(words_of(alike))
    assert len(part) > 1
    assert part & found, "what is common is found"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("अच्छा कपड़ा", 2),
        ("très bon", 2),
        ("очень хорошо", 2),
        ("جيد جداً", 2),
        ("아주 좋아요", 2),
        ("👍 😀", 2),
    ],
)
def test_marks_are_part_of_their_words(text: str, words: int) -> None:
    beginnings = sum(len(word) > 5 for word in text.split())
    assert len(words_of(text)) == words + beginnings + 1, "the words, and their pair"


def test_long_and_broken_texts_are_read_as_far_as_can_be() -> None:
    long = " ".join(f"w{number}" for number in range(20 * MOST_WORDS))
    assert 0 < len(words_of(long)) <= 2 * MOST_WORDS
    assert len(words_of("好" * 100_000)) <= 3
    assert words_of("good \ud83d fit") == words_of("good fit")
    found = words_of(long)
    assert found == sorted(set(found))
    assert 0 <= found[0] <= found[-1] < BUCKETS
