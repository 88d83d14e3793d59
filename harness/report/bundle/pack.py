"""Packs a run into one archive. The same run gives the same bytes, for any user at any time."""

import gzip
import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.base.commands import command
from harness.base.errors import ConfigError
from harness.base.files import replacing
from harness.base.paths import plain_name
from harness.base.validation import problems
from harness.report.bundle.manifest import (
    NAME,
    PLAIN,
    BundleManifest,
    Member,
    check_consistency,
)
from harness.store.rundir import LOCK, STOP, Run

LEVEL = 10
LEFT_OUT = {LOCK, STOP}
"""Files that only a live run needs; they are not packed."""


def pack(path: Path, out: Path) -> BundleManifest:
    """Write a finished run as ``.tar.zst`` or ``.tar.gz``, whichever the name of ``out`` says.

    Raises ConfigError where the run has no result, contradicts itself, holds anything but plain
    files, or ``out`` cannot be written.
    """
    run = Run.open(path)
    outcome = run.outcome
    if outcome is None:
        raise ConfigError(f"{path} has no result yet.", remedy=command("resume", path))
    try:
        manifest = BundleManifest(
            run=plain_name(run.path.resolve().name),
            harness=run.lock.harness,
            task=run.asked.task,
            profile=run.asked.profile,
            metric=outcome.metric,
            score=outcome.score,
            files=tuple(_member(run.path, name) for name in _files(run.path)),
        )
    except ValidationError as error:
        cause = problems(error, BundleManifest)
        raise ConfigError(f"{path / 'result.json'} is damaged.", cause=cause) from error
    check_consistency(path, run.path, manifest)  # a run that could not be verified is not packed
    try:
        with (
            replacing(out) as part,
            _compressed(part, out.name) as stream,
            tarfile.open(fileobj=stream, mode="w|", format=tarfile.USTAR_FORMAT) as tar,
        ):
            _add(tar, NAME, (manifest.model_dump_json(indent=1) + "\n").encode())
            for member in manifest.files:
                content = (run.path / member.path).read_bytes()
                if sha256(content).hexdigest() != member.sha256:
                    raise ConfigError(f"{run.path / member.path} changed while it was packed.")
                _add(tar, member.path, content)
    except ValueError as error:
        raise ConfigError(f"{out} cannot be written.", cause=str(error)) from error
    return manifest


def _files(run: Path) -> Iterator[str]:
    for file in sorted(run.rglob("*"), key=lambda f: f.relative_to(run).as_posix()):
        name = file.relative_to(run).as_posix()
        if name in LEFT_OUT or file.name.startswith("."):
            continue
        plain = file.is_file() or file.is_dir()
        if file.is_symlink() or not plain or not PLAIN.match(name):
            raise ConfigError(
                f"{file} cannot be packed.",
                cause="a bundle holds plain files with plain names, and nothing else",
                remedy="move it out of the run",
            )
        if file.is_file():
            yield name


def _member(run: Path, name: str) -> Member:
    content = (run / name).read_bytes()
    return Member(path=name, bytes=len(content), sha256=sha256(content).hexdigest())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    # TarInfo's defaults: user and group 0 without names, time 1970, mode 0644.
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


@contextmanager
def _compressed(part: Path, name: str) -> Iterator[Any]:
    with part.open("wb") as file:
        if name.endswith(".tar.gz"):
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as stream:
                yield stream
        elif name.endswith(".tar.zst"):
            packer = zstandard().ZstdCompressor(level=LEVEL)
            with packer.stream_writer(file, closefd=False) as stream:
                yield stream
        else:
            raise ConfigError(
                f"{name} does not say what a bundle is packed with.",
                remedy="a name that ends in .tar.zst, or in .tar.gz",
            )


def zstandard() -> Any:  # noqa: ANN401 (a module that may be missing)
    """Return the module ``zstandard``. Raises ConfigError where it is not installed."""
    try:
        import zstandard as module
    except ImportError as error:
        raise ConfigError(
            "Bundles in .tar.zst need the package zstandard.",
            remedy="pip install zstandard, or a name that ends in .tar.gz",
        ) from error
    return module
