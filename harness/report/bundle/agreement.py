"""Check that a run is complete and that all its files give the same score.

Used before a run is packed and after it is unpacked.
"""

from pathlib import Path

from harness.base.errors import ConfigError
from harness.report.bundle.manifest import BundleManifest
from harness.store.loading import load
from harness.store.reading import read_as
from harness.store.rundir import FINAL, Run
from harness.store.state import RunState
from scorers.score import Score


def check_consistency(
    named: Path, folder: Path, manifest: BundleManifest
) -> tuple[Run, RunState, Score | None]:
    """Return the run in ``folder``, its state and its final score, once all files agree.

    ``named`` is the path that messages show. Raises ConfigError where a file is damaged or
    missing, or contradicts the manifest.
    """
    run, _, state = load(folder)  # checks the journal's chain and the hashes of each node's files
    outcome = run.outcome
    if outcome is None:
        raise ConfigError(f"{named} holds a run without a result.")
    old = _final_score(folder)
    if old is None and state.final is not None:
        raise ConfigError(
            f"{named} lacks {FINAL}/score.json, which its journal tells of.",
            remedy="restore it from a copy",
        )
    found = {"result.json": outcome.score, "events.jsonl": None}
    if state.final is not None:
        found["events.jsonl"] = state.final["score"]
    if old is not None:
        found[f"{FINAL}/score.json"] = old.score
    for where, score in found.items():
        if score != manifest.score:
            raise ConfigError(
                f"{named} contradicts itself: {where} has the score {score}, "
                f"the manifest {manifest.score}."
            )
    return run, state, old


def _final_score(folder: Path) -> Score | None:
    file = folder / FINAL / "score.json"
    if not file.exists():
        return None
    return read_as(Score, file)
