"""Alertmanager: where its program comes from, its configuration and and command line.

No process is started here. The server is always the real one: where none can be had, `AlertmanagerMissing` says so.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from exhibit import debian
from exhibit.debian import Package, PackageMissing
from exhibit.errors import ExhibitError
from exhibit.prometheus import scaled

_TEMPLATES = b"/usr/share/prometheus/alertmanager"


class AlertmanagerMissing(ExhibitError):
    """No Alertmanager can be had on this machine."""


def find_or_unpack(cache: Path) -> Path:
    """The folder that holds ``alertmanager`` (Debian: ``prometheus-alertmanager``) and ``amtool``.

    That of PATH if it has both; else `cache`, filled once from the Debian package (no root, nothing installed).

    Raises:
        AlertmanagerMissing: neither is to be had; the message has the reason and the remedy.
    """
    try:
        return debian.find_or_unpack(PACKAGE, cache)
    except PackageMissing as missing:
        raise AlertmanagerMissing(missing.subject, missing.found, missing.expected, missing.remedy) from None


def _relocate(unpacked: Path) -> None:
    """Has the unpacked program find its message templates from its working folder instead of from the root folder.

    Debian takes them out of the program and into files whose path is compiled in; without those it does not start, and
    without root they cannot be put there. The relative path is as long as the absolute one: nothing else moves.
    """
    path = debian.program(unpacked / "usr" / "bin", PACKAGE.programs[0])
    path.write_bytes(path.read_bytes().replace(_TEMPLATES, _TEMPLATES[1:] + b"/"))


PACKAGE = Package("prometheus-alertmanager", (("alertmanager", "prometheus-alertmanager"), ("amtool",)), _relocate)


def render(template_path: Path, *, webhook_url: str, time_scale: float = 1) -> str:
    """Alertmanager's configuration as YAML text: everything is delivered to `webhook_url`, times over `time_scale`.

    Raises:
        ValueError: `time_scale` is below 1 or no number.
        jinja2.TemplateError: the template is broken or asks for something it is not given.
    """
    environment = Environment(
        loader=FileSystemLoader(template_path.parent), undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["scaled"] = lambda duration: scaled(duration, time_scale, least_seconds=1)
    return environment.get_template(template_path.name).render(webhook_url=webhook_url)


def command(binaries: Path, *, config: Path, data: Path, host: str, port: int) -> list[str]:
    """The argv that serves `config` at `host`:`port`, with what it has sent in `data`; it has no peers."""
    return [
        # The unpacked program reads its templates from here (`_relocate`); any other does not mind.
        "env",
        f"--chdir={binaries.resolve().parent.parent}",
        str(debian.program(binaries.resolve(), PACKAGE.programs[0])),
        f"--config.file={config.resolve()}",
        f"--web.listen-address={host}:{port}",
        f"--storage.path={data.resolve()}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]
