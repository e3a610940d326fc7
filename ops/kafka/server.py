"""Runs Apache Kafka (KRaft, one process) for tests and benchmarks.

Comes in: a machine with Java 17 and Maven. Goes out: `RealKafka`, a broker on a free loopback
port that can be stopped, killed, frozen and restarted with its data. Its jars are fetched once,
by ``pom.xml``, into ``.cache/kafka-jars``.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stream.errors import ServerStartError
from stream.servers import Server, broker_answers, free_port

HERE = Path(__file__).parent
JARS = HERE.parent.parent / ".cache" / "kafka-jars"
CLUSTER_ID = "c2Vnc3RyZWFtLWthZmthLQ"  # any 16 bytes in base64

# A broker killed and started again is let in when its old session is over, hence the short one;
# membership as quick as Kafka allows, so that a takeover takes seconds in tests; a single
# broker keeps one copy of everything; few internal partitions, because each costs start-up time.
PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners={listeners},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners={listeners}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT{protocols}
controller.listener.names=CONTROLLER
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
controlled.shutdown.enable=false
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=200
group.consumer.heartbeat.interval.ms=500
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=6000
"""


class RealKafka(Server):
    """Apache Kafka as a child process; see `stream.servers.Server`.

    Args:
        heap: of the Java process, such as ``512m``.
        properties: further broker settings, over the ones above.
        listeners: further ones, beside the one without any security: by name, the protocol.
        users: passwords by name, for SASL/SCRAM-SHA-512.
        directory: where its data and log lie; None takes a temporary folder.
        port: where it listens; 0 takes a free one.
    """

    name = "kafka"
    start_seconds = 180.0
    stop_seconds = 20.0

    def __init__(
        self,
        *,
        heap: str = "512m",
        properties: Mapping[str, str] | None = None,
        listeners: Mapping[str, str] | None = None,
        users: Mapping[str, str] | None = None,
        directory: Path | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(directory=directory, port=port)
        self._heap = heap
        self._properties = dict(properties or {})
        self._protocols = dict(listeners or {})
        self._users = dict(users or {})
        self._ports: dict[str, int] = {}

    @property
    def bootstrap(self) -> str:
        """What to give as ``broker.bootstrap``."""
        return self.address

    def listener(self, name: str) -> str:
        """What to give as ``broker.bootstrap`` to use another listener."""
        return f"127.0.0.1:{self._ports[name]}"

    def _command(self) -> list[str]:
        """Also writes the settings, with a free port for the controller, and formats new data."""
        jars = fetch_jars()
        data = self.directory / "data"
        settings = self.directory / "server.properties"
        self._ports = self._ports or {name: free_port() for name in self._protocols}
        named = {"PLAINTEXT": self.port, **self._ports}
        lines = PROPERTIES.format(
            listeners=",".join(f"{name}://127.0.0.1:{port}" for name, port in named.items()),
            protocols="".join(f",{name}:{protocol}" for name, protocol in self._protocols.items()),
            controller_port=free_port(),
            data=data,
        )
        more = "".join(f"{key}={value}\n" for key, value in self._properties.items())
        settings.write_text(lines + more)
        java = [
            _program("java"),
            f"-Xms{self._heap}",
            f"-Xmx{self._heap}",
            f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}",
            # What it unpacks is left behind by a kill: it goes where everything else of it goes.
            f"-Djava.io.tmpdir={self.directory}",
            *("-cp", f"{jars}/*"),
        ]
        if not (data / "meta.properties").exists():
            formatting = [*java, "-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", "format"]
            scram = [
                part
                for name, password in self._users.items()
                for part in ("--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]")
            ]
            _run(
                [*formatting, "-t", CLUSTER_ID, "-c", str(settings), *scram], "Kafka's data folder"
            )
        return [*java, "kafka.Kafka", str(settings)]

    def _answers(self) -> bool:
        """Also whether every partition has its leader, which after a restart takes a little."""
        if not broker_answers(self.bootstrap):
            return False
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        try:
            topics = admin.list_topics(timeout=1.0).topics.values()
        except KafkaException:
            return False
        return all(p.leader >= 0 for topic in topics for p in topic.partitions.values())


def why_unavailable() -> str | None:
    """Why no Kafka can be started on this machine, with the remedy; None if one can."""
    if shutil.which("java") is None:
        return "needs Java: apt-get install openjdk-17-jre-headless maven"
    if not _stamp().exists() and shutil.which("mvn") is None:
        return "needs Maven for Kafka's jars: apt-get install maven"
    return None


def fetch_jars() -> Path:
    """The folder with Kafka's jars, filled by Maven if it is not there.

    Raises:
        ServerStartError: Maven is missing or failed.
    """
    if _stamp().exists():
        return JARS
    JARS.parent.mkdir(parents=True, exist_ok=True)
    with (JARS.parent / "kafka-jars.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _stamp().exists():
            shutil.rmtree(JARS, ignore_errors=True)
            maven = [_program("mvn"), "-B", "-q", "-f", str(HERE / "pom.xml")]
            _run(
                [*maven, "dependency:copy-dependencies", f"-DoutputDirectory={JARS}"],
                "Kafka's jars",
            )
            _stamp().touch()
    return JARS


def _stamp() -> Path:
    """A file that says the jars are complete and those of the present ``pom.xml``."""
    return JARS / f"complete-{hashlib.sha256((HERE / 'pom.xml').read_bytes()).hexdigest()[:16]}"


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ServerStartError(why_unavailable() or f"{name} is missing")
    return found


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        end = "\n".join((done.stdout + done.stderr).splitlines()[-8:])
        raise ServerStartError(f"{what} could not be made: {end}")
