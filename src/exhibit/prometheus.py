"""Prometheus: where its binaries come from, its configuration and command line, and a client for its questions.

No process is started here. The server is always the real one: where none can be had, `PrometheusMissing` says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from exhibit import debian
from exhibit.debian import Package, PackageMissing
from exhibit.errors import ExhibitError
from exhibit.workspace import write_json

PACKAGE = Package("prometheus", (("prometheus",), ("promtool",)))
QUERY_SECONDS = 10
LEAST_SECONDS = 5
"""The shortest window of an alert: less would hold too few samples of a scrape each second to tell a rate."""
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class PrometheusError(ExhibitError):
    """Prometheus could not be asked, or its answer is not what was asked for."""


class PrometheusMissing(PrometheusError):
    """No Prometheus can be had on this machine."""


@dataclass(frozen=True)
class Sample:
    """One series of an answer at one time."""

    labels: Mapping[str, str]
    value: float
    at_seconds: float
    """Seconds since the epoch."""


@dataclass(frozen=True)
class Series:
    """One series of an answer over time."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]
    """(seconds since the epoch, value), in order; none that is not a number."""


def find_or_unpack(cache: Path) -> Path:
    """The folder that holds ``prometheus`` and ``promtool``.

    That of PATH if it has both; else `cache`, filled once from the Debian package (no root, nothing installed).

    Raises:
        PrometheusMissing: neither is to be had; the message has the reason and the remedy.
    """
    try:
        return debian.find_or_unpack(PACKAGE, cache)
    except PackageMissing as missing:
        raise PrometheusMissing(missing.subject, missing.found, missing.expected, missing.remedy) from None


def render(
    template_path: Path,
    *,
    rules_folder: Path,
    targets_folder: Path | None = None,
    target: str | None = None,
    scrape_interval: str = "1s",
    alertmanager: str | None = None,
) -> str:
    """Prometheus' configuration as YAML text; what it scrapes is found in `targets_folder` or as `target`.

    Args:
        targets_folder: see `write_target`.
        target: pods of its own namespace are found by label, Alertmanager as well; this is their label ``target``.
        scrape_interval: at most ``15s``.
        alertmanager: host:port of the Alertmanager that delivers what fires; without one, alerts are only shown.

    Raises:
        ValueError: both or neither of `targets_folder` and `target` are given.
        jinja2.TemplateError: the template is broken or asks for something it is not given.
    """
    if (targets_folder is None) == (target is None):
        raise ValueError(f"targets_folder {targets_folder} and target {target}, expected one of them")
    environment = Environment(
        loader=FileSystemLoader(template_path.parent), undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template(template_path.name).render(
        targets_folder=str(targets_folder),
        target=target,
        rules_folder=str(rules_folder),
        scrape_interval=scrape_interval,
        alertmanager=alertmanager,
    )


def render_alerts(template_path: Path, time_scale: float = 1) -> str:
    """The alerting rules as YAML text, with every time in them divided by `time_scale` (see `scaled`).

    Raises:
        ValueError: `time_scale` is below 1 or no number.
        jinja2.TemplateError: the template is broken or asks for something it is not given.
    """
    # Annotations are templates of Prometheus' own, in double braces; the text before rendering keeps them readable.
    environment = Environment(
        loader=FileSystemLoader(template_path.parent),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
        comment_start_string="<#",
        comment_end_string="#>",
    )
    environment.filters["scaled"] = lambda duration, least_seconds=LEAST_SECONDS: scaled(
        duration, time_scale, least_seconds
    )
    return environment.get_template(template_path.name).render(time_scale=time_scale)


def scaled(duration: str, time_scale: float, least_seconds: int = LEAST_SECONDS) -> str:
    """`duration` (``30s``, ``5m``, ``6h``) divided by `time_scale`, in whole seconds, but at least `least_seconds`.

    A `duration` that is shorter than that stays as it is.

    Raises:
        ValueError: `duration` is not of that form; or `time_scale` is below 1 or no number.
    """
    parts = re.fullmatch(r"(\d+)([smhd])", duration)
    if not parts:
        raise ValueError(f"duration: {duration!r}, expected a number and one of s, m, h, d. Write 90m, not 1h30m.")
    if not (math.isfinite(time_scale) and time_scale >= 1):
        raise ValueError(f"time_scale: {time_scale}, expected a number of at least 1. Use 1 in production.")
    seconds = int(parts[1]) * _SECONDS[parts[2]]
    shorter = max(math.ceil(seconds / time_scale), min(seconds, least_seconds))
    if shorter == seconds:
        return duration
    unit = next(unit for unit in ("d", "h", "m", "s") if shorter % _SECONDS[unit] == 0)
    return f"{shorter // _SECONDS[unit]}{unit}"


def command(binaries: Path, *, config: Path, data: Path, host: str, port: int) -> list[str]:
    """The argv that serves `config` at `host`:`port` with a day of samples in `data`; no page changes or ends it."""
    return [
        str(binaries / "prometheus"),
        f"--config.file={config}",
        f"--web.listen-address={host}:{port}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=1d",
        "--storage.tsdb.retention.size=512MB",
        "--log.level=warn",
    ]


def write_target(folder: Path, platform: str, target: str, addresses: Mapping[str, tuple[str, str]]) -> None:
    """Has a deployment scraped: `addresses` is (host:port, metrics path) by source.

    A source is ``gateway``, ``native`` (the platform's own metrics), ``detectors`` or ``explainers``.
    Prometheus takes up changes at most every 5 s: wait for ``up{platform="..."}`` before counting on a scrape.
    """
    groups = [
        {
            "targets": [address],
            "labels": {"platform": platform, "target": target, "source": source, "__metrics_path__": path},
        }
        for source, (address, path) in addresses.items()
    ]
    write_json(folder / f"{platform}.json", groups)


def remove_target(folder: Path, platform: str) -> None:
    """Ends the scraping of a deployment; its series end within about 5 s. Nothing happens if it was not scraped."""
    (folder / f"{platform}.json").unlink(missing_ok=True)


class Prometheus:
    """Asks the Prometheus server at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url
        # The server is on loopback: no proxy, and no certificates, whose loading costs 20 ms. No connection is kept, so
        # that a client may be dropped without being closed.
        self._http = httpx.Client(
            base_url=url,
            timeout=QUERY_SECONDS,
            trust_env=False,
            verify=False,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def ready(self) -> bool:
        """Whether the server answers questions now."""
        try:
            return self._http.get("/-/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def query(self, promql: str) -> list[Sample]:
        """The value of each series that `promql` selects now; empty if it selects none.

        Raises:
            PrometheusError: the server cannot be reached, refuses the query, or answers no instant vector or scalar.
        """
        kind, result = self._ask("query", promql)
        if kind == "scalar":
            return [Sample({}, float(result[1]), float(result[0]))]
        if kind != "vector":
            raise self._error(promql, f"a {kind}", "an instant vector or a scalar", "Leave out the range at its end.")
        return [Sample(one["metric"], float(one["value"][1]), float(one["value"][0])) for one in result]

    def range(self, promql: str, begin: float, end: float, step_seconds: float) -> list[Series]:
        """The values of each series that `promql` selects from `begin` to `end` (seconds since the epoch).

        Raises:
            PrometheusError: the server cannot be reached, or refuses the query.
        """
        _, result = self._ask("query_range", promql, start=begin, end=end, step=step_seconds)
        return [
            Series(one["metric"], [(float(at), float(v)) for at, v in one["values"] if math.isfinite(float(v))])
            for one in result
        ]

    def _ask(self, endpoint: str, promql: str, **parameters: float) -> tuple[str, Any]:
        """The kind of the answer and the answer."""
        try:
            response = self._http.post(f"/api/v1/{endpoint}", data={"query": promql, **parameters})
            body: dict[str, Any] = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise self._error(promql, f"no answer ({error})", "a running server", "Look at its log.") from error
        if body.get("status") != "success":
            raise self._error(promql, f"{body.get('error', body)}", "a valid query", "Mend the query.")
        return str(body["data"]["resultType"]), body["data"]["result"]

    def first(self, promql: str, within_seconds: float) -> list[Sample]:
        """The first answer of `promql` that is not empty, asked for again and again; an empty one after the deadline.

        Raises:
            PrometheusError: see `query`.
        """
        return Retrying(
            stop=stop_after_delay(within_seconds),
            wait=wait_fixed(0.05),
            retry=retry_if_result(lambda samples: not samples),
            retry_error_callback=lambda _: [],
        )(self.query, promql)

    def scalar(self, promql: str) -> float:
        """The value of the one series that `promql` selects now.

        Raises:
            PrometheusError: see `query`; or it selects no series, several, or one that is not a number.
        """
        samples = self.query(promql)
        if len(samples) != 1:
            raise self._error(promql, f"{len(samples)} series", "one", "Look at the targets page for a failing scrape.")
        if math.isnan(samples[0].value):
            raise self._error(promql, "NaN", "a number", "Send traffic first, or guard a division by zero.")
        return samples[0].value

    def _error(self, promql: str, found: str, expected: str, remedy: str) -> PrometheusError:
        return PrometheusError(f"prometheus at {self.url}", f"{found} for `{promql}`", expected, remedy)
