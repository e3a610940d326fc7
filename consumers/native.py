"""Reads lines of Segment messages for a replay, with the parser that reads them in the worker.

Comes in: lines, each a message. Goes out: of each when it happened, to whom and what, so that
`producers.replay` can put the line itself onto the topics, in order; or why it is none. What the
worker makes of a message live, it makes of its line.
"""

from __future__ import annotations

from collections.abc import Sequence

from consumers.fields import UNWATCHED, Fields
from consumers.plain import PlainParser
from stream.config import Money, Reviews, Worker
from stream.events import NativeLine, NoEvent, Track
from stream.features import FeatureTable

IGNORED_EVENT = "ignored_event"
"""Of messages that the worker ignores and that have no place in time: of another type, or an event that no
feature watches, without a user or a time."""


class NativeReader:
    """Reads for one feature table."""

    def __init__(
        self, table: FeatureTable, worker: Worker, money: Money, ratings: Reviews | None = None
    ) -> None:
        fields = Fields(table, worker, money, ratings)
        self._parser = PlainParser(table, worker.message_bytes, fields)
        # Where there is a reporting currency, others are converted or refused, and need not be told.
        tells = table.uses_value & (not money.currency)
        self._tells_currency: list[bool] = tells.tolist()
        self._names = {code: name for name, code in table.codes.items()}

    def __call__(self, lines: Sequence[bytes]) -> list[NativeLine | NoEvent]:
        """What each line says."""
        if not lines:
            return []
        parsed, tracks = self._parser.parse_tracks(lines)
        odd = parsed.odd
        found: list[NativeLine | NoEvent] = []
        times, kinds = parsed.time_ms.tolist(), parsed.kind.tolist()
        for place, (user, time_ms, kind) in enumerate(zip(parsed.users, times, kinds, strict=True)):
            refused = odd.refused.get(place)
            if refused is not None:
                found.append(NoEvent(refused[0].value, refused[1]))
            elif place in odd.ignored or place in odd.marks:
                found.append(NoEvent(IGNORED_EVENT, "no track message"))
            elif kind != UNWATCHED:
                track = tracks[place]
                currency = self._currency_of(track) if self._tells_currency[kind] else None
                found.append(
                    NativeLine(time_ms, user, self._names[kind], self._id_of(track), currency)
                )
            elif user and self._parser.is_time(time_ms):
                # It may be watched one day, when the log is read anew.
                track = tracks[place]
                found.append(NativeLine(time_ms, user, track.event, self._id_of(track)))
            else:
                found.append(NoEvent(IGNORED_EVENT, "no feature watches it, and it has no place"))
        return found

    @staticmethod
    def _currency_of(track: Track) -> str | None:
        said = None if track.properties is None else track.properties.currency
        return said.strip().upper() or None if isinstance(said, str) else None

    def _id_of(self, track: Track) -> str | None:
        given = track.messageId
        return None if given is None or given in self._parser.fields.placeholders else given
