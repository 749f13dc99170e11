"""Does the image work where a cluster allows it next to nothing?

Why: Many clusters refuse what runs as root, writes to its own root or needs a capability; a shell in an image is the
    first thing an intruder uses. An image that was not built for that fails there at its first deployment.
How: `docker run` with a read-only root and /tmp in memory, all capabilities dropped, no new privileges, and nothing to
    be run at /bin/sh and /bin/bash; golden rows are sent. The kernel is asked whose processes they are. Size and number
    of layers are recorded.
Pass: It answers rightly, no process is root's, and the base is named by a tag that tells its version, or by its digest.
Fix: Set USER to a number, write to /tmp only, start the server by an exec form (`CMD ["server", ...]`), and name the
    base with its version.
"""

from __future__ import annotations

import re

from exhibit import images
from exhibit.criteria import Finding, judge
from exhibit.errors import ServerError
from exhibit.images import Process
from exhibit.targets import Deployment
from exhibit.targets.first_prediction import NotReady, require_right_prediction

REQUIRES = ("image",)
SHELLS = ("/bin/sh", "/bin/bash")
PINNED = re.compile(r"@sha256:[0-9a-f]{64}$|:[^/:]*\d[^/:]*$")


def check(deployment: Deployment) -> Finding:
    image = deployment.image
    assert image is not None
    facts, processes = image.facts(), list[Process]()
    try:
        processes, answers = _processes(deployment, image), "rightly"
    except ServerError as error:
        last = error.detail.splitlines()[-1:]
        answers = ", ".join([error.found, *(f"its last line {line!r}" for line in last)])
    judged = {
        "answers": answers,
        "processes_of_root": sum(process.user == 0 for process in processes),
        "base_is_named_with_its_version": bool(PINNED.search(facts.base or "")),
    }
    expected = {"answers": "rightly", "processes_of_root": 0, "base_is_named_with_its_version": True}
    wrong = [f"{name.replace('_', ' ')}: {judged[name]}" for name in expected if judged[name] != expected[name]]
    size = f"{image.reference} ({facts.size_bytes / 1e6:.0f} MB in {facts.layers} layers)"
    right = "answered rightly with a read-only root and without root's rights, capabilities or a shell"
    described = {
        "image": image.reference,
        "size_bytes": facts.size_bytes,
        "layers": facts.layers,
        "user": facts.user,
        "base": facts.base,
        "first_process": processes[0].command if processes else None,
    }
    return judge(
        not wrong,
        f"{size}: {'; '.join(wrong)}." if wrong else f"{size} {right}.",
        observed={**described, **judged},
        expected=expected,
    )


def _processes(deployment: Deployment, image: images.Image) -> list[Process]:
    """Its processes, once it has answered rightly."""
    platform = deployment.platform

    def is_right(url: str) -> bool:
        try:
            require_right_prediction(deployment.http, url, platform, deployment.client, deployment.model.golden)
        except NotReady:
            return False
        return True

    with images.running(
        image,
        ready=is_right,
        within_seconds=platform.file.local.ready_seconds,
        mounts=dict.fromkeys(SHELLS, "/dev/null"),
        read_only=True,
        tmpfs=["/tmp"],
        cap_drop=["ALL"],
        no_new_privileges=True,
    ) as container:
        return container.processes()
