"""The store behind TLS, as a user of its own, and behind Sentinels that make another server the master."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from stream.config import Settings
from stream.rights import acl_line
from stream.servers import LocalStore, Server, free_port, redis_binary
from stream.store.redis import RedisStore, connect, connect_store
from stream.store.state import Answer, StoreRefusedError, StoreUnavailableError
from tests.certificates import Authority, Certificate
from tests.conftest import unavailable
from tests.contracts.parts import START, commit

pytestmark = pytest.mark.servers
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module")
def binary() -> Path:
    found = redis_binary()
    if found is None:
        unavailable("needs redis-server: apt-get install redis-server")
    return found


def until(what: str, condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


# -- TLS ------------------------------------------------------------------------------------------


class TlsStore(LocalStore):
    """Listens with TLS alone, and asks clients for a certificate."""

    def __init__(self, authority: Authority, certificate: Certificate, binary: Path) -> None:
        self.authority, self.certificate = authority.certificate, certificate
        port = free_port()
        files = {
            "--tls-cert-file": certificate.certificate,
            "--tls-key-file": certificate.key,
            "--tls-ca-cert-file": authority.certificate,
        }
        named = [str(part) for pair in files.items() for part in pair]
        super().__init__(
            arguments=["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "yes", *named],
            binary=binary,
            port=port,
        )

    @property
    def url(self) -> str:
        return self.of(self.authority, self.certificate)

    def of(self, authority: Path, client: Certificate | None, user: str = "") -> str:
        """The address for a client that trusts an authority, and has a certificate or none."""
        own = f"&ssl_certfile={client.certificate}&ssl_keyfile={client.key}" if client else ""
        return f"rediss://{user}{self.address}/0?ssl_ca_certs={authority}{own}"


@pytest.fixture
def tls(tmp_path: Path, binary: Path) -> Iterator[TlsStore]:
    authority = Authority(tmp_path)
    with TlsStore(authority, authority.sign("store"), binary) as server:
        yield server


def store_at(url: str) -> RedisStore:
    return RedisStore(connect(url, 5.0), namespace="segstream", partitions=2)


def test_a_role_commits_over_tls_as_its_own_user(tls: TlsStore) -> None:
    with redis.Redis.from_url(tls.url) as admin:
        admin.execute_command(*acl_line("activity", "segstream", "word").split())
        admin.execute_command("ACL", "SETUSER", "default", "off")
    store = store_at(tls.of(tls.authority, tls.certificate, "segstream-activity:word@"))
    store.create(0, "t", START)
    assert store.commit(0, "t", commit(0)) is Answer.OK
    store.close()
    nobody = store_at(tls.url)
    with pytest.raises(StoreRefusedError, match=r"NOAUTH|Authentication required"):
        nobody.position(0)


def test_who_cannot_show_or_prove_who_they_are_is_not_answered(
    tls: TlsStore, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "other", "stranger")
    with pytest.raises(StoreUnavailableError, match="certificate verify failed"):
        store_at(tls.of(stranger.certificate, tls.certificate)).position(0)
    for shown in (None, stranger.sign("client")):
        with pytest.raises(StoreUnavailableError):
            store_at(tls.of(tls.authority, shown)).position(0)


# -- Sentinel -------------------------------------------------------------------------------------


class Sentinel(Server):
    """Watches one master."""

    name = "sentinel"

    def __init__(self, binary: Path, master: int) -> None:
        super().__init__(port=free_port())
        self._binary = binary
        self._master = master

    @property
    def url(self) -> str:
        return f"redis://:watchword@{self.address}/shop"

    def _command(self) -> list[str]:
        settings = self.directory / "sentinel.conf"
        settings.write_text(
            f"port {self.port}\nbind 127.0.0.1\nrequirepass watchword\n"
            f"sentinel monitor shop 127.0.0.1 {self._master} 1\n"
            "sentinel auth-pass shop storeword\n"
            "sentinel down-after-milliseconds shop 2000\nsentinel failover-timeout shop 5000\n"
        )
        return [str(self._binary), str(settings), "--sentinel"]

    def asked(self, *words: str) -> object:
        with redis.Redis(port=self.port, password="watchword") as client:  # noqa: S106 - of this test
            return client.execute_command("SENTINEL", *words)

    def _answers(self) -> bool:
        try:
            return bool(self.asked("MASTERS"))
        except redis.RedisError:
            return False

    def master(self) -> int:
        with redis.Redis(port=self.port, password="watchword") as client:  # noqa: S106 - of this test
            return int(client.sentinel_get_master_addr_by_name("shop")[1])

    def knows_a_replica(self) -> bool:
        with redis.Redis(port=self.port, password="watchword") as client:  # noqa: S106 - of this test
            return any(not one["is_disconnected"] for one in client.sentinel_slaves("shop"))


def test_commits_go_on_at_the_server_that_becomes_master(binary: Path) -> None:
    words = ["--requirepass", "storeword", "--masterauth", "storeword"]
    with ExitStack() as stack:

        class Guarded(LocalStore):
            @property
            def url(self) -> str:
                return f"redis://:storeword@{self.address}/0"

        first = stack.enter_context(Guarded(binary=binary, arguments=words))
        follow = ["--replicaof", "127.0.0.1", str(first.port)]
        second = stack.enter_context(Guarded(binary=binary, arguments=[*words, *follow]))
        sentinel = stack.enter_context(Sentinel(binary, first.port))
        until("the replica is known", sentinel.knows_a_replica)
        section = {"url": "redis://:storeword@nowhere.invalid/0", "sentinel": sentinel.url}
        settings = Settings.model_validate({"store": section})
        store = RedisStore(connect_store(settings.store), namespace="n", partitions=2)
        stack.callback(store.close)
        store.create(0, "t", START)
        assert store.commit(0, "t", commit(0)) is Answer.OK
        run = store.run()
        with redis.Redis.from_url(first.url) as admin:
            assert admin.wait(1, 10_000) == 1, "the replica has the commit"

        first.stop(kill=True)
        until("the other is master", lambda: sentinel.master() == second.port)

        def committed() -> bool:
            try:
                return store.commit(0, "t", commit(1)) in {Answer.OK, Answer.APPLIED}
            except StoreUnavailableError:
                return False

        until("a commit is taken", committed)
        assert store.run() != run, "a role knows that this is another server"
        with redis.Redis.from_url(second.url) as admin:
            found = RedisStore(admin, namespace="n", partitions=2).acquire(0, "u")
        assert found is not None
        assert found[0] == 2
