"""Live segments of anything with feature vectors, without Kafka and without Redis.

Comes in: micro-batches of users with their latest vectors. Goes out: who moved, why, and what became
of the segments. It is made of the parts of the pipeline: `clustering` maps and measures, `segments`
decides who moves, `learning` moves and refits the centroids and keeps identities.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from numbers import Real
from pathlib import Path
from typing import Any, Self, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from stream.clustering import ALL_HASHES
from stream.config import Learning, Publish
from stream.events import CAUSES, Bools, Cause, Floats, Ints, Lineage
from stream.flapping import Flapping, Tally, counted
from stream.hashing import hash_texts
from stream.kinds import Bounds, KindRule, limits_from
from stream.learning.rounds import learn, sample_due, warm_up
from stream.learning.state import TrainerState
from stream.learning.statistics import Sampling
from stream.model import GivenAxes, Model, Segment
from stream.populations import Population, Populations
from stream.rows import put_rows, rows_at
from stream.saving import replaced
from stream.segments import MOST_MARGIN, Moves, contributions, look
from stream.shard import Shard, chunks

Users: TypeAlias = Sequence[int] | Sequence[str] | Ints

FORMAT = 3
LEARNING = Learning(
    refit_seconds=0, refit_updates=10_000, first_model_users=200, move_threshold=0.03
)
PUBLISH = Publish(sign_gap_seconds=0, return_seconds=0, silence_margin=MOST_MARGIN)
"""Each update is a sign of its own, whatever unit time is in, and nobody knows what is soon in it; and
time alone moves nobody here."""
MOST_WEIGHT = 4.0
"""The pipeline's limit on a feature's weight, too."""
EARLIEST, LATEST = (datetime(year, 1, 1, tzinfo=UTC).timestamp() for year in (1, 9999))
"""Of the times that can be told as a date; the last year is left to rounds, see `_round_ms`."""


@dataclass(frozen=True)
class Changes:
    """Who moved in an update, a column a field.

    Attributes:
        users: as they were given.
        before: segment before, 0 for none.
        after: segment after.
        cause: why, a word of `events.Cause`.
        margin: 0 on the border, .5 at the new centroid; NaN where there was nothing to compare.
        provisional: whether the user has been looked at only a few times.
        reverted: whether the user goes back to the segment before, and left it no longer than
            `publish.revert_seconds` ago.
        contributions: ``(n, features)`` what each feature adds to the margin: they add up to it,
            but for the last bits of a float. NaN where the margin is.
        rules: of whom the rule of a population moved, the features that it looks at, the one that
            decided first; empty for all others.
    """

    users: list[Any]
    before: Ints
    after: Ints
    cause: list[str]
    margin: Floats
    provisional: Bools
    reverted: Bools
    contributions: Floats
    rules: list[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.users)

    @staticmethod
    def concatenate(parts: Sequence[Changes], features: int) -> Changes:
        return Changes(
            [user for part in parts for user in part.users],
            np.concatenate([np.empty(0, np.int64), *(p.before for p in parts)]),
            np.concatenate([np.empty(0, np.int64), *(p.after for p in parts)]),
            [cause for part in parts for cause in part.cause],
            np.concatenate([np.empty(0), *(p.margin for p in parts)]),
            np.concatenate([np.empty(0, np.bool_), *(p.provisional for p in parts)]),
            np.concatenate([np.empty(0, np.bool_), *(p.reverted for p in parts)]),
            np.concatenate([np.empty((0, features)), *(p.contributions for p in parts)]),
            [rules for part in parts for rules in part.rules],
        )


@dataclass(frozen=True)
class Step:
    """What an update brought.

    Attributes:
        changes: who moved.
        lineage: what became of segments: a word of `events.LINEAGE_EVENTS`, or another kind.
    """

    changes: Changes
    lineage: tuple[Lineage, ...]


class Segmenter:
    """Published segments for a stream of user vectors.

    There are none until `learning.first_model_users` (200) users count, and everyone is in one from
    then on. The first segmenter of a process takes some seconds to make: what it learns with is
    imported then, not in the midst of a stream.

    Time is the caller's: seconds since 1970, or any clock that only goes forward and reads between
    -62,135,596,800 and 253,370,764,800, which are the years 1 to 9998 in seconds; lineage tells it
    as such a date. Everything that is a time is in its unit: `forget_after` and `drop_after`, and
    `learning.refit_seconds`, `publish.dwell_seconds`, `publish.revert_seconds` and
    `publish.sign_gap_seconds` (1,800 in a `publish` of one's own that does not say) and
    `publish.return_seconds` (45 days in such a one) too, whatever they are called.

    Args:
        features: a name for each feature, or how many there are.
        segments: k.
        forget_after: a user not seen for this long no longer counts when segments are learned, but
            keeps theirs; None never forgets. It is the setting that matters most where users
            fall silent: those who do stay where they were, and hold segments there.
        drop_after: a user not seen for longer than this, which is at least `forget_after`, is
            dropped at a round; who comes back is new. None keeps everyone in memory and in files.
        signed: features that may be negative.
        weights: of the squared distance, by feature, from 0 to 4; 1 where it says nothing.
        units, words: by feature; words are what a low and a high value are called in names.
        limits: of words, by feature: what holds of whom the low and the high one names, by feature,
            in natural units. Without them a word is said of whom it holds beside the others: nearly
            all are below, or above, the median of those who have the feature.
        kinds: rules for kinds, in natural units, first match first; without any, names say
            nothing of kinds.
        learning, publish: the settings of the pipeline; `segments` goes before `learning.segments`.
        round_updates: centroids move, and everyone is looked at, after so many updates.
        workers: users are kept in so many parts, as partitions would be; the answer is the same.

    Raises:
        ValueError: a feature that is not there, or a wrong number.
    """

    def __init__(
        self,
        features: Sequence[str] | int,
        segments: int = 8,
        *,
        forget_after: float | None = None,
        drop_after: float | None = None,
        signed: Sequence[str] = (),
        weights: dict[str, float] | None = None,
        units: dict[str, str] | None = None,
        words: dict[str, tuple[str, str]] | None = None,
        limits: dict[str, tuple[dict[str, Bounds], dict[str, Bounds]]] | None = None,
        kinds: Sequence[KindRule] = (),
        populations: Sequence[Population] = (),
        learning: Learning = LEARNING,
        publish: Publish | None = None,
        round_updates: int = 2_500,
        workers: int = 1,
    ) -> None:
        names = [f"f{i}" for i in range(features)] if isinstance(features, int) else list(features)
        if isinstance(features, str) or not names or len(set(names)) < len(names):
            raise ValueError("features: at least one, each with a name of its own, not one text")
        weights, units, words = weights or {}, units or {}, words or {}
        limits = limits or {}
        for argument, known in (
            ("signed", signed),
            ("weights", weights),
            ("units", units),
            ("words", words),
            ("limits", {*limits, *(n for both in limits.values() for side in both for n in side)}),
            ("kinds", {name for rule in kinds for name in rule.when}),
        ):
            if unknown := set(known) - set(names):
                raise ValueError(f"{argument}: {min(unknown)!r} is no feature")
        if workers < 1 or round_updates < 1:
            raise ValueError("workers and round_updates: at least 1")
        if learning.first_model_users > learning.sample_users:
            raise ValueError("learning: first_model_users is more than sample_users can ever be")
        self._features = GivenAxes(
            names=tuple(names),
            units=tuple(units.get(name, "") for name in names),
            words=tuple(words.get(name, (f"low {name}", f"high {name}")) for name in names),
            limits=tuple(limits.get(name, _beside_the_others(name)) for name in names),
            weights=_weights([weights.get(name, 1.0) for name in names]),
            schema="vectors",
        )
        self._signed = np.array([name in signed for name in names])
        self._forget_ms = _duration("forget_after", forget_after)
        self._drop_ms = _duration("drop_after", drop_after)
        if self._drop_ms is not None and self._drop_ms < (self._forget_ms or 0):
            raise ValueError("drop_after: at least forget_after")
        warm_up()
        self._kinds = tuple(kinds)
        self._declared = tuple(populations)
        self._populations = Populations.of(self._declared, names)
        # Through the validation that settings pass.
        self._learning = Learning.model_validate(learning.model_dump() | {"segments": segments})
        self._publish = publish or PUBLISH
        self._rule = self._publish.rule()
        self._round_updates = round_updates
        self._shards = [Shard(len(names), self._populations) for _ in range(workers)]
        self._state = TrainerState()
        self._updates = 0
        self._since_round = 0
        self._first_ms: int | None = None
        self._last_ms = 0
        self._flapping = Flapping()

    # -- a stream -----------------------------------------------------------------------------

    def update(self, users: Users, vectors: npt.ArrayLike, time: float) -> Step:
        """Take in a micro-batch; the last vector of a user counts.

        Args:
            users: n integers or n texts, the same kind always.
            vectors: ``(n, features)`` in natural units.
            time: of the batch, not before that of the last one; see the class for its unit.

        Raises:
            ValueError: users of another kind, shapes that do not fit, numbers that are not finite,
                negative ones in a feature that is not declared signed, or a time that cannot be.
                Nothing has been taken in then.
        """
        names, values = self._checked(users, vectors)
        now = self._time(time)
        latest = {name: place for place, name in enumerate(names)}
        unique = list(latest)
        places = np.fromiter(latest.values(), np.int64, len(latest))
        self._last_ms = now
        if self._first_ms is None:
            self._first_ms = now
        found: list[Changes] = []
        for shard, here in zip(self._shards, self._owned(unique), strict=True):
            mine = [unique[place] for place in here.tolist()]
            slots = shard.take(mine, values[places[here]], now, self._model)
            found.extend(self._look(shard, slots, Cause.USER_MOVED, now))
        self._updates += len(names)
        self._since_round += len(names)
        changes = self._told(found)
        if not names or (self._since_round < self._round_updates and self._model is not None):
            return Step(changes, ())
        moved, lineage = self._round(now)
        features = len(self._features.names)
        return Step(Changes.concatenate([changes, moved], features), lineage)

    def _checked(self, users: Users, vectors: npt.ArrayLike) -> tuple[list[Any], Floats]:
        names = self._plain(users)
        return names, self._vectors(vectors, len(names))

    def _plain(self, users: Users) -> list[Any]:
        """Users as integers or texts of Python's own, of the kind there is already."""
        if isinstance(users, str | bytes):
            # Not a TypeError: there is one kind of error for whatever cannot be.
            raise ValueError("users: a sequence was expected, not one text")  # noqa: TRY004
        names = users.tolist() if isinstance(users, np.ndarray) else list(users)
        if not set(map(type, names)) <= {int, str}:
            names = [name.item() if hasattr(name, "item") else name for name in names]
        known = {type(shard.names[0]) for shard in self._shards if len(shard)}
        kinds = set(map(type, names)) | known
        if len(kinds) > 1 or not kinds <= {int, str}:
            told = " and ".join(sorted(kind.__name__ for kind in kinds))
            raise ValueError(f"users: integers or texts, the same kind always, not {told}")
        return names

    def _vectors(self, vectors: npt.ArrayLike, users: int | None = None) -> Floats:
        """Vectors in natural units that can be; of so many users, or of however many."""
        try:
            values = np.asarray(vectors, dtype=float)
        except TypeError as error:
            raise ValueError(f"vectors: {error}") from None
        names = self._features.names
        if values.shape == (0,):
            values = values.reshape(0, len(names))
        if values.shape[1:] != (len(names),) or users not in {None, len(values)}:
            rows = "n" if users is None else users
            raise ValueError(f"vectors: expected ({rows}, {len(names)}), not {values.shape}")
        # Over all of them at once, which is far faster than by column.
        lowest = values.min(initial=0.0)
        if not np.isfinite([lowest, values.max(initial=0.0)]).all():
            raise ValueError("vectors: a number is not finite")
        if lowest < 0 and (below := (values.min(axis=0) < 0) & ~self._signed).any():
            name = names[int(below.argmax())]
            raise ValueError(f"vectors: {name!r} is negative; declare it with signed=[{name!r}]")
        return values

    def _time(self, time: Any) -> int:
        """A time in thousandths."""
        seconds = _number(time)
        if not EARLIEST <= seconds <= LATEST:
            raise ValueError(
                f"time: {time!r} is no number that is a date of the years 1 to 9998 in seconds "
                "since 1970; divide milliseconds by 1,000"
            )
        now = _ms(seconds)
        if self._first_ms is not None and now < self._last_ms:
            raise ValueError(f"time: {time} lies before the last update, {self._last_ms / 1_000}")
        return now

    def _owned(self, names: list[Any]) -> list[Ints]:
        """Places of the users that belong to each shard."""
        if len(self._shards) == 1:
            return [np.arange(len(names))]
        hashes = hash_texts([str(name) for name in names])
        owner = hashes % np.uint64(len(self._shards))
        return [np.flatnonzero(owner == np.uint64(shard)) for shard in range(len(self._shards))]

    def _round(self, now: int) -> tuple[Changes, tuple[Lineage, ...]]:
        """Count everyone, learn, and look at everyone under what was learned."""
        self._since_round = 0
        if self._drop_ms is not None:
            for shard in self._shards:
                shard.drop(shard.silent(now, self._drop_ms))
        before, round_ms = self._model, self._round_ms(now)
        due = sample_due(self._state, round_ms, self._updates)
        parts = [
            shard.statistics(
                np.flatnonzero(shard.living(now, self._forget_ms)), round_ms, before,
                self._sampling() if due else None,
            )
            for shard in self._shards
        ]  # fmt: skip
        parts[0].updates = self._updates
        if before is not None:
            sizes = np.sum([part.sizes for part in parts], axis=0).tolist()
            in_each = dict(zip(before.ids.tolist(), sizes, strict=True))
            self._flapping = self._flapping.swept(in_each, self._age(now), self._rule.revert_ms)
        self._state = learn(
            self._state, parts, round_ms, self._features, self._learning, self._kinds,
            populations=self._declared, publish=self._rule,
        )  # fmt: skip
        model = self._model
        if model is None or model is before:
            return self._told([]), ()
        # Vectors do not age by themselves: only another model is a reason to look at everyone.
        found: list[Changes] = []
        for shard in self._shards:
            if before is None or model.epoch != before.epoch:
                shard.adopt(model)
            looked_at = shard.living(now, self._forget_ms) | shard.stranded(model)
            found.extend(self._look(shard, np.flatnonzero(looked_at), Cause.MODEL_MOVED, now))
        return self._told(found), model.lineage

    def _sampling(self) -> Sampling:
        thresholds = [ALL_HASHES] * len(self._populations)
        return Sampling(thresholds, self._learning.sample_users, len(self._features.names))

    def _round_ms(self, now: int) -> int:
        """The time of a round: later than the one before, or its statistics tell nothing new."""
        return max(now, self._state.round_ms + 1) if self._state.updates else now

    def _age(self, now: int) -> int:
        """Thousandths since the first update: from 1 on, as `flapping` wants its clock."""
        return now - (now if self._first_ms is None else self._first_ms) + 1

    def _told(self, found: Sequence[Changes]) -> Changes:
        """Changes of one time together, and counted: who left which segment, and who soon again."""
        changes = Changes.concatenate(found, len(self._features.names))
        if len(changes):
            left = changes.before.astype(np.int32)
            self._flapping = self._flapping.moved(
                counted(left),
                counted(left[changes.reverted]),
                self._age(self._last_ms),
                self._rule.revert_ms,
            )
        return changes

    def _look(self, shard: Shard, slots: Ints, cause: Cause, now: int) -> Iterator[Changes]:
        """Look at some users of a shard and move whom the publish rule lets move."""
        model = self._model
        if model is not None:
            for some in chunks(slots):
                yield self._looked(shard, some, model, cause, now)

    def _looked(self, shard: Shard, slots: Ints, model: Model, cause: Cause, now: int) -> Changes:
        mapped, rows = shard.mapped[slots], rows_at(shard.rows, slots)
        moves = look(
            rows,
            model.distances(mapped, shard.populations[slots]),
            model.ids,
            model.gaps,
            self._rule,
            np.full(len(slots), CAUSES.index(cause), np.uint8),
            now,
            model.crossing(rows["segment"], shard.populations[slots]),
            model.nearness,
        ).moves
        put_rows(shard.rows, slots, rows)
        parts = np.full((len(moves), mapped.shape[1]), np.nan)
        known = np.isfinite(moves.margin)
        old, new = moves.column_before[known], moves.column[known]
        gaps = model.gaps[old, new]
        parts[known] = contributions(
            mapped[moves.index[known]],
            model.centroids[old],
            model.centroids[new],
            model.weights[new],
        ) / (2.0 * np.where(gaps > 0, gaps, 1.0)[:, None])
        return Changes(
            [shard.names[slot] for slot in slots[moves.index].tolist()],
            moves.before.astype(np.int64),
            moves.after.astype(np.int64),
            [CAUSES[code].value for code in moves.cause.tolist()],
            moves.margin,
            moves.provisional,
            moves.reverted,
            parts,
            self._rules(model, shard.vectors[slots], moves),
        )

    def _rules(self, model: Model, vectors: Floats, moves: Moves) -> list[tuple[str, ...]]:
        """Of each who moved, the features that took them to another population."""
        found: list[tuple[str, ...]] = [()] * len(moves)
        names = self._features.names
        here = np.flatnonzero(moves.crossed)
        rules = model.crossed_by(moves.before[here], moves.after[here], vectors[moves.index[here]])
        for move, columns in zip(here.tolist(), rules, strict=True):
            found[move] = tuple(names[column] for column in columns)
        return found

    # -- what is known ------------------------------------------------------------------------

    @property
    def _model(self) -> Model | None:
        return self._state.model

    def segment_of(self, users: Users) -> Ints:
        """Published segment of each user, ``(n,)``; 0 for nobody known, or not published yet.

        Raises:
            ValueError: users of another kind.
        """
        names = self._plain(users)
        found = np.zeros(len(names), np.int64)
        for shard in self._shards:
            slots = shard.slots.find(names)
            known = slots >= 0
            found[known] = shard.rows["segment"][slots[known]]
        return found

    def assign(self, vectors: npt.ArrayLike) -> Ints:
        """Id of the segment with the nearest centroid to each vector, ``(n,)``; publishes nothing.

        It is of the vector's population; 0 if that has too few users to be learned yet.

        Raises:
            ValueError: vectors that `update` would not take, or there is no model yet.
        """
        model, values = self._required(), self._vectors(vectors)
        placed = model.place(values, np.zeros(len(values), np.int32))
        found: Ints = model.ids[placed.squared.argmin(axis=1)].astype(np.int64)
        return np.where(model.has_learned(placed.populations), found, 0)

    @property
    def centroids(self) -> Floats:
        """In natural units, ``(k, features)``: the typical member; no rows before the first model."""
        model = self._model
        return np.empty((0, len(self._features.names))) if model is None else model.natural()

    @property
    def ids(self) -> Ints:
        """Segment id of each centroid, ``(k,)``. An id is never used twice."""
        return np.empty(0, np.int64) if self._model is None else self._model.ids.astype(np.int64)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Id, name, kind, size, birth and flapping of each, in the order of `centroids`.

        Sizes are of now: they add up to the users who count. Of `flapping`, `reverted_share` needs
        no unit; `changes_per_user_day` is by 86,400 of the time's, which is a day if that is
        seconds. Days are counted at rounds.
        """
        model, tallies = self._model, self._flapping.tallies
        if model is None:
            return ()
        return tuple(
            replace(segment, size=size, flapping=tallies.get(segment.id, Tally()).rates())
            for segment, size in zip(model.segments, self._sizes(model).tolist(), strict=True)
        )

    @property
    def names(self) -> dict[int, str]:
        """Names by id, of segments that are no more too (the last 256); 0, nowhere, has none."""
        model = self._model
        return {} if model is None else {one.id: one.name for one in model.by_id.values()}

    @property
    def quality(self) -> dict[str, Any]:
        """How good the segments are, and how many users there are.

        `users` count now, and `kept` are in memory; `model` is the last one learned, `inertia` its
        mean squared distance (sd squared) and `silhouette` that of its last refit's sample.
        """
        model = self._model
        return {
            "model": None if model is None else model.name,
            "users": self._living_users(),
            "kept": sum(map(len, self._shards)),
            "inertia": None if model is None else model.inertia,
            "silhouette": None if model is None else model.silhouette,
        }

    def _living_users(self) -> int:
        found = (shard.living(self._last_ms, self._forget_ms).sum() for shard in self._shards)
        return int(sum(found))

    def _sizes(self, model: Model) -> Ints:
        """Users who count now and are published in each segment, ``(k,)``."""
        found = np.zeros(len(model.ids), np.int64)
        for shard in self._shards:
            found += shard.sizes(shard.living(self._last_ms, self._forget_ms), model)
        return found

    def rename(self, segment: int, name: str) -> None:
        """Give a segment a name that stays with its id, from the next round on.

        Raises:
            ValueError: there is no such segment.
        """
        if segment not in self._required().ids:
            raise ValueError(f"there is no segment {segment}")
        given = {**self._state.given, segment: name}
        self._state = replace(self._state, given=given)

    def _required(self) -> Model:
        if self._model is None:
            raise ValueError(
                f"there is no model yet: {self._living_users()} users count, and the first one "
                f"needs {self._learning.first_model_users} (learning.first_model_users)"
            )
        return self._model

    # -- keeping ------------------------------------------------------------------------------

    def save(self, file: Path | str) -> None:
        """Write everything to a file; what `load` gives goes on as if nothing had been.

        What was in the file stays until all is written: a crash leaves the one or the other.
        """
        told = {
            "format": FORMAT,
            "features": {
                "names": self._features.names,
                "units": self._features.units,
                "words": self._features.words,
                "limits": [
                    [{name: bounds.model_dump() for name, bounds in side.items()} for side in both]
                    for both in self._features.limits
                ],
                "weights": self._features.weights.tolist(),
                "signed": self._signed.tolist(),
            },
            "forget_ms": self._forget_ms,
            "drop_ms": self._drop_ms,
            "kinds": [rule.model_dump() for rule in self._kinds],
            "populations": [one.model_dump() for one in self._declared],
            "learning": self._learning.model_dump(),
            "publish": self._publish.model_dump(),
            "round_updates": self._round_updates,
            "workers": len(self._shards),
            "updates": self._updates,
            "since_round": self._since_round,
            "first_ms": self._first_ms,
            "last_ms": self._last_ms,
            "flapping": msgspec.to_builtins(self._flapping, str_keys=True),
            "state": msgspec.json.decode(self._state.pack(self._features)),
            "users": [name for shard in self._shards for name in shard.names],
        }
        arrays: dict[str, Any] = {
            column: np.concatenate([shard.kept(column) for shard in self._shards])
            for column in Shard.KEPT
        }
        arrays["about"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
        with replaced(file) as whole:
            np.savez(whole, **arrays)

    @classmethod
    def load(cls, file: Path | str, workers: int | None = None) -> Self:
        """Read what `save` wrote.

        Args:
            workers: as many as before if None; the answer is the same.

        Raises:
            ValueError: the file is not there, of something else, of another version or damaged.
        """
        if workers is not None and workers < 1:
            raise ValueError("workers: at least 1")
        try:
            with Path(file).open("rb") as raw, np.load(raw, allow_pickle=False) as kept:
                arrays = dict(kept)
            told = json.loads(arrays["about"].tobytes())
            if told["format"] != FORMAT:
                raise ValueError(f"format {told['format']}, {FORMAT} was expected")
            return cls._restored(told, arrays, workers or told["workers"])
        except Exception as error:  # noqa: BLE001 - a damaged file may bring anything to light
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"{file}: this is no saved segmenter ({reason})") from None

    @classmethod
    def _restored(cls, told: dict[str, Any], arrays: dict[str, Any], workers: int) -> Self:
        known = told["features"]
        names = known["names"]
        forget_ms, drop_ms = told["forget_ms"], told["drop_ms"]
        made = cls(
            names,
            told["learning"]["segments"],
            forget_after=None if forget_ms is None else forget_ms / 1_000,
            drop_after=None if drop_ms is None else drop_ms / 1_000,
            signed=[name for name, signed in zip(names, known["signed"], strict=True) if signed],
            weights=dict(zip(names, known["weights"], strict=True)),
            units=dict(zip(names, known["units"], strict=True)),
            words={n: (w[0], w[1]) for n, w in zip(names, known["words"], strict=True)},
            limits={n: limits_from(both) for n, both in zip(names, known["limits"], strict=True)},
            kinds=[KindRule.model_validate(rule) for rule in told["kinds"]],
            populations=[Population.model_validate(one) for one in told["populations"]],
            learning=Learning.model_validate(told["learning"]),
            publish=Publish.model_validate(told["publish"]),
            round_updates=told["round_updates"],
            workers=workers,
        )
        made._updates, made._since_round = told["updates"], told["since_round"]
        made._first_ms, made._last_ms = told["first_ms"], told["last_ms"]
        made._flapping = msgspec.convert(told["flapping"], Flapping, strict=False)
        made._state = TrainerState.unpack(msgspec.json.encode(told["state"]))
        made._restore(told["users"], arrays)
        return made

    def _restore(self, names: list[Any], arrays: dict[str, Any]) -> None:
        """Take in users as a file has them, each where their hash belongs.

        Raises:
            ValueError: columns, users and model do not fit each other.
        """
        model, features = self._model, len(self._features.names)
        if model is not None and model.populations != self._populations:
            raise ValueError("the model is of other populations")
        if len(set(self._plain(names))) < len(names):
            raise ValueError("users: some are there twice")
        for column in Shard.KEPT:
            found, blank = arrays[column], self._shards[0].kept(column)
            shape = (len(names), *blank.shape[1:])
            if (found.dtype, found.shape) != (blank.dtype, shape):
                raise ValueError(
                    f"{column}: {shape} of {blank.dtype} expected, not {found.shape} of {found.dtype}"
                )
        self._vectors(arrays["vectors"])
        if model is not None and model.centroids.shape != (len(model.ids), features):
            raise ValueError("the model is of other features")
        for shard, here in zip(self._shards, self._owned(names), strict=True):
            kept = {column: arrays[column][here] for column in Shard.KEPT}
            shard.restore([names[place] for place in here.tolist()], kept)
            shard.adopt(model)


def _beside_the_others(name: str) -> tuple[dict[str, Bounds], dict[str, Bounds]]:
    """Limits of the two words of a feature that has none declared."""
    return {name: Bounds(max_times=1.0)}, {name: Bounds(min_times=1.0)}


def _ms(time: float) -> int:
    return round(time * 1_000)


def _number(value: Any) -> float:
    """A real number; NaN for whatever is none, or is too large."""
    try:
        return float(value) if isinstance(value, Real) else math.nan
    except OverflowError:
        return math.nan


def _duration(argument: str, time: Any) -> int | None:
    """A duration in thousandths, if there is one."""
    if time is None:
        return None
    if not 0.001 <= _number(time) <= LATEST:
        raise ValueError(f"{argument}: a number of at least .001, or None; not {time!r}")
    return _ms(_number(time))


def _weights(values: Sequence[float]) -> Floats:
    weights = np.array(values, dtype=float)
    if not ((weights >= 0) & (weights <= MOST_WEIGHT)).all() or not weights.any():
        raise ValueError(f"weights: from 0 to {MOST_WEIGHT:g}, and not all 0")
    return weights
