"""Does a plain `docker run` of the platform's image predict as the trained estimator does?

Why: An image that needs a cluster's settings to work is a part of a deployment, not a thing one can try, ship or keep.
How: `docker run -p` of the image, with no setting, no volume and no argument; the golden rows are sent to the mapped
    port, as one batch and row by row.
Pass: Every difference from the trained estimator's answers is at most 1e-5.
Fix: Put server, environment and model into the image; say in its ENV what a process needs, listen on 0.0.0.0.
"""

from __future__ import annotations

import httpx
import numpy as np

from exhibit import images
from exhibit.criteria import Finding, judge
from exhibit.errors import ServerError
from exhibit.model import TOLERANCE, Probabilities, Rows, difference
from exhibit.targets import AnswerError, Deployment

REQUIRES = ("image",)


def check(deployment: Deployment) -> Finding:
    image, golden = deployment.image, deployment.model.golden
    assert image is not None
    expected = {"largest_difference": TOLERANCE}
    seconds = deployment.platform.file.local.ready_seconds
    try:
        with images.running(image, ready=lambda url: _is_ready(deployment, url), within_seconds=seconds) as container:
            batch = _ask(deployment, container.url, golden.rows)
            singly = [_ask(deployment, container.url, golden.rows[at : at + 1])[0] for at in range(len(golden))]
    except ServerError as error:
        lines = error.detail.splitlines()
        said = f", its last line {lines[-1]!r}" if lines else ""
        return judge(False, f"A plain docker run {error.found}{said}.", observed={"answers": None}, expected=expected)
    differences = {
        "one batch": difference(batch, golden.expected),
        "row by row": difference(np.asarray(singly), golden.expected),
    }
    return judge(
        max(differences.values()) <= TOLERANCE,
        f"A plain docker run of {image.reference} answered {len(golden)} golden rows in {len(differences)} ways; the "
        f"largest difference from the trained estimator is {max(differences.values())}.",
        observed={"image": image.reference, "largest_difference": differences},
        expected=expected,
    )


def _is_ready(deployment: Deployment, url: str) -> bool:
    """Whether it predicts, rightly or not."""
    try:
        _ask(deployment, url, deployment.model.golden.rows[:1])
    except (AnswerError, httpx.TransportError):
        return False
    return True


def _ask(deployment: Deployment, url: str, rows: Rows) -> Probabilities:
    predict = deployment.platform.file.predict
    headers = {"Content-Type": predict.content_type}
    response = deployment.http.post(url + predict.path, content=deployment.client.encode(rows), headers=headers)
    return deployment.read(response, len(rows))
