"""The chart seldon-core: objects of Seldon Core 2's API that find each other, and a pod that keeps the rules.

No operator acts on them here. The API's fields stand below as upstream's reference lists them; its CRDs are not copied.
"""

from __future__ import annotations

import copy

import jsonschema
import pytest

from . import hardening, rendered
from .rendered import RELEASE, Chart, HelmError, Object, needs_helm

CHART = Chart(rendered.CHARTS / "seldon-core")
IMAGE = {"repository": "example/mlserver", "tag": "1"}
LEAST: Object = {"server": {"image": IMAGE}, "model": {"storageUri": "s3://models/a"}}
OPERATOR = rendered.ROOT / "deployments" / "seldon-core" / "operator.yaml"

# https://docs.seldon.ai/seldon-core-2, custom resources of 2.10; read 2026-11-25. A cluster drops a misspelt field.
FIELDS = {
    "Model": {"storageUri", "secretName", "server", "requirements", "memory", "replicas"},
    "Server": {"serverConfig", "replicas", "podSpec", "statefulSetPersistentVolumeClaimRetentionPolicy"},
    "Experiment": {"default", "candidates"},
}

pytestmark = needs_helm


def render(values: Object) -> list[Object]:
    return rendered.render(CHART, rendered.merge(LEAST, values))


def refusal(values: Object) -> str:
    with pytest.raises(HelmError) as refused:
        rendered.render(CHART, values)
    return str(refused.value)


def server_of(objects: list[Object]) -> Object:
    return rendered.only(objects, "Server")["spec"]


def container(spec: Object, name: str) -> Object:
    [found] = [one for one in spec["podSpec"]["containers"] if one["name"] == name]
    return found


@pytest.mark.parametrize(
    ("without", "told"),
    [
        ({"model": {"storageUri": "s3://a"}}, "server.image.repository: found nothing"),
        (
            {"server": {"image": {"repository": "x/y"}}, "model": {"storageUri": "s3://a"}},
            "server.image.tag: found nothing",
        ),
        (rendered.merge(LEAST, {"server": {"image": {"tag": "latest"}}}), "server.image.tag: found latest"),
        ({"server": {"image": IMAGE}}, "model.storageUri: found nothing"),
    ],
)
def test_what_a_release_needs_is_asked_for_by_name(without: Object, told: str) -> None:
    assert told in refusal(without)


@pytest.mark.parametrize("example", CHART.examples, ids=str)
def test_only_fields_of_the_api_are_used(example: rendered.Example) -> None:
    for item in example.objects:
        assert item["apiVersion"] == "mlops.seldon.io/v1alpha1"
        assert item["spec"].keys() <= FIELDS[item["kind"]], rendered.title(item)


def test_the_model_is_named_after_the_release_and_goes_to_its_server() -> None:
    objects = render({"model": {"requirements": ["mlserver", "extra"], "memory": "1Gi", "replicas": 3}})
    assert sorted(rendered.title(item) for item in objects) == [f"Model/{RELEASE}", f"Server/{RELEASE}"]
    assert rendered.only(objects, "Model")["spec"] == {
        "storageUri": "s3://models/a",
        "server": RELEASE,
        "requirements": ["mlserver", "extra"],
        "memory": "1Gi",
        "replicas": 3,
    }
    assert server_of(objects)["serverConfig"] == "mlserver"


@pytest.mark.parametrize("percent", [0, 10, 100])
def test_a_next_version_gets_its_share_and_no_more(percent: int) -> None:
    objects = render({"model": {"secretName": "key"}, "canary": {"storageUri": "s3://models/b", "percent": percent}})
    models = {item["metadata"]["name"]: item["spec"] for item in objects if item["kind"] == "Model"}
    assert {name: spec["storageUri"] for name, spec in models.items()} == {
        RELEASE: "s3://models/a",
        f"{RELEASE}-canary": "s3://models/b",
    }
    assert {spec["secretName"] for spec in models.values()} == {"key"}
    assert rendered.only(objects, "Experiment")["spec"] == {
        "default": RELEASE,
        "candidates": [
            {"name": RELEASE, "weight": 100 - percent},
            {"name": f"{RELEASE}-canary", "weight": percent},
        ],
    }


def test_the_container_that_answers_is_the_one_that_is_asked_for() -> None:
    environment = {"OMP_NUM_THREADS": "1", "MLSERVER_MODEL_URI": ""}
    spec = server_of(render({"server": {"command": ["serve", "it"], "environment": environment, "replicas": 2}}))
    own = container(spec, "mlserver")
    assert own["image"] == "example/mlserver:1"
    assert own["command"] == ["serve", "it"]
    assert {one["name"]: one["value"] for one in own["env"]} == environment
    assert spec["replicas"] == 2
    assert not {"command", "env"} & container(server_of(render({})), "mlserver").keys()


def whole_pod(spec: Object) -> Object:
    """The pod as the operator makes it of a ServerConfig whose containers keep no rule of their own."""
    pod = copy.deepcopy(spec["podSpec"])
    for one in pod["containers"]:
        one.setdefault("image", "docker.io/seldonio/another:1")
    return pod


def test_the_pod_may_enter_a_namespace_that_enforces_restricted() -> None:
    broken = hardening.breaches(whole_pod(server_of(render({}))))
    assert not [name for name in broken if hardening.RULES[name].admission], broken


def test_the_container_that_answers_keeps_our_own_rules_too() -> None:
    pod = whole_pod(server_of(render({})))
    pod["containers"] = [one for one in pod["containers"] if one["name"] == "mlserver"]
    assert hardening.breaches(pod, needs_token=True) == {}  # the agent asks the API server for its settings


def test_the_platforms_own_values_fit_chart_and_image() -> None:
    values = rendered.merge(CHART.defaults, rendered.read(OPERATOR))
    jsonschema.validate(values, CHART.schema)
    assert values["server"]["command"][:2] == ["mlserver", "start"]
    # The image says where its one model is; that would win over what the operator fetched.
    assert "MLSERVER_MODEL_URI=" in OPERATOR.with_name("Dockerfile").read_text(encoding="utf-8")
    assert values["server"]["environment"]["MLSERVER_MODEL_URI"] == ""
