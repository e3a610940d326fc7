"""Stable hashes of text: what is stored must mean the same in every process.

Comes in: text. Goes out: `uint64`, or the first part of a change's id. Python's own ``hash`` is
salted a process and never stored.

`hash_texts` is fast and has no key: whoever can choose texts can choose their hashes. It is for
what harms nobody but the chooser, such as message ids. `user_hashes` and `change_identity` are
keyed with the namespace's secret: nobody can choose to be in the trainer's sample, or to have the
change ids of another user.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import cast

import numpy as np
import numpy.typing as npt

from stream.events import Hashes, Ints

_WORDS = 16
_MASK = (1 << 64) - 1
_LONGEST_PADDED = 1_024
"""Letters up to which texts of different lengths are padded: one long text is not paid n times."""


def _multipliers() -> Hashes:
    digest = b"".join(blake2b(b"segstream %d" % i, digest_size=8).digest() for i in range(_WORDS))
    return np.frombuffer(digest, dtype="<u8") | np.uint64(1)


MULTIPLIERS = _multipliers()


def mix(mixed: Hashes) -> Hashes:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit reaches every other."""
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def hash_texts(texts: list[bytes] | list[str]) -> Hashes:
    """Hashes of n texts (their UTF-8) as ``(n,)`` uint64, never 0.

    Words of eight bytes are multiplied by random odd numbers and added (Dietzfelbinger 1996),
    then finished. Padding adds nothing, so a text's hash does not depend on its neighbours; texts
    that end like padding, and those of more than 128 bytes, are digested first.
    """
    if not texts:
        return np.empty(0, np.uint64)
    letters = letters_of(texts)
    if letters is None or letters.shape[1] > 8 * _WORDS:
        encoded = [t.encode() if isinstance(t, str) else t for t in texts]
        letters = _padded(np.array([_shortened(text) for text in encoded], dtype=np.bytes_))
    words = -(-letters.shape[1] // 8)
    block = np.zeros((len(texts), words), dtype="<u8")
    block.view(np.uint8).reshape(len(texts), -1)[:, : letters.shape[1]] = letters
    mixed = np.zeros(len(texts), np.uint64)
    with np.errstate(over="ignore"):
        for word in range(words):
            mixed += block[:, word] * MULTIPLIERS[word] ^ (block[:, word] >> np.uint64(32))
        hashes = mix(mixed)
    return np.maximum(hashes, np.uint64(1))


def _shortened(text: bytes) -> bytes:
    """A text that can be padded; its digest in place of one that cannot."""
    if len(text) > 8 * _WORDS or text.endswith(b"\0"):
        return blake2b(text, digest_size=64).digest()
    return text


def letters_of(texts: list[bytes] | list[str]) -> npt.NDArray[np.uint8] | None:
    """Bytes of n texts, ``(n, longest)``, padded with zeros.

    None if one of them is long, not ASCII, or has a zero of its own, which nobody could tell from
    padding.

    Texts of one length, as ids and times mostly are, are joined and cut: twice as fast.
    """
    first = texts[0]
    width = len(first)
    if isinstance(first, str) and width and set(map(len, texts)) == {width}:
        joined = "".join(cast("list[str]", texts))
        if not joined.isascii() or "\0" in joined:
            return None
        return np.frombuffer(joined.encode(), np.uint8).reshape(len(texts), width)
    if max(map(len, texts)) > _LONGEST_PADDED or _any_zero(texts):
        return None
    try:
        return _padded(np.array(texts, dtype=np.bytes_))
    except UnicodeEncodeError:
        return None


def _any_zero(texts: list[bytes] | list[str]) -> bool:
    if isinstance(texts[0], str):
        return "\0" in "".join(texts)
    return b"\0" in b"".join(texts)


def _padded(texts: npt.NDArray[np.bytes_]) -> npt.NDArray[np.uint8]:
    return texts.view(np.uint8).reshape(len(texts), -1)


def hash_text(text: bytes) -> int:
    """The same hash for one text, in plain integers."""
    text = _shortened(text).rstrip(b"\0")
    mixed = 0
    for index in range(-(-len(text) // 8)):
        word = int.from_bytes(text[8 * index : 8 * index + 8].ljust(8, b"\0"), "little")
        mixed += (word * int(MULTIPLIERS[index]) & _MASK) ^ (word >> 32)
    mixed &= _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return max(mixed ^ (mixed >> 31), 1)


def user_hashes(users: Sequence[bytes], key: bytes) -> Hashes:
    """Keyed hashes of n users (UTF-8) as ``(n,)`` uint64, never 0: BLAKE2b, RFC 7693.

    Args:
        key: up to 64 bytes; none is a hash without a key.
    """
    blank = blake2b(digest_size=8, key=key, person=b"segstream sample")

    def digest(user: bytes) -> bytes:
        hashed = blank.copy()
        hashed.update(user)
        return hashed.digest()

    hashes: Hashes = np.frombuffer(b"".join(map(digest, users)), dtype="<u8")
    return np.maximum(hashes, np.uint64(1), dtype=np.uint64)


def change_identity(user: bytes, key: bytes) -> str:
    """The part of a change's id that stands for its user: 128 bits of keyed BLAKE2b, in hex."""
    return blake2b(user, digest_size=16, key=key, person=b"segstream change").hexdigest()


def key_print(key: bytes) -> str:
    """What tells one secret of a namespace from another without telling either."""
    return blake2b(digest_size=8, key=key, person=b"segstream secret").hexdigest()


def partitions_of(keys: Sequence[bytes], partitions: int) -> Ints:
    """What `partition_of` says of n keys, as ``(n,)``: a word of each at a time."""
    if not keys:
        return np.empty(0, np.int64)
    multiplier = np.uint32(0x5BD1E995)
    lengths = np.fromiter(map(len, keys), np.uint32, len(keys))
    words = int(lengths.max()) // 4 + 1
    block = _padded(np.array(keys, dtype=f"S{4 * words}")).view("<u4")
    whole = lengths // 4
    mixed = np.uint32(0x9747B28C) ^ lengths
    for at in range(words - 1):
        word = block[:, at] * multiplier
        word = (word ^ (word >> np.uint32(24))) * multiplier
        mixed = np.where(whole > at, (mixed * multiplier) ^ word, mixed)
    # Behind its last whole word, a key has up to three bytes, and then padding.
    rest = (mixed ^ block[np.arange(len(keys)), whole]) * multiplier
    mixed = np.where(lengths % 4 > 0, rest, mixed)
    mixed = (mixed ^ (mixed >> np.uint32(13))) * multiplier
    mixed = (mixed ^ (mixed >> np.uint32(15))) & np.uint32(0x7FFFFFFF)
    return mixed.astype(np.int64) % partitions


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that Kafka's own clients give a key: MurmurHash2, positive, modulo.

    The hash is Austin Appleby's (public domain), with the seed of
    ``org.apache.kafka.common.utils.Utils.murmur2``.
    """
    mask, multiplier = 0xFFFFFFFF, 0x5BD1E995
    mixed = (0x9747B28C ^ len(key)) & mask
    whole = len(key) - len(key) % 4
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * multiplier & mask
        word = (word ^ (word >> 24)) * multiplier & mask
        mixed = (mixed * multiplier & mask) ^ word
    if whole < len(key):
        mixed ^= int.from_bytes(key[whole:], "little")
        mixed = mixed * multiplier & mask
    mixed = (mixed ^ (mixed >> 13)) * multiplier & mask
    return ((mixed ^ (mixed >> 15)) & 0x7FFFFFFF) % partitions
