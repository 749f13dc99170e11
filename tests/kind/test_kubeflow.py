"""What KServe adds in a cluster: an operator that restores, an explainer, a request logger and a batcher of its own."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from exhibit import criteria, images, versions
from exhibit import model as models
from exhibit.bundle import BundleError
from exhibit.cluster import NAMESPACE
from exhibit.contract import Platform, load_platforms
from exhibit.criteria import Outcome
from exhibit.images import Context, Image
from exhibit.model import TOLERANCE, Model, Rows, difference
from exhibit.operators import OperatorUnavailable
from exhibit.targets.kind import KindTarget
from exhibit.targets.kind.addresses import Door
from exhibit.targets.kind.deployment import KindDeployment
from exhibit.targets.kind.releases import REVISION, Release
from exhibit.workspace import Workspace

from .conftest import ROOT, copied, eventually

CHART = "kubeflow"
MODEL = "flight-delay"
NATIVE, BATCHED, SINK = "native", "batched", "sink"
BATCH = 8
READY_SECONDS = 180
# Writes down the headers of what it is sent, and tells them.
TAKES_EVENTS = """
import base64
import json
import re
from http.server import BaseHTTPRequestHandler, HTTPServer
events = []
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        events.append({name.lower(): value for name, value in self.headers.items()})
        self.answer(b"")
    def do_GET(self):
        self.answer(json.dumps(events).encode())
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
HTTPServer(("", 8080), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def prepared(bench: Workspace, tmp_path_factory: pytest.TempPathFactory) -> tuple[KindTarget, Platform]:
    """The platform of KServe, whose operator and image are there; without anything beside it."""
    workspace = copied(bench, tmp_path_factory.mktemp("kubeflow"), companions=False)
    target = KindTarget(workspace, models.load(workspace))
    [platform] = [one for one in load_platforms(workspace).values() if one.file.kind and one.file.kind.chart == CHART]
    try:
        target.prepare([platform])
    except (OperatorUnavailable, BundleError) as error:
        pytest.skip(error.line())
    return target, platform


@pytest.fixture(scope="module")
def deployed(prepared: tuple[KindTarget, Platform]) -> Iterator[KindDeployment]:
    target, platform = prepared
    try:
        with target.deploy(platform) as deployment:
            yield deployment
    finally:
        target.down(platform.slug)


@pytest.mark.parametrize("name", ["serving/predictions_match", "deployment_focus/operator_restores_deployment"])
def test_a_criterion_passes(deployed: KindDeployment, name: str) -> None:
    finding = criteria.answer(criteria.discover(Workspace(ROOT))[name], deployed)
    assert finding.outcome is Outcome.PASS, finding


@pytest.fixture(scope="module")
def native(prepared: tuple[KindTarget, Platform], deployed: KindDeployment) -> Iterator[dict[str, str]]:
    """Addresses of InferenceServices with what KServe puts beside a server, and of the events' receiver, by Service."""
    target, platform = prepared
    cluster, image = target.cluster, deployed.image
    assert image is not None
    explainer = explainer_of(platform, target.workspace)
    cluster.load(explainer.reference)
    cluster.kubectl("create", f"--namespace={NAMESPACE}", "--filename=-", input=json.dumps(beside(image, target.model)))
    common = {"image": named(image), "podAnnotations": {REVISION: "one"}}
    explaining = {"enabled": True, "image": named(explainer), "artifacts": {"configMap": NATIVE}}
    wanted: dict[str, dict[str, Any]] = {  # apart: behind the batcher KServe's logger sends no answers
        NATIVE: {**common, "logger": {"url": f"http://{SINK}:8080/"}, "explainer": explaining},
        BATCHED: {**common, "batcher": {"maxBatchSize": BATCH, "maxLatency": 500}},
    }
    releases = [Release(cluster, name, cluster.folder) for name in wanted]
    try:
        for release in releases:
            release.install(target.workspace.charts / CHART, [platform.values], wanted[release.name])
        for release in releases:
            release.wait("one", READY_SECONDS)
        workload = (f"deployment/{NATIVE}-explainer", f"--namespace={NAMESPACE}", f"--timeout={READY_SECONDS}s")
        cluster.kubectl("rollout", "status", *workload, seconds=READY_SECONDS + 20)
        services = {NATIVE: 8080, BATCHED: 8080, f"{NATIVE}-explainer": 80, SINK: 8080}
        yield {name: target.monitoring.doors.url(Door(name, port, None)) for name, port in services.items()}
    finally:
        target.monitoring.doors.close(re.compile("|".join((NATIVE, BATCHED, SINK))))
        for release in releases:
            release.uninstall()
        own = (f"configmap/{NATIVE}", f"pod/{SINK}", f"service/{SINK}")
        cluster.kubectl("delete", *own, f"--namespace={NAMESPACE}", "--ignore-not-found", "--grace-period=0", "--force")


def explainer_of(platform: Platform, workspace: Workspace) -> Image:
    folder = platform.folder / "explainer"
    sources = {name: folder / name for name in ("Dockerfile", "requirements.txt", "explainer.py")}
    context = Context(sources, versions.load(workspace).images["base"])
    return images.build(workspace, f"{platform.slug}-explainer", context, print)


def named(image: Image) -> dict[str, str]:
    repository, _, tag = image.reference.rpartition(":")
    return {"repository": repository, "tag": tag}


def beside(image: Image, model: Model) -> dict[str, Any]:
    """What the release needs beside itself: rows for the explainer, and a receiver of events."""
    reference = base64.b64encode((model.folder / "artifacts" / "reference.npz").read_bytes()).decode()
    labels = {"app.kubernetes.io/name": SINK}
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": SINK,
        "image": image.reference,
        "command": ["python", "-uc", TAKES_EVENTS],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        "securityContext": restricted,
    }
    items = [
        {"kind": "ConfigMap", "metadata": {"name": NATIVE}, "binaryData": {"reference.npz": reference}},
        {
            "kind": "Pod",
            "metadata": {"name": SINK, "labels": labels},
            "spec": {
                "containers": [container],
                "automountServiceAccountToken": False,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 10001,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
            },
        },
        {"kind": "Service", "metadata": {"name": SINK}, "spec": {"selector": labels, "ports": [{"port": 8080}]}},
    ]
    return {"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", **item} for item in items]}


def ask(url: str, verb: str, rows: Rows) -> dict[str, Any]:
    """The answer of KServe's V1 protocol to a verb."""
    body = {"instances": rows.tolist()}
    answer = httpx.post(f"{url}/v1/models/{MODEL}:{verb}", json=body, timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_the_batcher_answers_several_requests_by_one_call(native: dict[str, str], deployed: KindDeployment) -> None:
    golden = deployed.model.golden.take(BATCH)
    with ThreadPoolExecutor(BATCH) as callers:
        answers = list(callers.map(lambda at: ask(native[BATCHED], "predict", golden.rows[at : at + 1]), range(BATCH)))
    together = Counter(answer["batchId"] for answer in answers)
    assert max(together.values()) > 1, together
    assert difference(np.asarray([answer["predictions"][0] for answer in answers]), golden.expected) <= TOLERANCE


def test_the_logger_sends_request_and_answer_as_events(native: dict[str, str], deployed: KindDeployment) -> None:
    def events() -> dict[str, set[str]]:
        """Types of the events by their id."""
        found: dict[str, set[str]] = {}
        for event in httpx.get(native[SINK], trust_env=False).json():
            found.setdefault(event["ce-id"], set()).add(event["ce-type"])
        return found

    before = events()
    ask(native[NATIVE], "predict", deployed.model.golden.rows[:1])
    pair = {f"org.kubeflow.serving.inference.{one}" for one in ("request", "response")}
    assert eventually(lambda: pair in [types for id, types in events().items() if id not in before]), events()


def test_the_explainer_explains_the_model_that_is_served(native: dict[str, str], deployed: KindDeployment) -> None:
    golden = deployed.model.golden.take(2)
    explained = ask(native[f"{NATIVE}-explainer"], "explain", golden.rows)["explanations"]
    sums = [one["base_value"] + sum(one["values"]) for one in explained]
    assert {len(one["values"]) for one in explained} == {golden.rows.shape[1]}
    assert difference(np.asarray(sums), golden.expected) <= TOLERANCE
