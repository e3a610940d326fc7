"""A model: an immutable set of segments with their centroids, and its published form.

Comes in: what the trainer learned. Goes out: JSON for `segment-models` and the store, and back
to the bit. Names and kinds are derived here from the centroids in natural units.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stream.clustering import FeatureMap, separated
from stream.events import Floats, Lineage, LineageRecord, PublishedModel, PublishedSegment
from stream.flapping import NOTHING_TO_TELL, Rates
from stream.segments import FALLBACK_KIND, KindRule, PublishRule, kind_of
from stream.units import iso

LEAST_MARK = 0.2
"""A feature nearer to the average than this, in standard deviations, marks nobody."""
ALIKE = 0.7
"""Two features correlated as much as this over the segments say the same of them."""
AT_ODDS = 0.4
"""Words for two features correlated as much as this the other way round contradict each other."""
UNMARKED = "Average"
"""Name of a segment that has no kind and that nothing marks."""
_NUMBER = re.compile(r" [(](\d+)[)]\Z")


class Axes(Protocol):
    """What is known of each feature of a vector; `features.FeatureTable` knows it of the settings'.

    Attributes:
        names, units: of each feature.
        words: of each feature, what a low and what a high value are called; empty for no word.
        weights: of the squared distance.
        schema: digest of what the vectors mean.
    """

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def units(self) -> tuple[str, ...]: ...
    @property
    def words(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def weights(self) -> Floats: ...
    @property
    def schema(self) -> str: ...


@dataclass(frozen=True)
class Segment:
    """What a user can be in."""

    id: int
    name: str
    kind: str
    size: int
    born: str
    flapping: Rates = NOTHING_TO_TELL


@dataclass(frozen=True)
class Model:
    """An immutable model.

    Attributes:
        centroids: ``(k, features)`` on the grid, a row a segment.
        schema: of the feature table it was learned with.
        retired: every segment there ever was and is no more, so that old ids keep a name.
        tuning: id of the `tuning.Tuning` it was learned with; empty for none.
        rule: that comes with it, in place of what owners were started with.
    """

    epoch: int
    version: int
    at_ms: int
    schema: str
    map: FeatureMap
    centroids: Floats
    segments: tuple[Segment, ...]
    users: int = 0
    inertia: float = 0.0
    silhouette: float | None = None
    lineage: tuple[Lineage, ...] = field(default=())
    retired: tuple[Segment, ...] = field(default=())
    tuning: str = ""
    rule: PublishRule | None = None

    @property
    def name(self) -> str:
        return f"{self.epoch}.{self.version}"

    @property
    def number(self) -> tuple[int, int]:
        """Of two models of a namespace, the newer one has the greater."""
        return self.epoch, self.version

    @cached_property
    def ids(self) -> npt.NDArray[np.int32]:
        return np.array([segment.id for segment in self.segments], dtype=np.int32)

    @cached_property
    def by_id(self) -> dict[int, Segment]:
        """Every segment there is or was."""
        return {segment.id: segment for segment in (*self.retired, *self.segments)}

    @cached_property
    def gaps(self) -> Floats:
        return separated(self.centroids, self.map.weights)

    def natural(self) -> Floats:
        """Centroids in natural units, ``(k, features)``."""
        return self.map.invert(self.centroids)

    def published(self, axes: Axes) -> PublishedModel:
        """The record strangers read; `from_published` turns it back."""
        natural = self.natural()
        return {
            "model": self.name,
            "epoch": self.epoch,
            "version": self.version,
            "at": iso(self.at_ms),
            "users": self.users,
            "inertia": self.inertia,
            "silhouette": self.silhouette,
            "segments": [
                self._published_segment(axes, row, natural[row]) for row in range(len(self.ids))
            ],
            "lineage": list(self.lineage),
            "retired": [
                {"id": s.id, "name": s.name, "kind": s.kind, "size": s.size, "born": s.born}
                for s in self.retired
            ],
            "geometry": {
                "at_ms": self.at_ms,
                "schema": self.schema,
                "features": list(axes.names),
                "map": self.map.to_json(),
                "centroids": self.centroids.tolist(),
                **self._tuned(),
            },
        }

    def lineage_records(self) -> list[LineageRecord]:
        """What became of segments with this model, one record each."""
        return [
            {
                **told,
                "id": f"{self.name}-{number}",
                "name": self.by_id[told["segment"]].name,
                "kind": self.by_id[told["segment"]].kind,
                "users": self.by_id[told["segment"]].size,
            }
            for number, told in enumerate(self.lineage)
        ]

    def _tuned(self) -> dict[str, Any]:
        if self.rule is None:
            return {}
        return {"tuning": self.tuning, "publish": asdict(self.rule)}

    def _published_segment(self, axes: Axes, row: int, natural: Floats) -> PublishedSegment:
        segment = self.segments[row]
        return {
            "id": segment.id,
            "name": segment.name,
            "kind": segment.kind,
            "size": segment.size,
            "born": segment.born,
            "flapping": {
                "changes_per_user_day": segment.flapping.changes_per_user_day,
                "reverted_share": segment.flapping.reverted_share,
            },
            "profile": [
                {"feature": name, "value": float(value), "unit": unit, "z": float(z)}
                for name, value, unit, z in zip(
                    axes.names, natural, axes.units, self.centroids[row], strict=True
                )
            ],
        }

    @staticmethod
    def from_published(data: PublishedModel) -> Model:
        geometry = data["geometry"]
        return Model(
            epoch=data["epoch"],
            version=data["version"],
            at_ms=geometry["at_ms"],
            schema=geometry["schema"],
            map=FeatureMap.from_json(geometry["map"]),
            centroids=np.array(geometry["centroids"], dtype=float),
            segments=tuple(
                Segment(
                    s["id"],
                    s["name"],
                    s["kind"],
                    s["size"],
                    s["born"],
                    Rates(**s.get("flapping", {})),  # older records lack it
                )
                for s in data["segments"]
            ),
            users=data["users"],
            inertia=data["inertia"],
            silhouette=data["silhouette"],
            lineage=tuple(data["lineage"]),
            retired=tuple(
                Segment(s["id"], s["name"], s["kind"], s["size"], s["born"])
                for s in data["retired"]
            ),
            tuning=geometry.get("tuning", ""),
            rule=PublishRule(**geometry["publish"]) if "publish" in geometry else None,
        )


def kinds(
    natural: Floats,
    axes: Axes,
    rules: Sequence[KindRule],
    current: Sequence[str | None],
) -> list[str]:
    """Kind of each centroid, from its values in natural units and the kind it had."""
    return [
        kind_of(dict(zip(axes.names, row, strict=True)), rules, before)
        for row, before in zip(natural.tolist(), current, strict=True)
    ]


def propose_names(
    centroids: Floats,
    weights: Floats,
    axes: Axes,
    kind_list: Sequence[str],
    kept: Sequence[str | None] = (),
    rules: Sequence[KindRule] = (),
) -> list[str]:
    """A readable name a segment: its kind, and the two features that mark it most.

    If no segment is of any kind but the one that is left where no rule holds, as without rules, the
    kind tells nobody anything, and is left out.

    A feature marks a segment by how far its centroid is from the average one, in standard
    deviations times the feature's weight. It is none that the rule of the kind looks at, which the
    kind says already, and the second says something else than the first, nor the contrary: over the
    segments the two go neither together nor against each other as they do here. Names that say the
    same, in whichever order, are told apart by a third feature, or a number.

    Args:
        kept: names that segments have already, and keep; None for one that needs a name.
        rules: what the kinds are known by.
    """
    offset = (centroids - centroids.mean(axis=0)) * np.sqrt(weights)
    names = list(kept) or [None] * len(kind_list)
    taken = {_meaning(name) for name in names if name is not None}
    kindless = set(kind_list) <= {FALLBACK_KIND}
    for row, kind in enumerate(kind_list):
        if names[row] is not None:
            continue
        known_by = {name for rule in rules if rule.kind == kind for name in rule.when}
        words = _phrases(offset, row, axes, known_by)
        label = "" if kindless else kind
        name = _title(label, words[:2])
        if _meaning(name) in taken:
            name = _title(label, words[:3])
        stem, number = name, 2
        while _meaning(name) in taken:
            name, number = f"{stem} ({number})", number + 1
        names[row] = name
        taken.add(_meaning(name))
    return [name or "" for name in names]


def belied(
    was: Sequence[Segment | None], centroids: Floats, weights: Floats, axes: Axes
) -> list[bool]:
    """Of each segment, whether a proposed name says what has become the opposite of true.

    Args:
        was: the segment of each centroid before; None for a new one, which has no name yet.
    """
    offset = (centroids - centroids.mean(axis=0)) * np.sqrt(weights)
    return [
        segment is not None and not all(_is_so(word, row, axes) for word in _said(segment.name))
        for segment, row in zip(was, offset, strict=True)
    ]


def _parts(name: str) -> tuple[str, list[str], str]:
    """The kind, the words and the number of a proposed name; no kind if it has none."""
    found = _NUMBER.search(name)
    stem, number = (name, "") if found is None else (name[: found.start()], found[1])
    kind, colon, words = stem.partition(": ")
    return (kind, words.split(", "), number) if colon else ("", stem.split(", "), number)


def _said(name: str) -> list[str]:
    """The words of a proposed name."""
    return _parts(name)[1]


def _meaning(name: str) -> tuple[str, frozenset[str], str]:
    """What a name says: the same in whichever order, and with whichever word capitalised."""
    kind, words, number = _parts(name)
    return kind, frozenset(word.casefold() for word in words), number


def _is_so(word: str, offset: Floats, axes: Axes) -> bool:
    """Whether a word is not clearly wrong; a word of a person is never wrong."""
    found = [
        -step if word in (low, _capital(low)) else step
        for (low, high), step in zip(axes.words, offset.tolist(), strict=True)
        if word and word in (low, high, _capital(low), _capital(high))
    ]
    return not found or max(found) > -LEAST_MARK


def _phrases(offset: Floats, row: int, axes: Axes, known_by: Collection[str]) -> list[str]:
    """Words for what marks a segment: first what says something new, then what says it again.

    Args:
        known_by: features of which nothing needs to be said.
    """
    spread = np.maximum(np.linalg.norm(offset, axis=0), 1e-9)
    together = (offset / spread).T @ (offset / spread)
    alike = np.abs(together) > ALIKE
    signs = np.sign(offset[row])
    at_odds = together * np.outer(signs, signs) < -AT_ODDS
    said: list[int] = []
    fresh: list[str] = []
    again: list[str] = []
    for column in np.argsort(-np.abs(offset[row]), kind="stable").tolist():
        low, high = axes.words[column]
        phrase = high if offset[row, column] > 0 else low
        if (
            not phrase
            or axes.names[column] in known_by
            or phrase in fresh
            or abs(offset[row, column]) <= LEAST_MARK
            or at_odds[column, said].any()
        ):
            continue
        (again if alike[column, said].any() else fresh).append(phrase)
        said.append(column)
    return [*fresh, *(phrase for phrase in dict.fromkeys(again) if phrase not in fresh)]


def _title(kind: str, words: Sequence[str]) -> str:
    said = ", ".join(words)
    if not kind:
        return _capital(said) or UNMARKED
    label = kind.replace("_", " ").capitalize()
    return f"{label}: {said}" if words else label


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
