"""Reads what tables need of each run from four of its files, and caches it.

The cache is derived and may be deleted at any time. It is never trusted over the files: an entry
is used only while size, time and inode of all four are what they were when it was made. A directory
that cannot be read (damaged, half-written, of a newer format, no run at all) becomes an entry that
says so: nothing is skipped silently, and nothing is written into a run directory.

Run directories may come from strangers: only regular files are read, up to a limit of their size.
"""

import json
import os
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.base.errors import ConfigError
from harness.base.files import open_plain
from harness.base.paths import data_root
from harness.core.asked import REPLAY, Asked, Lockfile
from harness.store.outcome import Outcome
from harness.store.places import scan
from harness.store.rundir import FILES, Run, Stamp, stamp
from sandboxes.registry import isolates
from scorers import conditions
from scorers.score import key

TAIL_BYTES = 1 << 16
VERSION = 4
"""The version of what an entry holds: a cache of another version is rebuilt."""
RACY_NS = 2_000_000_000
"""Runs with a file that changed more recently are not cached: the file could change again without a
change of its time."""

EntryState = Literal["finished", "failed", "interrupted", "unfinished", "skipped"]


class IndexEntry(BaseModel):
    """One run directory. A skipped one has only ``path``, ``state`` and ``problem``."""

    model_config = ConfigDict(frozen=True)
    path: str
    state: EntryState
    problem: str = ""
    asked: Asked | None = None
    lock: Lockfile | None = None
    outcome: Outcome | None = None

    @property
    def key(self) -> dict[str, str]:
        """What must agree before runs are compared; for an unscored run taken from its lock."""
        asked, lock, outcome = self.asked, self.lock, self.outcome
        if outcome is not None and outcome.key is not None:
            found = outcome.key
        elif asked is not None and lock is not None:
            found = key(lock, profile=asked.profile, isolated=isolates(lock.sandbox))
        else:
            return {}
        return {**found, "scorer": conditions.as_today(found.get("scorer", ""))}

    @property
    def is_replay(self) -> bool:
        """Whether it repeats another run."""
        return self.asked is not None and self.asked.agent.startswith(REPLAY)


def cache_file() -> Path | None:
    """Return the path of the cache: beside the prepared data, never among runs. May be None."""
    try:
        return data_root() / "runs.sqlite"
    except ConfigError:  # no home folder: there is no cache
        return None


def entries(places: Iterable[Path], *, cache: Path | None = None) -> list[IndexEntry]:
    """Return an entry for each directory at or under the places, sorted by name.

    Looks into folders of runs, and into folders of sweeps within them. ``cache``: the file of the
    cache; it is ignored where it cannot be read or written. Raises ConfigError where a place does
    not exist.
    """
    paths = list(dict.fromkeys(scan(places)))
    if cache is None:
        return [read(path) for path in paths]
    known = _load(cache, paths)
    found, fresh = [], []
    now = time.time_ns()
    for path in paths:
        name = str(path.absolute())
        current = stamp(path)
        kept = known.get(name)
        if kept is not None and kept[0] == current:
            try:
                entry = IndexEntry.model_validate_json(kept[1])
                found.append(entry.model_copy(update={"path": str(path)}))
                continue
            except ValidationError:
                pass
        entry = read(path)
        found.append(entry)
        newest = max((s[1] for s in current if s), default=now)
        utf8 = name.encode(errors="replace").decode() == name  # a name need not be
        if utf8 and entry.state != "skipped" and newest + RACY_NS < now and current == stamp(path):
            fresh.append((name, json.dumps(current), entry.model_dump_json()))
    _save(cache, fresh)
    return found


def read(path: Path) -> IndexEntry:
    """Read one directory; what is wrong with it becomes its ``problem``."""
    if not (path / "run.toml").exists():
        began = any((path / name).exists() for name in FILES[1:])
        problem = "half-written: it has no run.toml" if began else "no run directory"
        return IndexEntry(path=str(path), state="skipped", problem=problem)
    state: EntryState
    run = Run(path)
    try:
        asked, lock = run.asked, run.lock
        outcome = run.outcome
        if outcome is not None:
            _refuse_other(run, outcome)
        state, problem = ("finished", "") if outcome else _ending(path / "events.jsonl")
    except ConfigError as error:
        why = " ".join(filter(None, (error.message, *error.cause.splitlines()[:1])))
        return IndexEntry(path=str(path), state="skipped", problem=why.replace(f"{path}/", ""))
    return IndexEntry(
        path=str(path), state=state, problem=problem, asked=asked, lock=lock, outcome=outcome
    )


def _refuse_other(run: Run, outcome: Outcome) -> None:
    """Raise ConfigError where the result does not belong to the request and the lock."""
    for name in ("task", "profile", "agent", "policy", "seed"):
        then, now = getattr(outcome, name), getattr(run.asked, name)
        if then is not None and then != now:
            raise ConfigError(f"result.json says {name} {then!r:.80}, run.toml {now!r:.80}")
    if outcome.lock and outcome.lock != run.lock_digest:
        raise ConfigError("lock.json was edited after the run ended")


def _ending(journal: Path) -> tuple[EntryState, str]:
    """Return an unfinished run's state and message by its last whole line, its chain unchecked."""
    try:
        with open_plain(journal) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read(TAIL_BYTES).split(b"\n")[:-1]
        last = json.loads(lines[-1]) if lines else {}
    except FileNotFoundError:
        return "unfinished", ""
    except (OSError, ValueError, RecursionError):
        raise ConfigError("events.jsonl is damaged at its end") from None
    if not isinstance(last, dict) or last.get("event") != "closed":
        return "unfinished", ""
    message = str(last.get("message", ""))[:1000]
    status = last.get("status")
    return (status if status in ("failed", "interrupted") else "unfinished"), message


def _load(cache: Path, paths: list[Path]) -> dict[str, tuple[Stamp, str]]:
    """Return what the cache holds of these paths; nothing where it cannot be used."""
    wanted = {str(path.absolute()) for path in paths}
    try:
        with closing(_open(cache)) as base:
            rows = base.execute("SELECT path, stamp, entry FROM runs").fetchall()
        return {
            path: (tuple(tuple(s) if s else None for s in json.loads(kept)), entry)
            for path, kept, entry in rows
            if path in wanted
        }
    except (sqlite3.Error, OSError, ValueError, TypeError):
        return {}


def _save(cache: Path, fresh: list[tuple[str, str, str]]) -> None:
    if not fresh:
        return
    for _ in range(2):
        try:
            with closing(_open(cache)) as base, base:
                base.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", fresh)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                return  # locked, read-only or full: the next call may write it
            cache.unlink(missing_ok=True)  # not a database, or damaged
        except OSError:
            return
        else:
            return


def _open(cache: Path) -> sqlite3.Connection:
    cache.parent.mkdir(parents=True, exist_ok=True)
    base = sqlite3.connect(cache, timeout=1.0)
    try:
        if base.execute("PRAGMA user_version").fetchone()[0] != VERSION:
            with base:
                base.execute("DROP TABLE IF EXISTS runs")
                base.execute("CREATE TABLE runs (path TEXT PRIMARY KEY, stamp TEXT, entry TEXT)")
                base.execute(f"PRAGMA user_version = {VERSION}")
    except sqlite3.Error:
        base.close()
        raise
    return base
