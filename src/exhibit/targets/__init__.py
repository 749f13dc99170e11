"""A deployment is a platform on a target; criteria ask it without knowing which target it is."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import httpx
import numpy as np
import numpy.typing as npt
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from exhibit import clients, traffic
from exhibit.clients import Client
from exhibit.contract import NativeMetrics, Platform
from exhibit.model import Model, Probabilities
from exhibit.processes import Usage
from exhibit.prometheus import Prometheus
from exhibit.sink import Delivery
from exhibit.traffic import Report, Scenario

if TYPE_CHECKING:
    from exhibit.images import Image
    from exhibit.rollouts import Rollouts

OFFERS = frozenset({"image", "rollouts"})
"""What a target can offer beyond a served model; each is an attribute of `Deployment`."""
Via = Literal["platform", "gateway"]
Source = str
"""Whose series: ``native`` (the platform's own), ``gateway``, or the name of a companion."""
REQUEST_SECONDS = 30.0


class AnswerError(Exception):
    """The deployment answered, but not with predictions. In a check this is the platform's failure, not the check's."""


@dataclass(frozen=True)
class Started:
    """How long a start took, in seconds from the moment the process was started."""

    listening_seconds: float
    first_prediction_seconds: float


@dataclass
class Deployment(ABC):
    """A running platform, as criteria and traffic see it."""

    OFFERS: ClassVar[frozenset[str]] = frozenset()
    """Which of `OFFERS` deployments of this target have."""
    SAMPLE_SECONDS: ClassVar[float] = 0.25
    """How often `usage` may be asked without being felt."""

    platform: Platform
    target: str
    model: Model
    client: Client
    url: str
    """The platform's own address."""
    gateway_url: str | None
    """The address users are given; None for a replica, which has no gateway."""
    metrics_url: str | None
    """The platform's native metrics; None where it declares none."""
    started: Started
    log: str
    """Where the server's log is: a file of the checkout, or the command that shows it."""
    prometheus: Prometheus | None = None
    """None where no Prometheus can be had: criteria that need it are then not run."""
    scenarios: Mapping[str, Scenario] = field(default_factory=dict)
    """What `send` can send, by name."""
    traffic: dict[str, Report] = field(default_factory=dict)
    """What the scenarios sent so far got for answers, by scenario."""
    sent: list[tuple[str, float, float]] = field(default_factory=list)
    """Each sending of a scenario: its name, begin and end (seconds since the epoch)."""
    companions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The companions that run beside it: addresses (``http://host:port``) by name and by port."""
    image: Image | None = None
    """What it was started from, on a target of containers."""
    rollouts: Rollouts | None = None
    """Other versions and replicas, on a target that has them."""
    operator_lacking: str | None = None
    """Why the server is not run by the platform's own operator, with the remedy; None if it is."""
    scrape_seconds: float = 10.0
    """Deadline for a scrape. Prometheus takes up a new target within 5 s (it throttles changes of its lists)."""

    def __post_init__(self) -> None:
        # On loopback: no proxy of the environment, no certificates to load.
        # No limit of kept connections: with one, many callers at once can get a connection that is just being closed.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self.http = httpx.Client(timeout=REQUEST_SECONDS, trust_env=False, limits=limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()

    def address(self, path: str, via: Via = "platform") -> str:
        """The URL of `path`, directly at the platform or through the gateway."""
        if via == "gateway":
            if self.gateway_url is None:
                raise ValueError("a replica has no gateway")
            return self.gateway_url + path
        return self.url + path

    def post(
        self, body: bytes, *, path: str | None = None, via: Via = "platform", headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """POSTs `body` to the predict path (or `path`) with the platform's content type."""
        predict = self.platform.file.predict
        return self.http.post(
            self.address(path or predict.path, via),
            content=body,
            headers={"Content-Type": predict.content_type, **(headers or {})},
        )

    def predict(
        self, rows: npt.NDArray[np.float32], *, path: str | None = None, via: Via = "platform"
    ) -> Probabilities:
        """P(late) [n] for `rows` [n, 12].

        Raises:
            AnswerError: the answer is not 200, cannot be read, or does not hold one probability a row.
        """
        return self.read(self.post(self.client.encode(rows), path=path, via=via), len(rows))

    def read(self, response: httpx.Response, count: int) -> Probabilities:
        """The `count` probabilities of an answer.

        Raises:
            AnswerError: see `predict`.
        """
        if response.status_code != 200:
            raise AnswerError(f"answered {response.status_code}: {response.text[:200]!r}")
        try:
            return clients.read(self.client, response.content, count)
        except ValueError as error:
            raise AnswerError(str(error)) from error

    def send(self, scenario: str) -> Report:
        """Sends a scenario through the gateway, to its end; its report is also kept in `traffic`."""
        wanted = self.scenarios[scenario]
        report = traffic.send(
            scenario,
            wanted,
            self.model.held_out(wanted.flights),
            self.address("", "gateway"),
            self.platform.file.predict,
            self.client,
        )
        self.traffic[scenario] = report
        self.sent.append((scenario, report.began_at, report.began_at + report.seconds))
        return report

    def native_metrics(self) -> str:
        """The platform's own Prometheus exposition, read from it directly."""
        if self.metrics_url is None:
            raise ValueError(f"{self.platform.slug} declares no native metrics")
        response = self.http.get(self.metrics_url)
        response.raise_for_status()
        return response.text

    def native_requests(self) -> str:
        """PromQL for the platform's own count of this deployment's prediction requests."""
        native = self.platform.file.capabilities.native_metrics
        assert isinstance(native, NativeMetrics)
        return f"sum({self.labelled(native.requests, 'native')})"

    def labelled(self, selector: str, source: Source) -> str:
        """`selector` restricted to this deployment's series of `source`."""
        labels = f'platform="{self.platform.slug}",target="{self.target}",source="{source}"'
        name, brace, rest = selector.partition("{")
        inner = rest.rstrip().removesuffix("}").strip() if brace else ""
        return f"{name}{{{','.join(part for part in (inner, labels) if part)}}}"

    def rise(self, counter: str, source: Source, act: Callable[[], object], expected: float) -> float:
        """By how much `counter` (PromQL) has grown in Prometheus from before to after `act`.

        Both readings are of scrapes that began when they were asked for, so nothing sent earlier leaks in. Some servers
        count just after they have answered: it is read until it has grown by `expected` or for some seconds.

        Raises:
            AnswerError: `source` is not scraped.
        """
        return self.rises(counter, source, act, lambda grown: grown[()] >= expected)[()]

    def rises(
        self,
        counters: str,
        source: Source,
        act: Callable[[], object],
        enough: Callable[[Mapping[tuple[str, ...], float]], bool],
        by: Sequence[str] = (),
        idle: str = "",
    ) -> dict[tuple[str, ...], float]:
        """By how much each series of `counters` (PromQL) has grown, by its values of the labels `by`.

        See `rise`; it is read until what has grown is `enough`. The first reading waits until `idle` (PromQL) holds:
        for a source that counts some time after it was sent something.
        """
        before = self._scraped(counters, source, by, idle)
        act()
        deadline = time.monotonic() + self.scrape_seconds
        while True:
            after = self._scraped(counters, source, by)
            grown = {labels: value - before.get(labels, 0.0) for labels, value in after.items()}
            if enough(grown) or time.monotonic() > deadline:
                return grown

    def _scraped(
        self, counters: str, source: Source, by: Sequence[str], condition: str = ""
    ) -> dict[tuple[str, ...], float]:
        """The counters as of a scrape that began after this call; without labels, 0 where there is no series (yet)."""
        assert self.prometheus is not None
        up = self.labelled("up", source)
        # Of a comparison timestamp() is that of the question: only a sample by itself tells when it was taken.
        fresh = f"timestamp({up}) > {time.time()} and {up} == 1"
        if not self.prometheus.first(f"{fresh} and on () ({condition})" if condition else fresh, self.scrape_seconds):
            wanted = f" with {condition}" if condition else ""
            raise AnswerError(f"was not scraped ({source}) by Prometheus within {self.scrape_seconds:g} s{wanted}")
        samples = self.prometheus.query(counters)
        found = {tuple(sample.labels.get(label, "") for label in by): sample.value for sample in samples}
        return found or ({} if by else {(): 0.0})

    def lacks(self, part: str) -> str | None:
        """Why `part` is not there, with the remedy; else None.

        A part is ``prometheus``, ``alerts``, ``operator`` (the platform's own) or a companion's name.
        """
        if part == "prometheus":
            there, remedy = self.prometheus is not None, "Where none can be had, install the Debian package prometheus."
        elif part == "alerts":
            there = self.deliveries() is not None
            remedy = "Where no Alertmanager can be had, install the Debian package prometheus-alertmanager."
        elif part == "operator":
            return self.operator_lacking
        else:
            there, remedy = part in self.companions, f"It needs the folder monitoring/{part}."
        return None if there else f"No {part} beside this deployment. Deploy it again. {remedy}"

    def recorded(self, rule: str) -> str:
        """PromQL for this deployment's series of a recording rule."""
        return f'{rule}{{platform="{self.platform.slug}",target="{self.target}"}}'

    @property
    @abstractmethod
    def version(self) -> str:
        """The version of the platform's distribution that is installed."""

    @abstractmethod
    def distribution(self) -> Mapping[str, list[str]]:
        """The installed distribution's core metadata, e.g. ``{"License-Expression": ["Apache-2.0"]}``."""

    @abstractmethod
    def ended(self) -> str | None:
        """How the server ended, in words, if it does not run any more."""

    def alive(self) -> bool:
        """Whether the platform's server still runs."""
        return self.ended() is None

    @abstractmethod
    def usage(self) -> Usage:
        """What the platform's server uses now, its gateway not counted."""

    def delivered(self, alerts: Set[str], status: str, since: float, within_seconds: float) -> set[str]:
        """Which of `alerts` have been delivered with `status` (firing or resolved) after `since` (s since the epoch).

        Returns as soon as all have; else those that have when `within_seconds` have passed.
        """

        def found() -> set[str]:
            return {
                one.alertname
                for one in self.deliveries() or []
                if one.alertname in alerts and one.status == status and one.received_at >= since
            }

        return Retrying(
            stop=stop_after_delay(within_seconds),
            wait=wait_fixed(0.1),
            retry=retry_if_result(lambda names: names != alerts),
            retry_error_callback=lambda state: set(state.outcome.result() if state.outcome else ()),
        )(found)

    @abstractmethod
    def outage(self) -> AbstractContextManager[None]:
        """The server is gone while the block runs; afterwards it is back at the same address and answers rightly."""

    @abstractmethod
    def deliveries(self) -> list[Delivery] | None:
        """The alerts about this deployment that reached the receiver so far, oldest first; None without a receiver."""

    @abstractmethod
    def terminate(self) -> None:
        """Sends SIGTERM and returns at once."""

    @abstractmethod
    def replica(self) -> AbstractContextManager[Deployment]:
        """Another instance of the same platform, without a gateway, stopped when the block is left."""

    @abstractmethod
    def run_offline(self, rows: npt.NDArray[np.float32]) -> Probabilities:
        """P(late) [n] by the platform's own offline path.

        Raises:
            AnswerError: the offline path ended with an error.
        """


@dataclass(frozen=True)
class Status:
    """One line of ``make status``."""

    platform: str
    target: str
    state: str
    url: str
    gateway_url: str
    resident_bytes: int


class Target(ABC):
    """Where platforms are deployed, one after another or several at once."""

    name: ClassVar[str]
    deployments: ClassVar[type[Deployment]]

    @abstractmethod
    def prepare(self, platforms: Sequence[Platform]) -> None:
        """Builds what takes time or the network, with what it does shown; nothing is started.

        Raises:
            ExhibitError: something cannot be had.
        """

    @abstractmethod
    def watch(self) -> None:
        """Has the monitoring run before the first deployment; what of it cannot be had is said, with the remedy."""

    @abstractmethod
    def deploy(self, platform: Platform) -> Deployment:
        """Starts the platform, or returns it if it already runs from this very folder and model.

        Raises:
            InstallError, ServerError: nothing of it is left running.
        """

    @abstractmethod
    def attach(self, platform: Platform) -> Deployment | None:
        """The deployment that another command started; None if there is none.

        Raises:
            ServerError: it is noted but does not run any more, or runs from a folder or model that has changed since.
        """

    @abstractmethod
    def down(self, slug: str) -> list[str]:
        """Ends whatever there is of a platform; what was ended, in words."""

    @abstractmethod
    def down_all(self) -> None:
        """Ends every deployment of this checkout, and the monitoring if nobody else needs it."""

    @abstractmethod
    def release_monitoring(self) -> None:
        """Ends the monitoring if it was started for deployments of which none is left."""

    @abstractmethod
    def noted_slugs(self) -> list[str]:
        """The platforms of which something is noted, also ones whose folder is gone."""

    @abstractmethod
    def status(self) -> list[Status]:
        """What is noted of each platform, and whether it is so."""

    @property
    @abstractmethod
    def prometheus_url(self) -> str | None:
        """Where the Prometheus that watches the deployments answers."""
