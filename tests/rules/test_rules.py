"""Recording and alerting rules: valid, unit-tested by promtool, and the tests notice a wrong rule."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from exhibit.prometheus import PrometheusMissing, find_or_unpack

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "monitoring" / "prometheus"
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
