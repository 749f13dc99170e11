"""The chart of companions: one pod each, with what it is told, what it reads, and what it keeps."""

from __future__ import annotations

from typing import Any

import pytest

from exhibit import companions
from exhibit.workspace import Workspace

from . import rendered
from .rendered import Chart, HelmError, Object, needs_helm

pytestmark = needs_helm

CHART = Chart(rendered.CHARTS / "detectors")
FULL, SMALL = CHART.examples
# As this checkout's own companions declare themselves in monitoring/*/service.yaml.
DECLARED = {
    name: {
        "image": {"repository": f"exhibit/{name}", "tag": "0123456789ab"},
        "args": list(companion.file.command[2:]),
        "ports": {port: 8080 + at for at, port in enumerate(companion.file.ports)},
        "metrics": companion.file.metrics.model_dump(),
        "ready": companion.file.ready.model_dump(),
        "readySeconds": companion.file.ready_seconds,
        "stopSeconds": companion.file.stop_seconds,
    }
    for name, companion in companions.load(Workspace(rendered.ROOT)).items()
}


def render(**values: Any) -> list[Object]:
    return rendered.render(CHART, {"platform": "alpha", "services": DECLARED, **values}, "alpha-detectors")


def pods(objects: list[Object]) -> dict[str, rendered.Pod]:
    return {pod.labels["exhibit/source"]: pod for pod in rendered.pods(objects)}


def test_each_companion_of_the_checkout_fits() -> None:
    objects = render()
    for kind in ("Deployment", "Service", "NetworkPolicy"):
        names = {item["metadata"]["name"] for item in objects if item["kind"] == kind}
        assert names == {f"alpha-detectors-{name}" for name in DECLARED} != set()
    for name, pod in pods(objects).items():
        service = DECLARED[name]
        [container] = pod.spec["containers"]
        assert container["args"] == service["args"]
        assert pod.ports == service["ports"]
        assert pod.annotations == {
            "exhibit/metrics-port": str(service["ports"][service["metrics"]["port"]]),
            "exhibit/metrics-path": service["metrics"]["path"],
        }
        asked = {"path": service["ready"]["path"], "port": service["ports"][service["ready"]["port"]]}
        assert [container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "readiness", "liveness")] == [asked] * 3
        start = container["startupProbe"]
        assert start["periodSeconds"] * start["failureThreshold"] == service["readySeconds"]
        assert pod.spec["terminationGracePeriodSeconds"] > service["stopSeconds"]


def test_arguments_arrive_as_they_are() -> None:
    given = FULL.values["services"]["explainers"]["args"]
    [container] = pods(FULL.objects)["explainers"].spec["containers"]
    assert container["args"] == given
    assert any("{{" in argument for argument in given)


def test_there_are_never_two_of_one() -> None:
    for item in render():
        if item["kind"] == "Deployment":
            assert (item["spec"]["replicas"], item["spec"]["strategy"]) == (1, {"type": "Recreate"})


@pytest.mark.parametrize("kept", [False, True], ids=["with the container", "with a claim"])
def test_state_is_each_ones_own(kept: bool) -> None:
    objects = render(persistence={"enabled": kept})
    claims = {item["metadata"]["name"] for item in objects if item["kind"] == "PersistentVolumeClaim"}
    assert claims == ({f"alpha-detectors-{name}" for name in DECLARED} if kept else set())
    for name, pod in pods(objects).items():
        [volume] = [one for one in pod.spec["volumes"] if one["name"] == "state"]
        assert ("emptyDir" in volume) != kept
        if kept:
            assert volume["persistentVolumeClaim"]["claimName"] == f"alpha-detectors-{name}"
        [container] = pod.spec["containers"]
        assert {"name": "state", "mountPath": "/state"} in container["volumeMounts"]


def test_artifacts_are_read_and_not_written() -> None:
    for pod in pods(FULL.objects).values():
        [container] = pod.spec["containers"]
        mounted = {"name": "artifacts", "mountPath": "/srv/artifacts", "readOnly": True}
        assert mounted in container["volumeMounts"]
        assert {"name": "artifacts", "configMap": {"name": "example-artifacts"}} in pod.spec["volumes"]
    for pod in pods(SMALL.objects).values():
        assert {volume["name"] for volume in pod.spec["volumes"]} == {"scratch", "state"}


def test_resources_are_a_companions_own_or_those_of_all() -> None:
    found = {name: pod.spec["containers"][0]["resources"] for name, pod in pods(FULL.objects).items()}
    assert found["explainers"] == FULL.values["services"]["explainers"]["resources"]
    assert found["detectors"] == CHART.defaults["resources"] != found["explainers"]


def test_node_ports_are_those_that_are_named() -> None:
    objects = render(service={"nodePorts": {"detectors": {"admin": 30081}}})
    found = {
        item["metadata"]["name"].removeprefix("alpha-detectors-"): item["spec"]
        for item in objects
        if item["kind"] == "Service"
    }
    assert {name: spec["type"] for name, spec in found.items()} == {
        name: "NodePort" if name == "detectors" else "ClusterIP" for name in DECLARED
    }
    ports = {one["name"]: one.get("nodePort") for one in found["detectors"]["ports"]}
    assert ports == {"copies": None, "admin": 30081}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"platform": ""},
            "platform: found nothing, expected the platform they stand beside. Give --set platform=<name>.",
        ),
        ({"services": {}}, "services: found none, expected at least one companion."),
        (
            {"services": {"one": DECLARED["detectors"] | {"metrics": {"port": "main", "path": "/"}}}},
            'services.one.metrics.port: found "main", expected a name in its ports (admin, copies).',
        ),
        (
            {"services": {"one": DECLARED["detectors"] | {"ready": {"port": "main", "path": "/"}}}},
            'services.one.ready.port: found "main", expected a name in its ports (admin, copies).',
        ),
        (
            {"services": {"one": DECLARED["detectors"] | {"image": {"repository": "example/one", "tag": "latest"}}}},
            "services.one.image.tag: found latest, expected a tag that always means the same image.",
        ),
        (
            {"service": {"nodePorts": {"one": {"main": 30081}}}},
            'service.nodePorts: found "one", expected a name in services (detectors, explainers).',
        ),
        (
            {"service": {"nodePorts": {"detectors": {"main": 30081}}}},
            'service.nodePorts.detectors: found "main", expected a name in its ports (admin, copies).',
        ),
    ],
    ids=["platform", "services", "metrics", "ready", "latest", "companion", "port"],
)
def test_what_cannot_work_is_refused_with_what_to_do(values: Object, said: str) -> None:
    with pytest.raises(HelmError) as refused:
        rendered.render(CHART, {"platform": "alpha", "services": DECLARED} | values)
    assert said in str(refused.value)
