"""Holds the dead letters to what was to be refused.

Comes in: the letters of an input topic, and the log. Goes out: one promise, that every refused message is filed
with its reason and its bytes, and no other.
"""

from __future__ import annotations

from collections.abc import Iterable

from consumers.audit.log import FoldedLog
from consumers.audit.reading import bytes_of, texts_of
from consumers.audit.report import Check
from consumers.audit.sample import Sample
from consumers.records import Record
from stream.events import LETTER_RECEIPT, LETTER_TRUNCATED, Reason

NO_JSON = frozenset({Reason.TRUNCATED, Reason.NOT_JSON})
"""Two decoders may differ on whether a torn message was cut or is wrong; on nothing else."""


class LettersCheck:
    """Whether refused messages are filed.

    Attributes:
        check: what was found.
    """

    def __init__(self, log: FoldedLog, sample: Sample) -> None:
        self.check = Check("refused_messages_are_filed")
        self._log = log
        self._sample = sample

    def compare(self, topic: str, dlq: str, records: Iterable[Record]) -> None:
        """Hold the letters of an input topic to its messages.

        Args:
            dlq: the topic of the letters.
            records: of that topic.
        """
        check = self.check
        filed: set[tuple[str, int, int]] = set()
        for record in records:
            headers = texts_of(record)
            if LETTER_RECEIPT in headers:
                continue
            where = f"{dlq}/{record.partition()}@{record.offset()}"
            try:
                origin = (
                    headers["segstream-topic"],
                    int(headers["segstream-partition"]),
                    int(headers["segstream-offset"]),
                )
                reason = headers["segstream-reason"]
            except (KeyError, ValueError):
                check.counted += 1
                check.accuse(f"{where} does not say where it came from and why")
                continue
            filed.add(origin)
            refusal, value = self._log.refusals.get(origin), bytes_of(record.value())
            name = "{}/{}@{}".format(*origin)
            if refusal is None and (not self._log.was_judged(origin) or self._sample.skips(value)):
                check.unjudged += 1
                continue
            check.counted += 1
            if refusal is None:
                check.accuse(f"{where}: {name} was filed as {reason}, but is not to be refused")
            elif reason != refusal.reason and not {reason, refusal.reason} <= NO_JSON:
                check.accuse(f"{where}: {name} was filed as {reason}, it is {refusal.reason}")
            elif not refusal.is_filed_as(value, headers.get(LETTER_TRUNCATED)):
                check.accuse(f"{where}: the bytes of {name} were changed")
        for origin, refusal in self._log.refusals.items():
            if origin[0] == topic and origin not in filed:
                name = "{}/{}@{}".format(*origin)
                check.accuse(f"{name} was refused ({refusal.reason}), but is not on {dlq}")
