"""monitoring/metrics-server.yaml, the one manifest that is no chart: as strict as the pods of charts."""

from __future__ import annotations

import kubernetes_validate

from . import hardening, rendered

OBJECTS = rendered.documents((rendered.ROOT / "monitoring" / "metrics-server.yaml").read_text(encoding="utf-8"))


def test_objects_are_valid_for_kubernetes_and_labelled() -> None:
    for item in OBJECTS:
        kubernetes_validate.validate(item, rendered.KUBERNETES, strict=True)
        labels = {"app.kubernetes.io/name": "metrics-server", "app.kubernetes.io/managed-by": "exhibit"}
        assert labels.items() <= item["metadata"]["labels"].items(), rendered.title(item)


def test_the_pod_keeps_every_rule_of_hardening() -> None:
    [pod] = rendered.pods(OBJECTS)
    assert hardening.breaches(pod.spec, needs_token=True) == {}
    assert hardening.breaches(pod.spec).keys() == {"no_token"}  # it asks the API server


def test_what_refers_to_another_object_finds_it() -> None:
    [pod] = rendered.pods(OBJECTS)
    service, deployment = rendered.only(OBJECTS, "Service"), rendered.only(OBJECTS, "Deployment")
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == pod.labels
    [port] = service["spec"]["ports"]
    assert port["targetPort"] in pod.ports
    assert f"--secure-port={pod.ports[port['targetPort']]}" in pod.spec["containers"][0]["args"]
    named = rendered.only(OBJECTS, "APIService")["spec"]["service"]
    where = {key: service["metadata"][key] for key in ("name", "namespace")}
    assert named == {**where, "port": port["port"]}
    account = {"kind": "ServiceAccount", "name": pod.spec["serviceAccountName"], "namespace": where["namespace"]}
    assert rendered.only(OBJECTS, "ServiceAccount")["metadata"]["name"] == account["name"]
    roles = {item["metadata"]["name"] for item in OBJECTS if item["kind"] == "ClusterRole"}
    for item in OBJECTS:
        if item["kind"].endswith("Binding"):
            assert item["subjects"] == [account], rendered.title(item)
            name = item["roleRef"]["name"]
            assert name in roles | {"system:auth-delegator", "extension-apiserver-authentication-reader"}, name


def test_it_may_only_read() -> None:
    for item in OBJECTS:
        if item["kind"] == "ClusterRole":
            assert {verb for rule in item["rules"] for verb in rule["verbs"]} <= {"get", "list", "watch"}
