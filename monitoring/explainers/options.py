"""Options that several programs of this folder take, and the kinds of values they may have."""

from __future__ import annotations

import argparse
from pathlib import Path
from urllib.parse import urlsplit


def add_model(parser: argparse.ArgumentParser) -> None:
    """Where the served model is and how it speaks."""
    parser.add_argument("--client", type=Path, required=True, help="the served model's client.py: encode and decode")
    parser.add_argument("--ask", type=url, required=True, help="URL of the served model's predictions")
    parser.add_argument(
        "--content-type", default="application/json", help="of the served model's requests (%(default)s)"
    )


def add_reference(parser: argparse.ArgumentParser) -> None:
    """What explanations compare with."""
    parser.add_argument("--reference", type=Path, required=True, help=".npz with rows and expected of the training")
    parser.add_argument("--codes", type=Path, help='JSON {"codes": {feature: [names]}}; numbers are said without it')


def url(text: str) -> str:
    """An http URL; ValueError, which argparse turns into a refusal, for anything else."""
    if urlsplit(text).scheme not in ("http", "https") or not urlsplit(text).hostname:
        raise ValueError
    return text


def at_least_one(text: str) -> int:
    """1, 2, ..."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def not_negative(text: str) -> int:
    """0, 1, ..."""
    if int(text) < 0:
        raise ValueError
    return int(text)


def seconds(text: str) -> float:
    """More than none and at most an hour."""
    if not 0 < float(text) <= 3600:
        raise ValueError
    return float(text)
