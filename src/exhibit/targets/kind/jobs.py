"""Runs a platform's offline path as a Kubernetes Job of its image, on rows that a ConfigMap carries."""

from __future__ import annotations

import base64
import io
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from kubernetes.client import BatchV1Api, CoreV1Api, NetworkingV1Api
from kubernetes.client.exceptions import ApiException
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from exhibit import interrupts
from exhibit.cluster import NAMESPACE
from exhibit.images import Image
from exhibit.targets.kind.releases import INSTANCE, SOURCE, Release

SECONDS = 120
MARK = "probabilities: "
# What a Job leaves is its log: the file that the platform's own command wrote is printed into it.
_RUNNER = """
import base64, subprocess, sys
done = subprocess.run(sys.argv[2:]).returncode
if not done:
    print(sys.argv[1] + base64.b64encode(open("/tmp/probabilities.npy", "rb").read()).decode(), flush=True)
sys.exit(done)
"""


def run(
    release: Release,
    image: Image,
    command: Sequence[str],
    rows: npt.NDArray[np.float32],
) -> tuple[int | None, str]:
    """The exit code (None: it took too long) and log of `command` on `rows` [n, 12]; nothing of it is left.

    Its ``{input}`` is a file with the rows, ``{output}`` one to be written, ``{url}`` the deployed server.
    """
    name = f"{release.name}-offline-{uuid.uuid4().hex[:6]}"
    api = release.cluster.api
    core, batch, policies = CoreV1Api(api), BatchV1Api(api), NetworkingV1Api(api)
    file = io.BytesIO()
    np.save(file, rows)
    places = {"input": "/rows/rows.npy", "output": "/tmp/probabilities.npy", "url": f"http://{release.name}:8080"}
    argv = ["python", "-c", _RUNNER, MARK, *(part.format_map(places) for part in command)]
    labels = {"app.kubernetes.io/managed-by": "exhibit", "exhibit/platform": release.name, SOURCE: "batch"}
    metadata: dict[str, Any] = {"name": name, "labels": labels}
    try:
        core.create_namespaced_config_map(
            NAMESPACE,
            {"metadata": metadata, "binaryData": {"rows.npy": base64.b64encode(file.getvalue()).decode()}},
        )
        policies.create_namespaced_network_policy(NAMESPACE, {"metadata": metadata, "spec": _policy(release, name)})
        batch.create_namespaced_job(NAMESPACE, {"metadata": metadata, "spec": _spec(image, argv, metadata)})
        status = Retrying(
            stop=stop_after_delay(SECONDS),
            wait=wait_fixed(0.3),
            retry=retry_if_result(lambda status: not (status.succeeded or status.failed)),
            retry_error_callback=lambda _: None,
        )(lambda: batch.read_namespaced_job_status(name, NAMESPACE).status)
        pods = core.list_namespaced_pod(NAMESPACE, label_selector=f"job-name={name}").items
        log = core.read_namespaced_pod_log(pods[0].metadata.name, NAMESPACE) if pods else "no pod was made"
        return (None if status is None else 0 if status.succeeded else 1), str(log)
    finally:
        with interrupts.deferred():
            for delete in (
                partial(batch.delete_namespaced_job, propagation_policy="Background"),
                policies.delete_namespaced_network_policy,
                core.delete_namespaced_config_map,
            ):
                with suppress(ApiException):  # it was never made
                    delete(name, NAMESPACE)


def _policy(release: Release, name: str) -> dict[str, object]:
    """The Job's pod may ask names, and the server it belongs to; where policies are enforced, nobody else."""
    dns = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
    server = {"podSelector": {"matchLabels": {INSTANCE: release.name}}}
    return {
        "podSelector": {"matchLabels": {"job-name": name}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [],
        "egress": [{"to": [dns], "ports": [{"port": 53, "protocol": one} for one in ("UDP", "TCP")]}, {"to": [server]}],
    }


def _spec(image: Image, argv: Sequence[str], metadata: Mapping[str, Any]) -> dict[str, object]:
    container = {
        "name": "offline",
        "image": image.reference,
        "command": list(argv),
        "env": [{"name": "HOME", "value": "/tmp"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi"},
            "limits": {"cpu": "1", "memory": "768Mi"},
        },
        "volumeMounts": [
            {"name": "rows", "mountPath": "/rows", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [
            {"name": "rows", "configMap": {"name": metadata["name"]}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
        ],
    }
    return {
        "backoffLimit": 0,
        "activeDeadlineSeconds": SECONDS,
        "template": {"metadata": {"labels": metadata["labels"]}, "spec": pod},
    }
