"""Records who moved and who was told of a turn, and counts them, until a commit has it.

Comes in: moves, as the publish rule answered. Goes out: outbox entries for a commit, rows that know what their
users were told, and tallies of who went back. `partition` says who moved, `records` builds what strangers read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from stream import metrics, records
from stream.events import CAUSES, Bools, Cause, Floats, Ints, Rows
from stream.flapping import Flapping, counted
from stream.levels.book import FIELD
from stream.levels.told import Crossings, reasons
from stream.model import Model
from stream.rows import rows_at
from stream.segments import Moves, PublishRule, contributions
from stream.store.state import OutboxEntry
from stream.turns import KindBook, Scale, kinds_told, tell_kind, to_tell
from stream.units import iso, isos
from stream.users import TextSlots

CHANGES_PER_ENTRY = 1_000
WHY = 3
SCORE_DECIMALS = 4


class Recorder:
    """Records of one partition that no commit has yet.

    Attributes:
        flapping: tallies of who went back, with what is not committed yet.

    Args:
        names: of the features.
        key: the namespace's secret, which makes the ids of changes.
    """

    def __init__(
        self,
        users: TextSlots,
        kinds: KindBook,
        names: Sequence[str],
        flapping: Flapping,
        incarnation: int,
        key: bytes,
    ) -> None:
        self.flapping = flapping
        self._users = users
        self._kinds = kinds
        self._names = names
        self._incarnation = incarnation
        self._key = key
        self._pending: list[bytes] = []
        self._told: Counter[tuple[Cause, str | None, str]] = Counter()
        self._crossed: Counter[tuple[str, str | None, str | None, Cause]] = Counter()
        self._left: Counter[int] = Counter()
        self._back: Counter[int] = Counter()
        self._origin_ms = 0

    def __len__(self) -> int:
        """How many records no commit has yet."""
        return len(self._pending)

    def moved(
        self,
        model: Model,
        rule: PublishRule,
        scale: Scale,
        rows: Rows,
        slots: Ints,
        vectors: Floats,
        mapped: Floats,
        moves: Moves,
        acted: Bools,
        now_ms: int,
    ) -> None:
        """Write a record for everyone who moved, and count them; rows change in place.

        Args:
            rows, slots, vectors, mapped: of everyone who was looked at; `moves` says who moved.
            acted: of those who moved.
        """
        self._count(moves, rule, now_ms)
        explained = np.isfinite(moves.margin)
        why = self._reasons(model, vectors, mapped, moves, explained)
        rules = self._rules(model, vectors, moves)
        scores = self._scores(model, vectors[moves.index])
        self._write(model, scale, rows, slots, moves, acted, now_ms, explained, why, rules, scores)

    def turned(
        self,
        model: Model,
        rule: PublishRule,
        scale: Scale,
        rows: Rows,
        slots: Ints,
        vectors: Floats,
        index: Ints,
        columns: Ints,
        acted: Bools,
        now_ms: int,
    ) -> None:
        """Write records of turns; rows change in place.

        Args:
            vectors: of everyone in `rows`.
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
            provisional=rows["looks"][index] < rule.provisional_looks,
            reverted=nobody,
            crossed=nobody,
        )
        scores = self._scores(model, vectors[index])
        self._write(model, scale, rows, slots, turns, acted, now_ms, nobody, [], [], scores)

    def _write(
        self,
        model: Model,
        scale: Scale,
        rows: Rows,
        slots: Ints,
        moves: Moves,
        acted: Bools,
        now_ms: int,
        explained: Bools,
        reasons: Sequence[tuple[list[records.Why], float]],
        crossings: Sequence[list[records.Why]],
        scores: Sequence[dict[str, float]],
    ) -> None:
        """Write records of moves and turns; rows are told of the kinds in them.

        Args:
            explained: which of them have reasons, in their order.
            crossings: what took those who crossed to another population, in their order.
            scores: of all of them.
        """
        who, why, rules = moves.index, iter(reasons), iter(crossings)
        told = rows["kind"][who]
        kinds = to_tell(told, scale.kinds[moves.column], acted, scale)
        some = rows_at(rows, who)
        tell_kind(some, kinds, now_ms)
        rows["kind"][who], rows["kind_since"][who] = some["kind"], some["kind_since"]
        version, times = rows["version"][who].tolist(), isos(rows["seen"][who])
        incarnation, users, name = self._incarnation, self._users.names, model.name
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
            foretold,
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
            scores,
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
                before.population if before else None,
                after.population,
                foretold,
            )
            self._pending.append(records.encode(record))

    def crossed(
        self,
        model: Model,
        found: Crossings,
        rows: Rows,
        slots: Ints,
        vectors: Floats,
        causes: npt.NDArray[np.uint8],
        now_ms: int,
    ) -> None:
        """Write a record of each crossing of a level's limit; rows are told of the steps in them.

        Args:
            rows, slots, vectors, causes: of everyone who was looked at.
        """
        who = found.index
        rows[FIELD][who, found.place] = found.after
        # One look may take a user over limits of several levels: each is a version of its own.
        versions = rows["version"][who] + found.turn + 1
        np.add.at(rows["version"], who, 1)
        times, at = isos(rows["seen"][who]), iso(now_ms)
        users = self._users.names
        for slot, version, seen, code, told, (why, rest), foretold in zip(
            slots[who].tolist(),
            versions.tolist(),
            times,
            causes[who].tolist(),
            found.told,
            reasons(model.levels, found, vectors[who], self._names),
            self._scores(model, vectors[who]),
            strict=True,
        ):
            cause = CAUSES[code]
            self._crossed[told.level, told.step_from, told.step_to, cause] += 1
            record = records.LevelChange(
                records.change_id(users[slot], self._key, self._incarnation, version),
                users[slot].decode(),
                version,
                told.level,
                told.step_from,
                told.step_to,
                told.of,
                told.value,
                told.limit,
                cause,
                at,
                seen,
                model.name,
                why,
                rest,
                foretold,
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
        names = self._names
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

    def _scores(self, model: Model, vectors: Floats) -> list[dict[str, float]]:
        """Scores of users, of each those that they have."""
        learned = model.scores
        if learned is None or not len(vectors) or not learned.readable(self._names):
            return [{} for _ in range(len(vectors))]
        found = np.round(learned.evaluate(vectors, self._names), SCORE_DECIMALS)
        have = ~np.isnan(found)
        return [
            {name: value for name, value, there in zip(learned.names, *one, strict=True) if there}
            for one in zip(found.tolist(), have.tolist(), strict=True)
        ]

    def _rules(self, model: Model, vectors: Floats, moves: Moves) -> list[list[records.Why]]:
        """The features that took users to another population, of each who moved there."""
        here = np.flatnonzero(moves.crossed)
        if len(here) == 0:
            return []
        names, values = self._names, vectors[moves.index[here]]
        rules = model.crossed_by(moves.before[here], moves.after[here], values)
        return [
            [records.Why(names[column], vector[column], None) for column in columns[:WHY]]
            for columns, vector in zip(rules, values.tolist(), strict=True)
        ]

    def _count(self, moves: Moves, rule: PublishRule, now_ms: int) -> None:
        """Who left which segment, and who of them goes back to where they were soon before."""
        left, back = counted(moves.before), counted(moves.before[moves.reverted])
        self.flapping = self.flapping.moved(left, back, now_ms, rule.revert_ms)
        self._left.update(left)
        self._back.update(back)

    def originate(self, origin_ms: int) -> None:
        """What made the moves that wait for a commit happened at, if nothing did before."""
        if self._pending and not self._origin_ms:
            self._origin_ms = origin_ms

    def swept(self, sizes: Mapping[int, int], now_ms: int, half_life_ms: int) -> None:
        """Everyone was looked at: how many are in each segment."""
        self.flapping = self.flapping.swept(sizes, now_ms, half_life_ms)

    def entries(self) -> list[OutboxEntry]:
        """What no commit has yet, as an outbox takes it."""
        return [
            OutboxEntry(
                self._origin_ms,
                tuple(self._pending[start : start + CHANGES_PER_ENTRY]),
                self._incarnation,
            )
            for start in range(0, len(self._pending), CHANGES_PER_ENTRY)
        ]

    def committed(self) -> None:
        """The store has it all: count it now, for what a refused commit had is made again."""
        self._pending.clear()
        self._origin_ms = 0
        for (cause, kind_from, kind_to), users in self._told.items():
            metrics.changes_committed(cause, kind_from, kind_to, users)
        for (level, step_from, step_to, cause), users in self._crossed.items():
            metrics.level_crossed(level, step_from, step_to, cause, users)
        metrics.segments_left(self._left, self._back)
        for counts in (self._told, self._crossed, self._left, self._back):
            counts.clear()
