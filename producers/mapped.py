"""What comes of a row: an event, or a refusal with its reason.

Comes in: nothing; these are types. Goes out: what `row_mapper` gives, `sorting` brings into order, and
`messages` and `replay` send.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

# Reasons of our own; a mapping's rules may name further ones.
UNREADABLE = "unreadable"
NO_USER = "no_user"
BAD_USER = "bad_user"
NO_EVENT = "no_event"
BAD_TIME = "bad_time"
BAD_NUMBER = "bad_number"
BAD_CURRENCY = "bad_currency"
IGNORED_EVENT = "ignored_event"
PLACEHOLDER_USER = "placeholder_user"
OUTLIER_TIME = "outlier_time"

Row = Sequence[str | None]
"""Values of a table's row, by column; None or empty for nothing."""


class NoText(str):
    """What stands where a text is due, in JSON: an object, a list, true or false. It is nobody's id.

    Tests of rules see how it is written.
    """

    __slots__ = ()

    def strip(self, _letters: str | None = None, /) -> NoText:
        """Itself: there is nothing around it."""
        return self


class Event(NamedTuple):
    """What a row says. Rows of one order are still apart, see `sorting.EventSorter`.

    Attributes:
        worth: of an order's row, price x quantity; counts where the order has no amount anywhere.
        currency: ISO 4217, if the table says one.
        refunded: the order was given back afterwards, `refund_amount` of it at `refund_ms`; None
            for all of it, and at once.
        names_order: False for a refund under a number of its own.
        part: 1 for the refund of an order that its own row tells of.
        file: place among the files that are read together.
        raw: its message, where it is sent as it was written.
        rating, review, review_id: of a review, its text among them.
    """

    time_ms: int
    row: int
    user: str
    event: str
    order: str | None
    id: str | None
    category: str | None
    session: str | None
    quantity: float | None
    price: float | None
    amount: float | None
    worth: float | None = None
    currency: str | None = None
    refunded: bool = False
    refund_amount: float | None = None
    refund_ms: int | None = None
    names_order: bool = True
    part: int = 0
    file: int = 0
    raw: str | None = None
    rating: float | None = None
    review: str | None = None
    review_id: str | None = None

    def message_id(self, source: str) -> str:
        """The id of its message: its own, or made of file name, row and time; may be empty."""
        if self.raw is not None:
            return _said_id(self.raw)
        # The time keeps ids apart when a daily export has the same name and rows every day.
        found = self.id or f"{source}-{self.row}-{self.time_ms}"
        return f"{found}-refund" if self.part else found


class _Identified(msgspec.Struct):
    messageId: str = ""  # noqa: N815 - Segment's spelling


_identified = msgspec.json.Decoder(_Identified).decode


def _said_id(message: str) -> str:
    """The id that a message says; empty if it says none that is text."""
    try:
        return _identified(message).messageId
    except msgspec.ValidationError:
        return ""


class Refusal(NamedTuple):
    """A row that becomes no event: its number from 1, why, and the columns the mapping reads."""

    row: int
    reason: str
    why: str
    columns: dict[str, str | None]
    file: str = ""


class Unmappable(Exception):  # noqa: N818 - not an error, the way out of a row
    """The way out of a row that becomes no event.

    Args:
        reason: one of those above, or of a mapping's own.
        why: in words.
    """

    def __init__(self, reason: str, why: str) -> None:
        self.reason = reason
        self.why = why


class UndecidedError(Exception):
    """What a number means is known only when its whole column has been read."""
