"""The feed of changes: what is kept, who gets it, and who is dropped."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from ops.bench.takeover import NOW_MS
from stream.api.recent import Feed, Kept, Reader, Recent, as_events
from stream.store.memory import MemoryStore
from stream.units import iso
from tests.stream.api.serving import READS, SECONDS, Served, change, serving, settings_of
from tests.stream.campaigns.making import crossing


def ids(found: list[Kept] | None) -> list[str]:
    return [kept.id for kept in found or ()]


def test_only_so_many_are_kept_and_each_once() -> None:
    recent = Recent(3)
    assert recent.since() is recent.latest() is None
    fresh = recent.take(change(number, f"u{number % 2}") for number in (0, 1, 1, 2, 0))
    assert ids(fresh) == ["change-0", "change-1", "change-2"]
    recent.take([change(3, "u1"), change(4, "u0")])
    assert ids(recent.changes(10)) == ["change-2", "change-3", "change-4"]
    assert ids(recent.changes(1)) == ["change-4"]
    assert ids(recent.of_user("u0", 10)) == ["change-2", "change-4"]
    assert ids(recent.of_user("u1", 10)) == ["change-3"]
    assert recent.since() == iso(NOW_MS + 2_000)
    assert ids(recent.changes(10, since_ms=NOW_MS + 3_000)) == ["change-3", "change-4"]
    assert ids(recent.after("change-3")) == ["change-4"]
    assert recent.after("change-4") == []
    assert recent.after("change-1") is None


def test_what_became_of_segments_is_nobodys_change() -> None:
    recent = Recent(10)
    born = {"id": "l", "event": "born", "segment": 3, "kind": "new", "at": iso(NOW_MS)}
    recent.take([born, change(1)])
    assert ids(recent.changes(10)) == ["change-1"]
    assert ids(recent.lineage()) == ["l"]
    assert json.loads(recent.lineage()[0].data) == born


def test_crossings_are_of_the_user_and_of_no_kind() -> None:
    recent = Recent(10)
    crossed = crossing("user-1", NOW_MS)
    recent.take([change(1), crossed])
    assert ids(recent.changes(10)) == ids(recent.of_user("user-1", 10)) == ["change-1"]
    assert ids(recent.of_user("user-1", 10, crossings=True)) == ["change-1", crossed["id"]]
    assert ids(recent.of_user("user-1", 1, crossings=True)) == [crossed["id"]]
    assert recent.lineage() == []
    assert recent.flows("1d", NOW_MS)["changes"] == 1
    assert recent.latest() == iso(NOW_MS + 1_000)


@pytest.mark.parametrize(
    "odd",
    [
        {}, {"id": "x"}, change(1, at="soon"), change(1, at=7), change(1) | {"user": None}, change(1, user=""),
        change(1, id=7), change(1, kind_to=None), change(1, at="0001-01-01T00:00:00+23:59"),
        crossing("", NOW_MS), crossing("u", NOW_MS, at=None),
    ],
)  # fmt: skip
def test_a_record_that_is_not_ours_harms_nothing(odd: dict[str, Any]) -> None:
    recent = Recent(10)
    assert recent.take([odd, change(2)])[-1].id == "change-2"
    assert recent.flows("1d", NOW_MS)["changes"] >= 1


def test_an_id_cannot_make_a_line_of_its_own() -> None:
    (kept,) = Recent(10).take([change(1, id="a\ndata: {}", user="b\n\nevent: x")])
    (event,) = as_events([kept])
    assert event.startswith(b"id: \ndata: {")
    assert event.count(b"\n") == 3


def test_who_does_not_keep_up_is_dropped_and_nobody_else() -> None:
    async def run() -> None:
        feed = Feed(Recent(1_000), readers=2, waits=10)
        feed.open(asyncio.get_running_loop())
        quick, slow = feed.join(lambda _: True), feed.join(lambda kept: kept.kind == "at_risk")
        assert quick is not None
        assert slow is not None
        assert feed.join(lambda _: True) is None, "there are two already"
        got: list[str] = []
        for begin in range(0, 30, 5):
            await asyncio.to_thread(feed.tell, [change(begin + one) for one in range(5)])
            got += ids(await quick.take(SECONDS))
        assert got == [f"change-{number}" for number in range(30)]
        assert (quick.dropped, slow.dropped) == (False, True)
        assert await slow.take(SECONDS) == []
        feed.leave(slow)
        assert feed.join(lambda _: True) is not None

    asyncio.run(run())


def test_what_was_had_before_is_not_told_again() -> None:
    reader = Reader(10, lambda _: True)
    kept = Recent(10).take([change(1), change(2)])
    reader.past = kept[0].number
    reader.offer(kept)
    assert ids(asyncio.run(reader.take(SECONDS))) == ["change-2"]


# -- over HTTP ----------------------------------------------------------------------------------


@pytest.fixture
def served(api_store: MemoryStore) -> Iterator[Served]:
    api = {"readers": 102, "reader_waits": 200, "recent_changes": 10_000}
    with serving(settings_of(api=api), api_store) as running:
        yield running


async def follow(
    served: Served, path: str = "/v1/changes/events", last: str = "", room: int = 0
) -> Any:
    """A connection that follows; the head of its answer was read.

    Args:
        room: bytes that its system keeps for it; 0 for as many as it likes.
    """
    own = socket.socket()
    if room:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    own.connect(("127.0.0.1", served.port))
    reader, writer = await asyncio.open_connection(sock=own, limit=room or 65_536)
    more = f"Last-Event-ID: {last}\r\n" if last else ""
    told = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {READS}\r\n{more}\r\n"
    writer.write(told.encode())
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    return reader, writer, head


async def hang_up(*connections: Any) -> None:
    """Close connections, and wait until they are."""
    for _, writer, _ in connections:
        writer.close()
    for _, writer, _ in connections:
        with suppress(ConnectionError):
            await writer.wait_closed()


async def numbers(reader: asyncio.StreamReader, count: int) -> list[int]:
    """The numbers of so many changes."""
    found: list[int] = []
    while len(found) < count:
        line = await asyncio.wait_for(reader.readline(), SECONDS)
        assert line, "the answer has ended"
        if line.startswith(b"data: {"):
            found.append(int(line.partition(b'"version":')[2].partition(b",")[0]))
    return found


def test_a_hundred_follow_and_a_slow_one_delays_nobody(served: Served) -> None:
    total, portion = 1_000, 50

    async def run() -> None:
        slow = await follow(served, room=16_384)
        readers = [await follow(served) for _ in range(100)]
        assert all(b"200 OK" in head and b"text/event-stream" in head for _, _, head in readers)
        for begin in range(0, total, portion):
            some = [change(begin + one, filler="x" * 700) for one in range(portion)]
            # No reader of this loop can take anything before this returns.
            served.feed.tell(some)
            got = await asyncio.gather(*(numbers(reader, portion) for reader, _, _ in readers))
            assert got == [list(range(begin, begin + portion))] * 100
        # What waits for the slow one in the system is still theirs; then they are told why it ends.
        rest = await asyncio.wait_for(slow[0].read(-1), SECONDS)
        assert b": dropped, for too much was waiting" in rest
        assert b'"version":999,' not in rest
        await hang_up(slow, *readers)

    asyncio.run(run())


def test_a_reader_goes_on_behind_what_they_had(served: Served) -> None:
    served.feed.tell(
        change(number, kind_to="loyal" if number == 2 else "at_risk") for number in range(5)
    )

    async def run() -> None:
        first = await follow(served, last="change-1")
        assert await numbers(first[0], 3) == [2, 3, 4]
        served.feed.tell([change(5)])
        assert await numbers(first[0], 1) == [5]
        of_kind = await follow(served, "/v1/changes/events?kind=loyal", "change-0")
        assert await numbers(of_kind[0], 1) == [2]
        lost = await follow(served, last="long-ago")
        assert b"event: gap" in await lost[0].readuntil(b"{}\n\n")
        await hang_up(first, of_kind, lost)

    asyncio.run(run())


def test_one_too_many_is_refused_until_another_goes(served: Served) -> None:
    async def run() -> None:
        there = [await follow(served) for _ in range(102)]
        refused = await follow(served)
        assert b"503" in refused[2]
        await hang_up(refused, there.pop())
        for _ in range(1_000):
            last = await follow(served)
            there.append(last)
            if b"200 OK" in last[2]:
                break
            await hang_up(there.pop())
        assert b"200 OK" in last[2]
        await hang_up(*there)

    asyncio.run(run())
