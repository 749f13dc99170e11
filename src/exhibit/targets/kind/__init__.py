"""The kind target: the platform's image in a kind cluster, by Helm chart or the platform's own resource."""

from exhibit.targets.kind.target import KindTarget

__all__ = ["KindTarget"]
