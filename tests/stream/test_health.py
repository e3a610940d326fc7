"""What a process says about itself over HTTP."""

from __future__ import annotations

import json
import logging
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily

from stream import health as pages
from stream.health import Health, HealthServer
from stream.masking import learn


class Clock:
    """Wound by hand."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock)


@pytest.fixture
def server(health: Health) -> Iterator[HealthServer]:
    registry = CollectorRegistry()
    Counter("happened_total", "For this test.", registry=registry).inc(3)
    with HealthServer(health, registry) as server:
        yield server


def get(server: HealthServer, page: str) -> tuple[int, bytes]:
    try:
        with urlopen(f"{server.url}{page}", timeout=5) as answer:  # noqa: S310 - our own
            return answer.status, answer.read()
    except HTTPError as error:
        with error:
            return error.code, error.read()


def get_json(server: HealthServer, page: str) -> tuple[int, Any]:
    status, body = get(server, page)
    return status, json.loads(body)


def test_a_loop_is_live_until_it_is_silent_too_long(health: Health, clock: Clock) -> None:
    pulse = health.alive("worker", 30.0)
    clock.seconds += 30
    assert health.liveness() == (True, [])
    clock.seconds += 1.5
    live, reasons = health.liveness()
    assert not live
    assert reasons == ["worker: silent for 31.5 s, at most 30 s allowed"]
    pulse.beat()
    assert health.liveness() == (True, [])


def test_a_loop_that_ended_is_not_missed(health: Health, clock: Clock) -> None:
    pulse = health.alive("worker", 30.0)
    pulse.end()
    pulse.beat()
    clock.seconds += 1_000
    assert health.liveness() == (True, [])


def test_a_process_is_ready_when_all_its_parts_are(health: Health) -> None:
    assert health.readiness() == (False, ["process: starting"])
    health.ready(False, "waits for partitions", part="activity")
    health.ready(True, part="publisher")
    assert health.readiness() == (False, ["activity: waits for partitions"])
    health.ready(True, part="activity")
    assert health.readiness() == (True, [])


def test_a_stuck_process_is_not_ready(health: Health, clock: Clock) -> None:
    health.alive("worker", 10.0)
    health.ready(True)
    clock.seconds += 11
    ready, reasons = health.readiness()
    assert not ready
    assert reasons[0].startswith("worker: silent")


def test_parts_are_told_by_name(health: Health, clock: Clock) -> None:
    health.alive("loop", 5.0)
    health.ready(True, part="a")
    assert health.parts(["a", "b"]) == {"a": True, "b": False}
    health.ready(False, "the store does not answer", part="a")
    assert health.parts(["a"]) == {"a": False}
    health.ready(True, part="a")
    clock.seconds += 6
    assert health.parts(["a"]) == {"a": False}, "nobody works whose process is stuck"


def test_pages(health: Health, clock: Clock, server: HealthServer) -> None:
    assert get_json(server, "/live") == (200, {"live": True, "reasons": []})
    assert get_json(server, "/ready") == (503, {"ready": False, "reasons": ["process: starting"]})
    health.ready(True)
    health.alive("worker", 5.0)
    assert get_json(server, "/ready") == (200, {"ready": True, "reasons": []})
    clock.seconds += 6
    status, body = get_json(server, "/live")
    assert (status, body["live"]) == (503, False)
    assert "worker" in body["reasons"][0]


def test_metrics_are_served(server: HealthServer) -> None:
    status, body = get(server, "/metrics")
    assert status == 200
    assert b"happened_total 3.0" in body


def test_an_unknown_page_names_the_known_ones(server: HealthServer) -> None:
    assert get_json(server, "/nothing") == (404, {"pages": ["/live", "/ready", "/metrics"]})


def test_a_taken_port_is_an_error(health: Health, server: HealthServer) -> None:
    with pytest.raises(OSError, match="in use"):
        HealthServer(health, CollectorRegistry(), port=server.port)


def test_a_server_that_never_started_can_be_stopped(health: Health) -> None:
    HealthServer(health, CollectorRegistry()).stop()


def test_a_reason_has_no_secret_in_it(health: Health) -> None:
    learn("store.url", "redis://shop:hunter2@redis")
    health.ready(False, "AUTH hunter2 at redis://shop:other@redis")
    assert health.readiness()[1] == ["process: AUTH *** at redis://shop:***@redis"]


# -- connections that come to nothing ------------------------------------------------------------


class Bulk:
    """More of metrics than a socket holds."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        for number in range(20_000):
            yield CounterMetricFamily(f"bulk_{number}", "of help " * 8, value=number)


def reset(connection: socket.socket) -> None:
    """Drop a connection, as a peer that crashed."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /met",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\xff\r\n\r\n",
    ],
)
@pytest.mark.parametrize("how", ["reset", "closed", "left open"])
def test_a_dropped_connection_leaves_a_line_at_debug_and_no_trace(
    health: Health,
    sent: bytes,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(pages._QuietHandler, "timeout", 0.2)
    caplog.set_level(logging.DEBUG, "stream.health")
    registry = CollectorRegistry()
    registry.register(Bulk())
    with HealthServer(health, registry) as server:
        connection = socket.create_connection((server.host, server.port))
        connection.sendall(sent)
        if how == "reset":
            reset(connection)
        elif how == "closed":
            connection.close()
        # Whoever serves the dropped one ends by itself, at the time-out at the latest.
        deadline = time.monotonic() + 20
        while any("process_request_thread" in thread.name for thread in threading.enumerate()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert get(server, "/live")[0] == 200
        connection.close()
    said = capfd.readouterr()
    assert said.out + said.err == ""
    assert all(record.levelno == logging.DEBUG for record in caplog.records if record.levelno != 20)
    assert all(record.exc_info is None for record in caplog.records)


def test_many_half_open_connections_hold_up_nobody(
    server: HealthServer, capfd: pytest.CaptureFixture[str]
) -> None:
    there = [socket.create_connection((server.host, server.port)) for _ in range(100)]
    assert get(server, "/metrics")[0] == 200
    for connection in there:
        reset(connection)
    assert get(server, "/live")[0] == 200
    assert capfd.readouterr().err == ""


def test_a_page_that_cannot_be_made_is_logged(
    health: Health, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        def collect(self) -> Iterator[CounterMetricFamily]:
            raise ZeroDivisionError("not there")

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Broken())
    with HealthServer(health, registry) as server:
        assert get_json(server, "/metrics") == (500, {"error": "see the log"})
    assert [r.levelname for r in caplog.records if r.exc_info] == ["ERROR"]
    assert capfd.readouterr().err == ""
