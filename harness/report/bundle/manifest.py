"""``MANIFEST.json``, the first file of a bundle: every other file with its size and SHA-256.

``check_consistency`` compares it with the run, before the run is packed and after it is unpacked.
"""

import re
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from harness.base.errors import ConfigError
from harness.base.strict import Strict
from harness.store.loading import load
from harness.store.reading import read_as
from harness.store.rundir import FINAL, Run
from harness.store.state import RunState
from scorers.score import Score

NAME = "MANIFEST.json"
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.+@ -]{0,127}"
PLAIN = re.compile(rf"^{_PART}(/{_PART}){{0,7}}\Z")
"""A relative path inside a run, of 1 to 8 parts: no part is hidden, and none is ``..``."""


class Member(Strict):
    """One file of the run."""

    path: str = Field(max_length=255)
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class BundleManifest(Strict):
    """The files of a bundle, and the score it claims: the final one on the hidden test split."""

    model_config = ConfigDict(allow_inf_nan=False)
    format: Literal[1] = 1
    kind: Literal["harness run"] = "harness run"
    run: str = Field(max_length=255, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    harness: str = Field(max_length=64)
    task: str = Field(max_length=255)
    profile: str = Field(max_length=255)
    metric: str = Field(max_length=64)
    score: float | None
    files: tuple[Member, ...]


def check_consistency(
    named: Path, folder: Path, manifest: BundleManifest
) -> tuple[Run, RunState, Score | None]:
    """Return the run in ``folder``, its state and its final score, once all files agree.

    ``named`` is the path that messages show. Raises ConfigError where a file is damaged or
    missing, or contradicts the manifest.
    """
    run, _, state = load(folder)  # checks the journal's chain and the hashes of each node's files
    if run.outcome is None:
        raise ConfigError(f"{named} holds a run without a result.")
    file = folder / FINAL / "score.json"
    final = read_as(Score, file) if file.exists() else None
    if final is None and state.final is not None:
        raise ConfigError(
            f"{named} lacks {FINAL}/score.json, which its journal tells of.",
            remedy="restore it from a copy",
        )
    found = {
        "result.json": run.outcome.score,
        "events.jsonl": state.final["score"] if state.final else None,
    }
    if final is not None:
        found[f"{FINAL}/score.json"] = final.score
    for where, score in found.items():
        if score != manifest.score:
            raise ConfigError(
                f"{named} contradicts itself: {where} has the score {score}, "
                f"the manifest {manifest.score}."
            )
    return run, state, final
