"""Names segments by what marks them, with words that are true of their members.

Comes in: the members of each segment in natural units, their kinds, and what a low and a high value of
each feature is called. Goes out: a readable name a segment, which stays as long as every word of it
holds. `learning.refit` and `learning.rounds` are next.

A word claims something of everyone it names. So each has limits in natural units, declared with the
feature: it is said only if they hold for the median member and for nearly all members (`SAID_AT`), and
is taken back before they hold for fewer than `config.Learning.word_share`. Beside the other segments it has
to mark this one, and it never speaks against the kind.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stream.events import Bools, Floats
from stream.kinds import DEFAULT_KINDS, FALLBACK_KIND, Bounds, KindRule, Members, kinds
from stream.model import Axes, Segment

Limits = Mapping[str, Bounds]
"""What holds of whom a word names: feature to limits; an empty one proves nothing."""
LEAST_MARK = 0.2
"""A feature nearer to the average than this, in standard deviations, marks nobody."""
ALIKE = 0.7
"""Two features correlated as much as this over the segments say the same of them."""
AT_ODDS = 0.4
"""Words for two features correlated as much as this the other way round contradict each other."""
SAID_AT, KEPT_AT = 0.75, 0.5
"""Of the way from the declared share to everyone: a word is said from here on, and kept to there, so
that it is true until the next look, and does not come and go."""
FEWEST = 20
"""Of fewer members nothing is said: they are others at the next look, as visitors of a shop in which nearly
everyone orders on the second day."""
FEW = 0.25
"""Over the root of a segment's members: so much more of them a word has to hold for. Of thirty, three who
come or go before the next look are a tenth."""
ROUNDING = 1e-9
UNMARKED = "Average"
"""Name of a segment that has no kind and that nothing marks."""
_NUMBER = re.compile(r" [(](\d+)[)]\Z")


@dataclass(frozen=True)
class Truth:
    """Of which segments each word is true.

    Args:
        share: of the members, for whom a word has to hold; see `config.Learning.word_share`.
        again_days: until names are looked at again. What time alone makes false before then is not said: of
            who was here today it is not known tomorrow.
    """

    axes: Axes
    members: Members
    share: float
    again_days: float = 0.0

    @cached_property
    def claims(self) -> dict[str, list[Limits]]:
        """Limits of each word; several where features share it, of which one has to hold."""
        found: dict[str, list[Limits]] = {}
        for words, limits in zip(self.axes.words, self.axes.limits, strict=True):
            for word, declared in zip(words, limits, strict=True):
                if word:
                    known = found.setdefault(word.casefold(), [])
                    known += [] if self._passes(declared) else [declared]
        return found

    def _passes(self, limits: Limits) -> bool:
        """Whether time alone takes everyone over a limit before names are looked at again."""
        units = dict(zip(self.axes.names, self.axes.units, strict=True))
        return any(
            units[name] == "days" and bounds.max is not None and bounds.max < self.again_days
            for name, bounds in limits.items()
        )

    def holds(self, word: str, column: int, *, kept: bool) -> bool:
        """Whether a word may be said of a segment, or stay in its name."""
        typical, shares = self._of(word.casefold())
        step = KEPT_AT if kept else SAID_AT
        members = int(self.members.counts[column])
        if members < FEWEST:
            return False
        few = FEW / members**0.5
        least = min(self.share + step * (1.0 - self.share) + few, 1.0) - ROUNDING
        return bool(typical[column] and shares[column] >= least)

    @cached_property
    def _known(self) -> dict[str, tuple[Bools, Floats]]:
        return {}

    def _of(self, word: str) -> tuple[Bools, Floats]:
        """Of each segment: whether it holds of the median member, and of what share of all."""
        if word not in self._known:
            typical = np.zeros(self.members.segments, np.bool_)
            every = np.zeros(len(self.members.labels), np.bool_)
            for limits in self.claims[word]:
                typical |= kept_by(limits, self.members.typical, self.members)
                every |= kept_by(limits, self.members.vectors, self.members)
            self._known[word] = typical, self.members.mean(every.astype(float))
        return self._known[word]


def kept_by(limits: Limits, vectors: Floats, members: Members) -> Bools:
    """Which vectors keep limits; none keeps no limits."""
    found = np.full(len(vectors), bool(limits))
    for name, bounds in limits.items():
        column = members.names.index(name)
        low, high = bounds.span(float(members.usual[column]))
        found &= (vectors[:, column] >= low) & (vectors[:, column] <= high)
    return found


def called(
    was: Sequence[Segment | None],
    given: Sequence[str | None],
    truth: Truth,
    centroids: Floats,
    weights: Floats,
    rules: Sequence[KindRule],
    others: Collection[str] = (),
) -> list[tuple[str, str]]:
    """Name and kind of each segment now.

    A name belongs to the segment until a person gives another, the segment turns into another kind,
    or what the name says is no longer so.

    Args:
        was: the segment of each column before; None for a new one.
        given: names that persons gave; None where nobody did.
        others: names of segments that are not among these; none of them is given again.
    """
    kind_list = kinds(truth.members, rules, [None if one is None else one.kind for one in was])
    stale = belied(was, truth, kind_list, rules)
    kept = [
        name or (None if one is None or one.kind != kind or gone else one.name)
        for name, one, kind, gone in zip(given, was, kind_list, stale, strict=True)
    ]
    names = propose_names(centroids, weights, truth, kind_list, kept, rules, others)
    return list(zip(names, kind_list, strict=True))


def propose_names(
    centroids: Floats,
    weights: Floats,
    truth: Truth,
    kind_list: Sequence[str],
    kept: Sequence[str | None] = (),
    rules: Sequence[KindRule] = (),
    others: Collection[str] = (),
) -> list[str]:
    """A readable name a segment: its kind, and the two true words that mark it most.

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
        words = _phrases(offset, row, truth, known_by, never_said(kind, rules))
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
    was: Sequence[Segment | None],
    truth: Truth,
    kind_list: Sequence[str],
    rules: Sequence[KindRule] = (),
) -> list[bool]:
    """Of each segment, whether its name says what is no longer so; nothing is known of an empty one.

    Args:
        was: the segment of each column before; None for a new one, which has no name yet.
        kind_list: of each, now.
    """
    found = []
    for column, (segment, kind) in enumerate(zip(was, kind_list, strict=True)):
        barred = never_said(kind, rules)
        peopled = truth.members.counts[column] > 0
        words = words_of(segment.name) if segment is not None and peopled else []
        found.append(
            any(
                word in barred
                or (word in truth.claims and not truth.holds(word, column, kept=True))
                for word in words
            )
        )
    return found


def never_said(kind: str, rules: Sequence[KindRule]) -> set[str]:
    """Words that speak against a kind: those declared; where none is, the defaults' of that name.

    A shop that gives a kind other limits means the same by *at risk*.
    """
    own = [rule for rule in rules if rule.kind == kind]
    if own and not any(rule.never_said for rule in own):
        own = [rule for rule in DEFAULT_KINDS if rule.kind == kind]
    return {word.casefold() for rule in own for word in rule.never_said}


def words_of(name: str) -> list[str]:
    """The words of a proposed name, as they are declared but for capitals."""
    return [word.casefold() for word in _parts(name)[1]]


def _parts(name: str) -> tuple[str, list[str], str]:
    """The kind, the words and the number of a proposed name; no kind if it has none."""
    found = _NUMBER.search(name)
    stem, number = (name, "") if found is None else (name[: found.start()], found[1])
    kind, colon, words = stem.partition(": ")
    return (kind, words.split(", "), number) if colon else ("", stem.split(", "), number)


def _meaning(name: str) -> tuple[str, frozenset[str], str]:
    """What a name says: the same in whichever order, and with whichever word capitalised."""
    kind, words, number = _parts(name)
    return kind, frozenset(word.casefold() for word in words), number


def _phrases(
    offset: Floats, row: int, truth: Truth, known_by: Collection[str], barred: Collection[str]
) -> list[str]:
    """True words for what marks a segment: first what says something new, then what says it again.

    Args:
        known_by: features of which nothing needs to be said.
        barred: words that speak against the kind.
    """
    spread = np.maximum(np.linalg.norm(offset, axis=0), 1e-9)
    together = (offset / spread).T @ (offset / spread)
    alike = np.abs(together) > ALIKE
    signs = np.sign(offset[row])
    at_odds = together * np.outer(signs, signs) < -AT_ODDS
    said: list[int] = []
    fresh: list[str] = []
    again: list[str] = []
    axes = truth.axes
    for column in np.argsort(-np.abs(offset[row]), kind="stable").tolist():
        low, high = axes.words[column]
        phrase = high if offset[row, column] > 0 else low
        if (
            not phrase
            or axes.names[column] in known_by
            or phrase in fresh
            or phrase.casefold() in barred
            or abs(offset[row, column]) <= LEAST_MARK
            or at_odds[column, said].any()
            or not truth.holds(phrase, row, kept=False)
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
