"""The run directory: what was asked, what it resolved to, and what happened.

    run.toml       what was asked                     lock.json    what it resolved to
    events.jsonl   the journal, the only state        result.json  written once, at the end
    nodes/0007/    the submission's files, submission.json, stdout.log, score.json
    final/         the same for the final retraining

Files are written whole (temporary name, fsync, rename), so that a reader never sees half.
"""

import json
import os
import re
import secrets
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import tomlkit
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import ConfigError
from harness.search.journal import Journal

FORMAT = 1


class Asked(BaseModel):
    """``run.toml``: the command line, with its defaults filled in."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: int = FORMAT
    task: str
    profile: str
    agent: str
    policy: str
    settings: tuple[str, ...] = ()
    steps: int
    time_s: float
    seed: int
    sandbox: Literal["auto", "docker", "bubblewrap", "process"]
    workers: int = 1
    data: dict[str, str] = Field(default_factory=dict)
    """What replaces values of the profile's ``data``: source, byte_counts."""


class Locked(BaseModel):
    """``lock.json``: what the names stood for when the run began."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: int = FORMAT
    harness: str
    task_hash: str
    data_hash: str
    data: str
    scorer: str
    sandbox: str
    policy: dict[str, float | int | str]
    versions: dict[str, str]
    hardware: dict[str, str | int]
    direction: Literal["maximize", "minimize"] = "maximize"
    audit_key: str
    """Drawn once a run; with it the judge derives serving orders that nobody can foresee."""

    @property
    def maximize(self) -> bool:
        """Whether a larger score is a better one."""
        return self.direction == "maximize"

    @property
    def best(self) -> Callable[..., Any]:
        """The built-in that picks the best of several scores."""
        return max if self.maximize else min


class Run:
    """One run directory. ``with run.hold():`` before anything is written to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name

    @classmethod
    def create(cls, runs_dir: Path, asked: Asked, lock: Locked) -> "Run":
        """Make a new run directory under a name of its own."""
        stem = "_".join(
            (
                f"{datetime.now(UTC):%Y%m%d-%H%M%S}",
                asked.task.replace("/", "-"),
                asked.profile,
                asked.agent,
                asked.policy,
                str(asked.seed),
            )
        )
        stem = re.sub(r"[^A-Za-z0-9._-]", "-", stem)
        try:
            runs_dir.mkdir(parents=True, exist_ok=True)
            path = runs_dir / stem
            for attempt in range(2, 1000):
                try:
                    path.mkdir()
                    break
                except FileExistsError:
                    path = runs_dir / f"{stem}.{attempt}"
        except OSError as error:
            raise ConfigError(
                f"{runs_dir} cannot hold runs.", cause=str(error), remedy="--runs-dir DIR"
            ) from error
        (path / "nodes").mkdir()
        # lock.json first: a directory with a run.toml can be resumed.
        write_whole(path / "lock.json", lock.model_dump_json(indent=2) + "\n")
        write_whole(path / "run.toml", tomlkit.dumps(asked.model_dump(mode="json")))
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "Run":
        """Open an existing run directory. Raises ConfigError where it is none, or is newer."""
        run = cls(path)
        if not path.is_dir():
            near = [p for p in (Path("runs") / path,) if p.is_dir()]
            raise ConfigError(
                f"There is no run at {path}.",
                remedy=f"did you mean {near[0]}?" if near else "harness ls",
            )
        if not (path / "run.toml").exists():
            raise ConfigError(
                f"{path} is not a run directory: it has no run.toml.", remedy="harness ls"
            )
        _ = run.asked, run.lock
        return run

    @property
    def asked(self) -> Asked:
        """``run.toml``. Raises ConfigError where it is damaged or newer."""
        file = self.path / "run.toml"
        try:
            values = tomllib.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file} cannot be read.", cause=str(error)) from error
        return _validate(Asked, values, file)

    @property
    def lock(self) -> Locked:
        """``lock.json``. Raises ConfigError where it is damaged or newer."""
        return _validate(Locked, read_json(self.path / "lock.json"), self.path / "lock.json")

    @property
    def result(self) -> dict[str, Any] | None:
        """``result.json``, or None while the run has not ended."""
        file = self.path / "result.json"
        return read_json(file) if file.exists() else None

    def node_dir(self, number: int) -> Path:
        """Return the folder of a node."""
        return self.path / "nodes" / f"{number:04d}"

    def journal(self) -> Journal:
        """Open the journal for appending."""
        return Journal(self.path / "events.jsonl")

    def hold(self) -> FileLock:
        """Lock the directory for this process; the kernel frees it on a crash.

        Raises ConfigError if another process holds it.
        """
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(
                f"Another process is working on {self.path}.",
                remedy="wait for it, or stop it with Ctrl-C, then: harness resume "
                + str(self.path),
            ) from None
        return lock

    def is_held(self) -> bool:
        """Return whether a live process works on this run."""
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False


def find_runs(places: list[Path]) -> Iterator[Path]:
    """Yield the run directories at or directly under each place, oldest name first."""
    for place in places:
        if (place / "run.toml").exists():
            yield place
        elif place.is_dir():
            yield from sorted(p.parent for p in place.glob("*/run.toml"))
        else:
            raise ConfigError(
                f"There is no run and no folder of runs at {place}.", remedy="harness ls"
            )


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_json(file: Path) -> dict[str, Any]:
    """Return a JSON object from a file. Raises ConfigError naming the file."""
    try:
        value = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read.", cause=str(error)) from error
    if not isinstance(value, dict):
        raise ConfigError(f"{file} holds no JSON object.")
    return value


M = TypeVar("M", bound=BaseModel)


def _validate(model: type[M], values: dict[str, Any], file: Path) -> M:
    version = values.get("format")
    if version != FORMAT:
        raise ConfigError(
            f"{file} has format {version}; this harness reads {FORMAT}.",
            remedy="a newer version of the harness",
        )
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{file} is damaged.", cause=str(error)) from error
