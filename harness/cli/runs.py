"""What the commands that read runs share: where the runs are, and the option --across."""

from pathlib import Path
from typing import Annotated

import typer

from harness.base.errors import ConfigError
from harness.base.validation import did_you_mean
from harness.cli.common import RUNS_DIR, run_path
from harness.store.index import IndexEntry, cache_file, entries
from scorers.score import CONDITIONS

RunPlaces = Annotated[
    list[Path] | None,
    typer.Argument(metavar="RUNS", help="Runs, or folders of runs (default: runs)."),
]
Across = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CONDITION",
        help="A condition that may differ (hardware, torch, scorer …); repeatable.",
    ),
]


def entries_at(places: list[Path] | None) -> list[IndexEntry]:
    """Return what ``harness.store.index.entries`` does, for paths or bare names of runs."""
    return entries([run_path(place) for place in places or [RUNS_DIR]], cache=cache_file())


def checked_across(names: list[str] | None) -> frozenset[str]:
    """Return the conditions that may differ. Raises ConfigError for an unknown name."""
    for name in names or ():
        if name not in CONDITIONS:
            raise ConfigError(
                f"Scores have no condition {name!r}.", remedy=did_you_mean(name, list(CONDITIONS))
            )
    return frozenset(names or ())
