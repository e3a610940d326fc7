"""Recomputes a shop's year from its file and the published models, one user at a time.

Comes in: the CSV file as it was downloaded, and the models as they were announced. Goes out:
every change that must have been announced, in the few fields that decide.

It goes the other way round than the pipeline. That one takes a mark, and all users at it, and
carries decayed sums along; this takes a user, and for every mark adds up all purchases before it,
each with its weight. Then it walks along the marks with the publish rule as a person would read
it. It shares no line with the code it judges but the declared features and settings.
"""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from stream.config import Publish
from stream.features import Feature
from stream.units import DAY_MS

Floats = npt.NDArray[np.float64]

LONDON = ZoneInfo("Europe/London")
GRID = 2.0**18


class Purchase(NamedTuple):
    """An invoice or a credit note, all its lines together."""

    time_ms: int
    row: int
    user: str
    event: str
    value: float
    quantity: float


class Entry(NamedTuple):
    """An order, a refund, or what a refund took back of an order.

    Attributes:
        known_ms: from then on it counts.
        time_ms: at which it counts.
        event: empty for what was taken back.
    """

    known_ms: int
    time_ms: int
    event: str
    number: float
    value: float
    quantity: float


@dataclass
class Order:
    """What is left of an order."""

    time_ms: int
    value: float
    left: float
    pieces: float


class Move(NamedTuple):
    """What decides about a change record."""

    user: str
    version: int
    before: int | None
    after: int
    cause: str
    at: str
    model: str
    last_event_at: str
    provisional: bool

    @staticmethod
    def of(change: dict[str, Any]) -> Move:
        return Move(
            change["user"],
            change["version"],
            change["from"],
            change["to"],
            change["cause"],
            change["at"],
            change["model"],
            change["last_event_at"],
            change["provisional"],
        )


def read_purchases(file: Path) -> list[Purchase]:
    """Every invoice with a customer, by time; ties in the order of the file."""
    lines: dict[tuple[str, str], list[tuple[int, int, float, float]]] = defaultdict(list)
    with gzip.open(file, "rt", encoding="utf-8", newline="") as text:
        for number, row in enumerate(csv.DictReader(text), start=1):
            if not row["CustomerID"] or row["InvoiceNo"].startswith("A"):
                continue
            moment = datetime.fromisoformat(row["InvoiceDate"]).replace(tzinfo=LONDON)
            quantity, price = float(row["Quantity"]), float(row["UnitPrice"])
            line = (round(moment.timestamp() * 1_000), number, price * quantity, quantity)
            lines[row["CustomerID"], row["InvoiceNo"]].append(line)
    purchases: list[Purchase] = []
    for (user, invoice), rows in lines.items():
        refund = invoice.startswith("C")
        value, quantity = round(sum(r[2] for r in rows), 6), sum(r[3] for r in rows)
        if refund:
            value, quantity = abs(value), abs(quantity)
        assert value >= 0
        event = "Order Refunded" if refund else "Order Completed"
        purchases.append(
            Purchase(min(r[0] for r in rows), rows[0][1], user, event, value, quantity)
        )
    return sorted(purchases, key=lambda p: (p.time_ms, p.row))


def entries(purchases: Sequence[Purchase], remember_ms: int) -> list[Entry]:
    """What one user's orders and credit notes count, and from when on.

    Credit notes have numbers of their own, so each takes from the newest orders what they have left,
    until its amount is used up, of those that are remembered.
    """
    step_ms = remember_ms // 8
    found: list[Entry] = []
    orders: list[Order] = []
    for time_ms, _, _, event, value, quantity in purchases:
        found.append(Entry(time_ms, time_ms, event, 1.0, value, quantity))
        if event == "Order Completed":
            orders.append(Order(time_ms, value, value, quantity))
            continue
        rest, rest_pieces = value, quantity
        for order in reversed(orders):
            remembered = order.time_ms // step_ms >= time_ms // step_ms - 8
            if rest <= 0 or not remembered or order.left <= 0:
                continue
            taken, pieces = min(order.left, rest), min(order.pieces, rest_pieces)
            rest, rest_pieces = rest - taken, rest_pieces - pieces
            number = 0.0
            if order.left - taken <= 1e-9 * order.value:
                number, taken, pieces = -1.0, order.left, order.pieces
            order.left, order.pieces = order.left - taken, order.pieces - pieces
            found.append(Entry(time_ms, order.time_ms, "", number, -taken, -pieces))
    return found


@dataclass(frozen=True)
class Occasion:
    """A moment at which everyone is looked at, under one model.

    Attributes:
        sweep: a sweep of the mark itself; False where the mark's round has made a new model.
    """

    at_ms: int
    model: dict[str, Any]
    sweep: bool


def occasions(models: Iterable[dict[str, Any]], marks: Sequence[int]) -> list[Occasion]:
    """Each mark under the model in force, then under the one its round has made, if it has."""
    born = {model["geometry"]["at_ms"]: model for model in models}
    found: list[Occasion] = []
    in_force: dict[str, Any] | None = None
    for mark in marks:
        if in_force is not None:
            found.append(Occasion(mark, in_force, sweep=True))
        if mark in born:
            in_force = born[mark]
            found.append(Occasion(mark, in_force, sweep=False))
    return found


def marks_of(purchases: Sequence[Purchase]) -> list[int]:
    """Midnights, UTC, from the first after the first purchase to the first after the last."""
    first = (purchases[0].time_ms // DAY_MS + 1) * DAY_MS
    last = (purchases[-1].time_ms // DAY_MS + 1) * DAY_MS
    return list(range(first, last + 1, DAY_MS))


def recompute(
    purchases: Sequence[Purchase],
    models: Iterable[dict[str, Any]],
    features: Sequence[Feature],
    rule: Publish,
    remember_ms: int,
) -> list[Move]:
    """Every move there must have been, by user and version.

    Args:
        remember_ms: how long orders are remembered.
    """
    looks = occasions(models, marks_of(purchases))
    geometry = _Geometry(looks)
    of_user: dict[str, list[Purchase]] = defaultdict(list)
    for purchase in purchases:
        of_user[purchase.user].append(purchase)
    moves: list[Move] = []
    for user in sorted(of_user):
        ordered = [p.time_ms for p in of_user[user] if p.event == "Order Completed"]
        # Whom only the shop knows, by a credit note, is in no segment.
        known = [i for i, look in enumerate(looks) if ordered and look.at_ms > ordered[0]]
        if known:
            times = np.array([looks[i].at_ms for i in known])
            counted = entries(of_user[user], remember_ms)
            found = vectors(counted, features, times)
            distances = geometry.distances(found, known[0])
            names = [feature.name for feature in features]
            users = [dict(zip(names, row, strict=True)) for row in found.tolist()]
            moves += _walk(of_user[user], looks, users, distances, geometry, rule, known[0])
    return moves


# -- features ----------------------------------------------------------------------------------


def vectors(
    counted: Sequence[Entry], features: Sequence[Feature], times: npt.NDArray[np.int64]
) -> Floats:
    """A user's features at some times, ``(times, features)``, from all that is known before each."""
    before = np.array([e.known_ms for e in counted]) < times[:, None]
    age = np.where(before, times[:, None] - np.array([e.time_ms for e in counted]), 0)
    columns: dict[str, Floats] = {}
    weights: dict[float, Floats] = {}

    def watched(names: Sequence[str]) -> Floats:
        # Of an order's own time is what was taken back of it; a credit note is no sign of life.
        acts = names or ("Order Completed",)
        return np.array([1.0 if e.event in acts else 0.0 for e in counted])

    def amounts_of(feature: Feature, of: str) -> Floats:
        """What each entry adds: what is left of orders, if refunds take away from it."""
        assert not feature.minus or (feature.on, feature.minus) == (
            ("Order Completed",),
            ("Order Refunded",),
        )
        names = (*feature.on, "") if feature.minus else feature.on
        return np.array([getattr(e, of) if e.event in names else 0.0 for e in counted])

    def faded(feature: Feature, amounts: Floats) -> Floats:
        assert feature.window is None, "this shop is recomputed with decayed sums only"
        half_life = feature.half_life or np.inf  # or for life
        if half_life not in weights:
            fading = np.exp2(-age / (1_000 * half_life))
            weights[half_life] = np.where(before, fading, 0.0)
        total: Floats = weights[half_life] @ amounts
        return total

    def days(feature: Feature, names: Sequence[str], *, newest: bool) -> Floats:
        seen = before & (watched(names) > 0)
        ages = np.where(seen, age, np.inf if newest else -np.inf)
        found = ages.min(axis=1) if newest else ages.max(axis=1)
        return np.where(seen.any(axis=1), found / DAY_MS, feature.absent)

    def waited(feature: Feature) -> Floats:
        """Days since the entry before, of those a feature is on; none within half a day."""
        assert not feature.minus
        found, newest = np.zeros(len(counted)), np.inf
        for place, entry in enumerate(counted):
            if entry.event in feature.on:
                found[place] = max((entry.time_ms - newest) / DAY_MS, 0.0)
                newest = entry.time_ms
        return np.where(found > 0.5, found, 0.0)

    for feature in features:
        amounts = amounts_of(
            feature, feature.of if feature.of in ("value", "quantity") else "number"
        )
        match feature.aggregate, feature.of:
            case "last" | "first" as which, _:
                newest = which == "last"
                column = days(feature, feature.on if newest else (), newest=newest)
            case _, "sessions" | "browse_seconds" | "category":
                column = np.zeros(len(times))  # nobody browses in this shop
            case "mean", _:
                number = faded(feature, amounts_of(feature, "number"))
                column = _divide(faded(feature, amounts), number, feature.absent)
            case "gap", _:
                waits = waited(feature)
                column = _divide(
                    faded(feature, waits), faded(feature, (waits > 0).astype(float)), feature.absent
                )
            case "ratio", _:
                top, bottom = (columns[part] for part in feature.ratio_parts)
                column = _divide(top, bottom, feature.absent)
            case _:
                column = faded(feature, amounts)
        columns[feature.name] = column
    return np.stack([columns[feature.name] for feature in features], axis=1)


def _divide(top: Floats, bottom: Floats, absent: float) -> Floats:
    return np.where(bottom > 1e-6, top / np.where(bottom > 1e-6, bottom, 1.0), absent)


class _Geometry:
    """What the published models say about distances, a row an occasion.

    Each population has a map of its own; a column is a segment, counted through all populations.
    """

    def __init__(self, looks: Sequence[Occasion]) -> None:
        published = [look.model["geometry"]["parts"] for look in looks]
        width = len(looks[0].model["geometry"]["features"])
        parts = max(map(len, published))
        most = max(len(look.model["segments"]) for look in looks)
        self._map = {
            key: np.ones((len(looks), parts, width))
            for key in ("low", "high", "centre", "scale", "weights")
        }
        self._centroids = np.zeros((len(looks), most, width))
        self._part = np.zeros((len(looks), most), np.int64)
        self._separations = np.ones((len(looks), most, most))
        for number, there in enumerate(published):
            column = 0
            for place, part in enumerate(there):
                for key, values in self._map.items():
                    values[number, place] = part["map"][key]
                end = column + len(part["centroids"])
                self._centroids[number, column:end] = part["centroids"]
                self._part[number, column:end] = place
                self._separations[number, column:end, column:end] = part["separations"]
                column = end

    def distances(self, vectors: Floats, start: int) -> list[list[float]]:
        """Squared distances of a user to the centroids, for each occasion from `start` on."""
        low, high, centre, scale, weights = (rows[start:] for rows in self._map.values())
        logs = np.clip((np.sign(vectors) * np.log1p(np.abs(vectors)))[:, None], low, high)
        mapped = np.round(np.clip((logs - centre) / scale, -4, 4) * GRID) / GRID
        part = self._part[start:]
        look = np.arange(len(part))[:, None]
        apart = (mapped[look, part] - self._centroids[start:]) ** 2
        answer: list[list[float]] = (apart * weights[look, part]).sum(axis=2).tolist()
        return answer

    def gap(self, look: int, one: int, other: int) -> float:
        """Squared distance between two centroids of a population."""
        apart = (self._centroids[look, one] - self._centroids[look, other]) ** 2
        return float(apart @ self._map["weights"][look, self._part[look, one]])

    def asked(self, look: int, one: int, other: int, rule: Publish) -> tuple[float, float]:
        """The margins that an act and silence need from one segment to another."""
        explained = float(self._separations[look, one, other])
        times = max(1.0, rule.apart * (1 - explained) / (4 * explained))
        by_act, by_silence = (
            min(margin * times, max(margin, 0.45)) for margin in (rule.margin, rule.silence_margin)
        )
        return by_act, by_silence


# -- populations -------------------------------------------------------------------------------


def _population(model: dict[str, Any], user: Mapping[str, float], inside: str | None) -> str:
    """The first population whose rule holds; the one that a user is in may be missed by a little."""
    for declared in model["geometry"]["populations"]:
        slack = declared["slack"] if declared["name"] == inside else 0.0
        if all(
            user[feature] >= limits.get("min", -np.inf) - slack * abs(limits.get("min", 0.0))
            and user[feature] <= limits.get("max", np.inf) + slack * abs(limits.get("max", 0.0))
            for feature, limits in declared["when"].items()
        ):
            name: str = declared["name"]
            return name
    raise AssertionError("the last population has no rule")


def _populations_of(model: dict[str, Any]) -> dict[int, str]:
    """The population of every segment that a model knows."""
    return {one["id"]: one["population"] for one in (*model["retired"], *model["segments"])}


def _nearest(squared: Sequence[float], there: Sequence[bool]) -> int | None:
    """The nearest of some columns; None of none."""
    return min((c for c, one in enumerate(there) if one), key=squared.__getitem__, default=None)


def _crossing(looks: Sequence[Occasion], number: int, population: str, cause: str) -> str:
    """Why a user comes to a population: no model does that if the one before had learned it already."""
    if number == 0 or cause != "model_moved":
        return cause
    parts = looks[number].model["geometry"]["parts"]
    since = next(part["since"] for part in parts if part["population"] == population)
    born, before = (
        tuple(map(int, name.split("."))) for name in (since, looks[number - 1].model["model"])
    )
    return "time_passed" if born <= before else cause


# -- the rule ----------------------------------------------------------------------------------


def _walk(
    purchases: Sequence[Purchase],
    looks: Sequence[Occasion],
    users: Sequence[Mapping[str, float]],
    distances: Sequence[Sequence[float]],
    geometry: _Geometry,
    rule: Publish,
    start: int,
) -> list[Move]:
    """Follow one user from look to look."""
    moves: list[Move] = []
    segment, acts, leaning, evidence = 0, 0, 0, 0.0
    done, seen, touched, moved_ms = 0, 0, 0, 0
    for number, (look, user, squared) in enumerate(
        zip(looks[start:], users, distances, strict=True), start
    ):
        cause = "time_passed" if look.sweep else "model_moved"
        while done < len(purchases) and purchases[done].time_ms < look.at_ms:
            touched = purchases[done].time_ms
            if purchases[done].event == "Order Completed":
                seen = touched
            done += 1
        if look.sweep and touched >= look.at_ms - DAY_MS:
            cause = "user_moved"
        ids = [one["id"] for one in look.model["segments"]]
        of = _populations_of(look.model)
        belongs = _population(look.model, user, of.get(segment))
        best = _nearest(squared, [of[one] == belongs for one in ids])
        target, reason = ids[best] if best is not None else 0, ""
        towards, so_far = leaning, evidence
        leaning, evidence = 0, 0.0
        if best is None:
            pass  # too few are there for a model: they stay
        elif segment == 0 or of.get(segment, belongs) != belongs:
            reason = _crossing(looks, number, belongs, cause) if segment else cause
        elif segment not in ids:
            reason = "segment_retired"
        elif target != segment:
            here = ids.index(segment)
            gap = geometry.gap(number, here, best)
            margin = (squared[here] - squared[best]) / (2 * gap)
            total = so_far if towards == target else 0.0
            asked, by_silence = geometry.asked(number, here, best, rule)
            soon = look.at_ms - moved_ms < rule.return_seconds * 1_000
            held = cause != "user_moved" and (
                (soon and moves[-1].before == target) or _rests(user, rule)
            )
            # Leaning for no reason of their own: the model did that.
            models = towards == target and total == 0
            little, silence = total <= by_silence, cause == "time_passed"
            if cause == "user_moved":
                total += margin
            kept = int(total * 4_096) / 4_096
            if total > asked:
                reason = "user_moved"
            elif not held and margin > (by_silence if silence and little and not models else asked):
                reason = cause
            elif cause == "model_moved" and little and margin > by_silence:
                leaning = target
            elif kept or models:
                leaning, evidence = target, kept
        if reason:
            moves.append(
                Move(
                    purchases[0].user,
                    len(moves) + 1,
                    segment or None,
                    target,
                    reason,
                    _iso(look.at_ms),
                    look.model["model"],
                    _iso(seen),
                    acts < rule.provisional_looks,
                )
            )
            segment, moved_ms = target, look.at_ms
        acts += cause == "user_moved"
    return moves


def _rests(user: Mapping[str, float], rule: Publish) -> bool:
    """Whether a silence is shorter than any that tells, or usual for somebody with four orders or more.

    No silence is that is longer than a return takes.
    """
    if user["days_since_seen"] * DAY_MS < rule.rest_seconds * 1_000:
        return True
    silence_days = user["days_since_order"]
    usual = user["orders_total"] > 3 and silence_days < rule.usual_gaps * user["order_gap_days"]
    return usual and silence_days * DAY_MS < rule.return_seconds * 1_000


def _iso(time_ms: int) -> str:
    moment = datetime.fromtimestamp(time_ms / 1_000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time_ms % 1_000:03d}Z"
