"""Writes events as `track` messages of Segment's e-commerce specification.

Comes in: events, those of an order added up. Goes out: bytes, and the topic they belong to; `replay` and the
simulated shop send them.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from producers.amounts import LARGEST_NUMBER
from producers.mapped import Event
from stream.events import ORDER_EVENTS, ORDER_REFUNDED, REFUND_EVENTS

PURCHASES = (*ORDER_EVENTS, *REFUND_EVENTS)


def topic_of(event: str) -> int:
    """Place in `config.Topics.inputs` of the topic an event goes to."""
    return 1 if event in PURCHASES else 0


class MessageProperties(msgspec.Struct, omit_defaults=True, gc=False):
    """Properties of a `track` message, spelled as Segment's e-commerce v2 has them."""

    order_id: str | None = None
    currency: str | None = None
    category: str | None = None
    quantity: float | None = None
    price: float | None = None
    revenue: float | None = None
    value: float | None = None
    review_id: str | None = None
    review_body: str | None = None
    rating: float | None = None


class MessageContext(msgspec.Struct, gc=False):
    sessionId: str  # noqa: N815 - Segment's spelling


class TrackMessage(msgspec.Struct, tag_field="type", tag="track", omit_defaults=True, gc=False):
    """A `track` message as `replay` and the simulated shop write it."""

    event: str
    userId: str  # noqa: N815 - Segment's spelling
    messageId: str  # noqa: N815 - Segment's spelling
    timestamp: str
    properties: MessageProperties
    context: MessageContext | None = None


encode_message: Callable[[TrackMessage], bytes] = msgspec.json.Encoder().encode
"""The bytes of a message, the same in `replay` and in the simulated shop."""


def message_of(event: Event, timestamp: str, source: str) -> TrackMessage:
    """The message of an event whose rows have been added up.

    Args:
        event: the event; that of an order counts its first row.
        timestamp: its time in the 24-character form.
        source: file name without suffixes, for ids where the table has none.

    Raises:
        ValueError: an order of negative worth or pieces, or of more than any worker takes.
    """
    amount = event.worth if event.amount is None else event.amount
    amount = None if amount is None else round(amount, 6)
    quantity = event.quantity
    if event.event in REFUND_EVENTS:
        # Refunds are written as negative orders by some shops and as positive refunds by others.
        amount = None if amount is None else abs(amount)
        quantity = None if quantity is None else abs(quantity)
    elif min(amount or 0.0, quantity or 0.0) < 0:
        raise ValueError(
            f"an order of {quantity or 0:g} pieces worth {amount or 0:g}; "
            f"if it is a refund, add a rule with event = {ORDER_REFUNDED!r}"
        )
    if max(abs(amount or 0.0), abs(quantity or 0.0)) > LARGEST_NUMBER:
        raise ValueError(f"{quantity or 0:g} pieces worth {amount or 0:g} are beyond any shop")
    bought = event.event in PURCHASES
    return TrackMessage(
        event.event,
        event.user,
        event.message_id(source),
        timestamp,
        MessageProperties(
            order_id=event.order if event.names_order else None,
            currency=event.currency,
            category=event.category,
            quantity=quantity,
            price=event.price,
            revenue=amount if bought else None,
            value=None if bought else amount,
            review_id=event.review_id,
            review_body=event.review,
            rating=event.rating,
        ),
        None if event.session is None else MessageContext(event.session),
    )


def encoded_message(event: Event, timestamp: str, source: str) -> bytes:
    """The bytes of an event's message, see `message_of`; those of the file where it has one."""
    if event.raw is not None:
        return event.raw.encode()
    return encode_message(message_of(event, timestamp, source))
