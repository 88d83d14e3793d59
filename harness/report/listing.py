"""The runs and the state of each, for ``harness ls``. Damaged runs are named, never skipped."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.base.numbers import number
from harness.base.text import clean, one_line
from harness.report.terminal import name_column, stdout
from harness.store.follower import Follower, LiveRun


def listing(paths: Iterable[Path]) -> list[LiveRun]:
    """Return the state of each run, after reading and checking its whole journal."""
    return [Follower(path, thorough=True).look() for path in paths]


def as_json(run: LiveRun) -> dict[str, Any]:
    """Return the row of a run: what was asked, nodes, best search score, test score."""
    if run.state == "damaged":
        return {"run": run.run, "status": run.state, "problem": run.problem}
    return {
        "run": run.run,
        "status": run.state,
        "problem": None,
        "task": run.task,
        "profile": run.profile,
        "agent": run.agent,
        "policy": run.policy,
        "seed": run.seed,
        "nodes": run.step,
        "valid_nodes": run.valid_nodes,
        "steps": run.steps,
        "search_score": run.best,
        "valid": run.valid,
        "score": run.score,
        "seconds": run.seconds,
    }


LONGEST = 1000
"""The most characters of a name or of a problem that are shown."""
HEADER = ("run", "status", "nodes", "search", "test")


def render(runs: list[LiveRun]) -> None:
    """Print the listing as a table on stdout, and below it what is wrong with damaged runs."""
    if not runs:
        print("No runs here yet. Start one: harness run --task lra/listops")
        return
    cells = [(clean(run.run), _cells(run)) for run in runs]
    for block in name_column(HEADER, cells, stdout().width, left=("status",)):
        print("\n".join(block))
    for line in damage(runs):
        print(line)
    if any(run.state in ("interrupted", "killed", "failed") for run in runs):
        print("Unfinished runs go on with: harness resume RUN")


def damage(runs: Iterable[LiveRun]) -> list[str]:
    """Return a line for each damaged run: what is wrong with it."""
    return [one_line(f"damaged: {r.run}: {r.problem}", LONGEST) for r in runs if r.problem]


def _cells(run: LiveRun) -> list[str]:
    if run.state == "damaged":
        return ["damaged", "", "", ""]
    test = number(run.score) if run.valid is not False else "invalid"
    nodes = f"{run.valid_nodes} valid of {run.step}"
    return [run.state, nodes, number(run.best), test]
