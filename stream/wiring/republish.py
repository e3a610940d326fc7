"""Tells everybody's segment again, and clears what the output lacked if that told it all.

Comes in: the store, and whose memberships are wanted. Goes out: records on the output, and facts of how
many; the note of what the output lacks is cleared.
"""

from __future__ import annotations

from collections.abc import Callable

from typing_extensions import TypedDict

from consumers.output import Output
from producers.membership import republish
from stream.config import Settings
from stream.membership import Wanted
from stream.model import Model
from stream.store.promises import OperatorStore


class RepublishedFacts(TypedDict):
    """How many memberships were sent, by kind too; and what the output lacked before."""

    sent: int
    kinds: dict[str, int]
    output_lacked: str


def tell_again(
    settings: Settings,
    store: OperatorStore,
    model: Model,
    wanted: Wanted,
    rate: float,
    told: Callable[[int], None],
) -> RepublishedFacts:
    """Send memberships; see `producers.membership.republish`.

    Args:
        rate: records a second at the most.
        told: is told how many were sent so far.

    Raises:
        BrokerUnavailableError: not all were confirmed; to send them all again does no harm.
        SchemaMismatchError: the rows are of another feature table than the settings declare.
    """
    before = store.output()
    topics, output = [settings.topics.changes], Output(settings)
    ids = output.topic_ids(topics)
    sent = republish(settings, store, model, wanted, rate, told)
    topic_id, lacks = before
    # The topic may have lost some of these again: meanwhile, or by something that nobody has noticed yet.
    same = ids == output.topic_ids(topics) and topic_id in {"", *ids}
    if lacks and wanted.everybody and same and store.output() == before:
        store.note_output(topic_id, "")
    return {"sent": sent.total(), "kinds": dict(sent), "output_lacked": lacks}
