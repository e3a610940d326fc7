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

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from stream.clustering import smallest_hashes
from stream.delivered import Delivered, LostChanges, newest_of, put_where_told
from stream.events import CAUSES, Bools, Cause, Counts, EventColumns, Floats, Hashes, Ints, Rows
from stream.features import FeatureTable, over_time
from stream.hashing import user_hashes
from stream.learning.statistics import PartitionStatistics
from stream.levels.book import FIELD
from stream.levels.owned import AHEAD_MS, NOBODY, OwnedLevels
from stream.looking import look_under
from stream.memory import Memory, Part
from stream.model import Model, Placed
from stream.past_messages import LOADED_AT_ONCE, PastMessages
from stream.populations import NONE, Populations
from stream.recording import Recorder
from stream.reviews.judge import sentiments
from stream.rows import ROW_FORMAT, RowFormatError, put_rows, rows_at, whole
from stream.segments import Look, Moves, PublishRule, columns_of
from stream.store.state import Commit, Position
from stream.sweeps import SampleRequest, Sweep
from stream.told import WRONG, ToldError
from stream.turns import (
    KindBook,
    Scale,
    allowed,
    did_something,
    kinds_told,
    paid,
    wanted_kinds,
)
from stream.users import Kind, TextSlots, UserColumns

CHUNK = 2_048
"""Users looked at in one go by a sweep: their rows and vectors stay in the cache (a third faster
than 8,192)."""
ROOM = 1_024
GROWTH = 1.25
"""Of a partition's memory when it is full: a row is half a kilobyte, so no more is kept empty."""


class SchemaMismatchError(ToldError):
    """The stored rows were written by another feature table; says what to do."""

    exit_code = WRONG


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
        self.past = PastMessages(self._memory, number, position)
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
            # Until then, time alone takes the user over no limit of a level.
            "level_until": (np.int64, ()),
        }
        self._users = UserColumns(kinds, ROOM)
        self._hashed = 0
        self._sweep: Sweep | None = None
        self._looked_under = position.model
        self._known_to = position.known_to
        self._lost = LostChanges()
        self._kinds = KindBook(position.kinds)
        self._levels = OwnedLevels(position, over_time(table.features))
        self._recorder = Recorder(
            self._slots,
            self._kinds,
            table.names,
            position.flapping,
            position.incarnation,
            key,
        )
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
        newest = newest_of(delivered, self.position.incarnation)
        if in_time:
            self._lost.foretold = {
                user: one
                for user, one in newest.items()
                if user not in self._slots or self._rows["version"][self._slots[user]] < one.version
            }
            return len(self._lost.foretold)
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
        self._lost.unknown = {user: one for user, one in newest.items() if user not in self._slots}
        return len(lost) + len(self._lost.unknown)

    def _put_where_told(self, slot: int, told: Delivered) -> None:
        """See `delivered.put_where_told`."""
        code = 0
        if not told.of_level:
            code = self._kinds.code(told.kind, lambda: np.unique(self.rows["kind"]))
        row = self._rows[slot : slot + 1]
        put_where_told(row, told, code)
        for level, step in told.steps:
            if (found := self._levels.book.code(level, step)) is not None:
                row[FIELD][:, found.place] = found.code
        self._dirty[slot] = True
        self._level_until[slot] = 0

    def kinds_of(self, rows: Rows) -> list[str]:
        """The kind that each user was told last; empty for none."""
        return kinds_told(rows["kind"], self._kinds.names)

    def _scale_of(self, model: Model) -> Scale:
        """The model's kinds in codes of this partition."""
        if self._scale is None or self._scale[0] is not model:
            scale = Scale.of(model, self._kinds, lambda: np.unique(self.rows["kind"]))
            self._scale = model, scale
        return self._scale[1]

    def knows_output(self, upto: int) -> None:
        """What the output has before an offset was delivered from this partition's commits."""
        if not self._lost:
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
        if self._lost.unknown:
            for slot, name in enumerate(names, known):
                if (told := self._lost.unknown.pop(name.decode(), None)) is not None:
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

    @property
    def _level_until(self) -> Ints:
        return self._users["level_until"]

    # -- steps --------------------------------------------------------------------------------

    def fold(self, events: EventColumns) -> tuple[Ints, int]:
        """Fold a batch in; returns the touched slots and the number of duplicates."""
        sifted = self._memory.sift([self.part(events)], events, self._table.orders)
        feels = sentiments([(self.past.wordings, len(events))], sifted.events, sifted.repeats)
        folded = self._table.fold(self.take, sifted.events, sifted.repeats, sifted.shares, feels)
        self.put(folded.touched, folded.rows)
        return folded.touched, len(folded.duplicates)

    def part(self, events: EventColumns) -> Part:
        """What the memory has to know of the partition, and of the users of events."""
        return Part(self.past.lanes, self._hashes[events.slot])

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
        if self._levels.book.steps:
            self._level_until[slots] = 0

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
        totals = sample is not None and sample.totals
        self._sweep = Sweep.over(
            len(self), Cause.TIME_PASSED, len(divided), sampling, totals=totals
        )
        self._levels.begin_sweep()

    def begin_adoption(self, model: Model) -> None:
        """Put a model in force; `sweep_on` looks at everyone under it.

        Until it is through, commits tell the model before: who takes over begins again.
        """
        self.model = model
        self._sweep = Sweep.over(len(self), Cause.MODEL_MOVED, len(model.populations))
        self._levels.begin_sweep()
        if model.levels.known and self._levels.are_new(model):
            self._level_until[:] = 0

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
        first, last = sweep.next, min(sweep.next + users, len(sweep.causes))
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
                sweep.sample(self._hashes[slots], vectors, divided, rows["segment"])
                continue
            looked = self._look(model, rows, slots, vectors, causes, now_ms)
            if len(slots) < end - start:
                put_rows(self._rows, slots, rows)
            self._dirty[slots[looked.answer.changed]] = True
            sweep.untold.append(slots[looked.untold])
            if model.levels.known:
                self._levels.count(rows, now_ms)
            sweep.sample(self._hashes[slots], vectors, looked.placed.populations, rows["segment"])
            sweep.count(model, looked.placed, looked.answer.columns, vectors, self._table.names)
        sweep.next = last
        if model is not None and model.levels.known and not self.adopting:
            self._look_at_silent(model, first, last, sweep.causes, now_ms)
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
            self._recorder.swept(sizes, now_ms, half_life_ms)
        statistics = PartitionStatistics(
            at_ms=now_ms,
            model="" if model is None else model.name,
            users=int(np.count_nonzero(self._rows["seen"][:last])),
            updates=self.position.counts.applied,
            flapping=self._recorder.flapping.tallies,
            schema=self._table.schema,
            rules=self.populations.digest,
        )
        sweep.tell(statistics)
        if model is not None and model.levels.known:
            self.owned_levels(model)
            statistics.levels = self._levels.end_sweep(model)
        return statistics

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
        held = self._hold(slots, now_ms) if self._lost.foretold else np.empty(0, np.int64)
        # They may have been put where they were told just now; the rows here may be a copy.
        kept = rows[held] = self._rows[slots[held]]
        placed, answer = look_under(
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
        told, untold = self.tell_turns(model, rows, slots, vectors, answer.columns, acted, now_ms)
        self._dirty[slots[told]] = True
        if model.levels.known:
            # Of the silent, time is seen to behind the others: of few of them it has to be.
            silent = self.adopting and self._levels.are_new(model)
            crossed = self.tell_levels(
                model, rows, slots, vectors, causes, now_ms, held, silent=silent
            )
            self._dirty[slots[crossed]] = True
        return _Looked(placed, answer, untold)

    def _look_at_silent(
        self, model: Model, first: int, last: int, causes: npt.NDArray[np.uint8], now_ms: int
    ) -> None:
        """Tell those who did not act of the limits of levels that time has taken them over.

        Scores of everyone would cost a fifth of a look. So whoever is far from every limit is left alone for
        as long as they are sure to be: it comes to the same as looking at everyone.
        """
        levels, until, names = self.owned_levels(model), self._level_until, self._table.names
        left = until[first:last]
        # Nobody is left alone for longer than that but by a clock that was ahead, and is put back.
        silent = (left <= now_ms) | (left > now_ms + AHEAD_MS[0])
        silent &= self._rows["seen"][first:last] > 0
        silent &= causes[first:last] != CAUSES.index(Cause.USER_MOVED)
        due = np.flatnonzero(silent) + first
        if self._lost.foretold:
            due = due[~np.isin(due, self._lost.slots(self._slots))]
        for start in range(0, len(due), CHUNK):
            slots = due[start : start + CHUNK]
            rows = rows_at(self._rows, slots)
            vectors, before = self._table.vectors(rows, now_ms), rows[FIELD].copy()
            crossed = self.tell_levels(model, rows, slots, vectors, causes[slots], now_ms)
            if len(crossed):
                crossed = np.unique(crossed)
                levels.recount(before[crossed], rows[FIELD][crossed])
                put_rows(self._rows, slots, rows)
                self._dirty[slots[crossed]] = True
            until[slots] = levels.look_ahead(
                model, rows, vectors, self._table.vectors, now_ms, names
            )

    def _hold(self, slots: Ints, now_ms: int) -> Ints:
        """Places of users whom nothing moves at a time, because it is known where they go.

        Args:
            slots: of the users looked at, ascending.
        """
        held, due = self._lost.hold(slots, self._slots, now_ms)
        for slot, told in due:
            self._put_where_told(slot, told)
        return held

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
        act = CAUSES.index(Cause.USER_MOVED)
        acted = (causes[moves.index] == act) | (moves.cause == act)
        acted &= did_something(rows[moves.index], now_ms, self.position.mark_ms)
        self._recorder.moved(
            model, self.rule_of(model), self._scale_of(model), rows, slots, vectors, mapped,
            moves, acted, now_ms,
        )  # fmt: skip

    def tell_turns(
        self,
        model: Model,
        rows: Rows,
        slots: Ints,
        vectors: Floats,
        columns: Ints,
        acted: Bools,
        now_ms: int,
    ) -> tuple[Ints, Ints]:
        """Tell users who acted, and stay where they are, of what kind their segment is by now.

        Args:
            rows, slots, vectors, acted: of everyone who was looked at; rows change in place.
            columns: of each one's segment, -1 for none.

        Returns:
            Places of those who were told, and of those who did not act and are to be told.
        """
        scale = self._scale_of(model)
        themselves = acted & did_something(rows, now_ms, self.position.mark_ms)
        wanted = wanted_kinds(rows["kind"], columns, themselves, scale)
        due = np.flatnonzero(wanted != rows["kind"])
        told, untold = due[acted[due]], due[~acted[due]]
        self._recorder.turned(
            model, self.rule_of(model), scale, rows, slots, vectors, told, columns[told],
            themselves[told], now_ms,
        )  # fmt: skip
        return told, untold

    def tell_levels(
        self,
        model: Model,
        rows: Rows,
        slots: Ints,
        vectors: Floats,
        causes: npt.NDArray[np.uint8],
        now_ms: int,
        held: Ints = NOBODY,
        *,
        silent: bool = True,
    ) -> Ints:
        """Tell users who have crossed a limit of a level; rows change in place.

        Args:
            rows, slots, vectors, causes: of everyone who was looked at.
            held: places of those of whom it is known already what they are told.
            silent: whether to look at those, too, who did not act.

        Returns:
            Places of those who were told.
        """
        owned, names = self.owned_levels(model), self._table.names
        found = owned.crossings(model, rows, vectors, causes, names, held, silent=silent)
        if len(found):
            self._recorder.crossed(model, found, rows, slots, vectors, causes, now_ms)
        return found.index

    def owned_levels(self, model: Model) -> OwnedLevels:
        """With a place for each level of a model; one that takes the place of another begins anew."""
        for place in self._levels.take_in(model):
            self._level_until[:] = 0
            told = self._rows[FIELD][: len(self), place]
            self._dirty[: len(self)] |= told > 0
            told[:] = 0
        return self._levels

    def _tell_others(self, model: Model, slots: Ints, now_ms: int) -> None:
        """Tell others that their segment has turned, so many as the rate allows, by their hashes.

        Who is told first does not depend on the order in which users were loaded.

        Args:
            slots: of those who were to be told when they were looked at: some may have acted since.
        """
        # Of these it is known where they go.
        slots = slots[~np.isin(slots, self._lost.slots(self._slots))]
        rule, scale = self.rule_of(model), self._scale_of(model)
        kinds, nobody = self._rows["kind"][slots], np.zeros(len(slots), np.bool_)
        columns = columns_of(self._rows["segment"][slots], model.ids)
        due = wanted_kinds(kinds, columns, nobody, scale) != kinds
        slots, columns = slots[due], columns[due]
        if len(slots) == 0:
            return
        rate, mark_ms = rule.turns_per_second, self.position.mark_ms
        most = allowed(now_ms, self._turned_ms, mark_ms, rate)
        chosen = np.sort(smallest_hashes(self._hashes[slots], most))
        slots, columns = slots[chosen], columns[chosen]
        self._turned_ms = paid(len(slots), now_ms, self._turned_ms, mark_ms, rate)
        rows, everyone = rows_at(self._rows, slots), np.arange(len(slots))
        vectors = self._table.vectors(rows, now_ms)
        self._recorder.turned(
            model,
            rule,
            scale,
            rows,
            slots,
            vectors,
            everyone,
            columns,
            nobody[: len(slots)],
            now_ms,
        )
        put_rows(self._rows, slots, rows)
        self._dirty[slots] = True

    def originate(self, origin_ms: int) -> None:
        """What made the moves that wait for a commit happened at, if nothing did before."""
        self._recorder.originate(origin_ms)

    # -- commit -------------------------------------------------------------------------------

    @property
    def uncommitted(self) -> bool:
        """Whether anything but the position has changed since the last commit."""
        return len(self._recorder) > 0 or bool(self._dirty[: len(self)].any())

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
            flapping=self._recorder.flapping,
            known_to=self._known_to,
            users=len(self),
            remember=self._memory.limits.told,
            clocks=[lane.clock_ms for lane in self.past.lanes],
            ids=[lane.ids.told for lane in self.past.lanes],
            orders=[lane.orders.told for lane in self.past.lanes],
            words=self.past.told_of_words,
            kinds=list(self._kinds.names),
            levels=self._levels.kept,
            levels_ms=self._levels.looked_ms,
            levels_by=self._levels.looked_by,
            turned_ms=self._turned_ms,
        )
        slots = np.flatnonzero(self._dirty[: len(self)])
        names = self._slots.names
        return Commit(
            sequence=self.sequence,
            position=position,
            users=[names[slot] for slot in slots.tolist()],
            rows=rows_at(self._rows, slots).tobytes(),
            outbox=self._recorder.entries(),
            statistics=None if statistics is None else statistics.pack(),
            memory=self.past.changes(),
        )

    def committed(self, commit: Commit) -> None:
        """The store has applied the commit."""
        self.sequence = commit.sequence + 1
        self.position = commit.position
        self._dirty[: len(self)] = False
        self.past.keep()
        self._recorder.committed()


def _seconds(told: Sequence[int]) -> str:
    return ", ".join(f"{ms / 1_000:g}" for ms in told)
