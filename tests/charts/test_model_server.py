"""The chart model-server: how it rolls, drains, scales, mounts, and who may connect to its pods."""

from __future__ import annotations

import re
from typing import Any

import pytest

from . import hardening, rendered
from .rendered import RELEASE, Chart, HelmError, Object, Pod, needs_helm

CHART = Chart(rendered.CHARTS / "model-server")
IMAGE = {"image": {"repository": "example/server", "tag": "1"}}
PORTS = {"ports": {"main": 9000, "grpc": 9001, "metrics": 9002}}

pytestmark = needs_helm


def render(**values: Any) -> list[Object]:
    return rendered.render(CHART, {**IMAGE, **values})


def pod_of(objects: list[Object]) -> Pod:
    [pod] = rendered.pods(objects)
    return pod


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(HelmError) as refused:
        rendered.render(CHART, values)
    return str(refused.value)


@pytest.mark.parametrize(
    ("image", "named"),
    [
        ({}, "image.repository: found nothing"),
        ({"repository": "example/server"}, "image.tag: found nothing"),
        ({"repository": "example/server", "tag": "latest"}, "image.tag: found latest"),
    ],
)
def test_an_image_must_be_named_and_pinned(image: dict[str, str], named: str) -> None:
    assert named in refusal({"image": image})


@pytest.mark.parametrize(
    ("values", "value"),
    [
        ({"metrics": {"port": "amin"}}, "metrics.port"),
        ({"probes": {"ready": {"port": "amin"}}}, "probes.ready.port"),
        ({"probes": {"live": {"port": "amin"}}}, "probes.live.port"),
        ({"service": {"nodePorts": {"amin": 30080}}}, "service.nodePorts"),
    ],
)
@pytest.mark.parametrize("policy", [True, False])
def test_a_port_that_is_none_is_refused_by_its_name(values: dict[str, Any], value: str, policy: bool) -> None:
    said = refusal({**IMAGE, **values, "networkPolicy": {"enabled": policy}})
    assert f'{value}: found "amin", expected a name in ports (main)' in said


def test_the_platform_is_the_release_unless_named() -> None:
    assert pod_of(render()).labels["exhibit/platform"] == RELEASE
    assert pod_of(render(platform="other")).labels["exhibit/platform"] == "other"


def test_a_canary_shares_the_platform_and_no_pod() -> None:
    stable, canary = (rendered.render(CHART, {**IMAGE, "platform": "p"}, release) for release in ("p", "p-canary"))
    assert pod_of(stable).labels["exhibit/platform"] == pod_of(canary).labels["exhibit/platform"]
    names = [{rendered.title(item) for item in objects} for objects in (stable, canary)]
    assert names[0].isdisjoint(names[1])
    for objects, strangers in ((stable, canary), (canary, stable)):
        for item in objects:
            if item["kind"] == "Service":
                assert item["spec"]["selector"].items() <= pod_of(objects).labels.items()
                assert not item["spec"]["selector"].items() <= pod_of(strangers).labels.items()


def test_an_old_pod_goes_only_when_the_new_one_is_ready() -> None:
    strategy = rendered.only(render(), "Deployment")["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


@pytest.mark.parametrize(("drain", "stop", "grace"), [(8, 10, 23), (0, 10, 15), (20, 60, 85)])
def test_a_pod_has_the_time_to_drain_and_to_stop(drain: int, stop: int, grace: int) -> None:
    spec = pod_of(render(drainSeconds=drain, stopSeconds=stop)).spec
    assert spec["terminationGracePeriodSeconds"] == grace
    hooks = spec["containers"][0].get("lifecycle")
    assert hooks == ({"preStop": {"sleep": {"seconds": drain}}} if drain else None)


@pytest.mark.parametrize(("start", "period", "looks"), [(60, 2, 30), (61, 2, 31), (1, 5, 1)])
def test_a_start_has_its_time_whole(start: int, period: int, looks: int) -> None:
    [container] = pod_of(render(probes={"startSeconds": start, "periodSeconds": period})).spec["containers"]
    assert container["startupProbe"]["failureThreshold"] == looks
    assert container["startupProbe"]["periodSeconds"] == container["readinessProbe"]["periodSeconds"] == period


def test_a_model_that_is_not_loaded_keeps_requests_away_and_restarts_nothing() -> None:
    probes = {"ready": {"path": "/ready"}, "live": {"path": "/live", "port": "grpc"}}
    [container] = pod_of(render(probes=probes, **PORTS)).spec["containers"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/ready", "port": 9000}
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/live", "port": 9001}


def test_the_autoscaler_owns_the_number_of_pods() -> None:
    assert rendered.only(render(replicas=3), "Deployment")["spec"]["replicas"] == 3
    scaling = {"enabled": True, "minReplicas": 2, "maxReplicas": 5, "cpuPercent": 60, "scaleDownSeconds": 30}
    objects = render(replicas=3, autoscaling=scaling)
    assert "replicas" not in rendered.only(objects, "Deployment")["spec"]
    spec = rendered.only(objects, "HorizontalPodAutoscaler")["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": RELEASE}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 5)
    assert spec["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 60}
    assert {way: rule["stabilizationWindowSeconds"] for way, rule in spec["behavior"].items()} == {
        "scaleUp": 0,
        "scaleDown": 30,
    }


@pytest.mark.parametrize("most", [1, "50%"])
def test_a_drain_of_nodes_takes_so_many_pods(most: int | str) -> None:
    budget = rendered.only(render(disruption={"maxUnavailable": most}), "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == most


def test_a_configmap_replaces_the_models_folder() -> None:
    def mounted(**values: Any) -> tuple[dict[str, Object], dict[str, Object]]:
        spec = pod_of(render(**values)).spec
        mounts = {mount["name"]: mount for mount in spec["containers"][0]["volumeMounts"]}
        return mounts, {volume["name"]: volume for volume in spec["volumes"]}

    mounts, volumes = mounted(model={"configMap": "flights-2", "mountPath": "/model/deep"})
    assert mounts["model"] == {"name": "model", "mountPath": "/model/deep", "readOnly": True}
    assert volumes["model"]["configMap"] == {"name": "flights-2"}
    mounts, volumes = mounted()
    assert mounts.keys() == volumes.keys() == {"scratch"}


def test_another_configmap_rolls_the_pods() -> None:
    one, other = (render(model={"configMap": name}) for name in ("flights-1", "flights-2"))
    assert pod_of(one) != pod_of(other)


def test_environment_is_passed_on_as_it_stands() -> None:
    given = {"A": 'say "{{ .Release.Name }}" # twice', "B": "yes", "C": "007"}
    [container] = pod_of(render(environment=given)).spec["containers"]
    assert {item["name"]: item["value"] for item in container["env"]} == given


def test_services_lead_to_every_port_and_to_each_pod() -> None:
    objects = render(**PORTS)
    service, each = (rendered.only(objects, "Service", name)["spec"] for name in (RELEASE, f"{RELEASE}-pods"))
    assert service["type"] == "ClusterIP"
    assert {port["name"]: port["port"] for port in service["ports"]} == PORTS["ports"]
    assert (each["clusterIP"], each["publishNotReadyAddresses"]) == ("None", False)
    assert {port["name"]: port["port"] for port in each["ports"]} == {"main": 9000}


def test_node_ports_are_given_to_the_ports_they_name() -> None:
    objects = render(service={"nodePorts": {"main": 30080, "grpc": 30081}}, **PORTS)
    service = rendered.only(objects, "Service", RELEASE)["spec"]
    assert service["type"] == "NodePort"
    assert {port["name"]: port.get("nodePort") for port in service["ports"]} == {
        "main": 30080,
        "grpc": 30081,
        "metrics": None,
    }


OUTSIDE = None
PROMETHEUS = {"app.kubernetes.io/name": "prometheus"}
SOURCES = [{"exhibit/source": source} for source in ("gateway", "detectors", "explainers")]
STRANGERS = [{}, {"exhibit/source": "native"}, {"app.kubernetes.io/name": "gateway"}, OUTSIDE]


def may_connect(policy: Object, labels: dict[str, str] | None, port: int) -> bool:
    """Whether the policy lets a pod of its namespace with these labels (None: what is outside) connect to the port."""
    for rule in policy["spec"]["ingress"]:
        if port in [listed["port"] for listed in rule["ports"]]:
            if "from" not in rule:
                return True
            if labels is not None and any(_matches(peer, labels) for peer in rule["from"]):
                return True
    return False


def _matches(peer: Object, labels: dict[str, str]) -> bool:
    assert peer.keys() == {"podSelector"}, "a peer of another namespace"
    selector = peer["podSelector"]
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


def test_only_those_who_have_to_may_connect() -> None:
    policy = rendered.only(render(metrics={"port": "metrics"}, **PORTS), "NetworkPolicy")
    for labels in SOURCES:
        assert [may_connect(policy, labels, port) for port in (9000, 9001, 9002)] == [True, False, False], labels
    assert [may_connect(policy, PROMETHEUS, port) for port in (9000, 9001, 9002)] == [False, False, True]
    for labels in STRANGERS:
        assert [may_connect(policy, labels, port) for port in (9000, 9001, 9002)] == [False, False, False], labels


def test_a_port_of_the_nodes_is_open_to_anyone() -> None:
    policy = rendered.only(render(service={"nodePorts": {"grpc": 30081}}, **PORTS), "NetworkPolicy")
    for labels in [*SOURCES, PROMETHEUS, *STRANGERS]:
        assert may_connect(policy, labels, 9001), labels
        assert not may_connect(policy, labels, 9002), labels
    assert not may_connect(policy, OUTSIDE, 9000)


def test_the_server_may_connect_to_nobody() -> None:
    spec = rendered.only(render(), "NetworkPolicy")["spec"]
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    assert not spec.get("egress")
    assert spec["podSelector"]["matchLabels"].items() <= pod_of(render()).labels.items()


def test_without_metrics_prometheus_is_not_led_here() -> None:
    objects = render(metrics=None)
    assert pod_of(objects).annotations == {}
    assert not may_connect(rendered.only(objects, "NetworkPolicy"), PROMETHEUS, 8080)


def test_the_policy_can_be_left_out() -> None:
    assert "NetworkPolicy" not in {item["kind"] for item in render(networkPolicy={"enabled": False})}


def test_it_can_be_a_dependency_of_another_chart() -> None:
    assert render(**{"global": {"region": "here"}}) == render()


@pytest.mark.parametrize("rule", hardening.RULES)
def test_its_pod_can_be_broken_in_every_way(rule: str) -> None:
    spec = pod_of(render()).spec
    for broken, changes in hardening.BREAKS:
        if broken == rule:
            assert rule in hardening.breaches(hardening.broken(spec, changes)), changes


def test_its_page_names_every_value() -> None:
    text = (CHART.folder / "README.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (`.*`) \|", text, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(table))) == sorted(CHART.defaults)
