"""What an image is built from decides its name; what goes wrong between the engine and us is one message."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import toy
from docker.errors import APIError, ImageNotFound

from exhibit import companions, images
from exhibit import model as models
from exhibit.contract import load_platforms
from exhibit.errors import ClusterError, ExhibitError
from exhibit.images import Context, ImageError, building
from exhibit.workspace import Workspace

BASE = "python:3.11-slim-bookworm"
ROOT = Workspace(toy.ROOT)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return toy.make(tmp_path / "checkout")


@pytest.fixture
def folder(workspace: Workspace) -> Path:
    return workspace.deployments / toy.SLUG


def context_of(workspace: Workspace, base: str = BASE) -> Context:
    return images.platform_context(load_platforms(workspace)[toy.SLUG], models.load(workspace), base)


@pytest.fixture(autouse=True)
def no_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_FIND_LINKS", "UV_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)


def test_a_platforms_context_is_its_server_its_lock_and_one_model(workspace: Workspace, folder: Path) -> None:
    (folder / "serve" / "__pycache__").mkdir()
    (folder / "serve" / "__pycache__" / "server.pyc").touch()
    served = {f"serve/{path.name}" for path in (toy.SOURCE / "deployments/toy/serve").iterdir() if path.is_file()}
    assert set(context_of(workspace).files()) == {"Dockerfile", "requirements.txt", "model/weights.json", *served}


def test_a_model_that_is_a_folder_keeps_its_name(workspace: Workspace) -> None:
    platform, folder = load_platforms(workspace)[toy.SLUG], workspace.model / "artifacts" / "saved"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_text("weights")
    model = SimpleNamespace(artifact=lambda _: folder)
    assert images.platform_context(platform, model, BASE).files()["model/saved/deep/file"].read_text() == "weights"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda folder: (folder / "README.md").write_text("Other words."), True),
        (lambda folder: (folder / "client.py").write_text("other = 1"), True),
        (lambda folder: (folder / "serve" / "server.py").touch(), True),
        (lambda folder: (folder / "serve" / "page.html").write_text("<p>another"), False),
        (lambda folder: (folder / "serve" / "new.py").touch(), False),
        (lambda folder: (folder / "serve" / "batch.py").rename(folder / "serve" / "batches.py"), False),
        (lambda folder: (folder / "requirements.txt").write_text("# nothing"), False),
        (lambda folder: (folder / "Dockerfile").write_text("FROM scratch"), False),
        (lambda folder: (folder / "../../model/artifacts/weights.json").write_text("{}"), False),
    ],
    ids=["readme", "client", "time", "page", "new file", "renamed", "lock", "Dockerfile", "model"],
)
def test_the_tag_tells_the_content(
    workspace: Workspace, folder: Path, change: Callable[[Path], object], same: bool
) -> None:
    context = context_of(workspace)
    before = context.digest()
    change(folder)
    assert (context.digest() == before) is same


def test_the_tag_tells_the_base(workspace: Workspace) -> None:
    assert context_of(workspace).digest() == context_of(workspace).digest()
    assert context_of(workspace).digest() != context_of(workspace, "python:3.12-slim-bookworm").digest()


def test_the_archive_is_the_same_whoever_writes_it(workspace: Workspace, folder: Path) -> None:
    written = []
    for mode in (0o600, 0o644):
        (folder / "serve" / "server.py").chmod(mode)
        (folder / "serve" / "server.py").touch()
        context_of(workspace).write(file := io.BytesIO())
        written.append(file.getvalue())
    assert written[0] == written[1]
    with tarfile.open(fileobj=io.BytesIO(written[0])) as archive:
        assert archive.getnames() == list(context_of(workspace).files())
        assert {member.mode for member in archive} == {0o644}
        server = archive.extractfile("serve/server.py")
        assert server is not None
        assert server.read() == (folder / "serve" / "server.py").read_bytes()


def test_a_local_wheel_is_handed_in_if_the_lock_names_its_digest(
    workspace: Workspace, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {
        "pip": ["locked_one-1.0-py3-none-any.whl", "other_digest-1.0-py3-none-any.whl", "no-wheel.whl"],
        "uv": ["locked_two-2.0+cpu-py3-none-any.whl", "not_locked-1.0-py3-none-any.whl"],
    }
    for place, wheels in names.items():
        (tmp_path / place).mkdir()
        for name in wheels:
            (tmp_path / place / name).write_text(name)
    digest = {name: hashlib.sha256(name.encode()).hexdigest() for wheels in names.values() for name in wheels}
    with (folder / "requirements.txt").open("a") as lock:
        lock.write(f"locked-one==1.0 \\\n    --hash=sha256:{digest['locked_one-1.0-py3-none-any.whl']}\n")
        lock.write(f"locked-two==2.0+cpu \\\n    --hash=sha256:{digest['locked_two-2.0+cpu-py3-none-any.whl']}\n")
        lock.write(f"other-digest==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    assert not [place for place in context_of(workspace).files() if place.startswith("wheels/")]
    # pip's are separated by spaces, uv's by commas; both may be addresses, which a build can reach by itself.
    monkeypatch.setenv("PIP_FIND_LINKS", f"https://example.org/wheels file://{tmp_path}/pip")
    monkeypatch.setenv("UV_FIND_LINKS", f"{tmp_path}/missing,{tmp_path}/uv")
    found = [place for place in context_of(workspace).files() if place.startswith("wheels/")]
    assert found == ["wheels/locked_one-1.0-py3-none-any.whl", "wheels/locked_two-2.0+cpu-py3-none-any.whl"]


@pytest.mark.parametrize("name", companions.load(ROOT))
def test_a_companions_context_has_no_tests_and_the_chosen_lock(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = set()
    for licence, libraries in companions.load(ROOT)[name].file.licences.items():
        if libraries.runs_here:
            monkeypatch.setenv(companions.LICENCE_VARIABLE, licence)
            context = images.companion_context(companions.load(ROOT)[name], BASE)
            digests.add(context.digest())
            assert context.files()["requirements.txt"].name == libraries.lock
            assert "service.py" in context.files()
            assert not [
                place for place in context.files() if place.startswith("test_") or place.endswith((".md", ".in"))
            ]
    assert len(digests) >= 1
    assert len(digests) == sum(one.runs_here for one in companions.load(ROOT)[name].file.licences.values())


def test_the_webhooks_context_is_one_file_of_the_engine() -> None:
    context = images.webhook_context(ROOT)
    assert set(context.files()) == {"Dockerfile", "requirements.txt", "sink.py"}
    assert "import exhibit" not in context.files()["sink.py"].read_text()
    assert context.base == BASE


def test_a_folder_without_a_dockerfile_is_told(workspace: Workspace, folder: Path) -> None:
    (folder / "Dockerfile").unlink()
    with pytest.raises(
        ExhibitError, match=r"deployments/toy/Dockerfile: no such file, expected what its image is built by"
    ):
        context_of(workspace)


def test_instructions_are_read_as_docker_reads_them() -> None:
    lines = ["# FROM comment", "ARG BASE", "FROM $BASE as build", "RUN one \\", " # between", " && two", ""]
    lines += ["env A=1 \\", "    B=2", 'RUN ["a", "b"]', ""]
    assert images.instructions("\n".join(lines)) == [
        ("ARG", "BASE"),
        ("FROM", "$BASE as build"),
        ("RUN", "one && two"),
        ("ENV", "A=1 B=2"),
        ("RUN", '["a", "b"]'),
    ]


@pytest.mark.parametrize(
    ("end", "test"),
    [
        ('RUN ["python", "-c", "print(1)"]', ["python", "-c", "print(1)"]),
        ("RUN python -V", ["/bin/sh", "-c", "python -V"]),
        ("USER 10001", None),
    ],
)
def test_the_self_test_is_the_last_step(workspace: Workspace, folder: Path, end: str, test: list[str] | None) -> None:
    (folder / "Dockerfile").write_text(f"FROM $BASE\nRUN earlier\n{end}\n")
    assert context_of(workspace).self_test == test


class Engine:
    """Stands in for Docker's client: knows the base, and answers a build with what a test says."""

    def __init__(self, build: Callable[[], Iterator[dict[str, Any]]], *, pull: Exception | None = None) -> None:
        self.known = {BASE} if pull is None else set()
        self.arguments: dict[str, Any] = {}
        self.images = SimpleNamespace(get=self._get, pull=self._pull, list=lambda **_: self._listed)
        self.api = SimpleNamespace(build=self._build)
        self._events, self._error = build, pull
        self._listed = [SimpleNamespace(tags=["exhibit/old:1"], attrs={"Size": 2_400_000_000})]

    def _get(self, reference: str) -> SimpleNamespace:
        if reference not in self.known:
            raise ImageNotFound(f"No such image: {reference}")
        return SimpleNamespace(id="sha256:1")

    def _pull(self, _: str) -> None:
        assert self._error is not None
        raise self._error

    def _build(self, **arguments: Any) -> Iterator[dict[str, Any]]:
        self.arguments = arguments | {"bytes": arguments["fileobj"].read()}
        yield from self._events()
        self.known.add(arguments["tag"])

    def info(self) -> dict[str, str]:
        return {"DockerRootDir": "/"}


def streams(*texts: str) -> Callable[[], Iterator[dict[str, Any]]]:
    return lambda: iter([{"stream": text} for text in texts])


@pytest.fixture
def build(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Callable[[Engine], tuple[images.Image, list[str]]]:
    def start(engine: Engine) -> tuple[images.Image, list[str]]:
        monkeypatch.setattr(building, "engine", lambda: engine)
        said: list[str] = []
        return images.build(workspace, toy.SLUG, context_of(workspace), said.append), said

    return start


Build = Callable[[Engine], tuple[images.Image, list[str]]]


def test_each_step_is_told_and_what_the_self_test_printed(build: Build, workspace: Workspace) -> None:
    noise = [" ---> Running in 1f\n", "Removing intermediate container 1f\n", " ---> 2a\n"]
    engine = Engine(
        streams(
            "Step 1/3 : FROM $BASE\n",
            *noise,
            'Step 2/3 : RUN ["x"]\n',
            *noise,
            "\x1b[91mtoy",  # one line can come in pieces
            " 1.0\x1b[0m\nloads\n",
            "Step 3/3 : LABEL exhibit.base=b\n",
            *noise,
            "Successfully built 3c\n",
        )
    )
    image, said = build(engine)
    assert said == [
        "step 1 of 3: FROM $BASE",
        'step 2 of 3: RUN ["x"]',
        "step 3 of 3: LABEL exhibit.base=b",
        "toy 1.0",
        "loads",
    ]
    assert image.reference == f"exhibit/toy:{context_of(workspace).digest()}" == engine.arguments["tag"]
    assert engine.arguments["labels"] == {"exhibit.base": BASE}
    assert (engine.arguments["rm"], engine.arguments["forcerm"]) == (True, True)
    again, said = build(engine)
    assert (again.id, said) == (image.id, []), "it was there"


def test_index_addresses_are_passed_on_only_if_a_user_set_them(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in building.INDEX_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    build(engine := Engine(streams()))
    assert engine.arguments["buildargs"] == {"BASE": BASE}
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example.org/")
    build(engine := Engine(streams()))
    assert engine.arguments["buildargs"] == {"BASE": BASE, "PIP_INDEX_URL": "https://index.example.org/"}


def failing(error: str, *said: str) -> Callable[[], Iterator[dict[str, Any]]]:
    def events() -> Iterator[dict[str, Any]]:
        yield from streams(*said)()
        yield {"errorDetail": {"message": error}, "error": error}

    return events


def test_a_failed_step_is_told_with_its_last_lines(build: Build) -> None:
    lines = [*(f"line {number}\n" for number in range(39)), "line 39"]
    with pytest.raises(
        ImageError, match=r"exhibit/toy:\w{12}: a step of its Dockerfile ended with exit code 3, expected every step"
    ) as caught:
        build(Engine(failing("The command 'python -c x' returned a non-zero code: 3", "Step 1/1 : RUN x\n", *lines)))
    assert caught.value.detail.splitlines()[-2:] == ["line 39", "The command 'python -c x' returned a non-zero code: 3"]
    assert len(caught.value.detail.splitlines()) == 20


@pytest.mark.parametrize(
    "events",
    [
        failing("failed to register layer: write /opt/x: no space left on device"),
        failing("The command 'pip' returned a non-zero code: 1", "OSError: [Errno 28] No space left on device\n"),
    ],
    ids=["of the engine", "of a step"],
)
def test_a_full_disk_is_told_with_what_is_free_and_what_to_remove(
    build: Build, monkeypatch: pytest.MonkeyPatch, events: Callable[[], Iterator[dict[str, Any]]]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=123_000_000))
    with pytest.raises(ImageError) as caught:
        build(Engine(events))
    assert "no space left on the disk, 0.1 GB free in /, expected room" in caught.value.line()
    assert "`docker image prune`" in caught.value.remedy
    assert "`docker rmi exhibit/old:1` images of ours (up to 2.4 GB)" in caught.value.remedy


def test_a_full_disk_of_ours_is_told_too(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Context, "write", full)
    with pytest.raises(ImageError, match="no space left on the disk"):
        build(Engine(streams()))


def test_a_base_that_cannot_be_had_is_named(build: Build) -> None:
    with pytest.raises(
        ImageError, match=rf"base image {BASE}: not there, and cannot be pulled \(no route\), .* `docker pull {BASE}`"
    ):
        build(Engine(streams(), pull=APIError("500", explanation="no route")))


def test_an_engine_that_goes_away_is_told_as_such(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = ClusterError("Docker engine", "does not answer", "one that runs", "Start it.")

    def events() -> Iterator[dict[str, Any]]:
        yield from streams("Step 1/2 : FROM $BASE\n")()

        def refuse() -> None:
            raise gone

        monkeypatch.setattr(building, "engine", refuse)
        raise requests.ConnectionError("Connection aborted")

    with pytest.raises(ClusterError, match="Docker engine: does not answer"):
        build(Engine(events))


def test_no_engine_is_one_message(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{workspace.root}/no.sock")
    with pytest.raises(ClusterError, match=r"Docker engine: does not answer .*Start Docker"):
        images.build(workspace, toy.SLUG, context_of(workspace), print)
