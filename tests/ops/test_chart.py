"""The chart is rendered by Helm itself, keeps to the schemas of what it makes, and fits the code."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from typing import Any, cast

import pytest
import yaml
from jsonschema import Draft202012Validator

from stream.config_layers import load
from stream.wiring.roles import ROLES
from tests.conftest import unavailable
from tests.ops.queries import ROOT, RULES, rules

try:
    import helm_python as helm
    import kubernetes_validate
except ImportError as error:
    unavailable(f"needs what renders and judges the chart: make setup ({error})")

CHART = ROOT / "ops/charts/segstream"
KUBERNETES = "1.37"
DIGEST = "sha256:" + "a" * 64
EVERYTHING: dict[str, Any] = {
    "image": {"digest": DIGEST},
    "imagePullSecrets": [{"name": "registry"}],
    "settings": {
        "learning": {"segments": 6},
        "worker": {"shop_events": ["Parcel Sent"], "remembered_ids": 2_000_000},
    },
    "settingsFile": "[log]\nlevel = 'debug'\n",
    "existingSecret": "segstream",
    "roleSecrets": {"trainer": "segstream-trainer"},
    "extraVolumes": [{"name": "certificates", "secret": {"secretName": "kafka"}}],
    "extraVolumeMounts": [{"name": "certificates", "mountPath": "/certificates"}],
    "networkPolicy": {
        "metricsFrom": [{"namespaceSelector": {}}],
        "apiFrom": [{"podSelector": {"matchLabels": {"app": "ingress"}}}],
    },
    "roles": {"api": {"replicas": 2}},
    "api": {
        "clients": {"crm": ["read", "rename"], "board": ["read"]},
        "clientsSecret": "segstream-clients",
        "service": {"annotations": {"note": "x"}},
    },
    "monitoring": {"enabled": True, "labels": {"release": "prometheus"}, "runbookPrefix": "base/"},
    "autoscaling": {"enabled": True, "maxReplicaCount": 40, "authentication": "kafka"},
    "podAnnotations": {"note": "x"},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "shop", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
}

Object = dict[str, Any]


def rendered(values: Mapping[str, Any]) -> list[Object]:
    with helm.Chart.load(str(CHART)) as chart:
        texts = chart.render(dict(values), name="demo", namespace="prod")
    return [
        one
        for name, text in sorted(texts.items())
        if name.endswith(".yaml")
        for one in yaml.safe_load_all(text)
        if one
    ]


DEFAULT, FULL = rendered({}), rendered(EVERYTHING)
ALL = [*DEFAULT, *FULL]


def of(objects: list[Object], kind: str) -> list[Object]:
    return [one for one in objects if one["kind"] == kind]


def pods() -> list[Object]:
    return [one["spec"]["template"]["spec"] for k in ("Deployment", "Job") for one in of(ALL, k)]


OPERATORS = {
    file.stem: Draft202012Validator(json.loads(file.read_text()))
    for file in (ROOT / "tests/ops/crds").glob("*.json")
}
"""Kinds that operators bring along. Their schemas are made of the packages cloudcoil-models-keda 2.16.1.0 and
cloudcoil-models-prometheus-operator 0.80.1.0, whose classes take ten seconds to load; each refuses fields that
the kind has not."""


def judge(one: Object) -> None:
    """Hold an object to the schema of its kind.

    Raises:
        Exception: it does not keep to it, or has a field that the kind has not.
    """
    if one["kind"] in OPERATORS:
        OPERATORS[one["kind"]].validate(one)
    else:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)


@pytest.mark.parametrize("one", ALL, ids=lambda o: f"{o['kind']}-{o['metadata']['name']}")
def test_every_object_is_what_kubernetes_expects(one: Object) -> None:
    judge(one)


def test_the_operators_kinds_are_in_the_chart() -> None:
    assert OPERATORS.keys() == {"ScaledObject", "PodMonitor", "PrometheusRule"}
    assert OPERATORS.keys() <= {one["kind"] for one in FULL}


@pytest.mark.parametrize("kind", ["Deployment", "Job", "NetworkPolicy", *sorted(OPERATORS)])
def test_a_field_that_is_none_would_be_found(kind: str) -> None:
    one = json.loads(json.dumps(of(FULL, kind)[0]))
    one["spec"]["typo"] = 1
    with pytest.raises(Exception, match="typo"):
        judge(one)


def test_helm_finds_nothing_wrong() -> None:
    found = helm.lint(str(CHART))
    assert [m["error"] for m in found["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"autoscaling": {"minReplicaCount": 0}},
        {"roles": {"trainer": {"replicas": 0}}},
        {"image": {"digest": "latest"}},
        {"networkPolice": {}},
        {"api": {"clients": {"crm": ["write"]}}},
        {"api": {"clients": {"crm": []}}},
    ],
)
def test_values_that_would_do_harm_are_refused(wrong: dict[str, Any]) -> None:
    with helm.Chart.load(str(CHART)) as chart, pytest.raises(helm.HelmError):
        chart.validate_schema(wrong)


def test_the_chart_is_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == version
    assert {pod["containers"][0]["image"] for pod in pods()} == {
        f"segstream:{version}",
        f"segstream@{DIGEST}",
    }
    assert f"ARG VERSION={version}\n" in (ROOT / "ops/docker/Dockerfile").read_text()


def test_every_deployment_is_a_role_and_each_needed_one_has_its_own() -> None:
    found = {
        one["metadata"]["name"].removeprefix("demo-segstream-"): one
        for one in of(DEFAULT, "Deployment")
    }
    assert found.keys() == {"activity", "trainer", "publisher"} <= set(ROLES)
    for role, one in found.items():
        (container,) = one["spec"]["template"]["spec"]["containers"]
        assert container["args"] == ["run", role]
        assert one["spec"]["replicas"] >= 1


def _environment(objects: list[Object], name: str) -> dict[str, str]:
    (found,) = (one for one in of(objects, "ConfigMap") if one["metadata"]["name"] == name)
    (pod, *_) = (one["spec"]["template"]["spec"] for one in of(objects, "Deployment"))
    own = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
    own.pop("SEGSTREAM_CONFIG", None)
    return cast(
        "dict[str, str]", {k: v for k, v in found["data"].items() if k != "shop.toml"} | own
    )


@pytest.mark.parametrize("name", ["demo-segstream-environment", "demo-segstream-topics"])
def test_the_settings_are_settings(name: str) -> None:
    settings, _ = load(environment=_environment(DEFAULT, name))
    assert settings.metrics.port == 9100
    assert settings.metrics.host == "0.0.0.0"  # noqa: S104 - the pod's own network
    assert settings.metrics.linger_seconds == 2 * 15
    full, _ = load(environment=_environment(FULL, name))
    assert full.worker.shop_events == ("Parcel Sent",)
    assert full.worker.remembered_ids == 2_000_000
    assert full.learning.segments == 6


def _of_role(objects: list[Object], kind: str, role: str) -> Object:
    (found,) = (o for o in of(objects, kind) if o["metadata"]["name"].endswith(role))
    return found


def test_the_api_is_reached_by_its_service_and_knows_its_clients() -> None:
    assert of(DEFAULT, "Service") == []
    service, deployment = (_of_role(FULL, kind, "-api") for kind in ("Service", "Deployment"))
    pod = deployment["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    (port,) = service["spec"]["ports"]
    (container,) = pod["spec"]["containers"]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    environment = {one["name"]: one["value"] for one in container["env"]}
    environment.pop("SEGSTREAM_CONFIG")
    settings, _ = load(environment=environment)
    assert ports[port["targetPort"]] == settings.api.port
    assert settings.api.host == "0.0.0.0"  # noqa: S104 - the pod's own network
    assert {one.name: [str(scope) for scope in one.scopes] for one in settings.api.clients} == {
        "crm": ["read", "rename"],
        "board": ["read"],
    }
    # Tokens are where the Secret is mounted.
    (mount,) = (one for one in container["volumeMounts"] if one["name"] == "clients")
    (volume,) = (one for one in pod["spec"]["volumes"] if one["name"] == "clients")
    assert volume["secret"]["secretName"] == "segstream-clients"
    assert mount["readOnly"]
    assert {one.token for one in settings.api.clients} == {
        f"file:{mount['mountPath']}/{one.name}" for one in settings.api.clients
    }


def test_nobody_but_the_declared_reaches_the_api() -> None:
    (default,) = of(DEFAULT, "NetworkPolicy")
    assert [rule["ports"][0]["port"] for rule in default["spec"]["ingress"]] == ["metrics"]
    (full,) = of(FULL, "NetworkPolicy")
    metrics, api = full["spec"]["ingress"]
    assert (metrics["ports"][0]["port"], api["ports"][0]["port"]) == ("metrics", "api")
    assert api["from"] == [{"podSelector": {"matchLabels": {"app": "ingress"}}}]


@pytest.mark.parametrize(
    ("api", "said"),
    [({}, "api.clients"), ({"clients": {"crm": ["read"]}}, "api.clientsSecret")],
)
def test_an_api_without_clients_or_tokens_is_refused(api: dict[str, Any], said: str) -> None:
    with pytest.raises(helm.HelmError, match=said):
        rendered({"roles": {"api": {"replicas": 1}}, "api": api})


def test_the_pages_of_a_role_are_asked_for_on_its_port() -> None:
    for one in of(ALL, "Deployment"):
        (container,) = one["spec"]["template"]["spec"]["containers"]
        metrics = {"name": "metrics", "containerPort": 9100, "protocol": "TCP"}
        assert metrics in container["ports"]
        assert container["livenessProbe"]["httpGet"] == {"path": "/live", "port": "metrics"}
        assert container["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "metrics"}


def test_no_container_can_do_more_than_it_must() -> None:
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        written = {
            m["mountPath"] for m in container["volumeMounts"] if m["name"] in {"tmp", "cache"}
        }
        assert written == {"/tmp", "/var/cache/segstream"}  # noqa: S108 - the container's own


def test_mounts_have_their_volumes() -> None:
    for pod in pods():
        there = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} <= there


def test_secrets_come_last_and_a_roles_own_after_all() -> None:
    (trainer,) = (o for o in of(FULL, "Deployment") if o["metadata"]["name"].endswith("trainer"))
    sources = trainer["spec"]["template"]["spec"]["containers"][0]["envFrom"]
    assert [next(iter(one.values()))["name"] for one in sources] == [
        "demo-segstream-environment",
        "segstream",
        "segstream-trainer",
    ]


def test_workers_are_scaled_by_both_inputs_and_never_to_none() -> None:
    assert of(DEFAULT, "ScaledObject") == []
    (scaled,) = of(FULL, "ScaledObject")
    spec = scaled["spec"]
    assert spec["minReplicaCount"] >= 1
    assert spec["maxReplicaCount"] == 12, "more than there are partitions would idle"
    assert spec.keys() == {
        "scaleTargetRef", "minReplicaCount", "maxReplicaCount", "cooldownPeriod", "triggers",
    }  # fmt: skip
    for trigger, topic in zip(spec["triggers"], ("clickstream", "purchases"), strict=True):
        assert trigger == {
            "type": "kafka",
            "metadata": {
                "bootstrapServers": "kafka:9092",
                "consumerGroup": "segstream-activity",
                "topic": topic,
                "lagThreshold": "100000",
                "offsetResetPolicy": "earliest",
            },
            "authenticationRef": {"name": "kafka"},
        }
    names = {one["metadata"]["name"] for one in of(FULL, "Deployment")}
    assert spec["scaleTargetRef"]["name"] in names
    (activity,) = (o for o in of(FULL, "Deployment") if o["metadata"]["name"].endswith("activity"))
    assert "replicas" not in activity["spec"], "whoever scales would be put back by an upgrade"


def test_topics_are_made_before_the_roles() -> None:
    (job,) = of(DEFAULT, "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["topics", "apply"]
    used = job["spec"]["template"]["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"]
    (settings,) = (o for o in of(DEFAULT, "ConfigMap") if o["metadata"]["name"] == used)
    assert int(settings["metadata"]["annotations"]["helm.sh/hook-weight"]) < 0


def test_the_alerts_are_those_of_the_project() -> None:
    assert (CHART / "files/segstream.yml").read_text() == RULES.read_text(), "copy it anew"
    (told,) = of(FULL, "PrometheusRule")
    found = [rule for group in told["spec"]["groups"] for rule in group["rules"]]
    expected = [json.loads(json.dumps(rule)) for rule in rules()]
    for rule in expected:
        if "alert" in rule:
            rule["annotations"]["runbook_url"] = "base/" + rule["annotations"]["runbook_url"]
    assert found == expected


def test_the_role_is_a_label_of_what_is_scraped() -> None:
    (monitor,) = of(FULL, "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["honorLabels"]
    assert endpoint["relabelings"][0]["targetLabel"] == "role"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_who_selects_pods_finds_them() -> None:
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in of(FULL, "Deployment")]
    for kind in ("PodDisruptionBudget", "PodMonitor", "Deployment"):
        for one in of(FULL, kind):
            wanted = one["spec"]["selector"]["matchLabels"].items()
            assert any(wanted <= found.items() for found in labels), kind
