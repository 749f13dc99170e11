"""Each criterion passes on the healthy toy and fails on each fault that breaks what it asks for."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import toy

from exhibit import companions, criteria
from exhibit.companions import LICENCE_VARIABLE
from exhibit.contract import Absent, Capabilities
from exhibit.criteria import SECTIONS, Criterion, Outcome
from exhibit.targets.local.deployment import LocalDeployment
from exhibit.traffic import Report
from exhibit.workspace import Workspace

# What asks for images or rollouts is shown by test_rollouts.py and tests/docker: this target has none.
CRITERIA = {
    name: criterion
    for name, criterion in criteria.discover(Workspace(toy.ROOT)).items()
    if criterion.fits(LocalDeployment)
}
COMPANIONS = frozenset(companions.load(Workspace(toy.ROOT)))
TODAY = date.today()


class Deploy(Protocol):
    """Fixture `deploy`."""

    def __call__(
        self,
        fault: str,
        edits: Mapping[str, tuple[str, str]] | None = None,
        *,
        watched: bool = False,
        beside: Set[str] = frozenset(),
    ) -> LocalDeployment: ...


@dataclass(frozen=True)
class Failing:
    """A way to break what a criterion asks for."""

    fault: str
    """Of the toy's server; empty: of the healthy one, changed by `change` or `constants`."""
    says: str
    """Regular expression found in the message."""
    edits: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Of files, named from the platform's folder."""
    change: Callable[[LocalDeployment], None] | None = None
    """Of the deployment as the criterion sees it."""
    constants: Mapping[str, Any] = field(default_factory=dict)
    """Of the criterion, so that a test need not take as long as a run."""


def with_facts(**update: Any) -> Callable[[LocalDeployment], None]:
    def change(deployment: LocalDeployment) -> None:
        deployment.platform = replace(deployment.platform, facts=deployment.platform.facts.model_copy(update=update))

    return change


def with_a_wrong_answer_in_traffic(deployment: LocalDeployment) -> None:
    deployment.traffic = {"steady": Report("steady", "Steady", sent=10, right=9, wrong=1)}


def with_an_expired_fact(deployment: LocalDeployment) -> None:
    fact = deployment.platform.facts.facts[0]
    with_facts(facts=[fact.model_copy(update={"expires": TODAY - timedelta(days=1)})])(deployment)


def with_an_old_release(deployment: LocalDeployment) -> None:
    release = deployment.platform.facts.newest_release
    with_facts(newest_release=release.model_copy(update={"date": TODAY - timedelta(days=800)}))(deployment)


def with_a_distribution_that_states_nothing(deployment: LocalDeployment) -> None:
    deployment.distribution = lambda: {"Version": ["1"]}  # type: ignore[method-assign]


def with_every_request_sent_twice(deployment: LocalDeployment) -> None:
    predict = deployment.predict

    def twice(*arguments: Any, **keywords: Any) -> Any:
        predict(*arguments, **keywords)
        return predict(*arguments, **keywords)

    deployment.predict = twice  # type: ignore[method-assign]


def known_by_another_name(deployment: LocalDeployment) -> None:
    deployment.platform = replace(deployment.platform, slug="not-watched")
    deployment.scrape_seconds = 0.5


def with_scrapes_waited_for(seconds: float) -> Callable[[LocalDeployment], None]:
    return lambda deployment: setattr(deployment, "scrape_seconds", seconds)


def with_nothing_delivered(deployment: LocalDeployment) -> None:
    deployment.read_deliveries = list


def after_another_outage(deployment: LocalDeployment) -> None:
    CRITERIA["model_metrics/slo_alert_fires"].check(deployment)


def without_an_outage(deployment: LocalDeployment) -> None:
    deployment.outage = contextlib.nullcontext  # type: ignore[method-assign]


def in_detectors(file: str, old: str, new: str) -> dict[str, tuple[str, str]]:
    return {f"../../monitoring/detectors/{file}": (old, new)}


def in_explainers(file: str, old: str, new: str) -> dict[str, tuple[str, str]]:
    return {f"../../monitoring/explainers/{file}": (old, new)}


# What can be wrong with detectors and explainers: the order of columns, an answer that never changes, no traffic.
COLUMNS_REVERSED = {"client.py": ('["rows"], dtype=np.float32)', '["rows"], dtype=np.float32)[:, ::-1]')}
NO_COPIES = in_detectors("service.yaml", "copies: copies\n", "")
ASKED_IN_VAIN = in_detectors("service.yaml", '"{ask}"', '"{ask}/nowhere"')
ANSWERS = "found = np.asarray(self.client.decode(answer), np.float64)"
PREDICTIONS_UPSIDE_DOWN = in_detectors("served.py", ANSWERS, f"{ANSWERS[:8]}1 - {ANSWERS[8:]}")
RATIO = "ratio = max(distances[name] / limits[name] for name in distances)"
NEVER_DRIFTED, ALWAYS_DRIFTED = (in_detectors("judgements.py", RATIO, f"ratio = {fixed}") for fixed in (0.0, 2.0))
FLAGS = "return self.scores(rows) > self._limit"
NEVER_OUTLIERS, ALWAYS_OUTLIERS = (
    in_detectors("detection.py", FLAGS, f"return np.full(len(rows), {fixed})") for fixed in (False, True)
)
VALUES = '"values": values.tolist()'
EXPLAINED_IN_REVERSE = in_explainers("explaining.py", VALUES, '"values": values.tolist()[::-1]')
EXPLAINED_WITH_NEIGHBOURS_SWAPPED = in_explainers(
    "explaining.py", VALUES, '"values": values[[0, 1, 2, 3, 4, 6, 5, 7, 8, 9, 10, 11]].tolist()'
)
EXPLAINED_ALL_ALIKE = in_explainers("explaining.py", VALUES, '"values": [values.sum() / len(values)] * len(values)')
EXPLAINED_ANOTHER_MODEL = in_explainers("explaining.py", VALUES, '"values": (values * 1.1).tolist()')

# Of what is computed or waited for, as much as shows the fault.
FEWER_FLIGHTS = {"FLIGHTS": 32}
FEWER_ROUNDS = {"detectors.ROUNDS": 3}

SHORT_GRACE = {"platform.yaml": ("stop_seconds: 5", "stop_seconds: 1")}
FAILING = {
    "serving/predictions_match": [
        Failing("wrong_in_large_batches", r"0\.001 \((platform|gateway), one batch\)"),
        Failing("wrong_now_and_then", r"0\.001 \((platform|gateway), row by row\)"),
        Failing("answers_nan", r"estimator is 1\.0 "),
        Failing("answers_500", "Toy answered 500"),
        Failing("", "Of 10 requests of the scenarios 9 were", change=with_a_wrong_answer_in_traffic),
    ],
    "serving/bad_input_refused": [
        Failing("accepts_nan", "NaN: 200"),
        Failing("breaks_on_bad_input", "not JSON: 500"),
        Failing("leaks_traceback", "NaN: 400 and shows a traceback or path"),
        Failing("refuses_in_silence", "NaN: 400 without a reason"),
        Failing("dies_of_bad_input", "afterwards: the server ended with"),
        Failing("wrong_after_bad_input", r"afterwards: wrong by 0\.001"),
    ],
    "serving/drains_on_sigterm": [
        # Three have been sent whole before the signal, and one or another of them may still be answered.
        Failing("drops_in_flight", "SIGTERM [0-3] were answered rightly.*in flight: {"),
        Failing("ignores_sigterm", "server went on.*ended by itself: False", SHORT_GRACE),
        Failing("answers_503_when_stopping", "in flight: .*answered 503"),
        Failing("leaves_a_child_listening", "listens afterwards: True", SHORT_GRACE),
    ],
    "model_metrics/service_metrics_native": [
        Failing("counts_twice", "grown by 100"),
        # Prometheus reads its list of targets at most every 5 s.
        Failing("counts_nothing", "grown by 0", change=with_scrapes_waited_for(6.0)),
        Failing("", r"not scraped \(native\) by Prometheus", change=known_by_another_name),
    ],
    "model_metrics/service_metrics_gateway": [
        Failing("", "grown by 100", change=with_every_request_sent_twice),
        Failing("", r"not scraped \(gateway\) by Prometheus", change=known_by_another_name),
        Failing(
            "",
            "no value for latency",
            change=with_scrapes_waited_for(6.0),  # it may be the first to wait for the toy to be taken up
            constants={"SIGNALS": {"traffic": "up", "latency": "platform:latency"}},
        ),
    ],
    "model_metrics/input_statistics": [
        Failing("", r"statistics of 0 say what was sent; carrier: ", edits=COLUMNS_REVERSED),
        Failing("", r"carrier: counted 0 of 204", edits=NO_COPIES, change=with_scrapes_waited_for(6.0)),
    ],
    "model_metrics/prediction_statistics": [
        Failing("", "had grown by 0;", edits=ASKED_IN_VAIN, change=with_scrapes_waited_for(6.0)),
        Failing("", r"its mean is off by [1-9]\.\de-0[12]", edits=PREDICTIONS_UPSIDE_DOWN),
    ],
    "anomaly_detection/clean_traffic_stays_quiet": [
        Failing("", r"2 were judged as drifted.*DriftDetected was raised", edits=ALWAYS_DRIFTED),
        Failing("", r"100\.0% of \d+ flights were flagged.*OutlierRateHigh was raised", edits=ALWAYS_OUTLIERS),
    ],
    "anomaly_detection/drift_raises_alert": [
        Failing(
            "", "judged as not drifted.*was not delivered", edits=NEVER_DRIFTED, constants={"DEADLINE_SECONDS": 3.0}
        ),
        Failing("", "had 0 windows of drifted traffic judged", edits=NO_COPIES, constants=FEWER_ROUNDS),
        Failing(
            "",
            "judged as drifted.*alert was not delivered",
            change=with_nothing_delivered,
            constants={"DEADLINE_SECONDS": 1.0},
        ),
    ],
    "anomaly_detection/outliers_flagged": [
        Failing("", r"Of 150 corrupted flights 0\.0% were flagged", edits=NEVER_OUTLIERS),
        Failing("", r"of 300 others (9\d|100)\.\d%", edits=COLUMNS_REVERSED),
        Failing("", "the detectors looked at 0", edits=NO_COPIES, change=with_scrapes_waited_for(6.0)),
    ],
    "explainability/explains_the_served_model": [
        Failing("", r"effect \(correlation at least -", edits=EXPLAINED_IN_REVERSE, constants=FEWER_FLIGHTS),
        Failing(
            "", r"permutation importance \(correlation (-|0\.[0-7])", edits=EXPLAINED_ALL_ALIKE, constants=FEWER_FLIGHTS
        ),
        Failing(
            "",
            r"effect \(correlation at least (-|0\.[0-3])",
            edits=EXPLAINED_WITH_NEIGHBOURS_SWAPPED,
            constants=FEWER_FLIGHTS,
        ),
        Failing(
            "",
            r"add up to its predictions within [1-9]\.\de-0[12]",
            edits=EXPLAINED_ANOTHER_MODEL,
            constants=FEWER_FLIGHTS,
        ),
    ],
    "model_metrics/slo_alert_fires": [
        Failing(
            "",
            r"ErrorBudgetBurnsFast was not delivered as firing; ServerDown was not delivered as firing",
            change=without_an_outage,
            constants={"FIRING_SECONDS": 3.0, "RESOLVED_SECONDS": 0.1},
        ),
        Failing("", "ErrorBudgetBurnsFast did not resolve", constants={"RESOLVED_SECONDS": 0.1}),
        Failing(
            "",
            "ServerDown was delivered before the outage",
            change=after_another_outage,
            constants={"QUIET_SECONDS": 3600.0},
        ),
    ],
    "explainability/explanation_native": [
        Failing("explains_all_alike", "the same for all"),
        Failing("explains_in_reverse", r"correlation of -?0\.[0-4]"),
        Failing("explains_in_words", "explanation cannot be read|no such numbers"),
    ],
    "deployment_focus/web_app_beside_model": [
        Failing("page_is_missing", "status: 404"),
        Failing("page_without_labels", r"inputs without label: \['carrier', .*'visib'\]"),
        Failing("page_without_a_feature", r"inputs without label: \['hour'\]"),
        Failing("page_loads_from_elsewhere", "from elsewhere: .*elsewhere.invalid"),
        Failing("page_posts_nowhere", "form: /nowhere answered 404"),
    ],
    "batch/batch_equals_online": [
        Failing("offline_is_off", r"differ by at most 0\.001"),
        Failing("offline_loses_a_row", "wrote 9999 probabilities for 10000 rows"),
        Failing(
            "offline_ends_with_an_error", "ended with exit code 1 when it scored offline: the offline path is broken"
        ),
    ],
    "batch/requests_are_batched": [
        Failing("batches_nothing", "64 of 64 .* about 1 rows"),
        Failing("batches_mix_answers_up", r"\d of 64 simultaneous"),
    ],
    "deployment_time/time_to_first_prediction": [
        Failing("starts_slowly", r"came \d(\.\d)? s after", constants={"CEILING_SECONDS": 1.0}),
    ],
    "interoperability/open_inference_protocol": [
        Failing("v2_has_other_names", "not so: model metadata, flat data, nested data"),
        Failing("v2_takes_any_shape", "not so: 11 columns are 4xx, shape unlike data"),
        Failing("v2_knows_every_model", "not so: unknown model is 404"),
        Failing("v2_is_wrong", "not so: flat data, nested data"),
    ],
    "market/licence_and_maintenance": [
        Failing("", "is MIT; .*not as it should be: licence", change=with_facts(licence="Apache-2.0")),
        Failing("", "not as it should be: licence, approved", change=with_facts(licence="BUSL-1.1")),
        Failing("", "is none stated", change=with_a_distribution_that_states_nothing),
        Failing("", "not as it should be: recent release", change=with_an_old_release),
        Failing("", "not as it should be: expired facts", change=with_an_expired_fact),
    ],
    "cost/cpu_per_million": [
        Failing("burns_cpu", "take [23].* CPU hours", constants={"WARM_UP": 1, "REQUESTS": 50, "ROUNDS": 1}),
    ],
}


def judged(criterion: Criterion, deployment: LocalDeployment) -> criteria.Finding:
    """The criterion's finding, which must be fit to be written as evidence."""
    finding = criteria.answer(criterion, deployment)
    json.dumps([finding.observed, finding.expected], allow_nan=False)
    assert re.fullmatch(r"[A-Z\d].*[.)]", finding.message, re.DOTALL), finding.message
    return finding


@pytest.mark.parametrize("name", CRITERIA)
def test_passes_on_the_healthy_toy(name: str, healthy: LocalDeployment) -> None:
    finding = judged(CRITERIA[name], healthy)
    assert finding.outcome is Outcome.PASS, finding.message
    assert finding.add_on is None


def failing(*, broken: bool) -> pytest.MarkDecorator:
    """The cases in which the toy itself is broken, or those in which the healthy one is made to look so."""
    cases = [(name, case) for name, cases in FAILING.items() for case in cases]
    return pytest.mark.parametrize(
        ("name", "case"),
        [
            pytest.param(name, case, id=f"{name}: {case.fault or case.says}")
            for name, case in cases
            if bool(case.fault or case.edits) is broken
        ],
    )


@failing(broken=True)
def test_fails_on_a_broken_toy(name: str, case: Failing, deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    criterion = CRITERIA[name]
    beside = COMPANIONS & set(criterion.uses)
    watched = bool(beside) or criterion.group == "model_metrics"
    must_fail(criterion, case, deploy(case.fault, case.edits, watched=watched, beside=beside), monkeypatch)


@failing(broken=False)
def test_fails_on_a_changed_view(
    name: str, case: Failing, healthy: LocalDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    must_fail(CRITERIA[name], case, healthy, monkeypatch)


def must_fail(
    criterion: Criterion, case: Failing, deployment: LocalDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for constant, value in case.constants.items():
        module, _, attribute = constant.rpartition(".")
        owner = criterion.check.__globals__
        if module:
            monkeypatch.setattr(owner[module], attribute, value)
        else:
            monkeypatch.setitem(owner, constant, value)
    if case.change:
        case.change(deployment)
    finding = judged(criterion, deployment)
    assert finding.outcome is Outcome.FAIL, finding.message
    assert re.search(case.says, finding.message, re.IGNORECASE), finding.message


@pytest.mark.parametrize(("name", "need"), [(name, need) for name, one in CRITERIA.items() for need in one.needs])
def test_is_unsupported_where_its_need_is_declared_absent(name: str, need: str, healthy: LocalDeployment) -> None:
    absent = Absent(none="The toy was told so.", source="https://docs.python.org/3/")
    file = healthy.platform.file
    capabilities = file.capabilities.model_copy(update={need: absent})
    healthy.platform = replace(healthy.platform, file=file.model_copy(update={"capabilities": capabilities}))
    finding = judged(CRITERIA[name], healthy)
    assert (finding.outcome, finding.message) == (Outcome.UNSUPPORTED, absent.none)


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the Apache-2.0 libraries run on Python 3.11 only")
def test_companions_under_the_other_licence_pass_as_well(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last releases under Apache-2.0: whoever copies the folders has a free way out."""
    monkeypatch.setenv(LICENCE_VARIABLE, "apache-2.0")
    deployment = deploy("", watched=True, beside=COMPANIONS)
    for name in deployment.companions:
        [info] = deployment.prometheus.first(deployment.labelled(f"{name}_info", name), deployment.scrape_seconds)
        assert info.labels["licence"].startswith("Apache"), info.labels
    for criterion in CRITERIA.values():
        if set(criterion.uses) & set(deployment.companions):
            finding = judged(criterion, deployment)
            assert finding.outcome is Outcome.PASS, f"{criterion.id}: {finding.message}"


@pytest.mark.parametrize(("name", "part"), [(name, part) for name, one in CRITERIA.items() for part in one.uses])
def test_is_not_run_without_what_it_uses(name: str, part: str, healthy: LocalDeployment) -> None:
    if part == "prometheus":
        healthy.prometheus, remedy = None, "install the Debian package prometheus"
    elif part == "alerts":
        healthy.read_deliveries, remedy = lambda: None, "install the Debian package prometheus"
    else:
        healthy.companions = {other: ports for other, ports in healthy.companions.items() if other != part}
        remedy = f"monitoring/{part}"
    finding = judged(CRITERIA[name], healthy)
    assert finding.outcome is Outcome.NOT_RUN
    assert f"No {part} beside this deployment" in finding.message
    assert remedy in finding.message


def test_what_only_the_gateway_refuses_is_an_add_on(deploy: Deploy) -> None:
    finding = judged(CRITERIA["serving/bad_input_refused"], deploy("accepts_2_mib"))
    assert (finding.outcome, finding.add_on) == (Outcome.PASS, "gateway"), finding.message
    assert finding.observed["2 MiB"] == "200, gateway 413"
    assert "the gateway alone 2 MiB" in finding.message


def test_a_case_that_a_protocol_cannot_express_is_shown_as_skipped(healthy: LocalDeployment) -> None:
    class Client:
        """Writes whole numbers without a point, so that the check finds nothing to replace."""

        decode, rows = staticmethod(healthy.client.decode), staticmethod(healthy.client.rows)

        @staticmethod
        def encode(rows: np.ndarray) -> bytes:
            return original(rows).replace(b"31337.0", b"31337")

    original, healthy.client = healthy.client.encode, Client()
    finding = judged(CRITERIA["serving/bad_input_refused"], healthy)
    assert finding.outcome is Outcome.PASS
    assert finding.observed["text in a row"].startswith("skipped")


@pytest.mark.parametrize(
    ("licence", "metadata"),
    [
        ("Apache-2.0", {"License": ["Apache License 2.0"]}),
        ("Apache-2.0", {"License": ["Copyright\n Apache License\n Version 2.0"], "Classifier": ["Topic :: Software"]}),
        ("Apache-2.0", {"Classifier": ["License :: OSI Approved :: Apache Software License"], "License": ["UNKNOWN"]}),
        ("BSD-3-Clause", {"License-Expression": ["BSD-3-Clause"], "License": ["nonsense"]}),
    ],
)
def test_a_licence_is_recognised_in_each_spelling(
    licence: str, metadata: dict[str, list[str]], healthy: LocalDeployment
) -> None:
    with_facts(licence=licence)(healthy)
    healthy.distribution = lambda: {"Version": ["1"], **metadata}  # type: ignore[method-assign]
    finding = judged(CRITERIA["market/licence_and_maintenance"], healthy)
    assert finding.outcome is Outcome.PASS, finding.message


def test_every_criterion_is_shown_failing() -> None:
    assert sorted(CRITERIA) == sorted(name for name, cases in FAILING.items() if cases)


@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=lambda one: one.id)
def test_documentation_is_complete(criterion: Criterion) -> None:
    assert criterion.question.endswith("?")
    for section in SECTIONS:
        assert len(criterion.sections[section]) > 20, section
    assert set(criterion.needs) <= set(Capabilities.model_fields)


def test_every_fault_of_the_toy_is_used() -> None:
    faults = toy.SOURCE / "deployments" / toy.SLUG / "serve" / "faults.py"
    declared = re.findall(r'^    "(\w+)":', faults.read_text(), re.MULTILINE)
    mentioned = "".join(path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py"))
    assert [fault for fault in declared if f'"{fault}"' not in mentioned] == []
