"""Recording and alerting rules: valid, unit-tested by promtool, and the tests notice a wrong rule."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from exhibit.prometheus import PrometheusMissing, find_or_unpack, render_alerts

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "monitoring" / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks"
ALERTS = [
    rule
    for group in YAML(typ="safe").load(SOURCE / "rules" / "alerts.yaml")["groups"]
    for rule in group["rules"]
    if "alert" in rule
]
RULES = sorted((SOURCE / "rules").glob("*.yaml"))
TESTS = sorted((SOURCE / "tests").glob("*.yaml"))


@pytest.fixture(scope="session")
def promtool() -> Path:
    try:
        return find_or_unpack(ROOT / ".work" / "prometheus-binaries") / "promtool"
    except PrometheusMissing as missing:
        pytest.skip(str(missing))


def run(*argv: str | Path, cwd: Path) -> tuple[int, str]:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("rules", RULES, ids=lambda path: path.stem)
def test_rules_are_valid(promtool: Path, rules: Path) -> None:
    code, said = run(promtool, "check", "rules", rules, cwd=SOURCE)
    assert code == 0, said


@pytest.mark.parametrize("tests", TESTS, ids=lambda path: path.stem)
def test_rules_give_what_their_tests_expect(promtool: Path, tests: Path) -> None:
    code, said = run(promtool, "test", "rules", tests, cwd=tests.parent)
    assert code == 0, said


def test_each_file_of_rules_has_its_tests() -> None:
    assert RULES
    assert {f"{path.stem}_test" for path in RULES} <= {path.stem for path in TESTS}


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('source="gateway", ', ""),
        ('envoy_http_conn_manager_prefix="ingress",', ""),
        ('envoy_response_code_class!="1"', 'envoy_response_code_class=~".+"'),
        ('envoy_response_code_class="5"', 'envoy_response_code_class=~"4|5"'),
        ("by (platform, target)", "by (platform)"),
        ("\n      or platform:requests:rate1m * 0", ""),
        ("(platform:requests:rate1m > 0)", "platform:requests:rate1m"),
        (" >= 0)", ")"),
        (" / 1000", ""),
        (" + 0.0005", ""),
        ('envoy_cluster_name="mirror"})', 'envoy_cluster_name=~".+"})'),
        ('envoy_response_code_class="2"}) or', 'envoy_response_code_class=~".+"}) or'),
        (" or platform:copies:total * 0", ""),
        ("0.95", "0.9"),
        ("0.99", "0.9"),
        ("0.5,", "0.6,"),
    ],
)
def test_a_wrong_rule_is_noticed(promtool: Path, tmp_path: Path, right: str, wrong: str) -> None:
    for folder in ("rules", "tests"):
        shutil.copytree(SOURCE / folder, tmp_path / folder)
    rules = tmp_path / "rules" / "signals.yaml"
    text = rules.read_text()
    assert right in text
    rules.write_text(text.replace(right, wrong))
    # Still rules, only wrong ones: it is the tests that must notice.
    assert run(promtool, "check", "rules", rules, cwd=tmp_path)[0] == 0
    code, said = run(promtool, "test", "rules", "signals_test.yaml", cwd=tmp_path / "tests")
    assert code != 0, said


def mutant(tmp_path: Path, right: str, wrong: str) -> Path:
    """A copy of rules and tests in which the alerts have `wrong` where they had `right`."""
    for folder in ("rules", "tests"):
        shutil.copytree(SOURCE / folder, tmp_path / folder)
    rules = tmp_path / "rules" / "alerts.yaml"
    text = rules.read_text()
    assert right in text
    rules.write_text(text.replace(right, wrong))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        # What counts as a request and as an error.
        ("healthy traffic", 'source="gateway", ', ""),
        ("healthy traffic", 'envoy_http_conn_manager_prefix="ingress", ', ""),
        ("healthy traffic", 'envoy_response_code_class="5"', 'envoy_response_code_class=~"4|5"'),
        ("2 % errors", 'envoy_response_code_class!="1"', 'envoy_response_code_class=~".+"'),
        ("2 % errors", "by (platform, target)", "by (platform)"),
        ("no traffic", " > 0)", ")"),
        ("healthy traffic", "/ 0.001", "/ 0.002"),
        # The limits of the burn alerts, each window of them, and the traffic they need.
        ("2 % errors", "> 14.4", "> 7"),
        ("2 % errors", "> 14.4", "> 21"),
        ("2 % errors", "> 6\n", "> 4\n"),
        ("2 % errors", "> 6\n", "> 9\n"),
        ("20 seconds", "platform:error_budget_burn:rate1h > 14.4\n      and ", ""),
        ("20 seconds", "platform:error_budget_burn:rate6h > 6\n      and ", ""),
        ("an outage", "and platform:error_budget_burn:rate5m > 14.4\n", ""),
        ("an outage", "and platform:error_budget_burn:rate30m > 6\n", ""),
        ("20 seconds", "[1h]", "[5m]"),
        ("an outage", "[6h]", "[1h]"),
        ("an outage", "[30m]", "[1h]"),
        ("an outage", "[5m]", "[30m]"),
        ("low traffic", ">= 100", ">= 0"),
        ("low traffic", ">= 200", ">= 0"),
        ("one failed request", ">= 100", ">= 150"),
        ("2 % errors", ">= 200", ">= 1000000"),
        # Servers and metrics that are gone.
        ("a server", 'envoy_cluster_name="stable"', 'envoy_cluster_name=~".+"'),
        ("healthy traffic", "max by (platform, target) (envoy", "min by (platform, target) (envoy"),
        ("a server", "for: 1m", "for: 0s"),
        ("a server", "for: 1m", "for: 10m"),
        ("a server", '"stable"}) == 0', '"stable"}) <= 1'),
        ("healthy traffic", 'up{platform!=""}', "up"),
        ("metrics that are missing", "min by (platform, target, source)", "max by (platform, target, source)"),
        ("metrics that are missing", "min by (platform, target, source)", "min by (platform, target)"),
        ("metrics that are missing", "unless count by", "and count by"),
        ("metrics that are missing", '"source", "gateway", "platform"', '"source", "native", "platform"'),
        ("metrics that are missing", "for: 2m", "for: 0s"),
        ("metrics that are missing", "for: 2m", "for: 10m"),
        # Copies.
        ("requests of which", 'detectors_copies_total{source="detectors"}', "detectors_copies_total"),
        ("requests of which", 'envoy_response_code_class="2"', 'envoy_response_code_class!="1"'),
        ("requests of which", "[5m])) == 0", "[5m])) >= 0"),
        ("requests of which", "for: 5m", "for: 0s"),
        ("requests of which", "for: 5m", "for: 30m"),
        ("low traffic", ">= 20\n", ">= 0\n"),
        # Drift and outliers.
        ("a window", 'source="detectors"}) > 1', 'source="detectors"}) > 0.9'),
        ("a window", 'source="detectors"}) > 1', 'source="detectors"}) > 1.5'),
        ("healthy traffic", 'detectors_drift_ratio{source="detectors"}', "detectors_drift_ratio"),
        ("a window", "max by (platform, target) (detectors", "min by (platform, target) (detectors"),
        ("a window", "topk(3", "topk(2"),
        ("a window", " > 0)))", ")))"),
        ("a window", ",platform='%[1]s'", ""),
        ("more outliers", "> 0.25", "> 0.2"),
        ("more outliers", "> 0.25", "> 0.35"),
        ("low traffic", ">= 50", ">= 0"),
        ("more outliers", 'detectors_outliers_total{source="detectors"}', "detectors_outliers_total"),
        ("more outliers", 'detectors_records_total{source="detectors"}', "detectors_records_total"),
    ],
)
def test_a_wrong_alert_is_noticed(promtool: Path, tmp_path: Path, name: str, right: str, wrong: str) -> None:
    folder = mutant(tmp_path, right, wrong) / "tests"
    assert run(promtool, "check", "rules", folder.parent / "rules" / "alerts.yaml", cwd=folder)[0] == 0
    # The one test that must notice; all of them take seconds.
    for path in folder.glob("alerts*_test.yaml"):
        content = YAML(typ="safe").load(path)
        if chosen := [test for test in content["tests"] if test["name"].startswith(name)]:
            YAML().dump(content | {"tests": chosen}, folder / "chosen.yaml")
    code, said = run(promtool, "test", "rules", "chosen.yaml", cwd=folder)
    assert code != 0, said
    assert "got" in said, said


def test_the_committed_alerts_are_those_of_the_template() -> None:
    assert (SOURCE / "rules" / "alerts.yaml").read_text() == render_alerts(SOURCE / "alerts.yaml.j2"), "run make sync"


@pytest.mark.parametrize("time_scale", [2, 60, 7.5, 10_000])
def test_scaled_alerts_are_valid_and_differ_in_times_only(promtool: Path, tmp_path: Path, time_scale: float) -> None:
    rules = tmp_path / "alerts.yaml"
    rules.write_text(render_alerts(SOURCE / "alerts.yaml.j2", time_scale))
    code, said = run(promtool, "check", "rules", rules, cwd=tmp_path)
    assert code == 0, said
    times = re.compile(r"\[\d+[smhd]\]|for: \w+|(?:over|for|within|last) \d+[smhd]|time_scale \S+")
    scaled, production = rules.read_text(), (SOURCE / "rules" / "alerts.yaml").read_text()
    assert scaled != production
    assert times.sub("", scaled) == times.sub("", production)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_what_to_do(alert: dict[str, dict[str, str]]) -> None:
    kebab = re.sub(r"(?<!^)(?=[A-Z])", "-", str(alert["alert"])).lower()
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert alert["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{kebab}.md")
    # Who, and how bad.
    assert alert["annotations"]["summary"].startswith("{{ $labels.platform }} ({{ $labels.target }}): ")
    assert "$value" in alert["annotations"]["summary"] or "$labels.source" in alert["annotations"]["summary"]
    page = re.sub(r"```.*?```", "", (RUNBOOKS / f"{kebab}.md").read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    assert headings == [alert["alert"], "What it means", "Look first", "Mend", "When it is false"]


def test_each_runbook_is_of_an_alert() -> None:
    named = {alert["annotations"]["runbook_url"].rpartition("/")[2] for alert in ALERTS}
    assert {path.name for path in RUNBOOKS.glob("*.md")} - {"README.md"} == named
    # And the table of the front page has them all.
    rows = re.findall(r"^\| \[(\w+)\]\(([\w-]+\.md)\) \| (\w+) \|", (RUNBOOKS / "README.md").read_text(), re.MULTILINE)
    assert rows == [
        (alert["alert"], alert["annotations"]["runbook_url"].rpartition("/")[2], alert["labels"]["severity"])
        for alert in ALERTS
    ]


def test_queries_of_runbooks_are_valid_and_ask_for_rules_there_are(promtool: Path, tmp_path: Path) -> None:
    pages = {path.name: path.read_text() for path in RUNBOOKS.glob("*.md")}
    queries = [query for text in pages.values() for query in re.findall(r"promql '([^']+)'", text)]
    assert len(queries) == sum(text.count("promql '") for text in pages.values()) >= len(ALERTS)
    file = tmp_path / "rules.yaml"
    rules = [{"record": f"runbook:query:{number}", "expr": query} for number, query in enumerate(queries)]
    YAML().dump({"groups": [{"name": "runbooks", "rules": rules}]}, file)
    code, said = run(promtool, "check", "rules", file, cwd=tmp_path)
    assert code == 0, said
    recorded = {name for path in RULES for name in re.findall(r"record: (\S+)", path.read_text())}
    asked = {name for text in pages.values() for name in re.findall(r"platform:\w+:\w+", text)}
    assert asked <= recorded
