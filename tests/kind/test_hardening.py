"""What a real cluster refuses, and what it lets a pod of ours do: the rules of tests/charts, asked of Kubernetes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import ApiException

from charts import hardening, rendered
from exhibit.cluster import NAMESPACE
from exhibit.targets.kind import KindTarget

from .conftest import Deploy, eventually

EXAMPLES = rendered.examples()
OF_OPERATORS = {"kubeflow", "seldon-core"}
"""Charts whose pods an operator makes; test_kubeflow.py has one make them."""
# Directories of a container that processes of its user may write to. Those of the kernel and of devices are no disk.
WRITABLE = """
import json, os
folders = [folder for folder, *_ in os.walk("/") if not folder.startswith(("/proc", "/sys", "/dev"))]
print(json.dumps([folder for folder in folders if os.access(folder, os.W_OK)]))
"""


@pytest.fixture
def core(toys: KindTarget) -> CoreV1Api:
    toys.cluster.ensure_namespace()
    core = CoreV1Api(toys.cluster.api)
    assert eventually(lambda: core.list_namespaced_service_account(NAMESPACE).items)
    return core


def admit(core: CoreV1Api, spec: hardening.Spec) -> None:
    """Asks whether a pod would be taken; its own ServiceAccount is not there and is left out."""
    others = {name: value for name, value in spec.items() if name != "serviceAccountName"}
    pod = rendered.Pod("a test", {}, others).manifest("asked")
    core.create_namespaced_pod(NAMESPACE, pod, dry_run="All")


def server() -> hardening.Spec:
    """The pod of a model server."""
    [example] = [one for one in EXAMPLES if one.chart.name == "model-server" and one.name == "full"]
    [pod] = rendered.pods(example.objects)
    return pod.spec


@pytest.mark.parametrize("example", [one for one in EXAMPLES if one.chart.name not in OF_OPERATORS], ids=str)
def test_pods_of_the_charts_are_taken(core: CoreV1Api, example: rendered.Example) -> None:
    for pod in rendered.pods(example.objects):
        admit(core, pod.spec)


@pytest.mark.parametrize(("rule", "changes"), hardening.BREAKS, ids=str)
def test_what_breaks_a_rule_of_pod_security_is_refused(core: CoreV1Api, rule: str, changes: dict[str, Any]) -> None:
    """What breaks our own rules alone is taken: only tests/charts find it."""
    spec = hardening.broken(server(), changes)
    found = hardening.breaches(spec)
    assert rule in found
    if not any(hardening.RULES[name].admission for name in found):
        return admit(core, spec)
    with pytest.raises(ApiException) as refused:
        admit(core, spec)
    assert refused.value.status == 403
    assert 'violates PodSecurity \\"restricted' in refused.value.body


@pytest.mark.parametrize("read_only", [True, False])
def test_only_a_read_only_root_keeps_a_pod_of_ours_from_writing(
    core: CoreV1Api, deploy: Deploy, read_only: bool
) -> None:
    [pod] = deploy().release.pods()
    spec = CoreV1Api(core.api_client).api_client.sanitize_for_serialization(pod.spec)
    [container] = spec["containers"]
    for name in ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle"):
        container.pop(name, None)
    container["command"] = ["python", "-c", WRITABLE]
    container["securityContext"]["readOnlyRootFilesystem"] = read_only
    writable = json.loads("".join(said_by(core, {**spec, "restartPolicy": "Never", "nodeName": None})))
    assert (writable == ["/tmp"]) is read_only
    assert "/tmp" in writable


def said_by(core: CoreV1Api, spec: hardening.Spec) -> Iterator[str]:
    """What a pod prints until it ends; nothing of it is left."""
    name = "writes"
    core.create_namespaced_pod(NAMESPACE, {"metadata": {"name": name}, "spec": spec})
    try:
        assert eventually(lambda: core.read_namespaced_pod(name, NAMESPACE).status.phase in ("Succeeded", "Failed"))
        yield core.read_namespaced_pod_log(name, NAMESPACE)
    finally:
        core.delete_namespaced_pod(name, NAMESPACE, grace_period_seconds=0)
