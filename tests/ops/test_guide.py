"""Pages lead where they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
GUIDE = sorted((ROOT / "ops" / "guide").glob("*.md"))
DECISIONS = ROOT / "ops" / "decisions" / "README.md"
FOR_CHANGE = [ROOT / name for name in ("CHANGELOG.md", "ARCHITECTURE.md", "CONTRIBUTING.md")]
PAGES = [ROOT / "README.md", *FOR_CHANGE, DECISIONS, *GUIDE]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
    files = re.findall(r"`((?:ops|stream|consumers|producers|tests)/[\w./-]+)`", text)
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    missing += [file for file in files if not (ROOT / file).exists()]
    assert missing == []


def test_the_readme_leads_to_every_page_of_the_guide() -> None:
    readme = PAGES[0].read_text(encoding="utf-8")
    assert [page.name for page in GUIDE if f"](ops/guide/{page.name})" not in readme] == []


def test_the_readme_leads_to_what_is_for_those_who_change_it() -> None:
    readme = PAGES[0].read_text(encoding="utf-8")
    assert [page.name for page in FOR_CHANGE if f"]({page.name})" not in readme] == []


def test_every_decision_is_in_the_index() -> None:
    index = DECISIONS.read_text(encoding="utf-8")
    pages = [page.name for page in DECISIONS.parent.glob("*.md") if page != DECISIONS]
    assert [name for name in pages if f"]({name})" not in index] == []
