"""Imports point one way, and the tree names no machine."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
EDGES = {"consumers", "producers"}
PACKAGES = {"stream", "ops", "tests", *EDGES}

ALLOWED = {
    "stream.cli": {"stream", *EDGES},
    "stream.__main__": {"stream"},
    "stream": {"stream"},
    "consumers": {"consumers", "stream"},
    "producers": {"producers", "stream"},
    "ops": {"ops", "stream", *EDGES},
    "tests": PACKAGES,
}
"""What a module may import of our own packages; the longest name that fits it counts."""
MAY_IMPORT_THE_CLI = ("stream.cli", "stream.__main__", "ops", "tests")


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
        or (
            _under(name, "stream.cli")
            and not any(_under(module, one) for one in MAY_IMPORT_THE_CLI)
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
        ("stream.state", "def f():\n    import producers.client", "producers.client"),
        ("stream.state", "from stream import cli", "stream.cli"),
        ("stream.state", "from .cli.roles import run", "stream.cli.roles"),
        ("consumers.audit", "from producers import topics", "producers.topics"),
        ("producers.replay", "import consumers", "consumers"),
        ("producers.replay", "from stream.cli import roles", "stream.cli.roles"),
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
        pytest.skip("needs the project's git repository, to know which files are its own")
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
