"""Takes in what was consumed: decodes it, gives it to the partitions, and sets aside what is refused.

Comes in: messages as the consumer gives them. Goes out: blocks of columns for the partitions that are
served; refused messages to the dead letters, before anything behind them is committed. And back-pressure:
which topics are not read for now, because a partition holds too much or letters came too fast.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from consumers.clock import SteadyClock, Time
from consumers.decode import Block, Decoder, Reject
from consumers.group import GroupMember
from consumers.placement import Placement, Span
from consumers.rejects import RejectGuard, TooManyRejectsError
from consumers.serving import Owned, PartitionClock
from stream import metrics
from stream.config import Settings
from stream.features import starts_of

CONSUME = 1_000
"""Messages taken from the client at once: each call costs the same for one or a thousand."""
BLOCK = 4_000
"""Messages decoded at once where there is a backlog: a call of numpy's costs the same for few as for
many, a topic and partition has a few hundred of them, and all of it still fits the cache."""


class DeadLetterSink(Protocol):
    """Files refused messages; returns when they are safe."""

    def file(self, refused: Sequence[Reject]) -> None: ...


class Intake:
    """Holds what was consumed and is not with its partition yet, and what was refused and is not filed."""

    def __init__(
        self,
        settings: Settings,
        decoder: Decoder,
        dead_letters: DeadLetterSink,
        partitions: PartitionClock,
        now: SteadyClock,
        time: Time,
    ) -> None:
        self._worker = settings.worker
        self._topics = settings.topics.inputs
        self._decoder = decoder
        self._dead_letters = dead_letters
        self._partitions = partitions
        self._now = now
        self._time = time
        self._guard = RejectGuard(settings.worker, settings.topics, time.monotonic)
        self._placement = Placement(settings.topics.partitions, settings.worker.misplaced)
        self._held: list[Any] = []
        self._waits_until = 0.0
        self._unfiled: list[Reject] = []

    def hold(self, messages: list[Any]) -> int:
        """Keep messages; once they make a block, decode it. Returns how many were decoded.

        With a backlog, whole blocks come at once: a larger batch then costs less an event, because a
        user who comes twice in it is looked at and written once.
        """
        self._held += messages
        return self.sort() if len(self._held) >= BLOCK else 0

    def sort(self) -> int:
        """Decode what is held, and give it to the partitions; returns how many messages.

        Raises:
            TooManyRejectsError: refusals pile up, and stopping is what was chosen.
        """
        messages, self._held = self._held, []
        if not messages:
            return 0
        # Decoding is done once for all of them: numpy's calls cost the same for one or a hundred.
        topics = list(map(self._topics.index, [message.topic() for message in messages]))
        pairs = np.array([message.partition() for message in messages]) * 2 + np.array(topics)
        starts = starts_of(pairs)
        if len(starts) > len(set(pairs[starts].tolist())):
            order = np.argsort(pairs, kind="stable")
            messages, pairs = [messages[place] for place in order.tolist()], pairs[order]
            starts = starts_of(pairs)
        block = self._decoder.decode(messages, self._now.latest_ms())
        spans: list[tuple[int, Span]] = []
        for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(messages)], strict=True):
            number, topic = divmod(int(pairs[start]), 2)
            owned = self._partitions.served.get(number)
            if owned is not None:
                name = self._topics[topic]
                spans.append((topic, Span(owned.partition, number, name, start, end)))
        self._placement.check(block, [span for _, span in spans])
        for topic, span in spans:
            refused = self._partitions.gather(span.number, topic, block, span.start, span.end)
            self._unfiled += refused
        self._watch_rejects(block)
        return len(messages)

    def file_letters(self) -> None:
        """Put away what was refused, before anything behind it is committed."""
        if self._unfiled:
            self._dead_letters.file(self._unfiled)
            self._unfiled = []

    def forget(self, number: int) -> None:
        """Drop what is here of a partition."""
        self._held = [message for message in self._held if message.partition() != number]
        self._unfiled = [one for one in self._unfiled if one.message.partition() != number]

    def calm(self) -> None:
        """A turn has gone by; see `RejectGuard.calm`."""
        self._guard.calm()

    def _watch_rejects(self, block: Block) -> None:
        """See whether refusals pile up."""
        refused = list(block.rejects.values())
        flood = self._guard.saw(block.refusals(), refused)
        stop = flood is not None and self._worker.on_reject_flood == "stop"
        # Whoever looks for the reasons has to find the letters, although nothing of this is committed.
        if stop or len(self._unfiled) >= CONSUME:
            self.file_letters()
        if stop:
            raise TooManyRejectsError(
                f"{flood}; mend the producer, raise the limit or set worker.on_reject_flood = "
                "alert, and start again"
            )
        self._guard.alert(flood)
        for (topic, number), letters in Counter(
            (one.message.topic(), one.message.partition()) for one in refused
        ).items():
            owned = self._partitions.served.get(number)
            if owned is not None:
                wait_until = self._guard.wait_for(letters)
                owned.reading.read_on[self._topics.index(topic)] = wait_until
                self._waits_until = max(self._waits_until, wait_until)

    # -- back-pressure ------------------------------------------------------------------------

    def are_letters_too_fast(self) -> bool:
        """Whether a topic is being read that should not be, because letters came too fast."""
        now = self._time.monotonic()
        return self._waits_until > now and any(
            until > now and topic not in owned.reading.paused
            for owned in self._partitions.served.values()
            for topic, until in enumerate(owned.reading.read_on)
        )

    def throttle(self, those: Iterable[Owned], member: GroupMember) -> None:
        """Pause the topics of partitions that hold too much, resume them at half of that.

        A topic whose letters came too fast is paused as well, for as long as they take at the rate
        that is allowed. The other topic and the other partitions go on. The consumer itself is
        polled on: a paused member stays a member.
        """
        for owned in those:
            now = self._time.monotonic()
            for topic in range(len(self._topics)):
                self._throttle(owned, topic, now, member)

    def _throttle(self, owned: Owned, topic: int, now: float, member: GroupMember) -> None:
        limit, reading = self._worker.buffer_events, owned.reading
        can_wait = self._partitions.can_wait(owned.number, topic)
        too_fast = reading.read_on[topic] > now
        if topic not in reading.paused:
            if too_fast or (can_wait and reading.gathered > limit):
                member.pause(owned.number, topic)
                reading.paused.add(topic)
                if too_fast:
                    metrics.reading_slowed()
        elif not too_fast and (not can_wait or reading.gathered <= limit // 2):
            member.resume(owned.number, topic)
            reading.paused.discard(topic)
