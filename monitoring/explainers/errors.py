"""What can go wrong, told so that a reader can act on it: ``<subject>: <found>, expected <rule>. <remedy>``."""

from __future__ import annotations


class ExplainersError(Exception):
    """The base of all; programs show it without a traceback."""

    def __init__(self, subject: object, found: str, expected: str, remedy: str) -> None:
        super().__init__(f"{subject}: {found}, expected {expected}. {remedy}")


class InputRefused(ExplainersError):
    """The request cannot be explained as it is."""


class ServedModelFailed(ExplainersError):
    """The served model gave no prediction that could be used."""


class DeadlinePassed(ExplainersError):
    """The time for an explanation was over before it was done."""
