"""Keeps what campaigns know of the users of a partition, from one start of the role to the next.

Comes in: a `Decider`. Goes out: a row for each user who ever changed, and bytes of the partition itself;
from both a decider that goes on where that one was, whatever is declared by then.

A row names campaigns and versions by digests, so it outlives every change of the declarations. The
partition's own bytes have the declarations that users are still in, the moves of changes under way, and how
many came to each outcome.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from stream.campaigns import state
from stream.campaigns.arms import arm_names
from stream.campaigns.changes import Came, ChangeColumns
from stream.campaigns.decide import Decider, Outcome
from stream.campaigns.declare import Campaign, Limits
from stream.campaigns.match import Move
from stream.campaigns.purchases import BOUGHT, Purchases, Read
from stream.campaigns.state import NEVER, NONE, Columns, one_a_user
from stream.campaigns.windows import Sums, Windows
from stream.events import Bools, Ints
from stream.roles.state import RoleStore
from stream.units import DAY_MS

_T = TypeVar("_T")

LOOK_BACK_MS = DAY_MS
"""Orders are kept for so much longer than the longest window, for changes that come late."""
MOST_REMEMBERED = 64
"""Of rules and holdouts that were in force: they are written with each commit."""
MOST_NAMES = 256
"""Campaigns of which users have state, declared or not: a pair has a byte for their number."""

HEAD = np.dtype(
    [
        ("clock_ms", "<i8"),
        ("incarnation", "<i8"),  # of the user's last change
        ("number", "<i4"),  # of the same
        ("flags", "u1"),
        ("sends", "u1"),  # times of past triggers that follow
        ("pairs", "<u2"),  # pairs that follow them
        ("bought", "u1"),  # orders that follow these
        ("zone", "<u2"),  # place among `Own.zones` plus 1; 0 where it is not known
        ("traits", "u1"),  # bits of those that suppress, by their places among `Own.traits`
    ]
)
KEPT = np.dtype(
    [
        ("campaign", "<u8"),  # digest of its name
        ("incarnation", "<i8"),
        ("changed_ms", "<i8"),
        ("due_ms", "<i8"),
        ("sent_ms", "<i8"),
        ("counted_ms", "<i8"),
        ("version", "<u4"),  # digest of the declaration
        ("counted", "<u4"),  # the same
        ("move", "<i4"),
        ("number", "<i4"),
        ("arm", "u1"),
        ("counted_arm", "u1"),
        ("stage", "u1"),
        ("flags", "u1"),
    ]
)
"""A pair in a row; see `stream.campaigns.state.PAIR`."""
STOOD = np.dtype([("level", "<u4"), ("step", "<u4")])
"""Digests of a level and of the step of it that the user was told last; of no level where they are 0. What a row
has behind all else are these."""
SUPPRESSED, AT_RISK, ERASED = 1, 2, 4
"""Flags of a user."""
USED, COUNTED, SUMMED = 1, 2, 4
"""Flags of a pair."""
_SAME = (
    "incarnation", "changed_ms", "due_ms", "sent_ms", "counted_ms", "move", "number", "arm",
    "counted_arm", "stage",
)  # fmt: skip

Table = tuple[Sequence[bytes], npt.NDArray[Any]]
"""Names of users, and their rows of one length."""


class Own(msgspec.Struct):
    """What is kept of a partition itself.

    Attributes:
        versions: declarations as JSON, oldest first.
        moves: of changes under way, by number; None where nothing under way has the number.
        seen: by campaign, changes looked at.
        counts: by campaign and outcome.
        zones: of users.
        traits: that suppress users, or did.
        paused: names of campaigns.
        sums: of users whose window is over, by campaign, version and arm.
        still_open: users whose window is not, likewise.
        bought_ms: purchases up to here are known.
        records: of the change topic, how many came to what; None where not all of them were counted.
        rules: digests of what was in force, the newest last: declarations in their order, and limits.
        holdouts: global ones that were in force, the newest last.
    """

    versions: list[str] = []
    moves: list[Move | None] = []
    seen: dict[str, int] = {}
    counts: dict[str, dict[str, int]] = {}
    zones: list[str] = []
    paused: list[str] = []
    sums: dict[str, dict[str, dict[str, Sums]]] = {}
    still_open: dict[str, dict[str, dict[str, int]]] = {}
    bought_ms: int = 0
    traits: list[str] = []
    records: dict[str, int] | None = None
    rules: list[str] = []
    holdouts: list[float] = []


read_own = msgspec.json.Decoder(Own).decode
"""What is kept of a partition, from its bytes."""


def kept_by(store: RoleStore, partitions: int) -> list[Own]:
    """What is kept of all partitions; nothing of those that have not begun."""
    found = [store.own(number) for number in range(partitions)]
    return [read_own(own) for own in found if own]


_write = msgspec.json.Encoder().encode


def _row(sends: int, pairs: int, bought: int, stood: int = 0) -> np.dtype[Any]:
    return np.dtype(
        [
            ("head", HEAD),
            ("sends", "<i8", (sends,)),
            ("pairs", KEPT, (pairs,)),
            ("bought", BOUGHT, (bought,)),
            ("stood", STOOD, (stood,)),
        ]
    )


def _step_digests(levels: Mapping[str, Sequence[str]]) -> npt.NDArray[Any]:
    """By place of a level and code of a step, what a row has of it; see `STOOD`."""
    most = max((len(steps) for steps in levels.values()), default=0)
    found = np.zeros((len(levels), most + 1), STOOD)
    for place, (level, steps) in enumerate(levels.items()):
        for code, step in enumerate(steps, 1):
            found[place, code] = _short_digest(level), _short_digest(step)
    return found


def _short_digest(name: str) -> int:
    digest = blake2b(name.encode(), digest_size=4, person=b"segstream levels").digest()
    return int.from_bytes(digest, "little")


def _name_digest(name: str) -> int:
    digest = blake2b(name.encode(), digest_size=8, person=b"segstream campgn").digest()
    return int.from_bytes(digest, "little")


def _tables(rows: Mapping[bytes, bytes]) -> list[Table]:
    names = defaultdict(list)
    for name, row in rows.items():
        head = np.frombuffer(row, HEAD, 1)[0]
        told = int(head["sends"]), int(head["pairs"]), int(head["bought"])
        left = len(row) - _row(*told).itemsize
        names[*told, left // STOOD.itemsize].append(name)
    return [
        (found, np.frombuffer(b"".join(map(rows.__getitem__, found)), _row(*shape)))
        for shape, found in names.items()
    ]


class _Last(Columns):
    """Of each user the last change that was taken in, and whether there is a row of them."""

    incarnation: Ints
    number: Ints
    kept: Bools

    def __init__(self) -> None:
        super().__init__(
            {
                "incarnation": (np.int64, NONE, 0),
                "number": (np.int64, NONE, 0),
                "kept": (np.bool_, False, 0),
            }
        )

    def reach(self, users: int) -> None:
        self.make_room(users - self.size)
        self.size = max(self.size, users)


@dataclass(frozen=True)
class Packed:
    """Rows of some users; all of one length."""

    users: Sequence[bytes]
    rows: bytes


class Keeper:
    """A decider, and what is kept of it.

    Args:
        campaigns, limits, key, levels, verified: see `Decider`.
        own: what was kept of the partition; empty if nothing was.
        rows: of users, by name.

    Attributes:
        rows: how many there are.
        windows, purchases: of those who are measured.
        bought_ms: purchases up to here are known.

    Raises:
        ValueError: users have state of more campaigns or traits than there may be.
    """

    def __init__(
        self,
        campaigns: Sequence[Campaign],
        limits: Limits,
        key: bytes = b"",
        own: bytes = b"",
        rows: Mapping[bytes, bytes] | None = None,
        levels: Mapping[str, Sequence[str]] | None = None,
        *,
        verified: bool = False,
    ) -> None:
        self._stood = _step_digests(levels or {})
        kept = read_own(own) if own else Own(records={})
        tables = _tables(rows or {})
        summed = {(name, version) for name, of in kept.sums.items() for version in of}
        earlier = _still_used(map(Campaign.from_kept, kept.versions), tables, summed)
        self.decider = Decider(campaigns, limits, key, earlier, levels, verified=verified)
        if len(self.decider.campaigns) > MOST_NAMES:
            raise ValueError(
                f"campaigns: users have state of {len(self.decider.campaigns)} that are or were "
                f"declared, which is more than {MOST_NAMES}"
            )
        decider = self.decider
        decider.know_traits(kept.traits)
        decider.restore_zones(kept.zones)
        for name in kept.paused:
            decider.pause(name)
        self._gone_paused = [n for n in kept.paused if n not in {c.name for c in decider.campaigns}]
        self.bought_ms = kept.bought_ms
        windows_ms = decider.book.window_ms
        self.purchases = Purchases(int(windows_ms.max(initial=0)) + LOOK_BACK_MS)
        self.windows = Windows(decider.users, decider.pairs, self.purchases, windows_ms)
        self._last = _Last()
        versions = self.decider.book.versions
        self._names = np.array([_name_digest(one.name) for one in versions], np.uint64)
        self._digests = np.array([int(one.version, 16) for one in versions], np.uint32)
        numbers = {one.name: place for place, one in enumerate(self.decider.campaigns)}
        self._campaigns = np.array(list(map(_name_digest, numbers)), np.uint64)
        self._campaign_of = np.array([numbers[one.name] for one in versions], np.int64)
        # Oldest first; a declaration that came back is the newest again.
        declared = self.decider.offered
        self._versions = [
            one.model_dump_json(by_alias=True, exclude_defaults=True)
            for one in (*versions[declared:], *versions[:declared])
        ]
        self._gone_seen = {name: n for name, n in kept.seen.items() if name not in numbers}
        self._gone_counts = {name: n for name, n in kept.counts.items() if name not in numbers}
        self._take_counts(kept, numbers)
        self._take_sums(kept.sums)
        decider.moves.restore(kept.moves)
        decider.reader.counts.update(kept.records or {})
        self._all_counted = kept.records is not None
        self._rules = _with_newest(kept.rules, rules_in_force(campaigns, limits))
        self._holdouts = _with_newest(kept.holdouts, limits.global_holdout)
        for names, table in tables:
            self._take(names, table)
        self.windows.begin()
        self.rows = int(self._last.kept.sum())

    def _take_counts(self, kept: Own, numbers: Mapping[str, int]) -> None:
        for name, number in numbers.items():
            self.decider.pairs_seen[number] = kept.seen.get(name, 0)
            for outcome, count in kept.counts.get(name, {}).items():
                self.decider.counts[number, Outcome[outcome.upper()]] = count

    def _take_sums(self, sums: Mapping[str, Mapping[str, Mapping[str, Sums]]]) -> None:
        for number, version in enumerate(self.decider.book.versions):
            arms = {name: arm for arm, name in enumerate(arm_names(version))}
            for arm, of in sums.get(version.name, {}).get(version.version, {}).items():
                self.windows.sums[number, arms[arm]] = of

    def _take(self, names: Sequence[bytes], table: npt.NDArray[Any]) -> None:
        users, pairs = self.decider.users, self.decider.pairs
        slots = np.array([users.slot_of(name.decode()) for name in names], np.int64)
        self._last.reach(users.size)
        head = table["head"]
        users.clock_ms[slots] = head["clock_ms"]
        users.suppressed[slots] = (head["flags"] & SUPPRESSED) > 0
        users.at_risk[slots] = (head["flags"] & AT_RISK) > 0
        users.erased[slots] = (head["flags"] & ERASED) > 0
        users.zone[slots] = head["zone"].astype(np.int64) - 1
        users.traits[slots] = head["traits"]
        self.purchases.load(slots, table["bought"])
        self._last.incarnation[slots] = head["incarnation"]
        self._last.number[slots] = head["number"]
        self._last.kept[slots] = True
        width = min(table["sends"].shape[1], users.sends.shape[1])
        users.sends[slots, :width] = table["sends"][:, :width]
        self._take_steps(slots, table["stood"])
        row, nth = np.nonzero(table["pairs"]["flags"] & USED)
        kept, slot = table["pairs"][row, nth], slots[row]
        campaign = np.full(len(kept), NONE)
        version, counted = np.zeros(len(kept), np.int64), np.zeros(len(kept), np.int64)
        was_counted = (kept["flags"] & COUNTED) > 0
        for number, (name, digest) in enumerate(zip(self._names, self._digests, strict=True)):
            of_it = kept["campaign"] == name
            campaign[of_it] = self._campaign_of[number]
            version[of_it & (kept["version"] == digest)] = number
            counted[of_it & was_counted & (kept["counted"] == digest)] = number + 1
        there = campaign != NONE
        kept, slot, campaign = kept[there], slot[there], campaign[there]
        places = pairs.add(users, slot, campaign)
        for field in _SAME:
            getattr(pairs, field)[places] = kept[field]
        pairs.version[places], pairs.counted[places] = version[there], counted[there]
        pairs.summed[places] = (kept["flags"] & SUMMED) > 0
        under_way = pairs.stage[places] != state.IDLE
        np.add.at(users.under_way, slot[under_way], 1)
        pairs.due_ms[places[under_way & (campaign >= self.decider.offered)]] = NEVER

    def _take_steps(self, slots: Ints, stood: npt.NDArray[Any]) -> None:
        for place, codes in enumerate(self._stood):
            for code, step in enumerate(codes[1:], 1):
                if step["level"]:
                    there = (stood == step).any(axis=1)
                    self.decider.users.steps[slots[there], place] = code

    def read(
        self,
        values: Iterable[bytes],
        latest_ms: int,
        is_here: Callable[[Sequence[bytes]], Bools] | None = None,
    ) -> ChangeColumns:
        """Changes that are newer than all of their user before them; see `ChangeReader.decode`.

        Args:
            is_here: says of users whether they belong into this partition; None takes them all.
        """
        reader = self.decider.reader
        changes = reader.decode(values, latest_ms)
        if is_here is not None and len(changes):
            names = self.decider.users.names
            here = is_here([names[slot].encode() for slot in changes.slot.tolist()])
            reader.counts[Came.MISPLACED] += len(here) - int(here.sum())
            changes = changes.where(here)
        fresh = self._fresh(changes.slot, changes.incarnation, changes.version)
        count = int(fresh.sum())
        reader.counts[Came.CHANGE] += count
        reader.counts[Came.REPEATED] += len(fresh) - count
        return changes.where(fresh)

    def _fresh(self, slots: Ints, incarnations: Ints, numbers: Ints) -> Bools:
        """Which changes are newer than all of their user before them: a topic may repeat one."""
        last = self._last
        last.reach(self.decider.users.size)
        fresh = np.zeros(len(slots), np.bool_)
        for at in one_a_user(slots):
            slot, incarnation, number = slots[at], incarnations[at], numbers[at]
            before = last.incarnation[slot]
            newer = (incarnation > before) | (
                (incarnation == before) & (number > last.number[slot])
            )
            fresh[at] = newer
            last.incarnation[slot[newer]] = incarnation[newer]
            last.number[slot[newer]] = number[newer]
        return fresh

    def sent(self, user: str, campaign: str, at_ms: int) -> int | None:
        """A trigger that is known to have been sent, whether or not it was kept.

        Returns:
            The user's place if it was not.
        """
        users, pairs = self.decider.users, self.decider.pairs
        number = next((n for n, c in enumerate(self.decider.campaigns) if c.name == campaign), None)
        slot = users.slot_of(user)
        self._last.reach(users.size)
        slots = np.array([slot])
        if number is not None:
            place = pairs.find(users, slots, np.array([number]))
            if place[0] == NONE:
                place = pairs.add(users, slots, np.array([number]))
            if pairs.sent_ms[place[0]] >= at_ms:
                return None
            pairs.sent_ms[place] = at_ms
        if at_ms not in users.sends[slot]:
            users.sends[slot] = np.sort(np.append(users.sends[slot], at_ms))[:0:-1]
        return slot

    def buy(self, read: Read) -> Ints:
        """Take in purchases; returns the places of the users whose they are."""
        users = self.decider.users
        slots: Ints = np.array([users.slot_of(user) for user in read.users], np.int64)
        # Who is suppressed is measured on: treatment may be why they asked for it.
        there = ~users.erased[slots]
        self.purchases.take(slots[there], read.purchases.where(there))
        return np.unique(slots)

    def forget(self, slots: Ints) -> None:
        """Keep nothing more of what erased users bought."""
        self.purchases.forget(np.unique(slots[self.decider.users.erased[slots]]))

    def pack(self, slots: Ints, known_ms: int) -> Packed:
        """Rows of distinct users.

        Args:
            known_ms: changes and purchases up to here are known; orders long before are left out.
        """
        users, pairs, last = self.decider.users, self.decider.pairs, self._last
        places, row = pairs.of_users(users, slots)
        order = np.argsort(row, kind="stable")
        row, places = row[order], places[order]
        begins = np.searchsorted(row, row)
        nth = np.arange(len(row)) - begins
        most = int(nth.max()) + 1 if len(row) else 0
        bought = self.purchases.pack(slots, known_ms)
        orders = int(bought.nth.max(initial=-1)) + 1
        levels = len(self._stood)
        table = np.zeros(len(slots), _row(users.sends.shape[1], most, orders, levels))
        table["stood"] = self._stood[np.arange(levels), users.steps[slots, :levels]]
        head = table["head"]
        head["clock_ms"], head["bought"] = users.clock_ms[slots], orders
        head["flags"] = (
            SUPPRESSED * users.suppressed[slots]
            + AT_RISK * users.at_risk[slots]
            + ERASED * users.erased[slots]
        )
        head["zone"], head["traits"] = users.zone[slots] + 1, users.traits[slots]
        table["bought"][bought.row, bought.nth] = bought.orders
        head["incarnation"], head["number"] = last.incarnation[slots], last.number[slots]
        head["sends"], head["pairs"] = users.sends.shape[1], most
        table["sends"] = users.sends[slots]
        kept = np.zeros(len(row), KEPT)
        for field in _SAME:
            kept[field] = getattr(pairs, field)[places]
        counted = pairs.counted[places].astype(np.int64) - 1
        kept["campaign"] = self._campaigns[pairs.campaign[places]]
        kept["version"] = self._digests[pairs.version[places]]
        kept["counted"] = np.where(counted >= 0, self._digests[counted], 0)
        kept["flags"] = USED | np.where(counted >= 0, COUNTED, 0)
        kept["flags"] |= np.where(pairs.summed[places], SUMMED, 0).astype(np.uint8)
        table["pairs"][row, nth] = kept
        self.rows += int((~last.kept[slots]).sum())
        last.kept[slots] = True
        return Packed([users.names[slot].encode() for slot in slots.tolist()], table.tobytes())

    def own(self) -> bytes:
        """What is to be kept of the partition itself."""
        decider, pairs = self.decider, self.decider.pairs
        names = [one.name for one in decider.campaigns]
        under_way = pairs.stage[: pairs.size] != state.IDLE
        return _write(
            Own(
                self._versions,
                decider.moves.some(pairs.move[: pairs.size][under_way]),
                self._gone_seen | dict(zip(names, decider.pairs_seen.tolist(), strict=True)),
                self._gone_counts | decider.tally(),
                decider.zones,
                self._gone_paused
                + [name for name, p in zip(names, decider.paused, strict=True) if p],
                self._by_name(self.windows.sums),
                self._by_name(self.windows.still_open),
                self.bought_ms,
                decider.traits,
                # What came to nothing yet has no entry.
                dict(+decider.reader.counts) if self._all_counted else None,
                self._rules,
                self._holdouts,
            )
        )

    def _by_name(self, told: Mapping[tuple[int, int], _T]) -> dict[str, dict[str, dict[str, _T]]]:
        """What is known by number of version and arm, by their names."""
        found: dict[str, dict[str, dict[str, _T]]] = {}
        for (number, arm), value in told.items():
            version = self.decider.book.versions[number]
            of_version = found.setdefault(version.name, {}).setdefault(version.version, {})
            of_version[arm_names(version)[arm]] = value
        return found


def _still_used(
    versions: Iterable[Campaign], tables: Sequence[Table], summed: Collection[tuple[str, str]]
) -> list[Campaign]:
    """Declarations that users are in, and the newest of each campaign that users have state of.

    Args:
        summed: names and versions of those whose effect is known of somebody; they stay as well.
    """
    used: set[tuple[int, int]] = set()
    names: set[int] = set()
    for _, table in tables:
        kept = table["pairs"][(table["pairs"]["flags"] & USED) > 0]
        names.update(kept["campaign"].tolist())
        under_way = kept[kept["stage"] != state.IDLE]
        counted = kept[(kept["flags"] & COUNTED) > 0]
        for pairs, field in ((under_way, "version"), (counted, "counted")):
            used.update(zip(pairs["campaign"].tolist(), pairs[field].tolist(), strict=True))
    listed = list(versions)
    newest = {one.name: place for place, one in enumerate(listed)}
    return [
        one
        for place, one in enumerate(listed)
        if (one.name, one.version) in summed
        or (
            (digest := _name_digest(one.name)) in names
            and ((digest, int(one.version, 16)) in used or newest[one.name] == place)
        )
    ]


def rules_in_force(campaigns: Sequence[Campaign], limits: Limits) -> str:
    """A digest of what decisions hang on beside changes: declarations in their order, and limits."""
    told = [f"{one.name}-{one.version}" for one in campaigns] + [limits.model_dump_json()]
    digest = blake2b("\n".join(told).encode(), digest_size=4, person=b"segstream rules")
    return digest.hexdigest()


def _with_newest(before: Sequence[_T], now: _T) -> list[_T]:
    """Values that were in force, each once, the one that is now behind the others."""
    return [*(one for one in before if one != now), now][-MOST_REMEMBERED:]
