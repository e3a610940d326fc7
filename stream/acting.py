"""Folds what users of several partitions did, and looks at them, in one go.

Comes in: batches of partitions, and a time. Goes out: rows and records, in each partition as if it had been alone.
A commit of each is next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from stream.events import CAUSES, Cause, EventColumns, Ints, Rows
from stream.levels.owned import anyone_crosses
from stream.looking import look_under
from stream.partition import Partition
from stream.reviews.judge import sentiments
from stream.rows import put_rows, rows_at


class Acting(NamedTuple):
    """What users of a partition did.

    Attributes:
        origin_ms: when what made them known was.
    """

    partition: Partition
    events: EventColumns
    origin_ms: int


def act_together(acting: Sequence[Acting], now_ms: int) -> list[int]:
    """Fold a batch into each of some partitions, and look at the users who acted.

    Nothing depends on which partitions come together. It is done in one go because numpy's calls
    cost the same for one user or a hundred, and in live mode a partition has few at a time.

    Args:
        acting: at least one, all of one feature table and one memory.

    Returns:
        The number of duplicates in each.
    """
    partitions = [one.partition for one in acting]
    for one in acting:
        one.partition.begin_act(one.events.slot, now_ms)
    # In here, a user's slot is counted on from partition to partition.
    ends = np.cumsum([len(partition) for partition in partitions])
    firsts = ends - [len(partition) for partition in partitions]

    def parted(slots: Ints) -> list[tuple[int, int]]:
        """Where each partition's begin and end."""
        cuts = np.searchsorted(slots, ends).tolist()
        return list(zip([0, *cuts], cuts, strict=False))

    def take(slots: Ints) -> Rows:
        rows = np.empty(len(slots), table.dtype)
        for one, first, (a, b) in zip(partitions, firsts.tolist(), parted(slots), strict=True):
            one.take(slots[a:b] - first, rows[a:b])
        return rows

    table = partitions[0].table
    events = EventColumns.concatenate(
        [
            replace(one.events, slot=one.events.slot + first)
            for one, first in zip(acting, firsts.tolist(), strict=True)
        ]
    )
    if any(partition.memory is not partitions[0].memory for partition in partitions):
        raise ValueError("partitions that act together have one memory")
    parts = [one.partition.part(one.events) for one in acting]
    sifted = partitions[0].memory.sift(parts, events, table.orders)
    learned = [(one.partition.past.wordings, len(one.events)) for one in acting]
    feels = sentiments(learned, sifted.events, sifted.repeats)
    folded = table.fold(take, sifted.events, sifted.repeats, sifted.shares, feels)
    spans = parted(folded.touched)
    slots = [
        folded.touched[a:b] - first for first, (a, b) in zip(firsts.tolist(), spans, strict=True)
    ]
    for group in _alike(partitions):
        model = partitions[group[0]].model
        if model is None:
            continue
        here = np.concatenate([np.arange(*spans[number]) for number in group])
        known = folded.rows["seen"][here] > 0
        # Who is known by what the shop did only is in no segment until they act.
        here = here[known]
        if len(here) == 0:
            continue
        alone = len(here) == len(folded.rows)
        rows = folded.rows if alone else rows_at(folded.rows, here)
        vectors = table.vectors(rows, now_ms)
        causes = np.full(len(rows), CAUSES.index(Cause.USER_MOVED), np.uint8)
        rule = partitions[group[0]].rule_of(model)
        placed, answer = look_under(model, rule, rows, vectors, causes, now_ms)
        owned = [partitions[n].owned_levels(model) for n in group] if model.levels.known else []
        crossing = bool(owned) and anyone_crosses(model, owned, rows, vectors, causes, table.names)
        begin = 0
        for number in group:
            low, high = spans[number]
            end = begin + int(np.count_nonzero((here >= low) & (here < high)))
            part, span = partitions[number], slice(begin, end)
            mine, whose = rows[span], slots[number][here[span] - low]
            part.record(
                model, mine, whose, vectors[span], placed.mapped[span],
                answer.moves.between(begin, end), causes[span], now_ms,
            )  # fmt: skip
            everyone = np.ones(len(mine), np.bool_)
            part.tell_turns(
                model, mine, whose, vectors[span], answer.columns[span], everyone, now_ms
            )
            if crossing:
                part.tell_levels(model, mine, whose, vectors[span], causes[span], now_ms)
            part.originate(acting[number].origin_ms)
            begin = end
        if not alone:
            put_rows(folded.rows, here, rows)
    for partition, touched, (a, b) in zip(partitions, slots, spans, strict=True):
        partition.put(touched, folded.rows[a:b])
    return [b - a for a, b in parted(folded.duplicates)]


def _alike(partitions: Sequence[Partition]) -> list[list[int]]:
    """Places of partitions with the same model and rule: all of them, but during an adoption."""
    groups: list[list[int]] = []
    for number, one in enumerate(partitions):
        for group in groups:
            other = partitions[group[0]]
            same = one.model is other.model
            if same and (one.model is None or one.rule_of(one.model) == other.rule_of(one.model)):
                group.append(number)
                break
        else:
            groups.append([number])
    return groups
