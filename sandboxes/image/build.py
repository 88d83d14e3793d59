"""Making the image: step by step on the engine, by wheels that the host downloads.

    base      a Debian made by mmdebstrap and imported, or an image that somebody names
    wheels    pip on the host, for the base's Python
    install   in a container without network, from those wheels alone
    commit    under a name made of a hash of all that went in, and as ``current``

So no registry is needed, the build has no network of its own, and no wheel stays in a
layer (by ``COPY`` they would: 1.4 GB rather than 1.0). For a GPU the same with what Triton
compiles with; torch's own wheels bring CUDA, and the engine adds the driver at each start.
``with_dockerfile`` is the other way, for people with a registry.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.base.errors import ConfigError, InfrastructureError, SandboxStartError
from sandboxes.engine import Engine, bind, errors_translated
from sandboxes.image import recipe

Say = Callable[[str], None]

_SUITE = "bookworm"
_PACKAGES = ("python3", "python3-venv", "ca-certificates")
_PATH = "/opt/venv/bin:/usr/local/bin:/usr/bin:/bin"
_PATIENCE_S = 1800.0


def build(
    *, base: str | None, tag: str | None, torch_index: str | None, gpu: bool, say: Say
) -> str:
    """Make the image unless it is there; return its name. ``say`` gets a line for each step.

    ``base`` is an image with Python 3.11 or newer and its venv module; by default a Debian
    is made. ``torch_index`` is one more package index, for the build of torch. With ``gpu``
    the Debian holds what Triton needs; a ``base`` must bring that itself. Raises
    ConfigError for what the machine lacks, InfrastructureError for a step that failed.
    """
    engine = _engine()
    debian = f"{recipe.NAME}-base:{_SUITE}{'-gpu' * gpu}"
    parts = [torch_index] if torch_index else []
    name = f"{recipe.NAME}:{tag or recipe.digest(base or debian, *parts)}"
    if tag is None and engine.image(name) is not None:
        say(f"{name} is there already")
    else:
        source = _found_base(engine, base, say) if base else _own_base(engine, debian, gpu, say)
        with tempfile.TemporaryDirectory(prefix="harness-wheels-") as place:
            version = _python_of(engine, source)
            with _step(say, f"wheels for Python {version}"):
                _download(Path(place), version, torch_index)
            _install(engine, source, Path(place), name, gpu, say)
    _make_current(engine, name)
    return name


def with_dockerfile(*, base: str | None, tag: str | None, say: Say) -> str:
    """Build the Dockerfile beside this module. Needs a registry and a network.

    ``base`` replaces the one that it names.
    """
    engine = _engine()
    name = f"{recipe.NAME}:{tag or recipe.digest(base or 'Dockerfile')}"
    arguments = {"REQUIREMENTS": " ".join(recipe.wanted()), **({"BASE": base} if base else {})}
    with _step(say, "image by the Dockerfile"), errors_translated("build the image", start=True):
        last = ""
        for line in engine.api.build(
            path=str(Path(__file__).parent),
            tag=name,
            buildargs=arguments,
            labels={recipe.LABEL: " ".join(recipe.wanted())},
            rm=True,
            forcerm=True,
            decode=True,
        ):
            if "error" in line:
                raise SandboxStartError(
                    "The image could not be built",
                    cause=f"{last}{line['error']}".strip(),
                    remedy="without a registry: harness image build --gpu",
                )
            if text := line.get("stream", "").strip():
                last = f"{text}\n"
                say(f"  {text}")
    _make_current(engine, name)
    return name


def _engine() -> Engine:
    try:
        return Engine(patience_s=_PATIENCE_S)
    except SandboxStartError as error:
        raise ConfigError(error.message, cause=error.cause, remedy=error.remedy) from error


def _found_base(engine: Engine, base: str, say: Say) -> str:
    if engine.image(base) is None:
        try:
            with _step(say, f"pull {base}"), errors_translated(f"pull {base}", start=True):
                repository, _, tag = base.partition(":")
                engine.api.pull(repository, tag=tag or "latest")
        except SandboxStartError as error:
            raise ConfigError(
                f"the base image {base} is neither here nor in a registry",
                cause=error.cause,
                remedy="docker images; or leave --base out, and a Debian is made",
            ) from error
    return base


def _own_base(engine: Engine, name: str, gpu: bool, say: Say) -> str:
    if engine.image(name) is not None:
        say(f"base: {name} is there already")
        return name
    packages = (*_PACKAGES, *(recipe.TRITON_NEEDS if gpu else ()))
    if shutil.which("mmdebstrap") is None:
        raise ConfigError(
            "mmdebstrap is not installed, which makes the base of the image",
            remedy="apt-get install mmdebstrap; or --base with an image that holds Python",
        )
    with tempfile.TemporaryDirectory(prefix="harness-base-") as place:
        tar = Path(place, "base.tar")
        with _step(say, f"base: Debian {_SUITE} by mmdebstrap"):
            _run(
                [
                    "mmdebstrap",
                    "--quiet",
                    "--variant=minbase",
                    f"--include={','.join(packages)}",
                    _SUITE,
                    tar,
                ]
            )
        with (
            _step(say, f"base: import as {name}"),
            errors_translated("import the base", start=True),
        ):
            repository, _, tag = name.partition(":")
            engine.api.import_image_from_file(str(tar), repository=repository, tag=tag)
    return name


def _python_of(engine: Engine, image: str) -> str:
    script = 'import sys, venv, ensurepip; print("%d.%d" % sys.version_info[:2])'
    with _container(engine, image, ["python3", "-c", script]) as (container, code):
        said = engine.api.logs(container).decode(errors="replace").strip()
        if code != 0:
            raise ConfigError(
                f"the base image {image} has no Python with venv",
                cause=said,
                remedy="name another with --base",
            )
    return str(said)


def _download(place: Path, version: str, torch_index: str | None) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(place)]
    command += ["--only-binary=:all:", "--python-version", version]
    command += ["--extra-index-url", torch_index] if torch_index else []
    _run([*command, *recipe.wanted()])
    for wheel in (place, *place.iterdir()):  # a container's root may be nobody here
        wheel.chmod(0o755)


def _install(engine: Engine, source: str, wheels: Path, name: str, gpu: bool, say: Say) -> None:
    packages = recipe.wanted()
    imports = "torch, numpy, einops" + ", triton" * gpu
    script = (
        "python3 -m venv /opt/venv && /opt/venv/bin/pip install --quiet --no-index "
        '--no-cache-dir --find-links /wheels "$@" && /opt/venv/bin/python -c '
        f'"import {imports}"'
    )
    mounts = [bind(str(wheels), "/wheels", writable=False)]
    with contextlib.ExitStack() as stack:
        with _step(say, "install, without network"):
            command = ["/bin/sh", "-c", script, "sh", *packages]
            container, code = stack.enter_context(_container(engine, source, command, mounts))
            if code != 0:
                said = engine.api.logs(container, tail=20).decode(errors="replace").strip()
                raise SandboxStartError("The packages could not be installed", cause=said)
        with _step(say, f"commit as {name}"), errors_translated("commit the image", start=True):
            repository, _, tag = name.partition(":")
            engine.api.commit(
                container,
                repository=repository,
                tag=tag,
                changes=[f"ENV PATH={_PATH}", f'LABEL {recipe.LABEL}="{" ".join(packages)}"'],
            )


@contextlib.contextmanager
def _container(
    engine: Engine, image: str, command: list[str], mounts: list[Any] | None = None
) -> Iterator[tuple[str, int]]:
    """Run a command to its end; yield the container and its exit code, then remove it."""
    host = engine.host_config(network_mode="none", mounts=mounts or [])
    container = engine.create(image=image, command=command, host_config=host, entrypoint=[])
    try:
        engine.start(container)
        yield container, engine.exit_code(container, patience_s=_PATIENCE_S)
    finally:
        engine.remove(container)


def _make_current(engine: Engine, name: str) -> None:
    repository, _, tag = recipe.CURRENT.partition(":")
    with errors_translated(f"name the image {recipe.CURRENT}"):
        engine.api.tag(name, repository, tag=tag)


@contextlib.contextmanager
def _step(say: Say, what: str) -> Iterator[None]:
    say(f"{what} …")
    begun = time.monotonic()
    yield
    say(f"{what}: {time.monotonic() - begun:.0f} s")


def _run(command: list[Any]) -> None:
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    if done.returncode != 0:
        raise InfrastructureError(
            f"{command[0]} ended with {done.returncode}",
            cause=done.stderr.strip()[-2000:],
            remedy="is there a network, and room in the temporary folder?",
        )
