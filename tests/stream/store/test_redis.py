"""What a server's refusal means to a role: try again later, or never again."""

from __future__ import annotations

import pytest
import redis
from redis._parsers.base import BaseParser

from stream.config import ConfigError
from stream.store.redis import RedisStore, connect
from stream.store.redis_errors import failure
from stream.store.state import StoreRefusedError, StoreUnavailableError

LASTING = (
    "WRONGPASS invalid username-password pair or user is disabled.",
    "NOAUTH Authentication required.",
    "NOPERM User me has no permissions to run the 'hset' command",
    "NOPERM No permissions to access a key",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "ERR unknown command 'EVALSHA', with args beginning with: 'abc'",
    "ERR wrong number of arguments for 'hset' command",
    "ERR syntax error",
    "ERR DB index is out of range",
    "ERR invalid password",
    "ERR Error compiling script (new function): user_script:1: '=' expected",
    "ERR The user executing the script can't run this command or subcommand script: abc",
    "ERR ACL failure in script: User me has no permissions to run the 'del' command",
    "DENIED Redis is running in protected mode because protected mode is enabled",
)
CLUSTERED = (
    "MOVED 3999 127.0.0.1:6381",
    "ASK 3999 127.0.0.1:6381",
    "CROSSSLOT Keys in request don't hash to the same slot",
    "ERR SELECT is not allowed in cluster mode",
)
PASSING = (
    "OOM command not allowed when used memory > 'maxmemory'.",
    "READONLY You can't write against a read only replica.",
    "LOADING Redis is loading the dataset in memory",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "CLUSTERDOWN The cluster is down",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist",
    "NOREPLICAS Not enough good replicas to write.",
    "ERR max number of clients reached",
    "UNBLOCKED client unblocked via CLIENT UNBLOCK",
    "upstream failure",
)


def answered(text: str) -> Exception:
    """The error that redis-py makes of a server's answer."""
    made: object = BaseParser.parse_error(text)  # type: ignore[no-untyped-call]
    assert isinstance(made, redis.RedisError)
    return made


@pytest.mark.parametrize("text", LASTING)
def test_what_no_repetition_changes_is_refused(text: str) -> None:
    found = failure(answered(text), "commit of partition 3: ")
    assert isinstance(found, StoreRefusedError)
    assert str(found).startswith("commit of partition 3: ")
    assert text.split(" ", 1)[1] in str(found)


@pytest.mark.parametrize("text", CLUSTERED)
def test_a_cluster_is_said_to_be_unsupported(text: str) -> None:
    found = failure(answered(text))
    assert isinstance(found, StoreRefusedError)
    assert "Redis Cluster, which is not supported yet" in str(found)


@pytest.mark.parametrize("text", PASSING)
def test_what_passes_is_waited_out(text: str) -> None:
    assert isinstance(failure(answered(text)), StoreUnavailableError)


@pytest.mark.parametrize(
    "error",
    [
        redis.ConnectionError("Error 111 connecting to 127.0.0.1:1. Connection refused."),
        redis.TimeoutError("Timeout reading from socket"),
        OSError(24, "Too many open files"),
        redis.MaxConnectionsError(),
        # A name of a host is no word of a server.
        redis.ConnectionError("Error -2 connecting to unknown command:6379. Name not known."),
    ],
)
def test_a_store_that_cannot_be_reached_is_waited_for(error: Exception) -> None:
    assert isinstance(failure(error), StoreUnavailableError)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h:99999/0",
        "redis://h/0?speed=fast",
        "redis://h/0?socket_timeout=soon",
        "rediss://h/0?ssl_cert_reqs=perhaps",
    ],
)
def test_an_address_that_means_nothing_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^store\.url: .*expected is redis://"):
        connect(url, 1.0)


@pytest.mark.servers
def test_a_key_of_another_kind_stops_whoever_meets_it(redis_url: str) -> None:
    with connect(redis_url, 5.0) as client:
        client.set("kind:trainer", b"no hash")
        store = RedisStore(client, namespace="kind", partitions=1)
        with pytest.raises(StoreRefusedError, match="wrong kind of value"):
            store.round()
        client.delete("kind:trainer")
