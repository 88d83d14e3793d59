"""Score a node of a run again: the same files and seed, under today's judge.

The old score is never changed; the new one is a file in the run's folder ``rescores``.
"""

import secrets
from datetime import UTC, datetime
from pathlib import Path

from harness.base.commands import command
from harness.base.errors import ConfigError
from harness.base.files import write_whole
from harness.launch.by_hand import ByHand, Watcher
from harness.search.local import LocalEvaluator
from harness.store.loading import load
from harness.store.reading import read_as
from harness.store.rundir import FINAL
from sandboxes.registry import AUTO, BACKENDS, isolates
from scorers.score import Score


def rescore(
    path: Path, node: int | None, screen: Watcher, *, sandbox: str | None = None
) -> tuple[Score, Score, Path]:
    """Score a node again (the final one by default); return old score, new score, its file.

    ``sandbox``: the sandbox to use; else the run's if it isolates, else the best that is here.
    Raises ConfigError if there is no score, and where nothing that isolates works.
    """
    run, _, state = load(path)
    folder = run.path / FINAL if node is None else run.node_dir(node)
    if not (folder / "score.json").exists():
        what = "no final score" if node is None else f"no score of node {node}"
        raise ConfigError(f"{path} has {what}.", remedy=command("show", path))
    old = read_as(Score, folder / "score.json")
    number = state.finalist if node is None else node
    if number is None or number not in state.tree:
        raise ConfigError(f"The journal of {path} does not know that node.")
    run.refuse_unwritable()
    stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    file = run.path / "rescores" / f"{FINAL if node is None else number}-{stamp}.json"
    here = {"sandbox": sandbox or _isolating(run.lock.sandbox), "executor": LocalEvaluator.name}
    asked = run.asked.model_copy(update=here)
    with ByHand(asked, screen, trusted=False, hardware=run.lock.hardware) as bench:
        file.parent.mkdir(exist_ok=True)
        new = bench.score(
            state.tree[number].files,
            split=old.conditions.split,
            seed=old.conditions.training_seed,
            log=file.with_suffix(".log"),
        )
    write_whole(file, new.model_dump_json(indent=2) + "\n")
    return old, new, file


def _isolating(recorded: str) -> str:
    """Return the sandbox that a run recorded, or ``auto`` if that one does not isolate.

    The run may be a stranger's, and its code a model's: only the user may say that it runs without
    isolation, a file may not.
    """
    return AUTO if recorded in BACKENDS and not isolates(recorded) else recorded
