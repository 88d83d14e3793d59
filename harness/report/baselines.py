"""Baselines of a task: scores of simple guesses, measured when its data were prepared.

This module reads them from the manifest of the data and names them; it measures nothing.
"""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from harness.base.errors import ConfigError
from harness.base.files import read_json
from harness.base.text import one_line
from harness.base.validation import sensible
from harness.store.index import IndexEntry
from harness.store.rundir import Run
from tasks.spec import find_task

MOST, LONGEST = 32, 60
"""The most baselines of a task, and the most characters of a name, that are shown."""

ScoredSplit = Literal["search", "test"]


def baselines(run: Run, split: ScoredSplit = "test") -> dict[str, float]:
    """Return a run's baselines on a split by name; empty if the data are gone.

    Values that a table cannot hold are left out: anybody could have edited the file.
    """
    try:
        found = read_json(Path(run.lock.data) / "manifest.json").get("baselines")
    except ConfigError:
        return {}
    values = islice(found.items(), 2 * MOST) if isinstance(found, dict) else ()
    by_split = {_name_and_split(key): value for key, value in values if sensible(value)}
    return {name: value for (name, of), value in by_split.items() if of == split}


def _name_and_split(key: str) -> tuple[str, ScoredSplit]:
    """Return the baseline's name and the split it was measured on: search if the key names none."""
    if key.endswith("_test"):
        return key.removesuffix("_test"), "test"
    return key.removesuffix("_search"), "search"


def by_display_name(task: str, values: Mapping[str, float]) -> dict[str, float]:
    """Return baselines by the names that their task displays; by bare names without the task.

    A name with a dot is of one part of the data: only ``harness prepare`` shows it.
    """
    try:
        words = find_task(task).definition.baselines
    except ConfigError:
        words = {}
    return {
        one_line(words.get(name, name.replace("_", " ")), LONGEST): value
        for name, value in values.items()
        if "." not in name
    }


def baselines_of_entry(entry: IndexEntry, split: ScoredSplit = "test") -> dict[str, float]:
    """Return the baselines of a run's task on a split, by the names that the task displays."""
    found = baselines(Run(Path(entry.path)), split)
    return by_display_name(entry.asked.task, found) if entry.asked and found else {}


def baselines_of(result: dict[str, Any]) -> str:
    """Return the baselines of a result's run as text; empty if unknown."""
    found = by_display_name(result["task"], baselines(Run(Path(result["run"]))))
    return ", ".join(f"{name} {value:.4f}" for name, value in found.items())
