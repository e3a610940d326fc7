"""Owns a partition's users: fold, sweep, assign, commit, in plain sight.

Comes in: a batch of events and a time. Goes out: one `Commit`, with rows, position and change
records together. `features` folds, `segments` decides who moves, the store applies the commit.

A step, and what a crash leaves behind:

1. fold the batch into the users' rows (memory only: a crash forgets it, the log still has it);
2. look at the users, by the model in force, and record who moved (memory only);
3. commit rows, offsets, counts and records in one call. Before it nothing has happened, after
   it everything has; a repeated call is recognised by its id;
4. the publisher delivers the records and acknowledges them, at its own pace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from stream import metrics, records
from stream.clustering import ALL_HASHES, Statistics, smallest_hashes
from stream.events import CAUSES, Bools, Cause, Counts, EventColumns, Floats, Hashes, Ints, Rows
from stream.features import FeatureTable
from stream.flapping import counted
from stream.hashing import user_hashes
from stream.learning.owner_view import OwnerView
from stream.learning.statistics import PartitionStatistics, Sampling
from stream.limits import PLACES
from stream.memory import Memory, Part
from stream.model import Model, Placed
from stream.orders import PACKED
from stream.populations import NONE, Populations
from stream.rows import ROW_FORMAT, RowFormatError, put_rows, rows_at, whole
from stream.segments import Look, Moves, PublishRule, columns_of, contributions, look
from stream.store.state import Commit, MemoryChanges, OutboxEntry, Position
from stream.told import WRONG, ToldError
from stream.turns import (
    KindBook,
    Scale,
    allowed,
    did_something,
    kinds_told,
    paid,
    to_tell,
    wanted_kinds,
)
from stream.units import iso, isos
from stream.users import Kind, TextSlots, UserColumns

CHUNK = 2_048
"""Users looked at in one go by a sweep: their rows and vectors stay in the cache (a third faster
than 8,192)."""
LOADED_AT_ONCE = 5_000
"""As many as a page of a scan has."""
ROOM = 1_024
GROWTH = 1.25
"""Of a partition's memory when it is full: a row is half a kilobyte, so no more is kept empty."""
CHANGES_PER_ENTRY = 1_000
WHY = 3


class SchemaMismatchError(ToldError):
    """The stored rows were written by another feature table; says what to do."""

    exit_code = WRONG


class Delivered(NamedTuple):
    """A change as the output has it: who went where, and when.

    Attributes:
        before: segment before; 0 for none. The one after, if that has turned into another kind.
        kind: that they were told.
        moved: where they came from when they came to the segment, and when; None if that is not
            known, as of one record alone.
        kind_since_ms: when they were told that kind first; 0 if that is not known.
    """

    user: str
    incarnation: int
    version: int
    before: int
    after: int
    at_ms: int
    kind: str
    moved: tuple[int, int] | None = None
    kind_since_ms: int = 0

    def after_all(self, before: Delivered | None) -> Delivered:
        """With what a user's record before tells of how they came there."""
        moved = (self.before, self.at_ms) if self.before != self.after else before and before.moved
        same = before is not None and before.kind == self.kind
        since_ms = before.kind_since_ms if before is not None and same else self.at_ms
        return self._replace(moved=moved, kind_since_ms=since_ms)


@dataclass(frozen=True)
class SampleRequest:
    """Which users the trainer wants to see.

    Attributes:
        users: of each population.
        thresholds: the highest hash that is wanted of a population; all, of one that is not here.
    """

    users: int
    thresholds: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def of(trainer: OwnerView, at_ms: int, users: int) -> SampleRequest | None:
        """What the trainer wants with statistics of a time; None for no sample."""
        if at_ms < trainer.sample_due_ms:
            return None
        return SampleRequest(users, trainer.sample_thresholds)

    def sampling(self, populations: Populations, features: int) -> Sampling:
        """What gathers such a sample."""
        limits = [self.thresholds.get(name, ALL_HASHES) for name in populations.names]
        return Sampling(limits, self.users, features)


@dataclass
class _Sweep:
    """A look at everyone who was there when it began, some at a time.

    Attributes:
        causes: code in `CAUSES` for each user, of a move that this look brings.
        sampling: what gathers the sample; None if none is wanted.
        in_each: users of each population so far.
        next: the first user not yet looked at.
        total: of those looked at.
        scored: what scores come to in each segment, see `Scores.totals`; None for no scores, or
            no sample.
        untold: slots of users who are to be told of a turn, and did not act, some at a time.
    """

    cause: Cause
    causes: npt.NDArray[np.uint8]
    sampling: Sampling | None
    in_each: Ints
    next: int = 0
    total: Statistics | None = None
    scored: Floats | None = None
    untold: list[Ints] = field(default_factory=list)

    @staticmethod
    def over(users: int, cause: Cause, sampling: Sampling | None, populations: int) -> _Sweep:
        causes = np.full(users, CAUSES.index(cause), np.uint8)
        return _Sweep(cause, causes, sampling, np.zeros(populations, np.int64))


class _Looked(NamedTuple):
    """Where the users looked at are, and what the publish rule answered.

    Attributes:
        untold: places of those who are to be told of a turn, and did not act.
    """

    placed: Placed
    answer: Look
    untold: Ints


class Partition:
    """The users of one partition, as columns, and what of them is not committed yet.

    Attributes:
        sequence: commits so far.
        position: as last committed.
        model: in force; None before the first.

    Args:
        key: the namespace's secret, see `hashing`.
        populations: that users are sampled by until there is a model.
        memory: of past messages; one for all partitions of a worker. Its own if there is none.
    """

    def __init__(
        self,
        number: int,
        table: FeatureTable,
        rule: PublishRule,
        position: Position,
        sequence: int,
        model: Model | None = None,
        *,
        key: bytes = b"",
        populations: Populations | None = None,
        memory: Memory | None = None,
    ) -> None:
        if position.schema != table.schema:
            raise SchemaMismatchError(
                f"partition {number} holds rows of feature table {position.schema}, but this "
                f"version of the program and its settings make {table.schema}; go back to the "
                "version and the settings that wrote them, or use another store.namespace and "
                "another broker.group and replay the log"
            )
        self._memory = memory or Memory()
        if position.remember and position.remember != self._memory.limits.told:
            raise SchemaMismatchError(
                f"partition {number} remembers clicks, purchases and orders for "
                f"{_seconds(position.remember)} seconds, but the settings say "
                f"{_seconds(self._memory.limits.told)}: put worker.remember_clicks_seconds, "
                "worker.remember_purchases_seconds and worker.remember_orders_seconds back, or use "
                "another store.namespace and another broker.group and replay the log"
            )
        self._lanes = self._memory.open(number, position.clocks, position.ids, position.orders)
        self.number = number
        self.sequence = sequence
        self.position = position
        self.model = model
        self._table = table
        self._rule = rule
        self._key = key
        self._populations = populations or Populations.of((), table.names)
        self._slots = TextSlots()
        kinds: dict[str, Kind] = {
            "rows": (table.dtype, ()),
            "hashes": (np.uint64, ()),
            "dirty": (np.bool_, ()),
        }
        self._users = UserColumns(kinds, ROOM)
        self._hashed = 0
        self._pending: list[bytes] = []
        self._told: Counter[tuple[Cause, str | None, str]] = Counter()
        self._left: Counter[int] = Counter()
        self._back: Counter[int] = Counter()
        self._origin_ms = 0
        self._sweep: _Sweep | None = None
        self._looked_under = position.model
        self._known_to = position.known_to
        self._delivered: dict[str, Delivered] = {}
        self._foretold: dict[str, Delivered] = {}
        self._flapping = position.flapping
        self._loaded: dict[tuple[int, int, bool], int] = {}
        self._kinds = KindBook(position.kinds)
        self._turned_ms = position.turned_ms
        self._scale: tuple[Model, Scale] | None = None

    def __len__(self) -> int:
        return len(self._slots.names)

    # -- users --------------------------------------------------------------------------------

    @property
    def table(self) -> FeatureTable:
        """Of the features of its users."""
        return self._table

    @property
    def populations(self) -> Populations:
        """That its users are divided into: the model's, as soon as there is one."""
        return self._populations if self.model is None else self.model.populations

    @property
    def names(self) -> list[bytes]:
        """Every user, in UTF-8, by slot."""
        return self._slots.names

    @property
    def rows(self) -> Rows:
        """Every user's row, by slot: to look at, and a copy to keep."""
        return self._rows[: len(self)]

    @property
    def hashes(self) -> Hashes:
        """Every user's hash, by slot."""
        return self._hashes[: len(self)]

    def load(self, stored: Iterable[tuple[bytes, bytes]]) -> None:
        """Take in the rows the store holds, some at a time: they are never in memory twice.

        A store may give a user twice, as a scan of Redis does while the hash grows.
        """
        rest = iter(stored)
        while self.load_some(rest):
            pass

    def load_some(self, stored: Iterator[tuple[bytes, bytes]]) -> bool:
        """Take in a portion of what `load` takes in whole; False if there was nothing left."""
        portion = dict(islice(stored, LOADED_AT_ONCE))
        if not portion:
            return False
        self._reserve(self.position.users)
        known = len(self)
        fresh = self._slots.take_in(list(portion))
        if len(fresh) < len(portion):
            portion = {user: portion[user] for user in fresh}
        strange = f"partition {self.number} holds rows of another format"
        if set(map(len, portion.values())) - {self._table.dtype.itemsize}:
            raise SchemaMismatchError(strange)
        try:
            rows = self._table.unpacked(b"".join(portion.values()))
        except RowFormatError:
            raise SchemaMismatchError(strange) from None
        self._make_room()
        whole(self._rows)[known : len(self)] = whole(rows)
        return True

    def load_ids(self, stored: Iterable[tuple[int, bytes]]) -> None:
        """Take in the message ids that the store has remembered; see `Store.load_ids`."""
        for place, keys in stored:
            topic, step = self._step_of(place, orders=False)
            if step is not None:
                found = np.frombuffer(keys[: len(keys) // 8 * 8], np.uint64)
                self._loaded[topic, step, False] = len(found)
                self._memory.ids.load(self._lanes[topic], step, found)

    def load_some_orders(self, stored: Iterator[tuple[int, bytes, bytes]]) -> bool:
        """Take in a portion of the orders that the store has; False if there was nothing left.

        A store may give one twice.
        """
        portion: dict[tuple[int, bytes], bytes] = {}
        for place, key, packed in islice(stored, LOADED_AT_ONCE):
            portion[place, key] = packed
        by_place: dict[int, list[tuple[bytes, bytes]]] = {}
        for (place, key), packed in portion.items():
            by_place.setdefault(place, []).append((key, packed))
        for place, orders in by_place.items():
            topic, step = self._step_of(place, orders=True)
            if step is None:
                continue
            keys = np.frombuffer(b"".join(key for key, _ in orders), np.uint64)
            rows = np.frombuffer(b"".join(packed for _, packed in orders), PACKED)
            new = self._memory.orders.load(self._lanes[topic], step, keys, rows)
            known = self._loaded.get((topic, step, True), 0)
            self._loaded[topic, step, True] = known + new
        return bool(portion)

    def _step_of(self, place: int, *, orders: bool) -> tuple[int, int | None]:
        """Topic and step of a place in the store; no step if what is there is forgotten."""
        topic, here = divmod(place, PLACES)
        lane = self._lanes[topic]
        counts = (lane.orders if orders else lane.ids).stored
        return topic, next((step for step in counts if step % PLACES == here), None)

    def missing(self) -> str:
        """What the store had to have and did not give, in words; empty if nothing is missing."""
        for topic, lane in enumerate(self._lanes):
            for orders, steps, what in (
                (False, lane.ids, "message ids"),
                (True, lane.orders, "orders"),
            ):
                found = sum(self._loaded.get((topic, step, orders), 0) for step in steps.stored)
                stored = sum(steps.stored.values())
                if found != stored:
                    return f"{found} of {stored} remembered {what}"
        return ""

    def release(self) -> None:
        """Forget what is remembered for this partition; it is not to be used any more."""
        self._memory.close(self._lanes)

    @property
    def remembered(self) -> tuple[int, int]:
        """How many message ids and orders are remembered."""
        return (
            sum(lane.ids.total for lane in self._lanes),
            sum(lane.orders.total for lane in self._lanes),
        )

    def take_delivered(self, delivered: Sequence[Delivered], *, in_time: bool = False) -> int:
        """Take in changes that were delivered, but that the store has lost: they are true.

        They take effect at once, or, for users that the store has lost too, as soon as their events
        are read again. Until then commits tell that the output is known only as far as before, so
        that whoever takes over reads them again.

        Args:
            delivered: in the order of the output; those of another incarnation say nothing here.
            in_time: whether they take effect at their own time, which this partition has yet to
                reach again: until then, nothing else moves these users.

        Returns:
            How many users they change.
        """
        here = self.position.incarnation
        newest: dict[str, Delivered] = {}
        for one in delivered:
            if one.incarnation == here:
                newest[one.user] = one.after_all(newest.get(one.user))
        if in_time:
            self._foretold = {
                user: one
                for user, one in newest.items()
                if user not in self._slots or self._rows["version"][self._slots[user]] < one.version
            }
            return len(self._foretold)
        known = [one for one in newest.values() if one.user in self._slots]
        slots = np.array([self._slots[one.user] for one in known], np.int64)
        lost = [
            (slot, one)
            for slot, one, version in zip(
                slots.tolist(), known, self._rows["version"][slots].tolist(), strict=True
            )
            if version < one.version
        ]
        for slot, one in lost:
            self._put_where_told(slot, one)
        self._delivered = {user: one for user, one in newest.items() if user not in self._slots}
        return len(lost) + len(self._delivered)

    def _put_where_told(self, slot: int, told: Delivered) -> None:
        """A user is where a delivered change says; nothing speaks for another segment yet."""
        row = self._rows[slot : slot + 1]
        row["version"] = told.version
        if told.moved is not None:
            row["previous"], row["since"] = told.moved
        elif row["segment"] != told.after:
            row["previous"], row["since"] = row["segment"], told.at_ms
        row["segment"] = told.after
        row["candidate"], row["evidence"], row["sign"] = 0, 0, 0
        self._tell_kind(row, np.array([self._code(told.kind)], np.uint8), told.kind_since_ms)
        self._dirty[slot] = True

    def _code(self, kind: str) -> int:
        return self._kinds.code(kind, lambda: np.unique(self.rows["kind"]))

    def kinds_of(self, rows: Rows) -> list[str]:
        """The kind that each user was told last; empty for none."""
        return kinds_told(rows["kind"], self._kinds.names)

    def _scale_of(self, model: Model) -> Scale:
        """The model's kinds in codes of this partition."""
        if self._scale is None or self._scale[0] is not model:
            scale = Scale.of(model, self._kinds, lambda: np.unique(self.rows["kind"]))
            self._scale = model, scale
        return self._scale[1]

    @staticmethod
    def _tell_kind(rows: Rows, kinds: npt.NDArray[np.uint8], now_ms: int) -> None:
        """Rows of users who are told of what kind they are."""
        rows["kind_since"] = np.where(rows["kind"] == kinds, rows["kind_since"], now_ms)
        rows["kind"] = kinds

    def knows_output(self, upto: int) -> None:
        """What the output has before an offset was delivered from this partition's commits."""
        if not self._delivered and not self._foretold:
            self._known_to = upto

    def find(self, users: Sequence[str]) -> Ints:
        """Slot of each user, -1 of whom this partition does not know yet."""
        return self._slots.find(users)

    def slots(self, users: Sequence[str]) -> Ints:
        """Slot of each user; unknown ones are taken in."""
        slots = self._slots.find_or_give(users)
        if len(self._slots.names) > self._hashed:
            self._make_room()
        return slots

    def _make_room(self) -> None:
        """Rows, hashes and flags for every slot that has been given out."""
        users = len(self)
        if users > self._users.room:
            self._reserve(max(users, int(self._users.room * GROWTH)))
        known, self._hashed = self._hashed, users
        self._rows["format"][known:users] = ROW_FORMAT
        names = self._slots.names[known:]
        self._hashes[known:users] = user_hashes(names, self._key)
        if self._delivered:
            for slot, name in enumerate(names, known):
                if (told := self._delivered.pop(name.decode(), None)) is not None:
                    self._put_where_told(slot, told)

    def _reserve(self, users: int) -> None:
        """Memory for so many users."""
        if users > self._users.room:
            self._users.resize(users)

    @property
    def _rows(self) -> Rows:
        return self._users["rows"]

    @property
    def _hashes(self) -> Hashes:
        return self._users["hashes"]

    @property
    def _dirty(self) -> Bools:
        return self._users["dirty"]

    # -- steps --------------------------------------------------------------------------------

    def fold(self, events: EventColumns) -> tuple[Ints, int]:
        """Fold a batch in; returns the touched slots and the number of duplicates."""
        sifted = self._memory.sift([self.part(events)], events, self._table.orders)
        folded = self._table.fold(self.take, sifted.events, sifted.repeats, sifted.shares)
        self.put(folded.touched, folded.rows)
        return folded.touched, len(folded.duplicates)

    def part(self, events: EventColumns) -> Part:
        """What the memory has to know of the partition, and of the users of events."""
        return Part(self._lanes, self._hashes[events.slot])

    @property
    def memory(self) -> Memory:
        return self._memory

    def begin_act(self, slots: Ints, now_ms: int) -> None:
        """Look at users who act before an adoption came to them: what the model did is not theirs."""
        sweep, model = self._sweep, self.model
        if sweep is None or not self.adopting or model is None:
            return
        slots = np.unique(slots[(slots >= sweep.next) & (slots < len(sweep.causes))])
        slots = slots[self._rows["seen"][slots] > 0]
        if len(slots):
            rows = rows_at(self._rows, slots)
            vectors = self._table.vectors(rows, now_ms)
            self._look(model, rows, slots, vectors, sweep.causes[slots], now_ms)
            put_rows(self._rows, slots, rows)

    def take(self, slots: Ints, into: Rows | None = None) -> Rows:
        """Copies of the rows of users, in an array of their own if none is given; see `rows_at`."""
        # Without the mode numpy takes them into a buffer first, and copies them once more.
        found: Rows = self._rows.take(slots, out=into, mode="clip")
        return found

    def put(self, slots: Ints, rows: Rows) -> None:
        """Rows of users who acted, to be written with the next commit."""
        put_rows(self._rows, slots, rows)
        self._dirty[slots] = True

    def sweep(
        self,
        now_ms: int,
        origin_ms: int,
        acted: Ints | None = None,
        sample: SampleRequest | None = None,
    ) -> PartitionStatistics:
        """Look at everyone at once, and count them for the trainer.

        Args:
            acted: slots whose users acted since the last look; for the others, time has passed.
            sample: asks for a sample with the statistics.
        """
        self.begin_sweep(sample)
        if acted is not None:
            assert self._sweep is not None
            self._sweep.causes[acted] = CAUSES.index(Cause.USER_MOVED)
        statistics = self.sweep_on(len(self), now_ms, origin_ms)
        assert statistics is not None
        return statistics

    def adopt(self, model: Model, now_ms: int, origin_ms: int) -> None:
        """Put a model in force and look at everyone under it."""
        self.begin_adoption(model)
        self.sweep_on(len(self), now_ms, origin_ms)

    def begin_sweep(self, sample: SampleRequest | None = None) -> None:
        """From now on, `sweep_on` looks at everyone who is there, because time has passed."""
        divided = self.populations
        sampling = None if sample is None else sample.sampling(divided, len(self._table.names))
        self._sweep = _Sweep.over(len(self), Cause.TIME_PASSED, sampling, len(divided))

    def begin_adoption(self, model: Model) -> None:
        """Put a model in force; `sweep_on` looks at everyone under it.

        Until it is through, commits tell the model before: who takes over begins again.
        """
        self.model = model
        self._sweep = _Sweep.over(len(self), Cause.MODEL_MOVED, None, len(model.populations))

    @property
    def sweeping(self) -> int | None:
        """How many users the sweep under way is over; None if there is none."""
        return None if self._sweep is None else len(self._sweep.causes)

    @property
    def adopting(self) -> bool:
        """Whether the sweep under way is an adoption."""
        return self._sweep is not None and self._sweep.cause is Cause.MODEL_MOVED

    def sweep_on(self, users: int, now_ms: int, origin_ms: int) -> PartitionStatistics | None:
        """Look at the next users of the sweep under way.

        Returns:
            What the trainer wants to know, when everyone has been looked at; None before.
        """
        sweep, model = self._sweep, self.model
        assert sweep is not None
        last = min(sweep.next + users, len(sweep.causes))
        for start in range(sweep.next, last, CHUNK):
            if model is None and sweep.sampling is None:
                break
            end = min(start + CHUNK, last)
            rows, slots, causes = (
                self._rows[start:end],
                np.arange(start, end),
                sweep.causes[start:end],
            )
            unseen = rows["seen"] == 0
            if unseen.any():
                # Known by what the shop did only: in no segment until they act.
                slots = slots[~unseen]
                if len(slots) == 0:
                    continue
                rows, causes = rows_at(self._rows, slots), causes[~unseen]
            vectors = self._table.vectors(rows, now_ms)
            if model is None:
                none = np.full(len(rows), NONE)
                divided = self._populations.divide(vectors, none)
                self._sample(sweep, slots, vectors, divided, rows["segment"])
                continue
            looked = self._look(model, rows, slots, vectors, causes, now_ms)
            if len(slots) < end - start:
                put_rows(self._rows, slots, rows)
            self._dirty[slots[looked.answer.changed]] = True
            sweep.untold.append(slots[looked.untold])
            self._sample(sweep, slots, vectors, looked.placed.populations, rows["segment"])
            counted = _counted(model, looked.placed, looked.answer.columns)
            sweep.total = counted if sweep.total is None else sweep.total + counted
            if sweep.sampling is not None and model.scores is not None:
                # As seldom as a sample: it costs a sixth of a look.
                scored = model.scores.totals(
                    vectors, self._table.names, looked.answer.columns, len(model.ids)
                )
                sweep.scored = scored if sweep.scored is None else sweep.scored + scored
        sweep.next = last
        if last == len(sweep.causes) and model is not None and sweep.untold:
            self._tell_others(model, np.concatenate(sweep.untold), now_ms)
        self.originate(origin_ms)
        if last < len(sweep.causes):
            return None
        self._sweep = None
        self._looked_under = "" if model is None else model.name
        if model is not None and sweep.total is not None:
            sizes = dict(zip(model.ids.tolist(), sweep.total.sizes.tolist(), strict=True))
            half_life_ms = self.rule_of(model).revert_ms
            self._flapping = self._flapping.swept(sizes, now_ms, half_life_ms)
        statistics = PartitionStatistics(
            at_ms=now_ms,
            model="" if model is None else model.name,
            users=int(np.count_nonzero(self._rows["seen"][:last])),
            updates=self.position.counts.applied,
            flapping=self._flapping.tallies,
            schema=self._table.schema,
            rules=self.populations.digest,
            populations=sweep.in_each.tolist(),
        )
        if sweep.total is not None:
            statistics.count(sweep.total)
        if sweep.scored is not None:
            statistics.scored = sweep.scored.tobytes()
        if sweep.sampling is not None:
            statistics.sampled(sweep.sampling.taken())
        return statistics

    def _sample(
        self,
        sweep: _Sweep,
        slots: Ints,
        vectors: Floats,
        populations: Ints,
        segments: npt.NDArray[np.int32],
    ) -> None:
        """Count users by population, and take those into the sample who belong there."""
        sweep.in_each += np.bincount(populations, minlength=len(sweep.in_each))
        if sweep.sampling is not None:
            sweep.sampling.add(self._hashes[slots], vectors, populations, segments)

    def _look(
        self,
        model: Model,
        rows: Rows,
        slots: Ints,
        vectors: Floats,
        causes: npt.NDArray[np.uint8],
        now_ms: int,
    ) -> _Looked:
        """Look at some users: rows change in place, moves are recorded."""
        held = self._hold(slots, now_ms) if self._foretold else np.empty(0, np.int64)
        # They may have been put where they were told just now; the rows here may be a copy.
        kept = rows[held] = self._rows[slots[held]]
        placed, answer = _under(
            model, self.rule_of(model), rows, vectors, causes, now_ms, self._looked_under
        )
        moves = answer.moves
        if len(held):
            rows[held] = kept
            moves = moves.without(held)
            answer.columns[held] = columns_of(kept["segment"], model.ids)
        self.record(model, rows, slots, vectors, placed.mapped, moves, causes, now_ms)
        acted = causes == CAUSES.index(Cause.USER_MOVED)
        acted[held] = False
        told, untold = self.tell_turns(model, rows, slots, answer.columns, acted, now_ms)
        self._dirty[slots[told]] = True
        return _Looked(placed, answer, untold)

    def _hold(self, slots: Ints, now_ms: int) -> Ints:
        """Places of users whom nothing moves at a time, because it is known where they go.

        Args:
            slots: of the users looked at, ascending.
        """
        found = []
        for user, told in list(self._foretold.items()):
            slot = self._slots.get(user)
            if slot is None:
                continue
            if now_ms > told.at_ms:
                del self._foretold[user]
                continue
            place = int(np.searchsorted(slots, slot))
            if place == len(slots) or slots[place] != slot:
                continue
            if now_ms == told.at_ms:
                self._put_where_told(slot, told)
            found.append(place)
        return np.array(found, np.int64)

    def rule_of(self, model: Model) -> PublishRule:
        """A person's, if one was applied with the model."""
        return model.rule or self._rule

    # -- records ------------------------------------------------------------------------------

    def record(
        self,
        model: Model,
        rows: Rows,
        slots: Ints,
        vectors: Floats,
        mapped: Floats,
        moves: Moves,
        causes: npt.NDArray[np.uint8],
        now_ms: int,
    ) -> None:
        """Write a change record for everyone who moved, and count them; rows change in place.

        Args:
            rows, slots, vectors, mapped: of everyone who was looked at; `moves` says who moved.
            causes: code in `CAUSES` for each: what made us look at them.
        """
        if len(moves) == 0:
            return
        self._count(moves, self.rule_of(model), now_ms)
        explained = np.isfinite(moves.margin)
        why = self._reasons(model, vectors, mapped, moves, explained)
        rules = self._rules(model, vectors, moves)
        act = CAUSES.index(Cause.USER_MOVED)
        acted = (causes[moves.index] == act) | (moves.cause == act)
        acted &= did_something(rows[moves.index], now_ms, self.position.mark_ms)
        self._write(model, rows, slots, moves, acted, now_ms, explained, why, rules)

    def tell_turns(
        self, model: Model, rows: Rows, slots: Ints, columns: Ints, acted: Bools, now_ms: int
    ) -> tuple[Ints, Ints]:
        """Tell users who acted, and stay where they are, of what kind their segment is by now.

        Args:
            rows, slots, acted: of everyone who was looked at; rows change in place.
            columns: of each one's segment, -1 for none.

        Returns:
            Places of those who were told, and of those who did not act and are to be told.
        """
        scale = self._scale_of(model)
        themselves = acted & did_something(rows, now_ms, self.position.mark_ms)
        wanted = wanted_kinds(rows["kind"], columns, themselves, scale)
        due = np.flatnonzero(wanted != rows["kind"])
        told, untold = due[acted[due]], due[~acted[due]]
        self._turn(model, rows, slots, told, columns[told], themselves[told], now_ms)
        return told, untold

    def _tell_others(self, model: Model, slots: Ints, now_ms: int) -> None:
        """Tell others that their segment has turned, so many as the rate allows, by their hashes.

        Who is told first does not depend on the order in which users were loaded.

        Args:
            slots: of those who were to be told when they were looked at: some may have acted since.
        """
        # Of these it is known where they go.
        foretold = [self._slots[user] for user in self._foretold if user in self._slots]
        slots = slots[~np.isin(slots, foretold)]
        kinds, nobody = self._rows["kind"][slots], np.zeros(len(slots), np.bool_)
        columns = columns_of(self._rows["segment"][slots], model.ids)
        due = wanted_kinds(kinds, columns, nobody, self._scale_of(model)) != kinds
        slots, columns = slots[due], columns[due]
        if len(slots) == 0:
            return
        rate, mark_ms = self.rule_of(model).turns_per_second, self.position.mark_ms
        most = allowed(now_ms, self._turned_ms, mark_ms, rate)
        chosen = np.sort(smallest_hashes(self._hashes[slots], most))
        slots, columns = slots[chosen], columns[chosen]
        self._turned_ms = paid(len(slots), now_ms, self._turned_ms, mark_ms, rate)
        rows, everyone = rows_at(self._rows, slots), np.arange(len(slots))
        self._turn(model, rows, slots, everyone, columns, nobody[: len(slots)], now_ms)
        put_rows(self._rows, slots, rows)
        self._dirty[slots] = True

    def _turn(
        self,
        model: Model,
        rows: Rows,
        slots: Ints,
        index: Ints,
        columns: Ints,
        acted: Bools,
        now_ms: int,
    ) -> None:
        """Write records of turns; rows change in place.

        Args:
            index: places of users who are told.
            columns, acted: of these.
        """
        if len(index) == 0:
            return
        rows["version"][index] += 1
        segments = rows["segment"][index]
        nobody = np.zeros(len(index), np.bool_)
        turns = Moves(
            index=index,
            before=segments,
            after=segments,
            column=columns,
            column_before=columns,
            cause=np.full(len(index), CAUSES.index(Cause.SEGMENT_TURNED), np.uint8),
            margin=np.full(len(index), np.nan),
            provisional=rows["looks"][index] < self.rule_of(model).provisional_looks,
            reverted=nobody,
            crossed=nobody,
        )
        self._write(model, rows, slots, turns, acted, now_ms, nobody, [], [])

    def _write(
        self,
        model: Model,
        rows: Rows,
        slots: Ints,
        moves: Moves,
        acted: Bools,
        now_ms: int,
        explained: Bools,
        reasons: Sequence[tuple[list[records.Why], float]],
        crossings: Sequence[list[records.Why]],
    ) -> None:
        """Write records of moves and turns; rows are told of the kinds in them.

        Args:
            explained: which of them have reasons, in their order.
            crossings: what took those who crossed to another population, in their order.
        """
        who, why, rules = moves.index, iter(reasons), iter(crossings)
        scale = self._scale_of(model)
        told = rows["kind"][who]
        kinds = to_tell(told, scale.kinds[moves.column], acted, scale)
        some = rows_at(rows, who)
        self._tell_kind(some, kinds, now_ms)
        rows["kind"][who], rows["kind_since"][who] = some["kind"], some["kind_since"]
        version, times = rows["version"][who].tolist(), isos(rows["seen"][who])
        incarnation, users, name = self.position.incarnation, self._slots.names, model.name
        at, known = iso(now_ms), model.by_id
        for (
            slot,
            number,
            seen,
            old,
            new,
            kind_from,
            kind_to,
            code,
            margin,
            has_why,
            crossed,
            provisional,
        ) in zip(
            slots[who].tolist(),
            version,
            times,
            moves.before.tolist(),
            moves.after.tolist(),
            kinds_told(told, self._kinds.names),
            kinds_told(kinds, self._kinds.names),
            moves.cause.tolist(),
            moves.margin.tolist(),
            explained.tolist(),
            moves.crossed.tolist(),
            moves.provisional.tolist(),
            strict=True,
        ):
            before, after, cause = known.get(old), known[new], CAUSES[code]
            parts, rest = next(why) if has_why else (next(rules) if crossed else (), None)
            self._told[cause, kind_from or None, kind_to] += 1
            record = records.Change(
                records.change_id(users[slot], self._key, incarnation, number),
                users[slot].decode(),
                number,
                old or None,
                new,
                before.name if before else None,
                after.name,
                kind_from or None,
                kind_to,
                cause,
                at,
                seen,
                name,
                margin if has_why else None,
                provisional,
                parts,
                rest,
            )
            self._pending.append(records.encode(record))

    def _reasons(
        self, model: Model, vectors: Floats, mapped: Floats, moves: Moves, explained: Bools
    ) -> list[tuple[list[records.Why], float]]:
        """The features that contributed most to the margin of each move, and the rest of it.

        Only of moves that have a segment before.
        """
        who = moves.index[explained]
        if len(who) == 0:
            return []
        old, new = moves.column_before[explained], moves.column[explained]
        parts = contributions(
            mapped[who], model.centroids[old], model.centroids[new], model.weights[new]
        )
        top = np.argsort(-parts, axis=1, kind="stable")[:, :WHY]
        largest = np.take_along_axis(parts, top, axis=1)
        # Sums are exact before the division, and depend on their order after it.
        rest = parts.sum(axis=1) - largest.sum(axis=1)
        gaps = model.gaps[old, new]
        scale = 2.0 * np.where(gaps > 0, gaps, 1.0)
        names = self._table.names
        return [
            (
                [records.Why(names[f], value, part) for f, value, part in zip(*one, strict=True)],
                others,
            )
            for *one, others in zip(
                top.tolist(),
                np.take_along_axis(vectors[who], top, axis=1).tolist(),
                (largest / scale[:, None]).tolist(),
                (rest / scale).tolist(),
                strict=True,
            )
        ]

    def _rules(self, model: Model, vectors: Floats, moves: Moves) -> list[list[records.Why]]:
        """The features that took users to another population, of each who moved there."""
        here = np.flatnonzero(moves.crossed)
        if len(here) == 0:
            return []
        names, values = self._table.names, vectors[moves.index[here]]
        rules = model.crossed_by(moves.before[here], moves.after[here], values)
        return [
            [records.Why(names[column], vector[column], None) for column in columns[:WHY]]
            for columns, vector in zip(rules, values.tolist(), strict=True)
        ]

    def _count(self, moves: Moves, rule: PublishRule, now_ms: int) -> None:
        """Who left which segment, and who of them goes back to where they were soon before."""
        left, back = counted(moves.before), counted(moves.before[moves.reverted])
        self._flapping = self._flapping.moved(left, back, now_ms, rule.revert_ms)
        self._left.update(left)
        self._back.update(back)

    def originate(self, origin_ms: int) -> None:
        """What made the moves that wait for a commit happened at, if nothing did before."""
        if self._pending and not self._origin_ms:
            self._origin_ms = origin_ms

    # -- commit -------------------------------------------------------------------------------

    @property
    def uncommitted(self) -> bool:
        """Whether anything but the position has changed since the last commit."""
        return bool(self._pending) or bool(self._dirty[: len(self)].any())

    def commit(
        self,
        offsets: Sequence[int],
        counts: Counts,
        now_ms: int,
        *,
        mark_ms: int | None = None,
        round_ms: int | None = None,
        statistics: PartitionStatistics | None = None,
    ) -> Commit:
        """Gather everything since the last commit into one.

        Args:
            offsets: next offset to read, by input topic.
            counts: what became of the messages since the last commit.
        """
        total = replace(self.position.counts)
        total.add(counts)
        position = msgspec.structs.replace(
            self.position,
            offsets=list(offsets),
            clock_ms=max(now_ms, self.position.clock_ms),
            mark_ms=self.position.mark_ms if mark_ms is None else mark_ms,
            round_ms=self.position.round_ms if round_ms is None else round_ms,
            model=self._looked_under,
            counts=total,
            flapping=self._flapping,
            known_to=self._known_to,
            users=len(self),
            remember=self._memory.limits.told,
            clocks=[lane.clock_ms for lane in self._lanes],
            ids=[lane.ids.told for lane in self._lanes],
            orders=[lane.orders.told for lane in self._lanes],
            kinds=list(self._kinds.names),
            turned_ms=self._turned_ms,
        )
        slots = np.flatnonzero(self._dirty[: len(self)])
        names = self._slots.names
        return Commit(
            sequence=self.sequence,
            position=position,
            users=[names[slot] for slot in slots.tolist()],
            rows=rows_at(self._rows, slots).tobytes(),
            outbox=[
                OutboxEntry(
                    self._origin_ms,
                    tuple(self._pending[start : start + CHANGES_PER_ENTRY]),
                    position.incarnation,
                )
                for start in range(0, len(self._pending), CHANGES_PER_ENTRY)
            ],
            statistics=None if statistics is None else statistics.pack(),
            memory=self._memory_changes(),
        )

    def _memory_changes(self) -> MemoryChanges:
        """What is remembered since the last commit, and what is forgotten."""
        ids: dict[int, bytes] = {}
        orders: dict[int, tuple[bytes, bytes]] = {}
        no_ids: list[int] = []
        no_orders: list[int] = []
        for topic, lane in enumerate(self._lanes):
            base = topic * PLACES
            no_ids += [base + place for place in lane.ids.vanished()]
            no_orders += [base + place for place in lane.orders.vanished()]
            for step, keys in lane.fresh_by_step():
                ids[base + step % PLACES] = keys
            for step, found, packed in self._memory.orders.packed(lane):
                orders[base + step % PLACES] = found.tobytes(), packed.tobytes()
        return MemoryChanges(no_ids, ids, no_orders, orders)

    def committed(self, commit: Commit) -> None:
        """The store has applied the commit."""
        self.sequence = commit.sequence + 1
        self.position = commit.position
        self._dirty[: len(self)] = False
        for lane in self._lanes:
            lane.keep()
        self._pending.clear()
        self._origin_ms = 0
        self._tell_changes()

    def _tell_changes(self) -> None:
        """Count the changes of a commit: now, for those of one that is refused are made again."""
        for (cause, kind_from, kind_to), users in self._told.items():
            metrics.changes_committed(cause, kind_from, kind_to, users)
        metrics.segments_left(self._left, self._back)
        for counts in (self._told, self._left, self._back):
            counts.clear()


def _seconds(told: Sequence[int]) -> str:
    return ", ".join(f"{ms / 1_000:g}" for ms in told)


class Acting(NamedTuple):
    """What users of a partition did.

    Attributes:
        origin_ms: when what made them known was.
    """

    partition: Partition
    events: EventColumns
    origin_ms: int


def act_together(acting: Sequence[Acting], now_ms: int) -> list[int]:
    """Fold a batch into each of some partitions, and look at the users who acted.

    Nothing depends on which partitions come together. It is done in one go because numpy's calls
    cost the same for one user or a hundred, and in live mode a partition has few at a time.

    Args:
        acting: at least one, all of one feature table and one memory.

    Returns:
        The number of duplicates in each.
    """
    partitions = [one.partition for one in acting]
    for one in acting:
        one.partition.begin_act(one.events.slot, now_ms)
    # In here, a user's slot is counted on from partition to partition.
    ends = np.cumsum([len(partition) for partition in partitions])
    firsts = ends - [len(partition) for partition in partitions]

    def parted(slots: Ints) -> list[tuple[int, int]]:
        """Where each partition's begin and end."""
        cuts = np.searchsorted(slots, ends).tolist()
        return list(zip([0, *cuts], cuts, strict=False))

    def take(slots: Ints) -> Rows:
        rows = np.empty(len(slots), table.dtype)
        for one, first, (a, b) in zip(partitions, firsts.tolist(), parted(slots), strict=True):
            one.take(slots[a:b] - first, rows[a:b])
        return rows

    table = partitions[0].table
    events = EventColumns.concatenate(
        [
            replace(one.events, slot=one.events.slot + first)
            for one, first in zip(acting, firsts.tolist(), strict=True)
        ]
    )
    if any(partition.memory is not partitions[0].memory for partition in partitions):
        raise ValueError("partitions that act together have one memory")
    parts = [one.partition.part(one.events) for one in acting]
    sifted = partitions[0].memory.sift(parts, events, table.orders)
    folded = table.fold(take, sifted.events, sifted.repeats, sifted.shares)
    spans = parted(folded.touched)
    slots = [
        folded.touched[a:b] - first for first, (a, b) in zip(firsts.tolist(), spans, strict=True)
    ]
    for group in _alike(partitions):
        model = partitions[group[0]].model
        if model is None:
            continue
        here = np.concatenate([np.arange(*spans[number]) for number in group])
        known = folded.rows["seen"][here] > 0
        # Who is known by what the shop did only is in no segment until they act.
        here = here[known]
        if len(here) == 0:
            continue
        alone = len(here) == len(folded.rows)
        rows = folded.rows if alone else rows_at(folded.rows, here)
        vectors = table.vectors(rows, now_ms)
        causes = np.full(len(rows), CAUSES.index(Cause.USER_MOVED), np.uint8)
        rule = partitions[group[0]].rule_of(model)
        placed, answer = _under(model, rule, rows, vectors, causes, now_ms)
        begin = 0
        for number in group:
            low, high = spans[number]
            end = begin + int(np.count_nonzero((here >= low) & (here < high)))
            part, span = partitions[number], slice(begin, end)
            mine, whose = rows[span], slots[number][here[span] - low]
            part.record(
                model, mine, whose, vectors[span], placed.mapped[span],
                answer.moves.between(begin, end), causes[span], now_ms,
            )  # fmt: skip
            everyone = np.ones(len(mine), np.bool_)
            part.tell_turns(model, mine, whose, answer.columns[span], everyone, now_ms)
            part.originate(acting[number].origin_ms)
            begin = end
        if not alone:
            put_rows(folded.rows, here, rows)
    for partition, touched, (a, b) in zip(partitions, slots, spans, strict=True):
        partition.put(touched, folded.rows[a:b])
    return [b - a for a, b in parted(folded.duplicates)]


def _under(
    model: Model,
    rule: PublishRule,
    rows: Rows,
    vectors: Floats,
    causes: npt.NDArray[np.uint8],
    now_ms: int,
    looked_under: str = "",
) -> tuple[Placed, Look]:
    """Look at users under a model; rows change in place.

    Args:
        looked_under: the model under which everyone was looked at last; empty for none.
    """
    placed = model.place(vectors, rows["segment"])
    if looked_under and len(model.populations) > 1:
        # An adoption may find that time has passed, too: no model took them to a population that
        # was known before.
        known = model.known_since(looked_under)[placed.populations]
        by_model = placed.crossing & known & (causes == CAUSES.index(Cause.MODEL_MOVED))
        causes = np.where(by_model, CAUSES.index(Cause.TIME_PASSED), causes).astype(np.uint8)
    answer = look(
        rows, placed.squared, model.ids, model.gaps, rule, causes, now_ms, placed.crossing,
        model.nearness,
    )  # fmt: skip
    return placed, answer


def _counted(model: Model, placed: Placed, columns: Ints) -> Statistics:
    """Of users whose population has been learned.

    Args:
        columns: of each one's segment, -1 for none.
    """
    learned = model.has_learned(placed.populations)
    mapped, squared = placed.mapped, placed.squared
    if not learned.all():
        mapped, squared, columns = mapped[learned], squared[learned], columns[learned]
    return Statistics.of(mapped, squared, columns)


def _alike(partitions: Sequence[Partition]) -> list[list[int]]:
    """Places of partitions with the same model and rule: all of them, but during an adoption."""
    groups: list[list[int]] = []
    for number, one in enumerate(partitions):
        for group in groups:
            other = partitions[group[0]]
            same = one.model is other.model
            if same and (one.model is None or one.rule_of(one.model) == other.rule_of(one.model)):
                group.append(number)
                break
        else:
            groups.append([number])
    return groups
