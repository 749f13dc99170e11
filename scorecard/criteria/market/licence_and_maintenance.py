"""May anyone use it, and does somebody still look after it?

Why: A licence that changes or a project that ends costs more than any missing feature.
How: The licence is read from the metadata of the distribution that is installed and served (License-Expression, else
    its classifiers, else License), the newest release and the sentence on maintenance from facts.yaml.
Pass: The installed licence is the one facts.yaml states and approved by the Open Source Initiative, the newest release
    is at most 24 months old, and no stated fact has expired.
Fix: Read the sources that facts.yaml links again and date it anew; where the licence changed, say so there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date

from exhibit.criteria import Finding, judge
from exhibit.targets import Deployment

# SPDX ids approved by the OSI (opensource.org/licenses, spdx.org/licenses; read 2026-11-25), each with how older
# metadata spells it. Not the whole list: extend it when a platform needs it.
APPROVED = {
    "Apache-2.0": r"apache.{0,30}2|apache software license",
    "BSD-2-Clause": r"\bbsd\b",
    "BSD-3-Clause": r"\bbsd\b",
    "ISC": r"\bisc\b",
    "MIT": r"\bmit\b",
    "MPL-2.0": r"\bmpl.{0,3}2|mozilla public license.{0,10}2",
    "AGPL-3.0-only": r"\bagpl.{0,3}3|affero.{0,30}3",
}
MONTHS = 24


def check(deployment: Deployment) -> Finding:
    facts, stated = deployment.platform.facts, _stated(deployment.distribution())
    release, today = facts.newest_release, date.today()
    age_months = (today.year - release.date.year) * 12 + today.month - release.date.month
    expired = [fact.statement for fact in facts.facts if fact.expires < today]
    agrees = stated == facts.licence or bool(re.search(APPROVED.get(facts.licence, r"(?!)"), stated, re.IGNORECASE))
    observed = {
        "licence": facts.licence if agrees else stated[:80] or "none stated",
        "approved": facts.licence in APPROVED,
        "recent_release": age_months <= MONTHS,
        "expired_facts": expired,
    }
    expected = {"licence": facts.licence, "approved": True, "recent_release": True, "expired_facts": []}
    wrong = [name.replace("_", " ") for name, found in observed.items() if found != expected[name]]
    return judge(
        not wrong,
        f"The licence of {deployment.platform.file.distribution} {deployment.version} is {observed['licence']}; its "
        f"newest release is {release.version} of {release.date}. {facts.maintenance}"
        f"{' Not as it should be: ' + ', '.join(wrong) + '.' if wrong else ''}",
        observed=observed,
        expected=expected,
    )


def _stated(metadata: Mapping[str, list[str]]) -> str:
    """What the metadata say of the licence, in the most exact field that they have."""
    classifiers = [one for one in metadata.get("Classifier", []) if one.startswith("License ::")]
    fields = metadata.get("License-Expression") or classifiers or metadata.get("License") or []
    return " ".join("; ".join(fields).split())
