"""Reviews are read as Segment and RudderStack write them, by every reader alike; their text goes no further."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from importlib.util import find_spec
from random import Random
from typing import Any, Literal

import numpy as np
import pytest

from consumers.decode import Batch, Decoder
from stream.acting import Acting, act_together
from stream.config import Reviews, Settings, Worker
from stream.events import Counts, Reason
from stream.features import DEFAULT_FEATURES, FeatureTable
from stream.oracle import Judge, Message, Oracle
from stream.partition import Partition
from stream.reviews.words import words_of
from stream.store.memory import MemoryStore
from stream.store.state import Position
from tests.fakes import FakeMessage
from tests.strategies import REVIEW, START_MS, encoded

SETTINGS = Settings.model_validate({"reviews": {"enabled": True}})
TABLE = SETTINGS.table()
NOW_MS = START_MS + 86_400_000
Way = Literal["plain", "compiled"]
WAYS: tuple[Way, ...] = ("plain", "compiled") if find_spec("numba") else ("plain",)
DECODERS = {way: Decoder(TABLE, Worker(decoder=way)) for way in WAYS}


def batch_of(values: Sequence[bytes], way: Way = "plain", table: FeatureTable = TABLE) -> Batch:
    decoder = DECODERS[way] if table is TABLE else Decoder(table, Worker(decoder=way))
    messages = [
        FakeMessage(value, timestamp_ms=START_MS, place=at) for at, value in enumerate(values)
    ]
    return decoder.decode(messages, NOW_MS).batch(0, 0, len(values))


def review(body: Any = ..., rating: Any = ..., **fields: Any) -> bytes:
    said = {"product_id": "p1", "review_body": body, "rating": rating, **fields.pop("more", {})}
    properties = {name: value for name, value in said.items() if value is not ...}
    return encoded(**({"event": REVIEW, "properties": properties} | fields))


GOOD: tuple[tuple[bytes, float | None, str], ...] = (
    (review("I love this product", 5.0), 1.0, "I love this product"),
    (review("Good product", "4"), 0.5, "Good product"),
    (review(rating=1), -1.0, ""),
    (review("no stars", None), None, "no stars"),
    (review("no stars", " "), None, "no stars"),
    (review(None, 3), 0.0, ""),
    (review(["a", "list"], 2), -0.5, ""),
    (review(), None, ""),
    (review("Très \u00ab bon \u00bb", 5), 1.0, "Très bon"),
    (review("a \ud800 half", 5), 1.0, "a half"),
    (review("x", 5, event="Reviewed Product"), 1.0, "x"),
    (review("x", 5, event="product reviewed "), 1.0, "x"),
    (b"\xef\xbb\xbf" + review("x", 5), 1.0, "x"),
    (encoded(event=REVIEW, properties=None), None, ""),
    (encoded(event=REVIEW, properties=[]), None, ""),
)
BAD: tuple[tuple[bytes, Reason], ...] = (
    (review("secret words", 6), Reason.OUT_OF_RANGE),
    (review("secret words", 0), Reason.OUT_OF_RANGE),
    (review("secret words", "words and no number"), Reason.BAD_NUMBER),
    (review("secret words", [5]), Reason.WRONG_TYPE),
    (review("secret words", True), Reason.WRONG_TYPE),
    (encoded(event=REVIEW, properties="secret words"), Reason.WRONG_TYPE),
)


@pytest.mark.parametrize("way", WAYS)
def test_ratings_and_texts_are_read(way: Way) -> None:
    batch = batch_of([value for value, _, _ in GOOD], way)
    assert batch.counts.applied == len(GOOD)
    assert batch.reviews is not None
    assert batch.reviews.places.tolist() == list(range(len(GOOD)))
    told = [None if np.isnan(one) else one for one in batch.reviews.rating.tolist()]
    assert told == [rating for _, rating, _ in GOOD]
    assert [one.tolist() for one in batch.reviews.words] == [words_of(text) for *_, text in GOOD]


@pytest.mark.parametrize("way", WAYS)
def test_a_rating_that_cannot_be_is_refused_without_a_word_of_the_text(way: Way) -> None:
    batch = batch_of([value for value, _ in BAD] + [GOOD[0][0]], way)
    assert [reject.reason for reject in batch.rejects] == [reason for _, reason in BAD]
    assert batch.reviews is not None
    assert batch.reviews.places.tolist() == [0], "of what is left"
    assert not any("words" in reject.detail for reject in batch.rejects)


@pytest.mark.parametrize("value", [value for value, *_ in (*GOOD, *BAD)])
def test_the_oracle_reads_the_same(value: bytes) -> None:
    outcome = Judge(SETTINGS.features, Worker(), now_ms=NOW_MS).judge(Message(value, START_MS, 0))
    batch = batch_of([value])
    if outcome.event is None:
        assert [reject.reason for reject in batch.rejects] == [outcome.reason]
        return
    assert batch.reviews is not None
    rating = outcome.event.rating
    assert batch.reviews.rating[0] == rating or (
        np.isnan(batch.reviews.rating[0]) and rating is None
    )
    assert tuple(batch.reviews.words[0].tolist()) == outcome.event.words
    assert int(batch.id[0]) == outcome.event.id


def test_another_scale_is_a_setting() -> None:
    ratings = Reviews(worst_rating=0, best_rating=10)
    value = review("fine", 10)
    message = FakeMessage(value, timestamp_ms=START_MS)
    block = Decoder(TABLE, Worker(decoder="plain"), ratings=ratings).decode([message], NOW_MS)
    assert block.reviews is not None
    assert block.reviews.rating.tolist() == [1.0]
    judge = Judge(SETTINGS.features, Worker(), now_ms=NOW_MS, ratings=ratings)
    event = judge.judge(Message(value, START_MS, 0)).event
    assert event is not None
    assert event.rating == 1.0


@pytest.mark.parametrize("way", WAYS)
def test_a_review_is_known_by_its_id_whatever_message_carries_it(way: Way) -> None:
    values = [
        review("x", 5, messageId=message, more={"review_id": known})
        for message, known in (("m1", "r1"), ("m2", "r1"), ("m3", "r2"), ("m4", None), ("m4", " "))
    ]
    batch = batch_of(values, way)
    assert len(set(batch.id.tolist())) == 3
    partition = Partition(0, TABLE, SETTINGS.publish.rule(), Position([0, 0], TABLE.schema), 0)
    assert partition.fold(batch.columns(partition))[1] == 2


@pytest.mark.parametrize("way", WAYS)
def test_where_no_feature_reads_reviews_nothing_of_them_is_read(way: Way) -> None:
    values = [value for value, _, _ in GOOD] + [value for value, _ in BAD]
    batch = batch_of(values, way, FeatureTable(DEFAULT_FEATURES))
    assert batch.counts.ignored == len(values)
    assert batch.reviews is None


# -- a shop ---------------------------------------------------------------------------------------

GOOD_WORDS, BAD_WORDS = ("love", "perfect", "soft"), ("awful", "itchy", "returned")
PLAIN_WORDS = ("the", "dress", "is", "very", "size")


def shop(count: int) -> list[bytes]:
    """Reviews of fifty users; four in ten come without a rating, and some twice."""
    chance, values = Random(7), []
    for at in range(count):
        good = chance.random() < 0.7
        text = " ".join(chance.choices((GOOD_WORDS if good else BAD_WORDS) + PLAIN_WORDS, k=12))
        rating: Any = chance.choice([4, 5, "5"] if good else [1, 2])
        values.append(
            review(
                text if chance.random() < 0.9 else ...,
                rating if chance.random() < 0.6 else ...,
                userId=f"user-{at % 50}",
                messageId=f"m{at - (at % 17 == 0)}",
            )
        )
    return values


def partition_from(store: MemoryStore) -> Partition:
    taken = store.acquire(0, "token")
    assert taken is not None
    partition = Partition(0, TABLE, SETTINGS.publish.rule(), taken[1], taken[0])
    partition.load(store.load(0))
    partition.past.load_ids(store.load_ids(0))
    partition.past.load_words(store.load_words(0))
    assert partition.past.missing() == ""
    return partition


def played(values: Sequence[bytes], size: int, *, take_over: bool) -> Partition:
    """A partition after some messages, in batches, each committed."""
    store = MemoryStore()
    store.create(0, "token", Position([0, 0], TABLE.schema))
    partition = partition_from(store)
    for start in range(0, len(values), size):
        events = batch_of(values[start : start + size]).columns(partition)
        act_together([Acting(partition, events, START_MS)], NOW_MS)
        commit = partition.commit([0, 0], Counts(), NOW_MS)
        store.commit(0, "token", commit)
        partition.committed(commit)
        if take_over:
            partition = partition_from(store)
    for secret in (b"perfect", b"itchy"):
        assert secret not in pickle.dumps(store), "no word of a text is stored"
    return partition


def test_any_batches_and_any_owner_come_to_what_the_oracle_says() -> None:
    values = shop(400)
    oracle = Oracle(SETTINGS.features, Worker(), now_ms=NOW_MS)
    for value in values:
        oracle.take(Message(value, START_MS, 0))
    vectors = []
    for size, take_over in ((400, False), (37, False), (90, True)):
        partition = played(values, size, take_over=take_over)
        found = TABLE.vectors(partition.rows, NOW_MS)
        vectors.append(found)
        for name, vector in zip(partition.names, found.tolist(), strict=True):
            readings = oracle.users[name.decode()].readings(SETTINGS.features, NOW_MS)
            for feature, value in zip(TABLE.names, vector, strict=True):
                assert readings[feature].agrees(value, 1e-9), (name, feature)
        assert partition.past.wordings[0].told[:2] == [*oracle.wordings[0].rated.values()]
    feels = vectors[0][:, TABLE.names.index("sentiment_90d")]
    assert feels.min() < 0 < feels.max()
    assert len(set(feels.round(3).tolist())) > 40, "texts without a rating say something, too"


def test_words_that_vanish_from_the_store_are_missed() -> None:
    store = MemoryStore()
    store.create(0, "token", Position([0, 0], TABLE.schema))
    partition = partition_from(store)
    partition.fold(batch_of(shop(60)).columns(partition))
    store.commit(0, "token", partition.commit([0, 0], Counts(), NOW_MS))
    taken = store.acquire(0, "token")
    assert taken is not None
    again = Partition(0, TABLE, SETTINGS.publish.rule(), taken[1], taken[0])
    again.load(store.load(0))
    again.past.load_ids(store.load_ids(0))
    again.past.load_words(list(store.load_words(0))[:-1])
    assert again.past.missing().endswith("words that reviews have taught")


def test_a_text_is_nothing_before_enough_was_seen() -> None:
    partition = Partition(0, TABLE, SETTINGS.publish.rule(), Position([0, 0], TABLE.schema), 0)
    partition.fold(
        batch_of([review("awful"), review("awful", 1, messageId="m2")]).columns(partition)
    )
    row = dict(zip(TABLE.names, TABLE.vectors(partition.rows, START_MS)[0].tolist(), strict=True))
    assert row["sentiment_90d"] == -1.0, "of the one that says it"
    assert row["reviews_180d"] == 2.0
