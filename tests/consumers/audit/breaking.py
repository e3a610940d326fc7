"""Ways to break a world that an audit has to find."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np

from stream.orders import PACKED
from stream.units import DAY_MS
from tests.consumers.audit.world import (
    World,
)
from tests.strategies import (
    START_MS,
)


def delete_key(world: World) -> None:
    del world.users(0)[b"bob"]


def delete_partition(world: World) -> None:
    del world.store._partitions[1]


def delete_everything(world: World) -> None:
    world.store._partitions.clear()


def invent_user(world: World) -> None:
    world.users(1)[b"ghost"] = world.users(1)[b"cid"]


def move_user_to_other_partition(world: World) -> None:
    world.users(1)[b"bob"] = world.users(0).pop(b"bob")


def change_sum(world: World) -> None:
    world.edit(0, "ann", "sums", lambda sums: sums * (1 + 1e-5))


def change_tile(world: World) -> None:
    def one_more(tiles: Any) -> Any:
        tiles[0, 3] += 1
        return tiles

    world.edit(0, "ann", "tiles", one_more)


def change_last(world: World) -> None:
    world.edit(0, "ann", "last", lambda last: last - 1)


def change_first(world: World) -> None:
    world.edit(0, "ann", "first", lambda first: first + 1)


def change_seen(world: World) -> None:
    world.edit(0, "ann", "seen", lambda seen: seen + 1)


def change_click(world: World) -> None:
    world.edit(0, "ann", "click", lambda click: click - 1)


def change_bucket(world: World) -> None:
    world.edit(0, "ann", "distinct", lambda seconds: np.maximum(seconds, 1))


def change_as_of(world: World) -> None:
    world.edit(0, "ann", "as_of", lambda as_of: as_of + 1)


def forget_a_message(world: World) -> None:
    ids = world.store._partitions[0].ids
    place = next(iter(ids))
    ids[place] = ids[place][8:]


def remember_another_message(world: World) -> None:
    ids = world.store._partitions[0].ids
    place = next(iter(ids))
    ids[place] = bytes([ids[place][0] ^ 1]) + ids[place][1:]


def forget_an_order(world: World) -> None:
    orders = world.store._partitions[0].orders
    del orders[next(iter(orders))]


def change_an_order(world: World) -> None:
    orders = next(iter(world.store._partitions[0].orders.values()))
    key, packed = next(iter(orders.items()))
    row = np.frombuffer(packed, PACKED).copy()
    row["refunded"] += 1.0
    orders[key] = row.tobytes()


def cut_row(world: World) -> None:
    world.users(0)[b"ann"] = world.users(0)[b"ann"][:-8]


def double_with_other_payload(world: World) -> None:
    world.announce(0, world.change("ann", 2, 3, 1, model="9.9"))


def wait_with_other_payload(world: World) -> None:
    world.announce(0, world.change("bob", 2, 1, 4, model="9.9"))


def double_with_same_payload(world: World) -> None:
    world.announce(0, world.change("ann", 2, 3, 1))


def remove_record(world: World) -> None:
    del world.changes[3]


def remove_last_record(world: World) -> None:
    del world.changes[4]


def remove_all_of_a_user(world: World) -> None:
    del world.changes[1]


def empty_outbox(world: World) -> None:
    world.store._partitions[0].outbox.clear()


def swap_records(world: World) -> None:
    world.changes[3], world.changes[4] = world.changes[4], world.changes[3]


def gap_in_versions(world: World) -> None:
    world.announce(0, world.change("ann", 5, 3, 1))
    world.edit(0, "ann", "version", lambda _: 5)
    world.edit(0, "ann", "previous", lambda _: 3)
    world.edit(0, "ann", "since", lambda _: START_MS + 5 * DAY_MS)
    world.edit(0, "ann", "segment", lambda _: 1)


def wrong_from(world: World) -> None:
    world.changes[4] = world.announce(0, world.change("ann", 3, 2, 3))
    world.changes.pop()


def first_from_somewhere(world: World) -> None:
    world.changes[1] = world.announce(1, world.change("cid", 1, 5, 2))
    world.changes.pop()


def change_segment(world: World) -> None:
    world.edit(0, "ann", "segment", lambda _: 1)


def change_where_from(world: World) -> None:
    world.edit(0, "ann", "previous", lambda segment: segment + 1)


def change_since_when(world: World) -> None:
    world.edit(0, "ann", "since", lambda time_ms: time_ms - 1)


def change_version(world: World) -> None:
    world.edit(0, "ann", "version", lambda _: 2)


def announce_stranger(world: World) -> None:
    world.announce(1, world.change("ghost", 1, None, 2))


def announce_on_other_partition(world: World) -> None:
    world.changes[0].in_partition = 1
    for change in world.changes[1:]:
        change.at_offset -= change.in_partition == 0


def lose_field(world: World) -> None:
    payload = json.loads(world.changes[0].payload or b"")
    del payload["cause"]
    world.changes[0].payload = json.dumps(payload).encode()


def bury_record(world: World) -> None:
    world.changes[0].payload = None


def misname_change(world: World) -> None:
    payload = (world.changes[0].payload or b"").replace(b'-1-1"', b'-1-7"')
    world.changes[0].payload = payload


def wrong_header(world: World) -> None:
    world.changes[0].told[1] = ("ce_id", b"another")


def wrong_key(world: World) -> None:
    world.changes[0].about = b"bob"


def miscount(world: World) -> None:
    world.recount(0, late=3)


def miscount_within_the_sum(world: World) -> None:
    world.recount(0, late=1, ignored=0)


def lose_letter(world: World) -> None:
    world.topics["purchases.dlq"].pop()


def misfile_letter(world: World) -> None:
    world.topics["purchases.dlq"][0].told[3] = ("segstream-reason", b"bad_time")


def change_letter(world: World) -> None:
    world.topics["purchases.dlq"][0].payload = b"hallo"


def file_good_message(world: World) -> None:
    letter = world.topics["purchases.dlq"][0]
    told = [*letter.told]
    told[2] = ("segstream-offset", b"0")
    world.topics["purchases.dlq"].append(replace(letter, told=told))


def file_without_origin(world: World) -> None:
    world.topics["purchases.dlq"][0].told.clear()


def lose_message_in_the_middle(world: World) -> None:
    """The log says one message less than was applied."""
    clicks = world.topics["clickstream"]
    clicks.remove(next(r for r in clicks if r.in_partition == 0 and r.at_offset == 3))


def cut_log(world: World) -> None:
    clicks = world.topics["clickstream"]
    clicks.remove(next(r for r in clicks if r.in_partition == 0 and r.at_offset == 0))


def make_log_anew(world: World) -> None:
    world.topics["purchases"] = [r for r in world.topics["purchases"] if r.in_partition == 0]


def other_schema(world: World) -> None:
    world.reposition(1, schema="0123456789abcdef")
