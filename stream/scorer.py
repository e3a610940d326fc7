"""Scores of anything with feature vectors, without Kafka and without Redis: the library's other half.

Comes in: looks at everyone, with their vectors as of then. Goes out: how likely each is to buy, what they
will spend, how unusual they are, and why. It is the pipeline's own `stream.scores`; here is what a caller needs
around it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from stream.clustering import smallest_hashes
from stream.config import Scoring
from stream.events import Floats
from stream.features import DEFAULT_FEATURES
from stream.features import over_time as of_features
from stream.features.terms import OverTime
from stream.hashing import hash_texts
from stream.learning.statistics import Sample
from stream.saving import replaced
from stream.scores.declare import DEFAULT_SCORES, NEEDED, Score, Wanted
from stream.scores.learner import NOTHING_LEARNED, Learner
from stream.scores.looks import Looks
from stream.scores.model import NOTHING_FORETOLD, Explained, Scores
from stream.scores.step import NO_LOOKS, advance, due, published
from stream.scores.unusual import Farness, Usual, learn

FORMAT = 3


class Scorer:
    """Learns scores from looks at everyone, each label once and when it is complete.

    Unlike `Segmenter` it needs the vectors of silent users, too, as of each look: their silence grows.

    Args:
        features: a name for each. `days_since_order`, `orders_total` and `revenue_total` are among them:
            they tell what came of earlier looks.
        scores: that are wanted.
        inputs: features that scores are computed from; all of them if None.
        habits: features in which somebody may be unusual; if None, those of the settings that there are.
        scoring: the settings of the pipeline; its `inputs` are not looked at.
        sample_users: followed are users with the smallest hashes, up to so many.
        over_time: how each feature goes on for somebody who does nothing; if None, as the default feature of
            that name does. What is not here may go either way, and what is foretold by it, too.

    Raises:
        ValueError: a feature that is not there, or that goes on as none does.
    """

    def __init__(
        self,
        features: Sequence[str],
        scores: Sequence[Score] = DEFAULT_SCORES,
        *,
        inputs: Sequence[str] | None = None,
        habits: Sequence[str] | None = None,
        scoring: Scoring | None = None,
        sample_users: int = 4_096,
        over_time: Mapping[str, OverTime] | None = None,
    ) -> None:
        names = tuple(features)
        scoring = scoring or Scoring()
        chosen = names if inputs is None else tuple(inputs)
        unusual = habits
        if unusual is None:
            unusual = [name for name in scoring.habits if name in names]
        for name in (*NEEDED, *chosen, *unusual):
            if name not in names:
                raise ValueError(f"features: {name!r} is needed, and is not among them")
        turns = of_features(DEFAULT_FEATURES) if over_time is None else over_time
        for name, turn in turns.items():
            if turn not in get_args(OverTime):
                raise ValueError(f"over_time: {name} cannot be {turn!r}")
        self._features = names
        self._sample_users = sample_users
        self._wanted = Wanted(
            tuple(scores),
            chosen,
            scoring.users,
            scoring.look_days,
            scoring.labels,
            tuple(unusual),
            over_time=turns,
            falls=scoring.falls,
        )
        self._known: Learner = NOTHING_LEARNED
        self._looks: Looks = NO_LOOKS
        self._people: Usual | None = None
        self._scores: Scores | None = None
        self._at_ms = 0

    def update(self, users: Sequence[Any], vectors: npt.ArrayLike, time: float) -> bool:
        """Look at everyone; True if it was learned from: one look a day is.

        Args:
            users: everyone there is; of whoever is not among them any more, nothing is kept.
            vectors: ``(n, features)`` in natural units, as of `time`.
            time: seconds since 1970, later than the last one.

        Raises:
            ValueError: vectors of another shape, or an earlier time.
        """
        values, at_ms = self._vectors(vectors), round(time * 1_000)
        if len(users) != len(values):
            raise ValueError(f"{len(users)} users, but {len(values)} vectors")
        if at_ms <= self._at_ms:
            raise ValueError("time: it goes forward only")
        if not due(self._known, self._wanted, at_ms):
            return False
        self._at_ms = at_ms
        hashes = hash_texts([str(user) for user in users])
        chosen = smallest_hashes(hashes, self._sample_users)
        nobody = np.zeros(len(chosen), np.int64)
        sample = Sample(hashes[chosen], values[chosen], nobody, nobody.astype(np.int32), at_ms)
        self._known, self._looks = advance(
            self._known, self._looks, sample, self._features, self._wanted, self._sample_users
        )
        self._people = self._usual(sample)
        self._scores = self._told()
        return True

    def _usual(self, sample: Sample) -> Usual | None:
        """What is usual among all: a scorer knows of no segments."""
        if self._wanted.unusual is None:
            return None
        all_alike, each = np.ones(len(sample), np.int64), np.ones(len(sample))
        return learn(sample.vectors, self._features, all_alike, each, self._wanted.habits)

    def _told(self) -> Scores | None:
        found = published(self._known, self._looks, self._wanted)
        if self._wanted.unusual is None or self._people is None:
            return found
        return (found or NOTHING_FORETOLD).with_unusual(self._wanted.unusual, self._people)

    @property
    def learned(self) -> Scores | None:
        """What was learned, and how good it was so far; None as long as too little was seen."""
        return self._scores

    def scores(self, vectors: npt.ArrayLike) -> dict[str, Floats]:
        """Each learned score of users, by name; of whoever has not ordered NaN, but for unusual.

        Raises:
            ValueError: vectors of another shape.
        """
        values = self._vectors(vectors)
        if self._scores is None:
            return {}
        found = self._scores.evaluate(values, self._features)
        return dict(zip(self._scores.names, found.T, strict=True))

    def explain(self, vector: npt.ArrayLike) -> dict[str, Explained]:
        """What carries each score of one user that is foretold: parts that add up, in log-odds.

        Raises:
            ValueError: a vector of another shape.
        """
        values = self._vectors(np.asarray(vector, dtype=float)[None])[0]
        return {} if self._scores is None else self._scores.explain(values, self._features)

    def how_unusual(self, vector: npt.ArrayLike) -> Farness | None:
        """How unusual one user is, and what makes it; None as long as too little was seen.

        Raises:
            ValueError: a vector of another shape.
        """
        values = self._vectors(np.asarray(vector, dtype=float)[None])[0]
        return None if self._scores is None else self._scores.how_unusual(values, self._features)

    def _vectors(self, vectors: npt.ArrayLike) -> Floats:
        values = np.asarray(vectors, dtype=float)
        if values.ndim != 2 or values.shape[1] != len(self._features):
            raise ValueError(f"vectors: (n, {len(self._features)}) expected, not {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError("vectors: finite numbers expected")
        return values

    def save(self, file: Path | str) -> None:
        """Write everything to a file; what `load` gives goes on as if nothing had been.

        What was in the file stays until all is written: a crash leaves the one or the other.
        """
        told = {
            "format": FORMAT,
            "features": self._features,
            "scores": [score.model_dump() for score in self._wanted.scores],
            "inputs": self._wanted.inputs,
            "users": self._wanted.users,
            "look_days": self._wanted.look_days,
            "labels": self._wanted.least,
            "falls": self._wanted.falls,
            "over_time": dict(zip(self._wanted.inputs, self._wanted.turns, strict=True)),
            "habits": self._wanted.habits,
            "sample_users": self._sample_users,
            "at_ms": self._at_ms,
            "known": self._known,
            "looks": self._looks.pack(),
            "people": self._people,
        }
        with replaced(file) as whole:
            whole.write(msgspec.msgpack.encode(told))

    @classmethod
    def load(cls, file: Path | str) -> Scorer:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is of something else, of another version or damaged.
        """
        try:
            told = msgspec.msgpack.decode(Path(file).read_bytes())
            if told["format"] != FORMAT:
                raise ValueError(f"format {told['format']}, {FORMAT} was expected")
            scoring = Scoring(
                users=told["users"],
                look_days=told["look_days"],
                labels=told["labels"],
                falls=told["falls"],
            )
            made = cls(
                told["features"],
                [Score.model_validate(one) for one in told["scores"]],
                inputs=told["inputs"],
                habits=told["habits"],
                scoring=scoring,
                sample_users=told["sample_users"],
                over_time=told["over_time"],
            )
            made._known = msgspec.convert(told["known"], Learner)
            made._looks = Looks.unpack(told["looks"])
            made._people = msgspec.convert(told["people"], Usual | None)
            made._at_ms = told["at_ms"]
        except (msgspec.MsgspecError, OSError, ValueError, TypeError, LookupError) as error:
            raise ValueError(f"{file}: this is no saved scorer ({error})") from None
        made._scores = made._told()
        return made
