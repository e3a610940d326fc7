"""The role of campaigns: kills, rebalances and new declarations change nothing of what is decided."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from consumers.campaigns import CAMPAIGNS, Campaigns
from consumers.role import Decided
from stream.campaigns.declare import Campaign, Limits
from stream.campaigns.oracle import Oracle, came_to
from stream.campaigns.triggers import CAMPAIGN_TRIGGER
from stream.config import Settings
from stream.hashing import partition_of
from stream.marks import MarkSigner
from stream.metrics import REGISTRY
from stream.records import change_id
from stream.units import iso
from tests.consumers.test_role import EVERYTHING, SECRET, START_MS, TOPIC, Scene
from tests.fakes import FakeMessage, mark_value
from tests.stream.campaigns import making
from tests.stream.campaigns.making import (
    HOUR_MS,
    campaign,
    campaigns,
    declared_levels,
    encoded,
    histories,
)
from tests.stream.campaigns.making import START_MS as BEGIN_MS

DEEP = b"[" * 100_000 + b"]" * 100_000
MARKS = {"mode": "watermark", "mark_seconds": 3_600}
END_MS = BEGIN_MS + 90 * 24 * HOUR_MS


def declare(
    declared: Sequence[Campaign], limits: Limits | None = None, mode: str = "watermark"
) -> Settings:
    return Settings.model_construct(
        **Settings.model_validate(
            {"clock": MARKS | {"mode": mode}, "worker": {"misplaced": "accept"}}
        ).__dict__
        | {
            "campaigns": tuple(declared),
            "campaign_limits": limits or Limits(),
            "levels": declared_levels(),
        }
    )


def signed(record: dict[str, Any]) -> dict[str, Any]:
    """With the id that the namespace gives it."""
    incarnation, number = map(int, record["id"].split("-")[-2:])
    return record | {"id": change_id(record["user"].encode(), SECRET, incarnation, number)}


def change(*told: Any, **fields: Any) -> dict[str, Any]:
    return signed(making.change(*told, **fields))


def crossing(*told: Any, **fields: Any) -> dict[str, Any]:
    return signed(making.crossing(*told, **fields))


class Kept:
    """What a store has of one partition, and what came out."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.own = b""
        self.triggers: list[dict[str, Any]] = []
        self.count = 0

    def start(self, settings: Settings, delivered: Sequence[bytes] = ()) -> Campaigns:
        role = Campaigns(settings, 0, SECRET)
        role.load(self.rows.items())
        role.load(list(self.rows.items())[:1])
        assert len(role) == len(self.rows)
        role.begin(self.own, delivered)
        assert len(role) == len(self.rows)
        return role

    def commit(self, role: Campaigns, decided: Decided) -> None:
        if decided.users:
            size, left = divmod(len(decided.rows), len(decided.users))
            assert left == 0
            for place, user in enumerate(decided.users):
                self.rows[user] = decided.rows[place * size : (place + 1) * size]
        self.own = self.own if decided.own is None else decided.own
        self.triggers += map(json.loads, decided.records)
        assert len(role) == len(self.rows)

    def step(self, role: Campaigns, values: Sequence[bytes], now_ms: int) -> None:
        self.commit(
            role, role.decide([FakeMessage(one, topic_name=TOPIC) for one in values], now_ms)
        )

    @property
    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.own)
        return found

    def conserves(self) -> bool:
        counts = {name: sum(of.values()) for name, of in self.told["counts"].items()}
        return bool(counts == self.told["seen"])


def at(record: dict[str, Any]) -> int:
    return int(np.datetime64(record["at"][:-1], "ms").astype(int))


@given(campaigns(), histories())
@hypothesis_settings(max_examples=40, deadline=None)
def test_a_restart_between_any_two_steps_changes_nothing(
    declared: list[Campaign], history: list[dict[str, Any]]
) -> None:
    limits = Limits.model_validate({"per_user": {"day": 1, "week": 3}, "global_holdout": 0.1})
    settings = declare(declared, limits)
    once, often = Kept(), Kept()
    role = once.start(settings)
    oracle = Oracle(declared, limits, SECRET)
    told = []
    history = [signed(record) for record in history]
    for number, (record, value) in enumerate(zip(history, encoded(history), strict=True)):
        now = max(map(at, history[: number + 1]))
        once.step(role, [value], now)
        restarted = often.start(settings)
        # A repeat is no change.
        often.step(restarted, [value, value], now)
        told += oracle.change(record) + oracle.advance(now - HOUR_MS)
    if history:
        once.step(role, [], END_MS)
        often.step(often.start(settings), [], END_MS)
        told += oracle.advance(END_MS - HOUR_MS)
        assert once.conserves()
        for field in ("seen", "counts", "versions"):
            assert often.told[field] == once.told[field]
    # In one step users come in any order.
    assert sorted(often.triggers, key=itemgetter("id")) == sorted(
        once.triggers, key=itemgetter("id")
    )
    assert often.rows.keys() == once.rows.keys()
    wanted = Counter(
        (one.user, one.campaign, one.arm, one.at_ms) for one in told if one.outcome == "sent"
    )
    assert wanted == Counter(
        (one["user"], one["campaign"], one["arm"], at(one)) for one in once.triggers
    )
    ids = [one["id"] for one in once.triggers]
    assert len(set(ids)) == len(ids)


def test_an_older_change_that_is_told_again_undoes_nothing() -> None:
    kept = Kept()
    declared = declare([campaign(settle="2h")])
    old = encoded([change("u", BEGIN_MS, 1, kind_to="loyal", to=2)])
    kept.step(kept.start(declared), old, BEGIN_MS)
    kept.step(kept.start(declared), encoded([change("u", BEGIN_MS, 2)]), BEGIN_MS)
    kept.step(kept.start(declared), old, BEGIN_MS + HOUR_MS)
    kept.step(kept.start(declared), [], BEGIN_MS + 9 * HOUR_MS)
    assert [one["change"][-4:] for one in kept.triggers] == ["-1-2"]
    assert kept.told["seen"] == {"win-back": 2}


def test_who_settles_does_so_by_the_declaration_that_was_in_force() -> None:
    before = campaign(settle="10h", valid_for="1d")
    kept = Kept()
    kept.step(kept.start(declare([before])), encoded([change()]), BEGIN_MS)
    after = [campaign("other"), campaign(settle="2h", valid_for="3h", arms={"x": 1})]
    role = kept.start(declare(after))
    kept.step(role, [], BEGIN_MS + 9 * HOUR_MS)
    assert kept.triggers == []
    kept.step(kept.start(declare(after)), [], BEGIN_MS + 12 * HOUR_MS)
    (sent,) = kept.triggers
    assert (sent["version"], sent["arm"]) == (before.version, "sent")
    assert sent["id"].startswith(f"win-back-{before.version}-")
    assert at(sent) == BEGIN_MS + 10 * HOUR_MS
    assert kept.conserves()
    kept.step(kept.start(declare(after)), encoded([change("v", END_MS)]), END_MS)
    kept.step(kept.start(declare(after)), [], END_MS + 12 * HOUR_MS)
    assert {one["version"] for one in kept.triggers[1:]} == {one.version for one in after}


def test_what_is_under_way_ends_with_a_campaign_that_is_taken_out() -> None:
    kept = Kept()
    both = [campaign(settle="2h"), campaign("stays", settle="2h")]
    kept.step(kept.start(declare(both)), encoded([change()]), BEGIN_MS)
    kept.step(kept.start(declare(both[1:])), [], BEGIN_MS + 9 * HOUR_MS)
    assert [one["campaign"] for one in kept.triggers] == ["stays"]
    assert kept.told["counts"]["win-back"]["ended"] == 1
    assert kept.told["counts"]["win-back"]["settling"] == 0
    assert kept.conserves()


def test_a_campaign_that_comes_back_knows_whom_it_has_sent_to() -> None:
    kept = Kept()
    cooling = campaign(cooldown="30d")
    kept.step(kept.start(declare([cooling])), encoded([change()]), BEGIN_MS)
    later = BEGIN_MS + HOUR_MS
    kept.step(kept.start(declare([campaign("x")])), encoded([change("u", later, 2)]), later)
    later += HOUR_MS
    kept.step(kept.start(declare([cooling])), encoded([change("u", later, 3)]), later)
    assert [one["campaign"] for one in kept.triggers] == ["win-back", "x"]
    assert kept.told["counts"]["win-back"]["cooling"] == 1
    assert kept.told["seen"] == {"win-back": 2, "x": 1}


def test_what_was_delivered_is_known_though_the_state_was_lost() -> None:
    kept, lost = Kept(), Kept()
    declared = declare([campaign(cooldown="1d"), campaign("next")], mode="live")
    kept.step(kept.start(declared), encoded([change()]), BEGIN_MS)
    sent = [json.dumps(one).encode() for one in kept.triggers]
    assert len(sent) == 2
    role = lost.start(declared, sent)
    lost.step(role, encoded([change()]), BEGIN_MS + 1_000)
    assert lost.triggers == []
    lost.step(role, encoded([change("u", BEGIN_MS, 2)]), BEGIN_MS + 2_000)
    assert [one["campaign"] for one in lost.triggers] == ["next"]


def test_live_nothing_is_sent_too_late() -> None:
    kept = Kept()
    role = kept.start(declare([campaign(valid_for="1h")], mode="live"))
    kept.step(role, encoded([change(), change("v")]), BEGIN_MS + 2 * HOUR_MS)
    assert kept.triggers == []
    assert kept.told["counts"]["win-back"]["expired"] == 2
    kept.step(role, encoded([change("w")]), BEGIN_MS)
    (sent,) = kept.triggers
    assert (sent["user"], at(sent)) == ("w", BEGIN_MS)


def test_what_is_no_change_is_passed_over() -> None:
    kept = Kept()
    role = kept.start(declare([campaign()]))
    born = b'{"id": "1.0-1", "event": "born", "segment": 3}'
    kept.step(role, [b"", b"\xff", b"{}", b'{"event": "born"}', born], BEGIN_MS)
    assert (kept.rows, kept.triggers) == ({}, [])
    assert kept.told["records"] == {"unreadable": 4, "of_segments": 1}


def in_memory(monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A worker of the role between a log of changes and a store."""
    scene = Scene(monkeypatch, clock=MARKS)
    scene.consumer.log.clear()
    scene.role = CAMPAIGNS
    scene.consumer.partitions = dict.fromkeys(CAMPAIGNS.reads(scene.settings), len(EVERYTHING))
    scene.settings = declare(
        [campaign(settle="2h", arms={"a": 1, "b": 1}), campaign("at-once", holdout=0.2)]
    ).model_copy(
        update={name: getattr(scene.settings, name) for name in ("broker", "topics", "publisher")}
    )
    for n in range(80):
        moved = change(f"u{n % 9}", START_MS + n * HOUR_MS // 3, n + 1)
        scene.consumer.append(TOPIC, n % 9 % 2, encoded([moved])[0], START_MS)
    return scene


def sent_by(scene: Scene) -> list[bytes]:
    return sorted(
        one
        for number, _ in enumerate(EVERYTHING)
        for entry in scene.store.outbox({number: "0-0"}, 10**6, 0.0).get(number, [])
        for one in entry.changes
    )


def test_what_is_no_change_takes_no_clock_along(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sent_by(in_memory(monkeypatch).run())
    mixed = in_memory(monkeypatch)
    later = making.change("u0", number=99, at="2099-01-01T00:00:00.000Z")
    born = b'{"at": "2099-01-01T00:00:00.000Z", "event": "born"}'
    for value in (b"", b"{", born, b"\xff", *encoded([later])):
        for number in range(len(EVERYTHING)):
            mixed.consumer.append(TOPIC, number, value, START_MS + 10**10)
    mixed.run()
    assert sent_by(mixed) == expected
    for number in range(len(EVERYTHING)):
        assert mixed.position(number).clock_ms < START_MS + 80 * HOUR_MS


def test_killed_at_any_step_it_sends_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def sent(kill_after: int | None) -> tuple[list[Any], int]:
        scene = in_memory(monkeypatch)
        if kill_after is not None:
            scene.run(until=lambda: len(scene.store.heard) > kill_after)
        scene.run()
        return sent_by(scene), len(scene.store.heard)

    whole, steps = sent(None)
    assert len(whole) > 20
    assert steps > 6
    for kill_after in range(steps):
        assert sent(kill_after)[0] == whole


# -- purchases -----------------------------------------------------------------------------------


def order(user: str, at_ms: int, number: int, total: float, **fields: Any) -> FakeMessage:
    event = {
        "type": "track",
        "event": "Order Completed",
        "userId": user,
        "messageId": f"m{number}",
        "timestamp": iso(at_ms),
        "properties": {"order_id": f"o{number}", "total": total},
    }
    value = json.dumps(event | fields).encode()
    return FakeMessage(value, topic_name="purchases", timestamp_ms=at_ms)


def moved(*changes: dict[str, Any]) -> list[FakeMessage]:
    return [FakeMessage(one, topic_name=TOPIC) for one in encoded(changes)]


MEASURED: dict[str, Any] = {"holdout": 0.4, "goal": {"within": "7d"}}


def test_what_users_buy_is_counted_by_arm_when_their_window_is_over() -> None:
    """Against the sums of the log, with restarts in between, repeats, and purchases read too early."""
    declared = declare([campaign(**MEASURED)], mode="live")
    kept, expected = Kept(), dict[str, list[float]]()
    arms = Oracle(declared.campaigns, declared.campaign_limits, SECRET)
    spends = {f"u{n}": [] if n % 3 else [7.0 + n, 2.0] for n in range(60)}
    for number, (user, spent) in enumerate(spends.items()):
        role = kept.start(declared)
        at_ms = BEGIN_MS + number * 60_000
        bought = [
            order(user, at_ms + 1_000 + place, 10 * number + place, total)
            for place, total in enumerate(spent)
        ]
        late = order(user, at_ms + 8 * 24 * HOUR_MS, 1_000 + number, 100.0)
        # The topics are read side by side: what was bought may come before the change.
        for messages in (bought, moved(change(user, at_ms)), bought, [late]):
            kept.commit(role, role.decide(messages, at_ms))
        arm = arms.arm(declared.campaigns[0], user)
        of_arm = expected.setdefault(arm, [0, 0, 0.0])
        of_arm[0] += 1
        of_arm[1] += bool(spent)
        of_arm[2] += sum(spent)
    role = kept.start(declared)
    # Nothing is bought any more: after a while it is known that nothing is left to be read.
    for later in (7 * 24 * HOUR_MS, 7 * 24 * HOUR_MS + 2 * HOUR_MS, 9 * 24 * HOUR_MS):
        kept.commit(role, role.decide([], BEGIN_MS + later))
    version = declared.campaigns[0].version
    sums = kept.told["sums"]["win-back"][version]
    found = {arm: [of["users"], of["converted"], of["revenue"]] for arm, of in sums.items()}
    assert found == expected
    assert set(found) == {"holdout", "sent"}
    assert not any(kept.told["still_open"]["win-back"][version].values())
    assert all(of["active"] == 0 for of in sums.values())


def test_a_window_is_not_closed_before_its_purchases_are_read() -> None:
    kept, declared = Kept(), declare([campaign(**MEASURED)], mode="live")
    role = kept.start(declared)
    kept.commit(role, role.decide(moved(change("u1")), BEGIN_MS))
    later = BEGIN_MS + 8 * 24 * HOUR_MS
    # It was away, and reads on where it was: it goes by the time of what it reads.
    kept.commit(role, role.decide([order("u1", BEGIN_MS + HOUR_MS, 1, 5.0)], later))
    assert kept.told["sums"] == {}
    kept.commit(role, role.decide([order("x", later, 2, 5.0)], later + 1))
    (of_arm,) = kept.told["sums"]["win-back"][declared.campaigns[0].version].values()
    assert (of_arm["users"], of_arm["converted"], of_arm["revenue"]) == (1, 1, 5.0)


def test_from_mark_to_mark_a_year_is_measured_as_the_year_would_have_been() -> None:
    """All purchases are read first, as in a replay that is quick; marks end the windows."""
    declared = declare([campaign(**MEASURED)])
    signer = MarkSigner(SECRET)
    kept = Kept()
    role = kept.start(declared)
    bought = [order(f"u{n}", BEGIN_MS + n * HOUR_MS + 60_000, n, 3.0) for n in range(20)]
    mark = FakeMessage(mark_value(END_MS, END_MS, ("purchases", 0), signer), topic_name="purchases")
    kept.commit(role, role.decide([*bought, mark], 0))
    role = kept.start(declared)
    for n in range(20):
        messages = moved(change(f"u{n}", BEGIN_MS + n * HOUR_MS))
        kept.commit(role, role.decide(messages, BEGIN_MS + n * HOUR_MS))
    assert kept.told["sums"] == {}
    kept.commit(role, role.decide([], END_MS))
    sums = kept.told["sums"]["win-back"][declared.campaigns[0].version]
    assert sum(of["users"] for of in sums.values()) == 20
    assert sum(of["converted"] for of in sums.values()) == 20


def test_what_was_measured_of_an_earlier_declaration_is_kept_apart() -> None:
    kept, later = Kept(), BEGIN_MS + 8 * 24 * HOUR_MS
    first = declare([campaign(**MEASURED)], mode="live")
    second = declare([campaign(**MEASURED, cooldown="1d")], mode="live")
    role = kept.start(first)
    kept.commit(role, role.decide(moved(change("u1")), BEGIN_MS))
    role = kept.start(second)
    # Their window is over when the new one begins, though nobody has looked since.
    kept.commit(role, role.decide(moved(change("u1", later, 2)), later))
    sums, opened = kept.told["sums"]["win-back"], kept.told["still_open"]["win-back"]
    assert set(sums) == {first.campaigns[0].version}
    assert sum(opened[second.campaigns[0].version].values()) == 1
    role = kept.start(declare([campaign("another")], mode="live"))
    kept.commit(role, role.decide(moved(change("u2", later, 1)), later))
    assert kept.told["sums"]["win-back"] == sums


# -- what people say -----------------------------------------------------------------------------


def told(**fields: Any) -> FakeMessage:
    return FakeMessage(json.dumps(fields).encode(), topic_name="campaign-control")


def test_a_campaign_is_paused_over_restarts_and_goes_on() -> None:
    kept, declared = Kept(), declare([campaign(settle="2h"), campaign("at-once")], mode="live")
    role = kept.start(declared)
    kept.commit(role, role.decide(moved(change("u1")), BEGIN_MS))
    kept.commit(role, role.decide([told(campaign="win-back", paused=True)], BEGIN_MS))
    role = kept.start(declared)
    messages = moved(change("u2"))
    kept.commit(role, role.decide(messages, BEGIN_MS + 3 * HOUR_MS))
    assert kept.told["counts"]["win-back"]["paused"] == 2
    assert {one["campaign"] for one in kept.triggers} == {"at-once"}
    kept.commit(role, role.decide([told(campaign="win-back", paused=False)], BEGIN_MS))
    kept.commit(role, role.decide(moved(change("u3")), BEGIN_MS + 3 * HOUR_MS))
    kept.commit(role, role.decide([], BEGIN_MS + 6 * HOUR_MS))
    assert [one["user"] for one in kept.triggers if one["campaign"] == "win-back"] == ["u3"]
    assert kept.conserves()


def test_who_is_suppressed_gets_nothing_until_that_is_taken_back() -> None:
    kept, declared = Kept(), declare([campaign()], mode="live")
    role = kept.start(declared)
    kept.commit(role, role.decide([told(user="u1", suppressed=True)], BEGIN_MS))
    role = kept.start(declared)
    kept.commit(role, role.decide(moved(change("u1"), change("u2")), BEGIN_MS))
    kept.commit(role, role.decide([told(user="u1", suppressed=False)], BEGIN_MS))
    kept.commit(role, role.decide(moved(change("u1", BEGIN_MS, 2)), BEGIN_MS))
    assert [one["user"] for one in kept.triggers] == ["u2", "u1"]
    assert kept.told["counts"]["win-back"]["suppressed"] == 1


def test_a_trait_suppresses_until_it_says_otherwise_over_restarts_and_declarations() -> None:
    limits = Limits.model_validate({"suppress": {"unsubscribed": True}, "zone_trait": "timezone"})
    kept, declared = Kept(), declare([campaign()], limits, mode="live")
    role = kept.start(declared)
    said = [
        told(user="u1", traits={"unsubscribed": True, "timezone": "Asia/Tokyo"}),
        # Segment's own message; what else it has is nobody's business here.
        told(type="identify", userId="u2", traits={"unsubscribed": "True", "email": "a@b.c"}),
        told(type="identify", userId="u3", traits={"unsubscribed": False, "timezone": None}),
        told(user="u4", suppressed=True, traits={"unsubscribed": True}),
        # Whether somebody has suppressed the user is another matter than what a trait says.
        told(user="u4", traits={"unsubscribed": False}),
    ]
    kept.commit(role, role.decide(said, BEGIN_MS))
    assert (kept.told["traits"], kept.told["zones"]) == (["unsubscribed"], ["Asia/Tokyo"])
    more = Limits.model_validate({"suppress": {"country": "de", "unsubscribed": True}})
    declared = declare([campaign()], more, mode="live")
    role = kept.start(declared)
    users = ("u1", "u2", "u3", "u4")
    kept.commit(role, role.decide(moved(*map(change, users)), BEGIN_MS))
    assert [one["user"] for one in kept.triggers] == ["u3"]
    kept.commit(role, role.decide([told(user="u1", traits={"unsubscribed": False})], BEGIN_MS))
    again = [change(user, BEGIN_MS, 2) for user in users]
    kept.commit(role, role.decide(moved(*again), BEGIN_MS))
    assert [one["user"] for one in kept.triggers] == ["u3", "u1", "u3"]
    # A trait that is declared no more suppresses nobody, and is remembered for when it is again.
    role = kept.start(declare([campaign()], mode="live"))
    kept.commit(role, role.decide(moved(change("u2", BEGIN_MS, 3)), BEGIN_MS))
    assert kept.triggers[-1]["user"] == "u2"
    role = kept.start(declared)
    kept.commit(role, role.decide(moved(change("u2", BEGIN_MS, 4)), BEGIN_MS))
    assert len(kept.triggers) == 4
    assert kept.told["counts"]["win-back"]["suppressed"] == 6


def test_of_a_user_of_whom_nothing_is_said_that_matters_nothing_is_kept() -> None:
    """All users of a shop may be told of here, with traits that campaigns do not ask for."""
    limits = Limits.model_validate({"suppress": {"unsubscribed": True}, "zone_trait": "timezone"})
    kept, declared = Kept(), declare([campaign()], limits, mode="live")
    role = kept.start(declared)
    said = [told(type="identify", userId=f"u{n}", traits={"plan": "pro"}) for n in range(9)]
    kept.commit(role, role.decide([*said, told(user="u"), told(user="u", traits=None)], BEGIN_MS))
    assert (kept.rows, kept.own) == ({}, b"")
    assert len(role) == 0


def test_who_is_not_known_by_name_yet_is_no_record_that_nobody_can_obey() -> None:
    role, before = Kept().start(declare([campaign()], mode="live")), passed_over()
    anonymous = {"type": "identify", "anonymousId": "a1", "traits": {"unsubscribed": True}}
    role.decide([told(**anonymous), told(**anonymous, userId=None)], BEGIN_MS)
    assert passed_over() == before
    role.decide([told(anonymousId="a1")], BEGIN_MS)
    assert passed_over() == before + 1


def test_more_traits_than_a_row_has_bits_for_refuse_to_start() -> None:
    kept = Kept()
    for first in (0, 8):
        limits = Limits.model_validate({"suppress": {f"t{first + n}": True for n in range(8)}})
        declared = declare([campaign()], limits, mode="live")
        if first:
            with pytest.raises(ValueError, match=r"campaign_limits\.suppress: .* 16 traits"):
                kept.start(declared)
        else:
            role = kept.start(declared)
            kept.commit(role, role.decide([told(user="u", traits={"t0": True})], BEGIN_MS))


def test_of_an_erased_user_no_purchase_is_kept_and_a_suppressed_one_is_measured_on() -> None:
    kept, declared = Kept(), declare([campaign(**MEASURED)], mode="live")
    role = kept.start(declared)
    kept.commit(role, role.decide(moved(change("u1"), change("u2")), BEGIN_MS))
    bought = [order("u1", BEGIN_MS + 1, 1, 5.0), order("u2", BEGIN_MS + 1, 2, 5.0)]
    kept.commit(role, role.decide(bought, BEGIN_MS + 1))
    said = [told(user="u2", suppressed=True), *moved(change("u1", BEGIN_MS + 2, 2, cause="erased"))]
    kept.commit(role, role.decide(said, BEGIN_MS + 2))
    role = kept.start(declared)
    later = [order("u1", BEGIN_MS + 3, 3, 5.0), order("u2", BEGIN_MS + 3, 4, 5.0)]
    kept.commit(role, role.decide(later, BEGIN_MS + 3))
    end_ms = BEGIN_MS + 8 * 24 * HOUR_MS
    kept.commit(role, role.decide([order("x", end_ms, 5, 5.0)], end_ms))
    sums = kept.told["sums"]["win-back"][declared.campaigns[0].version].values()
    assert sum(of["users"] for of in sums) == 2
    assert sum(of["revenue"] for of in sums) == 10.0


def test_a_users_own_zone_is_kept() -> None:
    """21:00 in London is the afternoon of New York, and the night of Tokyo."""
    quiet = {"from": "20:00", "to": "08:00", "zone": "Europe/London", "then": "drop"}
    kept, declared = Kept(), declare([campaign(quiet=quiet)], mode="live")
    role = kept.start(declared)
    zones = {"u1": "America/New_York", "u2": "Asia/Tokyo", "u3": None, "u4": "Nowhere/At_All"}
    messages = [told(user=user, zone=zone) for user, zone in zones.items()]
    kept.commit(role, role.decide(messages, BEGIN_MS))
    role = kept.start(declared)
    evening = BEGIN_MS + 21 * HOUR_MS
    kept.commit(role, role.decide(moved(*(change(user, evening) for user in zones)), evening))
    assert [one["user"] for one in kept.triggers] == ["u1"]
    assert kept.told["zones"] == ["America/New_York", "Asia/Tokyo"]


def test_a_zone_that_is_not_known_on_another_machine_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A partition moves to a machine that knows fewer zones: neither the user's nor an earlier declaration's."""

    def quiet(zone: str) -> dict[str, Any]:
        return {"from": "20:00", "to": "08:00", "zone": zone, "then": "wait"}

    kept, evening = Kept(), BEGIN_MS + 21 * HOUR_MS
    role = kept.start(declare([campaign(quiet=quiet("Asia/Tokyo"))], mode="live"))
    kept.commit(role, role.decide([told(user="u", zone="Europe/London")], BEGIN_MS))
    kept.commit(role, role.decide(moved(change("u", evening)), evening))
    assert kept.told["counts"]["win-back"]["waiting"] == 1

    def unknown(name: str) -> ZoneInfo:
        if name in {"Asia/Tokyo", "Europe/London"}:
            raise ValueError(name)
        return ZoneInfo(name)

    monkeypatch.setattr("stream.campaigns.quiet.zone", unknown)
    monkeypatch.setattr("stream.campaigns.declare.zone", unknown)
    role = kept.start(declare([campaign(quiet=quiet("America/New_York"))], mode="live"))
    # Eight o'clock of London has come, and by UTC it is no quiet hour either.
    kept.commit(role, role.decide([], evening + 11 * HOUR_MS))
    assert [one["user"] for one in kept.triggers] == ["u"]
    kept.commit(role, role.decide(moved(change("u", evening + 12 * HOUR_MS, 2)), evening))
    assert kept.told["zones"] == ["Europe/London"]
    assert "Europe/London is not known on this machine" in caplog.text
    assert kept.conserves()


def passed_over() -> float:
    return REGISTRY.get_sample_value("segstream_campaign_control_unreadable_total") or 0.0


@pytest.mark.parametrize(("misplaced", "counted"), [("refuse", 1), ("accept", 0)])
def test_a_record_in_another_partition_than_its_users_is_told_of(
    misplaced: str, counted: int
) -> None:
    settings = Settings.model_validate(
        {"campaigns": [campaign().model_dump()], "worker": {"misplaced": misplaced}}
    )
    home = partition_of(b"u1", settings.topics.partitions)
    role, before = Kept().start(settings), passed_over()
    value = json.dumps({"user": "u1", "suppressed": True}).encode()
    for number in (home, (home + 1) % settings.topics.partitions):
        role.decide([FakeMessage(value, topic_name="campaign-control", number=number)], BEGIN_MS)
    assert passed_over() - before == counted


def test_what_is_no_change_of_any_time_is_passed_over() -> None:
    """An absurd time would take the user's clock along, and a zone has no clock for it."""
    quiet = {"from": "20:00", "to": "08:00", "zone": "Europe/London", "then": "wait"}
    for mode in ("live", "watermark"):
        kept, declared = Kept(), declare([campaign(quiet=quiet)], mode=mode)
        role = kept.start(declared, [b"{", DEEP])
        deep = msgspec.json.encode(change("deep")).replace(b'"why":[]', b'"why":%b' % DEEP)
        absurd = [
            change(f"u{year}", at=f"{year}-01-01T00:00:00Z")
            for year in ("0001", "1969", "2101", "9999")
        ]
        records = [FakeMessage(one, topic_name=TOPIC) for one in [deep, DEEP, *encoded(absurd)]]
        assert [role.time_ms(one) for one in records] == [0] * len(records)
        kept.commit(role, role.decide([*records, *moved(change("u1"))], BEGIN_MS))
        kept.commit(role, role.decide([], BEGIN_MS + 24 * HOUR_MS))
        assert kept.told["seen"] == {"win-back": 1}


@st.composite
def records_of_anybody(draw: st.DrawFn) -> bytes:
    """A change, or one that somebody has spoilt: a field more, less or another, or other bytes."""
    number = draw(st.integers(0, 3))
    make = draw(st.sampled_from([change, crossing]))
    record = make(draw(st.sampled_from(["u", "v"])), BEGIN_MS + number * HOUR_MS, number)
    odd: Any = st.sampled_from(
        [
            None, True, -1, 0, 1, 2**31, 2**63, 10**40, 0.5, "", "x", "u", "\u0000", "at_risk", [], {}, [{}],
            [{"feature": "orders_30d"}], [{"feature": 1}], {"buy": 0.5}, {"buy": None}, {"buy": True},
            "1994-12-31T23:59:59.999Z", "2100-01-01T00:00:00Z", "2099-12-31T23:59:59Z",
            "2025-11-01T01:00:00+01:00", "2025-11-01T00:00:00", "9999-12-31T23:59:59-12:00",
            "0001-01-01T00:00:00+12:00", "2025-11-01", "u-1-1", "-1-1", f"{'0' * 32}-1-1",
        ]
    )  # fmt: skip
    for _ in range(draw(st.integers(0, 2))):
        field = draw(st.sampled_from([*record, "scores", "level", "to", "event", "segment"]))
        if draw(st.booleans()):
            record[field] = draw(odd)
        else:
            record.pop(field, None)
    if draw(st.booleans()):
        name = record.get("id")
        ends = ("", "-1", "-1-1-1", f"-{2**62 + 1}-1", f"-1-{2**31}", "-x-1", f"-1-{'9' * 5_000}")
        end = draw(st.sampled_from(["-1-1", *ends]))
        record["id"] = f"{name[:32]}{end}" if isinstance(name, str) else name
    value = msgspec.json.encode(record)
    if draw(st.integers(0, 9)) == 0:
        value = draw(
            st.sampled_from([value[:-1], b"[" + value + b"]", value + b"\xff", b"null", DEEP])
        )
    return value


@given(st.lists(records_of_anybody(), max_size=8), st.booleans())
@hypothesis_settings(max_examples=300, deadline=None)
def test_what_anybody_writes_to_the_changes_is_told_apart_as_the_oracle_does(
    values: list[bytes], scored: bool
) -> None:
    when = {"kind_to": ["at_risk"]} | ({"scores": {"buy": {"min": 0}}} if scored else {})
    kept, declared = Kept(), declare([campaign(when=when)])
    kept.step(kept.start(declared), values, BEGIN_MS)
    told = Counter(came_to(value, SECRET, scored=scored) for value in values)
    found = Counter(kept.told["records"]) if kept.own else Counter()
    found["change"] += found.pop("repeated", 0)
    assert +found == told
    assert kept.conserves() if kept.own else not values


def test_live_a_change_of_the_future_is_refused() -> None:
    """An owner's clock may be ahead by as much as any other's; who is further ahead takes nobody along."""
    kept, declared = Kept(), declare([campaign()], mode="live")
    ahead_ms = BEGIN_MS + round(declared.worker.future_seconds * 1_000)
    before = refused("time")
    role = kept.start(declared)
    decided = role.decide(moved(change("u", ahead_ms + 1), change("v", ahead_ms)), BEGIN_MS)
    kept.commit(role, decided)
    assert decided.tell is not None
    decided.tell()
    assert [one["user"] for one in kept.triggers] == ["v"]
    assert kept.told["records"] == {"time": 1, "change": 1}
    assert refused("time") == before + 1


def test_a_change_in_another_partition_than_its_users_is_refused() -> None:
    """There another worker decides about the user, and knows nothing of caps and cooldowns here."""
    settings = Settings.model_validate({"campaigns": [campaign().model_dump()]})
    home = partition_of(b"u", settings.topics.partitions)
    for number, came in ((home, "change"), ((home + 1) % settings.topics.partitions, "misplaced")):
        kept, role = Kept(), Campaigns(settings, number, SECRET)
        role.begin(b"", ())
        kept.commit(role, role.decide(moved(change("u")), BEGIN_MS))
        assert kept.told["records"] == {came: 1}
        assert len(kept.triggers) == (came == "change")


@pytest.mark.parametrize(
    "odd",
    [
        {"at": "soon"}, {"at": "9999-12-31T00:00:00Z"}, {"at": "0001-01-01T00:00:00Z"}, {"at": 7},
        {"change": f"{'0' * 32}-1-1"}, {"user": "v"}, {"id": "x"}, {"id": None}, {"campaign": "other"},
    ],
)  # fmt: skip
def test_a_trigger_that_the_role_has_not_sent_holds_nobody_back(odd: dict[str, Any]) -> None:
    """Else whoever writes to the topic could cap anybody for ever."""
    limits = Limits.model_validate({"per_user": {"day": 1}})
    declared = declare([campaign(cooldown="30d")], limits)
    kept, other = Kept(), Kept()
    kept.step(kept.start(declared), encoded([change("u")]), BEGIN_MS)
    (sent,) = kept.triggers
    role = other.start(declared, [json.dumps(sent | odd).encode()])
    other.step(role, encoded([change("u")]), BEGIN_MS)
    assert other.triggers == [sent]


def test_only_moves_under_way_are_kept_and_their_numbers_are_given_again() -> None:
    """A shop has thousands of moves, and the state is written with each commit."""
    kept, declared = Kept(), declare([campaign(settle="10h")])
    for turn in range(4):
        now_ms = BEGIN_MS + turn * HOUR_MS
        role = kept.start(declared)
        others = [
            change(f"v{n}", now_ms, turn + 1, name_to=f"{turn}.{n}", kind_to="loyal")
            for n in range(30)
        ]
        kept.step(role, encoded([*others, change(f"u{turn}", now_ms)]), now_ms)
        assert len([move for move in kept.told["moves"] if move]) == 1
        assert len(kept.told["moves"]) <= 31
    kept.step(kept.start(declared), [], BEGIN_MS + 14 * HOUR_MS)
    assert [one["name_to"] for one in kept.triggers] == ["At risk"] * 4
    assert kept.told["moves"] == []


def refused(reason: str) -> float:
    name = "segstream_campaign_records_refused_total"
    return REGISTRY.get_sample_value(name, {"reason": reason}) or 0.0


def test_what_nobody_can_obey_is_passed_over() -> None:
    kept, declared = Kept(), declare([campaign()], mode="live")
    role = kept.start(declared)
    strangers = [b"", b"{", b"\xff", b"[]", b"{}", b'{"user": 1}', b'{"campaign": "x"}']
    strangers += [b'{"user": "u1", "traits": {"a": %b}}' % DEEP, b'{"user": "u1", "x": %b}' % DEEP]
    messages = [FakeMessage(one, topic_name="campaign-control") for one in strangers]
    kept.commit(role, role.decide(messages, BEGIN_MS))
    kept.commit(role, role.decide(moved(change("u1")), BEGIN_MS))
    assert len(kept.triggers) == 1


def test_steps_are_kept_for_campaigns_and_levels_that_come_later() -> None:
    """Where a user stands is known from before the campaign was declared, and outlives other levels."""
    best = campaign(when={"kind_to": ["at_risk"], "steps": {"value_tier": ["high"]}})
    kept = Kept()
    tier: dict[str, Any] = {"level": "value_tier", "step_from": "regular", "step_to": "high"}
    without = declare([campaign("other", when={"kind_to": ["dormant"]})])
    first = [crossing("u", BEGIN_MS, 1, **tier), crossing("v", BEGIN_MS, 1)]
    kept.step(kept.start(without), encoded(first), BEGIN_MS)
    settings = declare([best])
    reversed_levels = Settings.model_construct(
        **settings.__dict__ | {"levels": settings.levels[::-1]}
    )
    changes = [change("u", BEGIN_MS + 1, 2), change("v", BEGIN_MS + 1, 2)]
    kept.step(kept.start(reversed_levels), encoded(changes), BEGIN_MS + 1)
    assert [one["user"] for one in kept.triggers] == ["u"]
    gone = Settings.model_construct(**settings.__dict__ | {"levels": settings.levels[:1]})
    kept.step(kept.start(gone), encoded([change("u", BEGIN_MS + 2, 3)]), BEGIN_MS + 2)
    assert len(kept.triggers) == 1


def test_rows_of_before_levels_are_read() -> None:
    """Without any level a row is as it was before there were levels."""
    settings = declare([campaign()])
    none = Settings.model_construct(**settings.__dict__ | {"levels": ()})
    kept = Kept()
    kept.step(kept.start(none), encoded([change("u", BEGIN_MS, 1)]), BEGIN_MS)
    before = len(kept.rows[b"u"])
    again = encoded([change("u", BEGIN_MS + HOUR_MS, 2)])
    kept.step(kept.start(settings), again, BEGIN_MS + HOUR_MS)
    assert len(kept.triggers) == 2
    assert len(kept.rows[b"u"]) == before + 2 * 8


def test_a_trigger_tells_the_crossing_that_it_is_about() -> None:
    kept = Kept()
    risk = campaign(when={"level": "churn_risk", "step_to": ["high"]})
    record = crossing("u", BEGIN_MS, 4)
    kept.step(kept.start(declare([risk])), encoded([record]), BEGIN_MS)
    (found,) = kept.triggers
    assert (found["level"], found["step_from"], found["step_to"]) == (
        "churn_risk",
        "medium",
        "high",
    )
    assert (found["from"], found["to"], found["kind_to"]) == (None, None, None)
    CAMPAIGN_TRIGGER.validate_python(found)
    role = kept.start(declare([risk]))
    assert role.time_ms(FakeMessage(encoded([record])[0], topic_name=TOPIC)) == BEGIN_MS
