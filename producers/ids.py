"""Reads ids as programs write them, and tells which of them were mended.

Comes in: a reader of text. Goes out: a reader of ids: a whole number that was written as a float is the whole
number, one that has lost digits is refused, and one that stands for nobody is none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from producers.mapped import BAD_USER, NoText, Row, Unmappable
from producers.row_readers import Reader, read_nothing


class Ids:
    """Reads ids, which some programs write as floating point numbers: 326.0 is 326."""

    def __init__(self) -> None:
        self._mended = self._powers = 0
        self._example = self._power = ""

    def first(self, reads: Sequence[Reader], empty: frozenset[str]) -> Reader:
        """Reads the first of several that is an id; those in `empty` (lower case) are none."""
        readers = [self.reader(read, empty) for read in reads]
        if len(readers) < 2:
            return readers[0] if readers else read_nothing

        def read_first(row: Row) -> str | None:
            for read in readers:
                if (text := read(row)) is not None:
                    return text
            return None

        return read_first

    def reader(self, read: Reader, empty: frozenset[str] = frozenset()) -> Reader:
        """The same reader, of ids; those in `empty` (lower case) are none."""
        if read is read_nothing:
            return read
        longest = max(map(len, empty), default=0)

        def read_id(row: Row) -> str | None:
            text = read(row)
            if text is None or isinstance(text, NoText):
                return None
            if len(text) <= longest and text.casefold() in empty:
                return None
            if not text[0].isdecimal() or text.isdecimal():
                return text
            if "." in text or "+" in text or (len(text) < 12 and "e" in text.lower()):
                return self._mend(text)
            return text

        return read_id

    def note(self) -> str | None:
        """What to tell of the ids once all have been read."""
        told = []
        if self._mended:
            whole = self._whole(self._example)
            told.append(f"{self._mended:,} ids such as {self._example!r} were read as {whole!r}")
        if self._powers:
            told.append(
                f"{self._powers:,} ids such as {self._power!r} look like numbers in powers of ten, "
                "and were taken as they are"
            )
        return "; ".join(told) or None

    def _mend(self, text: str) -> str:
        whole = self._whole(text)
        if whole != text:
            self._mended += 1
            self._example = self._example or text
        elif _BARE_POWER.fullmatch(text) is not None:
            self._powers += 1
            self._power = self._power or text
        return whole

    def _whole(self, text: str) -> str:
        if (match := _FLOAT_ID.fullmatch(text)) is not None:
            if len(match[1]) > 15 and int(match[1]) >= _LARGEST_WHOLE_FLOAT:
                raise Unmappable(
                    BAD_USER, f"{text!r} is an id that has lost its last digits; keep it as text"
                )
            return match[1]
        if (match := _POWER_ID.fullmatch(text)) is None:
            return text
        fraction, power = match[2] or "", int(match[3])
        if power > 15 or (len(fraction) == 5 and power > 5):
            raise Unmappable(
                BAD_USER, f"{text!r} is an id that has lost its last digits; format it as text"
            )
        digits = match[1] + fraction[:power].ljust(power, "0")
        return digits if len(fraction.rstrip("0")) <= power else text


_LARGEST_WHOLE_FLOAT = 1 << 53
"""From here on a floating point number stands for several whole ones."""
_FLOAT_ID = re.compile(r"(\d+)\.0+", re.ASCII)
_POWER_ID = re.compile(r"(\d)(?:[.,](\d+))?[eE]\+(\d{1,3})", re.ASCII)
"""As R, pandas and Excel write large numbers. Nobody's own ids have a plus in them."""
_BARE_POWER = re.compile(r"\d+(\.\d+)?[eE]\d+", re.ASCII)
