"""Draws shoppers and centroids on a plane, as far as a plane can show them.

Comes in: a reader of users, and whom to draw. Goes out: places. The plane is the one in which the centroids lie
farthest apart, by the weights that segments go by; each population is seen under its own map, so distances
between populations mean little, and those within one what they mean to the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stream.events import Floats, Ints
from stream.insight.facts import MapAxis, MapFacts
from stream.insight.queries import Reader
from stream.model import Model
from stream.units import iso

NAMED = 3
"""So many features are named for an axis."""


def map_of(reader: Reader, names: Sequence[str]) -> MapFacts:
    """Those of the users who are in a segment, and all centroids.

    Raises:
        NoModelError: there is no model yet.
        SchemaMismatchError: the rows were written by another feature table.
    """
    model, features = reader.model(), reader.table.names
    weighted = np.concatenate([part.centroids * np.sqrt(part.map.weights) for part in model.parts])
    centre = weighted.mean(axis=0)
    axes, shares = _axes(weighted - centre)
    there, rows, vectors, now_ms = reader.vectors_of(names)
    placed = model.place(vectors, rows["segment"])
    scaled = placed.mapped * np.sqrt(_weights(model, placed.populations))
    users = (scaled - centre) @ axes
    known = set(model.ids.tolist())
    return {
        "model": model.name,
        "at": iso(now_ms),
        "shown": float(sum(shares)),
        "axes": [_axis(axis, share, features) for axis, share in zip(axes.T, shares, strict=True)],
        "segments": [
            {"segment": segment, "x": x, "y": y}
            for segment, (x, y) in zip(
                model.ids.tolist(), ((weighted - centre) @ axes).tolist(), strict=True
            )
        ],
        "shoppers": [
            {"user": user, "segment": segment if segment in known else None, "x": x, "y": y}
            for user, segment, (x, y) in zip(
                there, rows["segment"].tolist(), users.tolist(), strict=True
            )
        ],
    }


def _axes(centred: Floats) -> tuple[Floats, list[float]]:
    """Two directions ``(features, 2)`` and the share of the distances that each shows."""
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    count = min(2, len(directions))
    axes = np.zeros((centred.shape[1], 2))
    axes[:, :count] = directions[:count].T
    # A direction is as good as its opposite: the largest part is to the right, so that nothing flips.
    for column in range(count):
        if axes[np.abs(axes[:, column]).argmax(), column] < 0:
            axes[:, column] *= -1
    squared = lengths**2
    whole = float(squared.sum()) or 1.0
    shares = [float(one) / whole for one in squared[:count]]
    return axes, shares + [0.0] * (2 - count)


def _axis(axis: Floats, share: float, features: Sequence[str]) -> MapAxis:
    order = np.argsort(-np.abs(axis))[:NAMED].tolist()
    return {"share": share, "features": [features[place] for place in order if axis[place]]}


def _weights(model: Model, populations: Ints) -> Floats:
    """Weights of each user's population; none where nothing has been learned of it."""
    found = np.zeros((len(populations), model.parts[0].map.weights.shape[0]))
    for part in model.parts:
        place = model.populations.names.index(part.population)
        found[populations == place] = part.map.weights
    return found
