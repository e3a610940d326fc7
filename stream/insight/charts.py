"""The pictures of `segstream explore`, as PNG.

Comes in: a `Study`. Goes out: PNG bytes by name; `explore` writes them and puts them into the page.
Only figures of our own on matplotlib's Agg canvas: nothing global is touched, no window is opened.
Colours are Paul Tol's "muted" scheme and an orange-to-blue scale, which stay apart for readers who
do not tell red from green; numbers stand beside every colour.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from stream.insight.values import reading
from stream.learning.choosing import ENOUGH, STABLE
from stream.units import percents

if TYPE_CHECKING:
    from stream.events import Floats
    from stream.features import Feature
    from stream.insight.explore import Study

MUTED = (
    "#332288", "#CC6677", "#44AA99", "#DDCC77", "#882255",
    "#88CCEE", "#999933", "#117733", "#AA4499",
)  # fmt: skip
NOBODY = "#BBBBBB"
INK, QUIET, GRID = "#1f2430", "#646b7a", "#e6e8ee"
MAIN, MARK = "#332288", "#CC6677"
DIVERGING = LinearSegmentedColormap.from_list(
    "orange-blue", ["#b35806", "#f1a340", "#fee0b6", "#fbfbfb", "#cfe1f2", "#5aa2cf", "#1f5a99"]
)
"""ColorBrewer's PuOr and Blues, joined at white: orange below the average, blue above."""
_SPAN = re.compile(r"(.+)_(\d+)([smhdw])")
_SPANS = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week"}
_DPI = 160
_WIDE, _HIGH = 6.4, 4.0


def colour(row: int) -> str:
    """Colour of the segment in this place; after nine they come again, numbers do not."""
    return MUTED[row % len(MUTED)]


def ink_on(background: str) -> str:
    """Black or white, whichever can be read on a colour (relative luminance, WCAG 2)."""
    parts = [int(background[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#ffffff" if luminance < 0.18 else "#1a1a1a"


def shade(z: float) -> str:
    """Background of a value that lies z standard deviations from the average."""
    red, green, blue, _ = DIVERGING(min(max(z / 4.0 + 0.5, 0.0), 1.0))
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def label(feature: str) -> str:
    """A feature's name for people: ``orders_30d`` is "orders (30 days)"."""
    found = _SPAN.fullmatch(feature)
    if found is None:
        return feature.replace("_", " ")
    number, unit = found[2], _SPANS[found[3]]
    return f"{found[1].replace('_', ' ')} ({number} {unit}{'' if number == '1' else 's'})"


def plain(value: float, feature: Feature) -> str:
    """A typical member's value, no finer than anyone would say it."""
    if reading(value, feature) == "never":
        return "never"
    digits = 0 if abs(value) >= 10 else 1 if abs(value) >= 1 else 2
    text = f"{value:,.{digits}f}"
    text = text.rstrip("0").rstrip(".") if digits else text
    return "0" if text == "-0" else text


def telling(study: Study) -> list[int]:
    """Columns that count in distances and in which segments differ at all."""
    apart = np.ptp(study.shown.centroids, axis=0) > 1e-6
    if not apart.any():
        apart[:] = True  # one segment only: everything describes it
    features = enumerate(study.table.features)
    return [c for c, feature in features if feature.weight > 0 and apart[c]]


def draw(study: Study) -> dict[str, bytes]:
    """Every picture that this study can fill, in the order of the page."""
    pictures: dict[str, Callable[[Study], Figure | None]] = {
        "separation": separation,
        "stability": stability,
        "elbow": elbow,
        "silhouette": silhouette,
        "sizes": sizes,
        "profile": profile,
        "scatter": scatter,
        "dendrogram": dendrogram,
    }
    drawn: dict[str, bytes] = {}
    for name, picture in pictures.items():
        figure = picture(study)
        if figure is not None:
            buffer = BytesIO()
            figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
            drawn[name] = buffer.getvalue()
    return drawn


# -- by k --------------------------------------------------------------------------------------


def separation(study: Study) -> Figure | None:
    """How clear the least clear border is, from many segments down to two."""
    steps = study.separation.steps
    figure, axes = _figure()
    at = [step.k for step in steps]
    shares = [step.weakest for step in steps]
    clear = [share >= ENOUGH for share in shares]
    axes.bar(at, shares, width=0.68, color=[MAIN if yes else "#c9cbe0" for yes in clear], zorder=2)
    axes.axhline(ENOUGH, color=MARK, lw=1.6, ls="--", zorder=3)
    axes.set_title("- -  a gap begins here", loc="right", color=MARK, fontsize=10)
    for k, share in zip(at, shares, strict=True):
        axes.text(k, share - 0.02, f"{share:.0%}", ha="center", va="top", fontsize=9,
                  color="white" if share >= ENOUGH else INK)  # fmt: skip
    axes.set_ylim(0.4 if min(shares) > 0.45 else 0.0, 1.02)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    _by_k(axes, at, "weakest border: variance explained")
    return figure


def stability(study: Study) -> Figure | None:
    """How far the same segments come back when users are drawn again."""
    figure, axes = _figure()
    at = list(study.stability)
    means = [float(again.mean()) for again in study.stability.values()]
    low = [float(np.quantile(again, 0.1)) for again in study.stability.values()]
    high = [float(np.quantile(again, 0.9)) for again in study.stability.values()]
    axes.axhspan(STABLE, 1.02, color="#e8f4f1", zorder=0)
    axes.set_title("shaded: the same segments again", loc="right", color="#2b7a6d", fontsize=10)
    axes.vlines(at, low, high, color="#b9b6da", lw=6, zorder=2, capstyle="round")
    axes.plot(at, means, color=MAIN, lw=2, marker="o", ms=6, zorder=3)
    _mark_k(axes, study, dict(zip(at, means, strict=True)))
    axes.set_ylim(min(0.0, *low) if min(low) < 0.2 else min(0.4, min(low) - 0.05), 1.02)
    _by_k(axes, at, "agreement (adjusted Rand)")
    return figure


def elbow(study: Study) -> Figure | None:
    """How much closer users are to their segment with each further one."""
    figure, axes = _figure()
    at = list(study.inertia)
    whole = study.inertia[1] or 1.0
    left = [value / whole for value in study.inertia.values()]
    axes.plot(at, left, color=MAIN, lw=2, marker="o", ms=6, zorder=3)
    _mark_k(axes, study, dict(zip(at, left, strict=True)))
    axes.set_ylim(0, 1.05)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    _by_k(axes, at, "differences left inside segments")
    return figure


def silhouette(study: Study) -> Figure | None:
    """How much nearer users are to their own segment than to the next."""
    if not study.silhouette:
        return None
    figure, axes = _figure()
    at, values = list(study.silhouette), list(study.silhouette.values())
    axes.plot(at, values, color=MAIN, lw=2, marker="o", ms=6, zorder=3)
    _mark_k(axes, study, study.silhouette)
    axes.set_ylim(min(0.0, *values), max(0.5, *values) * 1.12)
    _by_k(axes, at, "mean silhouette")
    return figure


# -- the segments ------------------------------------------------------------------------------


def sizes(study: Study) -> Figure | None:
    """How many users each segment has."""
    shown = study.shown
    labels = [f"{number} · {_kind(kind)}" for number, kind in _numbered(study)]
    counts = list(shown.sizes)
    colours = [colour(row) for row in range(len(counts))]
    if study.noise:
        labels, counts = [*labels, "in no segment"], [*counts, study.noise]
        colours.append(NOBODY)
    figure, axes = _figure(height=max(2.2, 0.42 * len(counts) + 0.7))
    place = np.arange(len(counts))
    axes.barh(place, counts, color=colours, height=0.7, zorder=2)
    for at, count, share in zip(place.tolist(), counts, percents(counts), strict=True):
        axes.text(count + 0.012 * max(counts), at, f"{share}   {count:,}",
                  va="center", fontsize=10, color=INK)  # fmt: skip
    axes.set_yticks(place, labels)
    axes.invert_yaxis()
    axes.set_xlim(0, max(counts) * 1.22)
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)
    return figure


def profile(study: Study) -> Figure | None:
    """What is high and what is low in each segment."""
    shown, table = study.shown, study.table
    columns = telling(study)
    values = (shown.centroids - average(study))[:, columns].T
    figure, axes = _figure(
        width=max(_WIDE, 1.9 + 0.95 * len(shown.ids)), height=0.36 * len(columns) + 1.3
    )
    norm = TwoSlopeNorm(0.0, -2.0, 2.0)
    axes.imshow(np.clip(values, -2, 2), cmap=DIVERGING, norm=norm, aspect="auto")
    for y, column in enumerate(columns):
        for x in range(len(shown.ids)):
            value = plain(float(shown.natural[x, column]), table.features[column])
            strong = abs(values[y, x]) > 1.55
            axes.text(x, y, value, ha="center", va="center", fontsize=9,
                      color="white" if strong else INK)  # fmt: skip
    axes.set_yticks(range(len(columns)), [label(table.names[c]) for c in columns], fontsize=10)
    axes.set_xticks(
        range(len(shown.ids)), [f"{n}\n{_kind(kind)}" for n, kind in _numbered(study)], fontsize=10
    )
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(-0.5, len(shown.ids)), minor=True)
    axes.set_yticks(np.arange(-0.5, len(columns)), minor=True)
    axes.grid(visible=False)
    axes.grid(which="minor", color="white", lw=2)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def scatter(study: Study) -> Figure | None:
    """Everyone, on the two directions in which users differ most (principal components)."""
    flat = study.space.flat()
    centre = flat.mean(axis=0)
    _, strength, axes_of = np.linalg.svd(flat - centre, full_matrices=False)
    if len(strength) < 2:
        return None
    shares = strength**2 / (strength**2).sum()
    # The sign of a component is free: the strongest feature points right, and up.
    directions = axes_of[:2] * np.array(
        [[np.sign(row[np.abs(row).argmax()]) or 1.0] for row in axes_of[:2]]
    )
    points = (flat - centre) @ directions.T
    labels = study.shown.labels
    figure, axes = _figure(height=5.4)
    order = np.random.default_rng(0).permutation(len(points))
    colours = np.array([colour(row) for row in range(len(study.shown.ids))] + [NOBODY])
    size = float(np.clip(9_000 / len(points), 4, 26))
    axes.scatter(points[order, 0], points[order, 1], s=size, c=colours[labels[order]], alpha=0.55,
                 lw=0, zorder=2, rasterized=True)  # fmt: skip
    for row, number in enumerate(study.shown.ids):
        mine = labels == row
        if mine.any():
            x, y = points[mine].mean(axis=0)
            axes.text(x, y, str(number), ha="center", va="center", fontsize=12, weight="bold",
                      color=ink_on(colour(row)), zorder=4,
                      bbox={"boxstyle": "circle,pad=0.32", "fc": colour(row), "ec": "white",
                            "lw": 1.8})  # fmt: skip
    names = study.table.names
    for axis, direction, share in zip(
        (axes.xaxis, axes.yaxis), directions, shares[:2], strict=True
    ):
        top = np.argsort(-np.abs(direction), kind="stable")[:2]
        words = ", ".join(
            ("more " if direction[c] > 0 else "less ") + label(names[int(c)]) for c in top
        )
        axis.set_label_text(f"{words} →\n({share:.0%} of the differences)")
        axis.set_ticks([])
    return figure


def dendrogram(study: Study) -> Figure | None:
    """Which segments are close relatives: average linkage of the centroids."""
    from scipy.cluster import hierarchy  # noqa: PLC0415 - slow to import

    present = [row for row, size in enumerate(study.shown.sizes) if size]
    if len(present) < 3:
        return None
    flat, labels = study.space.flat(), study.shown.labels
    centroids = np.array([flat[labels == row].mean(axis=0) for row in present])
    tree = hierarchy.dendrogram(
        hierarchy.linkage(centroids, "average"), no_plot=True, color_threshold=0
    )
    figure, axes = _figure(height=max(2.6, 0.45 * len(present) + 0.9))
    for across, along in zip(tree["dcoord"], tree["icoord"], strict=True):
        axes.plot(across, along, color=QUIET, lw=1.8, solid_joinstyle="round", zorder=2)
    numbered = list(_numbered(study))
    at = 5.0 + 10.0 * np.arange(len(present))
    leaves = [present[leaf] for leaf in tree["leaves"]]
    axes.scatter(np.zeros(len(at)), at, s=90, c=[colour(row) for row in leaves], zorder=3,
                 clip_on=False)  # fmt: skip
    axes.set_yticks(at, [f"{numbered[row][0]} · {_kind(numbered[row][1])}" for row in leaves])
    axes.tick_params(axis="y", length=0, pad=8)
    axes.set_ylim(0, 10 * len(present))
    axes.set_xlim(0, None)
    axes.set_xlabel("distance between segments, in standard deviations")
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    return figure


# -- what they share ---------------------------------------------------------------------------


def _figure(width: float = _WIDE, height: float = _HIGH) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor("white")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#c5c9d3")
    axes.grid(color=GRID, lw=1, zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=11, color="#c5c9d3")
    axes.xaxis.label.set(color=QUIET, fontsize=11)
    axes.yaxis.label.set(color=QUIET, fontsize=11)
    return figure, axes


def _by_k(axes: Axes, at: list[int], meaning: str) -> None:
    axes.set_xlabel("number of segments")
    axes.set_ylabel(meaning)
    axes.set_xlim(min(at) - 0.5, max(at) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="x", visible=False)


def _mark_k(axes: Axes, study: Study, curve: dict[int, float]) -> None:
    """A ring around the number that is suggested."""
    k = study.advice.k
    if k in curve:
        axes.plot([k], [curve[k]], marker="o", ms=15, mfc="none", mec=MARK, mew=2.4, zorder=4)


def _numbered(study: Study) -> list[tuple[int, str]]:
    return list(zip(study.shown.ids, study.shown.kinds, strict=True))


def average(study: Study) -> Floats:
    """Of the users shown, in standard deviations."""
    counts = np.array(study.shown.sizes, dtype=float)
    average: Floats = np.average(study.shown.centroids, axis=0, weights=counts)
    return average


def _kind(kind: str) -> str:
    return textwrap.shorten(kind.replace("_", " "), 14, placeholder="…")
