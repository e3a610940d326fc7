"""Stored hashes must mean the same in every process, alone and in company."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.hashing import change_identity, hash_text, hash_texts, user_hashes

TEXTS = st.one_of(
    st.binary(max_size=20),
    st.text(max_size=40).map(str.encode),
    st.binary(min_size=120, max_size=300),
)


@given(st.lists(TEXTS, max_size=12))
@settings(max_examples=200)
def test_one_by_one_and_together_are_the_same(texts: list[bytes]) -> None:
    assert hash_texts(texts).tolist() == [hash_text(text) for text in texts]


@given(TEXTS, st.lists(TEXTS, max_size=4), st.lists(TEXTS, max_size=4))
def test_neighbours_change_nothing(text: bytes, left: list[bytes], right: list[bytes]) -> None:
    assert hash_texts([*left, text, *right])[len(left)] == hash_texts([text])[0]


@given(TEXTS)
def test_none_is_zero(text: bytes) -> None:
    assert 1 <= hash_text(text) < 1 << 64


def test_the_values_are_those_already_stored() -> None:
    """A change here makes every stored ring, bucket and change id mean something else."""
    assert hash_text(b"user-1") == KNOWN_SHORT
    assert hash_text(b"x" * 1_000) == KNOWN_LONG


def test_texts_at_and_over_the_limit_differ() -> None:
    texts = [b"a" * n for n in range(1, 300)]
    assert len(set(hash_texts(texts).tolist())) == len(texts)


def test_similar_texts_spread_over_buckets() -> None:
    hashes = hash_texts([b"user-%d" % i for i in range(32_000)])
    assert len(set(hashes.tolist())) == 32_000
    for shift in (0, 59):
        buckets = [0] * 32
        for value in hashes.tolist():
            buckets[value >> shift & 31] += 1
        assert min(buckets) > 800
        assert max(buckets) < 1_200


KNOWN_SHORT = 12324926934393652732
KNOWN_LONG = 16799662249880728926
KNOWN_USER = 2096598087146281885
KNOWN_IDENTITY = "862f2ee73f3652f0d2ba9123b9dd23f9"


def test_hashes_of_users_depend_on_the_key_and_on_every_byte() -> None:
    users = [b"u1", b"u1\0", b"u1 ", b"u2", b"u" * 300]
    keyed = user_hashes(users, b"key").tolist()
    assert (
        len({*keyed, *user_hashes(users, b"other").tolist(), *user_hashes(users, b"").tolist()})
        == 15
    )
    assert user_hashes(users[::-1], b"key").tolist() == keyed[::-1]
    assert user_hashes([], b"key").tolist() == []


def test_change_identities_of_users_built_to_collide_differ() -> None:
    # Words that differ in their highest bits alone cancel out in the hash without a key.
    alike = [b"aaaaaaa1bbbbbbbq", b"aaaaaaaqbbbbbbb1", b"u1", b"u1\0"]
    assert len({change_identity(user, key) for user in alike for key in (b"", b"key")}) == 8
    assert len(change_identity(b"u1", b"key")) == 32


def test_known_hashes_of_users() -> None:
    """What is stored must mean the same in every version."""
    assert user_hashes([b"user-1"], b"key").tolist() == [KNOWN_USER]
    assert change_identity(b"user-1", b"key") == KNOWN_IDENTITY
