"""Builds run directories like those of real runs, with the real classes and with given scores.

Nothing is executed or judged. made.py builds larger runs, with prompts, responses and logs.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from harness.core.asked import Asked, Lockfile
from harness.core.budget import Budget
from harness.core.writing import Writing
from harness.launch.result import write_result
from harness.store.journal import Journal
from harness.store.rundir import Run
from harness.store.state import how_far, rebuild
from scorers.score import Conditions, Score

SOURCE = "x = 1\n"
HARDWARE = {"cpu": "EPYC", "cores": 2}
VERSIONS = {"python": "3.11.7", "torch": "2.13.0", "numpy": "2.4.6"}
ROWS = 1000
BITS = {"task": "autoresearch", "metric": "bits_per_byte", "direction": "minimize"}
"""What is different about runs of a task where less is better."""


def make_run(
    folder: Path,
    seed: int = 0,
    score: float | None = 0.5,
    *,
    agent: str = "one",
    policy: str = "greedy",
    task: str = "lra/listops",
    profile: str = "paper",
    metric: str = "accuracy",
    direction: str = "maximize",
    steps: int = 2,
    closed: str = "finished",
    message: str = "",
    name: str = "",
    replay: dict | None = None,
    nodes: Sequence[float | None] | None = None,
    texts: Sequence[str] = (),
    writing: Writing = Writing(),  # noqa: B008 (frozen)
    described: dict | None = None,
    **locked,
) -> Path:
    """Write one run and return its path. ``score`` is the final score, None if it is invalid.

    ``closed`` is the status in the last event (finished, failed, interrupted); with "" the event is
    missing. ``nodes`` are the scores on the search split, None for an invalid node; the default is
    one valid node. ``texts``: the architecture of each node, of a task where it is one. ``locked``
    are fields of the lock.
    """
    asked = Asked(
        task=task, profile=profile, agent=agent, policy=policy, steps=steps, time_s=60.0,
        seed=seed, sandbox="auto", writing=writing,
    )  # fmt: skip
    lock = make_lock(direction=direction, agent=described or {}, **locked)
    run = Run.create(folder, asked, lock, name=name or f"{task}_{agent}_{policy}_{seed}_{score}")
    journal = Journal(run.path / "events.jsonl")
    journal.append("opened", pid=1, harness="0.1.0", queued_s=0.0)
    file = "architecture.txt" if texts else "model.py"
    for number, found in enumerate((score or 0.1,) if nodes is None else nodes):
        node = run.node_dir(number)
        node.mkdir()
        text = texts[number] if texts else SOURCE
        files = {file: hashlib.sha256(text.encode()).hexdigest()}
        (node / file).write_text(text)
        journal.append("chosen", node=number, operator="draft", parents=[], left={"steps": 1})
        journal.append("written", node=number, files=files, note="", knobs=None)
        journal.append("evaluating", node=number)
        journal.append("scored", node=number, valid=found is not None, score=found, seconds=1.0,
                       reason=None if found is not None else "runtime_error",
                       message="")  # fmt: skip
    if closed == "finished":
        journal.append("finalizing", node=0, seed=1)
        journal.append("final", node=0, valid=score is not None, score=score, reason=None,
                       message="", seconds=1.0)  # fmt: skip
        state = rebuild(journal.events, run.path / "nodes", maximize=direction == "maximize")
        budget = Budget(asked.limits, gpus=0)
        write_result(
            run, state, judged(score, metric, profile, lock), metric=metric, elapsed_s=3.0,
            ended="steps", replay=replay,
            spent=budget.to_json(how_far(journal.events, state.tree, 3.0)),
        )  # fmt: skip
    if closed:
        journal.append("closed", status=closed, message=message)
    journal.close()
    return run.path


def make_runs(folder: Path, scores: dict[int, float | None], **same) -> None:
    """Write one run per seed. ``scores``: the final score of each seed, None if it is invalid."""
    for seed, score in scores.items():
        make_run(folder, seed, score, **same)


def make_lock(**changed) -> Lockfile:
    """Return a lock like that of a real run, but for the fields in ``changed``."""
    fields = {
        "harness": "0.1.0", "task_hash": "t" * 16, "data_hash": "d" * 16, "data": "/nowhere",
        "scorer": "2+abc", "sandbox": "bubblewrap", "policy": {"num_drafts": 5},
        "versions": VERSIONS, "hardware": HARDWARE, "audit_key": "0" * 32,
    }  # fmt: skip
    return Lockfile(**fields | changed)


def judged(
    score: float | None, metric: str, profile: str, lock: Lockfile, split: str = "test", **changed
) -> Score:
    """Return a score as the judge writes it, but for the fields in ``changed``; None is invalid."""
    conditions = Conditions(
        task_hash=lock.task_hash, data_hash=lock.data_hash, scorer=lock.scorer, profile=profile,
        ranked=profile != "test", split=split, sandbox=lock.sandbox,
        isolated=lock.sandbox != "process", unenforced=(), judge_uid=0, candidate_uid=None,
        hardware=lock.hardware, versions=lock.versions, training_seed=1, audit_seed="1",
    )  # fmt: skip
    error = (score * (1 - score) / ROWS) ** 0.5 if score and metric == "accuracy" else None
    fields = {
        "valid": score is not None, "metric": metric, "score": score, "standard_error": error,
        "rows": ROWS, "reason": None if score is not None else "runtime_error", "message": "",
        "audits": (), "claim": {}, "submission": "0" * 16, "conditions": conditions,
        "seconds": {"train": 1.0, "serve": 1.0, "judge": 1.0, "total": 3.0}, "peak_memory_mb": None,
    }  # fmt: skip
    return Score(**fields | changed)
