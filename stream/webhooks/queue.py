"""Keeps what is to be delivered from one partition: what waits, what is under way, what was given up.

Comes in: triggers, answers of endpoints, and what time it is. Goes out: attempts to make, letters about
what was given up, and rows to keep. It sends nothing and knows no clock: `consumers.webhooks` does.

A delivery is one trigger for one endpoint. It has a row from the commit that read the trigger until the
commit after it arrived or was given up, with its attempts and when the next one is due; so a schedule of
days outlives every crash. What was under way in a crash is tried again with the same id.

A user who gets nothing has a row, too, one for each reason: a trigger that comes behind is dropped. Its name is a
hash, so that whoever was erased is not kept by name.

For each endpoint: taken = delivered + parked + dropped + waiting.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from stream.campaigns.triggers import CampaignTrigger
from stream.units import iso
from stream.webhooks.declare import Endpoint
from stream.webhooks.letters import Letter, letter_id
from stream.webhooks.rules import Rules
from stream.webhooks.schedule import GONE, Answer, Circuit, Rate, retry_at


class Reason(StrEnum):
    """Why a delivery was given up."""

    EXHAUSTED = "exhausted"
    """It was tried as often as declared."""
    EXPIRED = "expired"
    """The trigger's `valid_until` has passed: a late trigger is worse than none."""
    GONE = "gone"
    """The endpoint said 410: it wants nothing any more."""
    FULL = "full"
    """As much waits for the endpoint as may."""
    UNDECLARED = "undeclared"
    """The endpoint is declared no more."""


TAKEN, DELIVERED, DROPPED = "taken", "delivered", "dropped"
OUTCOMES = (TAKEN, DELIVERED, DROPPED, *(reason.value for reason in Reason))
"""What is counted of deliveries: those taken less all others wait."""


class Delivery(msgspec.Struct, array_like=True):
    """What is kept of a trigger for an endpoint.

    Attributes:
        endpoint: its name.
        trigger: the record.
        round: how often it was replayed.
        attempts: made so far, in this round.
        due_ms: when the next one is to be made.
        valid_until_ms: no attempt begins later.
    """

    endpoint: str
    trigger: CampaignTrigger
    due_ms: int
    valid_until_ms: int
    attempts: int = 0
    round: int = 0

    @property
    def key(self) -> str:
        return f"{self.endpoint}/{self.trigger['id']}"


class Attempt(NamedTuple):
    """An attempt to make."""

    endpoint: Endpoint
    key: str
    trigger: CampaignTrigger


class Own(msgspec.Struct):
    """What is kept of a partition itself.

    Attributes:
        gone: by endpoint that wants nothing any more, the address that said so.
        counts: by endpoint, how many were taken, delivered, dropped, and parked by reason.
    """

    gone: dict[str, str] = {}
    counts: dict[str, dict[str, int]] = {}


class Tally(NamedTuple):
    """What became of the deliveries of an endpoint in a partition: taken = ended + waiting."""

    endpoint: str
    taken: int
    ended: int
    waiting: int


class Kept(NamedTuple):
    """What a step changes of what is kept: rows of one length, names of rows that go, letters."""

    names: list[bytes]
    rows: bytes
    gone: list[bytes]
    own: bytes | None
    letters: list[bytes]


SAID = ""
"""The reason why a user gets nothing whom somebody has suppressed; the others are traits."""
_SUPPRESSED = b"/"
"""What the row of a user who gets nothing begins with; a delivery's begins with its endpoint."""

_read_row = msgspec.json.Decoder(Delivery).decode
_read_own = msgspec.json.Decoder(Own).decode
_write = msgspec.json.Encoder().encode


def tallies(own: bytes, rows: Iterable[tuple[bytes, bytes]]) -> list[Tally]:
    """What was kept of a partition in one commit, by endpoint."""
    counts = _read_own(own).counts if own else {}
    kept = dict(rows)
    waiting = Counter(
        _read_row(row).endpoint for name, row in kept.items() if not name.startswith(_SUPPRESSED)
    )
    found = []
    for name in sorted({*counts, *waiting}):
        of = Counter(counts.get(name, {}))
        found.append(Tally(name, of[TAKEN], of.total() - of[TAKEN], waiting[name]))
    return found


class _Line:
    """What waits for one endpoint.

    Attributes:
        waiting: how many deliveries there are, those under way among them.
        under_way: keys of those.
    """

    def __init__(self, endpoint: Endpoint, rules: Rules) -> None:
        self.endpoint = endpoint
        self.circuit = Circuit(rules.open_after, rules.open_ms, rules.most_open_ms)
        self.waiting = 0
        self.under_way: set[str] = set()
        self.due: list[tuple[int, str]] = []
        limit = endpoint.per_second
        self.rate = None if limit is None else Rate(limit * rules.share)
        self._at_once = max(1, int(endpoint.at_once * rules.share))

    def free(self, now_ms: int) -> int:
        """How many attempts may begin."""
        free = self._at_once - len(self.under_way)
        if (by_circuit := self.circuit.free(now_ms, len(self.under_way))) is not None:
            free = min(free, by_circuit)
        if self.rate is not None:
            free = min(free, self.rate.free(now_ms))
        return max(free, 0)


class Queue:
    """Deliveries of a partition.

    Args:
        key: the namespace's secret.
        traits: that may suppress a user.

    Attributes:
        counts: as in `Own`.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        rules: Rules,
        key: bytes = b"",
        traits: Sequence[str] = (),
    ) -> None:
        self._rules = rules
        self._key = key
        self._reasons = (SAID, *traits)
        self._suppressed: set[str] = set()
        self._lines = {one.name: _Line(one, rules) for one in endpoints}
        self._all: dict[str, Delivery] = {}
        self._of_user: dict[str, dict[str, Delivery]] = {}
        self._gone: dict[str, str] = {}
        self.counts: dict[str, Counter[str]] = {one.name: Counter() for one in endpoints}
        self._fresh: list[Delivery] = []
        self._doomed = True
        self._touched: set[str] = set()
        self._own_touched = False
        self._letters: list[bytes] = []

    def __len__(self) -> int:
        return len(self._all) + len(self._suppressed)

    def load(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Take in rows that were kept."""
        for name, row in rows:
            if name.startswith(_SUPPRESSED):
                self._suppressed.add(name.decode())
                continue
            one = _read_row(row)
            if one.key not in self._all:
                self._add(one)
                self._enqueue(one)

    def begin(self, own: bytes) -> None:
        """Go on with what was kept of the partition: all rows are loaded."""
        if own:
            kept = _read_own(own)
            self._gone = kept.gone
            for name, counts in kept.counts.items():
                self.counts[name] = Counter(counts)

    # -- what happens ------------------------------------------------------------------------

    def take(self, trigger: CampaignTrigger, valid_until_ms: int, now_ms: int) -> None:
        """A trigger was read: every endpoint that wants it gets it."""
        for line in self._lines.values():
            if line.endpoint.wants(trigger["campaign"]):
                one = Delivery(line.endpoint.name, trigger, now_ms, valid_until_ms)
                self._accept(one, line, now_ms)

    def replay(self, letter: Letter, valid_until_ms: int, now_ms: int) -> None:
        """Somebody asks to send what was given up; its endpoint is tried again."""
        line = self._lines.get(letter["endpoint"])
        if line is not None:
            self.enable(letter["endpoint"])
            again = letter["round"] + 1
            one = Delivery(
                letter["endpoint"], letter["trigger"], now_ms, valid_until_ms, round=again
            )
            self._accept(one, line, now_ms)

    def enable(self, endpoint: str) -> None:
        """An endpoint that was gone is tried again."""
        if self._gone.pop(endpoint, None) is not None:
            self._own_touched = True

    def suppress(self, user: str, reason: str = SAID) -> None:
        """A user gets nothing any more: not what waits, and not what comes."""
        name = self._name_of(user, reason)
        self._suppressed.add(name)
        self._touched.add(name)
        for one in list(self._of_user.get(user, {}).values()):
            self._count(one.endpoint, DROPPED)
            self._remove(one)

    def allow(self, user: str, reason: str = SAID) -> None:
        """A user who got nothing does again, unless there is another reason."""
        name = self._name_of(user, reason)
        if name in self._suppressed:
            self._suppressed.discard(name)
            self._touched.add(name)

    def answered(self, key: str, answer: Answer, now_ms: int) -> None:
        """An attempt is over."""
        one = self._all.get(key)
        if one is None:
            # Its user was dropped meanwhile.
            for line in self._lines.values():
                line.under_way.discard(key)
            return
        line = self._lines[one.endpoint]
        line.under_way.discard(key)
        self._doomed |= one.endpoint in self._gone
        if answer.arrived:
            line.circuit.arrived()
            self._count(one.endpoint, DELIVERED)
            self._remove(one)
            return
        one.attempts += 1
        if answer.status == GONE:
            self._gone[one.endpoint] = line.endpoint.where
            self._doomed = True
            self._park(one, Reason.GONE, answer.told, now_ms)
            return
        line.circuit.failed(answer, now_ms)
        due_ms = retry_at(self._rules.retries_ms, key, one.attempts, answer, now_ms)
        if due_ms is None:
            self._park(one, Reason.EXHAUSTED, answer.told, now_ms)
        else:
            one.due_ms = due_ms
            self._enqueue(one)
            self._touched.add(key)

    def give_up(self, now_ms: int) -> None:
        """Park what has no more prospects: its endpoint is gone, or no longer declared."""
        if not self._doomed:
            return
        self._doomed = False
        for name, where in list(self._gone.items()):
            line = self._lines.get(name)
            if line is not None and line.endpoint.where != where:
                self.enable(name)
        lost = [
            (one, Reason.GONE if one.endpoint in self._lines else Reason.UNDECLARED)
            for one in self._all.values()
            if one.endpoint in self._gone or one.endpoint not in self._lines
        ]
        for one, reason in lost:
            line = self._lines.get(one.endpoint)
            if line is None or one.key not in line.under_way:
                self._park(one, reason, "", now_ms)

    def committed(self) -> None:
        """What was taken is kept, and may be tried from now on."""
        for one in self._fresh:
            if self._all.get(one.key) is one:
                self._enqueue(one)
        self._fresh = []

    def start(self, now_ms: int) -> list[Attempt]:
        """Attempts to make now; what is too late for one is parked instead."""
        attempts: list[Attempt] = []
        for name, line in self._lines.items():
            free, began = 0 if name in self._gone else line.free(now_ms), 0
            while began < free and line.due and line.due[0][0] <= now_ms:
                due_ms, key = heapq.heappop(line.due)
                one = self._all.get(key)
                if one is None or one.due_ms != due_ms or key in line.under_way:
                    continue
                if one.valid_until_ms < now_ms:
                    self._park(one, Reason.EXPIRED, "", now_ms)
                    continue
                line.under_way.add(key)
                attempts.append(Attempt(line.endpoint, key, one.trigger))
                began += 1
            if line.rate is not None:
                line.rate.take(began)
        return attempts

    def keep(self) -> Kept | None:
        """What changed since this was last asked; None if nothing did."""
        if not (self._touched or self._own_touched or self._letters):
            return None
        names = sorted(self._touched)
        there = [name for name in names if name in self._all or name in self._suppressed]
        gone = [
            name.encode() for name in names if not (name in self._all or name in self._suppressed)
        ]
        rows = [_write(self._all.get(name)) for name in there]
        width = max(map(len, rows), default=0)
        own = None
        if self._own_touched:
            counts = {name: dict(of) for name, of in self.counts.items() if of}
            own = _write(Own(self._gone, counts))
        kept = Kept(
            [key.encode() for key in there],
            # Blanks behind a JSON value mean nothing.
            b"".join(row.ljust(width) for row in rows),
            gone,
            own,
            self._letters,
        )
        self._touched, self._own_touched, self._letters = set(), False, []
        return kept

    def waiting(self) -> dict[str, int]:
        """By endpoint, how many deliveries wait or are under way."""
        return {name: line.waiting for name, line in self._lines.items()}

    def open_circuits(self) -> dict[str, bool]:
        """By endpoint, whether it is left alone for now, or is gone."""
        return {
            name: line.circuit.is_open or name in self._gone for name, line in self._lines.items()
        }

    # -- steps -------------------------------------------------------------------------------

    def _accept(self, one: Delivery, line: _Line, now_ms: int) -> None:
        if one.key in self._all:
            return
        self._count(one.endpoint, TAKEN)
        if self._suppressed and self._gets_nothing(one.trigger["user"]):
            self._count(one.endpoint, DROPPED)
            return
        self._add(one)
        self._fresh.append(one)
        self._touched.add(one.key)
        if one.endpoint in self._gone:
            self._park(one, Reason.GONE, "", now_ms)
        elif line.waiting > self._rules.waiting:
            self._park(one, Reason.FULL, "", now_ms)

    def _add(self, one: Delivery) -> None:
        key = one.key
        self._all[key] = one
        self._of_user.setdefault(one.trigger["user"], {})[key] = one
        if (line := self._lines.get(one.endpoint)) is not None:
            line.waiting += 1

    def _enqueue(self, one: Delivery) -> None:
        if (line := self._lines.get(one.endpoint)) is not None:
            heapq.heappush(line.due, (one.due_ms, one.key))

    def _remove(self, one: Delivery) -> None:
        key, user = one.key, one.trigger["user"]
        del self._all[key], self._of_user[user][key]
        if not self._of_user[user]:
            del self._of_user[user]
        self._touched.add(key)
        line = self._lines.get(one.endpoint)
        if line is not None:
            line.waiting -= 1

    def _park(self, one: Delivery, reason: Reason, detail: str, now_ms: int) -> None:
        self._remove(one)
        self._count(one.endpoint, reason)
        letter: Letter = {
            "id": letter_id(one.endpoint, one.trigger["id"], one.round),
            "endpoint": one.endpoint,
            "reason": reason.value,
            "detail": detail,
            "attempts": one.attempts,
            "round": one.round,
            "at": iso(now_ms),
            "user": one.trigger["user"],
            "campaign": one.trigger["campaign"],
            "trigger": one.trigger,
        }
        self._letters.append(_write(letter))

    def _gets_nothing(self, user: str) -> bool:
        return any(self._name_of(user, reason) in self._suppressed for reason in self._reasons)

    def _name_of(self, user: str, reason: str) -> str:
        digest = blake2b(
            user.encode(),
            digest_size=16,
            key=self._key,
            salt=blake2b(reason.encode(), digest_size=16).digest() if reason else b"",
            person=b"segstream drops",
        )
        return _SUPPRESSED.decode() + digest.hexdigest()

    def _count(self, endpoint: str, what: str) -> None:
        self.counts.setdefault(endpoint, Counter())[what] += 1
        self._own_touched = True
