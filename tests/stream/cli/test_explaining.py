"""`user --why` and `segments --rules` from outside, on the store of a small shop."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from consumers.change_log import ChangeLog
from stream.cli import main
from stream.cli.invocation import invocation
from stream.config import Settings
from stream.learning.state import TrainerState
from stream.segments import PublishRule
from stream.store.memory import MemoryStore
from stream.store.state import Commit, Position
from stream.units import DAY_MS, iso
from stream.wiring import roles
from tests.stream.test_partition import TABLE, history, models, steady

pytestmark = pytest.mark.slow


def now_ms() -> int:
    return history()[-1].now_ms


def running(held: Mapping[str, int] | None = None, left: int = 0) -> MemoryStore:
    """A store with the users of a small shop's history, and the model they are in.

    Args:
        held: users by name who are in another segment than the one they were put in.
        left: the segment that these have left just now, if any.
    """
    store = MemoryStore()
    store.create(0, "owner", Position([0, 0], TABLE.schema))
    kinds = steady().partition.position.kinds
    model = models()[-1].name
    position = Position([1, 1], TABLE.schema, clock_ms=now_ms(), model=model, kinds=kinds)
    rows = dict(steady().rows)
    for user, segment in (held or {}).items():
        row = np.frombuffer(rows[user.encode()], TABLE.dtype).copy()
        row["segment"] = segment
        if left:
            row["previous"], row["since"] = left, now_ms()
        rows[user.encode()] = row.tobytes()
    store.commit(0, "owner", Commit(0, position, list(rows), b"".join(rows.values())))
    store.lead("trainer")
    state = TrainerState(model=models()[-1], round_ms=now_ms(), users=len(rows))
    assert store.put_model("trainer", state.pack(TABLE), now_ms())
    return store


class Command:
    """Runs a command on a store, and says what it said."""

    def __init__(
        self, store: MemoryStore, patch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
        folder: Path,
    ) -> None:  # fmt: skip
        @contextmanager
        def opened(_: Settings) -> Iterator[MemoryStore]:
            yield store

        patch.setattr(roles, "open_store", opened)
        patch.setattr(invocation, "out", Console(highlight=False, width=160))
        patch.setattr(invocation, "err", Console(stderr=True, highlight=False, width=1_000))
        self.config = folder / "shop.toml"
        self.config.write_text('[topics]\npartitions = 1\n[clock]\nmode = "watermark"\n')
        self._patch, self._capfd = patch, capfd

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._patch.setattr(sys, "argv", ["segstream", "-c", str(self.config), *arguments])
        with pytest.raises(SystemExit) as ended:
            main.main()
        said = self._capfd.readouterr()
        return int(str(ended.value.code or 0)), said.out, said.err


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    records = steady().records()
    monkeypatch.setattr(ChangeLog, "read", lambda _self, _partitions=None, **_: iter(records))
    return Command(running(), monkeypatch, capfd, tmp_path)


def test_why(command: Command) -> None:
    code, said, _ = command("user", "user 1", "--why", "--json")
    assert code == 0
    facts: dict[str, Any] = json.loads(said.splitlines()[-1])
    border = facts["why"]["margin"]
    assert border["own"] == facts["segment"]["id"]
    parts = sum((Fraction(part["contribution"]) for part in border["parts"]), Fraction(0))
    assert parts == Fraction(border["difference"])
    assert facts["why"]["moves"][0]["segment"] == border["other"]
    assert all(len(move["changes"]) <= 3 for move in facts["why"]["moves"])
    days = [move["days"] for move in facts["why"]["silence"]]
    assert days
    assert days == sorted(days)


def test_why_for_people(command: Command) -> None:
    for user in ("user 2", "user 3", "user 7"):
        code, said, _ = command("user", user, "--why")
        assert code == 0
        assert "What holds them" in said
        assert "What alone would move them" in said
        assert "If they stay silent" in said


def test_what_an_act_would_do_for_people(command: Command) -> None:
    told: set[str] = set()
    for number in range(1, 12):
        _, said, _ = command("user", f"user {number}", "--why", "--json")
        found = json.loads(said.splitlines()[-1])["why"]
        _, said, _ = command("user", f"user {number}", "--why")
        _, asked, section = said.partition("If they act now\n")
        lines = section.partition("If they stay silent")[0].splitlines()
        if found["silence"] and found["silence"][0]["days"] == 0:
            assert not asked, "who goes at the next look needs no act"
        elif found["acts"]:
            for act, line in zip(found["acts"], lines, strict=True):
                assert line.startswith(f"  {act['times']} x {act['event']}")
                assert f": to {act['segment']}, {act['name']} ({act['kind']})" in line
                assert (" money" in line) == bool(act["value"])
                assert (" each:" in line) == (bool(act["value"]) and act["times"] > 1)
            told.add("acts")
        else:
            assert lines == ["  up to 10 events of any one kind leave them where they are"]
            told.add("none")
    assert told == {"acts", "none"}


def test_why_of_a_user_who_is_due_already(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def why(user: str) -> Any:
        return json.loads(command("user", user, "--why", "--json")[1].splitlines()[-1])["why"]

    # Whoever is that far from the next segment is due, once they are said to be in it.
    users = [f"user {number}" for number in range(1, 20, 2)]
    who = next(user for user in users if why(user)["margin"]["z"] < -0.3)
    settled = why(who)["margin"]

    @contextmanager
    def opened(_: Settings) -> Iterator[MemoryStore]:
        yield running({who: settled["other"]})

    monkeypatch.setattr(roles, "open_store", opened)
    _, said, _ = command("user", who, "--why", "--json")
    facts = json.loads(said.splitlines()[-1])["why"]
    assert facts["margin"]["z"] > facts["margin_needed"]
    assert facts["moves"][0]["changes"] == []
    code, said, _ = command("user", who, "--why")
    assert code == 0
    _, _, told = said.partition("What alone would move them")
    assert told.split("\n")[1].startswith("  nothing has to: that move is due already")
    assert "If they act now" not in said
    assert (facts["rests_until"], facts["moves"][0]["acts_only_until"]) == (None, None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            PublishRule, "rest_days", lambda _rule, _names, vectors: np.full(len(vectors), 3.5)
        )
        facts, said = why(who), command("user", who, "--why")[1]
    assert facts["rests_until"] == iso(now_ms() + int(3.5 * DAY_MS))
    assert facts["margin"]["z"] > facts["margin_needed"]
    assert facts["silence"] == [], "who rests is moved by acts only"
    assert f"they rest until {facts['rests_until']}" in said
    assert "due" not in said

    @contextmanager
    def opened_lately(_: Settings) -> Iterator[MemoryStore]:
        yield running({who: settled["other"]}, left=settled["own"])

    monkeypatch.setattr(roles, "open_store", opened_lately)
    facts, said = why(who), command("user", who, "--why")[1]
    until = facts["moves"][0]["acts_only_until"]
    assert until == iso(now_ms() + Settings().publish.rule().return_ms)
    assert f"until {until} only acts" in said
    assert "due" not in said


def test_why_nobody_is_asked_for(command: Command) -> None:
    code, said, _ = command("user", "user 2", "--json")
    assert code == 0
    assert "why" not in json.loads(said)


def test_why_of_an_unknown_user(command: Command) -> None:
    code, said, told = command("user", "nobody", "--why")
    assert (code, said) == (1, "")
    assert "unknown" in told


def test_rows_of_another_feature_table_are_refused(command: Command) -> None:
    with command.config.open("a") as file:
        file.write('[[features]]\nname = "seen"\naggregate = "last"\n[[kinds]]\nkind = "new"\n'
                   "when = { seen = { max = 3 } }\n")  # fmt: skip
    code, said, told = command("user", "user 2", "--why")
    assert (code, said) == (2, "")
    assert "feature table" in told


# -- rules ---------------------------------------------------------------------------------


def test_rules(command: Command) -> None:
    code, said, _ = command("segments", "--rules", "--json")
    assert code == 0
    facts = json.loads(said.splitlines()[-1])
    rules = facts["rules"]
    assert [one["segment"] for one in rules["segments"]] == [one["id"] for one in facts["segments"]]
    assert rules["learned_from"] + rules["judged_on"] == rules["users"] > 50
    assert any(one["rules"] for one in rules["segments"])
    assert 0 <= rules["fidelity"] <= 1


def test_rules_for_people(command: Command) -> None:
    code, said, _ = command("segments", "--rules")
    assert code == 0
    assert "Who is in which" in said
    assert "other users where they are" in said
    code, said, _ = command("segments")
    assert code == 0
    assert "Who is in which" not in said
