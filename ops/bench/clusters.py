"""Measures ways to choose k, and k-means against density, where the truth is known.

``python -m ops.bench.clusters`` prints two Markdown tables: how often each rule finds the number of
generated groups, and how well each algorithm finds groups of different shapes, in how long. With
``--trials N`` the first has N trials. The groups of a trial are bells with heavy tails (Student's t,
six degrees of freedom) in 4, 8 or 16 dimensions, 2 to 7 of them of very different sizes, the
nearest two 4 to 7 standard deviations apart.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from river.cluster import DBSTREAM, DenStream
from sklearn.datasets import make_moons
from sklearn.metrics import adjusted_rand_score, calinski_harabasz_score

from stream.clustering import distances
from stream.events import Floats, Ints
from stream.learning.choosing import (
    NOISE,
    Algorithm,
    Density,
    Groups,
    KMeans,
    Space,
    elbow,
    fits_by_k,
    mean_inertia,
    means_of,
    merge_down,
    silhouettes,
)

K_MAX = 10
USERS = 1_500


def bells(seed: int) -> tuple[Floats, int]:
    """Users of a trial, and how many groups they are."""
    rng = np.random.default_rng(seed)
    k, dimensions = int(rng.integers(2, 8)), int(rng.choice([4, 8, 16]))
    centres = rng.normal(size=(k, dimensions))
    apart = np.linalg.norm(centres[:, None] - centres, axis=2)
    centres *= rng.uniform(4, 7) / apart[apart > 0].min()
    shares = rng.dirichlet(np.ones(k)) * 0.9 + 0.1 / k
    truth = rng.choice(k, USERS, p=shares)
    users = centres[truth] + rng.standard_t(6, (USERS, dimensions)) / np.sqrt(1.5)
    return (users - users.mean(axis=0)) / users.std(axis=0), k


def rules(seed: int) -> tuple[int, dict[str, int]]:
    """The true k of a trial, and what each rule says."""
    users, k = bells(seed)
    space = Space(users, np.ones(users.shape[1]))
    fits = fits_by_k(space, K_MAX, lambda k: KMeans(k, starts=3))
    near = silhouettes(space, fits)
    index = {j: calinski_harabasz_score(users, fit.labels) for j, fit in fits.items() if fit.k > 1}
    return k, {
        "separation merge-down": merge_down(space, fits[K_MAX]).k,
        "largest silhouette": max(near, key=lambda j: near[j]),
        "Calinski-Harabasz": max(index, key=lambda j: index[j]),
        "bend of the elbow": elbow([mean_inertia(space, fit) for fit in fits.values()]),
    }


# -- algorithms ----------------------------------------------------------------------------------


class Shape(NamedTuple):
    """Users whose groups are known; `NOISE` for who is in none."""

    name: str
    users: Floats
    truth: Ints


def shapes() -> list[Shape]:
    rng = np.random.default_rng(0)
    users, truth = make_moons(2_000, noise=0.06, random_state=1)
    found = [Shape("two crescents", users / users.std(axis=0), truth)]
    centres = rng.normal(size=(4, 6)) * 4
    truth = rng.choice(4, 2_000, p=[0.5, 0.3, 0.15, 0.05])
    users = centres[truth] + rng.normal(size=(2_000, 6))
    found.append(Shape("4 bells, 6 dimensions", users, truth))
    astray = rng.random(2_000) < 0.05
    noisy = np.where(astray[:, None], rng.uniform(-10, 10, users.shape), users)
    found.append(Shape("the same, 5 % anywhere", noisy, np.where(astray, NOISE, truth)))
    centres = rng.normal(size=(5, 16)) * 2
    truth = rng.choice(5, 2_000)
    users = centres[truth] + rng.normal(size=(2_000, 16))
    found.append(Shape("5 bells, 16 dimensions", users, truth))
    line = np.column_stack([rng.uniform(0, 12, 2_000), rng.normal(size=(2_000, 5))])
    cut = (line[:, 0] // 4).astype(np.int64)
    found.append(Shape("a band without gaps, cut in 3", line, cut))
    return found


class _OfRiver(NamedTuple):
    """A clusterer of river's, as it answers by itself."""

    make: Callable[[float, int], Any]

    def fit(self, space: Space) -> Groups:
        flat = space.flat()
        stream = self.make(Density().radius(flat), len(flat))
        for user in flat.tolist():
            stream.learn_one(dict(enumerate(user)))
        stream.predict_one(dict(enumerate(flat[0].tolist())))
        # What `predict_one` answers: the nearest centre, of groups it works out anew at each call.
        centres = np.array([list(centre.values()) for centre in stream.centers.values()])
        apart = distances(flat, centres, np.ones(flat.shape[1]))
        _, labels = np.unique(apart.argmin(axis=1), return_inverse=True)
        return Groups(labels, means_of(space.points, labels))


def _dbstream(radius: float, users: int) -> Any:
    return DBSTREAM(radius, 1e-12, 2 * users, Density.shared, Density.crowd)


def _denstream(radius: float, users: int) -> Any:
    # Half the radius does best here: its balls grow to it, those of DBSTREAM have it.
    return DenStream(1e-4, 0.5, Density.crowd, radius / 2, users // 2, 10**6)


def compare(shape: Shape) -> list[str]:
    """A row an algorithm: groups, who is in none, agreement with the truth, seconds."""
    space = Space(shape.users, np.ones(shape.users.shape[1]))
    k = len(set(shape.truth.tolist()) - {NOISE})
    algorithms: dict[str, Algorithm] = {
        f"k-means, k = {k} given": KMeans(k),
        "density (DBSTREAM, joined here)": Density(),
        "DBSTREAM as river answers": _OfRiver(_dbstream),
        "DenStream as river answers": _OfRiver(_denstream),
    }
    rows = []
    for name, algorithm in algorithms.items():
        started = time.perf_counter()
        groups = algorithm.fit(space)
        seconds = time.perf_counter() - started
        agreement = adjusted_rand_score(shape.truth, groups.labels)
        nobody = np.mean(groups.labels == NOISE)
        rows.append(
            f"| {shape.name} | {name} | {groups.k} | {nobody:.0%} | {agreement:.2f} | {seconds:.2f} |"
        )
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m ops.bench.clusters", description=__doc__)
    parser.add_argument("--trials", type=int, default=50)
    trials = parser.parse_args(arguments).trials
    exact: Counter[str] = Counter()
    close: Counter[str] = Counter()
    for seed in range(trials):
        k, said = rules(seed)
        exact.update({rule: int(answer == k) for rule, answer in said.items()})
        close.update({rule: int(abs(answer - k) <= 1) for rule, answer in said.items()})
        print(f"\r{seed + 1} of {trials} trials", end="", file=sys.stderr)
    print(file=sys.stderr)
    print("| rule | exact k | within one |\n|---|---|---|")
    for rule in exact:
        print(f"| {rule} | {exact[rule] / trials:.0%} | {close[rule] / trials:.0%} |")
    print("\n| users | algorithm | groups | in none | ARI | seconds |\n|---|---|---|---|---|---|")
    for shape in shapes():
        print("\n".join(compare(shape)), flush=True)


if __name__ == "__main__":
    main()
