"""What a task scores without learning anything, as measured when its data were prepared."""

from typing import Any

from harness.errors import ConfigError
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


def baselines(run: Run) -> dict[str, float]:
    """Return a run's baselines on the test split by name; empty where the data are gone."""
    from pathlib import Path

    try:
        manifest = read_json(Path(run.lock.data) / "manifest.json")
    except ConfigError:
        return {}
    found = manifest.get("baselines", {})
    return {n: found[f"{n}_test"] for n in NAMES if f"{n}_test" in found}


def baselines_of(result: dict[str, Any]) -> str:
    """Return the baselines of a result's run in words; empty if unknown."""
    from pathlib import Path

    known = baselines(Run(Path(result["run"])))
    return ", ".join(f"{NAMES[n]} {v:.4f}" for n, v in known.items())
