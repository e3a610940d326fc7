"""How a command ends where something is in the way: in a sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stream.events import Reason

FULL = Path("/dev/full")


def segstream(*arguments: str, stdout: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stream", *arguments],
        stdout=stdout, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full, which Linux has")
@pytest.mark.parametrize("arguments", [("config", "show"), ("config", "show", "--json")])
def test_a_full_disk_is_told_in_a_sentence(arguments: tuple[str, ...]) -> None:
    with FULL.open("wb") as full:
        ended = segstream(*arguments, stdout=full.fileno())
    assert ended.returncode == 1
    assert ended.stderr.startswith("segstream: what there is to say cannot be written")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", ["show", "replay"])
def test_a_reason_that_is_none_is_answered_with_those_there_are(command: str) -> None:
    ended = segstream("dlq", command, "--reason", "nope", stdout=subprocess.DEVNULL)
    assert ended.returncode == 2
    told = ended.stderr.replace("\n", " ")
    assert all(reason in told for reason in Reason)


def test_one_property_of_the_broker_may_be_given_as_it_is_written() -> None:
    asked = ("config", "show", "--set", "broker.properties=security.protocol=SSL")
    ended = segstream(*asked, stdout=subprocess.DEVNULL)
    assert ended.returncode == 0
    ended = segstream("config", "show", "--set", "broker.properties=x", stdout=subprocess.DEVNULL)
    assert ended.returncode == 2
    assert "name=value" in ended.stderr
