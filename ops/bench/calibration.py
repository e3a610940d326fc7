"""Draws how far predictions can be taken at their word: what was given against the share who bought.

Comes in: a shop's report of `shoppers`. Goes out: an SVG a shop beside the results, written anew by each
run that appends to them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from stream.insight.charts import GRID, INK, QUIET, colour

WIDE, HIGH = 4.6, 4.4


def file_of(shop: str) -> str:
    """Name of a shop's picture."""
    return f"calibration-{re.sub('[^a-z0-9]+', '-', shop.lower()).strip('-')}.svg"


def write(folder: Path, report: dict[str, Any]) -> None:
    """Draw a shop, a field a horizon; nothing is written where nothing was judged."""
    horizons = report["horizons"]
    if not horizons:
        return
    figure = Figure(figsize=(WIDE * len(horizons), HIGH), layout="constrained")
    FigureCanvasSVG(figure)
    fields = figure.subplots(1, len(horizons), squeeze=False)[0]
    for field, (days, found) in zip(fields, horizons.items(), strict=True):
        field.plot([0, 1], [0, 1], color=GRID, linewidth=2.5, zorder=0)
        highest = 0.0
        for place, row in enumerate(found["rows"]):
            _, given, came = zip(*row["bins"], strict=True)
            highest = max(highest, *given, *came)
            ours = place == 0
            field.plot(
                given, came, marker="o", markersize=4 if ours else 2.5,
                linewidth=2.2 if ours else 1.0, color=colour(place), zorder=9 - place,
                label=f"{row['method'].strip('*')}: off by {row['calibration']:.3f}",
            )  # fmt: skip
        field.set(
            title=f"{report['shop']}, {days} days", xlabel="predicted", ylabel="share who bought",
            xlim=(0, highest * 1.05), ylim=(0, highest * 1.05),
        )  # fmt: skip
        field.title.set_color(INK)
        field.tick_params(colors=QUIET)
        field.legend(fontsize=7, frameon=False, loc="upper left")
    # The same numbers make the same file.
    with rc_context({"svg.hashsalt": "calibration"}):
        figure.savefig(folder / file_of(report["shop"]), format="svg", metadata={"Date": None})
