"""Says what a message that cannot be read looks like, and what to do: it may be a good one of another form.

Comes in: the object in a message that names no event, no user or no time. Goes out: the end of a sentence for
whoever sends it, in the detail of a refusal; the doctor shows it, too. Names of fields are told, never what
stands in them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

DEEPEST = 4
"""Objects within each other in which a field is looked for."""
MOST_FIELDS = 500
"""Fields of a message that are looked at."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_USERS = _words(
    "userid distinctid customerid clientid visitorid anonymousid userpseudoid uid user customer "
    "shopperid memberid accountid profileid contactid subscriberid personid deviceid cookieid "
    "externalid externaluserid customeruserid mpid muid "
)
_TIMES = _words(
    "timestamp time ts at date datetime createdat occurredat happenedat eventtime eventtimestamp "
    "eventdate eventat originaltimestamp servertime clienttime clienteventtime servertimestamp "
    "clienttimestamp created createdtime datecreated processedat purchasedat orderedat placedat "
    "updatedat triggeredat loggedat collectortstamp derivedtstamp timestampms tsms unixtime epoch "
)
_EVENTS = _words(
    "event eventname eventtype eventkey eventaction name action activity activitytype verb type "
    "behavior behaviortype interaction "
)
_NAMES = {
    "Order Completed": _words(
        "purchase purchased purchasecompleted completepurchase productpurchased orderplaced placedorder "
        "ordercreated createdorder ordersubmitted orderpaid paidorder ordersuccess ordersucceeded "
        "checkoutcompleted completedcheckout paymentcompleted completepayment transaction sale "
        "transactioncompleted ecommercepurchase"
    ),
    "Order Refunded": _words(
        "refund refunded refundissued refundcreated refundcompleted orderreturned returnedorder "
        "returncompleted partialrefund orderpartiallyrefunded purchaserefunded purchasereturned "
        "paymentrefunded chargerefunded ecommercerefund"
    ),
    "Order Cancelled": _words(
        "ordervoided voidedorder purchasecancelled purchasecanceled cancelorder ordercancel"
    ),
    "Product Viewed": _words("viewitem itemviewed viewproduct productview viewcontent vieweditem"),
    "Product Added": _words("addtocart addedtocart cartadd itemadded productaddedtocart addeditem"),
    "Product Removed": _words("removefromcart removedfromcart cartremove itemremoved"),
    "Checkout Started": _words("begincheckout startcheckout initiatecheckout checkoutbegun"),
}
"""Names that events have elsewhere, by what the specification calls them."""
_TYPES = frozenset({"track", "identify", "page", "screen", "group", "alias"})
_NO_NAMES = _TYPES | {"event", "events", "metric", "profile", "custom", "record"}
_SEGMENT = frozenset(
    {"userId", "anonymousId", "timestamp", "originalTimestamp", "sentAt", "messageId", "properties"}
)


def no_user(message: Any) -> str:
    """What is wrong with a message that names nobody."""
    return "neither userId nor anonymousId" + _hint(message, _USERS, _is_id, "userId", "user")


def no_time(message: Any, fields: str) -> str:
    """What is wrong with a message that names no time."""
    return f"the message has none of {fields}" + _hint(message, _TIMES, _is_id, "timestamp", "time")


def no_event(message: dict[str, Any]) -> str:
    """What is wrong with a message that names no event: programs put messages into others."""
    for name in ("batch", "events", "Records", "records"):
        several = message.get(name)
        if isinstance(several, list) and all(isinstance(one, dict) for one in several):
            return (
                f"{name!r} of the message holds {len(several)}: each must be a message of its own"
            )
    return wrapped(message) or "the message names no event" + _hint(
        message, _EVENTS, _is_name, "event", "event"
    )


def wrapped(message: dict[str, Any]) -> str:
    """What is around a message that names an event; empty if nothing seems to be."""
    path = _path_to_message(message)
    if path:
        return (
            f"the message names no event, and what is in its field {path!r} does: set "
            f"worker.unwrap = {path!r}, or send that alone"
        )
    kind = _wrapped_by(message)
    if kind is None:
        return ""
    by, path = kind
    return (
        f"the message names no event: it is wrapped by {by}. Set worker.unwrap = {path!r} if there is a "
        "track message in it; else make one of it, with event, userId and timestamp"
    )


def known_name(event: str) -> str | None:
    """What the specification calls an event that nobody watches; None where no name is like it."""
    plain = _plain(event)
    return next((name for name, others in _NAMES.items() if plain in others), None)


def _hint(
    message: Any, names: frozenset[str], fits: Callable[[Any], bool], field: str, key: str
) -> str:
    """Which field looks like the one that is missing; nothing where none does."""
    for path, value in _fields(message):
        if _plain(path.rsplit(".", 1)[-1]) in names and fits(value):
            return (
                f"; {path!r} looks like it: send it as {field!r}, or replay a file of such messages with a "
                f"mapping that says {key} = {path!r}"
            )
    return ""


def _fields(message: Any) -> Iterator[tuple[str, Any]]:
    """Fields with their paths, the outer ones first; of texts that are JSON, what is in them."""
    level: list[tuple[str, Any]] = [("", message)]
    looked_at = 0
    for _ in range(DEEPEST):
        inner: list[tuple[str, Any]] = []
        for path, found in level:
            fields = _object_in(found)
            for name, value in (fields or {}).items():
                looked_at += 1
                if looked_at > MOST_FIELDS:
                    return
                here = f"{path}.{name}" if path else name
                yield here, value
                inner.append((here, value))
        level = inner


def _object_in(found: Any) -> dict[str, Any] | None:
    if isinstance(found, str) and found.lstrip()[:1] == "{":
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            return None
    return found if isinstance(found, dict) else None


def _path_to_message(message: dict[str, Any]) -> str:
    """The path of a field in which there is a message that names an event; empty if there is none."""
    for path, value in _fields(message):
        inner = _object_in(value)
        if inner is not None and isinstance(inner.get("event"), str) and _SEGMENT & inner.keys():
            return path
    return ""


def _wrapped_by(message: dict[str, Any]) -> tuple[str, str] | None:
    """Who has wrapped a message, and where what it is about is."""
    payload = message.get("payload")
    if (
        isinstance(payload, dict)
        and "after" in payload
        and ("op" in payload or "before" in payload)
    ):
        return "Debezium", "payload.after"
    if "after" in message and ("op" in message or "before" in message):
        return "Debezium", "after"
    if "schema" in message and "payload" in message:
        return "Kafka Connect", "payload"
    if "Message" in message and ("TopicArn" in message or message.get("Type") == "Notification"):
        return "SNS", "Message"
    if "detail" in message and ("detail-type" in message or "detailType" in message):
        return "EventBridge", "detail"
    if "specversion" in message and "data" in message:
        return "CloudEvents", "data"
    return None


def _plain(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower())


def _is_id(value: Any) -> bool:
    return (isinstance(value, str) and value.strip() != "") or (
        isinstance(value, int | float) and not isinstance(value, bool)
    )


def _is_name(value: Any) -> bool:
    """Whether this may be the name of an event: kinds of messages and resources are none."""
    return isinstance(value, str) and value.strip() != "" and value.lower() not in _NO_NAMES
