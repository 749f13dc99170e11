"""What does a million predictions cost in CPU and memory?

Why: The price of self-hosting is what the server uses, and servers of one model differ in it several times.
How: One caller sends single rows directly to the platform, one after another: 50 to warm up, then three rounds of 300.
    CPU seconds (user and system) and resident memory are those of the server's process tree; the median round counts.
    The price takes memory for as long as one CPU is busy: CPU hours x (CPU price + resident GB x GB price), by the
    dated list price in scorecard/prices.yaml. Idle time, the gateway and the network are not in it.
Pass: At most as many CPU hours a million as scorecard/prices.yaml states as the ceiling.
Fix: One ONNX Runtime thread, no access log, no pandas on the way in, a C parser for HTTP.
"""

from datetime import date
from pathlib import Path
from statistics import median

from exhibit import documents
from exhibit.criteria import Finding, judge
from exhibit.documents import Document, Text, Url
from exhibit.errors import ContractError
from exhibit.targets import Deployment

PRICES = Path(__file__).parents[2] / "prices.yaml"
WARM_UP, REQUESTS, ROUNDS = 50, 300, 3


class Prices(Document):
    """scorecard/prices.yaml."""

    title: Text
    url: Url
    read: date
    read_at: Url
    currency: Text
    cpu_hour: float
    gb_hour: float
    ceiling_cpu_hours_per_million: float


def check(deployment: Deployment) -> Finding:
    prices, breaches = documents.load(PRICES, Prices, "scorecard/prices.yaml")
    if prices is None:
        raise ContractError(breaches)
    _send(deployment, WARM_UP)
    cpu_hours = median(_cpu_seconds(deployment) for _ in range(ROUNDS)) / REQUESTS * 1e6 / 3600
    resident_mib = deployment.usage().resident_bytes / 2**20
    price = cpu_hours * (prices.cpu_hour + resident_mib / 1024 * prices.gb_hour)
    observed = {
        "cpu_hours_per_million": _rounded(cpu_hours),
        "resident_mib": _rounded(resident_mib),
        f"{prices.currency.lower()}_per_million": _rounded(price),
    }
    return judge(
        cpu_hours <= prices.ceiling_cpu_hours_per_million,
        f"A million single predictions take {_rounded(cpu_hours):g} CPU hours with {_rounded(resident_mib):g} MiB "
        f"resident: {_rounded(price):g} {prices.currency} ({prices.title}, read {prices.read}).",
        observed=observed,
        expected={"cpu_hours_per_million": f"at most {prices.ceiling_cpu_hours_per_million:g}"},
    )


def _cpu_seconds(deployment: Deployment) -> float:
    before = deployment.usage().cpu_seconds
    _send(deployment, REQUESTS)
    return deployment.usage().cpu_seconds - before


def _send(deployment: Deployment, count: int) -> None:
    rows = deployment.model.golden.take(count).rows
    for at in range(count):
        deployment.predict(rows[at : at + 1])


def _rounded(value: float) -> float:
    """Two significant digits: more would change with every run."""
    return float(f"{value:.2g}")
