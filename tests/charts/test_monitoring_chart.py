"""The monitoring's chart: the real programs take its configurations, and find what the other charts make."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import httpx
import pytest
from ruamel.yaml import YAML

from exhibit import alertmanager, processes, prometheus, sink, versions
from exhibit.alertmanager import AlertmanagerMissing
from exhibit.prometheus import PrometheusMissing
from exhibit.render import sync
from exhibit.workspace import Workspace

from . import connections, rendered
from .connections import Peer
from .rendered import Chart, Example, HelmError, Object, needs_helm

pytestmark = needs_helm

WORKSPACE = Workspace(rendered.ROOT)
SOURCE = rendered.ROOT / "monitoring"
CHART = Chart(rendered.CHARTS / "monitoring")
CLOSED, FULL, SMALL = CHART.examples
PARTS = ("prometheus", "alertmanager", "webhook", "grafana")
HOST = "127.0.0.1"
each_example = pytest.mark.parametrize("example", CHART.examples, ids=str)


def eventually(holds: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not (done := holds()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return done


@pytest.fixture(scope="session")
def binaries() -> Path:
    try:
        return prometheus.find_or_unpack(WORKSPACE.state / "prometheus-binaries")
    except PrometheusMissing as missing:
        pytest.skip(str(missing))


def release(values: Object | None = None) -> list[Object]:
    return rendered.render(CHART, rendered.merge(SMALL.values, values or {}), "monitoring")


def data(objects: list[Object], name: str, kind: str = "ConfigMap") -> dict[str, str]:
    [found] = [one for one in objects if (one["kind"], one["metadata"]["name"].partition("-")[2]) == (kind, name)]
    return found["data"]


def by_part(objects: list[Object]) -> dict[str, rendered.Pod]:
    return {pod.labels["app.kubernetes.io/name"]: pod for pod in rendered.pods(objects)}


# What it is made from.


def test_files_of_charts_are_those_that_are_made_and_no_others() -> None:
    made = {path for path in sync.render(WORKSPACE) if "files" in path.parts}
    assert made == {path for path in rendered.CHARTS.glob("*/files/**/*") if path.is_file()} != set()


def test_rules_and_dashboards_are_those_of_the_checkout() -> None:
    objects = release()
    rules = data(objects, "rules")
    assert rules.keys() == {path.name for path in (SOURCE / "prometheus" / "rules").glob("*.yaml")} != set()
    for name, text in rules.items():
        assert text.split("\n", 1)[1].rstrip() == (SOURCE / "prometheus" / "rules" / name).read_text().rstrip()
    [dashboards] = [one for one in objects if one["metadata"]["labels"].get("grafana_dashboard") == "1"]
    shown = {name: json.loads(text) for name, text in dashboards["data"].items()}
    assert shown == {path.name: json.loads(path.read_text()) for path in (SOURCE / "grafana/dashboards").glob("*.json")}


def test_alertmanager_delivers_to_the_webhook_at_productions_times() -> None:
    objects = release()
    text = data(objects, "alertmanager")["alertmanager.yaml"].split("\n", 1)[1]
    url = "http://monitoring-webhook:8080/"
    assert text == alertmanager.render(SOURCE / "alertmanager" / "alertmanager.yaml.j2", webhook_url=url)
    service = rendered.only(objects, "Service", "monitoring-webhook")["spec"]
    assert [port["port"] for port in service["ports"]] == [8080]
    # The image's own command, which the chart leaves alone.
    dockerfile = (SOURCE / "webhook" / "Dockerfile").read_text()
    [command] = [json.loads(line[4:]) for line in dockerfile.splitlines() if line.startswith("CMD ")]
    [container] = by_part(objects)["webhook"].spec["containers"]
    assert "args" not in container
    assert "command" not in container
    assert command[:3] == ["python", "-m", sink.__name__.rpartition(".")[2]]
    assert command[command.index("--port") + 1] == "8080"
    written = Path(command[command.index("--file") + 1])
    assert {"name": "scratch", "mountPath": str(written.parent)} in container["volumeMounts"]


def test_texts_of_ones_own_are_taken_as_they_are() -> None:
    objects = FULL.objects
    assert data(objects, "flights-rules")["alerts.yaml"].rstrip() == FULL.values["rules"]["alerts"].rstrip()
    config = data(objects, "flights-alertmanager")["alertmanager.yaml"]
    assert config.rstrip() == FULL.values["alertmanager"]["config"].rstrip()
    scaled = prometheus.render_alerts(SOURCE / "prometheus" / "alerts.yaml.j2", 300)
    assert data(release({"rules": {"alerts": scaled}}), "rules")["alerts.yaml"].rstrip() == scaled.rstrip()


def test_prometheus_keeps_as_much_as_on_this_machine() -> None:
    [container] = by_part(release())["prometheus"].spec["containers"]
    argv = prometheus.command(Path("bin"), config=Path("c"), data=Path("d"), host="h", port=1)
    retained = {argument for argument in argv if "retention" in argument}
    assert len(retained) == 2
    assert retained < set(container["args"])
    assert not [argument for argument in container["args"] if argument.startswith("--web.enable")]


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("prometheus", {"scrapeInterval": "2s"}),
        ("prometheus", {"target": "other"}),
        ("prometheus", {"rules": {"alerts": "groups: []"}}),
        ("alertmanager", {"alertmanager": {"config": "route: {receiver: none}\nreceivers: [{name: none}]"}}),
    ],
    ids=["interval", "target", "rules", "routes"],
)
def test_a_pod_with_another_configuration_is_a_new_pod(part: str, values: Object) -> None:
    before, after = by_part(release()), by_part(release(values))
    changed = [name for name, pod in before.items() if pod.annotations != after[name].annotations]
    assert changed == [part]


def test_images_are_those_of_versions_yaml() -> None:
    named = versions.load(WORKSPACE).images
    for part in set(PARTS) - {"webhook"}:
        image = CHART.defaults[part]["image"]
        assert f"{image['repository']}:{image['tag']}" == named[part]


# What the real programs say to it.


def stand_in(text: str, files: Path) -> str:
    """The configuration with pods found in `files` in place of Kubernetes, which Debian's build cannot ask."""
    config = YAML(typ="safe").load(text)
    [job] = config["scrape_configs"]
    [asked] = job.pop("kubernetes_sd_configs")
    own = {"own_namespace": True}
    assert asked == {"role": "pod", "namespaces": own, "selectors": [{"role": "pod", "label": "exhibit/source"}]}
    job["file_sd_configs"] = [{"files": [str(files)]}]
    del config["alerting"]
    config["rule_files"] = []
    return json.dumps(config)


@each_example
def test_prometheus_accepts_configuration_and_rules(example: Example, binaries: Path, tmp_path: Path) -> None:
    text = data(example.objects, "flights-prometheus")["prometheus.yaml"]
    (tmp_path / "rules").mkdir()
    for name, rules in data(example.objects, "flights-rules").items():
        (tmp_path / "rules" / name).write_text(rules)
    assert '- "/etc/prometheus/rules/*.yaml"' in text
    [container] = by_part(example.objects)["prometheus"].spec["containers"]
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert mounts == {"config": "/etc/prometheus/config", "rules": "/etc/prometheus/rules", "data": "/prometheus"}
    path = tmp_path / "prometheus.yaml"
    path.write_text(text.replace("/etc/prometheus/rules", str(tmp_path / "rules")))
    done = promtool(binaries, "config", path)
    if "field kubernetes_sd_configs not found" in done.stderr:
        path.write_text(stand_in(text, tmp_path / "pods.json"))
        (tmp_path / "pods.json").write_text("[]")
        done = promtool(binaries, "config", path)
        assert promtool(binaries, "rules", *(tmp_path / "rules").glob("*.yaml")).returncode == 0
    assert done.returncode == 0, done.stdout + done.stderr


def promtool(binaries: Path, what: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([binaries / "promtool", "check", what, *paths], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("example", [FULL, SMALL], ids=str)
def test_alertmanager_accepts_its_configuration(example: Example, tmp_path: Path) -> None:
    try:
        folder = alertmanager.find_or_unpack(WORKSPACE.state / "alertmanager-binaries")
    except AlertmanagerMissing as missing:
        pytest.skip(str(missing))
    path = tmp_path / "alertmanager.yaml"
    path.write_text(data(example.objects, "flights-alertmanager")["alertmanager.yaml"])
    done = subprocess.run([folder / "amtool", "check-config", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# What Prometheus finds. Each pod is one that a chart makes, at an address where nobody listens.

SERVER = {"platform": "alpha", "image": {"repository": "example/server", "tag": "1"}}
METRICS = {
    "ports": {"main": 8080, "grpc": 8081, "metrics": 8082},
    "metrics": {"port": "metrics", "path": "/own/metrics"},
}
DETECTORS, _ = Chart(rendered.CHARTS / "detectors").examples
RELEASES: dict[str, tuple[str, Object]] = {
    "alpha": ("model-server", {**SERVER, **METRICS}),
    "alpha-canary": ("model-server", {**SERVER, **METRICS}),
    "alpha-gateway": ("gateway", {"platform": "alpha", "mirror": {"enabled": True}}),
    "alpha-detectors": ("detectors", DETECTORS.values | {"platform": "alpha", "service": {"nodePorts": {}}}),
    "beta": ("model-server", {**SERVER, "platform": "beta"}),
    "beta-gateway": ("gateway", {"platform": "beta"}),
    "monitoring": ("monitoring", SMALL.values | {"grafana": {"enabled": True}}),
}


@cache
def made(name: str) -> list[Object]:
    chart, values = RELEASES[name]
    return rendered.render(Chart(rendered.CHARTS / chart), values, name)


def found(pod: rendered.Pod, name: str, address: str, *, phase: str = "Running", ready: bool = True) -> list[Object]:
    """A pod as Prometheus' discovery of pods tells of it: once for each port of each container."""

    def meta(kind: str, values: dict[str, str]) -> dict[str, str]:
        tidy = {key: "".join(c if c.isalnum() else "_" for c in key) for key in values}
        return {f"__meta_kubernetes_pod_{kind}_{tidy[key]}": value for key, value in values.items()} | {
            f"__meta_kubernetes_pod_{kind}present_{tidy[key]}": "true" for key in values
        }

    of_pod = {
        "__meta_kubernetes_namespace": rendered.NAMESPACE,
        "__meta_kubernetes_pod_name": name,
        "__meta_kubernetes_pod_ip": address,
        "__meta_kubernetes_pod_phase": phase,
        "__meta_kubernetes_pod_ready": str(ready).lower(),
        **meta("label", pod.labels),
        **meta("annotation", pod.annotations),
    }
    return [
        {
            "targets": [f"{address}:{number}"],
            "labels": of_pod
            | {"__meta_kubernetes_pod_container_port_name": port, "__meta_kubernetes_pod_container_name": "one"},
        }
        for port, number in pod.ports.items()
    ]


Targets = Callable[[list[Object]], list[Object]]


@pytest.fixture
def targets(binaries: Path, tmp_path: Path) -> Targets:
    """What the real Prometheus makes of what was discovered, as its page of targets has it."""
    config, pods = tmp_path / "prometheus.yaml", tmp_path / "pods.json"
    config.write_text(stand_in(data(release({"target": "there"}), "prometheus")["prometheus.yaml"], pods))

    def ask(discovered: list[Object]) -> list[Object]:
        pods.write_text(json.dumps(discovered))
        [port] = processes.free_ports(1)
        argv = prometheus.command(binaries, config=config, data=tmp_path / "data", host=HOST, port=port)
        running = processes.start("prometheus", argv, environment={}, cwd=tmp_path, folder=tmp_path, grace_seconds=10)
        try:
            with httpx.Client(base_url=f"http://{HOST}:{port}/api/v1/", trust_env=False) as client:

                def answer() -> Object:
                    try:
                        response = client.get("targets")
                    except httpx.TransportError:
                        return {}
                    return response.json()["data"] if response.status_code == 200 else {}

                # All at once, when it has read the file.
                assert eventually(lambda: bool(answer().get("activeTargets"))), (
                    tmp_path / "prometheus.log"
                ).read_text()
                return answer()["activeTargets"]
        finally:
            processes.stop(running)

    return ask


def test_each_pod_is_read_once_where_it_says_and_has_six_labels(targets: Targets) -> None:
    discovered, expected = [], {}
    pods = [(name, pod) for name in RELEASES for pod in rendered.pods(made(name))]
    for at, (name, pod) in enumerate(pods, 1):
        address, own = f"127.9.9.{at}", f"{name}-{pod.labels['app.kubernetes.io/name']}-x7k2p"
        discovered += found(pod, own, address)
        if "exhibit/source" in pod.labels:
            port = pod.annotations["exhibit/metrics-port"]
            expected[f"http://{address}:{port}{pod.annotations['exhibit/metrics-path']}"] = {
                "platform": pod.labels["exhibit/platform"],
                "source": pod.labels["exhibit/source"],
                "target": "there",
                "pod": own,
                "instance": f"{address}:{port}",
                "job": "deployments",
            }
    assert len(discovered) > len(pods) > len(expected)
    assert {(one["platform"], one["source"]) for one in expected.values()} == {
        *(("alpha", source) for source in ("native", "gateway", "detectors", "explainers")),
        *(("beta", source) for source in ("native", "gateway")),
    }
    active = targets(discovered)
    assert {one["scrapeUrl"]: one["labels"] for one in active} == expected
    assert len(active) == len(expected)


def test_what_has_no_metrics_is_not_missed(targets: Targets) -> None:
    [server], [gateway] = (list(rendered.pods(made(name))) for name in ("alpha", "alpha-gateway"))
    [without] = rendered.pods(rendered.render(Chart(rendered.CHARTS / "model-server"), SERVER | {"metrics": None}))
    numbered = rendered.Pod("", {**server.metadata, "annotations": {"exhibit/metrics-port": "metrics"}}, server.spec)
    unpathed = rendered.Pod("", {**server.metadata, "annotations": {"exhibit/metrics-port": "8082"}}, server.spec)
    active = targets(
        [
            *found(server, "starting", "127.9.9.1", ready=False),
            *found(gateway, "gateway-starting", "127.9.9.2", ready=False),
            *found(server, "ended", "127.9.9.3", phase="Succeeded"),
            *found(gateway, "gateway-failed", "127.9.9.4", phase="Failed", ready=False),
            *found(without, "without-metrics", "127.9.9.5"),
            *found(numbered, "no-number", "127.9.9.6"),
            *found(unpathed, "no-path", "127.9.9.7"),
        ]
    )
    assert {one["labels"]["pod"]: one["scrapeUrl"] for one in active} == {
        "gateway-starting": "http://127.9.9.2:9902/stats/prometheus",
        "no-path": "http://127.9.9.7:8082/metrics",
    }


def test_prometheus_finds_its_alertmanager() -> None:
    objects = release()
    config = YAML(typ="safe").load(data(objects, "prometheus")["prometheus.yaml"])
    [[asked]] = [one["kubernetes_sd_configs"] for one in config["alerting"]["alertmanagers"]]
    key, _, value = asked["selectors"][0]["label"].partition("=")
    # Each port of each pod it finds would be one.
    assert [list(pod.ports.values()) for pod in rendered.pods(objects) if pod.labels.get(key) == value] == [[9093]]


def test_prometheus_may_see_the_pods_of_its_namespace_and_nothing_else() -> None:
    objects = release()
    [role, binding, account] = (rendered.only(objects, kind) for kind in ("Role", "RoleBinding", "ServiceAccount"))
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    [subject] = binding["subjects"]
    assert (subject["name"], subject["namespace"]) == (account["metadata"]["name"], rendered.NAMESPACE)
    with_token = [part for part, pod in by_part(objects).items() if pod.spec["automountServiceAccountToken"]]
    assert with_token == ["prometheus"]
    assert by_part(objects)["prometheus"].spec["serviceAccountName"] == account["metadata"]["name"]


# Its parts.


def test_grafana_shows_the_dashboards_and_asks_this_prometheus() -> None:
    objects = release({"grafana": {"enabled": True}})
    pod = by_part(objects)["grafana"]
    [container] = pod.spec["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    [datasource] = YAML(typ="safe").load(data(objects, "grafana")["datasources.yaml"])["datasources"]
    assert datasource["url"] == "$PROMETHEUS_URL"
    service = rendered.only(objects, "Service", "monitoring-prometheus")
    assert (
        environment["PROMETHEUS_URL"] == f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    )
    [provider] = YAML(typ="safe").load(data(objects, "grafana")["dashboards.yaml"])["providers"]
    mounts = {one["mountPath"]: one for one in container["volumeMounts"]}
    volumes = {one["name"]: one for one in pod.spec["volumes"]}
    assert volumes[mounts[provider["options"]["path"]]["name"]]["configMap"]["name"] == "monitoring-dashboards"
    for kind in ("dashboards", "datasources"):
        [path] = [path for path in mounts if path.startswith(f"/etc/grafana/provisioning/{kind}/")]
        assert mounts[path]["subPath"] == f"{kind}.yaml"


def test_each_part_can_be_left_out() -> None:
    assert by_part(release()).keys() == {"prometheus", "alertmanager", "webhook"}
    for part in PARTS:
        values = {"grafana": {"enabled": True}, "alertmanager": {"config": "route: {receiver: a}"}}
        values[part] = {**values.get(part, {}), "enabled": False}
        assert by_part(release(values)).keys() == set(PARTS) - {part}
    assert "prometheus" in by_part(CLOSED.objects)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "webhook.image.tag: found nothing, expected a tag that always means the same image."),
        ({"webhook": {"image": {"tag": "latest"}}}, "webhook.image.tag: found latest, expected a tag"),
        (
            {"webhook": {"enabled": False}},
            "alertmanager.config: found nothing, expected where alerts go when webhook.enabled is false.",
        ),
        ({"scrapeInterval": "16s"}, "/scrapeInterval"),
        ({"scrapeInterval": "1m"}, "/scrapeInterval"),
        ({"target": 'a", b: "c'}, "/target"),
    ],
    ids=["no tag", "latest", "nowhere", "seldom", "minute", "target"],
)
def test_what_cannot_work_is_refused_with_what_to_do(values: Object, said: str) -> None:
    with pytest.raises(HelmError) as refused:
        rendered.render(CHART, values)
    assert said in str(refused.value)


# Who may connect to whom, with all charts in one namespace.

OUTSIDE = [
    Peer("a node", None, "", {}),
    Peer("the API", None, "", {"https": 6443}),
    Peer("DNS", {"k8s-app": "kube-dns"}, "kube-system", {"dns": 53}),
    Peer("a stranger here", {"app": "stranger"}, rendered.NAMESPACE, {"main": 8080}),
    Peer("a stranger there", {"exhibit/source": "gateway", "exhibit/platform": "alpha"}, "other", {"main": 8080}),
]


def opened(values: Object | None = None) -> set[str]:
    """Every connection that passes between the pods of all charts and `OUTSIDE`."""
    objects = {name: made(name) for name in RELEASES} | ({"monitoring": release(values)} if values else {})
    policies = [one for found in objects.values() for one in found if one["kind"] == "NetworkPolicy"]
    peers = OUTSIDE + [
        Peer(pod.owner.removeprefix("Deployment/"), pod.labels, rendered.NAMESPACE, pod.ports)
        for found in objects.values()
        for pod in rendered.pods(found)
    ]
    return {
        f"{source.name} -> {target.name} {port}"
        for source in peers
        for target in peers
        for port, number in target.ports.items()
        if source is not target
        and not {source, target} <= set(OUTSIDE)
        and connections.allowed(policies, source, target, number, "UDP" if port == "dns" else "TCP")
    }


def test_those_who_have_to_may_connect_and_nobody_else() -> None:
    anyone = {
        f"{who} -> {platform}-gateway main"
        for platform in ("alpha", "beta")
        for who in ("a node", "the API", "DNS", "a stranger there", "monitoring-prometheus")
    }
    looked_up = {
        f"{name} -> DNS dns"
        for name in (
            "alpha-gateway",
            "beta-gateway",
            "alpha-detectors-detectors",
            "alpha-detectors-explainers",
            *(f"monitoring-{part}" for part in ("prometheus", "alertmanager", "grafana")),
        )
    }
    assert opened() == {
        *anyone,
        *looked_up,
        *(
            f"alpha-detectors-{name} -> alpha-gateway {port}"
            for name in ("detectors", "explainers")
            for port in ("main", "internal")
        ),
        "alpha-gateway -> alpha main",
        "alpha-gateway -> alpha-canary main",
        "alpha-gateway -> alpha-detectors-detectors copies",
        "beta-gateway -> beta main",
        *(f"monitoring-prometheus -> {name} metrics" for name in ("alpha", "alpha-canary")),
        *(f"monitoring-prometheus -> {name} stats" for name in ("alpha-gateway", "beta-gateway")),
        "monitoring-prometheus -> beta main",
        "monitoring-prometheus -> alpha-detectors-detectors admin",
        "monitoring-prometheus -> alpha-detectors-explainers main",
        "monitoring-prometheus -> monitoring-alertmanager web",
        "monitoring-prometheus -> the API https",
        "monitoring-alertmanager -> monitoring-webhook web",
        "monitoring-grafana -> monitoring-prometheus web",
    }


@pytest.mark.parametrize("part", PARTS)
def test_a_node_port_is_open_to_anyone(part: str) -> None:
    values = {"grafana": {"enabled": True}}
    more = opened(values | {part: {**values.get(part, {}), "nodePort": 30099}}) - opened(values)
    assert f"a node -> monitoring-{part} web" in more
    assert {one.split(" -> ")[1] for one in more} == {f"monitoring-{part} web"}


def test_without_policies_everything_is_open() -> None:
    """What the tests above compare with: that they can fail."""
    everything = opened({"networkPolicy": {"enabled": False}})
    assert "a stranger here -> a stranger here main" not in everything
    assert "a stranger here -> monitoring-webhook web" in everything
    assert "a stranger here -> alpha main" not in everything  # its own chart's policy
    assert "a stranger here -> monitoring-webhook web" not in opened()
