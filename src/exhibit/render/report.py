"""The report: one HTML page that holds everything it shows and asks nothing of the network.

Messages come from servers, so everything is escaped on its way into the page, and a content security policy lets no
script run but the page's own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import segno
from markupsafe import Markup, escape

from exhibit import scorecard
from exhibit.criteria import Criterion, Outcome
from exhibit.errors import ExhibitError
from exhibit.evidence import Evidence, reproduce
from exhibit.render import exhibits
from exhibit.scorecard import Cell, Grade, Group, Option, Scorecard
from exhibit.workspace import Workspace, write_atomically

FILE = "report.html"
TEMPLATES = Path(__file__).parent / "templates"
MAX_VALUE_LENGTH = 400
"""Characters of an observed or expected value that are shown; the evidence file holds the rest."""

GRADE_SYMBOLS = {Grade.NATIVE: "●", Grade.ADD_ON: "◐", Grade.NO: "✘", Grade.CITED: "§", Grade.NOT_RUN: "○"}
GRADE_MEANINGS = {
    Grade.NATIVE: "the platform did it, with a handler such as its users write (it checks its input, say)",
    Grade.ADD_ON: "it works with the named part of this repository: the gateway, or a file that adds what it lacks",
    Grade.NO: "it was shown failing, or the platform declares that it cannot, with a reason",
    Grade.CITED: "the vendor claims it; the link is dated, nothing was run",
    Grade.NOT_RUN: "nothing has been shown yet",
}
OUTCOME_SYMBOLS = {
    Outcome.PASS: "✔",
    Outcome.FAIL: "✘",
    Outcome.UNSUPPORTED: "–",
    Outcome.ERROR: "!",
    Outcome.NOT_RUN: "○",
}


@dataclass(frozen=True)
class Item:
    """One criterion of a panel: what its evidence says, or that there is none."""

    criterion: Criterion
    evidence: Evidence | None
    stale: str | None
    values: tuple[tuple[str, str, str], ...]
    """(name, observed, expected)"""
    command: str


@dataclass(frozen=True)
class Panel:
    """What a cell of the matrix opens."""

    id: str
    option: Option
    group: Group
    cell: Cell
    items: tuple[Item, ...]

    @property
    def stale(self) -> bool:
        return any(item.stale for item in self.items)


def write(workspace: Workspace, path: Path) -> None:
    """Writes the report on the checkout's evidence to `path`.

    Raises:
        ContractError: a platform folder or the study's file breaks its schema.
        ExhibitError: pyproject.toml names no repository.
    """
    write_atomically(path, page(workspace))


def page(workspace: Workspace) -> str:
    """The report as HTML; the same evidence gives the same page."""
    card, project = scorecard.build(workspace), _project(workspace)
    panels = {(panel.option.slug, name): panel for name in card.groups for panel in _panels(card, name)}
    shown = exhibits.gather(workspace, card)
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(moment=exhibits.moment, with_code=_with_code, study_mark=_study_mark)
    return environment.get_template("report.html.j2").render(
        card=card,
        panels=panels,
        exhibits=shown,
        comparisons=exhibits.compare(card, shown),
        asked_of=_by_group(card),
        counts=_counts(card),
        sentence=project["description"],
        repository=project["urls"]["Repository"],
        qr_code=_qr_code(project["urls"]["Repository"]),
        grades=[(grade, GRADE_SYMBOLS[grade], GRADE_MEANINGS[grade]) for grade in Grade],
        grade_symbols=GRADE_SYMBOLS,
        outcome_symbols=OUTCOME_SYMBOLS,
        script=Markup(script),
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        occasions=exhibits.occasions(shown),
    )


def _project(workspace: Workspace) -> dict[str, Any]:
    project = tomllib.loads((workspace.root / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    if "description" not in project or "Repository" not in project.get("urls", {}):
        raise ExhibitError(
            "pyproject.toml",
            "no description or no repository",
            "project.description and project.urls.Repository",
            "Add them: the report shows both.",
        )
    return dict(project)


def _by_group(card: Scorecard) -> dict[str, list[Criterion]]:
    return {name: [asked for asked in card.criteria.values() if asked.group == name] for name in card.groups}


def _panels(card: Scorecard, name: str) -> Iterator[Panel]:
    """The panels of a group: of each option that is built, if anything is asked in the group."""
    asked = _by_group(card)[name]
    for option in card.options:
        if option.platform and asked:
            cell = card.cells[option.slug, name]
            items = tuple(item for criterion in asked for item in _items(card, option, cell, criterion))
            yield Panel(f"evidence-{option.slug}-{name}", option, card.groups[name], cell, items)


def _items(card: Scorecard, option: Option, cell: Cell, criterion: Criterion) -> Iterator[Item]:
    found = [one for one in cell.evidence if one.criterion == criterion.id]
    for one in found:
        stale = card.stale.get((one.platform, one.target, one.criterion))
        yield Item(criterion, one, stale, _values(one.observed, one.expected), one.reproduce)
    if not found:
        target = "kind" if criterion.requires else "local"
        yield Item(criterion, None, None, (), reproduce(option.slug, target, criterion.id))


def _values(observed: Mapping[str, Any], expected: Mapping[str, Any]) -> tuple[tuple[str, str, str], ...]:
    def shown(side: Mapping[str, Any], name: str) -> str:
        return _value(side[name]) if name in side else "–"

    names = {**observed, **expected}
    return tuple((name.replace("_", " "), shown(observed, name), shown(expected, name)) for name in names)


def _value(value: Any) -> str:
    if isinstance(value, Mapping) and value:
        return "\n".join(f"{key}: {_value(inner)}" for key, inner in value.items())
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[:MAX_VALUE_LENGTH]}…"


def _counts(card: Scorecard) -> dict[str, Any]:
    found = [one for cell in card.cells.values() for one in cell.evidence]
    shown = [cell for cell in card.cells.values() if cell.grade is not Grade.NOT_RUN]
    return {
        "built": sum(option.platform is not None for option in card.options),
        "outcomes": Counter(one.outcome for one in found),
        "grades": Counter(cell.grade for cell in card.cells.values()),
        "open": sum(cell.study.startswith("❓") for cell in card.cells.values()),
        "open_answered": sum(cell.study.startswith("❓") for cell in shown),
        "ticks_shown_failing": sum(cell.study.startswith("✔") and cell.grade is Grade.NO for cell in shown),
        "stale": len(card.stale),
    }


def _with_code(text: str) -> Markup:
    """`text`, escaped, with what stands between backticks set as code."""
    return Markup(re.sub(r"`+([^`]+)`+", r"<code>\1</code>", str(escape(text))))


def _study_mark(mark: str) -> Markup:
    """The study's mark, upright; its ❓, for which many machines have no letter, as a question mark."""
    symbol, words = (mark[0], mark[1:]) if mark[:1] in ("✔", "❓") else ("", mark)
    shown = {"✔": "✔", "❓": '?<span class="unseen"> (left open)</span>', "": ""}[symbol]
    return Markup('<span class="mark">{}</span>{}').format(Markup(shown), words) if symbol else escape(words)


def _qr_code(url: str) -> Markup:
    drawn = segno.make(url, error="m", micro=False).svg_inline(title=f"QR code: {url}", border=2, omitsize=True)
    return Markup(drawn.replace("<svg ", '<svg role="img" ', 1))
