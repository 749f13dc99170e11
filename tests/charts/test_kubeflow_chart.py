"""The chart kubeflow: the same server as model-server's, made by KServe, and what KServe alone has.

No schema of Kubernetes knows an InferenceService, and a cluster may drop a misspelt field silently: its fields are
compared with KServe's (pkg/apis/serving/v1beta1 of 0.20) and with Kubernetes' own of a pod.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import kubernetes_validate
import pytest

from . import hardening, rendered
from .connections import Peer, allowed
from .rendered import RELEASE, Chart, Example, HelmError, Object, Pod, needs_helm

CHART = Chart(rendered.CHARTS / "kubeflow")
PLAIN = Chart(rendered.CHARTS / "model-server")
IMAGE = {"image": {"repository": "example/server", "tag": "1"}}
PORTS = {"ports": {"main": 9000, "grpc": 9001, "metrics": 9002}}
EXPLAINER = {"explainer": {"enabled": True, "image": {"repository": "example/explainer", "tag": "1"}}}
AGENT_PORT = 9081
LOGGER = {"logger": {"url": "http://sink.example/"}}
BATCHER = {"batcher": {"maxBatchSize": 32}}

# Of the fields of a component that are not a pod's: those the chart uses, with the fields below them.
COMPONENT = {
    "labels": None,
    "annotations": None,
    "minReplicas": None,
    "maxReplicas": None,
    "deploymentStrategy": {"type", "rollingUpdate"},
    "logger": {"url", "mode"},
    "batcher": {"maxBatchSize", "maxLatency"},
}

pytestmark = needs_helm
each_example = pytest.mark.parametrize("example", [*CHART.examples, *rendered.platforms()], ids=str)


def render(**values: Any) -> list[Object]:
    return rendered.render(CHART, {**IMAGE, **values})


def component(objects: list[Object], name: str = "predictor") -> Object:
    return rendered.only(objects, "InferenceService")["spec"][name]


def pod(objects: list[Object], name: str = "predictor") -> Pod:
    [found] = [one for one in rendered.pods(objects) if one.labels.get("component") == name]
    return found


def bare(spec: Object) -> Object:
    """The pod's own fields of a component."""
    return {name: value for name, value in spec.items() if name not in COMPONENT}


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(HelmError) as refused:
        rendered.render(CHART, values)
    return str(refused.value)


# Every field is one of KServe's or of a pod's.


@each_example
def test_an_inferenceservice_has_only_fields_that_kserve_knows(example: Example) -> None:
    for item in example.objects:
        if item["kind"] == "InferenceService":
            assert item["apiVersion"] == "serving.kserve.io/v1beta1"
            assert item["spec"].keys() <= {"predictor", "explainer"}
            for part in item["spec"].values():
                for name, below in COMPONENT.items():
                    assert below is None or part.get(name, {}).keys() <= below
                kubernetes_validate.validate(of_pod(part), rendered.KUBERNETES, strict=True)


def of_pod(part: Object) -> Object:
    return Pod("a test", {"labels": part["labels"]}, bare(part)).manifest("one")


@pytest.mark.parametrize("name", ["minReplica", "volume"])
def test_a_misspelt_field_would_be_found(name: str) -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(of_pod({**component(render()), name: 1}), rendered.KUBERNETES, strict=True)


# The same server as model-server's.


def test_its_values_are_model_servers_and_three_more() -> None:
    own = {name: value for name, value in CHART.defaults.items() if name not in ("logger", "batcher", "explainer")}
    assert own == PLAIN.defaults


@pytest.mark.parametrize("values", [example.values for example in PLAIN.examples], ids=str)
def test_its_pods_are_model_servers(values: Object) -> None:
    plain, objects = rendered.render(PLAIN, values), rendered.render(CHART, values)
    [expected], found = rendered.pods(plain), pod(objects)
    spec, wanted = copy.deepcopy(bare(found.spec)), copy.deepcopy(expected.spec)
    for one in (spec, wanted):
        del one["containers"][0]["name"]
        one["containers"][0]["ports"].sort(key=lambda port: port["name"])
    assert spec == wanted
    assert found.spec["containers"][0]["name"] == "kserve-container"
    assert found.annotations.items() >= expected.annotations.items()
    assert {name for name in expected.labels if found.labels.get(name) != expected.labels[name]} == {
        "app.kubernetes.io/name"
    }
    strategy = rendered.only(plain, "Deployment")["spec"]["strategy"]
    assert component(objects)["deploymentStrategy"] == strategy


@pytest.mark.parametrize("values", [example.values for example in PLAIN.examples], ids=str)
def test_what_is_beside_them_is_model_servers_but_for_whose_they_are(values: Object) -> None:
    plain, objects = (rendered.render(chart, values) for chart in (PLAIN, CHART))
    assert {rendered.title(item) for item in objects} - {f"InferenceService/{RELEASE}"} == {
        rendered.title(item) for item in plain
    } - {f"Deployment/{RELEASE}"}
    for expected in plain:
        if expected["kind"] in ("Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"):
            found = rendered.only(objects, expected["kind"], expected["metadata"]["name"])["spec"]
            wanted = expected["spec"]
            for spec in (found, wanted):
                spec.pop("selector", None)
                for port in spec.get("ports", []):
                    port["targetPort"] = values["ports"].get(port["targetPort"], port["targetPort"])
            if expected["kind"] == "HorizontalPodAutoscaler":
                wanted["scaleTargetRef"]["name"] += "-predictor"
            assert found == wanted, rendered.title(expected)


def test_kserves_own_service_and_agent_find_main_first() -> None:
    [container] = component(render(**PORTS))["containers"]
    assert [port["name"] for port in container["ports"]] == ["main", "grpc", "metrics"]
    assert {port["protocol"] for port in container["ports"]} == {"TCP"}


@pytest.mark.parametrize("rule", hardening.RULES)
@pytest.mark.parametrize("name", ["predictor", "explainer"])
def test_its_pods_can_be_broken_in_every_way(rule: str, name: str) -> None:
    spec = pod(render(**EXPLAINER), name).spec
    for broken, changes in hardening.BREAKS:
        if broken == rule:
            assert rule in hardening.breaches(hardening.broken(spec, changes)), changes


# Whose number of pods it is.


def annotations(objects: list[Object]) -> dict[str, str]:
    return rendered.only(objects, "InferenceService")["metadata"]["annotations"]


def test_kserve_keeps_the_number_of_pods() -> None:
    objects = render(replicas=3)
    assert annotations(objects)["serving.kserve.io/autoscalerClass"] == "none"
    assert (component(objects)["minReplicas"], component(objects)["maxReplicas"]) == (3, 3)
    assert "HorizontalPodAutoscaler" not in {item["kind"] for item in objects}


def test_or_leaves_it_to_the_charts_autoscaler() -> None:
    objects = render(replicas=3, autoscaling={"enabled": True})
    assert annotations(objects)["serving.kserve.io/autoscalerClass"] == "external"
    assert component(objects).keys().isdisjoint({"minReplicas", "maxReplicas"})
    target = rendered.only(objects, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target == {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"{RELEASE}-predictor"}


def test_it_runs_without_knative() -> None:
    assert annotations(render())["serving.kserve.io/deploymentMode"] == "Standard"


# KServe's agent.


@pytest.mark.parametrize("values", [LOGGER, BATCHER, {**LOGGER, **BATCHER}], ids=str)
def test_with_the_agent_requests_come_in_at_its_port(values: dict[str, Any]) -> None:
    objects = render(service={"nodePorts": {"main": 30080}}, metrics={"port": "metrics"}, **PORTS, **values)
    service, each = (rendered.only(objects, "Service", name)["spec"] for name in (RELEASE, f"{RELEASE}-pods"))
    assert {port["name"]: (port["port"], port["targetPort"]) for port in service["ports"]} == {
        "main": (9000, AGENT_PORT),
        "grpc": (9001, 9001),
        "metrics": (9002, 9002),
    }
    assert [(port["port"], port["targetPort"]) for port in each["ports"]] == [(AGENT_PORT, AGENT_PORT)]
    server = Peer("server", pod(objects).labels)
    assert [allowed(objects_policies(objects), NODE, server, port) for port in (AGENT_PORT, 9000)] == [True, False]


def test_the_agent_is_told_what_to_do() -> None:
    part = component(render(logger={"url": "http://sink.example/", "mode": "request"}, batcher={"maxBatchSize": 8}))
    assert part["logger"] == {"url": "http://sink.example/", "mode": "request"}
    assert part["batcher"] == {"maxBatchSize": 8, "maxLatency": 10}
    assert component(render()).keys().isdisjoint({"logger", "batcher"})


# Who may connect.

NODE = Peer("a node")
PROMETHEUS = Peer("prometheus", {"app.kubernetes.io/name": "prometheus"})
CALLERS = [Peer(name, {"exhibit/source": name}) for name in ("gateway", "detectors", "explainers", "batch")]
STRANGERS = [
    Peer("another", {"app.kubernetes.io/name": "another"}),
    Peer("a gateway elsewhere", {"exhibit/source": "gateway"}, namespace="other"),
    NODE,
]
DNS = Peer("dns", {"k8s-app": "kube-dns"}, namespace="kube-system")
SINK = Peer("an address")


def objects_policies(objects: list[Object]) -> list[Object]:
    return [item for item in objects if item["kind"] == "NetworkPolicy"]


@pytest.mark.parametrize(("values", "asked"), [({}, 9000), (BATCHER, AGENT_PORT)], ids=["server", "agent"])
def test_only_those_who_have_to_may_connect(values: dict[str, Any], asked: int) -> None:
    objects = render(metrics={"port": "metrics"}, **PORTS, **EXPLAINER, **values)
    policies, server = objects_policies(objects), Peer("server", pod(objects).labels)
    explainer = Peer("explainer", pod(objects, "explainer").labels)
    open_ports = {9000, 9001, 9002, AGENT_PORT}

    def ports(source: Peer, target: Peer) -> set[int]:
        return {port for port in {*open_ports, 8080} if allowed(policies, source, target, port)}

    for peer in CALLERS:
        assert (ports(peer, server), ports(peer, explainer)) == ({asked}, {8080}), peer.name
    assert (ports(PROMETHEUS, server), ports(PROMETHEUS, explainer)) == ({9002}, {8080})
    for peer in [*STRANGERS, server]:
        assert ports(peer, explainer) == set(), peer.name
    for peer in STRANGERS:
        assert ports(peer, server) == set(), peer.name
    assert ports(explainer, server) == {asked}


def test_the_server_may_connect_to_nobody_and_its_logger_to_anyone() -> None:
    for values, lets in (({}, False), (BATCHER, False), (LOGGER, True)):
        objects = render(**values)
        server = Peer("server", pod(objects).labels)
        assert allowed(objects_policies(objects), server, SINK, 443) is lets
        assert allowed(objects_policies(objects), server, DNS, 53, "UDP") is lets


def test_the_explainer_may_ask_the_predictor_and_for_names() -> None:
    objects = render(**EXPLAINER)
    explainer = Peer("explainer", pod(objects, "explainer").labels)
    policies = objects_policies(objects)
    assert allowed(policies, explainer, DNS, 53, "UDP")
    assert not allowed(policies, explainer, SINK, 443)


def test_the_policies_can_be_left_out() -> None:
    assert objects_policies(render(networkPolicy={"enabled": False}, **EXPLAINER)) == []


# The explainer.


def test_an_explainer_is_another_pod_of_the_service() -> None:
    explainer = {**EXPLAINER["explainer"], "args": ["--model_name", "m"], "artifacts": {"configMap": "reference"}}
    objects = render(explainer=explainer, platform="p", podAnnotations={"example/revision": "7"})
    own = pod(objects, "explainer")
    [container] = own.spec["containers"]
    assert container["name"] == "kserve-container"
    assert container["args"] == ["--model_name", "m"]
    assert "command" not in container, "KServe's arguments are the ENTRYPOINT's"
    assert {"name": "artifacts", "mountPath": "/artifacts", "readOnly": True} in container["volumeMounts"]
    assert {"name": "artifacts", "configMap": {"name": "reference"}} in own.spec["volumes"]
    assert (own.labels["exhibit/platform"], own.labels["exhibit/source"]) == ("p", "explainers")
    assert own.annotations["example/revision"] == "7"


def test_services_do_not_lead_to_the_explainer() -> None:
    objects = render(**EXPLAINER)
    for item in objects:
        if item["kind"] == "Service":
            assert not item["spec"]["selector"].items() <= pod(objects, "explainer").labels.items()


def test_there_is_none_unless_asked_for() -> None:
    assert "explainer" not in rendered.only(render(), "InferenceService")["spec"]
    assert f"NetworkPolicy/{RELEASE}-explainer" not in {rendered.title(item) for item in render()}


# What is refused.


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, "image.repository: found nothing"),
        ({"image": {"repository": "example/server"}}, "image.tag: found nothing"),
        ({"image": {"repository": "example/server", "tag": "latest"}}, "image.tag: found latest"),
        ({**IMAGE, "explainer": {"enabled": True}}, "explainer.image.repository: found nothing"),
        ({**IMAGE, "metrics": {"port": "amin"}}, 'metrics.port: found "amin", expected a name in ports (main)'),
        ({**IMAGE, "probes": {"live": {"port": "amin"}}}, 'probes.live.port: found "amin"'),
        ({**IMAGE, "service": {"nodePorts": {"amin": 30080}}}, 'service.nodePorts: found "amin"'),
    ],
)
def test_what_is_missing_or_leads_nowhere_is_named(values: dict[str, Any], named: str) -> None:
    assert named in refusal(values)


def test_its_page_names_every_value() -> None:
    text = (CHART.folder / "README.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (`.*`) \|", text, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(table))) == sorted(CHART.defaults)
