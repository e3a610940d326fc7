"""Keeps the store's promises in Redis or Valkey.

========================== ======== ===============================================================
key                        type     what
========================== ======== ===============================================================
``ns:{t}:meta``            hash     owner token, commit sequence, last commit id, position; which
                                    commit wrote rows last
``ns:{t}:users``           hash     user name to packed row; under no name, which commit wrote last
``ns:{t}:out``             stream   changes not yet confirmed by Kafka; ids by `entry_id`
``ns:{t}:stats``           string   the partition's last statistics for the trainer
``ns:{t}:ids:<place>``     string   message ids remembered, 8 bytes each, of a step of a topic's clock
``ns:{t}:orders:<place>``  hash     orders remembered, of a step of a topic's clock, by their key
``ns:{t}:words:<topic>``   hash     what rated texts of a topic have taught, by word's bucket
``ns:{t}:pub``             hash     publisher token, output offset delivered up to
``ns:trainer``             hash     trainer token, round, model, looks; and what a person wants of it
``ns:output``              hash     id of the output topic, and what it lacks
``ns:names``               hash     names that persons gave to segments, by segment id
``ns:partitions``          string   how many partitions the namespace was begun with
``ns:key``                 string   secret of the namespace, unless the settings have one
``ns:lease:<role>``        string   token of whoever holds the role, with an expiry
========================== ======== ===============================================================

``{t}`` is the partition's hash tag, chosen so that partitions are spread evenly over the slots
of a Redis Cluster; all keys of a partition share it, so a commit stays within one slot.

How a partition is owned, committed and emptied is `redis_partitions`; here is what only the activity
workers and the trainer keep.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry
from redis.sentinel import Sentinel

from stream.config import ConfigError
from stream.config import Store as StoreSettings
from stream.limits import TOPICS
from stream.sentinels import SentinelAddress, sentinel_address
from stream.store.redis_partitions import NOBODY, RedisPartitions, frame
from stream.store.state import (
    KEY_BYTES,
    MEMORY_PLACES,
    Commit,
    MemoryChanges,
    Position,
    key_of,
)

SLOTS = 16_384
_PUT_MODEL = """#!lua
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'model', ARGV[2], 'round', ARGV[3])
if ARGV[4] then redis.call('HSET', KEYS[1], 'looks', ARGV[4]) end
return 1
"""


def output_key(namespace: str) -> str:
    """Key of what is known of the output topic."""
    return f"{namespace}:output"


def hash_tag(partition: int, partitions: int) -> str:
    """A tag for a partition whose slot lies in the partition's share of all slots.

    ``{0}``, ``{1}`` .. clump (48 of them over 6 shards came out 5, 12, 7, 4, 12, 8); so numbers
    are tried until one falls where it should.
    """
    low, high = partition * SLOTS // partitions, (partition + 1) * SLOTS // partitions
    attempt = 0
    while not low <= key_slot(f"{partition}.{attempt}".encode()) < high:
        attempt += 1
    return f"{partition}.{attempt}"


def key_prefixes(namespace: str, partitions: int) -> list[str]:
    """What the keys of each partition begin with."""
    return [f"{namespace}:{{{hash_tag(p, partitions)}}}:" for p in range(partitions)]


def connect(url: str, timeout_seconds: float, sentinel: str = "") -> redis.Redis:
    """A client that repeats nothing by itself: who repeats a commit must know that it does.

    Args:
        sentinel: address of Sentinels that know where the master is; empty for none, and then the URL
            leads to it.

    Raises:
        ConfigError: the address has a part that means nothing to the client.
    """
    try:
        client = redis.Redis.from_url(
            url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        # Not connected yet: the options of the address are looked at here, not at the first call.
        client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)
    except (TypeError, ValueError, redis.RedisError) as error:
        # Of an option that it does not know, the client says which function of its own it met.
        said = str(error).rsplit("__init__() ", 1)[-1]
        raise ConfigError(
            f"store.url: {said}; expected is redis://user:password@host:port/0, or rediss:// for"
            " TLS, with options of redis-py behind a ?"
        ) from None
    return _by_sentinel(client, sentinel_address(sentinel)) if sentinel else client


def connect_store(store: StoreSettings) -> redis.Redis:
    """`connect`, as the settings say."""
    return connect(store.url, store.timeout_seconds, store.sentinel)


def _by_sentinel(client: redis.Redis, address: SentinelAddress) -> redis.Redis:
    """A client like this one that asks where the master is whenever it connects."""
    given = client.connection_pool.connection_kwargs
    shared = ("socket_timeout", "socket_connect_timeout", "retry", "protocol")
    asking = {key: given[key] for key in shared} | {
        "username": address.username,
        "password": address.password,
    }
    if address.tls:
        # Their authorities and certificates are those of the store.
        asking |= {key: value for key, value in given.items() if key.startswith("ssl_")}
    # The library has no types for these.
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        list(address.hosts), sentinel_kwargs=asking | {"ssl": address.tls}
    )
    own = {key: value for key, value in given.items() if key not in {"host", "port", "path"}}
    tls = issubclass(client.connection_pool.connection_class, redis.SSLConnection)
    found: redis.Redis = sentinels.master_for(  # type: ignore[no-untyped-call]
        address.master, ssl=tls, **own
    )
    return found


class RedisStore(RedisPartitions[Position, Commit]):
    """`stream.store.promises.Store` on one Redis. Not to be shared between threads."""

    def __init__(
        self,
        client: redis.Redis,
        *,
        namespace: str,
        partitions: int,
        outbox_cap: int = 2_000,
        namespace_key: str = "",
    ) -> None:
        prefixes = key_prefixes(namespace, partitions)
        places = [f"{what}:{n}" for what in ("ids", "orders") for n in range(MEMORY_PLACES)]
        super().__init__(
            client, namespace, prefixes, output_key(namespace), outbox_cap,
            Position, ["stats", *places, *(f"words:{topic}" for topic in range(TOPICS))],
        )  # fmt: skip
        self._trainer = f"{namespace}:trainer"
        self._names = f"{namespace}:names"
        self._given_key = namespace_key

    # -- owners -------------------------------------------------------------------------------

    def load_ids(self, partition: int) -> Iterator[tuple[int, bytes]]:
        for place in range(MEMORY_PLACES):
            found = self._call(self._client.get, self._key(partition, f"ids:{place}"))
            if found:
                yield place, found

    def load_orders(self, partition: int) -> Iterator[tuple[int, bytes, bytes]]:
        return self._load_hashes(partition, "orders", MEMORY_PLACES)

    def load_words(self, partition: int) -> Iterator[tuple[int, bytes, bytes]]:
        return self._load_hashes(partition, "words", TOPICS)

    def _load_hashes(
        self, partition: int, what: str, count: int
    ) -> Iterator[tuple[int, bytes, bytes]]:
        """Number, key and value of all that stands in some numbered hashes."""
        for number in range(count):
            name, cursor = self._key(partition, f"{what}:{number}"), None
            while cursor != 0:
                cursor, page = self._call(self._client.hscan, name, cursor or 0, count=5_000)
                for key, packed in page.items():
                    yield number, key, packed

    def _further_frames(self, partition: int, commit: Commit) -> list[bytes]:
        frames = self._memory_frames(partition, commit.memory)
        if commit.statistics is not None:
            frames.append(frame("SET", self._key(partition, "stats"), commit.statistics))
        return frames

    def _memory_frames(self, partition: int, memory: MemoryChanges) -> list[bytes]:
        """Commands that forget first, and remember then: a place may be used again."""
        ids = {
            place: self._key(partition, f"ids:{place}") for place in (*memory.no_ids, *memory.ids)
        }
        gone = [ids[place] for place in memory.no_ids]
        gone += [self._key(partition, f"orders:{place}") for place in memory.no_orders]
        frames = [frame("UNLINK", *gone)] if gone else []
        frames += [frame("APPEND", ids[place], keys) for place, keys in memory.ids.items()]
        for place in memory.orders:
            pairs = [part for order in memory.orders_of(place) for part in order]
            frames.append(frame("HSET", self._key(partition, f"orders:{place}"), *pairs))
        for topic in memory.words:
            pairs = [part for word in memory.words_of(topic) for part in word]
            frames.append(frame("HSET", self._key(partition, f"words:{topic}"), *pairs))
        return frames

    # -- readers ------------------------------------------------------------------------------

    def row(self, partition: int, user: bytes) -> bytes | None:
        if user == NOBODY:
            return None
        found: bytes | None = self._call(self._client.hget, self._key(partition, "users"), user)
        return found

    def rows(self, users: Sequence[tuple[int, bytes]]) -> list[tuple[bytes, Position] | None]:
        partitions = sorted({partition for partition, _ in users})
        pipeline = self._client.pipeline(transaction=False)
        for partition, user in users:
            pipeline.hget(self._key(partition, "users"), user)
        for partition in partitions:
            pipeline.hget(self._key(partition, "meta"), "position")
        found: list[bytes | None] = self._call(pipeline.execute)
        positions = {
            partition: self._position(partition, raw)
            for partition, raw in zip(partitions, found[len(users) :], strict=True)
            if raw is not None
        }
        return [
            (row, positions[partition])
            if row is not None and user != NOBODY and partition in positions
            else None
            for (partition, user), row in zip(users, found, strict=False)
        ]

    def page(
        self, partition: int, cursor: int, about: int
    ) -> tuple[int, list[tuple[bytes, bytes]]]:
        key = self._key(partition, "users")
        cursor, found = self._call(self._client.hscan, key, cursor, count=about)
        found.pop(NOBODY, None)
        return int(cursor), list(found.items())

    def begin(self, partitions: int) -> int:
        if not (found := self.partitions()):
            name = f"{self._namespace}:partitions"
            self._call(self._client.set, name, str(partitions), nx=True)
            found = self.partitions()
        return found

    def currency(self) -> str:
        found: bytes | None = self._call(self._client.get, f"{self._namespace}:currency")
        return (found or b"").decode()

    def agree_currency(self, currency: str) -> str:
        if not (found := self.currency()):
            name = f"{self._namespace}:currency"
            self._call(self._client.set, name, currency, nx=True)
            found = self.currency()
        return found

    def namespace_key(self) -> bytes:
        if self._given_key:
            return key_of(self._given_key)
        name = f"{self._namespace}:key"
        found: bytes | None = self._call(self._client.get, name)
        if found is None:
            # Only whoever comes first writes: a reader needs no right to.
            self._call(self._client.set, name, secrets.token_bytes(KEY_BYTES), nx=True)
            found = self._call(self._client.get, name)
        return found or b""

    # -- trainer ------------------------------------------------------------------------------

    def statistics(self, partitions: Sequence[int]) -> list[bytes | None]:
        pipeline = self._client.pipeline(transaction=False)
        for partition in partitions:
            pipeline.get(self._key(partition, "stats"))
        found: list[bytes | None] = self._call(pipeline.execute)
        return found

    def statistics_times(self, partitions: Sequence[int]) -> list[int]:
        pipeline = self._client.pipeline(transaction=False)
        for partition in partitions:
            pipeline.getrange(self._key(partition, "stats"), 0, 7)
        return [int.from_bytes(raw, "big") for raw in self._call(pipeline.execute)]

    def lead(self, token: str) -> None:
        self._call(self._client.hset, self._trainer, "token", token)

    def put_model(
        self, token: str, model: bytes, round_ms: int, looks: bytes | None = None
    ) -> bool:
        told = [token, model, round_ms] if looks is None else [token, model, round_ms, looks]
        return bool(self._script(_PUT_MODEL, [self._trainer], told))

    def looks(self) -> bytes | None:
        found: bytes | None = self._call(self._client.hget, self._trainer, "looks")
        return found

    def model(self) -> tuple[int, bytes] | None:
        round_ms, model = self._call(self._client.hmget, self._trainer, ["round", "model"])
        return None if model is None else (int(round_ms), model)

    def round(self) -> int:
        return int(self._call(self._client.hget, self._trainer, "round") or 0)

    def give_name(self, segment: int, name: str) -> None:
        self._call(self._client.hset, self._names, str(segment), name)

    def given_names(self) -> dict[int, str]:
        found = self._call(self._client.hgetall, self._names)
        return {int(segment): name.decode() for segment, name in found.items()}

    def want(self, tuning: bytes) -> None:
        self._call(self._client.hset, self._trainer, "wanted", tuning)

    def wanted(self) -> bytes | None:
        found: bytes | None = self._call(self._client.hget, self._trainer, "wanted")
        return found
