"""Finds run directories in the folders that a user named, and in folders of sweeps within them."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.base.errors import ConfigError
from harness.store.rundir import LOGS, REQUESTS, SCORES, SWEEP


def scan(places: Iterable[Path]) -> Iterator[Path]:
    """Yield every directory at or under the places that is, or should be, a run; sorted by name.

    Raises ConfigError where a place does not exist.
    """
    for place in places:
        if (place / "run.toml").exists():
            yield place
        elif place.is_dir():
            yield from _folders(place, deeper=True)
        else:
            raise ConfigError(
                f"There is no run and no folder of runs at {place}.", remedy="harness ls"
            )


def find_runs(places: Iterable[Path]) -> Iterator[Path]:
    """Yield the directories of ``scan`` that have a ``run.toml``."""
    return (path for path in scan(places) if (path / "run.toml").exists())


def _folders(place: Path, *, deeper: bool) -> Iterator[Path]:
    with os.scandir(place) as found:
        names = sorted(e.name for e in found if not e.name.startswith(".") and e.is_dir())
    other = (LOGS, REQUESTS) if (place / SWEEP).exists() else (SCORES,)
    for name in names:
        path = place / name
        if deeper and not (path / "run.toml").exists() and (path / SWEEP).exists():
            yield from _folders(path, deeper=False)
        elif name not in other:
            yield path
