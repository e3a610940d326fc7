"""Whether a pipeline is well, as far as its store tells.

Comes in: a reader of the store, the trainer's state, and whether changes come. Goes out: facts, with what a
person should look at. Alerts and dashboards know more: they ask the roles themselves.
"""

from __future__ import annotations

from stream.config import Settings
from stream.insight.facts import Attention, FeedState, StandingFacts
from stream.learning.state import TrainerState
from stream.store.promises import ReaderStore
from stream.units import iso, readable_duration

WAITING_ENTRIES = 100
"""More than these in a partition, of an outbox that holds `store.outbox_cap`, were not delivered in time."""
QUIET_ROUNDS = 12
"""Live, a round follows each sweep; after so many without one the trainer is taken for absent."""
SHORTEST_QUIET_MS = 60_000


def standing(
    settings: Settings,
    store: ReaderStore,
    state: TrainerState | None,
    now_ms: int,
    feed: FeedState,
    latest_change: str | None,
) -> StandingFacts:
    """How a pipeline stands.

    Args:
        state: the trainer's; None if there is no model yet.
        now_ms: by the clock in use.
        feed: whether changes are read: up, starting or down.
        latest_change: the time that the latest change tells.
    """
    numbers = range(settings.topics.partitions)
    begun = [number for number in numbers if store.position(number) is not None]
    sizes = store.outbox_sizes(begun) if begun else []
    _, lacks = store.output()
    found: list[Attention] = []
    if lacks:
        found.append(_critical(f"The output lacks changes: {lacks}", "`segstream republish`"))
    if begun and len(begun) < len(numbers):
        found.append(
            _critical(
                f"{len(numbers) - len(begun)} of {len(numbers)} partitions have no owner yet",
                "`segstream run activity`, and `segstream doctor` if it is running",
            )
        )
    if not begun:
        found.append(
            _critical("No worker has begun yet", "`segstream run activity`, then send events")
        )
    full = max(sizes, default=0)
    if full >= settings.store.outbox_cap:
        found.append(
            _critical("Workers wait: changes are not delivered", "`segstream run publisher`")
        )
    elif full >= WAITING_ENTRIES:
        found.append(_warning("Changes are delivered late", "look at the publisher's log"))
    if state is None and begun:
        found.append(
            _warning(
                "There is no model yet",
                f"it takes a trainer and {settings.learning.first_model_users} shoppers",
            )
        )
    if state is not None and settings.clock.mode == "live":
        quiet_ms = now_ms - state.round_ms
        if quiet_ms > max(SHORTEST_QUIET_MS, QUIET_ROUNDS * 1_000 * settings.worker.sweep_seconds):
            found.append(
                _critical(
                    f"The model stands still for {readable_duration(quiet_ms / 1_000)}",
                    "`segstream run trainer`",
                )
            )
    if feed == "down":
        found.append(_warning("The feed of changes is not read", "is the broker up?"))
    found.sort(key=lambda one: one["severity"] != "critical")
    return {
        "at": iso(now_ms),
        "model": None if state is None or state.model is None else state.model.name,
        "round": None if state is None else iso(state.round_ms),
        "users": 0 if state is None else state.users,
        "partitions": len(numbers),
        "partitions_begun": len(begun),
        "waiting_entries": sum(sizes),
        "feed": feed,
        "latest_change": latest_change,
        "attention": found,
    }


def _critical(what: str, how: str) -> Attention:
    return {"severity": "critical", "what": what, "how": how}


def _warning(what: str, how: str) -> Attention:
    return {"severity": "warning", "what": what, "how": how}
