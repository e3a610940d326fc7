"""`ops/chaos`: its traffic, its proxy, its store with a past, its command line."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.chaos import __main__ as chaos
from ops.chaos.evidence import Record
from ops.chaos.judge import Check, judge_sort
from ops.chaos.past import StoreWithPast
from ops.chaos.plan import Kind, make_plan
from ops.chaos.proxy import Proxy, Way
from ops.chaos.run import BEGIN_SECONDS, FreshStarts, Verdict
from ops.chaos.stage import ChaosError, Mode, settings_for
from ops.chaos.traffic import Shoppers, Sort
from stream.servers import free_port, redis_binary
from stream.store.redis import connect
from tests.conftest import unavailable

T0 = 1_760_000_000_000

# -- traffic -----------------------------------------------------------------------------------


def test_the_seed_decides_what_shoppers_do() -> None:
    def all_of(seed: int) -> list[object]:
        shoppers = Shoppers(seed, 500.0, T0, 1_000.0, by_marks=False)
        return [one for step in range(20) for one in shoppers.step(step, 0.5)]

    assert all_of(1) == all_of(1)
    assert all_of(1) != all_of(2)


@pytest.mark.parametrize("by_marks", [False, True])
def test_the_judge_reads_each_message_as_the_traffic_meant_it(by_marks: bool) -> None:
    shoppers = Shoppers(1, 2_000.0, T0, 1_000.0, by_marks=by_marks)
    seen: Counter[Sort] = Counter()
    last_ms = 0
    for step in range(30):
        for sort, topic, key, value, time_ms in shoppers.step(step, 1.0):
            read, _ = judge_sort(
                Record(str(topic), 0, 0, key, value, {}, time_ms), by_marks=by_marks
            )
            # Whether a message is a repeat is seen in its topic only.
            assert read == (Sort.APPLIED if sort is Sort.DUPLICATE else sort), value
            assert time_ms >= last_ms
            seen[sort], last_ms = seen[sort] + 1, time_ms
    assert all(seen[sort] > 10 for sort in Sort if sort is not Sort.MARK)
    assert seen[Sort.REJECTED] > 0.4 * sum(seen.values())


@pytest.mark.parametrize("mode", ["live", "marks"])
def test_the_settings_can_be_read(mode: Mode) -> None:
    settings = settings_for(mode, "127.0.0.1:1", "redis://127.0.0.1:1/0")
    assert (settings.clock.mode == "watermark") == (mode == "marks")


# -- proxy -------------------------------------------------------------------------------------


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that sends back what it gets."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer(one: socket.socket) -> None:
        with one:
            try:
                while data := one.recv(1_000):
                    one.sendall(data)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                one, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(one,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()


@pytest.fixture
def proxied(echo_port: int) -> Iterator[tuple[Proxy, socket.socket]]:
    """A proxy with one link, and a connection through it."""
    port = free_port()
    with Proxy() as proxy:
        proxy.link("echo/one", port, echo_port)
        with socket.create_connection(("127.0.0.1", port), timeout=5.0) as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
            yield proxy, client


@pytest.mark.parametrize("ways", [tuple(Way), (Way.TO_CLIENT,)])
def test_what_is_held_comes_when_it_is_released(
    proxied: tuple[Proxy, socket.socket], ways: tuple[Way, ...]
) -> None:
    proxy, client = proxied
    proxy.hold("echo", *ways)
    client.sendall(b"late")
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(100)
    client.settimeout(5.0)
    proxy.release("echo")
    assert client.recv(100) == b"late"


def test_what_was_sent_before_an_end_arrives_though_it_was_held(
    proxied: tuple[Proxy, socket.socket],
) -> None:
    proxy, client = proxied
    proxy.hold("echo", Way.TO_SERVER)
    client.sendall(b"last words")
    client.shutdown(socket.SHUT_WR)
    time.sleep(0.1)
    proxy.release("echo")
    assert client.recv(100) == b"last words"
    assert client.recv(100) == b""


def test_a_cut_resets_connections_and_new_ones_pass(proxied: tuple[Proxy, socket.socket]) -> None:
    proxy, client = proxied
    address = client.getpeername()
    proxy.cut("echo")
    with pytest.raises(ConnectionResetError):
        client.recv(100)
    with socket.create_connection(address, timeout=5.0) as again:
        again.sendall(b"again")
        assert again.recv(100) == b"again"


def test_held_replies_are_lost_by_a_cut(proxied: tuple[Proxy, socket.socket]) -> None:
    proxy, client = proxied
    proxy.hold("echo", Way.TO_CLIENT)
    client.sendall(b"never answered")
    proxy.cut("echo")
    proxy.release("echo")
    with pytest.raises(ConnectionResetError):
        client.recv(100)


def test_a_delay_takes_its_time_both_ways(proxied: tuple[Proxy, socket.socket]) -> None:
    proxy, client = proxied
    proxy.delay("echo", 0.1)
    began = time.monotonic()
    client.sendall(b"slow")
    assert client.recv(100) == b"slow"
    assert time.monotonic() - began >= 0.2


def test_where_no_server_is_a_client_is_sent_away() -> None:
    port = free_port()
    with Proxy() as proxy:
        proxy.link("nowhere", port, free_port())
        client = socket.create_connection(("127.0.0.1", port), timeout=5.0)
        with client, contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""


# -- store -------------------------------------------------------------------------------------


@pytest.mark.servers
def test_a_store_goes_back_to_what_it_was() -> None:
    if redis_binary() is None:
        unavailable("needs redis: apt-get install redis-server")
    server = StoreWithPast(binary=redis_binary(), port=free_port())
    try:
        server.start()
        client = connect(server.url, 5.0)
        times: list[float] = []

        def tell(number: int) -> None:
            client.set("number", number)
            client.rpush("all", number)
            times.append(time.monotonic())
            # Longer than between several looks at the file.
            time.sleep(0.5)

        for number in range(2):
            tell(number)
        # Rewritten, the file has another name, and the past is not in it.
        client.bgrewriteaof()
        deadline = time.monotonic() + 10.0
        while client.info("persistence")["aof_rewrite_in_progress"] and time.monotonic() < deadline:
            time.sleep(0.05)
        for number in range(2, 4):
            tell(number)

        killed = time.monotonic()
        assert server.put_back_to is None
        went_back = server.kill_and_put_back(killed - (times[2] + 0.4))
        assert server.put_back_to == pytest.approx(server.lived(), abs=0.5)
        assert times[2] < killed - went_back < times[3]
        server.start()
        assert client.get("number") == b"2"
        assert client.lrange("all", 0, -1) == [b"0", b"1", b"2"]

        # What was taken back was not lived through: the past goes on from where it was put.
        again = killed - went_back + (time.monotonic() - killed)
        went_back = server.kill_and_put_back(again - (times[0] + 0.4))
        assert times[0] < again - went_back < times[1]
        server.start()
        assert client.get("number") == b"0"
        assert client.lrange("all", 0, -1) == [b"0"]
        client.close()
    finally:
        server.close()


def test_versions_may_begin_again_where_the_store_goes_back_to_having_nothing() -> None:
    fresh = FreshStarts()
    fresh.begun(5.0)
    fresh.put_back(10.0)
    assert fresh.allowed == 0, "it went back, but had everything"
    early = FreshStarts()
    early.begun(5.0)
    early.put_back(5.0)
    assert early.allowed == 1, "it went back to when not all had begun"
    fresh.lose(100.0)
    fresh.put_back(100.0 + BEGIN_SECONDS + 0.1)
    assert fresh.allowed == 1, "it went back to when all had begun again"
    fresh.put_back(101.0)
    fresh.put_back(102.0)
    assert fresh.allowed == 3


# -- command line ------------------------------------------------------------------------------


def test_a_plan_can_be_seen_without_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--plan", "--seconds", "60", "--only", "kill_role,lose_second"]
    assert chaos.main(arguments) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert {first.split()[2], second.split()[2]} == {"kill_role", "lose_second"}


@pytest.mark.parametrize("findings", [0, 7])
def test_a_verdict_is_told_recorded_and_answered_with_an_exit_code(
    findings: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def judged(**asked: object) -> Verdict:
        assert (asked["mode"], asked["seed"], asked["kinds"]) == ("marks", 3, (Kind.CUT,))
        verdict = Verdict("marks", 3, 60.0, messages=1_000, changes=50)
        verdict.faults = [(5.0, make_plan(3, 60.0, [Kind.CUT])[0], "")]
        wrong = [f"finding {number}" for number in range(findings)]
        verdict.checks = [Check("nothing is lost", 10, wrong, repeats=2)]
        return verdict

    monkeypatch.setattr(chaos, "run", judged)
    monkeypatch.setattr(chaos, "RESULTS", tmp_path / "results.md")
    arguments = ["--mode", "marks", "--seed", "3", "--only", "cut", "--json", "--record"]
    assert chaos.main(arguments) == (1 if findings else 0)
    printed = capsys.readouterr()
    verdict = json.loads(printed.out)
    assert (verdict["findings"], verdict["faults"][0]["kind"]) == (findings, "cut")
    assert ("OFF nothing is lost: 10 looked at, 7 wrong" in printed.err) == bool(findings)
    assert ("and 2 more" in printed.err) == bool(findings)
    recorded = (tmp_path / "results.md").read_text().splitlines()[-1]
    assert recorded.endswith(f"| marks | 3 | 60 | 1,000 | 50 | 1 | {findings} |")


def test_what_cannot_be_done_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> Verdict:
        raise ChaosError("the traffic failed")

    monkeypatch.setattr(chaos, "run", fail)
    assert chaos.main([]) == 2
    assert "the traffic failed" in capsys.readouterr().err


def test_the_help_names_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        chaos.main(["--help"])
    told = capsys.readouterr().out
    assert all(f"  {kind} " in told for kind in Kind)


@pytest.mark.parametrize(
    "arguments", [["--only", "earthquake"], ["--only", "cut", "--without", "cut"]]
)
def test_what_cannot_be_run_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        chaos.main(arguments)
    assert ended.value.code == 2
    assert "kind" in capsys.readouterr().err.lower()
