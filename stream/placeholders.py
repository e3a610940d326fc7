"""Knows ids that are none: what programs write where they have no id.

Comes in: ids, and the list in `config.Worker.placeholder_ids`. Goes out: whether they identify anybody.
Workers ask it of messages, and mappings of rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

LONGEST_FOLDED = 16
"""Placeholders of up to so many bytes are known whatever their case and the blanks around them. Longer
ones are known as they are declared only: nobody has to fold the letters of every id."""


def folded(text: str) -> bytes:
    """A text without regard to the case of ASCII letters and to blanks around it."""
    return text.encode(errors="surrogatepass").strip().lower()


class Placeholders:
    """A declared list of them; an empty or blank id is always one.

    Attributes:
        short: those that are known by their folded form, folded.
        long: the others.
    """

    def __init__(self, declared: Sequence[str]) -> None:
        self.short = frozenset({b"", *(folded(one) for one in declared if _is_short(one))})
        self.long = frozenset(one for one in declared if not _is_short(one))
        self._short_texts = frozenset(one.decode() for one in self.short)

    def __contains__(self, text: str) -> bool:
        return folded(text) in self.short if _is_short(text) else text in self.long

    def may_be_among(self, texts: Collection[str]) -> bool:
        """Whether one of some texts may be a placeholder: no loop of Python looks at each."""
        if not self.long.isdisjoint(texts):
            return True
        if min(map(len, texts), default=0) > LONGEST_FOLDED:
            return False
        together = " ".join(texts)
        if together.count(" ") >= len(texts) or not together.isprintable():
            return True  # there are blanks, or what may be some
        return not self._short_texts.isdisjoint(together.lower().split(" "))


def _is_short(text: str) -> bool:
    return (
        len(text) <= LONGEST_FOLDED and len(text.encode(errors="surrogatepass")) <= LONGEST_FOLDED
    )
