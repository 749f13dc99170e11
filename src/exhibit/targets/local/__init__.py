"""The local target: the platform's real server as a process of this machine, loopback only."""

from exhibit.targets.local.target import LocalTarget

__all__ = ["LocalTarget"]
