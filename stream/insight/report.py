"""The page of `segstream explore`: one HTML file, in words that need no statistics.

Comes in: a `Study` and its pictures. Goes out: HTML with the pictures inside; nothing is loaded
from anywhere.
"""

from __future__ import annotations

from base64 import b64encode
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from stream.insight.charts import average, colour, ink_on, label, plain, shade, telling
from stream.learning.choosing import ENOUGH, STABLE, elbow
from stream.safe import safe_facts
from stream.units import iso, percent, percents

if TYPE_CHECKING:
    from stream.insight.explore import Study

VERDICTS = {
    "firm": "Firm: there are gaps, and they last",
    "open": "Open: gaps, but they do not last",
    "chosen": "A choice, and one that repeats",
    "loose": "Not firm",
}
HOW = {
    "separation": (
        "Are there gaps?",
        (
            "Each bar is the blurriest border when shoppers are cut into so many segments; from the "
            "dashed line up, even that border runs through a gap rather than through a crowd."
        ),
    ),
    "stability": (
        "Would we find the same segments again?",
        (
            "Shoppers were drawn anew many times; a point near 1 means the same segments every time, "
            "the bar behind it is the range of eight draws in ten."
        ),
    ),
    "elbow": (
        "What does one more segment buy?",
        (
            "The line falls as segments fit more tightly; past a bend, a further segment buys little. "
            "The ring marks the suggested number."
        ),
    ),
    "silhouette": (
        "How far apart are neighbours?",
        (
            "1 would be segments far apart, 0 segments that touch everywhere; it favours few, coarse "
            "segments, so read it beside the others."
        ),
    ),
    "sizes": (
        "How large each segment is",
        "Longer bars are more shoppers; one under 2 or 3 % is rarely worth a campaign of its own.",
    ),
    "scatter": (
        "Everyone at a glance",
        (
            "Each dot is a shopper, near those who behave alike; the numbered discs are the segments' "
            "centres. Two directions cannot show everything, so overlaps here may be apart in truth."
        ),
    ),
    "dendrogram": (
        "Which segments are relatives",
        (
            "Segments that join far to the left are close relatives; if there are too many, merge "
            "those first."
        ),
    ),
}
DISTANCES = {
    "euclid": "Distance: Euclidean, the one that the live pipeline uses.",
    "cosine": "Distance: cosine. Who does half as much of everything counts as the same, so "
    "segments are patterns of behaviour and not levels. The live pipeline uses Euclidean distance.",
    "mahalanobis": "Distance: Mahalanobis, by whitening. Features that say the same count once. "
    "The live pipeline uses Euclidean distance.",
}


def page(study: Study, pictures: dict[str, bytes]) -> str:
    """The whole page."""
    source = resources.files("stream.insight") / "explore.html"
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(source.read_text(encoding="utf-8"))
    return template.render(**safe_facts(_content(study, pictures)))


def say(study: Study) -> str:
    """The finding in two or three sentences."""
    k, firmness = study.advice
    means = {number: float(again.mean()) for number, again in study.stability.items()}
    match firmness:
        case "firm":
            return (
                f"The data falls into {k} kinds of shoppers by itself: every border between them "
                f"runs through a gap, and the same {k} come back when the shoppers are drawn "
                f"again (agreement {means[k]:.2f} of 1)."
            )
        case "open":
            again = f" (agreement {means[k]:.2f} of 1)" if k in means else ""
            return (
                f"There are gaps that suggest {k} kinds of shoppers, but drawing the shoppers "
                f"again gives other segments{again}. Take {k} as a first guess, and look at more "
                "data before building on it."
            )
        case "chosen":
            further = [number for number in means if number > k]
            return (
                "There are no gaps: shoppers shade into one another, as they do in most shops, so "
                f"no number is the true one. Cut into {k}, the same segments come back when the "
                f"shoppers are drawn again (agreement {means[k]:.2f} of 1)"
                + ("; with more, they begin to change." if further else ".")
            )
        case _:
            return (
                "There are no gaps, and whichever way the shoppers are cut, other segments come "
                f"out when they are drawn again. {k} comes back best (agreement "
                f"{means[k]:.2f} of 1), but do not build on it."
            )


def _configured(study: Study) -> str:
    """What the pipeline takes, as it is set."""
    if study.configured is None:
        return "The pipeline takes what its users suggest (segments = auto)."
    setting = "learning.segments"
    if len(study.populations) > 1:
        setting = f"segments of the population {study.population}"
    if study.configured == study.advice.k:
        return f"That is what the pipeline is set to ({setting} = {study.configured})."
    return (
        f"The pipeline is set to {setting} = {study.configured}, which counts when its first model "
        "is learned."
    )


def _others(study: Study) -> list[str]:
    """What the other populations suggest, a sentence each."""
    return [
        f"Beside it, the population {one['name']}: {one['users']:,} users"
        + (
            ", too few to suggest anything."
            if one["suggested"] is None
            else f" suggest {one['suggested']} ({one['firmness']}), the pipeline is set to "
            f"{one['configured'] or 'what they suggest'}."
        )
        for one in study.populations
        if one["name"] != study.population
    ]


def because(study: Study) -> list[str]:
    """What else to know, a sentence a line."""
    steps = {step.k: step.weakest for step in study.separation.steps}
    lines = []
    k = study.advice.k
    if k in steps:
        only = "" if steps[k] >= ENOUGH else "only "
        lines.append(
            f"Its blurriest border explains {only}{percent(steps[k])} of the differences along the "
            f"line between its two segments; a crowd without any gap comes to {percent(ENOUGH)}."
        )
    others = [f"the bend of the elbow says {elbow(list(study.inertia.values()))}"]
    if study.silhouette:
        others.append(f"the silhouette {max(study.silhouette, key=lambda n: study.silhouette[n])}")
    lines.append(f"Other yardsticks: {', '.join(others)}. Both tend to name too few.")
    lines.append(_configured(study))
    lines += _others(study)
    lasting = study.shown.stability
    if study.wish.algorithm == "density" and lasting is not None:
        lines.append(
            f"The segments below were found by density: {len(study.shown.ids)} of them, agreement "
            f"{lasting:.2f} when drawn again, {percent(study.noise / len(study.shown.labels))} of "
            "shoppers in none."
        )
    return lines


def typical(study: Study, row: int, count: int = 4) -> list[tuple[str, str]]:
    """What marks a segment's typical member: features and values in natural units."""
    shown, table = study.shown, study.table
    weights = np.array([feature.weight for feature in table.features])
    strength = np.abs(shown.centroids[row] - average(study)) * np.sqrt(weights)
    marks = [c for c in np.argsort(-strength, kind="stable").tolist() if weights[c] > 0][:count]
    return [
        (label(table.names[c]), plain(float(shown.natural[row, c]), table.features[c]))
        for c in marks
    ]


def _content(study: Study, pictures: dict[str, bytes]) -> dict[str, Any]:
    shown, table, people = study.shown, study.table, study.people
    looked_at = len(shown.labels)
    largest = max(shown.sizes)
    shares = percents([*shown.sizes, study.noise])
    segments = [
        {
            "id": number,
            "name": shown.names[row],
            "kind": shown.kinds[row].replace("_", " "),
            "size": f"{shown.sizes[row]:,}",
            "share": shares[row],
            "width": f"{100 * shown.sizes[row] / largest:.1f}%",
            "typical": typical(study, row),
            "colour": colour(row),
            "ink": ink_on(colour(row)),
        }
        for row, number in enumerate(shown.ids)
    ]
    middle, columns = average(study), telling(study)
    silent = [
        label(feature.name)
        for column, feature in enumerate(table.features)
        if feature.weight > 0 and column not in columns
    ]
    rows = [
        {
            "feature": label(table.names[column]),
            "unit": "" if table.units[column] in table.names[column] else table.units[column],
            "cells": [
                {
                    "value": plain(float(shown.natural[row, column]), table.features[column]),
                    "back": (back := shade(float(shown.centroids[row, column] - middle[column]))),
                    "ink": ink_on(back),
                }
                for row in range(len(shown.ids))
            ],
        }
        for column in columns
    ]
    charts = {
        name: {
            "title": HOW[name][0],
            "how": HOW[name][1],
            "src": "data:image/png;base64," + b64encode(pictures[name]).decode(),
            "wide": name == "scatter",
        }
        for name in HOW
        if name in pictures
    }
    return {
        "source": people.source
        if len(study.populations) == 1
        else f"{people.source}, population {study.population}",
        "users": f"{people.total:,}",
        "sampled": "" if looked_at == people.total else f"{looked_at:,}",
        "at": iso(people.at_ms)[:16].replace("T", " ") + " UTC",
        "k": study.advice.k,
        "number_note": "segments suggested",
        "firmness": study.advice.firmness,
        "verdict": VERDICTS[study.advice.firmness],
        "say": say(study),
        "because": because(study),
        "segments_title": "One segment"
        if len(shown.ids) == 1
        else f"The {len(shown.ids)} segments",
        "segments_note": _shown_note(study),
        "segments": segments,
        "profile": rows,
        "silent": ", ".join(silent),
        "fades": any(feature.half_life is not None for feature in study.table.features),
        "scale": [shade(z) for z in (-2.0, -1.0, 0.0, 1.0, 2.0)],
        "segment_charts": [
            charts[name] for name in ("sizes", "dendrogram", "scatter") if name in charts
        ],
        "why_note": "Four ways to ask, from the one that counts most. Which number to take stays "
        "a decision: as many segments as you can treat differently, and no more than come back.",
        "k_charts": [
            charts[name]
            for name in ("separation", "stability", "elbow", "silhouette")
            if name in charts
        ],
        "notes": people.notes,
        "method": (
            f"{DISTANCES[study.wish.distance]} Values are compared after a logarithm, in standard "
            "deviations, outermost 1 % cut off. The suggestion: merge-down of the least separated "
            f"pair, a gap from {percent(ENOUGH)}; where there is none, the largest number whose "
            f"segments agree to {STABLE} over {study.wish.bootstraps} draws."
        ),
    }


def _shown_note(study: Study) -> str:
    if study.model is not None:
        return (
            f"Those of the running model {study.model}, with its numbers and names. The suggestion "
            "above is for comparison and changes nothing."
        )
    if study.wish.algorithm == "density":
        return "Found by density: as many as there are crowds, and whoever stands apart is in none."
    if study.wish.k is not None:
        return f"Cut into {study.wish.k}, as asked for with --k."
    return "Largest first. Names are proposals from what marks each of them; yours may be better."
