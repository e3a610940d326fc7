"""How a command ends where something is in the way: in a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from enum import StrEnum
from importlib import import_module
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from stream.cli import commands
from stream.cli.catalogue import CATALOGUE
from stream.events import Reason
from stream.webhooks.queue import Reason as GivenUp
from tests.command import whole_command

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


@pytest.mark.parametrize(
    ("command", "known"),
    [
        (("dlq", "show"), Reason),
        (("dlq", "replay"), Reason),
        (("webhooks", "replay"), GivenUp),
    ],
)
def test_a_reason_that_is_none_is_answered_with_those_there_are(
    command: tuple[str, str], known: type[StrEnum]
) -> None:
    ended = segstream(*command, "--reason", "nope", stdout=subprocess.DEVNULL)
    assert ended.returncode == 2
    told = ended.stderr.replace("\n", " ")
    assert all(reason in told for reason in known)


def test_one_property_of_the_broker_may_be_given_as_it_is_written() -> None:
    asked = ("config", "show", "--set", "broker.properties=security.protocol=SSL")
    ended = segstream(*asked, stdout=subprocess.DEVNULL)
    assert ended.returncode == 0
    ended = segstream("config", "show", "--set", "broker.properties=x", stdout=subprocess.DEVNULL)
    assert ended.returncode == 2
    assert "name=value" in ended.stderr


def test_the_catalogue_says_what_commands_say_of_themselves() -> None:
    told = {
        name: " ".join(str(command.help).strip().split("\n\n")[0].split())
        for name, command in whole_command().commands.items()
    }
    assert told == {name: entry.meaning for name, entry in CATALOGUE.items()}


def test_every_command_of_a_module_is_in_the_catalogue() -> None:
    for module in {entry.module for entry in CATALOGUE.values()}:
        part = get_command(import_module(f"stream.cli.commands.{module}").commands)
        assert isinstance(part, TyperGroup)
        assert set(part.commands) == {n for n, entry in CATALOGUE.items() if entry.module == module}
    modules = {file.stem for file in Path(str(commands.__file__)).parent.glob("[!_]*.py")}
    assert {entry.module for entry in CATALOGUE.values()} == modules


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_waits_for_nothing_that_commands_need(argument: str) -> None:
    look = (
        "import sys\n"
        f"sys.argv = ['segstream', {argument!r}]\n"
        "from stream.cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    print(sorted({'redis', 'scipy', 'river', 'httpx'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_shell_completes_commands_and_options() -> None:
    def completed(line: str) -> str:
        asked = {"_SEGSTREAM_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "stream"],
            capture_output=True, text=True, check=False, env=os.environ | asked,
        )  # fmt: skip
        return done.stdout

    assert completed("segstream re").split() == ["replay", "republish", "rekey"]


def test_a_folder_that_cannot_be_written_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = segstream("schemas", str(tmp_path / "file" / "contracts"), stdout=subprocess.DEVNULL)
    assert ended.returncode == 2
    assert "cannot be written" in ended.stderr
    assert "Traceback" not in ended.stderr
