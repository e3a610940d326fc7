"""``from segstream import ...`` gives what it says, and the guide's example of it runs."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import segstream

from stream import face

ROOT = Path(__file__).parent.parent.parent


def test_the_face_is_what_the_project_says() -> None:
    assert segstream.__all__ == face.__all__
    for name in segstream.__all__:
        assert getattr(segstream, name) is getattr(face, name)


def test_whoever_uses_it_gets_its_types() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"]["stream/face.py"] == "segstream/__init__.py"
    for package in ("segstream", *wheel["packages"]):
        found = importlib.util.find_spec(package)
        assert found is not None
        assert found.origin is not None
        assert (Path(found.origin).parent / "py.typed").is_file(), package


def test_the_example_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "ops/guide/library.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert "from segstream import Population, Segmenter" in example
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(1)
    shop = {
        "users": [f"user {i}" for i in range(300)],
        "vectors": random.lognormal(random.integers(0, 4, 300)[:, None], 0.2, (300, 3)),
        "time": 1.0,
    }
    exec(example, shop)  # noqa: S102 - our own page
    assert len(shop["step"].changes) == 300  # type: ignore[attr-defined]
    assert (tmp_path / "shop.npz").is_file()
