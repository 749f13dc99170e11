"""Prometheus: where its binaries come from, its configuration and command line, and a client for its questions.

No process is started here. The server is always the real one: where none can be had, `PrometheusMissing` says so.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from exhibit.errors import ExhibitError
from exhibit.workspace import write_json

BINARIES = ("prometheus", "promtool")
APT_SECONDS = 120
QUERY_SECONDS = 10


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


def find_or_unpack(cache: Path) -> Path:
    """The folder that holds ``prometheus`` and ``promtool``.

    That of PATH if it has both; else `cache`, filled once from the Debian package (no root, nothing installed).

    Raises:
        PrometheusMissing: neither is to be had; the message has the reason and the remedy.
    """
    found = shutil.which("prometheus")
    if found and shutil.which("promtool", path=str(Path(found).parent)):
        return Path(found).parent
    binaries = cache / "usr" / "bin"
    if not _complete(binaries):
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.parent, prefix=f".{cache.name}.") as scratch:
            unpacked = _unpack(_download(Path(scratch)), Path(scratch) / "unpacked")
            _put(unpacked, cache)
    return binaries


def _put(unpacked: Path, cache: Path) -> None:
    """Moves the folder into place at once; where another run was faster, its folder stays: both hold the same."""
    if not _complete(cache / "usr" / "bin"):
        shutil.rmtree(cache, ignore_errors=True)
        try:
            unpacked.rename(cache)
        except OSError:
            if not _complete(cache / "usr" / "bin"):
                raise


def _complete(folder: Path) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in BINARIES)


def _download(scratch: Path) -> Path:
    """The Debian package, fetched with the machine's package lists or, if those are missing or stale, with own ones."""
    apt = ["apt-get", "-oAcquire::Retries=1", "-oAcquire::http::Timeout=20"]
    reason = _run([*apt, "download", "prometheus"], scratch)
    if reason is not None and shutil.which("apt-get"):
        lists, archives = scratch / "lists", scratch / "cache"
        for folder in (lists / "partial", archives / "archives" / "partial"):
            folder.mkdir(parents=True)
        # As root, apt hands downloads to a user of its own that may not write here.
        apt += [f"-oDir::State::lists={lists}", f"-oDir::Cache={archives}", "-oAPT::Sandbox::User=root"]
        # A list that cannot be had is a warning to apt; as an error it is the reason to tell, if it comes to that.
        outdated = _run([*apt, "-oAPT::Update::Error-Mode=any", "update"], scratch)
        reason = _run([*apt, "download", "prometheus"], scratch)
        reason = reason and (outdated or reason)
    packages = sorted(scratch.glob("prometheus_*.deb"))
    if reason is not None or not packages:
        raise _missing(reason or "apt-get downloaded nothing")
    return packages[-1]


def _unpack(package: Path, folder: Path) -> Path:
    reason = _run(["dpkg-deb", "-x", str(package), str(folder)], package.parent)
    if reason is None and not _complete(folder / "usr" / "bin"):
        reason = f"{package.name} does not hold them"
    # A package for another system unpacks well and does not run.
    reason = reason or _run([str(folder / "usr" / "bin" / "prometheus"), "--version"], package.parent)
    if reason is not None:
        raise _missing(reason)
    return folder


def _run(argv: Sequence[str], cwd: Path) -> str | None:
    """Runs a command; why it failed, in one line, or None."""
    try:
        done = subprocess.run(
            argv,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=APT_SECONDS,
            check=False,
        )
    except OSError as error:
        return f"{Path(argv[0]).name}: {error.strerror}"
    except subprocess.TimeoutExpired:
        return f"{Path(argv[0]).name}: not done after {APT_SECONDS} s"
    if done.returncode == 0:
        return None
    said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    # apt names its errors "E:", after any number of warnings.
    errors = [line for line in said if line.startswith("E:")] or said or [f"exit code {done.returncode}"]
    return f"{Path(argv[0]).name}: {errors[0]}"


def _missing(reason: str) -> PrometheusMissing:
    return PrometheusMissing(
        "prometheus",
        f"not on PATH, and its Debian package could not be unpacked ({reason})",
        " and ".join(BINARIES),
        "Install the Debian package prometheus, or put the folder of both programs on PATH.",
    )


def render(template_path: Path, *, targets_folder: Path, rules_folder: Path, scrape_interval: str = "1s") -> str:
    """Prometheus' configuration as YAML text; `scrape_interval` at most ``15s``.

    Raises:
        jinja2.TemplateError: the template is broken or asks for something it is not given.
    """
    environment = Environment(
        loader=FileSystemLoader(template_path.parent), undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template(template_path.name).render(
        targets_folder=str(targets_folder), rules_folder=str(rules_folder), scrape_interval=scrape_interval
    )


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
    """Has a deployment scraped: `addresses` is (host:port, metrics path) by source, ``gateway`` or ``native``.

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
        try:
            response = self._http.post("/api/v1/query", data={"query": promql})
            body: dict[str, Any] = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise self._error(promql, f"no answer ({error})", "a running server", "Look at its log.") from error
        if body.get("status") != "success":
            raise self._error(promql, f"{body.get('error', body)}", "a valid query", "Mend the query.")
        kind, result = body["data"]["resultType"], body["data"]["result"]
        if kind == "scalar":
            return [Sample({}, float(result[1]), float(result[0]))]
        if kind != "vector":
            raise self._error(promql, f"a {kind}", "an instant vector or a scalar", "Leave out the range at its end.")
        return [Sample(one["metric"], float(one["value"][1]), float(one["value"][0])) for one in result]

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
