"""Imports point one way, and the tree names no machine."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import unavailable

ROOT = Path(__file__).parent.parent.parent
EDGES = {"consumers", "producers"}
PACKAGES = {"stream", "ops", "tests", *EDGES}

ALLOWED = {
    "stream.cli": {"stream", *EDGES},
    "stream.wiring": {"stream", *EDGES},
    "stream.__main__": {"stream"},
    "stream": {"stream"},
    "consumers": {"consumers", "stream"},
    "producers": {"producers", "stream"},
    "ops": {"ops", "stream", *EDGES},
    "tests": PACKAGES,
}
"""What a module may import of our own packages; the longest name that fits it counts."""
ABOVE = {
    "stream.cli": ("stream.cli", "stream.__main__", "ops", "tests"),
    "stream.wiring": ("stream.wiring", "stream.cli", "ops", "tests"),
    "stream.api": ("stream.api", "stream.wiring", "ops", "tests"),
    "stream.insight": (
        *("stream.insight", "stream.api", "stream.wiring", "stream.cli", "ops", "tests"),
    ),
}
"""Who may import what stands above the pipeline."""


def _under(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _module(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str, module: str, *, is_package: bool = False) -> set[str]:
    """Every module that a source names in an import, wherever in the file it stands."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                kept = parents[: len(parents) - node.level + is_package]
                base = ".".join([*kept, *([node.module] if node.module else [])])
            # `from stream import cli` names a module by its last word.
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


def faults(module: str, names: set[str]) -> list[str]:
    """Imports of a module that point the wrong way."""
    rule = max((name for name in ALLOWED if _under(module, name)), key=len)
    wrong = [
        name
        for name in names
        if (name.split(".")[0] in PACKAGES - ALLOWED[rule])
        or any(
            _under(name, room) and not any(_under(module, one) for one in above)
            for room, above in ABOVE.items()
        )
    ]
    return sorted(wrong)


SOURCES = sorted(
    file for package in PACKAGES for file in (ROOT / package).rglob("*.py") if file.is_file()
)


@pytest.mark.parametrize("file", SOURCES, ids=_module)
def test_imports_point_one_way(file: Path) -> None:
    module = _module(file)
    names = imported(file.read_text(), module, is_package=file.name == "__init__.py")
    assert faults(module, names) == []


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("stream.partition", "from consumers.decode import Batch", "consumers.decode"),
        ("stream.store.state", "def f():\n    import producers.client", "producers.client"),
        ("stream.store.state", "from stream import cli", "stream.cli"),
        ("stream.store.state", "from ..wiring.roles import run", "stream.wiring.roles"),
        ("stream.insight.plan", "from stream.cli import views", "stream.cli.views"),
        ("stream.insight.plan", "from stream.wiring import history", "stream.wiring.history"),
        ("stream.insight.plan", "from consumers import decode", "consumers.decode"),
        ("stream.insight.plan", "from stream.api import recent", "stream.api.recent"),
        ("stream.cli.views", "from stream.api import recent", "stream.api.recent"),
        ("stream.api.recent", "from stream.cli import views", "stream.cli.views"),
        ("stream.api.recent", "from consumers import change_log", "consumers.change_log"),
        ("stream.wiring.history", "from stream.cli import views", "stream.cli.views"),
        ("stream.partition", "from stream.insight import queries", "stream.insight.queries"),
        ("consumers.lag", "from stream.insight.queries import Reader", "stream.insight.queries"),
        ("consumers.audit", "from producers import topics", "producers.topics"),
        ("producers.replay", "import consumers", "consumers"),
        ("producers.replay", "from stream.wiring import roles", "stream.wiring.roles"),
        ("stream.cli.demo", "from tests.fakes import Clock", "tests.fakes"),
        ("consumers.audit", "import ops.kafka.server", "ops.kafka.server"),
        ("ops.bench", "import tests.harness", "tests.harness"),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str, wrong: str) -> None:
    assert wrong in faults(module, imported(source, module))


def test_all_of_the_program_was_looked_at() -> None:
    modules = {_module(file) for file in SOURCES}
    assert {"stream.partition", "stream.cli.main", "consumers.activity"} <= modules
    assert {"producers.outbox", "ops.kafka.server", "tests.ops.test_imports"} <= modules


# -- without the command ----------------------------------------------------------------------


def test_the_api_stands_beside_the_command() -> None:
    """All that is told of segments and users is there without the command."""
    rooms = sorted(
        module for module in map(_module, SOURCES)
        if any(_under(module, room) for room in ("stream.insight", "stream.api", "stream.wiring"))
    )  # fmt: skip
    assert {"stream.insight.queries", "stream.api.application", "stream.wiring.api"} <= {*rooms}
    look = (
        f"import sys, {', '.join(rooms)}; "
        "print([m for m in sys.modules if m == 'typer' or m.startswith('stream.cli')])"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in turn, the first one again at the end; empty for none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def whole_graph() -> dict[str, set[str]]:
    """What each module imports of our own, wherever in the file it stands."""
    modules = {_module(file): file for file in SOURCES}
    return {
        module: {
            name
            for name in imported(file.read_text(), module, is_package=file.name == "__init__.py")
            # A package is named on the way to its module.
            if name in modules and not _under(module, name)
        }
        for module, file in modules.items()
    }


def test_no_module_imports_itself_over_others() -> None:
    """Wherever an import stands: at the top, in a function, or for types alone."""
    assert circle(whole_graph()) == []


@pytest.mark.parametrize(
    ("graph", "found"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}, {"a", "b", "c"}),
        ({"a": {"b"}, "b": set(), "e": {"e"}}, {"e"}),
        ({"a": {"b", "c"}, "b": {"c"}, "c": set()}, set()),
    ],
)
def test_a_circle_is_found(graph: dict[str, set[str]], found: set[str]) -> None:
    assert set(circle(graph)) == found


# -- owners and the trainer --------------------------------------------------------------------


def reached(graph: dict[str, set[str]], start: str) -> set[str]:
    """Every module that one imports, itself or over others."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for name in graph[waiting.pop()] - found:
            found.add(name)
            waiting.append(name)
    return found


OWNERS = ("stream.partition", "consumers.activity", "consumers.campaigns")


@pytest.mark.parametrize("owner", OWNERS)
def test_an_owner_knows_nothing_of_the_trainers_own_state(owner: str) -> None:
    found = reached(whole_graph(), owner)
    assert "stream.learning.statistics" in found
    assert found & {"stream.learning.state", "stream.learning.rounds", "stream.trainer"} == set()


def test_an_import_over_others_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"e"}, "e": set()}
    assert reached(graph, "a") == {"a", "b", "c"}
    assert reached(graph, "d") == {"e"}


# -- the whole tree ---------------------------------------------------------------------------

# Spelt in pieces, so that this file does not contain what it looks for.
FOLDERS = ("work", "root", r"home/\w+", r"Users/\w+")
MACHINE_PATH = re.compile(rf"(?<![\w.$}}~/-])/(?:{'|'.join(FOLDERS)})/")
REGISTRIES = (
    ("pypi", "org"),
    ("pythonhosted", "org"),
    ("repo.maven.apache", "org"),
    ("repo1.maven", "org"),
    ("npmjs", "org"),
    ("proxy.golang", "org"),
    ("crates", "io"),
    ("deb.debian", "org"),
)
REGISTRY_HOST = re.compile(
    "|".join(re.escape(".".join(parts)) for parts in REGISTRIES), re.IGNORECASE
)


def _tracked() -> list[Path]:
    """Every file that is, or would be, part of a commit."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        unavailable("needs the project's git repository, to know which files are its own")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY_HOST], ids=["path", "host"])
def test_the_tree_names_no_machine_and_no_registry(pattern: re.Pattern[str]) -> None:
    files = _tracked()
    assert len(files) > 100
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for file in files
        for number, line in enumerate(_text(file).splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []


def test_nothing_is_left_of_a_merge() -> None:
    mark = re.compile(r"^(<{7}|>{7}) ", re.MULTILINE)
    assert mark.search("<" * 7 + " HEAD")
    assert [file for file in _tracked() if mark.search(_text(file))] == []


def _text(file: Path) -> str:
    """The text of a file; nothing for one that is none, such as a packed data set."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


@pytest.mark.parametrize(
    ("pattern", "line", "is_one"),
    [
        (MACHINE_PATH, "file = '/" + "home/me/shop.csv'", True),
        (MACHINE_PATH, "cd /" + "work/main", True),
        (MACHINE_PATH, "COPY --from=build /opt/segstream /opt/segstream", False),
        (MACHINE_PATH, "../shared/work/data and https://example.org/work/", False),
        (REGISTRY_HOST, "https://files." + "pythonhosted" + ".org/simple", True),
        (REGISTRY_HOST, "http://maven.apache.org/POM/4.0.0", False),
    ],
)
def test_such_a_line_is_found(pattern: re.Pattern[str], line: str, is_one: bool) -> None:
    assert bool(pattern.search(line)) == is_one
