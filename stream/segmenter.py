"""Live segments of anything with feature vectors, without Kafka and without Redis.

Comes in: micro-batches of users with their latest vectors. Goes out: who moved, why, and what became
of the segments. It is made of the parts of the pipeline: `clustering` maps and measures, `segments`
decides who moves, `learning` moves and refits the centroids and keeps identities.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Self, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from stream.clustering import Statistics, distances, smallest_hashes
from stream.config import Learning, Publish
from stream.events import CAUSES, Bools, Cause, Floats, Hashes, Ints, Lineage, Rows
from stream.hashing import hash_texts
from stream.learning import PartitionStatistics, TrainerState, learn, sample_due
from stream.model import Model, Segment
from stream.segments import KindRule, columns_of, contributions, look

Users: TypeAlias = Sequence[int] | Sequence[str] | Ints

FORMAT = 2
LEARNING = Learning(refit_seconds=0, refit_updates=7_500, alarm_share=0.2, first_model_users=200)
_ROW = np.dtype(
    [
        ("segment", "<i4"),
        ("previous", "<i4"),
        ("candidate", "<i4"),
        ("streak", "u1"),
        ("looks", "u1"),
        ("cause", "u1"),
        ("since", "<i8"),
        ("version", "<u4"),
    ]
)


@dataclass(frozen=True)
class Features:
    """What is known of the vectors' features; satisfies `model.Axes`."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    words: tuple[tuple[str, str], ...]
    weights: Floats
    schema: str = "vectors"


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
        contributions: ``(n, features)`` what each feature adds to the difference of the squared
            distances to the old and the new centroid; NaN where there was no old one.
    """

    users: list[Any]
    before: Ints
    after: Ints
    cause: list[str]
    margin: Floats
    provisional: Bools
    contributions: Floats

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
            np.concatenate([np.empty((0, features)), *(p.contributions for p in parts)]),
        )


@dataclass(frozen=True)
class Step:
    """What an update brought.

    Attributes:
        changes: who moved.
        lineage: what became of segments: born, split, absorbed, emerged, dissolved, renamed, or
            another kind.
    """

    changes: Changes
    lineage: tuple[Lineage, ...]


class _Shard:
    """Some of the users, as columns: what a partition's owner has in the pipeline.

    Attributes:
        names: user of each slot.
        slots: slot of each user.
        updates: of its users, ever.
    """

    ARRAYS = ("hashes", "vectors", "seen", "rows")

    def __init__(self, features: int) -> None:
        self.names: list[Any] = []
        self.slots: dict[Any, int] = {}
        self.updates = 0
        self.hashes: Hashes = np.zeros(0, np.uint64)
        self.vectors: Floats = np.zeros((0, features))
        self.mapped: Floats = np.zeros((0, features))
        self.seen: Ints = np.zeros(0, np.int64)
        self.rows: Rows = np.zeros(0, _ROW)

    def __len__(self) -> int:
        return len(self.names)

    def take(
        self, names: list[Any], hashes: Hashes, vectors: Floats, now: int, model: Model | None
    ) -> Ints:
        """Users' latest vectors; returns their slots."""
        new = [place for place, name in enumerate(names) if name not in self.slots]
        for place in new:
            self.slots[names[place]] = len(self.names)
            self.names.append(names[place])
        if len(self) > len(self.seen):
            self._make_room(max(len(self), 2 * len(self.seen)))
        slots = np.fromiter(map(self.slots.__getitem__, names), np.int64, len(names))
        self.hashes[slots] = hashes
        self.vectors[slots] = vectors
        self.seen[slots] = now
        if model is not None:
            self.mapped[slots] = model.map.apply(vectors)
        return slots

    def _make_room(self, size: int) -> None:
        for name in (*self.ARRAYS, "mapped"):
            old = getattr(self, name)
            grown = np.zeros((size, *old.shape[1:]), old.dtype)
            grown[: len(old)] = old
            setattr(self, name, grown)

    def adopt(self, model: Model) -> None:
        """Map everyone anew."""
        users = len(self)
        self.mapped[:users] = model.map.apply(self.vectors[:users])

    def living(self, now: int, forget_ms: int | None) -> Ints:
        """Slots of users who count."""
        seen = self.seen[: len(self)]
        return np.arange(len(seen)) if forget_ms is None else np.flatnonzero(now - seen < forget_ms)

    def stranded(self, model: Model) -> Ints:
        """Slots of users in a segment that is no more, whether they count or not."""
        segments = self.rows["segment"][: len(self)]
        return np.flatnonzero((segments > 0) & (columns_of(segments, model.ids) < 0))

    def statistics(
        self, living: Ints, now: int, model: Model | None, sample_users: int
    ) -> PartitionStatistics:
        """What the learner needs to know; without a sample if it is to be of nobody."""
        part = PartitionStatistics(
            at_ms=now,
            model="" if model is None else model.name,
            users=len(living),
            updates=self.updates,
        )
        if sample_users:
            chosen = living[smallest_hashes(self.hashes[living], sample_users)]
            part.sample_hashes = self.hashes[chosen].tobytes()
            part.sample_vectors = self.vectors[chosen].tobytes()
        if model is not None:
            mapped = self.mapped[living]
            squared = distances(mapped, model.centroids, model.map.weights)
            columns = columns_of(self.rows["segment"][living], model.ids)
            counted = Statistics.of(mapped, squared, columns)
            part.counts, part.sizes = counted.counts.tolist(), counted.sizes.tolist()
            part.sums, part.inertia = counted.sums.tobytes(), counted.inertia
        return part

    def restore(
        self, names: list[Any], updates: int, arrays: dict[str, Any], model: Model | None
    ) -> None:
        self.names, self.updates = names, updates
        self.slots = {name: slot for slot, name in enumerate(names)}
        for name in self.ARRAYS:
            setattr(self, name, arrays[name])
        self.mapped = np.zeros_like(self.vectors)
        if model is not None:
            self.adopt(model)


class Segmenter:
    """Published segments for a stream of user vectors.

    Args:
        features: a name for each feature, or how many there are.
        segments: k.
        forget_after: a user not seen for this long, in the unit of `time`, no longer counts when
            segments are learned; None never forgets.
        signed: features that may be negative.
        weights: of the squared distance, by feature; 1 where it says nothing.
        units, words: by feature; words are what a low and a high value are called in names.
        kinds: rules for kinds, in natural units, first match first.
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
        signed: Sequence[str] = (),
        weights: dict[str, float] | None = None,
        units: dict[str, str] | None = None,
        words: dict[str, tuple[str, str]] | None = None,
        kinds: Sequence[KindRule] = (),
        learning: Learning = LEARNING,
        publish: Publish | None = None,
        round_updates: int = 1_000,
        workers: int = 1,
    ) -> None:
        names = [f"f{i}" for i in range(features)] if isinstance(features, int) else list(features)
        if not names or len(set(names)) < len(names):
            raise ValueError("features: at least one, each with a name of its own")
        weights, units, words = weights or {}, units or {}, words or {}
        for argument, known in (
            ("signed", signed),
            ("weights", weights),
            ("units", units),
            ("words", words),
            ("kinds", {name for rule in kinds for name in rule.when}),
        ):
            if unknown := set(known) - set(names):
                raise ValueError(f"{argument}: {min(unknown)!r} is no feature")
        if workers < 1 or round_updates < 1:
            raise ValueError("workers and round_updates: at least 1")
        self._features = Features(
            tuple(names),
            tuple(units.get(name, "") for name in names),
            tuple(words.get(name, (f"low {name}", f"high {name}")) for name in names),
            np.array([weights.get(name, 1.0) for name in names]),
        )
        self._signed = np.array([name in signed for name in names])
        self._forget_ms = None if forget_after is None else _ms(forget_after)
        self._kinds = tuple(kinds)
        # Through the validation that settings pass.
        self._learning = Learning.model_validate(learning.model_dump() | {"segments": segments})
        self._publish = publish or Publish()
        self._round_updates = round_updates
        self._shards = [_Shard(len(names)) for _ in range(workers)]
        self._state = TrainerState()
        self._since_round = 0

    # -- a stream -----------------------------------------------------------------------------

    def update(self, users: Users, vectors: npt.ArrayLike, time: float) -> Step:
        """Take in a micro-batch; the last vector of a user counts.

        Args:
            users: n integers or n texts, the same kind always.
            vectors: ``(n, features)`` in natural units.
            time: of the batch, never going back; seconds, or whatever `forget_after` is in.

        Raises:
            ValueError: shapes that do not fit, numbers that are not finite, or negative ones in a
                feature that is not declared signed. Nothing has been taken in then.
        """
        names, values = self._checked(users, vectors)
        now = _ms(time)
        if now < self._state.round_ms:
            raise ValueError(f"time {time} lies before the last round")
        latest = {name: place for place, name in enumerate(names)}
        hashes = hash_texts([str(name) for name in latest])
        places = np.fromiter(latest.values(), np.int64, len(latest))
        unique = list(latest)
        found: list[Changes] = []
        owner = hashes % np.uint64(len(self._shards))
        for number, shard in enumerate(self._shards):
            here = np.flatnonzero(owner == np.uint64(number))
            mine = [unique[place] for place in here.tolist()]
            slots = shard.take(mine, hashes[here], values[places[here]], now, self._model)
            found.append(self._look(shard, slots, Cause.USER_MOVED, now))
        self._shards[0].updates += len(names)
        self._since_round += len(names)
        lineage: tuple[Lineage, ...] = ()
        if self._since_round >= self._round_updates or self._model is None:
            changes, lineage = self._round(now)
            found.extend(changes)
        return Step(Changes.concatenate(found, len(self._features.names)), lineage)

    def _checked(self, users: Users, vectors: npt.ArrayLike) -> tuple[list[Any], Floats]:
        names = users.tolist() if isinstance(users, np.ndarray) else list(users)
        values = np.asarray(vectors, dtype=float)
        features = len(self._features.names)
        if values.shape != (len(names), features):
            raise ValueError(f"vectors: expected {(len(names), features)}, not {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError("vectors: a number is not finite")
        below = (values < 0).any(axis=0) & ~self._signed
        if below.any():
            name = self._features.names[int(below.argmax())]
            raise ValueError(f"vectors: {name!r} is negative; declare it with signed=[{name!r}]")
        return names, values

    def _round(self, now: int) -> tuple[list[Changes], tuple[Lineage, ...]]:
        """Count everyone, learn, and look at everyone under what was learned."""
        self._since_round = 0
        before = self._state.model
        updates = sum(shard.updates for shard in self._shards)
        wanted = self._learning.sample_users if sample_due(self._state, now, updates) else 0
        parts = [
            shard.statistics(shard.living(now, self._forget_ms), now, before, wanted)
            for shard in self._shards
        ]
        self._state = learn(self._state, parts, now, self._features, self._learning, self._kinds)
        model = self._state.model
        if model is None or model is before:
            return [], ()
        # Vectors do not age by themselves: only another model is a reason to look at everyone.
        found = []
        for shard in self._shards:
            if before is None or model.epoch != before.epoch:
                shard.adopt(model)
            slots = np.union1d(shard.living(now, self._forget_ms), shard.stranded(model))
            found.append(self._look(shard, slots, Cause.MODEL_MOVED, now))
        return found, model.lineage

    def _look(self, shard: _Shard, slots: Ints, cause: Cause, now: int) -> Changes:
        """Look at some users of a shard and move whom the publish rule lets move."""
        model, publish = self._model, self._publish
        if model is None or len(slots) == 0:
            return Changes.concatenate([], len(self._features.names))
        rows, mapped = shard.rows[slots], shard.mapped[slots]
        weights = model.map.weights
        causes = np.full(len(slots), CAUSES.index(cause), np.uint8)
        moves = look(
            rows,
            distances(mapped, model.centroids, weights),
            model.ids,
            model.gaps,
            publish.rule(),
            causes,
            now,
        ).moves
        shard.rows[slots] = rows
        who = mapped[moves.index]
        parts = np.full((len(moves), mapped.shape[1]), np.nan)
        known = moves.column_before >= 0
        parts[known] = contributions(
            who[known],
            model.centroids[moves.column_before[known]],
            model.centroids[moves.column[known]],
            weights,
        )
        return Changes(
            [shard.names[slot] for slot in slots[moves.index].tolist()],
            moves.before.astype(np.int64),
            moves.after.astype(np.int64),
            [CAUSES[code].value for code in moves.cause.tolist()],
            moves.margin,
            moves.provisional,
            parts,
        )

    # -- what is known ------------------------------------------------------------------------

    @property
    def _model(self) -> Model | None:
        return self._state.model

    def segment_of(self, users: Users) -> Ints:
        """Published segment of each user, ``(n,)``; 0 for nobody known, or not published yet."""
        names = users.tolist() if isinstance(users, np.ndarray) else list(users)
        found = np.zeros(len(names), np.int64)
        for shard in self._shards:
            slots = [shard.slots.get(name, -1) for name in names]
            places = np.array(slots, dtype=np.int64)
            known = places >= 0
            found[known] = shard.rows["segment"][places[known]]
        return found

    def assign(self, vectors: npt.ArrayLike) -> Ints:
        """Row in `centroids` of the nearest one to each vector, ``(n,)``; publishes nothing.

        Raises:
            ValueError: there is no model yet.
        """
        model = self._required()
        mapped = model.map.apply(np.asarray(vectors, dtype=float))
        nearest: Ints = distances(mapped, model.centroids, model.map.weights).argmin(axis=1)
        return nearest

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
        """Id, name, kind, size and birth of each, in the order of `centroids`."""
        return () if self._model is None else self._model.segments

    @property
    def names(self) -> dict[int, str]:
        """Names by id."""
        return {segment.id: segment.name for segment in self.segments}

    @property
    def quality(self) -> dict[str, Any]:
        """Model, users, mean squared distance (sd squared) and silhouette on the sample."""
        model = self._model
        if model is None:
            return {"model": None, "users": 0, "inertia": None, "silhouette": None}
        return {
            "model": model.name,
            "users": self._state.users,
            "inertia": model.inertia,
            "silhouette": model.silhouette,
        }

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
            raise ValueError("there is no model yet: too few users have been seen")
        return self._model

    # -- keeping ------------------------------------------------------------------------------

    def save(self, file: Path | str) -> None:
        """Write everything to a file; what `load` gives goes on as if nothing had been."""
        told = {
            "format": FORMAT,
            "features": {
                "names": self._features.names,
                "units": self._features.units,
                "words": self._features.words,
                "weights": self._features.weights.tolist(),
                "signed": self._signed.tolist(),
            },
            "forget_ms": self._forget_ms,
            "kinds": [rule.model_dump() for rule in self._kinds],
            "learning": self._learning.model_dump(),
            "publish": self._publish.model_dump(),
            "round_updates": self._round_updates,
            "since_round": self._since_round,
            "state": msgspec.json.decode(self._state.pack(self._features)),
            "users": [shard.names for shard in self._shards],
            "updates": [shard.updates for shard in self._shards],
        }
        arrays = {
            f"{name}_{number}": getattr(shard, name)[: len(shard)]
            for number, shard in enumerate(self._shards)
            for name in _Shard.ARRAYS
        }
        whole = BytesIO()
        np.savez(whole, about=np.frombuffer(json.dumps(told).encode(), np.uint8), **arrays)
        Path(file).write_bytes(whole.getvalue())

    @classmethod
    def load(cls, file: Path | str) -> Self:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is of something else, or of another version.
        """
        try:
            with np.load(Path(file), allow_pickle=False) as kept:
                arrays = dict(kept)
            told = json.loads(arrays["about"].tobytes())
        except (KeyError, OSError, EOFError, ValueError) as error:
            raise ValueError(f"{file}: this is no saved segmenter ({error})") from None
        if told["format"] != FORMAT:
            raise ValueError(f"{file}: format {told['format']}, {FORMAT} was expected")
        return cls._restored(told, arrays)

    @classmethod
    def _restored(cls, told: dict[str, Any], arrays: dict[str, Any]) -> Self:
        known = told["features"]
        names = known["names"]
        made = cls(
            names,
            told["learning"]["segments"],
            signed=[name for name, signed in zip(names, known["signed"], strict=True) if signed],
            weights=dict(zip(names, known["weights"], strict=True)),
            units=dict(zip(names, known["units"], strict=True)),
            words={n: (w[0], w[1]) for n, w in zip(names, known["words"], strict=True)},
            kinds=[KindRule.model_validate(rule) for rule in told["kinds"]],
            learning=Learning.model_validate(told["learning"]),
            publish=Publish.model_validate(told["publish"]),
            round_updates=told["round_updates"],
            workers=len(told["users"]),
        )
        made._forget_ms = told["forget_ms"]
        made._since_round = told["since_round"]
        made._state = TrainerState.unpack(msgspec.json.encode(told["state"]))
        for number, shard in enumerate(made._shards):
            shard.restore(
                told["users"][number],
                told["updates"][number],
                {name: arrays[f"{name}_{number}"] for name in _Shard.ARRAYS},
                made._model,
            )
        return made


def _ms(time: float) -> int:
    return round(time * 1_000)
