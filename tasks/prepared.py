"""A folder of prepared data: made once, by one process at a time, either complete or absent.

The folder is written under a hidden name beside its final name and renamed last. A file lock,
which the kernel frees when its process ends, prevents two processes from making the same data.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from harness.base.errors import ConfigError
from harness.base.strict import Strict
from harness.base.validation import problems
from tasks.definition import Manifest, Progress, Value
from tasks.shared import cause_and_remedy, make_folder, open_lock, set_modes

CHECKSUM_ON_REUSE_BYTES = 100_000_000
"""Checksums of data below this size are checked before reuse: that takes under a second."""


P = TypeVar("P", bound=Strict)


def check(kind: type[P], task: str, profile: str, data: Mapping[str, Value]) -> P:
    """Return a profile's ``data`` table as parameters. Raises ConfigError."""
    try:
        return kind.model_validate(dict(data))
    except ValidationError as error:
        raise ConfigError(
            f"The data table of {task}, profile {profile}, is wrong.", cause=problems(error, kind)
        ) from error


class PreparationLock:
    """Holds a file lock; reports to ``progress`` while it waits for it."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self._path = path
        self._progress = progress
        self._held: int | None = None

    def __enter__(self) -> None:
        self._held = open_lock(self._path)
        waits = 0
        while self._held is not None:
            try:
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waits % 10 == 0:
                    self._progress("waiting for another process that makes this data", 0, 1)
                waits += 1
                time.sleep(0.05)
            else:
                return

    def __exit__(self, *_: object) -> None:
        if self._held is not None:
            fcntl.flock(self._held, fcntl.LOCK_UN)  # a forked child may hold a copy
            os.close(self._held)


def prepared(
    root: Path,
    name: str,
    *,
    task: str,
    fault: Callable[[Path], str],
    build: Callable[[Path], None],
    progress: Progress,
) -> Path:
    """Return the folder ``root/name``; make it if it is missing or incomplete.

    ``fault`` returns what is wrong with a folder, or ""; ``build`` fills an empty one, its manifest
    last. Raises ConfigError if ``root`` cannot be written, and what ``build`` raises.
    """
    folder, unfinished = root / name, root / f".{name}.part"
    try:
        make_folder(root)
        with PreparationLock(root / f".{name}.lock", progress):
            found = fault(folder)
            if found == "":
                return folder
            if folder.exists():
                progress(f"rebuilding, for {found}", 0, 1)
            shutil.rmtree(unfinished, ignore_errors=True)
            if unfinished.exists():  # left by another user's killed process
                unfinished = root / f".{name}.{os.getuid()}.part"
                shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(mode=0o755)
            try:
                build(unfinished)
                set_modes(unfinished)  # before others can see it
            except BaseException:
                # An unfinished folder would take up space that the next attempt needs.
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
            shutil.rmtree(folder, ignore_errors=True)
            unfinished.rename(folder)
    except OSError as error:
        if _is_of_the_source(error, root):
            raise
        cause, remedy = cause_and_remedy(error, root)
        what = "read" if folder in Path(str(error.filename)).parents else "written"
        raise ConfigError(
            f"The data of {task} cannot be {what} under {root}.", cause=cause, remedy=remedy
        ) from error
    return folder


def _is_of_the_source(error: OSError, root: Path) -> bool:
    """Return whether the error came from reading the data's source, not from writing ``root``."""
    if not isinstance(error.filename, str) or error.errno in (errno.ENOSPC, errno.EDQUOT):
        return False
    path = Path(error.filename)
    return not (path.is_relative_to(root) or root.is_relative_to(path))


def altered(folder: Path, files: Mapping[str, str]) -> str:
    """Return which of ``files`` (name → SHA-256) has changed, or "".

    Contents are checked only if all files together are small. Raises OSError.
    """
    paths = {name: folder / name for name in files}
    if sum(path.stat().st_size for path in paths.values()) < CHECKSUM_ON_REUSE_BYTES:
        for name, path in paths.items():
            if checksum(path) != files[name]:
                return f"{name} does not have the content it was written with"
    return ""


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` by atomic rename: with it the folder is complete."""
    beside = folder / "manifest.json.part"
    with beside.open("w") as out:
        out.write(json.dumps(manifest.model_dump(), indent=2) + "\n")
        out.flush()
        os.fsync(out.fileno())
    beside.rename(folder / "manifest.json")


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file in hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
