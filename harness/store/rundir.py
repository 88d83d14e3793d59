"""The run directory: what was asked, what it resolved to, and what happened.

    run.toml       what was asked                     lock.json    what it resolved to
    events.jsonl   the journal, the only state        result.json  written once, at the end
    nodes/0007/    the submission's files, stdout.log, score.json, calls/
    prompts/       system texts that the recorded calls share
    final/         the same for the final retraining
    stop           exists once somebody asked the run to stop

Files are written whole (temporary name, fsync, rename), so that a reader never sees half a file.
"""

import fcntl
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import tomlkit
from filelock import FileLock, Timeout

from harness.base.commands import command, quote
from harness.base.digests import digest
from harness.base.errors import ConfigError
from harness.base.files import fresh_folder, open_plain, read_json, read_plain, write_whole
from harness.base.paths import plain_name
from harness.core.asked import Asked, Lockfile
from harness.store.journal import Event, Journal, read
from harness.store.outcome import Outcome
from harness.store.reading import read_as
from harness.store.unchanged import refuse_edited

LOCK, STOP, SWEEP, FINAL = ".lock", "stop", "sweep.toml", "final"

SCORES, REQUESTS, LOGS = "scores", "asked", "logs"
"""Folders among runs that are not runs: scores by hand; a sweep's requests, and its runs' logs."""

FILES = ("run.toml", "lock.json", "result.json", "events.jsonl")
"""The files of a run that tell how far it is."""

Stamp = tuple[tuple[int, int, int] | None, ...]
"""Size, time and inode of each of ``FILES``; None for a file that is not there."""

StopWhen = Literal["step", "now"]
"""When a requested stop takes effect: after the nodes under way, or at once without them."""

PROBE_S = 0.5
"""How long ``hold`` waits for the lock: ``is_held`` in another process takes it for an instant."""


class Run:
    """One run directory. Call ``with run.hold():`` before writing anything to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name

    @classmethod
    def create(cls, runs_dir: Path, asked: Asked, lock: Lockfile, *, name: str = "") -> "Run":
        """Make a new run directory; its name is made up unless ``name`` is given.

        Raises ConfigError where that name is taken. Leaves nothing behind if it fails.
        """
        if name in (SCORES, REQUESTS, LOGS):
            raise ConfigError(
                f"No run can be called {name}: a folder of that name holds something else.",
                remedy="another --name",
            )
        stem = name or "_".join(
            (
                f"{datetime.now(UTC):%Y%m%d-%H%M%S}",
                asked.task,
                asked.profile,
                asked.agent.partition(":")[0],  # without a replay's path: names are short
                asked.policy,
                str(asked.seed),
            )
        )
        path = runs_dir / plain_name(stem)
        try:
            if name:
                runs_dir.mkdir(parents=True, exist_ok=True)
                path.mkdir()
            else:
                path = fresh_folder(runs_dir, path.name)
        except OSError as error:
            if name and path.is_dir():
                raise ConfigError(
                    f"There is a run at {path} already.",
                    remedy=f"{command('resume', path)}, or another --name",
                ) from None
            raise ConfigError(
                f"{runs_dir} cannot hold runs.", cause=str(error), remedy="--runs-dir DIR"
            ) from error
        try:
            (path / "nodes").mkdir()
            lock = lock.model_copy(update={"asked": asked})
            # lock.json first: a directory with a run.toml can be resumed.
            write_whole(path / "lock.json", lock.model_dump_json(indent=2) + "\n")
            write_asked(path / "run.toml", asked)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return cls(path)

    def remove_unbegun(self) -> None:
        """Remove the directory if no node was begun: a refused run leaves nothing behind."""
        with suppress(OSError, ConfigError):
            events = read(self.path / "events.jsonl")
            if not self.is_held() and all(event.kind in ("opened", "closed") for event in events):
                shutil.rmtree(self.path)

    @classmethod
    def open(cls, path: Path) -> "Run":
        """Open a run directory. Raises ConfigError if it is not one, is damaged or newer."""
        run = cls(path)
        if not path.is_dir():
            near = Path("runs") / path
            raise ConfigError(
                f"There is no run at {path}.",
                remedy=f"did you mean {near}?" if near.is_dir() else "harness ls",
            )
        if not (path / "run.toml").exists():
            raise ConfigError(
                f"{path} is not a run directory: it has no run.toml.", remedy="harness ls"
            )
        _ = run.asked, run.lock
        return run

    # Read once: later edits of the file do not change a run in progress.
    @cached_property
    def asked(self) -> Asked:
        """``run.toml``. Raises ConfigError where it is damaged, newer, or has a forbidden edit."""
        file = self.path / "run.toml"
        asked = read_as(Asked, file)
        refuse_edited(asked, self.lock, file)
        return asked

    @cached_property
    def lock(self) -> Lockfile:
        """``lock.json``. Raises ConfigError where it is damaged or newer."""
        return read_as(Lockfile, self.path / "lock.json")

    @cached_property
    def lock_digest(self) -> str:
        """The digest by which journal and result identify ``lock.json``."""
        return digest(read_plain(self.path / "lock.json"))

    def refuse_other_lock(self, events: Iterable[Event]) -> None:
        """Raise ConfigError where ``lock.json`` is not the one that the journal began with."""
        named = [e.data["lock"] for e in events if e.kind == "opened" and "lock" in e.data]
        if named and named[0] != self.lock_digest:
            raise ConfigError(
                f"{self.path / 'lock.json'} was edited after the run began.",
                cause=f"its SHA-256 began with {named[0]} then, with {self.lock_digest} now",
                remedy="restore it from a copy of the run",
            )

    @property
    def result(self) -> dict[str, Any] | None:
        """``result.json``, or None while the run has not ended."""
        file = self.path / "result.json"
        return read_json(file) if file.exists() else None

    @property
    def outcome(self) -> Outcome | None:
        """The fields of ``result.json`` that are read again, each checked. Raises ConfigError."""
        file = self.path / "result.json"
        return read_as(Outcome, file) if file.exists() else None

    def node_dir(self, number: int) -> Path:
        """Return the folder of a node."""
        return self.path / "nodes" / f"{number:04d}"

    @property
    def training_seeds(self) -> dict[int, int]:
        """The seed that each scored node was trained with, by the node's number."""
        scores = sorted(self.path.glob("nodes/[0-9]*/score.json"))
        found = {int(f.parent.name): read_json(f).get("conditions") for f in scores}
        seeds = {n: c.get("training_seed") for n, c in found.items() if isinstance(c, dict)}
        return {n: seed for n, seed in seeds.items() if isinstance(seed, int)}

    def log(self, number: int) -> str:
        """Return what a node's submission printed on the search split, or ""; never on the test."""
        file = self.node_dir(number) / "stdout.log"
        try:
            return read_plain(file).decode(errors="replace")
        except OSError:
            return ""

    def journal(self) -> Journal:
        """Open the journal for appending."""
        return Journal(self.path / "events.jsonl")

    def hold(self) -> FileLock:
        """Lock the directory for this process; the kernel frees it on a crash.

        Raises ConfigError if another process holds it.
        """
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=PROBE_S)
        except Timeout:
            raise ConfigError(
                f"Another process is working on {self.path}.",
                remedy=f"wait for it, or {command('stop', self.path)}, "
                f"then: {command('resume', self.path)}",
            ) from None
        return lock

    def refuse_unwritable(self) -> None:
        """Raise ConfigError if the directory cannot be written to; to be called before any work."""
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise ConfigError(
                f"{self.path} cannot be written: it is somebody else's, or read-only.",
                remedy=f"as its owner; or on a copy: cp -r {quote(self.path)} runs/",
            )

    def is_held(self) -> bool:
        """Return whether a live process works on this run. Writes nothing."""
        try:
            descriptor = os.open(self.path / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            # A shared lock: two processes that check at once must not take each other for the run.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return False

    def ask_to_stop(self, when: StopWhen) -> None:
        """Ask the process that works on this run, now or next, to end it with a result."""
        write_whole(self.path / STOP, f"{when}\n")

    @property
    def stop_asked(self) -> StopWhen | None:
        """When the run is to stop, or None. Everything in the file but "now" means "step"."""
        try:
            with open_plain(self.path / STOP) as file:
                return "now" if file.read(4).startswith(b"now") else "step"
        except OSError:
            return None


def stamp(path: Path) -> Stamp:
    """Return what tells whether any of a run's ``FILES`` was changed."""
    found: list[tuple[int, int, int] | None] = []
    for name in FILES:
        try:
            seen = os.stat(f"{path}/{name}")  # noqa: PTH116 (2,400 x 4 calls)
            found.append((seen.st_size, seen.st_mtime_ns, seen.st_ino))
        except OSError:
            found.append(None)
    return tuple(found)


def write_asked(file: Path, asked: Asked) -> None:
    """Write a request in the format of ``run.toml``."""
    values = asked.model_dump(mode="json", exclude_none=True)  # TOML has no null
    write_whole(file, tomlkit.dumps(values))
