"""What is installed is what is used: no library too many, none that only came along with another."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
CODE = ("stream", "consumers", "producers")
COMES_WITH = {"llvmlite": "numba", "typing-extensions": "pydantic"}
"""Libraries that another one, which is declared, brings along in a version that fits it."""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[; ]", name)[0]).lower()


def declared() -> tuple[set[str], set[str]]:
    """Libraries of the core, and of the extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [name for group in project["optional-dependencies"].values() for name in group]
    return set(map(normal, project["dependencies"])), set(map(normal, extras))


def imported() -> set[str]:
    """Libraries that the three packages import, wherever in a file."""
    found: set[str] = set()
    for file in (file for package in CODE for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    found -= {*sys.stdlib_module_names, *CODE, "_typeshed"}
    known = packages_distributions()
    return {normal(known[name][0]) for name in found}


def test_the_core_is_used_and_all_that_is_used_is_declared() -> None:
    core, extras = declared()
    used = {COMES_WITH.get(name, name) for name in imported()}
    assert core - used == set()
    assert used - core - extras == set()


def test_the_locks_have_no_address_of_an_index_and_no_library_of_yesterday() -> None:
    core, extras = declared()
    whole = (ROOT / "requirements.lock").read_text()
    locked = set(map(normal, re.findall(r"^([A-Za-z0-9._-]+)==", whole, re.MULTILINE)))
    assert core | extras <= locked
    for name in ("requirements.lock", "requirements-core.lock"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        assert set(map(normal, re.findall(r"^([A-Za-z0-9._-]+)==", text, re.MULTILINE))) <= locked
