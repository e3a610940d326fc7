"""A process says one line a record, and anyone can read it: people, machines, terminals."""

from __future__ import annotations

import json
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest

from stream import masking
from stream.cli import logs
from stream.cli.terminal import SafeConsole
from stream.config import Log
from stream.errors import LIBRARY_LOG

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
log = logging.getLogger("stream.test")


@pytest.fixture
def told() -> Iterator[StringIO]:
    """What the process said; the log is as it was afterwards."""
    level, hook, library = logging.root.level, threading.excepthook, LIBRARY_LOG.level
    yield StringIO()
    logging.captureWarnings(False)
    logging.basicConfig(force=True, handlers=[logging.NullHandler()], level=level)
    threading.excepthook = hook
    LIBRARY_LOG.setLevel(library)


def start(told: StringIO, *roles: str, verbose: bool = False, **settings: Any) -> None:
    shown = SafeConsole(file=told, width=40, highlight=False, markup=False)
    logs.configure(shown, Log(**settings), roles, verbose=verbose)


def records(told: StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in told.getvalue().splitlines()]


def test_a_stream_that_is_no_terminal_gets_json(told: StringIO) -> None:
    start(told, "activity")
    log.info("took %d of %s", 3, "them", extra={"partition": 7})
    (record,) = records(told)
    assert re.fullmatch(TIME, record.pop("time"))
    assert record == {
        "level": "INFO", "role": "activity", "partition": 7, "logger": "stream.test",
        "message": "took 3 of them",
    }  # fmt: skip
    assert logs.as_json()


@pytest.mark.parametrize(
    ("message", "arguments", "partition"),
    [
        ("partition %d: %s", (3, "gone"), 3),
        ("%s, 5 %% of partition %d", ("all", 4), 4),
        ("%d partitions", (12,), None),
        ("partition %d is 3", (), None),
        ("a partition", (), None),
    ],
)
def test_a_message_about_a_partition_tells_it(
    told: StringIO, message: str, arguments: tuple[Any, ...], partition: int | None
) -> None:
    start(told, "activity")
    log.warning(message, *arguments)
    assert records(told)[0].get("partition") == partition


def test_people_get_a_line_of_text(told: StringIO) -> None:
    start(told, "activity", format="text")
    log.warning("a message that is longer than the forty columns of this terminal")
    log.info("taken over", extra={"partition": 7})
    first, second = told.getvalue().splitlines()
    assert re.fullmatch(
        f"{TIME} WARNING activity stream.test: a message that is longer than the forty columns of "
        "this terminal",
        first,
    )
    assert re.fullmatch(rf"{TIME} INFO    activity\[7\] stream.test: taken over", second)
    assert not logs.as_json()


def test_a_terminal_gets_text_by_itself(told: StringIO) -> None:
    shown = SafeConsole(file=told, width=40, force_terminal=True, color_system=None)
    logs.configure(shown, Log(), ["trainer"], verbose=False)
    log.info("hello")
    assert re.fullmatch(f"{TIME} INFO    trainer stream.test: hello\n", told.getvalue())


def test_a_trace_is_a_field_of_its_record(told: StringIO) -> None:
    start(told, "activity", format="json")
    try:
        raise ValueError("torn\nin two \x1b[2J")
    except ValueError:
        log.exception("could not")
    (record,) = records(told)
    assert record["exception"].startswith("Traceback")
    assert record["exception"].endswith("ValueError: torn\nin two \x1b[2J")
    assert "\x1b" not in told.getvalue()


def test_a_trace_in_a_text_stands_below_its_record(told: StringIO) -> None:
    start(told, "activity", format="text")
    try:
        raise ValueError("torn\nFORGED \x1b[2J")
    except ValueError:
        log.exception("could not")
    first, *rest = told.getvalue().splitlines()
    assert first.endswith("could not")
    assert all(line.startswith("    ") for line in rest)
    assert rest[-1] == r"    FORGED \x1b[2J"


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_message_is_one_line_that_commands_nothing(told: StringIO, form: str) -> None:
    start(told, "activity", format=form)
    log.warning("user %s", "x\n2026 FORGED\x1b[2J\u202e")
    assert told.getvalue().count("\n") == 1
    assert "\x1b" not in told.getvalue()
    assert "\u202e" not in told.getvalue()


@pytest.mark.parametrize("form", ["json", "text"])
def test_secrets_are_in_no_message_and_no_trace(told: StringIO, form: str) -> None:
    masking.learn("store.url", "redis://shop:hunter2@redis")
    start(told, "activity", format=form)
    try:
        raise ValueError("AUTH hunter2 at redis://shop:other@redis")
    except ValueError:
        log.exception("with hunter2")
    assert "hunter2" not in told.getvalue()
    assert "other" not in told.getvalue()
    assert "***" in told.getvalue()


def test_of_several_roles_each_is_named_by_its_thread(told: StringIO) -> None:
    start(told, "activity", "trainer")
    threads = [threading.Thread(target=log.warning, args=("x",), name=n) for n in ("trainer", "z")]
    for thread in threads:
        thread.start()
        thread.join()
    assert [record.get("role") for record in records(told)] == ["trainer", None]


@pytest.mark.parametrize(
    ("roles", "verbose", "level", "said"),
    [
        (["activity"], False, "info", ["info", "warning"]),
        (["activity"], False, "warning", ["warning"]),
        (["activity"], True, "warning", ["info", "warning"]),
        (["activity"], False, "debug", ["debug", "info", "warning"]),
        ([], False, "debug", ["warning"]),
        ([], True, "info", ["info", "warning"]),
        ([], True, "debug", ["debug", "info", "warning"]),
    ],
)
def test_levels(
    told: StringIO, roles: list[str], verbose: bool, level: str, said: list[str]
) -> None:
    start(told, *roles, verbose=verbose, level=level)
    for name in ("debug", "info", "warning"):
        getattr(log, name)(name)
    assert [record["message"] for record in records(told)] == said


def test_what_the_broker_library_says_is_for_who_wants_to_know(told: StringIO) -> None:
    start(told, "activity")
    LIBRARY_LOG.error("FAIL [thrd:main]: connection refused")
    assert told.getvalue() == ""
    start(told, "activity", verbose=True)
    LIBRARY_LOG.error("FAIL [thrd:main]: connection refused")
    assert [record["logger"] for record in records(told)] == [LIBRARY_LOG.name]


def test_warnings_and_threads_that_end_are_records_too(told: StringIO) -> None:
    start(told, "activity")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old\nways", stacklevel=1)
    thread = threading.Thread(target=int, args=("none",))
    thread.start()
    thread.join()
    warned, ended = records(told)
    assert "old" in warned["message"]
    assert (ended["level"], ended["logger"]) == ("CRITICAL", "segstream")
    assert "ValueError" in ended["exception"]
