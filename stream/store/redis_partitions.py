"""Keeps what is owned by partition in Redis or Valkey: one owner, commits that are all or nothing, an outbox.

Comes in: commits of owners, and what publishers have delivered. Goes out: answers, rows and outbox entries.
The activity workers' state and that of every other role are kept this way, each under keys of its own:

=================== ======== ====================================================================
key                 type     what
=================== ======== ====================================================================
``<prefix>meta``    hash     owner token, commit sequence, last commit id, position; which commit
                             wrote rows last
``<prefix>users``   hash     user name to packed row; under no name, which commit wrote last
``<prefix>out``     stream   records not yet confirmed by Kafka; ids by `entry_id`
``<prefix>pub``     hash     publisher token, output offset delivered up to
=================== ======== ====================================================================

A partition's commits go over a connection of its own: ``WATCH`` and a check, then ``MULTI`` ..
``EXEC`` in one frame: if the owner token or the sequence changes in between, ``EXEC`` writes
nothing. That is as strong as a script and costs the server about half (``ops/decisions``). The
frame is packed here because redis-py's packer costs more than the whole fold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
import redis
from redis.commands.core import Script
from redis.exceptions import NoPermissionError

from stream.store.redis_errors import failure
from stream.store.state import Answer, AnyPosition, OutboxEntry, Step, StoreRefusedError, entry_id

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
redis.call('HSET', KEYS[2], 'delivered_to', ARGV[3])
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


PositionT = TypeVar("PositionT", bound=AnyPosition)
StepT = TypeVar("StepT", bound=Step)


class RedisPartitions(Generic[PositionT, StepT]):
    """Partitions on one Redis, each owned by one. Not to be shared between threads.

    Args:
        prefixes: of each partition's keys; those of a partition have one hash tag.
        output: key of what is known of the topic that the outboxes are emptied to.
        outbox_cap: entries in a partition's outbox at which its commits are refused.
        position: the type of positions.
        further: what keys of a partition end with that `_further_frames` write.
    """

    def __init__(
        self,
        client: redis.Redis,
        namespace: str,
        prefixes: Sequence[str],
        output: str,
        outbox_cap: int,
        position: type[PositionT],
        further: Sequence[str],
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._prefixes = prefixes
        self._output = output
        self._cap = outbox_cap
        self._position_type = position
        self._further = further
        self._links: dict[int, _Link] = {}
        self._scripts: dict[str, Script] = {}

    # -- owners -------------------------------------------------------------------------------

    def acquire(self, partition: int, token: str) -> tuple[int, PositionT] | None:
        answer = self._script(_ACQUIRE, [self._key(partition, "meta")], [token])
        return None if answer is None else (int(answer[0]), self._position(partition, answer[1]))

    def create(
        self, partition: int, token: str, position: PositionT, *, replace: bool = False
    ) -> bool:
        names = ("meta", "pub", "users", "out", *self._further)
        keys = [self._key(partition, name) for name in names]
        start = msgspec.json.encode(position)
        return bool(self._script(_CREATE, keys, [token, start, position.output, int(replace)]))

    def load(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        cursor = 0
        key = self._key(partition, "users")
        while True:
            cursor, page = self._call(self._client.hscan, key, cursor, count=5_000)
            page.pop(NOBODY, None)
            yield from page.items()
            if cursor == 0:
                return

    def is_whole(self, partition: int) -> bool:
        meta, users = self._key(partition, "meta"), self._key(partition, "users")
        told: bytes | None = self._call(self._client.hget, meta, "rows")
        found: bytes | None = self._call(self._client.hget, users, NOBODY)
        return told == found

    def commit(self, partition: int, token: str, commit: StepT) -> Answer:
        answer = self.submit(partition, token, commit)
        return self.collect(partition, token, commit) if answer is None else answer

    def submit(self, partition: int, token: str, commit: StepT) -> Answer | None:
        try:
            return self._submit(partition, token, commit)
        except (redis.RedisError, OSError) as error:
            self.abandon(partition)
            raise failure(error, f"commit of partition {partition}: ") from error

    def collect(self, partition: int, token: str, commit: StepT) -> Answer:
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

    def _submit(self, partition: int, token: str, commit: StepT) -> Answer | None:
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
                frame(
                    "XADD", out, entry_id(commit, index),
                    "origin", str(entry.origin_ms), "incarnation", str(entry.incarnation),
                    "changes", b"\n".join(entry.changes),
                )
            )  # fmt: skip
        frames += self._further_frames(partition, commit)
        frames.append(
            frame(
                "HSET", meta, "sequence", str(commit.sequence + 1), "commit", commit.id,
                "position", msgspec.json.encode(commit.position),
                *(("rows", commit.id) if commit.users else ()),
            )
        )  # fmt: skip
        link.execute(frames)
        return None

    def _refusal(self, checked: _Checked, token: str, commit: StepT) -> Answer | None:
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

    def _further_frames(self, partition: int, commit: StepT) -> Sequence[bytes]:
        """Commands that write what only some commits bring."""
        del partition, commit
        return []

    # -- readers ------------------------------------------------------------------------------

    def position(self, partition: int) -> PositionT | None:
        found = self._call(self._client.hget, self._key(partition, "meta"), "position")
        return None if found is None else self._position(partition, found)

    def _position(self, partition: int, raw: bytes) -> PositionT:
        try:
            return msgspec.json.decode(raw, type=self._position_type)
        except (msgspec.MsgspecError, TypeError) as error:
            raise strange(self._key(partition, "meta"), error) from None

    def partitions(self) -> int:
        found: bytes | None = self._call(self._client.get, f"{self._namespace}:partitions")
        return int(found or 0)

    def run(self) -> str:
        try:
            return str(self._client.info("server").get("run_id", ""))
        except NoPermissionError:
            return ""
        except (redis.RedisError, OSError) as error:
            raise failure(error) from error

    # -- publisher ----------------------------------------------------------------------------

    def delivered_to(self, partitions: Sequence[int]) -> list[int]:
        pipeline = self._client.pipeline(transaction=False)
        for partition in partitions:
            pipeline.hget(self._key(partition, "pub"), "delivered_to")
        return [int(offset or 0) for offset in self._call(pipeline.execute)]

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
                raise strange(key.decode(), error) from None
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

    def output(self) -> tuple[str, str]:
        found = self._call(self._client.hmget, self._output, ["topic", "lacks"])
        topic_id, lacks = ((one or b"").decode() for one in found)
        return topic_id, lacks

    def note_output(self, topic_id: str, lacks: str) -> None:
        told = {"topic": topic_id, "lacks": lacks}
        self._call(self._client.hset, self._output, mapping=told)

    # -- leases -------------------------------------------------------------------------------

    def lease(self, role: str, token: str, seconds: float) -> bool:
        key = f"{self._namespace}:lease:{role}"
        return bool(self._script(_LEASE, [key], [token, int(seconds * 1_000)]))

    def release(self, role: str, token: str) -> None:
        self._script(_RELEASE, [f"{self._namespace}:lease:{role}"], [token])

    # -- plumbing -----------------------------------------------------------------------------

    def close(self) -> None:
        for partition in list(self._links):
            self.abandon(partition)
        self._client.close()

    def _key(self, partition: int, name: str) -> str:
        return self._prefixes[partition] + name

    def _script(self, text: str, keys: list[str], arguments: list[Any]) -> Any:
        script = self._scripts.get(text)
        if script is None:
            script = self._scripts[text] = self._client.register_script(text)
        return self._call(script, keys=keys, args=arguments)

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
            frame("WATCH", meta)
            + frame("HMGET", meta, "token", "sequence", "commit")
            + frame("XLEN", out)
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
        self._connection.send_packed_command([frame("MULTI"), *frames, frame("EXEC"), self._check])
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


def strange(key: str, error: Exception) -> StoreRefusedError:
    """What stands in a key was not written by us."""
    return StoreRefusedError(
        f"key {key} holds what was not written by this program ({type(error).__name__}: {error}); "
        "put it back from the store's backup, together with all keys of its partition"
    )


def frame(*parts: str | bytes) -> bytes:
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
