"""The role that sends triggers to endpoints: reads them, keeps what waits, and what is given up.

Comes in: records of `campaign-triggers`; on the topic of parked deliveries what somebody asks to send again; on
`campaign-control` and `segment-changes` who gets nothing any more. Goes out: attempts for a sender, and rows, the
partition's own state and parked deliveries in one commit with the offsets (`consumers.role`). A trigger is tried only
once it is kept.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from consumers.decode import Message
from consumers.plain import parse_time
from consumers.role import NOTHING, Decided, Decision
from stream import metrics
from stream.campaigns.control import Told, erased_user, read_told
from stream.campaigns.triggers import CampaignTrigger, is_sent
from stream.config import Settings
from stream.headers import event_type
from stream.unreadable import UNREADABLE
from stream.webhooks.letters import ENABLE, REPLAY, Enable, Replay
from stream.webhooks.queue import OUTCOMES, SAID, Attempt, Queue
from stream.webhooks.schedule import Answer

log = logging.getLogger(__name__)

NEVER_LATE_MS = 1 << 62

Send = Callable[[Sequence[Attempt], Callable[[str, Answer], None]], None]
"""Begins attempts, and tells from another thread what each came to."""

_read_trigger = msgspec.json.Decoder(CampaignTrigger).decode
_read_replay = msgspec.json.Decoder(Replay).decode
_read_enable = msgspec.json.Decoder(Enable).decode


class _ForeignError(Exception):
    """A record that is whole, and of somebody else."""


_PASSED_OVER: tuple[type[Exception], ...] = (*UNREADABLE, _ForeignError)


class Webhooks(Decision):
    """Deliveries of one partition of the triggers.

    Args:
        number: of the partition.
        send: see `Send`.
        key: the namespace's secret.
    """

    def __init__(self, settings: Settings, number: int, send: Send, key: bytes = b"") -> None:
        topics = settings.topics
        self._triggers, self._control = topics.triggers, topics.control
        self._changes = topics.changes
        self._label = str(number)
        self._key = key
        self._send = send
        rules = settings.webhooks.rules(topics.partitions)
        self._limits = settings.campaign_limits
        self._queue = Queue(settings.endpoints, rules, key, tuple(self._limits.suppress))
        for endpoint in settings.endpoints:
            metrics.webhook_declared(endpoint.name, OUTCOMES)
        # Filled by the sender's thread.
        self._answers: deque[tuple[str, Answer]] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def load(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        self._queue.load(rows)

    def begin(self, own: bytes, delivered: Sequence[bytes]) -> None:
        # A letter that was sent and is not known of is sent again under the same id.
        del delivered
        self._queue.begin(own)

    def close(self) -> None:
        metrics.webhooks_left(self._label)

    def decide(self, messages: Sequence[Message], now_ms: int) -> Decided:
        queue = self._queue
        before = {name: counts.copy() for name, counts in queue.counts.items()}
        attempted: Counter[tuple[str, str]] = Counter()
        while self._answers:
            key, answer = self._answers.popleft()
            attempted[key.partition("/")[0], _class_of(answer)] += 1
            if not answer.arrived:
                log.debug("%s: %s", key, answer.told)
            queue.answered(key, answer, now_ms)
        for message in messages:
            self._read(message, now_ms)
        queue.give_up(now_ms)
        self._begin_attempts(now_ms)
        kept = queue.keep()
        if kept is None:
            return NOTHING
        ended = {
            name: counts - before.get(name, Counter()) for name, counts in queue.counts.items()
        }

        def tell() -> None:
            queue.committed()
            self._begin_attempts(now_ms)
            self._show(ended, attempted)

        return Decided(kept.names, kept.rows, kept.gone, kept.own, kept.letters, tell)

    def _read(self, message: Message, now_ms: int) -> None:
        """Take in a message; one that cannot be read is passed over."""
        value = message.value() or b""
        if message.topic() == self._changes:
            if (user := erased_user(value, self._key)) is not None:
                self._queue.suppress(user)
            return
        if message.topic() == self._control:
            told = read_told(value)
            if told is not None and told.user:
                self._obey(told)
            return
        try:
            if message.topic() == self._triggers:
                trigger = self._own(_read_trigger(value))
                self._queue.take(trigger, parse_time(trigger["valid_until"]), now_ms)
                return
            kind = event_type(message)
            if kind == REPLAY:
                asked = _read_replay(value)
                self._own(asked["letter"]["trigger"])
                until = asked["letter"]["trigger"]["valid_until"]
                until_ms = NEVER_LATE_MS if asked["late"] else parse_time(until)
                self._queue.replay(asked["letter"], until_ms, now_ms)
            elif kind == ENABLE:
                self._queue.enable(_read_enable(value)["endpoint"])
        except _PASSED_OVER as error:
            metrics.webhook_unreadable(message.topic() or "")
            log.warning("a record on %s is passed over: %s", message.topic(), error)

    def _own(self, trigger: CampaignTrigger) -> CampaignTrigger:
        """A trigger that campaigns of this namespace have sent: no endpoint is told anything by anybody else."""
        if not is_sent(
            trigger["id"], trigger["campaign"], trigger["version"], trigger["change"],
            trigger["user"], self._key,
        ):  # fmt: skip
            raise _ForeignError("no campaign of this namespace has sent it")
        return trigger

    def _obey(self, told: Told) -> None:
        """Who gets nothing, because it is said so or by a trait, has each of these reasons by itself."""
        why = self._limits.suppressing(told.traits or {})
        if told.suppressed is not None:
            why[SAID] = told.suppressed
        for reason, suppressed in why.items():
            (self._queue.suppress if suppressed else self._queue.allow)(told.user, reason)

    def _begin_attempts(self, now_ms: int) -> None:
        if attempts := self._queue.start(now_ms):
            self._send(attempts, self._answered)

    def _answered(self, key: str, answer: Answer) -> None:
        self._answers.append((key, answer))

    def _show(
        self, ended: Mapping[str, Counter[str]], attempted: Mapping[tuple[str, str], int]
    ) -> None:
        for (endpoint, answer), count in attempted.items():
            metrics.webhook_attempts(endpoint, answer, count)
        for endpoint, counts in ended.items():
            for outcome, count in counts.items():
                metrics.webhook_counted(endpoint, outcome, count)
        open_circuits = self._queue.open_circuits()
        for endpoint, waiting in self._queue.waiting().items():
            metrics.webhook_waits(endpoint, self._label, waiting, open_circuits[endpoint])


def _class_of(answer: Answer) -> str:
    """``2xx``, ``5xx`` and so on; ``none`` where there was no whole answer."""
    return "none" if answer.status is None else f"{answer.status // 100}xx"
