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
``ns:{t}:pub``             hash     publisher token, output offset delivered up to
``ns:trainer``             hash     trainer token, round, model; and what a person wants of it
``ns:output``              hash     id of the output topic, and what it lacks
``ns:partitions``          string   how many partitions the namespace was begun with
``ns:key``                 string   secret of the namespace, unless the settings have one
``ns:lease:<role>``        string   token of whoever holds the role, with an expiry
========================== ======== ===============================================================

``{t}`` is the partition's hash tag, chosen so that partitions are spread evenly over the slots
of a Redis Cluster; all keys of a partition share it, so a commit stays within one slot.

A partition's commits go over a connection of its own: ``WATCH`` and a check, then ``MULTI`` ..
``EXEC`` in one frame: if the owner token or the sequence changes in between, ``EXEC`` writes
nothing. That is as strong as a script and costs the server about half (``ops/decisions``). The
frame is packed here because redis-py's packer costs more than the whole fold.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterCrossSlotError, NoPermissionError
from redis.retry import Retry

from stream.config import ConfigError
from stream.state import (
    KEY_BYTES,
    MEMORY_PLACES,
    Answer,
    Commit,
    MemoryChanges,
    OutboxEntry,
    Position,
    StoreRefusedError,
    StoreUnavailableError,
    entry_id,
    key_of,
)

SLOTS = 16_384
NOBODY = b""
"""No user has this name: messages without one are refused."""
_T = TypeVar("_T")

_RELEASE = """#!lua
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
_LEASE = """#!lua
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_ACQUIRE = """#!lua
local meta = redis.call('HMGET', KEYS[1], 'sequence', 'position')
if not meta[1] then return false end
redis.call('HSET', KEYS[1], 'token', ARGV[1])
return meta
"""
_CREATE = """#!lua
local owner = redis.call('HGET', KEYS[1], 'token')
if owner and not (ARGV[4] == '1' and owner == ARGV[1]) then return 0 end
redis.call('DEL', unpack(KEYS))
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'sequence', 0, 'commit', '', 'position', ARGV[2])
redis.call('HSET', KEYS[5], 'delivered_to', ARGV[3])
return 1
"""
_TAKE = """#!lua
if redis.call('EXISTS', KEYS[2]) == 0 then return false end
redis.call('HSET', KEYS[1], 'token', ARGV[1])
return redis.call('HGET', KEYS[1], 'delivered_to')
"""
_ACKNOWLEDGE = """#!lua
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
local named = #ARGV - 2
if named > 0 and redis.call('XDEL', KEYS[2], unpack(ARGV, 3)) < named then return 0 end
redis.call('HSET', KEYS[1], 'delivered_to', ARGV[2])
return 1
"""
_PUT_MODEL = """#!lua
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'model', ARGV[2], 'round', ARGV[3])
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


def connect(url: str, timeout_seconds: float) -> redis.Redis:
    """A client that repeats nothing by itself: who repeats a commit must know that it does.

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
    return client


_LASTING_KINDS = (
    redis.AuthenticationError,
    redis.AuthenticationWrongNumberOfArgsError,
    NoPermissionError,
    redis.DataError,
)
"""What no repetition changes."""
_LASTING_WORDS = (
    "WRONGTYPE",
    "WRONGPASS",
    "NOAUTH",
    "NOPERM",
    "NOPROTO",
    "DENIED",
    "unknown command",
    "unknown subcommand",
    "unknown redis command",
    "wrong number of arguments",
    "syntax error",
    "db index is out of range",
    "invalid db index",
    "acl failure in script",
    "the user executing the script can't",
    "error compiling script",
    "error running script",
    "script attempted to access",
    "is not an integer or out of range",
    "could not find suitable shebang",
    "unexpected engine in script shebang",
)
"""Of answers that have no class of their own. Any other is waited out, as those of a proxy are."""
CLUSTERED = (
    "the store is a Redis Cluster, which is not supported yet; set store.url to a Redis, or Valkey,"
    " that is no cluster"
)


def failure(error: Exception, doing: str = "") -> StoreUnavailableError | StoreRefusedError:
    """What an error of the client means to a role: try again later, or never again.

    Args:
        error: of redis-py, or of the operating system.
        doing: what was tried, to stand before the error.
    """
    said = str(error)
    words = said.casefold()
    if isinstance(error, (AskError, ClusterCrossSlotError)) or "cluster mode" in words:
        return StoreRefusedError(f"{doing}{CLUSTERED}")
    if isinstance(error, _LASTING_KINDS):
        return StoreRefusedError(doing + said)
    passing = isinstance(error, (redis.ConnectionError, redis.TimeoutError, OSError))
    if not passing and any(word.casefold() in words for word in _LASTING_WORDS):
        return StoreRefusedError(doing + said)
    return StoreUnavailableError(doing + said)


class RedisStore:
    """`stream.state.Store` on one Redis. Not to be shared between threads."""

    def __init__(
        self,
        client: redis.Redis,
        *,
        namespace: str,
        partitions: int,
        outbox_cap: int = 2_000,
        namespace_key: str = "",
    ) -> None:
        self._client = client
        self._cap = outbox_cap
        self._namespace = namespace
        tags = [hash_tag(p, partitions) for p in range(partitions)]
        self._prefixes = [f"{namespace}:{{{tag}}}:" for tag in tags]
        self._trainer = f"{namespace}:trainer"
        self._names = f"{namespace}:names"
        self._output = output_key(namespace)
        self._given_key = namespace_key
        self._links: dict[int, _Link] = {}
        self._scripts = {
            text: client.register_script(text)
            for text in (_RELEASE, _LEASE, _ACQUIRE, _CREATE, _TAKE, _ACKNOWLEDGE, _PUT_MODEL)
        }

    # -- owners -------------------------------------------------------------------------------

    def acquire(self, partition: int, token: str) -> tuple[int, Position] | None:
        answer = self._script(_ACQUIRE, [self._key(partition, "meta")], [token])
        if answer is None:
            return None
        return int(answer[0]), self._position(partition, answer[1])

    def create(
        self, partition: int, token: str, position: Position, *, replace: bool = False
    ) -> bool:
        names = ["meta", "users", "out", "stats", "pub"]
        names += [f"{what}:{n}" for what in ("ids", "orders") for n in range(MEMORY_PLACES)]
        keys = [self._key(partition, name) for name in names]
        arguments = [token, msgspec.json.encode(position), position.output, int(replace)]
        return bool(self._script(_CREATE, keys, arguments))

    def load(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        cursor = 0
        key = self._key(partition, "users")
        while True:
            cursor, page = self._call(self._client.hscan, key, cursor, count=5_000)
            page.pop(NOBODY, None)
            yield from page.items()
            if cursor == 0:
                return

    def load_ids(self, partition: int) -> Iterator[tuple[int, bytes]]:
        for place in range(MEMORY_PLACES):
            found = self._call(self._client.get, self._key(partition, f"ids:{place}"))
            if found:
                yield place, found

    def load_orders(self, partition: int) -> Iterator[tuple[int, bytes, bytes]]:
        for place in range(MEMORY_PLACES):
            key, cursor = self._key(partition, f"orders:{place}"), None
            while cursor != 0:
                cursor, page = self._call(self._client.hscan, key, cursor or 0, count=5_000)
                for order, packed in page.items():
                    yield place, order, packed

    def is_whole(self, partition: int) -> bool:
        meta, users = self._key(partition, "meta"), self._key(partition, "users")
        told: bytes | None = self._call(self._client.hget, meta, "rows")
        found: bytes | None = self._call(self._client.hget, users, NOBODY)
        return told == found

    def commit(self, partition: int, token: str, commit: Commit) -> Answer:
        answer = self.submit(partition, token, commit)
        return self.collect(partition, token, commit) if answer is None else answer

    def submit(self, partition: int, token: str, commit: Commit) -> Answer | None:
        try:
            return self._submit(partition, token, commit)
        except (redis.RedisError, OSError) as error:
            self.abandon(partition)
            raise failure(error, f"commit of partition {partition}: ") from error

    def collect(self, partition: int, token: str, commit: Commit) -> Answer:
        try:
            while True:
                if self._links[partition].applied():
                    return Answer.OK
                # Somebody changed the partition between the check and EXEC; the check tells who.
                answer = self._submit(partition, token, commit)
                if answer is not None:
                    return answer
        except (redis.RedisError, OSError) as error:
            self.abandon(partition)
            raise failure(error, f"commit of partition {partition}: ") from error

    def abandon(self, partition: int) -> None:
        link = self._links.pop(partition, None)
        if link is not None:
            link.close()

    def _submit(self, partition: int, token: str, commit: Commit) -> Answer | None:
        meta, out = self._key(partition, "meta"), self._key(partition, "out")
        link = self._links.get(partition)
        if link is None:
            link = self._links[partition] = _Link(self._client, meta, out)
        ahead = link.checked
        refusal = self._refusal(link.check(), token, commit)
        if refusal is not None and ahead:
            # What stood in the way when the check was sent may be gone by now.
            refusal = self._refusal(link.check(), token, commit)
        if refusal is not None:
            return refusal

        frames = []
        if commit.users:
            users = self._key(partition, "users")
            frames.append(_rows_frame(users, commit.users, commit.rows, commit.id))
        for index, entry in enumerate(commit.outbox):
            frames.append(
                _frame(
                    "XADD", out, entry_id(commit, index),
                    "origin", str(entry.origin_ms), "incarnation", str(entry.incarnation),
                    "changes", b"\n".join(entry.changes),
                )
            )  # fmt: skip
        frames += self._memory_frames(partition, commit.memory)
        if commit.statistics is not None:
            frames.append(_frame("SET", self._key(partition, "stats"), commit.statistics))
        frames.append(
            _frame(
                "HSET", meta, "sequence", str(commit.sequence + 1), "commit", commit.id,
                "position", msgspec.json.encode(commit.position),
                *(("rows", commit.id) if commit.users else ()),
            )
        )  # fmt: skip
        link.execute(frames)
        return None

    def _memory_frames(self, partition: int, memory: MemoryChanges) -> list[bytes]:
        """Commands that forget first, and remember then: a place may be used again."""
        ids = {
            place: self._key(partition, f"ids:{place}") for place in (*memory.no_ids, *memory.ids)
        }
        gone = [ids[place] for place in memory.no_ids]
        gone += [self._key(partition, f"orders:{place}") for place in memory.no_orders]
        frames = [_frame("UNLINK", *gone)] if gone else []
        frames += [_frame("APPEND", ids[place], keys) for place, keys in memory.ids.items()]
        for place in memory.orders:
            pairs = [part for order in memory.orders_of(place) for part in order]
            frames.append(_frame("HSET", self._key(partition, f"orders:{place}"), *pairs))
        return frames

    def _refusal(self, checked: _Checked, token: str, commit: Commit) -> Answer | None:
        if checked.sequence is None:
            return Answer.LOST
        if checked.token != token.encode():
            return Answer.FENCED
        if checked.commit == commit.id.encode():
            return Answer.APPLIED
        if int(checked.sequence) != commit.sequence:
            return Answer.DIVERGED
        if commit.outbox and checked.waiting >= self._cap:
            return Answer.FULL
        return None

    # -- readers ------------------------------------------------------------------------------

    def position(self, partition: int) -> Position | None:
        found = self._call(self._client.hget, self._key(partition, "meta"), "position")
        return None if found is None else self._position(partition, found)

    def _position(self, partition: int, raw: bytes) -> Position:
        try:
            return msgspec.json.decode(raw, type=Position)
        except (msgspec.MsgspecError, TypeError) as error:
            raise _strange(self._key(partition, "meta"), error) from None

    def row(self, partition: int, user: bytes) -> bytes | None:
        if user == NOBODY:
            return None
        found: bytes | None = self._call(self._client.hget, self._key(partition, "users"), user)
        return found

    def run(self) -> str:
        try:
            return str(self._client.info("server").get("run_id", ""))
        except NoPermissionError:
            return ""
        except (redis.RedisError, OSError) as error:
            raise failure(error) from error

    def delivered_to(self, partitions: Sequence[int]) -> list[int]:
        pipeline = self._client.pipeline(transaction=False)
        for partition in partitions:
            pipeline.hget(self._key(partition, "pub"), "delivered_to")
        return [int(offset or 0) for offset in self._call(pipeline.execute)]

    def output(self) -> tuple[str, str]:
        found = self._call(self._client.hmget, self._output, ["topic", "lacks"])
        topic_id, lacks = ((one or b"").decode() for one in found)
        return topic_id, lacks

    def note_output(self, topic_id: str, lacks: str) -> None:
        told = {"topic": topic_id, "lacks": lacks}
        self._call(self._client.hset, self._output, mapping=told)

    def partitions(self) -> int:
        found: bytes | None = self._call(self._client.get, f"{self._namespace}:partitions")
        return int(found or 0)

    def begin(self, partitions: int) -> int:
        if not (found := self.partitions()):
            name = f"{self._namespace}:partitions"
            self._call(self._client.set, name, str(partitions), nx=True)
            found = self.partitions()
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

    # -- publisher ----------------------------------------------------------------------------

    def take_outbox(self, partition: int, token: str) -> int | None:
        keys = [self._key(partition, name) for name in ("pub", "meta")]
        answer = self._script(_TAKE, keys, [token])
        return None if answer is None else int(answer)

    def outbox(
        self, after: Mapping[int, str], limit: int, wait_seconds: float
    ) -> dict[int, list[OutboxEntry]]:
        streams = {self._key(p, "out"): begin for p, begin in after.items()}
        # To Redis, blocking for 0 ms is blocking for ever.
        block = max(int(wait_seconds * 1_000), 1) if wait_seconds > 0 else None
        found = self._call(self._client.xread, streams, count=limit, block=block)
        partitions = {self._key(p, "out").encode(): p for p in after}
        waiting: dict[int, list[OutboxEntry]] = {}
        for key, entries in found or []:
            try:
                waiting[partitions[key]] = [
                    OutboxEntry(
                        int(fields[b"origin"]),
                        tuple(fields[b"changes"].split(b"\n")),
                        int(fields[b"incarnation"]),
                        entry.decode(),
                    )
                    for entry, fields in entries
                ]
            except (LookupError, ValueError) as error:
                raise _strange(key.decode(), error) from None
        return waiting

    def outbox_sizes(self, partitions: Sequence[int]) -> list[int]:
        pipeline = self._client.pipeline(transaction=False)
        for partition in partitions:
            pipeline.xlen(self._key(partition, "out"))
        return [int(size) for size in self._call(pipeline.execute)]

    def acknowledge(
        self, partition: int, token: str, entries: Sequence[str], delivered_to: int
    ) -> bool:
        keys = [self._key(partition, "pub"), self._key(partition, "out")]
        return bool(self._script(_ACKNOWLEDGE, keys, [token, delivered_to, *entries]))

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

    def lease(self, role: str, token: str, seconds: float) -> bool:
        key = f"{self._namespace}:lease:{role}"
        return bool(self._script(_LEASE, [key], [token, int(seconds * 1_000)]))

    def release(self, role: str, token: str) -> None:
        self._script(_RELEASE, [f"{self._namespace}:lease:{role}"], [token])

    def lead(self, token: str) -> None:
        self._call(self._client.hset, self._trainer, "token", token)

    def put_model(self, token: str, model: bytes, round_ms: int) -> bool:
        return bool(self._script(_PUT_MODEL, [self._trainer], [token, model, round_ms]))

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

    # -- plumbing -----------------------------------------------------------------------------

    def close(self) -> None:
        for partition in list(self._links):
            self.abandon(partition)
        self._client.close()

    def _key(self, partition: int, name: str) -> str:
        return self._prefixes[partition] + name

    def _script(self, text: str, keys: list[str], arguments: list[Any]) -> Any:
        return self._call(self._scripts[text], keys=keys, args=arguments)

    def _call(self, method: Callable[..., _T], *arguments: Any, **options: Any) -> Any:
        try:
            return method(*arguments, **options)
        except (redis.RedisError, OSError) as error:
            raise failure(error) from error


class _Checked(NamedTuple):
    """What stands in the store before a commit; None where there is no state."""

    token: bytes | None
    sequence: bytes | None
    commit: bytes | None
    waiting: int


class _Link:
    """One partition's own connection, on which its commits follow each other.

    The check for the next commit is sent right behind each `EXEC`, so it has long been answered
    when that commit comes: a commit then costs one frame out and one answer back. What changes
    after the check makes its `EXEC` write nothing, however long ago the check was.
    """

    def __init__(self, client: redis.Redis, meta: str, out: str) -> None:
        self._pool = client.connection_pool
        self._connection: Any = self._pool.get_connection()
        self._check = (
            _frame("WATCH", meta)
            + _frame("HMGET", meta, "token", "sequence", "commit")
            + _frame("XLEN", out)
        )
        self.checked = False
        self._under_way = 0

    def check(self) -> _Checked:
        """Token, sequence, last commit and outbox entries, watched from then on."""
        if not self.checked:
            self._connection.send_packed_command([self._check])
        self.checked = False
        self._connection.read_response()
        token, sequence, commit = self._connection.read_response()
        return _Checked(token, sequence, commit, self._connection.read_response())

    def execute(self, frames: list[bytes]) -> None:
        """Send commands as one transaction, and the next check behind it."""
        self._under_way = len(frames) + 2
        self._connection.send_packed_command(
            [_frame("MULTI"), *frames, _frame("EXEC"), self._check]
        )
        self.checked = True

    def applied(self) -> bool:
        """Whether the transaction under way was applied, or found something changed.

        Raises:
            redis.ResponseError: the server refused a command, and so all of them.
        """
        refused: redis.ResponseError | None = None
        answer = None
        for _ in range(self._under_way):
            try:
                answer = self._connection.read_response()
            except redis.ResponseError as error:
                refused = refused or error
        self._under_way = 0
        if refused is not None:
            raise refused
        return answer is not None

    def close(self) -> None:
        """Whatever is still under way has no reader any more."""
        self._connection.disconnect()
        self._pool.release(self._connection)


def _strange(key: str, error: Exception) -> StoreRefusedError:
    """What stands in a key was not written by us."""
    return StoreRefusedError(
        f"key {key} holds what was not written by this program ({type(error).__name__}: {error}); "
        "put it back from the store's backup, together with all keys of its partition"
    )


def _frame(*parts: str | bytes) -> bytes:
    """A command in the Redis serialisation protocol."""
    packed = [b"*%d\r\n" % len(parts)]
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        packed.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(packed)


def _rows_frame(key: str, users: Sequence[bytes], rows: bytes, commit: str) -> bytes:
    """``HSET key user row user row .. "" commit`` from rows that lie one after the other."""
    size = len(rows) // len(users)
    middle = b"\r\n$%d\r\n" % size
    pieces = [
        b"$%d\r\n%b%b%b\r\n" % (len(user), user, middle, rows[at : at + size])
        for user, at in zip(users, range(0, len(rows), size), strict=True)
    ]
    head = b"*%d\r\n$4\r\nHSET\r\n$%d\r\n%b\r\n" % (4 + 2 * len(users), len(key), key.encode())
    last = b"$0\r\n\r\n$%d\r\n%b\r\n" % (len(commit), commit.encode())
    return head + b"".join(pieces) + last
