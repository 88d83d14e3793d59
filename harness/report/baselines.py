"""What a task scores without learning anything, as measured when its data were prepared."""

from pathlib import Path
from typing import Any, Literal

from harness.errors import ConfigError
from harness.report.sound import sensible
from harness.runs.rundir import Run, read_json

NAMES = {
    "chance": "chance",
    "majority": "majority class",
    "first_token": "first token alone",
    "word_counts": "word counts",
    "shared_pieces": "shared pieces of text",
    "nearest_mean": "nearest mean image",
    "unigram": "unigram",
    "ngram": "4-gram",
}


def baselines(run: Run, split: Literal["search", "test"] = "test") -> dict[str, float]:
    """Return a run's baselines on a split by name; empty where the data are gone.

    What is no number that a table can hold is left out: the file is on somebody's disk.
    """
    try:
        found = read_json(Path(run.lock.data) / "manifest.json").get("baselines")
    except ConfigError:
        return {}
    suffix = "_test" if split == "test" else ""
    known = found if isinstance(found, dict) else {}
    return {n: known[n + suffix] for n in NAMES if sensible(known.get(n + suffix))}


def baselines_of(result: dict[str, Any]) -> str:
    """Return the baselines of a result's run in words; empty if unknown."""
    known = baselines(Run(Path(result["run"])))
    return ", ".join(f"{NAMES[n]} {v:.4f}" for n, v in known.items())
