"""Whether a run is whole, and its files say the same: before it is packed, and once unpacked."""

from pathlib import Path

from harness.base.errors import ConfigError
from harness.report.bundle.manifest import Manifest
from harness.store.loading import load
from harness.store.reading import read_as
from harness.store.rundir import FINAL, Run
from harness.store.state import State
from scorers.score import Score


def agree(named: Path, folder: Path, manifest: Manifest) -> tuple[Run, State, Score | None]:
    """Return the run in ``folder``, its state and its final score, once all agree.

    ``named`` is what it is called in messages. Raises ConfigError where something is damaged,
    missing, or contradicts the manifest.
    """
    run, _, state = load(folder)  # the chain of the journal, and each node's files by its hashes
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
