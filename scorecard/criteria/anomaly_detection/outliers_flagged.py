"""Are single flights that cannot be right flagged, and right ones let pass?

Why: A sensor that sticks or a unit mixed up harms one request at a time, long before a window has drifted.
How: Flights in which two features were moved by 4 to 8 standard deviations, and then untouched ones, are sent through
    the gateway; how many the detectors flag of each is read in Prometheus.
Pass: At least 90 % of the corrupted flights and at most 8 % of the others are flagged; each flight was looked at once.
Fix: Look whether copies arrive (detectors_copies_total against detectors_records_total), then at the order of the
    columns in client.py's `rows`, then at the outlier limit of the calibration (docs/drift.md).
"""

from __future__ import annotations

from exhibit import detectors
from exhibit.criteria import Finding, judge
from exhibit.targets import Deployment

USES = ("prometheus", "detectors")
ADD_ON = "detectors"
LEAST_SHARE, LARGEST_SHARE = 0.9, 0.08


def check(deployment: Deployment) -> Finding:
    sent, shares = {}, {}
    for scenario in ("outliers", "clean"):
        sent[scenario] = len(deployment.scenarios[scenario].intended_seconds())
        records, outliers = _looked_at(deployment, scenario, sent[scenario])
        if records != sent[scenario]:
            return judge(
                False,
                f"Of {sent[scenario]} flights sent the detectors looked at {records:g}.",
                observed={"looked_at": records},
                expected={"looked_at": sent[scenario]},
            )
        shares[scenario] = outliers / records
    return judge(
        shares["outliers"] >= LEAST_SHARE and shares["clean"] <= LARGEST_SHARE,
        f"Of {sent['outliers']} corrupted flights {shares['outliers']:.1%} were flagged (at least {LEAST_SHARE:.0%}), "
        f"of {sent['clean']} others {shares['clean']:.1%} (at most {LARGEST_SHARE:.0%}).",
        observed={"corrupted_flagged": round(shares["outliers"], 3), "others_flagged": round(shares["clean"], 3)},
        expected={"corrupted_flagged": LEAST_SHARE, "others_flagged": LARGEST_SHARE},
    )


def _looked_at(deployment: Deployment, scenario: str, count: int) -> tuple[float, float]:
    """Flights of the scenario looked at and flagged; both counts change at once, a micro-batch at a time."""
    records, outliers = ("detectors_records_total",), ("detectors_outliers_total",)
    grown = detectors.rises(
        deployment,
        f"{records[0]}|{outliers[0]}",
        lambda: deployment.send(scenario),
        lambda grown: grown.get(records, 0) >= count,
    )
    return grown.get(records, 0.0), grown.get(outliers, 0.0)
