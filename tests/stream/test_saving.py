"""A file is there whole, as it was or as it is now."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.saving import replaced


def test_what_was_there_is_replaced_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"before")
    with replaced(file) as whole:
        whole.write(b"after")
        whole.flush()
        assert file.read_bytes() == b"before"
    assert file.read_bytes() == b"after"
    assert list(tmp_path.iterdir()) == [file]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"before")
    with pytest.raises(TypeError), replaced(str(file)) as whole:
        whole.writelines([b"aft", "no bytes"])  # type: ignore[list-item]
    assert file.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [file]
