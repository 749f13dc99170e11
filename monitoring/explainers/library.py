"""Which alibi is installed, told without importing it."""

from __future__ import annotations

import importlib.metadata


def describe() -> dict[str, str]:
    """Name, version and licence, as the package itself says."""
    about = importlib.metadata.metadata("alibi")
    return {"name": about["Name"], "version": about["Version"], "licence": about["License"]}
