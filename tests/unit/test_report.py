"""The report holds every cell, loads nothing from anywhere, and shows what servers said without obeying it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from exhibit import digests
from exhibit.errors import ExhibitError
from exhibit.render import report
from exhibit.workspace import Workspace, write_json

SCRIPT = "<script>alert('owned')</script>"
FRESH, STALE = "serving/answers", "market/licence"

STUDY = """
options: {toy: Toy, absent: Absent Option}
groups:
  serving: {title: Serving, question: Does it answer?, study: {toy: ❓, absent: ✔ (with limits)}}
  market: {title: Market, question: Who maintains it?}
  cost: {title: Cost, question: What does it cost?}
"""
PLATFORM = """
title: Toy
summary: A platform that only this test knows.
homepage: https://toy.example
source: https://toy.example/source
distribution: toy
artifact: onnx
local: {command: [toy], ready_seconds: 1, stop_seconds: 1}
predict: {path: /predict, content_type: application/json}
capabilities:
  native_metrics: {none: none here, source: "https://toy.example/1"}
  web_app: {none: none here, source: "https://toy.example/2"}
  open_inference: {none: none here, source: "https://toy.example/3"}
  offline_batch: {none: none here, source: "https://toy.example/4"}
  request_batching: {none: none here, source: "https://toy.example/5"}
  native_explanation: {none: none here, source: "https://toy.example/6"}
  operator: {none: none here, source: "https://toy.example/7"}
"""
FACTS = """
licence: Apache-2.0
newest_release: {version: 1.0.0, date: 2026-01-01}
maintenance: Well.
facts: [{statement: It is a toy., url: "https://toy.example", read: 2026-01-01, expires: 2027-01-01}]
"""
CRITERION = (
    '"""{question}\n\nWhy: Since.\nHow: By ``asking``.\nPass: It does.\nFix: Mend it.\n"""\n\n\ndef check(d): ...\n'
)
FILES = {
    "pyproject.toml": '[project]\ndescription = "A sentence"\n[project.urls]\nRepository = "https://code.example/exhibit"\n',
    "scorecard/study.yaml": STUDY,
    "scorecard/criteria/serving/answers.py": CRITERION.format(question="Does it answer rightly?"),
    "scorecard/criteria/serving/refuses.py": CRITERION.format(question="Does it refuse?"),
    "scorecard/criteria/market/licence.py": CRITERION.format(question="Is its licence known?"),
    "model/formats.yaml": "onnx: {path: model.onnx, title: ONNX, why: All read it.}\n",
    "model/golden/golden.json": "{}",
    "deployments/toy/platform.yaml": PLATFORM,
    "deployments/toy/facts.yaml": FACTS,
    **{f"deployments/toy/{name}": "" for name in ("client.py", "requirements.in", "requirements.txt", "README.md")},
    "deployments/toy/serve/app.py": "",
}
TRAFFIC = {
    "scenario": "steady",
    "title": "Steady & calm",
    "sent": 5,
    "right": 3,
    "wrong": 1,
    "dropped": 2,
    "failures": {"status 503": 1},
    "latencies_ms": [1.5, 2.5, 900.0],
    "seconds": 1.0,
}
HOSTILE = f"{SCRIPT} $\\frac{{$ url(https://toy.example)"
"""For a name that a service gave: an element, a formula that is none, an address."""
LINE = {"seconds": [0.0, 1.0, 2.0], "values": [0.5, 1.5, 0.25]}
WATCHED = {
    "sent": [["steady", "january_march", 0.0, 1.0], ["drifted", "june_july", 1.0, 2.0], ["odd", HOSTILE, 2.0, 2.5]],
    "windows": [{"seconds": 2.0, "rows": 150, "ratio": 1.2, "furthest": HOSTILE, "drifted": True}],
    "outliers": {"seconds": [1.0, 2.0], "shares": [0.02, 0.4]},
    "alerts": [[2.5, "DriftDetected", "firing"], [3.0, HOSTILE, "firing"]],
    "signals": [
        {"title": "Drift by feature", "unit": "none", "kind": "timeseries", "limit": 1, "left_out": 7,
         "series": [{"legend": HOSTILE, **LINE}, {"legend": "_dewp", **LINE}]},
        {"title": f"Up {SCRIPT}", "unit": HOSTILE, "kind": "timeseries", "limit": None, "left_out": 0,
         "series": [{"legend": legend, "seconds": [1.0, 2.0], "values": [0.0, 1.0]} for legend in (HOSTILE, "b")]},
    ],
    "explanation": {
        "features": [HOSTILE, "temp = 19.43210"], "values": [0.25, -0.05], "base_value": 0.2, "prediction": 0.4,
        "anchor": {"conditions": [HOSTILE], "precision": 0.97, "coverage": 0.02}, "seconds": 0.31,
    },
    "weeks": {
        "limit": 0.65, "drop": None, "alarm_day": 9, "lead_days": None,
        "weeks": [{"first_day": 0, "last_day": 6, "auc": 0.7, "low": 0.6, "high": 0.8, "quiet": True, "drop": False}],
    },
}  # fmt: skip
"""What a run holds of the monitoring."""
RUN = {
    "platform": "toy", "target": "local", "finished_at": "2026-11-25T02:41:07+00:00", "seconds": 3.5,
    "host": {"cpus": 2, "memory_gib": 7.8, "system": "Linux x86_64", "python": "3.11.7"},
    "versions": {"platform": "1.0.0"},
    "start": {"listening_seconds": 0.5, "first_prediction_seconds": 0.75},
    "memory": [[0.0, 90.0], [0.25, 120.0], [0.5, 110.0]],
    "traffic": [TRAFFIC, {**TRAFFIC, "scenario": "dead", "right": 0, "latencies_ms": []}],
    "check_seconds": {}, **WATCHED,
}  # fmt: skip


class Page(HTMLParser):
    """What the tests ask of a page: its elements with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def values(self, attribute: str) -> Iterator[tuple[str, str]]:
        """(tag, value) of every element that has the attribute."""
        return ((tag, attributes[attribute]) for tag, attributes in self.elements if attribute in attributes)


def cell(html: str, option: str, group: str) -> str:
    """The HTML of one cell of the matrix."""
    found = re.search(rf'<td data-cell="{option} {group}".*?</td>', html, re.DOTALL)
    assert found, f"no cell of {option} and {group}"
    return found[0]


def panel(html: str, name: str) -> str:
    """The HTML of what a cell opens."""
    return html[html.index(f'<section id="{name}"') :].split("</section>")[0]


def add_evidence(workspace: Workspace, criterion: str, **fields: Any) -> None:
    versions = {
        "platform": "1.0.0",
        "model_sha256": digests.file_sha256(workspace.model / "golden/golden.json"),
        "folder_sha256": digests.folder_sha256(workspace.deployments / "toy"),
    }
    evidence = {
        "criterion": criterion, "platform": "toy", "target": "local", "outcome": "pass", "message": "It did, 3 of 3.",
        "observed": {"largest_difference": 1e-8}, "expected": {"largest_difference": 1e-5}, "add_on": None,
        "reproduce": f"make check-toy TARGET=local CRITERION={criterion}", "versions": versions,
        "log": ".work/toy/server.log",
    }  # fmt: skip
    write_json(workspace.evidence / "toy/local" / f"{criterion}.json", {**evidence, **fields})


def create(root: Path) -> Workspace:
    """A checkout with one platform that is built and one that is not, nothing run yet."""
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Workspace(root)


def run(workspace: Workspace) -> Workspace:
    """Leaves one fresh pass with a hostile message, one stale pass, and one criterion without evidence."""
    add_evidence(workspace, FRESH, message=f"It answered {SCRIPT}.", observed={SCRIPT: SCRIPT, "nested": {"rows": 3}})
    stale = {"platform": "1.0.0", "model_sha256": "0" * 64, "folder_sha256": "0" * 64}
    add_evidence(workspace, STALE, versions=stale)
    write_json(workspace.evidence / "toy/local/run.json", RUN)
    return workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return create(tmp_path)


@pytest.fixture
def ran(workspace: Workspace) -> Workspace:
    return run(workspace)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(report.page(run(create(tmp_path_factory.mktemp("checkout")))))


def test_every_option_has_a_cell_in_every_group(page: Page) -> None:
    cells = {value for _, value in page.values("data-cell")}
    assert cells == {f"{option} {group}" for option in ("toy", "absent") for group in ("serving", "market", "cost")}


def test_a_cell_opens_its_evidence(page: Page) -> None:
    assert 'popovertarget="evidence-toy-serving"' in cell(page.html, "toy", "serving")
    opened = panel(page.html, "evidence-toy-serving")
    for part in ("Does it answer rightly?", "pass", f"CRITERION={FRESH}", "1.0.0", ".work/toy/server.log", "rows: 3"):
        assert part in opened


def test_every_button_opens_a_panel_that_exists(page: Page) -> None:
    panels = {attributes["id"] for _, attributes in page.elements if "popover" in attributes}
    assert {value for _, value in page.values("popovertarget")} == panels


def test_a_criterion_without_evidence_says_how_to_get_it(page: Page) -> None:
    opened = panel(page.html, "evidence-toy-serving")
    assert "There is no evidence yet." in opened
    assert "make deploy-toy check-toy TARGET=local CRITERION=serving/refuses" in opened


def test_an_option_that_is_not_built_is_not_run(page: Page) -> None:
    for group in ("serving", "market", "cost"):
        text = Page(cell(page.html, "absent", group)).text
        assert "not run" in text
        assert "not built yet" in text


def test_the_study_stands_beside_the_grade(page: Page) -> None:
    assert "✔ (with limits)" in Page(cell(page.html, "absent", "serving")).text
    assert "? (left open)" in Page(cell(page.html, "toy", "serving")).text
    assert "study" not in cell(page.html, "toy", "cost")


def test_what_a_server_said_is_escaped(page: Page) -> None:
    assert SCRIPT not in page.html
    assert len(page.all("script")) == 1
    assert SCRIPT in page.text


def test_only_the_page_s_own_script_may_run(page: Page) -> None:
    policy = next(attributes["content"] for attributes in page.all("meta") if attributes.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[\w+/=]+';", policy)
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    assert not {tag for tag, _ in page.elements} & {
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "video",
        "audio",
        "base",
    }
    assert not list(page.values("src"))
    assert {tag for tag, value in page.values("href") if not value.startswith("#")} == {"a"}
    drawn = re.sub(r">[^<]*<", "><", page.html)  # what a service wrote is text, and loads nothing
    assert set(re.findall(r"url\((.)", drawn)) <= {"#"}
    assert "@import" not in page.html


def test_stale_evidence_is_warned_of(page: Page) -> None:
    assert "stale" in cell(page.html, "toy", "market")
    assert "Stale:</strong> deployments/toy has changed since" in panel(page.html, "evidence-toy-market")
    assert "stale" not in cell(page.html, "toy", "serving")


def test_every_picture_has_a_name_and_a_caption(page: Page) -> None:
    pictures = page.all("svg")
    assert all(picture.get("role") == "img" for picture in pictures)
    named = [picture["aria-label"] for picture in pictures if "aria-label" in picture]
    assert "Latency of Toy: Steady & calm" in named
    assert len(named) == len(page.all("figure")) == len(page.all("figcaption"))
    assert "<title>QR code: https://code.example/exhibit</title>" in page.html
    assert len(pictures) == len(named) + 1


def test_captions_tell_the_numbers(page: Page) -> None:
    text = page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert "Toy listened 0.5 s after its process was started and gave its first right prediction at 0.75 s." in text
    assert "5 requests sent: 3 right, 1 wrong, 2 dropped, 1 status 503. Of the right answers 50% within 2.5 ms" in text
    assert "No right answer, so no latency." in text
    assert "120 MiB at their peak (0.25 s into it)" in text


def test_pictures_stand_with_the_question_that_they_answer(page: Page) -> None:
    chapters = {}
    for chapter in re.split(r'<div class="chapter(?: single)?">', page.html)[1:]:
        title = re.search(r"<h[34]>(.*?)</h", chapter)
        assert title
        chapters[title[1]] = re.findall(r'<svg role="img" aria-label="(.*?)"', chapter.split("<details")[0])
    assert {name: len(pictures) for name, pictures in chapters.items()} == {
        "How it served": 4,
        "What was detected": 4,
        "Why it answered so": 1,
        "The model over the year": 1,
        "Serving": 2,
        "Watching": 2,
    }
    assert chapters["What was detected"][0] == "Drift of Toy&#39;s traffic"
    assert chapters["Watching"] == ["From the first drifted flight to DriftDetected", "Time to explain a flight"]


def test_the_panels_of_the_dashboard_are_shown_on_demand(page: Page) -> None:
    panels = page.html.split('<details class="chapter">')[1].split("</details>")[0]
    assert len(re.findall("<figure", panels)) == len(WATCHED["signals"])
    assert "2 panels" in panels


def test_a_run_that_was_not_watched_is_shown_all_the_same(ran: Workspace) -> None:
    write_json(ran.evidence / "toy/local/run.json", {key: value for key, value in RUN.items() if key not in WATCHED})
    page = Page(report.page(ran))
    assert "How it served" in page.text
    assert len(page.all("figure")) == 6
    for title in ("What was detected", "Why it answered so", "The model over the year", "Dashboard", "Watching"):
        assert title not in page.text


def test_cpu_time_is_compared_where_there_is_evidence(ran: Workspace) -> None:
    name = "CPU time for a million predictions"
    assert name not in report.page(ran)
    criterion = ran.criteria / "cost/cpu_per_million.py"
    criterion.parent.mkdir()
    criterion.write_text(CRITERION.format(question="What does a million cost?"))
    add_evidence(ran, "cost/cpu_per_million", observed={"cpu_hours_per_million": 0.31})
    assert f'aria-label="{name}"' in report.page(ran)


def test_ids_are_unique_and_references_are_kept(page: Page) -> None:
    ids = Counter(value for _, value in page.values("id"))
    assert [name for name, count in ids.items() if count > 1] == []
    referred = {value[1:] for _, value in page.values("href") if value.startswith("#")}
    referred |= set(re.findall(r"url\(#([^)]+)\)", page.html)) | {value for _, value in page.values("aria-labelledby")}
    assert referred <= set(ids)


def test_headers_of_tables_have_a_scope(page: Page) -> None:
    assert page.all("th")
    assert all(header.get("scope") in ("row", "col") for header in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))


def test_the_criteria_are_documented(page: Page) -> None:
    assert "<dt>Why</dt><dd>Since.</dd>" in page.html
    assert "By <code>asking</code>." in page.html


def test_same_evidence_gives_the_same_page(ran: Workspace) -> None:
    assert report.page(ran) == report.page(ran)


def test_before_the_first_run_there_is_a_page_too(workspace: Workspace) -> None:
    page = Page(report.page(workspace))
    assert "Nothing has been run yet" in page.text
    assert not page.all("figure")


def test_write_writes_one_small_file(ran: Workspace) -> None:
    path = ran.state / "report.html"
    report.write(ran, path)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert path.stat().st_size < 1_500_000


def test_a_project_without_a_repository_is_refused(ran: Workspace) -> None:
    (ran.root / "pyproject.toml").write_text('[project]\ndescription = "x"\n')
    with pytest.raises(ExhibitError, match=r"project\.urls\.Repository"):
        report.page(ran)
