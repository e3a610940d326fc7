"""`segstream plan` and `apply` from outside: what they say and refuse, and that the one does the other."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from producers.files import Source
from producers.mapping import load_mapping
from stream.cli import main
from stream.cli.invocation import invocation
from stream.config import Settings
from stream.config_layers import load
from stream.events import Counts
from stream.features import FeatureTable
from stream.insight import applying, plan
from stream.learning.state import TrainerState
from stream.partition import Partition
from stream.store.memory import MemoryStore
from stream.store.state import Answer, Commit, Position
from stream.sweeps import SampleRequest
from stream.trainer import Trainer
from stream.tuning import Tuning
from stream.wiring import roles
from stream.wiring.history import opener

START = datetime(2025, 1, 1, tzinfo=UTC)
SHOP = """
populations = []
[topics]
partitions = 2
[clock]
mode = "watermark"
mark_seconds = "20d"
[learning]
segments = {k}
first_model_users = 100
refit_seconds = "60d"
"""
ANOTHER = """
[[features]]
name = "days_since_seen"
aggregate = "last"
[[features]]
name = "orders_90d"
aggregate = "count"
on = ["Order Completed"]
half_life = "90d"
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Regulars, who stopped long ago, and who came once, lately: sixty of each."""
    rng = np.random.default_rng(1)
    rows = []
    for number in range(60):
        days = {
            "regular": rng.uniform(0, 300, 24).tolist(),
            "gone": rng.uniform(0, 40, 3).tolist(),
            "fresh": rng.uniform(290, 300, 1).tolist(),
        }
        for kind, when in days.items():
            for day in when:
                time = START + timedelta(days=day)
                rows.append((f"{kind}{number}", time.isoformat(), f"{rng.lognormal(3, 0.3):.2f}"))
    file = tmp_path_factory.mktemp("shop") / "orders.csv"
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([("customer", "date", "amount"), *rows])
    return file


@pytest.fixture
def settings_of(tmp_path: Path) -> Any:
    """Writes a settings file of the shop, with k and more."""

    def write(k: int = 3, more: str = "") -> str:
        file = tmp_path / f"shop{len(list(tmp_path.iterdir()))}.toml"
        file.write_text(SHOP.format(k=k) + more)
        return str(file)

    return write


@pytest.fixture(scope="module")
def crowd(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> plan.Crowd:
    file = tmp_path_factory.mktemp("settings") / "shop.toml"
    file.write_text(SHOP.format(k=3))
    return plan.history_crowd(load(file)[0], opener([Source(shop, load_mapping("simple"))]))


@pytest.fixture
def store(crowd: plan.Crowd, monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """A running pipeline's store with the shop's users in one of two partitions."""
    table = FeatureTable(Settings().features)
    store = MemoryStore()
    for number in (0, 1):
        assert store.create(number, "owner", Position([0, 0], table.schema))
    position = Position([9, 9], table.schema, clock_ms=crowd.at_ms, kinds=list(crowd.kinds))
    rows = np.ascontiguousarray(crowd.rows).tobytes()
    store.commit(1, "owner", Commit(0, position, list(crowd.names), rows))
    store.lead("trainer")
    assert store.put_model("trainer", crowd.state.pack(table), crowd.at_ms)

    @contextmanager
    def opened(_: Settings) -> Iterator[MemoryStore]:
        yield store

    monkeypatch.setattr(roles, "open_store", opened)
    return store


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the whole command, errors told as `main` tells them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["segstream", *arguments])
        patch.setattr(invocation, "err", Console(stderr=True, highlight=False, width=1_000))
        patch.setattr(invocation, "out", Console(highlight=False, width=1_000))
        with pytest.raises(SystemExit) as ended:
            main.main()
    said = capfd.readouterr()
    return int(str(ended.value.code or 0)), said.out, said.err


def facts_of(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, said, told = run(capfd, *arguments, "--json")
    assert code == 0, told
    facts: dict[str, Any] = json.loads(said.splitlines()[-1])
    assert sum(cell["users"] for cell in facts["matrix"]) == facts["users"]
    for side in ("before", "after"):
        assert sum(row["users"] for row in facts[side]) == facts["users"]
        assert sum(counts[side] for counts in facts["kinds"].values()) == facts["users"]
    return facts


# -- live --------------------------------------------------------------------------------------


def test_fewer_segments_live(
    store: MemoryStore, crowd: plan.Crowd, settings_of: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    before = store.model(), dict(store.load(1)), store.position(1)
    command = ("-c", settings_of(3), "plan", settings_of(2), "--live")
    facts = facts_of(capfd, *command)
    assert (facts["users"], facts["sampled"], facts["model"]) == (180, 180, crowd.model.name)
    assert (len(facts["before"]), len(facts["after"])) == (3, 2)
    [gone] = {row["id"] for row in facts["before"]} - {row["id"] for row in facts["after"]}
    [event] = [event for event in facts["lineage"] if event["segment"] == gone]
    assert event["event"] == "absorbed"
    [inside] = [row["users"] for row in facts["before"] if row["id"] == gone]
    assert facts["causes"]["segment_retired"] == inside
    assert facts["moving"] == 60
    assert facts["records"] == sum(facts["causes"].values())
    assert f"3 segments become 2; segment {gone} retired" in facts["verdict"]
    assert not any(row["new"] for row in facts["after"])
    assert before == (store.model(), dict(store.load(1)), store.position(1)), "nothing is written"
    code, said, _ = run(capfd, *command)
    assert code == 0
    assert facts["verdict"] in said
    assert f"lineage: {gone} was absorbed by" in said
    assert f"change records: {facts['records']} (" in said


def test_more_segments_live(
    store: MemoryStore, settings_of: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    del store
    facts = facts_of(capfd, "plan", settings_of(5), "--live")
    kept = {row["id"] for row in facts["before"]}
    assert len(facts["after"]) == 5
    assert {row["id"] for row in facts["after"] if not row["new"]} == kept
    assert sum(row["new"] for row in facts["after"]) == 2
    assert {event["event"] for event in facts["lineage"]} >= {"split"}
    assert "3 segments become 5; segments" in facts["verdict"]


def test_no_change_moves_nobody(
    store: MemoryStore, settings_of: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    del store
    facts = facts_of(capfd, "plan", settings_of(3), "--live")
    assert (facts["moving"], facts["records"], facts["lineage"]) == (0, 0, [])
    assert facts["verdict"].startswith(
        "Nobody would change segment; every segment keeps its id; as"
    )


def test_other_kinds_change_no_user_and_yet_who_is_at_risk(
    store: MemoryStore, settings_of: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    del store
    rule = '[[kinds]]\nkind = "at_risk"\nwhen = { orders_30d = { max = 1 } }\n'
    facts = facts_of(capfd, "plan", settings_of(3, rule), "--live")
    risk = facts["churn_risk"]
    assert facts["moving"] == 0
    # Everybody is told of it, but who would rise.
    assert facts["causes"] == {"segment_turned": facts["records"]}
    assert facts["records"] >= risk["entering"]
    assert risk["after"] - risk["before"] == risk["entering"] - risk["leaving"] != 0
    assert any(event["event"].startswith("kind:") for event in facts["lineage"])
    assert f"{abs(risk['after'] - risk['before'])} more users in a kind" in facts["verdict"]


def test_another_feature_table_cannot_be_planned_live(
    store: MemoryStore, settings_of: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    del store
    code, said, told = run(
        capfd, "-c", settings_of(3), "plan", settings_of(3, ANOTHER + NO_KINDS), "--live"
    )
    assert (code, said) == (1, "")
    for words in ("another feature table", "store.namespace", "replay", "--mapping NAME"):
        assert words in told


NO_KINDS = '[[kinds]]\nkind = "dormant"\nwhen = { days_since_seen = { min = 100 } }\n'


def test_without_a_model(
    settings_of: Any, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def opened(_: Settings) -> Iterator[MemoryStore]:
        yield MemoryStore()

    monkeypatch.setattr(roles, "open_store", opened)
    code, _, told = run(capfd, "plan", settings_of(3), "--live")
    assert code == 1
    assert "no model has been learned" in told


# -- a file ------------------------------------------------------------------------------------


def test_other_weights_on_a_file(
    shop: Path, settings_of: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    features = "\n".join(
        f'[[features]]\nname = "{f.name}"\naggregate = "last"\nabsent = 400.0\nunit = "days"\n'
        f"on = {json.dumps(list(f.on))}\nweight = {0 if f.name == 'days_since_order' else 1}"
        for f in Settings().features
        if f.name in ("days_since_seen", "days_since_order")
    )
    same = features.replace("weight = 0", "weight = 1") + "\n" + NO_KINDS
    command = ("-c", settings_of(2, same), "plan", settings_of(2, features + "\n" + NO_KINDS))
    facts = facts_of(capfd, *command, str(shop), "--mapping", "simple")
    assert facts["source"] == "orders.csv"
    assert facts["users"] == facts["sampled"] == 180
    assert facts["notes"] == []


@pytest.mark.slow
def test_another_feature_table_on_a_file(
    shop: Path, settings_of: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = settings_of(2, ANOTHER + NO_KINDS)
    command = ("-c", settings_of(3), "plan", wanted, str(shop), "--mapping", "simple")
    facts = facts_of(capfd, *command)
    assert facts["users"] == 180
    assert any("another store.namespace and a replay" in note for note in facts["notes"])
    assert (facts["records"], facts["causes"]) == (0, {})
    assert len(facts["after"]) == 2
    assert {row["id"] for row in facts["after"]} & {row["id"] for row in facts["before"]}
    code, said, _ = run(capfd, *command)
    assert code == 0
    assert "note: another feature table" in said


def test_a_file_with_too_few_users(
    settings_of: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "few.csv"
    file.write_text("customer,date,amount\none,2025-01-01,5\n")
    code, _, told = run(capfd, "plan", settings_of(3), str(file), "--mapping", "simple")
    assert code == 1
    assert "1 users; a first model takes 400" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "either a FILE"),
        (("x.csv",), "--mapping"),
        (("x.csv", "--live"), "either a FILE"),
        (("--live", "--mapping", "simple"), "belongs to a FILE"),
        (("x.csv", "--mapping", "simple"), "no such file"),
    ],
)
def test_wrong_use(
    arguments: tuple[str, ...], words: str, settings_of: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    code, said, told = run(capfd, "plan", settings_of(3), *arguments)
    assert (code, said) == (2, "")
    assert words in told


def test_settings_that_are_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    code, _, told = run(capfd, "plan", "nowhere.toml", "--live")
    assert code == 2
    assert "nowhere.toml does not exist" in told


def test_help_has_an_example() -> None:
    answer = CliRunner().invoke(main.app, ["plan", "--help"])
    assert answer.exit_code == 0
    assert "segstream -c shop.toml plan wanted.toml --live" in answer.output


@pytest.mark.parametrize("total", [180, 1_001, 99_999])
def test_a_sample_stands_for_everyone_and_all_numbers_fit(
    crowd: plan.Crowd, settings_of: Any, total: int
) -> None:
    few = np.argsort(crowd.hashes)[:60]
    part = plan.Crowd(
        [crowd.names[i] for i in few.tolist()], crowd.rows[few], crowd.hashes[few],
        crowd.at_ms, crowd.state, "a sample", weights=np.full(60, total / 60),
    )  # fmt: skip
    wanted = load(Path(settings_of(2)))[0]
    found = plan.plan(part, FeatureTable(wanted.features), wanted.publish.rule(), wanted)
    facts: Any = plan.facts_of(found)
    assert (facts["sampled"], facts["users"]) == (60, total)
    cells = facts["matrix"]
    assert sum(cell["users"] for cell in cells) == total
    assert facts["moving"] == sum(c["users"] for c in cells if c["from"] != c["to"]) > 0
    assert facts["share"] == facts["moving"] / total
    for side, end in (("before", "from"), ("after", "to")):
        for row in facts[side]:
            assert row["users"] == sum(c["users"] for c in cells if c[end] == row["id"])
        kinds = {row["kind"] for row in facts[side]}
        for kind in kinds:
            there = sum(row["users"] for row in facts[side] if row["kind"] == kind)
            assert facts["kinds"][kind][side] == there
    assert sum(facts["causes"].values()) == facts["records"]


# -- apply -------------------------------------------------------------------------------------


class Shift:
    """Owners and a trainer who do a mark's work whenever somebody sleeps."""

    def __init__(self, store: MemoryStore, settings: Settings, at_ms: int) -> None:
        self.store, self.at_ms, self.seconds = store, at_ms, 0.0
        self.records: list[dict[str, Any]] = []
        self._settings = settings
        self._trainer = Trainer(settings, store, lambda *_: None)

    def sleep(self, seconds: float) -> None:
        self.seconds += max(seconds, 1.0)
        self.at_ms += 1
        table = FeatureTable(self._settings.features)
        before = model_of(self.store)
        for number in (0, 1):
            partition = self._owner(number, table, before.model)
            everyone = SampleRequest(4_096)
            told = partition.sweep(self.at_ms, 0, sample=everyone)
            self._commit(partition, told)
        self._trainer.step()
        model = model_of(self.store).model
        for number in (0, 1):
            partition = self._owner(number, table, before.model)
            assert model is not None
            partition.adopt(model, self.at_ms, 0)
            partition.sweep(self.at_ms, 0)
            self._commit(partition)

    def _owner(self, number: int, table: FeatureTable, model: Any) -> Partition:
        found = self.store.acquire(number, "owner")
        assert found is not None
        rule = self._settings.publish.rule()
        partition = Partition(
            number, table, rule, found[1], found[0], model, key=self.store.namespace_key()
        )
        partition.load(self.store.load(number))
        return partition

    def _commit(self, partition: Partition, told: Any = None) -> None:
        commit = partition.commit([9, 9], Counts(), self.at_ms, statistics=told)
        self.records += [json.loads(one) for entry in commit.outbox for one in entry.changes]
        assert self.store.commit(partition.number, "owner", commit) is Answer.OK


def model_of(store: MemoryStore) -> TrainerState:
    found = store.model()
    assert found is not None
    return TrainerState.unpack(found[1])


@pytest.fixture
def shift(
    store: MemoryStore, crowd: plan.Crowd, settings_of: Any, monkeypatch: pytest.MonkeyPatch
) -> Shift:
    shift = Shift(store, load(Path(settings_of(3)))[0], crowd.at_ms)
    clock = applying.Clock(lambda: shift.seconds, shift.sleep)
    monkeypatch.setattr(applying, "wait", partial(applying.wait, clock=clock))
    return shift


@pytest.mark.parametrize("k", [2, 5])
def test_what_was_planned_is_what_happens(
    k: int, shift: Shift, settings_of: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    publish = "[publish]\nmargin = 0.1\n"
    command = ("-c", settings_of(3), "apply", settings_of(k, publish), "--json")
    code, said, told = run(capfd, *command)
    assert code == 0, told
    facts = json.loads(said)
    planned = facts["plan"]
    state = model_of(shift.store)
    assert state.model is not None
    assert state.model.tuning == facts["tuning"]
    assert facts["in_force"]
    assert facts["model"] == state.model.name
    assert [(e["event"], e["segment"], e["others"]) for e in facts["lineage"]] == [
        (e["event"], e["segment"], e["others"]) for e in planned["lineage"]
    ]
    moves = [(r["from"], r["to"]) for r in shift.records if r["from"] != r["to"]]
    expected = {
        (cell["from"], cell["to"]): cell["users"]
        for cell in planned["matrix"]
        if cell["from"] != cell["to"]
    }
    assert {move: moves.count(move) for move in moves} == expected
    assert len(shift.records) == planned["records"] >= len(moves) > 0
    assert state.model.rule is not None
    assert state.model.rule.margin == 0.1

    # The same again plans no change under what is in force now, and is applied all the same.
    shift.records.clear()
    code, said, _ = run(capfd, "-c", settings_of(3), "apply", settings_of(k, publish))
    assert code == 0
    assert "Nobody would change segment" in said
    assert "in force with model" in said
    assert shift.records == []


def test_apply_need_not_wait(
    store: MemoryStore, settings_of: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    code, said, _ = run(capfd, "apply", settings_of(2), "--no-wait")
    assert code == 0
    assert "3 segments become 2" in said
    wanted = store.wanted()
    assert wanted is not None
    assert f"left for the trainer as {Tuning.unpack(wanted).id}" in said
    assert model_of(store).tuning is None


def test_apply_waits_no_longer_than_told(
    store: MemoryStore, settings_of: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    code, said, told = run(capfd, "apply", settings_of(2), "--seconds", "0.3", "--json")
    assert code == 1
    assert json.loads(said.splitlines()[-1])["in_force"] is False
    assert "not in force after 0.3 s" in told
    assert "run trainer" in told
    assert store.wanted() is not None


def test_apply_makes_room_for_whoever_comes_later(store: MemoryStore, settings_of: Any) -> None:
    mine, other = (Tuning.of(load(Path(settings_of(k)))[0]) for k in (2, 4))
    store.want(mine.pack())
    store.want(other.pack())
    with pytest.raises(applying.NotAppliedError, match="somebody else"):
        applying.wait(store, mine, 5.0)


def test_another_feature_table_is_not_applied(
    store: MemoryStore, settings_of: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    code, said, told = run(capfd, "apply", settings_of(3, ANOTHER + NO_KINDS))
    assert (code, said) == (1, "")
    assert "another feature table" in told
    assert store.wanted() is None


def test_the_help_of_apply_has_an_example() -> None:
    answer = CliRunner().invoke(main.app, ["apply", "--help"])
    assert answer.exit_code == 0
    assert "segstream -c shop.toml apply wanted.toml" in answer.output


def test_a_store_without_users_is_nothing_to_plan_for(store: MemoryStore) -> None:
    for state in store._partitions.values():
        state.users.clear()
    settings = Settings()
    with pytest.raises(
        plan.PlanError, match=r"no users under namespace segstream with topics\.par"
    ):
        plan.live_crowd(settings, FeatureTable(settings.features), store)
