"""`segstream campaigns check` and `try` from outside: what they say, and what they refuse."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from consumers.change_log import ChangeLog
from producers import control
from stream.campaigns.declare import Campaign, Limits
from stream.campaigns.keep import Own
from stream.campaigns.oracle import Oracle
from stream.campaigns.windows import Sums
from stream.cli import main
from stream.cli.invocation import invocation
from stream.config import Settings
from stream.insight.trial import Trial
from stream.records import change_id
from stream.store.memory import MemoryStore
from stream.units import DAY_MS
from stream.wiring import campaigns, roles
from tests.stream.campaigns.making import START_MS, campaign, change, crossing

SHOP = """
[clock]
mode = "watermark"
mark_seconds = "20d"
[learning]
segments = 3
first_model_users = 100
refit_seconds = "60d"
[[campaigns]]
name = "win-back"
when = { kind_to = ["at_risk", "dormant", "loyal", "champion", "occasional"], provisional = true }
holdout = 0.3
arms = { coupon = 1, letter = 1 }
goal = {}
"""
STAGES = """
[clock]
mode = "watermark"
mark_seconds = "5d"
[learning]
segments = 3
first_model_users = 60
refit_seconds = "60d"
[[levels]]
name = "purchase_stage"
of = "orders_total"
slack = 0
steps = [{name = "loyal", least = 5}, {name = "repeat", least = 2}, {name = "prospect"}]
[[campaigns]]
name = "thanks"
when = { level = "purchase_stage", step_from = ["repeat"], step_to = ["loyal"] }
"""


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the whole command, errors told as `main` tells them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["segstream", "campaigns", *arguments])
        patch.setattr(invocation, "err", Console(stderr=True, highlight=False, width=1_000))
        patch.setattr(invocation, "out", Console(highlight=False, width=1_000))
        with pytest.raises(SystemExit) as ended:
            main.main()
    said = capfd.readouterr()
    return int(str(ended.value.code or 0)), said.out, said.err


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    file = tmp_path / "shop.toml"
    file.write_text(SHOP, encoding="utf-8")
    return file


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    random, rows = np.random.default_rng(1), []
    for number in range(180):
        days = random.uniform(0, 300, 24) if number % 3 else random.uniform(0, 40, 3)
        for day in days.tolist():
            time = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=day)
            rows.append((f"u{number}", time.isoformat(), f"{random.lognormal(3, 0.3):.2f}"))
    file = tmp_path / "orders.csv"
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([("customer", "date", "amount"), *rows])
    return file


def test_check_shows_what_was_understood(
    settings_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, said, _ = run(capfd, "check", str(settings_file))
    assert code == 0
    assert 'when = {kind_to = ["at_risk", "dormant", "loyal"' in said
    assert "no cooldown" in said


@pytest.mark.parametrize(
    ("shop", "before", "after", "note"),
    [
        (
            SHOP,
            "goal = {}",
            'quiet = { from = "21:00", to = "08:00", zone = "UTC" }\nvalid_for = "10h"',
            "valid_for is shorter than the quiet hours",
        ),
        (
            STAGES,
            'step_from = ["repeat"], step_to = ["loyal"]',
            'step_from = ["loyal"], step_to = ["loyal"]',
            "no crossing is one",
        ),
    ],
)
def test_check_notes_what_is_seldom_meant(
    tmp_path: Path, shop: str, before: str, after: str, note: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "shop.toml"
    for text in (shop, shop.replace(before, after)):
        file.write_text(text, encoding="utf-8")
        code, said, _ = run(capfd, "check", str(file))
        assert code == 0
        assert (note in said) == (text != shop)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "none are declared"),
        (SHOP.replace("at_risk", "at_rsk"), "campaigns.0.when.kind_to: there is no kind 'at_rsk'"),
        (SHOP.replace("holdout", "hold_out"), "campaigns.0.hold_out"),
    ],
)
@pytest.mark.parametrize("command", ["check", "try"])
def test_what_cannot_run_is_refused(
    tmp_path: Path, text: str, told: str, command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(text, encoding="utf-8")
    more = ("--live",) if command == "try" else ()
    code, _, said = run(capfd, command, str(file), *more)
    assert code == 2
    assert told in said


def test_try_on_a_file_plays_it_and_sends_nothing(
    settings_file: Path, orders: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ("try", str(settings_file), str(orders), "--mapping", "simple")
    code, said, told = run(capfd, *command, "--json")
    assert code == 0, told
    facts: dict[str, Any] = json.loads(said.splitlines()[-1])
    (found,) = facts["campaigns"]
    assert found["looked_at"] == facts["changes"] == sum(found["outcomes"].values())
    assert found["outcomes"]["sent"] == sum(found["sent_by_arm"].values()) > 0
    assert found["outcomes"]["holdout"] > 0
    assert set(found["sent_by_arm"]) == {"coupon", "letter"}
    assert found["examples"]["sent"][0]["arm"] in {"coupon", "letter"}
    code, said, _ = run(capfd, *command)
    assert code == 0
    assert "sent by arm: coupon" in said


def test_try_on_a_file_has_the_arms_that_the_pipeline_will_have(
    tmp_path: Path, orders: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """However long the secret is."""
    file, secret = tmp_path / "shop.toml", "the pipeline's, which is no short one" * 3
    file.write_text(f'{SHOP}[store]\nnamespace_key = "{secret}"\n', encoding="utf-8")
    code, said, told = run(capfd, "try", str(file), str(orders), "--mapping", "simple", "--json")
    assert code == 0, told
    (found,) = json.loads(said.splitlines()[-1])["campaigns"]
    oracle = Oracle((), Limits(), MemoryStore(namespace_key=secret).namespace_key())
    declared = campaign(holdout=0.3, arms={"coupon": 1, "letter": 1})
    examples = found["examples"]["sent"] + found["examples"]["holdout"]
    assert len(examples) == 6
    assert [oracle.arm(declared, one["user"]) for one in examples] == [
        one["arm"] for one in examples
    ]


def test_try_on_the_change_topic_has_the_pipelines_arms(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def opened(_: Settings) -> Iterator[MemoryStore]:
        yield MemoryStore(namespace_key="the pipeline's")

    key = MemoryStore(namespace_key="the pipeline's").namespace_key()
    changes = [change(f"u{n}", START_MS + n, cause="user_moved") for n in range(300)]
    for one in changes:
        one["id"] = change_id(one["user"].encode(), key, 1, one["version"])
    # Of another namespace: no arm of this one's is theirs.
    changes.append(change("x", START_MS))
    monkeypatch.setattr(roles, "open_store", opened)
    monkeypatch.setattr(ChangeLog, "read", lambda *_, **__: iter(changes))
    code, said, told = run(capfd, "try", str(settings_file), "--live", "--json")
    assert code == 0, told
    facts = json.loads(said.splitlines()[-1])
    assert (facts["changes"], facts["notes"]) == (
        300,
        ["records refused, as the role refuses them: 1 foreign"],
    )
    (found,) = facts["campaigns"]
    settings = Settings.model_validate(
        {
            "campaigns": [
                campaign(
                    when={"kind_to": ["at_risk", "dormant"]},
                    holdout=0.3,
                    arms={"coupon": 1, "letter": 1},
                    goal={},
                ).model_dump()
            ]
        }
    )
    trial = Trial(settings, key, verified=True)
    trial.take(changes)
    assert trial.facts("x")["campaigns"][0]["outcomes"] == found["outcomes"]
    other = Trial(settings, b"another")
    other.take(changes)
    assert other.facts("x")["campaigns"][0]["sent_by_arm"] != found["sent_by_arm"]


def test_a_trial_keeps_a_few_examples_and_tells_what_it_could_not_read() -> None:
    settings = Settings(campaigns=(campaign(settle="2h"),))
    trial = Trial(settings, b"", examples=2)
    trial.take([change(f"u{n}", START_MS) for n in range(9)])
    trial.take([crossing("u"), {"kind_to": "at_risk"}])
    trial.advance(START_MS + DAY_MS)
    facts = trial.facts("here")
    (found,) = facts["campaigns"]
    assert (found["outcomes"]["sent"], len(found["examples"]["sent"])) == (9, 2)
    assert found["outcomes"]["settling"] == 0
    assert found["outcomes"]["unmatched"] == 1
    assert facts["notes"] == ["records refused, as the role refuses them: 1 unreadable"]


def test_a_trial_shows_crossings_of_levels(
    tmp_path: Path, orders: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "stages.toml"
    file.write_text(STAGES, encoding="utf-8")
    command = ("try", str(file), str(orders), "--mapping", "simple")
    code, said, told = run(capfd, *command, "--json")
    assert code == 0, told
    (found,) = json.loads(said.splitlines()[-1])["campaigns"]
    assert found["outcomes"]["sent"] > 10
    for example in found["examples"]["sent"]:
        told_of = (example["level"], example["step_from"], example["step_to"], example["kind_to"])
        assert told_of == ("purchase_stage", "repeat", "loyal", None)
    code, said, told = run(capfd, *command)
    assert "purchase_stage repeat to loyal (user_moved)" in " ".join(said.split())


def test_the_role_runs_only_where_campaigns_are_declared(
    capfd: pytest.CaptureFixture[str], settings_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(roles, "run", lambda _settings, names, _stop: started.append(names))

    def start(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["segstream", *arguments])
        with pytest.raises(SystemExit) as ended:
            main.main()
        return int(str(ended.value.code or 0)), capfd.readouterr().err

    code, said = start("run", "campaigns")
    assert code == 2
    assert "nothing is declared" in said.replace("\n", " ")
    assert start("run", "all")[0] == 0
    assert start("-c", str(settings_file), "run", "campaigns")[0] == 0
    assert start("-c", str(settings_file), "run", "all")[0] == 0
    most = ["activity", "trainer", "publisher"]
    assert started == [most, ["campaigns"], [*most, "campaigns"]]


# -- the running role ----------------------------------------------------------------------------


def keeps(monkeypatch: pytest.MonkeyPatch, declared: Campaign, **fields: Any) -> None:
    """Let the role have kept something."""
    kept = Own([declared.model_dump_json(by_alias=True, exclude_defaults=True)], **fields)
    monkeypatch.setattr(campaigns, "state", lambda _settings: [kept])


MEASURED = campaign(
    when={
        "kind_to": ["at_risk", "dormant", "loyal", "champion", "occasional"],
        "provisional": True,
    },
    holdout=0.3,
    arms={"coupon": 1, "letter": 1},
    goal={},
)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = {
        "holdout": Sums(3_000, 150, 2_000, 900.0, 9_000.0),
        "coupon": Sums(3_500, 400, 2_500, 7_000.0, 90_000.0),
        "letter": Sums(3_500, 160, 2_300, 1_000.0, 10_000.0),
    }
    name, version = MEASURED.name, MEASURED.version
    keeps(
        monkeypatch,
        MEASURED,
        seen={name: 12_000},
        counts={name: {"sent": 7_000, "unmatched": 5_000, "capped": 0}},
        sums={name: {version: sums}},
        paused=[name],
    )


@pytest.mark.usefixtures("measured")
def test_list_says_which_arm_helps(settings_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, said, _ = run(capfd, "list", "-c", str(settings_file))
    assert code == 0
    coupon, letter = said.splitlines()[1:3]
    assert coupon.split()[:4] == ["win-back", "(paused)", "coupon", "helps"]
    assert "+6.4 %" in coupon
    assert "letter" in letter
    assert "not enough yet" in letter


@pytest.mark.usefixtures("measured")
def test_show_has_both_intervals_and_who_is_missing(
    settings_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, said, _ = run(capfd, "show", "win-back", "-c", str(settings_file))
    assert code == 0
    assert "paused" in said
    assert "holds at all looks" in said
    assert "at one look" in said
    assert "coupon against holdout: helps" in said
    assert "letter against holdout: not enough yet" in said
    assert "capped" not in said
    code, said, _ = run(capfd, "show", "win-back", "-c", str(settings_file), "--json")
    facts = json.loads(said)
    assert facts["effects"][0]["comparisons"][0]["verdict"] == "helps"
    assert len(facts["effects"][0]["comparisons"][0]["conversion"]["sequence"]) == 2


def test_what_nobody_knows_is_refused(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(campaigns, "state", lambda _settings: [])
    code, _, said = run(capfd, "show", "nothing", "-c", str(settings_file))
    assert (code, "no campaign 'nothing', but win-back" in said) == (1, True)
    code, _, said = run(capfd, "pause", "nothing", "-c", str(settings_file))
    assert (code, "no campaign 'nothing', but win-back" in said) == (2, True)
    code, said, _ = run(capfd, "list", "-c", str(settings_file))
    assert (code, "not enough yet" in said) == (0, True)


def test_pause_resume_and_suppress_say_who_said_so(
    settings_file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    records: list[dict[str, Any]] = []

    def say(_settings: Settings, record: dict[str, Any]) -> int:
        records.append(dict(record))
        return 1

    monkeypatch.setattr(control, "say", say)
    for arguments in (
        ("pause", "win-back", "--by", "ann"),
        ("resume", "win-back", "--by", "ann"),
        ("suppress", "u42", "--by", "ann"),
        ("suppress", "u42", "--undo", "--by", "ann"),
    ):
        code, said, _ = run(capfd, *arguments, "-c", str(settings_file))
        assert code == 0
        assert arguments[1] in said
    assert all(one.pop("at") and one.pop("by") == "ann" for one in records)
    assert records == [
        {"campaign": "win-back", "paused": True},
        {"campaign": "win-back", "paused": False},
        {"user": "u42", "suppressed": True},
        {"user": "u42", "suppressed": False},
    ]
