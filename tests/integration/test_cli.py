"""The command from outside: what it says, on which stream, and with which exit code."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.testing import CliRunner

from consumers.change_log import ChangeLog, Place
from ops.kafka.server import RealKafka
from producers.mapping_help import EXAMPLE_VIEWS
from stream.cli.main import app
from stream.config_layers import as_file
from stream.hashing import partition_of
from stream.learning.refit import USERS_PER_SEGMENT
from tests import harness
from tests.command import whole_command
from tests.conftest import NOWHERE
from tests.harness import Reference
from tests.integration.processes import Said, segstream

pytestmark = pytest.mark.servers

Command = Callable[..., Said]


@pytest.fixture(scope="module")
def config(spring: Reference, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings of a pipeline that has run: its state is still there to be looked at."""
    file = tmp_path_factory.mktemp("cli") / "shop.toml"
    file.write_text(as_file(spring.settings))
    return file


@pytest.fixture(scope="module")
def look(config: Path) -> Command:
    """Runs a command on that pipeline."""

    def run(*arguments: str) -> Said:
        return segstream("-c", str(config), *arguments)

    return run


# -- help --------------------------------------------------------------------------------------


def commands(group: TyperGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


def test_every_command_has_help_with_an_example() -> None:
    found = list(commands(whole_command()))
    assert {("demo",), ("topics", "apply"), ("run", "activity"), ("run", "all")} <= set(found)
    for path in found:
        answer = CliRunner().invoke(app, [*path, "--help"])
        assert answer.exit_code == 0, path
        shown = [line for line in answer.output.splitlines() if "Usage:" not in line]
        example = re.compile(rf"segstream (-\S+ \S+ )*{' '.join(path)}\b")
        assert any(example.search(line) for line in shown), path


def test_the_first_page_is_worth_reading() -> None:
    said = segstream("--help")
    assert said.code == 0
    for word in ("demo", "topics", "run", "replay", "segments", "user", "changes", "audit",
                 "doctor", "config", "Exit codes"):  # fmt: skip
        assert word in said.out


def test_the_help_of_replay_shows_a_mapping_to_copy() -> None:
    said = segstream("replay", "--help")
    for word in ("customer", "date", "amount"):
        assert word in said.out


# -- looking -----------------------------------------------------------------------------------


def test_segments(spring: Reference, look: Command) -> None:
    said = look("segments", "--json")
    assert said.code == 0
    last = list(spring.outcome.models.values())[-1]
    assert said.facts["model"] == last["model"]
    assert [s["id"] for s in said.facts["segments"]] == [s["id"] for s in last["segments"]]
    # Whom the shop knows by a credit note only is in none.
    seen = sum(int.from_bytes(row["seen"], "little") > 0 for row in spring.outcome.users.values())
    # Nor is who is in a population that is not learned yet: orders that were all taken back make a visitor.
    unlearned = [p["users"] for p in said.facts["populations"] if not p["segments"]]
    assert all(users < USERS_PER_SEGMENT for users in unlearned)
    assert sum(s["size"] for s in said.facts["segments"]) == seen - sum(unlearned)
    readable = look("segments")
    assert readable.code == 0
    assert all(str(s["id"]) in readable.out for s in last["segments"])


def test_a_user(spring: Reference, look: Command) -> None:
    user = spring.outcome.changes[0]["user"]
    last = spring.outcome.of_user(user)[-1]
    said = look("user", user, "--json")
    assert said.code == 0
    assert said.facts["segment"]["id"] == last["to"]
    assert said.facts["version"] == last["version"]
    assert said.facts["changes"][-1] == last
    assert look("user", user).code == 0


def test_why_a_user_is_there(spring: Reference, look: Command) -> None:
    user = spring.outcome.changes[0]["user"]
    said = look("user", user, "--why", "--json")
    assert said.code == 0
    border = said.facts["why"]["margin"]
    assert border["own"] == said.facts["segment"]["id"]
    assert sum(part["contribution"] for part in border["parts"]) == border["difference"]
    assert "If they stay silent" in look("user", user, "--why").out


def test_rules(look: Command) -> None:
    said = look("segments", "--rules", "--json")
    assert said.code == 0
    rules = said.facts["rules"]
    assert rules["fidelity"] > 0.7
    assert {s["segment"] for s in rules["segments"]} == {s["id"] for s in said.facts["segments"]}
    assert all(s["flapping"]["changes_per_user_day"] >= 0 for s in said.facts["segments"])
    assert "Who is in which" in look("segments", "--rules").out


def test_an_unknown_user(look: Command) -> None:
    said = look("user", "nobody-by-that-name", "--json")
    assert said.code == 1
    assert said.out == ""
    assert "nobody-by-that-name" in said.err
    assert "unknown" in said.err


def test_changes_of_a_kind(spring: Reference, look: Command) -> None:
    said = look("changes", "--kind", "at_risk", "--json")
    assert said.code == 0
    found = sorted(map(json.loads, said.out.splitlines()), key=lambda c: (c["user"], c["version"]))
    assert found == [c for c in spring.outcome.changes if c["kind_to"] == "at_risk"]
    assert found


def test_changes_with_what_became_of_segments(spring: Reference, look: Command) -> None:
    said = look("changes", "--lineage", "--json")
    found = [json.loads(line) for line in said.out.splitlines()]
    told = [record for record in found if "event" in record]
    assert len(found) == len(told) + len(spring.outcome.changes)
    everything = [e for model in spring.outcome.models.values() for e in model["lineage"]]
    assert Counter((r["event"], r["segment"], r["model"]) for r in told) == Counter(
        (e["event"], e["segment"], e["model"]) for e in everything
    )
    assert {"born"} < {record["event"] for record in told}


def test_changes_of_a_user(spring: Reference, look: Command) -> None:
    user = spring.outcome.changes[0]["user"]
    said = look("changes", "--user", user, "--json")
    assert [json.loads(line) for line in said.out.splitlines()] == spring.outcome.of_user(user)
    assert user in look("changes", "--user", user).out


def test_changes_come_in_the_order_of_their_time(spring: Reference, look: Command) -> None:
    said = look("changes", "--json")
    found = list(map(json.loads, said.out.splitlines()))
    times = [change["at"] for change in found]
    assert times == sorted(times)
    assert len(found) == len(spring.outcome.changes)
    seen: dict[str, int] = {}
    for change in found:
        assert change["version"] == seen.get(change["user"], 0) + 1
        seen[change["user"]] = change["version"]
    middle = times[len(times) // 2]
    later = look("changes", "--since", middle, "--json")
    assert list(map(json.loads, later.out.splitlines())) == [c for c in found if c["at"] >= middle]
    week = look("changes", "--since", "7d", "--tail", "5", "--json")
    assert list(map(json.loads, week.out.splitlines())) == found[-5:]
    wrong = look("changes", "--since", "soon")
    assert (wrong.code, "--since soon: expected" in wrong.err) == (2, True)


def test_following_goes_on_where_the_reading_ended(spring: Reference) -> None:
    log, place = ChangeLog(spring.settings), Place()
    there = list(log.read(place=place))
    assert len(there) == len(spring.outcome.changes)
    looks = iter([False] * 5 + [True])
    assert list(log.follow(lambda: next(looks), place)) == []
    one = max(place.ends, key=lambda partition: place.ends[partition])
    place.ends[one] = 0
    looks = iter([False] * 5 + [True])
    assert list(log.follow(lambda: next(looks), place)) == [], "each is told once"
    place.seen.clear()
    place.ends[one] = 0
    looks = iter([False] * 25 + [True])
    again = {change["id"] for change in log.follow(lambda: next(looks), place)}
    assert again == {c["id"] for c in there if partition_of(c["user"].encode(), 4) == one}


def test_the_audit(look: Command) -> None:
    said = look("audit", "--json")
    assert said.code == 0
    assert said.facts["ok"]
    assert (said.facts["lost"], said.facts["duplicated"]) == (0, 0)
    assert (said.facts["repeated"], said.facts["unjudged"]) == (0, 0)
    assert "records to read: " in said.err
    assert "-changes" in said.err


def test_the_audit_of_a_sample(look: Command) -> None:
    whole, some = look("audit", "--json").facts, look("audit", "--sample", "0.1", "--json")
    assert some.code == 0
    assert "0.1 of the users are judged" in some.err
    assert some.facts["unjudged"] > 0
    assert [some.facts[key] for key in ("users", "changes", "counts")] == [
        whole[key] for key in ("users", "changes", "counts")
    ]
    assert "not judged" in look("audit", "--sample", "0.1").out


def test_the_doctor(look: Command) -> None:
    said = look("doctor", "--json")
    assert said.facts["ok"], said.facts
    assert said.code == 0


def test_the_doctor_names_a_remedy(config: Path) -> None:
    said = segstream("-c", str(config), "--set", f"store.url=redis://{NOWHERE}/0", "doctor")
    assert said.code == 1
    assert NOWHERE in said.out
    assert "remedy: " in said.out


def test_settings_and_where_they_come_from(config: Path) -> None:
    said = segstream(
        *("-c", str(config), "--set", "learning.segments=6", "config", "show", "--json"),
        SEGSTREAM_PUBLISH__MARGIN="0.4",
    )
    assert said.code == 0
    rows = {row["key"]: row for row in said.facts["settings"]}
    assert (rows["learning.segments"]["value"], rows["learning.segments"]["origin"]) == (6, "flag")
    assert rows["publish.margin"]["value"] == 0.4
    assert rows["publish.margin"]["origin"] == "environment"
    assert rows["clock.mode"]["origin"] == f"file {config}"
    assert rows["worker.batch_seconds"]["origin"] == "default"
    assert rows["worker.batch_seconds"]["unit"] == "seconds"


# -- sending -----------------------------------------------------------------------------------


def test_topics_and_a_small_replay(kafka: RealKafka, redis_url: str, tmp_path: Path) -> None:
    settings = harness.watermark_settings(kafka.bootstrap, redis_url)
    config, shop = tmp_path / "shop.toml", tmp_path / "shop.csv"
    config.write_text(as_file(settings))
    shop.write_text(
        "customer,date,amount\n"
        "anna,2026-01-05,20.50\n"
        "bert,2026-01-06,7\n"
        "anna,2026-01-09,-20.50\n"
        ",2026-01-09,3\n"
    )
    own = ("-c", str(config))
    check = segstream(*own, "topics", "apply", "--check", "--json")
    assert check.code == 1
    assert len(check.facts["differences"]) == 6
    missing = segstream(*own, "replay", str(shop), "--mapping", "simple")
    assert missing.code == 1
    assert "topics apply" in missing.err

    created = segstream(*own, "topics", "apply", "--json")
    assert created.code == 0
    assert set(settings.topics.inputs) <= set(created.facts["created"])
    again = segstream(*own, "topics", "apply", "--json")
    assert again.facts == {"created": [], "differences": []}

    said = segstream(*own, "replay", str(shop), "--mapping", "simple", "--json")
    assert said.code == 0
    assert said.facts["events"] == {"Order Completed": 2, "Order Refunded": 1}
    assert said.facts["refused"] == {"no_user": 1}
    assert said.facts["marks"] >= 5

    unlearned = segstream(*own, "segments")
    assert unlearned.code == 1
    assert "no model" in unlearned.err


def test_a_replay_can_wait_for_the_pipeline(
    kafka: RealKafka, redis_url: str, tmp_path: Path
) -> None:
    settings = harness.watermark_settings(kafka.bootstrap, redis_url)
    config, shop = tmp_path / "shop.toml", tmp_path / "shop.csv"
    config.write_text(as_file(settings))
    rows = [
        f"u{n % 50},2026-01-{1 + n // 20:02}T{n % 20:02}:00:00Z,{n % 9 + 1}" for n in range(200)
    ]
    shop.write_text("\n".join(["customer,date,amount", *rows]))
    with harness.Pipeline(settings, tmp_path) as pipeline:
        pipeline.create_topics()
        pipeline.start("activity", "trainer", "publisher")
        said = segstream(
            "-c", str(config), "replay", str(shop), "--mapping", "simple", "--wait", "--json"
        )
        assert said.code == 0, said.err
        assert said.facts["caught_up"] is True
        counts = [position.counts for position in pipeline.positions() if position is not None]
    assert sum(count.applied for count in counts) == 200


def test_files_in_one_replay_and_again(kafka: RealKafka, redis_url: str, tmp_path: Path) -> None:
    settings = harness.watermark_settings(kafka.bootstrap, redis_url)
    config, orders, clicks = (tmp_path / name for name in ("s.toml", "orders.csv", "clicks.csv"))
    config.write_text(as_file(settings))
    orders.write_text("customer,date,amount\nanna,2026-01-05,20.50\nbert,2026-01-09,7\n")
    clicks.write_text("visitor,seen_at,action,department\nanna,06.01.2026 10:00,look,shoes\n")
    views = tmp_path / "views.toml"
    views.write_text(EXAMPLE_VIEWS)
    own = ("-c", str(config))
    segstream(*own, "topics", "apply")
    both = (str(orders), str(clicks), "--mapping", "simple", "--mapping", str(views), "--json")
    said = segstream(*own, "replay", *both, "--limit", "2")
    assert said.code == 0
    assert said.facts["events"] == {"Order Completed": 1, "Product Viewed": 1}

    again = segstream(*own, "replay", *both)
    assert again.code == 1
    assert "2 of 3 events" in again.err or "1 of 3 events" in again.err
    assert "--resume" in again.err
    rest = segstream(*own, "replay", *both, "--resume")
    assert rest.code == 0
    assert (rest.facts["known"], rest.facts["sent"]) == (2, 1)
    nothing = segstream(*own, "replay", *both, "--resume")
    assert nothing.code == 0
    assert (nothing.facts["known"], nothing.facts["sent"]) == (3, 0)
    anyway = segstream(*own, "replay", *both, "--anyway")
    assert (anyway.code, anyway.facts["sent"]) == (0, 3)

    wrong = segstream(*own, "replay", str(orders), "--mapping", "simple", "--mapping", "simple")
    assert wrong.code == 2
    assert "2 for 1 files" in wrong.err
    unwatched = tmp_path / "unwatched.toml"
    unwatched.write_text('user = "customer"\ntime = "date"\nevent = "Purchase"\n')
    told = segstream(*own, "replay", str(orders), "--mapping", str(unwatched))
    assert told.code == 2
    assert "no feature watches any of its events (2 'Purchase')" in told.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--mapping", "no_such_shop"), ("no_such_shop", "online_retail")),
        (("--mapping", "{folder}/torn.toml"), ("torn.toml",)),
        (("--mapping", "{folder}/other.toml"), ("when",)),
        (("--mapping", "simple", "--speed", "fast"), ("speed", "fast", "60x")),
        (("--mapping", "simple", "--nonsense"), ("--nonsense",)),
        ((), ("--mapping",)),
    ],
)
def test_a_replay_that_cannot_begin(
    tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...], config: Path
) -> None:
    shop = tmp_path / "shop.csv"
    shop.write_text("customer,date,amount\nanna,2026-01-05,20.50\n")
    (tmp_path / "torn.toml").write_text("user = [")
    (tmp_path / "other.toml").write_text(
        'user = "customer"\ntime = "when"\nevent = "Order Completed"\n'
    )
    given = [argument.format(folder=tmp_path) for argument in arguments]
    said = segstream("-c", str(config), "replay", str(shop), *given)
    assert said.code == 2
    for word in words:
        assert word in said.err


# -- wrong settings ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[learning]\nsegments = 'many'\n", ("learning.segments", "many", "integer")),
        ("[worker]\nbatch_seconds = 'soon'\n", ("worker.batch_seconds", "soon", "10s")),
        ("[store]\nnamespace = 'a b'\n", ("store.namespace", "a b")),
        ("[clock]\nmode = 'lunar'\n", ("clock.mode", "lunar", "watermark")),
        ("[clock]\nspeed = 3\n", ("clock.speed", "no such setting")),
        ("[clock\n", ("shop.toml",)),
    ],
)
def test_a_wrong_settings_file(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(text)
    said = segstream("-c", str(file), "config", "show")
    assert said.code == 2
    assert said.out == ""
    for word in words:
        assert word in said.err


def test_other_wrong_settings() -> None:
    flag = segstream("--set", "learning.segments=1", "config", "show")
    assert flag.code == 2
    assert "learning.segments = 1 (from flag)" in flag.err
    variable = segstream("config", "show", SEGSTREAM_CLOCK__MODE="lunar")
    assert variable.code == 2
    assert "clock.mode" in variable.err
    assert "from environment" in variable.err
    absent = segstream("-c", "no/such/file.toml", "config", "show")
    assert absent.code == 2
    assert "no/such/file.toml" in absent.err


def test_servers_that_are_not_there() -> None:
    store = segstream("--set", f"store.url=redis://{NOWHERE}/0", "segments")
    assert store.code == 1
    assert NOWHERE in store.err
    broker = segstream("--set", f"broker.bootstrap={NOWHERE}", "topics", "apply")
    assert broker.code == 1
    assert NOWHERE in broker.err


def test_a_port_that_is_taken(kafka: RealKafka) -> None:
    said = segstream("--set", f"metrics.port={kafka.port}", "run", "trainer")
    assert said.code == 2
    assert f"metrics.port = {kafka.port}" in said.err
