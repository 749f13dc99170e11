"""Builds an image by Docker's own builder, once for each content, and tells what an image is like."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException, ImageNotFound

from exhibit.cluster import engine
from exhibit.errors import ExhibitError
from exhibit.images.contexts import Context
from exhibit.workspace import Workspace

BASE_LABEL = "exhibit.base"
INDEX_VARIABLES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")
"""Where a user may have said packages are to come from; passed to the stage that installs them, and to no other."""
TAIL_LINES = 20
_NOISE = re.compile(r"^\s*(--->|Removing intermediate container|Successfully (built|tagged))|^\s*$")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class ImageError(ExhibitError):
    """An image could not be built, or a container of it did not do what it should."""


@dataclass(frozen=True)
class Facts:
    """What an image is like, as the engine tells it."""

    size_bytes: int
    """Of all its layers, those of the base included."""
    layers: int
    user: str
    entrypoint: list[str]
    command: list[str]
    environment: dict[str, str]
    base: str | None
    """What it says it was built on."""
    on_base: bool
    """Whether its first layers are those of that base, as it is here now."""


@dataclass(frozen=True)
class Image:
    """An image that is there."""

    reference: str
    """``exhibit/<name>:<digest of its content>``"""
    id: str
    recipe: Recipe

    def facts(self) -> Facts:
        """See `Facts`.

        Raises:
            ImageError: it is not there any more.
        """
        with speaking(self.reference):
            client = engine()
            found = client.images.get(self.reference)
            config, layers = found.attrs["Config"], found.attrs["RootFS"]["Layers"]
            base = (config["Labels"] or {}).get(BASE_LABEL)
            beneath = _layers(client, base) if base else []
        return Facts(
            size_bytes=found.attrs["Size"],
            layers=len(layers),
            user=config["User"],
            entrypoint=config["Entrypoint"] or [],
            command=config["Cmd"] or [],
            environment=dict(variable.split("=", 1) for variable in config["Env"] or []),
            base=base,
            on_base=bool(beneath) and layers[: len(beneath)] == beneath,
        )


@dataclass(frozen=True)
class Recipe:
    """What an image is built from, and its name."""

    workspace: Workspace
    name: str
    context: Context

    @property
    def reference(self) -> str:
        """Of the image that belongs to the sources as they are now."""
        return f"exhibit/{self.name}:{self.context.digest()}"

    def find(self) -> Image | None:
        """The image, if it was built before."""
        reference = self.reference
        with speaking(reference):
            try:
                return Image(reference, str(engine().images.get(reference).id), self)
            except ImageNotFound:
                return None

    def build(self, say: Callable[[str], None]) -> Image:
        """Builds the image, whether or not it is there: from the engine's cache, layer by layer, where nothing changed.

        An interrupt or a failure leaves no container behind.

        Raises:
            ImageError: the base cannot be had, a step failed, the disk is full, or the engine is gone.
        """
        reference, base = self.reference, self.context.base
        with speaking(reference):
            client = engine()
            _ensure_base(client, base, say)
            self.workspace.state.mkdir(exist_ok=True)
            # Not among temporary files, which may lie in memory: wheels can have hundreds of megabytes.
            with tempfile.TemporaryFile(dir=self.workspace.state) as archive:
                self.context.write(archive)
                archive.seek(0)
                events = client.api.build(
                    fileobj=archive,
                    custom_context=True,
                    tag=reference,
                    rm=True,
                    forcerm=True,
                    decode=True,
                    use_config_proxy=True,
                    labels={BASE_LABEL: base},
                    buildargs={
                        "BASE": base,
                        **{name: os.environ[name] for name in INDEX_VARIABLES if name in os.environ},
                    },
                )
                with closing(events):
                    _follow(client, reference, events, say)
            return Image(reference, str(client.images.get(reference).id), self)


def build(workspace: Workspace, name: str, context: Context, say: Callable[[str], None]) -> Image:
    """The image of `context`: found by its tag, else built with each step told to `say`.

    Raises:
        ImageError: see `Recipe.build`.
        ClusterError: no Docker engine answers.
    """
    recipe = Recipe(workspace, name, context)
    return recipe.find() or recipe.build(say)


def _follow(
    client: docker.DockerClient, reference: str, events: Iterable[Mapping[str, Any]], say: Callable[[str], None]
) -> None:
    """Tells each step of a build, and at its end what the last command, the self-test, printed."""
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    printed: list[str] = []
    for line, is_error in _lines(events):
        if is_error:
            _refuse(client, reference, line, "\n".join([*tail, line][-TAIL_LINES:]))
        if step := re.match(r"Step (\d+)/(\d+) : (.*)", line):
            printed = [] if step[3].startswith("RUN") else printed  # the engine adds a step that sets the label
            say(f"step {step[1]} of {step[2]}: {' '.join(step[3].split())[:80]}")
        elif not _NOISE.match(line):
            printed.append(line)
            tail.append(line)
    for line in printed:
        say(line)


def _lines(events: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, bool]]:
    """What a build says, line by line and without colours, and whether it is the error that ends it."""
    rest = ""
    for event in events:
        *whole, rest = _COLOUR.sub("", rest + event.get("stream", "")).split("\n")
        for line in whole:
            yield line.rstrip(), False
        if "error" in event:
            yield from ((line, False) for line in [rest] if line)
            yield str(event["error"]).strip(), True


def _refuse(client: docker.DockerClient, reference: str, error: str, detail: str) -> None:
    if "no space left on device" in detail.lower():
        raise _no_space(client, reference, detail)
    step = re.match(r"The command '(.*)' returned a non-zero code: (\d+)", error, re.DOTALL)
    found = f"a step of its Dockerfile ended with exit code {step[2]}" if step else "not built"
    remedy = "Read the last lines below; where packages cannot be had, see that a package index is reachable."
    raise ImageError(reference, found, "every step to succeed", remedy, detail)


def _ensure_base(client: docker.DockerClient, base: str, say: Callable[[str], None]) -> None:
    try:
        client.images.get(base)
    except ImageNotFound:
        say(f"pulling {base}")
        try:
            client.images.pull(base)
        except DockerException as error:
            if "no space left on device" in str(error).lower():
                raise
            raise ImageError(
                f"base image {base}",
                f"not there, and cannot be pulled ({_words(error)})",
                "the image that versions.yaml names `base`",
                f"See that `docker pull {base}` works, or load the image with `docker load`.",
            ) from error


def _layers(client: docker.DockerClient, reference: str) -> list[str]:
    try:
        return list(client.images.get(reference).attrs["RootFS"]["Layers"])
    except ImageNotFound:
        return []


@contextmanager
def speaking(reference: str) -> Iterator[None]:
    """Tells what goes wrong between us and the engine as one message."""
    try:
        yield
    except (DockerException, urllib3.exceptions.HTTPError, OSError) as error:
        if "no space left on device" in str(error).lower():
            raise _no_space(engine(), reference, str(error)) from error
        if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
            raise
        engine()  # an engine that is gone is told as such
        remedy = "Look into the engine's log, and run the command again."
        raise ImageError(reference, f"the Docker engine failed ({_words(error)})", "it to work", remedy) from error


def _no_space(client: docker.DockerClient, reference: str, detail: str) -> ImageError:
    folder = Path(client.info().get("DockerRootDir", "/"))
    free = f", {_size(shutil.disk_usage(folder).free)} free in {folder}" if folder.is_dir() else ""
    ours = {
        tag: one.attrs["Size"] for one in client.images.list(filters={"reference": "exhibit/*"}) for tag in one.tags
    }
    largest = sorted(ours, key=lambda tag: -ours[tag])[:5]
    remove = f", `docker rmi {' '.join(largest)}` images of ours (up to {_size(sum(ours[tag] for tag in largest))})"
    return ImageError(
        reference,
        f"no space left on the disk{free}",
        "room for the image",
        f"Free some: `docker image prune` removes what builds left behind{remove if largest else ''}; "
        "`docker system df` shows the rest.",
        detail,
    )


def _words(error: Exception) -> str:
    return str(error.explanation if isinstance(error, APIError) and error.explanation else error)


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB"
