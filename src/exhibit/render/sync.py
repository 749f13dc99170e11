"""Everything that mentions a platform or a criterion outside its own folder or file is generated here, and committed.

A test generates it again and compares; ``make sync`` writes it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from exhibit import prometheus, scorecard, versions
from exhibit.contract import Absent, Platform, Present
from exhibit.criteria import SECTIONS, Outcome
from exhibit.errors import ExhibitError
from exhibit.evidence import Evidence
from exhibit.render import charts, dashboards
from exhibit.scorecard import Cell, Scorecard
from exhibit.workspace import Workspace, write_atomically

TEMPLATES = Path(__file__).parent / "templates"
_BLOCK = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- /generated -->)", re.DOTALL)
_SYMBOLS = {
    Outcome.PASS: "✔ pass",
    Outcome.FAIL: "✘ fail",
    Outcome.UNSUPPORTED: "– unsupported",
    Outcome.ERROR: "! error",
    Outcome.NOT_RUN: "○ not run",
}


def scorecard_path(workspace: Workspace) -> Path:
    """Where SCORECARD.md lies."""
    return workspace.root / "scorecard" / "SCORECARD.md"


def render(workspace: Workspace) -> dict[Path, str]:
    """The text each generated file should have.

    Raises:
        ContractError, ExhibitError: see `scorecard.build`; or a file lacks its marked block.
    """
    card = scorecard.build(workspace)
    templates = _templates()
    texts = {
        scorecard_path(workspace): templates.get_template("scorecard.md.j2").render(card=card),
        workspace.root / "docs" / "criteria.md": templates.get_template("criteria.md.j2").render(card=card),
        workspace.root / "ci" / "platforms.gitlab-ci.yml": templates.get_template("platforms.gitlab-ci.yml.j2").render(
            card=card, versions=versions.load(workspace)
        ),
    }
    monitoring = workspace.root / "monitoring"
    alerts = monitoring / "prometheus" / "alerts.yaml.j2"
    texts[monitoring / "prometheus" / "rules" / "alerts.yaml"] = prometheus.render_alerts(alerts)
    for name, dashboard in dashboards.render().items():
        texts[monitoring / "grafana" / "dashboards" / name] = dashboard
    texts |= charts.render(workspace, texts)
    readme = workspace.root / "README.md"
    texts[readme] = _fill(workspace, readme, {"scorecard": templates.get_template("table.md.j2").render(card=card)})
    for option in card.options:
        if option.platform:
            path = option.platform.folder / "README.md"
            facts = templates.get_template("facts.md.j2").render(platform=option.platform, pin=_pin(option.platform))
            texts[path] = _fill(workspace, path, {"facts": facts})
    return texts


def write(workspace: Workspace) -> None:
    """Writes the generated files that are out of date."""
    for path, text in render(workspace).items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_atomically(path, text)


def outdated(workspace: Workspace) -> list[Path]:
    """The generated files whose text is not what would be generated now."""
    return [
        path
        for path, text in render(workspace).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown and YAML, not HTML
    )
    environment.filters.update(cell=_cell, outcome=_outcome, line=_one_line)
    environment.globals.update(
        sections=SECTIONS, absent=lambda value: isinstance(value, Absent), tally=_tally, asked=_asked, summary=_summary
    )
    return environment


def _fill(workspace: Workspace, path: Path, blocks: Mapping[str, str]) -> str:
    text = path.read_text(encoding="utf-8")
    names = {match["name"] for match in _BLOCK.finditer(text)}
    for name in blocks:
        if name not in names:
            raise ExhibitError(
                workspace.relative(path),
                f"no block '<!-- generated: {name} -->'",
                "one to be filled by make sync",
                f"Add the lines '<!-- generated: {name} -->' and '<!-- /generated -->'.",
            )
    return _BLOCK.sub(lambda match: match[1] + blocks.get(match["name"], "") + match[3], text)


def _cell(cell: Cell, card: Scorecard) -> str:
    """A cell of the Markdown scorecard; what it rests on may be stale."""
    stale = any((e.platform, e.target, e.criterion) in card.stale for e in cell.evidence)
    counts = f" {cell.passed}/{cell.answered}" if cell.answered else ""
    reason = f": {_one_line(cell.reason)}" if cell.reason else ""
    study = f" · study: {_one_line(cell.study)}" if cell.study else ""
    return f"**{cell.grade}**{' (stale)' if stale else ''}{counts}{reason}{study}"


def _outcome(found: Evidence, card: Scorecard) -> str:
    stale = " (stale)" if (found.platform, found.target, found.criterion) in card.stale else ""
    return f"{_SYMBOLS[found.outcome]}{_helped(found)}{stale}"


def _asked(card: Scorecard, group: str) -> bool:
    return any(criterion.group == group for criterion in card.criteria.values())


def _helped(found: Evidence) -> str:
    return f" (add-on: {found.add_on})" if found.add_on and found.outcome is Outcome.PASS else ""


def _tally(card: Scorecard, slug: str) -> str:
    """How many criteria ended how, in words."""
    counts = Counter(e.outcome for (option, _), cell in card.cells.items() if option == slug for e in cell.evidence)
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])


def _summary(capability: Present) -> str:
    """The one value of a capability that tells a reader most (its path, its model, or its command), and who adds it."""
    first = next(iter(capability.model_dump(exclude={"added_by"}).values()))
    value = " ".join(first) if isinstance(first, list) else str(first)
    return f"`{value}`" + (f", added by serve/{capability.added_by}" if capability.added_by else "")


def _one_line(text: Any) -> str:
    """`text` as it may stand in a Markdown table."""
    return " ".join(str(text).replace("|", "\\|").split())


def _pin(platform: Platform) -> str:
    """The locked version of the platform's distribution."""
    found = re.search(rf"^{re.escape(platform.file.distribution)}==(\S+)", platform.lock.read_text(), re.MULTILINE)
    return found[1] if found else "not locked"
