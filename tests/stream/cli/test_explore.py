"""`segstream explore` from outside: what it says, writes and refuses, from a file and live."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
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
from stream.events import Counts
from stream.features import FeatureTable
from stream.insight import charts, explore
from stream.learning.rounds import learn
from stream.learning.state import TrainerState
from stream.learning.statistics import PartitionStatistics
from stream.oracle import Message, fold_log
from stream.partition import SchemaMismatchError
from stream.store.memory import MemoryStore
from stream.store.state import Commit, Position
from stream.wiring import roles
from stream.wiring.history import opener
from tests.conftest import NOWHERE

pytestmark = pytest.mark.slow

START = datetime(2025, 1, 1, tzinfo=UTC)
FAST = ("--bootstraps", "2", "--k-max", "4")


def orders(users_a_kind: int = 80) -> list[tuple[str, str, str]]:
    """Three kinds of customers: regulars, who stopped long ago, and who came once, lately."""
    rng = np.random.default_rng(1)
    rows = []
    for number in range(users_a_kind):
        days = {
            "regular": rng.uniform(0, 300, 24).tolist(),
            "gone": rng.uniform(0, 40, 3).tolist(),
            "fresh": rng.uniform(290, 300, 1).tolist(),
        }
        for kind, when in days.items():
            for day in when:
                time = START + timedelta(days=day)
                amount = rng.lognormal(3.0, 0.3)
                rows.append((f"{kind}{number}", time.isoformat(), f"{amount:.2f}"))
    return rows


def write(file: Path, rows: list[tuple[str, str, str]]) -> Path:
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([("customer", "date", "amount"), *rows])
    return file


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("shop") / "orders.csv", orders())


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the whole command, errors told as `main` tells them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["segstream", *arguments])
        patch.setattr(charts, "_DPI", 30)  # most of the time would go into pixels
        patch.setattr(invocation, "err", Console(stderr=True, highlight=False, width=1_000))
        with pytest.raises(SystemExit) as ended:
            main.main()
    said = capfd.readouterr()
    return int(str(ended.value.code or 0)), said.out, said.err


# -- a file ------------------------------------------------------------------------------------


def test_a_file(shop: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder, config = tmp_path / "looks", tmp_path / "shop.toml"
    config.write_text("populations = []\n")
    code, said, _ = run(
        capfd, "-c", str(config), "explore", str(shop), "--mapping", "simple", "--out", str(folder),
        "--json", *FAST
    )  # fmt: skip
    assert code == 0
    facts = json.loads(said.splitlines()[-1])
    assert len(said.splitlines()) == 1
    assert (facts["proposal"], facts["suggested"], facts["firmness"]) == (3, 3, "firm")
    assert facts["users"] == facts["sampled"] == 240
    assert [s["size"] for s in facts["segments"]] == [80, 80, 80]
    assert {s["kind"] for s in facts["segments"]} >= {"dormant"}
    assert set(facts["curves"]["inertia"]) == {"1", "2", "3", "4"}
    assert set(facts["curves"]["stability"]) == {"2", "3", "4"}
    assert set(facts["written"]) == {
        "report", "separation", "stability", "elbow", "silhouette", "sizes", "profile", "scatter",
        "dendrogram",
    }  # fmt: skip
    for name, path in facts["written"].items():
        if name != "report":
            assert Path(path).read_bytes().startswith(b"\x89PNG")
    page = Path(facts["written"]["report"]).read_text()
    assert "falls into 3 kinds of shoppers" in page
    assert all(s["name"] in page for s in facts["segments"])
    assert page.count("data:image/png;base64,") == 7, "the profile is a table"
    assert not re.search(r"""(src|href)=["']?(https?:|//)|@import|url\(""", page)


def test_each_population_of_a_file_is_told_beside_what_it_is_set_to(
    shop: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, said, _ = run(
        capfd, "explore", str(shop), "--mapping", "simple", "--out", str(tmp_path), "--json",
        "--population", "customers", *FAST,
    )  # fmt: skip
    assert code == 0
    facts = json.loads(said.splitlines()[-1])
    told = {one["name"]: one for one in facts["populations"]}
    assert {name: (one["users"], one["configured"]) for name, one in told.items()} == {
        "customers": (160, 6), "lapsed": (80, 2), "visitors": (0, 3),
    }  # fmt: skip
    # Regulars and who came once, lately, are not six groups.
    suggested = told["customers"]["suggested"]
    assert (facts["population"], facts["suggested"]) == ("customers", suggested)
    assert 2 <= suggested <= 3
    assert told["lapsed"]["suggested"] is not None
    assert told["visitors"]["suggested"] is None, "nobody is there"


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ("--distance", "cosine"),
        ("--distance", "mahalanobis"),
        ("--algorithm", "density"),
        ("--k", "2"),
        ("--at", "2026-06-01"),
    ],
)
def test_other_ways_to_look(
    more: tuple[str, str], shop: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ("explore", str(shop), "--mapping", "simple", "--out", str(tmp_path / "looks"))
    code, said, _ = run(capfd, *command, *FAST, *more)
    assert code == 0
    assert "segments suggested" in said
    assert "report.html" in said


def test_rows_are_folded_as_the_oracle_has_them(shop: Path) -> None:
    settings = Settings()
    table = FeatureTable(settings.features)
    people = explore.read_history(settings, table, opener([Source(shop, load_mapping("simple"))]))
    with shop.open() as lines:
        rows = sorted(csv.DictReader(lines), key=lambda row: row["date"])
    messages = []
    for number, row in enumerate(rows):
        stamp = datetime.fromisoformat(row["date"])
        stamp = stamp.replace(microsecond=stamp.microsecond // 1_000 * 1_000)
        track = {
            "type": "track", "event": "Order Completed", "userId": row["customer"],
            "messageId": str(number), "timestamp": stamp.isoformat(timespec="milliseconds"),
            "properties": {"revenue": float(row["amount"]), "quantity": 1},
        }  # fmt: skip
        time_ms = round(stamp.timestamp() * 1_000)
        messages.append(Message(json.dumps(track).encode(), time_ms, 1))
    oracle = fold_log(settings.features, settings.worker, [[], messages])
    expected = [
        list(user.vector(settings.features, people.at_ms).values())
        for user in oracle.users.values()
    ]
    found = people.vectors[np.lexsort(people.vectors.T)]
    assert np.allclose(found, np.array(expected)[np.lexsort(np.array(expected).T)], rtol=1e-9)


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no rows"),
        ([("", "2025-01-01", "1")] * 30, "every row was refused"),
        ([("one", f"2025-01-{day:02}", "5") for day in range(1, 25)], "1 users"),
        ([(f"u{n}", "2025-01-01", "5") for n in range(50)], "nothing to tell apart"),
    ],
)
def test_a_file_with_nothing_to_look_at(
    rows: list[tuple[str, str, str]],
    words: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    file = write(tmp_path / "orders.csv", rows)
    code, said, told = run(
        capfd, "explore", str(file), "--mapping", "simple", "--out", str(tmp_path), *FAST
    )
    assert (code, said) == (1, "")
    assert words in told
    assert "Traceback" not in told


def test_an_empty_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "orders.csv"
    file.write_text("")
    code, _, told = run(capfd, "explore", str(file), "--mapping", "simple")
    assert code in (1, 2)
    assert "orders.csv" in told or "mapping" in told
    assert "Traceback" not in told


def test_before_the_first_event(shop: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, _, told = run(capfd, "explore", str(shop), "--mapping", "simple", "--at", "2020-01-01")
    assert code == 1
    assert "no events before" in told


@pytest.mark.slow
def test_fewer_different_users_than_segments_to_try(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [(f"u{n}", f"2025-0{1 + n % 5}-01", "5") for n in range(40)]
    file = write(tmp_path / "orders.csv", rows)
    command = ("explore", str(file), "--mapping", "simple", "--out", str(tmp_path), "--json")
    code, said, _ = run(capfd, *command, "--bootstraps", "2")
    assert code == 0
    facts = json.loads(said)
    assert list(facts["curves"]["inertia"]) == ["1", "2", "3", "4"]
    assert any("no more than 4 segments" in note for note in facts["notes"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "FILE"),
        (("x.csv",), "--mapping"),
        (("x.csv", "--live"), "either"),
        (("--live", "--mapping", "simple"), "belongs to a FILE"),
        (("x.csv", "--mapping", "simple"), "no such file"),
        (("x.csv", "--mapping", "nothing"), "no mapping"),
        (("x.csv", "--mapping", "simple", "--k", "12"), "--k-max"),
        (("x.csv", "--mapping", "simple", "--k", "2", "--algorithm", "density"), "--k"),
    ],
)
def test_wrong_use(
    arguments: tuple[str, ...], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code, said, told = run(capfd, "explore", *arguments)
    assert (code, said) == (2, "")
    assert words in told


@pytest.mark.parametrize("absent", ["matplotlib", "jinja2"])
def test_without_the_extra(
    absent: str,
    shop: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    code, said, told = run(capfd, "explore", str(shop), "--mapping", "simple")
    assert (code, said) == (2, "")
    assert "pip install 'segstream[explore]'" in told


@pytest.mark.slow
def test_a_folder_that_cannot_be_written(
    shop: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("")
    command = ("explore", str(shop), "--mapping", "simple", "--out", str(tmp_path / "taken"))
    code, _, told = run(capfd, *command, *FAST)
    assert code == 2
    assert "cannot be written" in told


def test_help_has_an_example() -> None:
    answer = CliRunner().invoke(main.app, ["explore", "--help"])
    assert answer.exit_code == 0
    assert "segstream explore orders.csv" in answer.output


@pytest.mark.slow
def test_the_command_starts_without_what_draws() -> None:
    look = "import sys, stream.cli.main; print({'matplotlib', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# -- live --------------------------------------------------------------------------------------


@pytest.fixture
def running(shop: Path) -> tuple[Settings, MemoryStore]:
    """A store that holds the shop's users, in one of two partitions, and a model of three."""
    settings = Settings.model_validate(
        {
            "topics": {"partitions": 2},
            "clock": {"mode": "watermark"},
            "learning": {"segments": 3, "first_model_users": 20},
        }
    )
    table = FeatureTable(settings.features)
    people = explore.read_history(settings, table, opener([Source(shop, load_mapping("simple"))]))
    store = MemoryStore()
    assert store.create(1, "owner", Position([0, 0], table.schema))
    with pytest.MonkeyPatch.context() as patch:
        kept: list[Commit] = []
        sample = explore._sample

        def keep(
            settings: Settings, table: FeatureTable, portions: Any, key: bytes, strata: Any
        ) -> Any:
            taken = list(portions)
            kept.extend(Commit(0, Position([0, 0], table.schema), *portion) for portion in taken)
            return sample(settings, table, taken, key, strata)

        patch.setattr(explore, "_sample", keep)
        explore.read_history(settings, table, opener([Source(shop, load_mapping("simple"))]))
    position = Position([9, 9], table.schema, clock_ms=people.at_ms, counts=Counts(applied=9))
    store.commit(1, "owner", Commit(0, position, kept[0].users, kept[0].rows))
    hashes = np.arange(1, len(people.vectors) + 1, dtype=np.uint64)
    statistics = PartitionStatistics(
        at_ms=people.at_ms,
        model="",
        users=len(hashes),
        sample_hashes=hashes.tobytes(),
        sample_vectors=people.vectors.tobytes(),
    )
    state = learn(
        TrainerState(next_id=7), [statistics], people.at_ms, table, settings.learning,
        settings.kinds,
    )  # fmt: skip
    store.lead("trainer")
    assert store.put_model("trainer", state.pack(table), people.at_ms)
    return settings, store


@pytest.mark.slow
def test_live(
    running: tuple[Settings, MemoryStore],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, store = running

    @contextmanager
    def opened(_: Settings) -> Iterator[MemoryStore]:
        yield store

    monkeypatch.setattr(roles, "open_store", opened)
    config = tmp_path / "shop.toml"
    config.write_text('[topics]\npartitions = 2\n[clock]\nmode = "watermark"\n')
    command = ("-c", str(config), "explore", "--live", "--out", str(tmp_path / "looks"), "--json")
    code, said, _ = run(capfd, *command, *FAST)
    assert code == 0
    facts = json.loads(said)
    assert facts["model"] == "1.0"
    assert sorted(s["id"] for s in facts["segments"]) == [7, 8, 9], "the model's own ids"
    assert sum(s["size"] for s in facts["segments"]) == facts["users"] == 240
    assert facts["proposal"] == 3
    assert "running model 1.0" in (tmp_path / "looks" / "report.html").read_text()


def test_a_sample_of_the_store_is_bounded_and_the_same_each_time(
    running: tuple[Settings, MemoryStore],
) -> None:
    settings, store = running
    few = settings.model_copy(
        update={"learning": settings.learning.model_copy(update={"sample_users": 30})}
    )
    table = FeatureTable(settings.features)
    found = store.model()
    assert found is not None
    model = TrainerState.unpack(found[1]).model
    assert model is not None
    first, second = (explore.read_store(few, table, store, model) for _ in range(2))
    assert (len(first.vectors), first.total) == (30, 240)
    assert np.array_equal(first.vectors, second.vectors)
    whole = explore.read_store(settings, table, store, model)
    assert np.array_equal(whole.vectors[:30], first.vectors)


def test_rows_of_another_table_are_not_read(running: tuple[Settings, MemoryStore]) -> None:
    settings, store = running
    table = FeatureTable(settings.features[:3])
    found = store.model()
    assert found is not None
    model = TrainerState.unpack(found[1]).model
    assert model is not None
    with pytest.raises(SchemaMismatchError):
        explore.read_store(settings, table, store, model)


def test_a_store_that_does_not_answer(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, said, told = run(
        capfd, "--set", f"store.url=redis://{NOWHERE}/0", "explore", "--live", "--out",
        str(tmp_path),
    )  # fmt: skip
    assert (code, said) == (1, "")
    assert "Traceback" not in told
