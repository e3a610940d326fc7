"""What a process says about itself over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, Counter

from stream.health import Health, HealthServer


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
