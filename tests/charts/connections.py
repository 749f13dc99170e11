"""Who may connect to whom, as NetworkPolicies say it: what a network that enforces them would let through."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .rendered import NAMESPACE, Object


@dataclass(frozen=True, eq=False)
class Peer:
    """One end of a connection: a pod with its labels; without labels an address, such as a node's."""

    name: str
    labels: dict[str, str] | None = None
    namespace: str = NAMESPACE
    ports: dict[str, int] = field(default_factory=dict)


def allowed(policies: Iterable[Object], source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection passes: it must be let out and let in; whoever no policy selects is open."""
    policies = list(policies)
    return _passes(policies, "Egress", source, target, port, protocol) and _passes(
        policies, "Ingress", target, source, port, protocol
    )


def _passes(policies: list[Object], way: str, own: Peer, other: Peer, port: int, protocol: str) -> bool:
    holding = [
        policy["spec"]
        for policy in policies
        if own.labels is not None
        and own.namespace == NAMESPACE
        and way in policy["spec"]["policyTypes"]
        and _selects(policy["spec"]["podSelector"], own.labels)
    ]
    rules = [rule for spec in holding for rule in spec.get(way.lower()) or []]
    return not holding or any(_fits(rule, way, own, other, port, protocol) for rule in rules)


def _fits(rule: Object, way: str, own: Peer, other: Peer, port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    if ports is not None and not any((one["port"], one.get("protocol", "TCP")) == (port, protocol) for one in ports):
        return False
    peers = rule.get("to" if way == "Egress" else "from")
    return peers is None or any(_is(peer, other) for peer in peers)


def _is(peer: Object, other: Peer) -> bool:
    """An address is selected by none of these: only a rule without peers lets it through."""
    assert peer.keys() <= {"podSelector", "namespaceSelector"}, "not known here"
    if other.labels is None:
        return False
    if "namespaceSelector" in peer:
        in_it = _selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": other.namespace})
    else:
        in_it = other.namespace == NAMESPACE
    return in_it and _selects(peer.get("podSelector", {}), other.labels)


def _selects(selector: Object, labels: dict[str, str]) -> bool:
    for expression in selector.get("matchExpressions", []):
        match expression["operator"]:
            case "In":
                fits = labels.get(expression["key"]) in expression["values"]
            case "Exists":
                fits = expression["key"] in labels
            case operator:
                raise NotImplementedError(operator)
        if not fits:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()
