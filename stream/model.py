"""A model: an immutable set of segments with their centroids, and its published form.

Comes in: what the trainer learned. Goes out: JSON for `segment-models` and the store, and back
to the bit. `naming` and `kinds` say what its segments are called.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stream.clustering import FeatureMap, separated
from stream.events import Floats, Lineage, PublishedModel, PublishedSegment
from stream.flapping import NOTHING_TO_TELL, Rates
from stream.kinds import Bounds, Rung
from stream.segments import PublishRule
from stream.units import iso


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
    def limits(self) -> tuple[tuple[dict[str, Bounds], dict[str, Bounds]], ...]: ...
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
        ladder: the kinds there are, see `kinds.ladder`.
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
    ladder: tuple[Rung, ...] = ()

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
                "kinds": [rung._asdict() for rung in self.ladder],
                **self._tuned(),
            },
        }

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
            ladder=tuple(Rung(**rung) for rung in geometry.get("kinds", ())),
        )
