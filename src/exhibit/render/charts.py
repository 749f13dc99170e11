"""Files of charts that have their home elsewhere in the checkout: copies, or what a template of ours gives.

A chart stands alone: it reads nothing beside it, and Helm renders no templates but its own. Where one of ours is
needed, Helm's expressions are its values, and the chart renders the text once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from exhibit import alertmanager, gateway, prometheus
from exhibit.gateway import Canary, Mirror
from exhibit.workspace import Workspace

# What charts/monitoring has as it is, at the same place in its folder files/.
_COPIED = ("prometheus/rules/*.yaml", "grafana/dashboards/*.json", "grafana/provisioning/*/*.yaml")


def render(workspace: Workspace, generated: Mapping[Path, str]) -> dict[Path, str]:
    """The text of each such file; `generated` is what else is generated, which need not be written yet."""
    source, charts = workspace.root / "monitoring", workspace.charts
    return {
        **{charts / "gateway" / "files" / name: text for name, text in _gateway(source).items()},
        **{charts / "monitoring" / "files" / name: text for name, text in _monitoring(source, generated).items()},
    }


def _gateway(source: Path) -> dict[str, str]:
    """With a mirror and without: the template asks for it in several places, the chart takes the one or the other."""
    mirror = Mirror("{{ include `gateway.mirror` . }}", "{{ .Values.mirror.port }}", "{{ .Values.mirror.path }}")
    texts = {
        name: gateway.render(
            source / "gateway" / "envoy.yaml.j2",
            host="0.0.0.0",
            port="{{ .Values.ports.main }}",
            admin_port=gateway.ADMIN_PORT,
            upstream_host="{{ include `gateway.upstream` . }}",
            upstream_port="{{ .Values.upstream.port }}",
            answer_seconds="{{ .Values.answerSeconds }}",
            idle_seconds="{{ add .Values.answerSeconds 5 }}",
            internal_port="{{ .Values.ports.internal }}",
            canary=Canary("{{ include `gateway.canary` . }}", "{{ .Values.canary.port }}"),
            mirror=copied,
            stats_port="{{ .Values.ports.stats }}",
            dns_seconds=1,
        )
        for name, copied in {"envoy.yaml": None, "envoy-with-mirror.yaml": mirror}.items()
    }
    return {name: _marked(text, "gateway/envoy.yaml.j2") for name, text in texts.items()}


def _monitoring(source: Path, generated: Mapping[Path, str]) -> dict[str, str]:
    prometheus_text = prometheus.render(
        source / "prometheus" / "prometheus.yaml.j2",
        rules_folder=Path("/etc/prometheus/rules"),
        target="{{ .Values.target }}",
        scrape_interval="{{ .Values.scrapeInterval }}",
    )
    alertmanager_text = alertmanager.render(
        source / "alertmanager" / "alertmanager.yaml.j2", webhook_url="http://{{ .Release.Name }}-webhook:8080/"
    )
    there = {path: path.read_text(encoding="utf-8") for pattern in _COPIED for path in source.glob(pattern)}
    made = {path: text for path, text in generated.items() if path.is_relative_to(source)}
    copied = {path.relative_to(source).as_posix(): text for path, text in sorted({**there, **made}.items())}
    return {
        "prometheus/prometheus.yaml": _marked(prometheus_text, "prometheus/prometheus.yaml.j2"),
        "alertmanager/alertmanager.yaml": _marked(alertmanager_text, "alertmanager/alertmanager.yaml.j2"),
        **{name: text if name.endswith(".json") else _marked(text, name) for name, text in copied.items()},
    }


def _marked(text: str, source: str) -> str:
    return f"# Made from monitoring/{source} by make sync. Do not edit.\n{text}"
