"""The recipes of CONTRIBUTING name every file that a thing of their kind touches, and no other."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from stream.wiring.roles import ROLES
from tests.conftest import unavailable

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


class Recipe(NamedTuple):
    """What is to be made, one that was made so, and the files that it is said to touch."""

    title: str
    made: str
    files: frozenset[str]


def recipes(page: str) -> dict[str, Recipe]:
    found = {}
    for part in re.split(r"(?m)^### ", page)[1:]:
        title = part.splitlines()[0]
        made = re.search(r"Made so: `(\w+)`", part)
        assert made, title
        files = frozenset(re.findall(r"(?m)^\| `([\w./-]+)` \|", part))
        found[title] = Recipe(title, made[1], files)
    return found


RECIPES = recipes(PAGE)
FINDS = {
    "A mapping of files": r"(?i)\bmatomo\b",
    "An aggregate": r"[\"']distinct[\"']",
    "A field of the row": r"[\"']evidence[\"']|^    evidence: Evidence",
    "A store": r"\bTestMemory\b|^class MemoryStore\b|\[MemoryStore,",
}
"""By recipe, what tells a file that has to do with the one that was made so."""
ELSEWHERE = ("ops/decisions/", "ops/bench/", "ops/chaos/", "CHANGELOG.md", "CONTRIBUTING.md")
"""What is told there is no part of it."""
SAY_WHO_THERE_IS = ("ops/guide/glossary.md", "ops/guide/running.md")
"""Pages that go through the roles, and need no line for another one."""
ONLY_ROLES = ("stream/wiring/roles.py", "stream/rights.py", "ops/compose/roles.yml")


def tree() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        unavailable("needs the project's git repository, to know which files are its own")
    own = Path(__file__).relative_to(ROOT).as_posix()
    names = (name for name in done.stdout.splitlines() if name != own)
    return [n for n in names if not n.startswith(ELSEWHERE) and (ROOT / n).is_file()]


def text_of(name: str) -> str:
    try:
        return (ROOT / name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def touched(pattern: str, files: dict[str, str]) -> set[str]:
    """Files that are named by a thing, or name it."""
    wanted = re.compile(pattern, re.MULTILINE)
    return {name for name, text in files.items() if wanted.search(name) or wanted.search(text)}


def test_every_recipe_is_held() -> None:
    assert set(RECIPES) == {*FINDS, "A role"}


@pytest.mark.parametrize("title", FINDS)
def test_a_recipe_names_every_file_and_no_other(title: str) -> None:
    files = {name: text_of(name) for name in tree()}
    assert touched(FINDS[title], files) == RECIPES[title].files


def test_a_file_that_is_left_out_is_found() -> None:
    files = {"producers/mappings/matomo.toml": "", "ops/guide/files.md": "| matomo |", "x.py": "no"}
    assert touched(FINDS["A mapping of files"], files) == {
        "producers/mappings/matomo.toml",
        "ops/guide/files.md",
    }


def _named(file: str, role: str) -> str:
    """How a role is named there: in code as a text, since its name may be another word as well."""
    return rf"[\"']{role}[\"']" if file.endswith(".py") else rf"\b{role}\b"


def test_the_recipe_of_a_role_names_where_every_role_stands() -> None:
    """Where one role has a line, each of them has."""
    recipe = RECIPES["A role"]
    assert recipe.made in ROLES
    for name in recipe.files:
        assert re.search(rf"\b{recipe.made}\b", text_of(name)), name
    shared = [name for name in recipe.files if name.startswith(("ops/", *ONLY_ROLES))]
    for name in shared:
        for role in ROLES:
            assert re.search(rf"\b{role}\b", text_of(name)), (name, role)
    named = {
        name
        for name in tree()
        if name.startswith(("stream/", "consumers/", "producers/", "ops/"))
        and name not in SAY_WHO_THERE_IS
        and all(re.search(_named(name, role), text_of(name)) for role in ROLES)
    }
    assert named <= recipe.files
