"""What every pod must keep: Pod Security "restricted" of Kubernetes 1.36, and this project's own rules on top.

Each rule yields what breaks it. BREAKS says how to break each one: the checker is tested with it, and those of rules
with `admission` a cluster that enforces "restricted" must refuse as well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Spec = dict[str, Any]
Check = Callable[[Spec], Iterator[str]]

_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
_SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
_PROFILES = {"RuntimeDefault", "Localhost"}


@dataclass(frozen=True)
class Rule:
    """One rule; `admission`: Pod Security has it, so that the cluster refuses a pod that breaks it."""

    name: str
    admission: bool
    check: Check


RULES: dict[str, Rule] = {}


def _rule(*, admission: bool) -> Callable[[Check], Check]:
    def add(check: Check) -> Check:
        RULES[check.__name__] = Rule(check.__name__, admission, check)
        return check

    return add


def breaches(spec: Spec, *, needs_token: bool = False) -> dict[str, list[str]]:
    """What breaks each broken rule, by the rule's name; none for a pod that keeps them all."""
    found = {name: list(rule.check(spec)) for name, rule in RULES.items() if not (needs_token and name == "no_token")}
    return {name: what for name, what in found.items() if what}


def _containers(spec: Spec) -> Iterator[Spec]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(kind) or []


def _contexts(spec: Spec) -> Iterator[tuple[str, Spec]]:
    """The security contexts of the pod and of each container, with their names."""
    yield "pod", spec.get("securityContext") or {}
    for container in _containers(spec):
        yield container["name"], container.get("securityContext") or {}


def _effective(spec: Spec, key: str) -> Iterator[tuple[str, Any]]:
    """What holds in each container: its own setting, else the pod's."""
    (_, pod), *containers = _contexts(spec)
    for name, context in containers:
        yield name, context.get(key, pod.get(key))


@_rule(admission=True)
def no_host_namespaces(spec: Spec) -> Iterator[str]:
    yield from (key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key))


@_rule(admission=True)
def no_host_process(spec: Spec) -> Iterator[str]:
    yield from (name for name, context in _contexts(spec) if (context.get("windowsOptions") or {}).get("hostProcess"))


@_rule(admission=True)
def no_host_ports(spec: Spec) -> Iterator[str]:
    for container in _containers(spec):
        yield from (f"{container['name']} {port}" for port in container.get("ports") or [] if port.get("hostPort"))


@_rule(admission=True)
def no_host_probes(spec: Spec) -> Iterator[str]:
    for container in _containers(spec):
        hooks = container.get("lifecycle") or {}
        asked = {key: container.get(key) for key in ("startupProbe", "readinessProbe", "livenessProbe")} | hooks
        for key, probe in asked.items():
            if any((probe or {}).get(way, {}).get("host") for way in ("httpGet", "tcpSocket")):
                yield f"{container['name']} {key}"


@_rule(admission=True)
def only_safe_volumes(spec: Spec) -> Iterator[str]:
    for volume in spec.get("volumes") or []:
        yield from (f"{volume['name']}: {kind}" for kind in volume.keys() - {"name"} - _VOLUMES)


@_rule(admission=True)
def only_safe_sysctls(spec: Spec) -> Iterator[str]:
    for name, context in _contexts(spec):
        yield from (f"{name} {item['name']}" for item in context.get("sysctls") or [] if item["name"] not in _SYSCTLS)


@_rule(admission=True)
def not_privileged(spec: Spec) -> Iterator[str]:
    yield from (name for name, context in _contexts(spec) if context.get("privileged"))


@_rule(admission=True)
def no_escalation(spec: Spec) -> Iterator[str]:
    _, *containers = _contexts(spec)
    yield from (name for name, context in containers if context.get("allowPrivilegeEscalation") is not False)


@_rule(admission=True)
def no_capabilities(spec: Spec) -> Iterator[str]:
    _, *containers = _contexts(spec)
    for name, context in containers:
        capabilities = context.get("capabilities") or {}
        if "ALL" not in (capabilities.get("drop") or []):
            yield f"{name} does not drop ALL"
        yield from (f"{name} adds {added}" for added in set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"})


@_rule(admission=True)
def not_root(spec: Spec) -> Iterator[str]:
    yield from (f"{name} runAsNonRoot" for name, is_so in _effective(spec, "runAsNonRoot") if is_so is not True)
    yield from (f"{name} runAsUser" for name, context in _contexts(spec) if context.get("runAsUser") == 0)


@_rule(admission=True)
def seccomp(spec: Spec) -> Iterator[str]:
    for name, profile in _effective(spec, "seccompProfile"):
        if (profile or {}).get("type") not in _PROFILES:
            yield f"{name} {profile}"
    yield from (name for name, context in _contexts(spec) if _unconfined(context.get("seccompProfile")))


@_rule(admission=True)
def app_armor(spec: Spec) -> Iterator[str]:
    yield from (name for name, context in _contexts(spec) if _unconfined(context.get("appArmorProfile")))


def _unconfined(profile: Mapping[str, str] | None) -> bool:
    return profile is not None and profile.get("type") not in _PROFILES


@_rule(admission=True)
def se_linux(spec: Spec) -> Iterator[str]:
    for name, context in _contexts(spec):
        options = context.get("seLinuxOptions") or {}
        if options.get("user") or options.get("role") or options.get("type", "") not in _SELINUX_TYPES:
            yield f"{name} {options}"


@_rule(admission=True)
def proc_masked(spec: Spec) -> Iterator[str]:
    yield from (name for name, context in _contexts(spec) if context.get("procMount", "Default") != "Default")


@_rule(admission=False)
def read_only_root(spec: Spec) -> Iterator[str]:
    _, *containers = _contexts(spec)
    yield from (name for name, context in containers if context.get("readOnlyRootFilesystem") is not True)


@_rule(admission=False)
def no_token(spec: Spec) -> Iterator[str]:
    if spec.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken"
    for volume in spec.get("volumes") or []:
        if any("serviceAccountToken" in source for source in (volume.get("projected") or {}).get("sources") or []):
            yield volume["name"]


@_rule(admission=False)
def no_service_links(spec: Spec) -> Iterator[str]:
    if spec.get("enableServiceLinks") is not False:
        yield "enableServiceLinks"


@_rule(admission=False)
def requests_and_limits(spec: Spec) -> Iterator[str]:
    for container in _containers(spec):
        resources = container.get("resources") or {}
        for side in ("requests", "limits"):
            missing = {"cpu", "memory"} - (resources.get(side) or {}).keys()
            yield from (f"{container['name']} {side}.{name}" for name in sorted(missing))


@_rule(admission=False)
def bounded_scratch(spec: Spec) -> Iterator[str]:
    for volume in spec.get("volumes") or []:
        if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
            yield volume["name"]


@_rule(admission=False)
def pinned_images(spec: Spec) -> Iterator[str]:
    for container in _containers(spec):
        image = container.get("image") or ""
        name, _, digest = image.partition("@")
        tag = name.rpartition("/")[2].partition(":")[2]
        if not digest and tag in ("", "latest"):
            yield f"{container['name']} {image or 'no image'}"


GONE = object()
_POD, _OWN = "securityContext", "containers.0.securityContext"
_INIT = {"name": "first", "image": "example/first:1"}

# What is broken, and how: path -> value; a number is a place in a list, `+` the place after its last. Each leaves a pod
# that a cluster would otherwise take, if the pod has a port, a liveness probe by HTTP, a volume and a user.
BREAKS: list[tuple[str, dict[str, Any]]] = [
    ("no_host_namespaces", {"hostNetwork": True}),
    ("no_host_namespaces", {"hostPID": True}),
    ("no_host_namespaces", {"hostIPC": True}),
    ("no_host_process", {f"{_POD}.windowsOptions": {"hostProcess": True}, "hostNetwork": True}),
    ("no_host_ports", {"containers.0.ports.0.hostPort": 8080}),
    ("no_host_probes", {"containers.0.livenessProbe.httpGet.host": "192.0.2.1"}),
    ("no_host_probes", {"containers.0.lifecycle": {"postStart": {"tcpSocket": {"host": "192.0.2.1", "port": 80}}}}),
    ("only_safe_volumes", {"volumes.+": {"name": "node", "hostPath": {"path": "/"}}}),
    ("only_safe_volumes", {"volumes.+": {"name": "share", "nfs": {"server": "192.0.2.1", "path": "/"}}}),
    ("only_safe_sysctls", {f"{_POD}.sysctls": [{"name": "kernel.msgmax", "value": "65536"}]}),
    ("not_privileged", {f"{_OWN}.privileged": True, f"{_OWN}.allowPrivilegeEscalation": True}),
    ("no_escalation", {f"{_OWN}.allowPrivilegeEscalation": True}),
    ("no_escalation", {f"{_OWN}.allowPrivilegeEscalation": GONE}),
    ("no_capabilities", {f"{_OWN}.capabilities": GONE}),
    ("no_capabilities", {f"{_OWN}.capabilities.drop": ["NET_RAW"]}),
    ("no_capabilities", {f"{_OWN}.capabilities.add": ["NET_ADMIN"]}),
    ("not_root", {f"{_POD}.runAsNonRoot": GONE}),
    ("not_root", {f"{_POD}.runAsNonRoot": False}),
    ("not_root", {f"{_OWN}.runAsNonRoot": False}),
    ("not_root", {f"{_POD}.runAsUser": 0}),
    ("not_root", {f"{_OWN}.runAsUser": 0}),
    ("seccomp", {f"{_POD}.seccompProfile": GONE}),
    ("seccomp", {f"{_POD}.seccompProfile": {"type": "Unconfined"}}),
    ("seccomp", {f"{_OWN}.seccompProfile": {"type": "Unconfined"}}),
    ("app_armor", {f"{_POD}.appArmorProfile": {"type": "Unconfined"}}),
    ("app_armor", {f"{_OWN}.appArmorProfile": {"type": "Unconfined"}}),
    ("se_linux", {f"{_POD}.seLinuxOptions": {"type": "spc_t"}}),
    ("se_linux", {f"{_OWN}.seLinuxOptions": {"user": "system_u"}}),
    ("proc_masked", {f"{_OWN}.procMount": "Unmasked", "hostUsers": False}),
    ("read_only_root", {f"{_OWN}.readOnlyRootFilesystem": GONE}),
    ("read_only_root", {f"{_OWN}.readOnlyRootFilesystem": False}),
    ("no_token", {"automountServiceAccountToken": GONE}),
    ("no_token", {"automountServiceAccountToken": True}),
    ("no_token", {"volumes.+": {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}}),
    ("no_service_links", {"enableServiceLinks": GONE}),
    ("requests_and_limits", {"containers.0.resources": GONE}),
    ("requests_and_limits", {"containers.0.resources.requests.cpu": GONE}),
    ("requests_and_limits", {"containers.0.resources.requests.memory": GONE}),
    ("requests_and_limits", {"containers.0.resources.limits.cpu": GONE}),
    ("requests_and_limits", {"containers.0.resources.limits.memory": GONE}),
    ("bounded_scratch", {"volumes.+": {"name": "more", "emptyDir": {}}}),
    ("pinned_images", {"containers.0.image": "example/server"}),
    ("pinned_images", {"containers.0.image": "example/server:latest"}),
    ("pinned_images", {"containers.0.image": "registry.example:5000/server"}),
    # Rules hold in every container.
    ("no_escalation", {"initContainers": [_INIT]}),
    ("no_capabilities", {"containers.+": {"name": "beside", "image": "example/beside:1"}}),
    ("read_only_root", {"initContainers": [_INIT]}),
]


def broken(spec: Spec, changes: Mapping[str, Any]) -> Spec:
    """A copy of the pod's spec with the changes made."""
    changed = copy.deepcopy(spec)
    for path, value in changes.items():
        *parents, last = (int(step) if step.isdigit() else step for step in path.split("."))
        node: Any = changed
        for step in parents:
            node = node[step]
        if last == "+":
            node.append(value)
        elif value is GONE:
            del node[last]
        else:
            node[last] = value
    return changed
