"""Every chart of charts/, with every set of values it is known to be installed with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from . import hardening, rendered
from .rendered import Chart, Example, HelmError, Object, needs_helm

CHARTS = rendered.charts()
EXAMPLES = rendered.examples()
ONE_EACH = [chart.examples[0] for chart in CHARTS if chart.examples]

# Kinds no schema of Kubernetes itself knows; only these may go unvalidated.
CUSTOM_KINDS = {"InferenceService", "Model", "Server", "Experiment"}
# The one component that reads the cluster's API, by its app.kubernetes.io/name.
NEEDS_TOKEN = {"prometheus"}
SOURCES = {"native", "gateway", "detectors", "explainers"}

each_chart = pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
each_example = pytest.mark.parametrize("example", EXAMPLES, ids=str)
once_a_chart = pytest.mark.parametrize("example", ONE_EACH, ids=lambda example: example.chart.name)


@each_chart
def test_a_chart_comes_with_values_to_try_it_with(chart: Chart) -> None:
    assert chart.examples, f"no {chart.name}/ci/*.yaml"


# Values.


def maps(schema: Object) -> Iterator[Object]:
    """Every part of the schema that is for a map."""
    if "properties" in schema or schema.get("type") == "object":
        yield schema
    for value in schema.values():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                yield from maps(part)


@each_chart
def test_the_schema_is_closed_and_describes_each_value(chart: Chart) -> None:
    schema = chart.schema
    jsonschema.validators.validator_for(schema).check_schema(schema)
    schema["properties"].pop("global", None)  # Helm's own, for charts that are dependencies
    for part in maps(schema):
        assert part.get("additionalProperties", True) is not True, f"open: {part}"
        assert [name for name, value in part.get("properties", {}).items() if not value.get("description")] == []


@each_chart
def test_every_value_of_the_schema_stands_in_values_yaml(chart: Chart) -> None:
    assert chart.schema["properties"].keys() - {"global"} == chart.defaults.keys()


def resolved(schema: Object, part: Object) -> Object:
    """What a part of the schema refers to."""
    while "$ref" in part:
        found: Any = schema
        for step in part["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        part = found
    return part


def places(example: Example) -> Iterator[tuple[tuple[str, ...], Any, Object]]:
    """Each value, also each map of values: its path, what it is, and its part of the schema."""
    schema = example.chart.schema

    def walk(path: tuple[str, ...], value: Any, part: Object) -> Iterator[tuple[tuple[str, ...], Any, Object]]:
        part = resolved(schema, part)
        if path:
            yield path, value, part
        if isinstance(value, dict):
            for key, below in value.items():
                of_key = part.get("properties", {}).get(key, part.get("additionalProperties"))
                assert isinstance(of_key, dict), f"the schema does not say what {'.'.join((*path, key))} is"
                yield from walk((*path, key), below, of_key)

    return walk((), example.values, schema)


def wrong_for(schema: Object, part: Object) -> Any:
    """Something that `part` of the schema does not allow."""
    shared = {key: schema[key] for key in ("$schema", "definitions", "$defs") if key in schema}
    validator = jsonschema.validators.validator_for(schema)({**shared, "allOf": [part]})
    wrong = next((value for value in (1.5, [1.5], "\t", True) if not validator.is_valid(value)), None)
    assert wrong is not None, f"allows everything: {part}"
    return wrong


def refusal(example: Example, changes: list[tuple[tuple[str, ...], Any]]) -> str:
    """What Helm says to the example's values with the changes made."""
    values = json.loads(json.dumps(example.values))
    for (*parents, last), value in changes:
        node = values
        for step in parents:
            node = node[step]
        node[last] = value
    with pytest.raises(HelmError) as refused:
        rendered.render(example.chart, values)
    return str(refused.value)


def is_named(path: tuple[str, ...], said: str) -> bool:
    return f"at '/{'/'.join(path)}'" in said or f"- {'.'.join(path)}: " in said  # Helm since 3.18, and before


@needs_helm
@once_a_chart
def test_a_value_of_the_wrong_type_is_refused_by_its_name(example: Example) -> None:
    found = list(places(example))
    simple = [
        (path, wrong_for(example.chart.schema, part)) for path, value, part in found if not isinstance(value, dict)
    ]
    whole = [(path, [1.5]) for path, value, _ in found if isinstance(value, dict) and len(path) == 1]
    for changes in filter(None, (simple, whole)):
        said = refusal(example, changes)
        assert [path for path, _ in changes if not is_named(path, said)] == [], said


@needs_helm
@once_a_chart
def test_a_misspelt_value_is_refused_by_its_name(example: Example) -> None:
    closed = [path for path, value, part in places(example) if isinstance(value, dict) and "properties" in part]
    names = [((*path, f"misspelt{at}"), 1) for at, path in enumerate([(), *closed])]
    said = refusal(example, names)
    assert [path for path, _ in names if f"'{path[-1]}'" not in said and f" {path[-1]} is not" not in said] == [], said


# What is rendered.


@needs_helm
@each_example
def test_objects_are_valid_for_kubernetes(example: Example) -> None:
    unknown = []
    assert example.objects
    for item in example.objects:
        try:
            kubernetes_validate.validate(item, rendered.KUBERNETES, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            unknown.append(rendered.title(item))
            assert item["kind"] in CUSTOM_KINDS, rendered.title(item)
    if unknown:
        pytest.skip(f"the others are valid; Kubernetes' own schemas do not know {', '.join(unknown)}")


@needs_helm
@each_example
def test_pods_keep_every_rule_of_hardening(example: Example) -> None:
    for pod in rendered.pods(example.objects):
        needs_token = pod.labels["app.kubernetes.io/name"] in NEEDS_TOKEN
        assert hardening.breaches(pod.spec, needs_token=needs_token) == {}, pod.owner


@needs_helm
@each_example
def test_no_service_account_hands_out_its_token(example: Example) -> None:
    for item in example.objects:
        if item["kind"] == "ServiceAccount":
            assert item.get("automountServiceAccountToken") is False, rendered.title(item)


@needs_helm
@each_example
def test_objects_are_named_after_the_release_and_stay_in_its_namespace(example: Example) -> None:
    names = [(item["apiVersion"], item["kind"], item["metadata"]["name"]) for item in example.objects]
    assert len(set(names)) == len(names), "two objects of one kind and name"
    for item in example.objects:
        name = item["metadata"]["name"]
        assert name == rendered.RELEASE or name.startswith(f"{rendered.RELEASE}-"), rendered.title(item)
        assert item["metadata"].get("namespace", rendered.NAMESPACE) == rendered.NAMESPACE, rendered.title(item)


@needs_helm
@each_example
def test_objects_and_pods_are_labelled(example: Example) -> None:
    pods = list(rendered.pods(example.objects))
    of_objects = {rendered.title(item): item["metadata"].get("labels", {}) for item in example.objects}
    for owner, labels in {**of_objects, **{f"pods of {pod.owner}": pod.labels for pod in pods}}.items():
        assert labels.get("app.kubernetes.io/name"), owner
        assert labels.get("app.kubernetes.io/instance") == rendered.RELEASE, owner
        assert labels.get("app.kubernetes.io/managed-by") == "Helm", owner
    for pod in pods:
        platform = example.values.get("platform")
        if platform is None:  # Prometheus takes what has a source for a platform's
            assert pod.labels.keys().isdisjoint({"exhibit/platform", "exhibit/source"}), pod.owner
        else:
            assert pod.labels.get("exhibit/platform") == (platform or rendered.RELEASE), pod.owner
            assert pod.labels.get("exhibit/source") in SOURCES, pod.owner


@needs_helm
@each_example
def test_prometheus_is_led_to_a_port_there_is(example: Example) -> None:
    for pod in rendered.pods(example.objects):
        port, path = (pod.annotations.get(f"exhibit/metrics-{what}") for what in ("port", "path"))
        assert (port is None) == (path is None), pod.owner
        if port is not None:
            assert int(port) in pod.ports.values(), pod.owner
            assert path.startswith("/"), pod.owner


@needs_helm
@each_example
def test_selectors_find_pods_and_services_their_ports(example: Example) -> None:
    objects, pods = example.objects, list(rendered.pods(example.objects))
    for item in objects:
        for selector in selectors(item):
            found = [pod for pod in pods if selector.items() <= pod.labels.items()]
            assert found, f"{rendered.title(item)}: {selector}"
            if item["kind"] == "Service":
                targets = {port.get("targetPort", port["port"]) for port in item["spec"]["ports"]}
                for pod in found:
                    assert targets <= {*pod.ports, *pod.ports.values()}, rendered.title(item)


def selectors(item: Object) -> list[dict[str, str]]:
    """The labels by which an object finds pods of its own release."""
    spec = item.get("spec", {})
    match item["kind"]:
        case "Service":
            return [spec["selector"]] if spec.get("selector") else []
        case "Deployment" | "StatefulSet" | "DaemonSet" | "PodDisruptionBudget":
            return [spec["selector"]["matchLabels"]]
        case "NetworkPolicy":
            return [spec["podSelector"].get("matchLabels", {})]
    return []


# Platforms.

PLATFORMS = rendered.platforms()
each_platform = pytest.mark.parametrize("example", PLATFORMS, ids=lambda example: example.name)


def test_values_are_of_a_platform_that_says_its_chart() -> None:
    named = {example.name for example in PLATFORMS}
    assert {path.parent.name for path in (rendered.ROOT / "deployments").glob("*/values.yaml")} == named


@each_platform
def test_a_platforms_values_fit_its_chart(example: Example) -> None:
    jsonschema.validate(example.values, example.chart.schema)


@each_platform
def test_a_platforms_values_hold_only_what_differs(example: Example) -> None:
    def repeated(values: Object, defaults: Object, path: str = "") -> Iterator[str]:
        for key, value in values.items():
            default = defaults.get(key)
            if isinstance(value, dict) and isinstance(default, dict) and value:
                yield from repeated(value, default, f"{path}{key}.")
            elif key in defaults and value == default:
                yield f"{path}{key}"

    assert list(repeated(rendered.read(example.file), example.chart.defaults)) == []


@needs_helm
@each_platform
def test_a_platforms_pods_have_the_ports_and_metrics_that_it_declares(example: Example) -> None:
    declared = rendered.read(example.file.with_name("platform.yaml"))
    [pod] = [pod for pod in rendered.pods(example.objects) if pod.labels["exhibit/source"] == "native"]
    assert {"main", *declared["local"].get("ports", [])} <= pod.ports.keys()
    metrics = declared["capabilities"]["native_metrics"]
    if "none" in metrics:
        assert "exhibit/metrics-port" not in pod.annotations
    else:
        assert pod.annotations["exhibit/metrics-port"] == str(pod.ports[metrics.get("port", "main")])
        assert pod.annotations["exhibit/metrics-path"] == metrics["path"]
