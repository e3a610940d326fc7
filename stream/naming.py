"""Names segments by what marks them.

Comes in: centroids, their kinds, and what a low and a high value of each feature is called. Goes out: a
readable name a segment, which stays until the opposite of what it says is true. `learning.refit` is next.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import numpy as np

from stream.events import Floats
from stream.kinds import FALLBACK_KIND, KindRule
from stream.model import Axes, Segment

LEAST_MARK = 0.2
"""A feature nearer to the average than this, in standard deviations, marks nobody."""
ALIKE = 0.7
"""Two features correlated as much as this over the segments say the same of them."""
AT_ODDS = 0.4
"""Words for two features correlated as much as this the other way round contradict each other."""
UNMARKED = "Average"
"""Name of a segment that has no kind and that nothing marks."""
_NUMBER = re.compile(r" [(](\d+)[)]\Z")


def propose_names(
    centroids: Floats,
    weights: Floats,
    axes: Axes,
    kind_list: Sequence[str],
    kept: Sequence[str | None] = (),
    rules: Sequence[KindRule] = (),
    others: Collection[str] = (),
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
        others: names of segments that are not among these; none of them is given again.
    """
    offset = (centroids - centroids.mean(axis=0)) * np.sqrt(weights)
    names = list(kept) or [None] * len(kind_list)
    taken = {_meaning(name) for name in (*names, *others) if name is not None}
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
