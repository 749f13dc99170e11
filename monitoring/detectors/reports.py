"""A survey as JSON or as one HTML page that loads nothing and runs nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from errors import DetectorsError
from judgements import Judged
from survey import Column, Report, Span

_STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.45 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:.5rem 0 2rem;display:block;overflow-x:auto}
th,td{padding:.25rem .8rem;text-align:right;border-bottom:1px solid #8885;white-space:nowrap}
th:first-child,td:first-child,th:last-child,td:last-child{text-align:left}
svg{vertical-align:middle}
.file{fill:#2f6fb0}.reference{fill:#9aa0a6}.over{fill:#c2410c}.limit{stroke:currentColor}
.drift{color:#c2410c;font-weight:600}
"""
_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
"""


def summary(report: Report) -> str:
    """One sentence."""
    judged = [span.judged for span in report.spans if span.judged]
    drifted = sum(one.drifted for one in judged)
    return (
        f"{report.rows:,} records, {_share(report.outliers, report.complete)} of the complete ones outliers; "
        f"{drifted} of {len(judged)} judged windows drifted."
    )


def as_json(report: Report) -> str:
    """The report as a JSON object; a value that does not exist is null."""
    document = {
        "file": report.file,
        "records": report.rows,
        "complete_records": report.complete,
        "outliers": report.outliers,
        "detectors": dict(report.fitted.info),
        "window_rows": report.fitted.window_rows,
        "least_rows": report.least_rows,
        "windows": [_window(span) for span in report.spans],
        "columns": [_column(column) for column in report.columns],
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _window(span: Span) -> dict[str, Any]:
    judged = span.judged
    return {
        "name": span.name,
        "records": span.rows,
        "complete_records": span.complete,
        "outliers": span.outliers,
        "sampled": span.sample.size,
        "judged": judged is not None,
        "ratio": judged.ratio if judged else None,
        "drifted": judged.drifted if judged else None,
        "furthest": judged.furthest if judged else None,
        "distances": judged.distances if judged else None,
        "limits": judged.limits if judged else None,
        "p_values": judged.p_values if judged else None,
    }


def _column(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "values": column.count,
        "missing": column.missing,
        "out_of_range": column.out_of_range,
        "mean": column.mean,
        "reference_mean": column.reference_mean,
        "bounds": list(column.bounds),
        "counts": list(column.counts),
        "reference_counts": list(column.reference_counts),
    }


def as_html(report: Report) -> str:
    """The report as one page; everything that came from the file is escaped."""
    info = {name: escape(value) for name, value in report.fitted.info.items()}
    title = f"Detectors: {escape(report.file)}"
    judged = [span for span in report.spans if span.judged]
    furthest = max(judged, key=lambda span: span.judged.ratio if span.judged else 0.0, default=None)
    parts = [
        _HEAD,
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>",
        f"<p>{escape(summary(report))}</p>",
        f"<p>By {info['library']} {info['version']} ({info['licence']}), calibration {info['calibration']}. Of each "
        f"window a uniform sample of at most {report.fitted.window_rows} complete records was compared with the "
        f"reference; a window with fewer than {report.least_rows} is not judged.</p>",
        "<h2>Windows</h2>",
        _table(
            ("window", "records", "incomplete", "outliers", "", "largest distance / limit", "", "of", "verdict"),
            [_window_cells(span) for span in report.spans],
        ),
    ]
    if furthest and furthest.judged:
        parts += [
            f"<h2>Distances of {escape(furthest.name)}, the window furthest away</h2>",
            _table(("feature", "distance", "limit", "p-value", "distance / limit"), _distance_cells(furthest.judged)),
        ]
    parts += [
        "<h2>Values</h2><p>Grey: the reference. Blue: the file. Each bar is a share of the values; the last one is of "
        "those above all bounds.</p>",
        _table(
            ("column", "values", "missing", "out of range", "mean", "reference's mean", "histogram"),
            [_column_cells(column) for column in report.columns],
        ),
        "</html>\n",
    ]
    return "\n".join(parts)


def _window_cells(span: Span) -> list[str]:
    outliers = span.outliers / span.complete if span.complete else 0.0
    cells = [
        escape(span.name),
        f"{span.rows:,}",
        f"{span.rows - span.complete:,}",
        _share(span.outliers, span.complete),
        _bar(outliers, 1.0, "file"),
    ]
    if span.judged is None:
        return [*cells, "", "", "", "too few records"]
    judged = span.judged
    return [
        *cells,
        f"{judged.ratio:.2f}",
        _bar(judged.ratio, 2.0, "over" if judged.drifted else "file", limit=1.0),
        escape(judged.furthest),
        '<span class="drift">drift</span>' if judged.drifted else "quiet",
    ]


def _distance_cells(judged: Judged) -> list[list[str]]:
    ratios = {name: distance / judged.limits[name] for name, distance in judged.distances.items()}
    return [
        [
            escape(name),
            f"{judged.distances[name]:.3f}",
            f"{judged.limits[name]:.3f}",
            f"{judged.p_values[name]:.2g}",
            _bar(ratios[name], 2.0, "over" if ratios[name] > 1 else "file", limit=1.0),
        ]
        for name in sorted(ratios, key=lambda name: -ratios[name])
    ]


def _column_cells(column: Column) -> list[str]:
    return [
        escape(column.name),
        f"{column.count:,}",
        f"{column.missing:,}",
        f"{column.out_of_range:,}",
        "" if column.mean is None else f"{column.mean:.4g}",
        f"{column.reference_mean:.4g}",
        _histogram(column),
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "0.0%"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the cells are HTML already."""
    head = "".join(f"<th>{escape(name)}" for name in heads)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}" for cell in row) for row in rows)
    return f"<table><thead><tr>{head}<tbody>\n{body}\n</table>"


def _bar(value: float, most: float, kind: str, limit: float | None = None) -> str:
    """A bar of `value` on a scale that ends at `most`; the number stands beside it as text."""
    width = 120
    line = f'<path class="limit" d="M{limit / most * width:.1f} 0v12"/>' if limit else ""
    filled = min(value / most, 1.0) * width
    return (
        f'<svg width="{width}" height="12" aria-hidden="true">'
        f'<rect class="{kind}" y="2" width="{filled:.1f}" height="8"/>{line}</svg>'
    )


def _histogram(column: Column) -> str:
    """Pairs of bars, reference and file, each as high as its bucket's share of the values."""
    step, height = 18, 36
    shares = [[count / max(sum(counts), 1) for count in counts] for counts in (column.reference_counts, column.counts)]
    most = max(max(one) for one in shares) or 1.0
    names = [f"up to {bound:g}" for bound in column.bounds] + [f"above {column.bounds[-1]:g}"]
    bars = []
    for index, name in enumerate(names):
        for offset, kind, share in ((1, "reference", shares[0][index]), (9, "file", shares[1][index])):
            tall = share / most * height
            bars.append(
                f'<rect class="{kind}" x="{index * step + offset}" y="{height - tall:.1f}" width="7" '
                f'height="{tall:.1f}">'
                f"<title>{escape(name)}: {share:.1%} ({kind})</title></rect>"
            )
    words = f"Histogram of {escape(column.name)}"
    return f'<svg width="{len(names) * step}" height="{height}" role="img" aria-label="{words}">{"".join(bars)}</svg>'


def write(path: Path, text: str) -> None:
    """Writes `path` as a whole: until the new report is complete the old one stays.

    Raises:
        DetectorsError: the folder cannot be written to, or the disk is full.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            unfinished.write_text(text, encoding="utf-8")
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise DetectorsError(path, str(error.strerror), "a file that can be written", "Give another --out.") from error
