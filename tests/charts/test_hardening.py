"""The checker of pods can fail: every rule refuses a pod that breaks it, and a good pod breaks none."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest

from . import hardening, rendered
from .hardening import BREAKS, RULES

GOOD: hardening.Spec = {
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "server",
            "image": "registry.example:5000/server:1",
            "ports": [{"containerPort": 8080}],
            "livenessProbe": {"httpGet": {"path": "/", "port": 8080}},
            "resources": {"requests": {"cpu": "1", "memory": "1Mi"}, "limits": {"cpu": "1", "memory": "1Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
        }
    ],
    "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}],
}


def test_a_good_pod_breaks_no_rule() -> None:
    assert hardening.breaches(GOOD) == {}


def test_settings_may_stand_in_each_container_instead_of_the_pod() -> None:
    moved = {
        "securityContext": hardening.GONE,
        "containers.0.securityContext.runAsNonRoot": True,
        "containers.0.securityContext.seccompProfile": {"type": "RuntimeDefault"},
        "containers.0.image": f"example/server@sha256:{'0' * 64}",
        "containers.0.securityContext.capabilities.add": ["NET_BIND_SERVICE"],
    }
    assert hardening.breaches(hardening.broken(GOOD, moved)) == {}


@pytest.mark.parametrize(("rule", "changes"), BREAKS, ids=[f"{rule}-{at}" for at, (rule, _) in enumerate(BREAKS)])
def test_a_rule_refuses_what_breaks_it(rule: str, changes: dict[str, Any]) -> None:
    spec = hardening.broken(GOOD, changes)
    assert rule in hardening.breaches(spec)
    pod = rendered.Pod("a test", {}, spec).manifest("broken")
    kubernetes_validate.validate(pod, rendered.KUBERNETES, strict=True)  # nothing else is wrong with it


def test_every_rule_is_shown_refusing() -> None:
    assert {rule for rule, _ in BREAKS} == RULES.keys()


def test_only_the_token_may_be_asked_for() -> None:
    spec = hardening.broken(GOOD, {"automountServiceAccountToken": True, "hostPID": True})
    assert hardening.breaches(spec, needs_token=True).keys() == {"no_host_namespaces"}


@pytest.mark.parametrize("changes", [{"hostPid": True}, {"containers.0.ports.0.containerPort": "8080"}], ids=str)
def test_the_schemas_of_kubernetes_can_refuse(changes: dict[str, Any]) -> None:
    pod = rendered.Pod("a test", {}, hardening.broken(GOOD, changes)).manifest("broken")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, rendered.KUBERNETES, strict=True)
