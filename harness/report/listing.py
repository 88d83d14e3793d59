"""What runs there are, and how each stands; damaged ones are named, never skipped silently."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.base.errors import ConfigError
from harness.base.text import clean
from harness.report.terminal import named, stdout
from harness.store.journal import read
from harness.store.rundir import Run


def listing(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Return a row a run: path, status, what was asked, nodes, best search score, test score."""
    return [_row(path) for path in paths]


def _row(path: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"run": str(path), "status": "", "problem": None}
    try:
        run = Run.open(path)
        asked, result = run.asked, run.result
        events, _, _ = read(path / "events.jsonl")
    except ConfigError as error:
        return {**row, "status": "damaged", "problem": str(error)}
    scored = [e.data for e in events if e.kind == "scored"]
    scores = [d["score"] for d in scored if d["score"] is not None]
    closed = [
        e.data["status"] for e in events if e.kind in ("closed", "opened") and "status" in e.data
    ]
    if run.is_held():
        status = "running"
    elif result is not None:
        status = "finished"
    else:
        status = closed[-1] if closed and events[-1].kind == "closed" else "killed"
    return {
        **row,
        "status": status,
        "task": asked.task,
        "profile": asked.profile,
        "agent": asked.agent,
        "policy": asked.policy,
        "seed": asked.seed,
        "nodes": len(scored),
        "valid_nodes": len(scores),
        "steps": asked.steps,
        "search_score": run.lock.best(scores, default=None),
        "valid": result["valid"] if result else None,
        "score": result["score"] if result else None,
        "seconds": events[-1].elapsed_s if events else 0.0,
    }


HEADER = ("run", "status", "nodes", "search", "test")


def render(rows: list[dict[str, Any]]) -> None:
    """Print the listing as a table on stdout; below it why which are damaged."""
    if not rows:
        print("No runs here yet. Start one: harness run --task lra/listops")
        return
    cells = [(clean(row["run"]), _cells(row)) for row in rows]
    for block in named(HEADER, cells, stdout().width, left=("status",)):
        print("\n".join(block))
    for row in rows:
        if row["status"] == "damaged":
            print(f"damaged: {clean(row['run'])}: {clean(row['problem'].splitlines()[0])}")
    if any(r["status"] in ("interrupted", "killed", "failed") for r in rows):
        print("Unfinished runs go on with: harness resume RUN")


def _cells(row: dict[str, Any]) -> list[str]:
    if row["status"] == "damaged":
        return ["damaged", "", "", ""]
    test = _number(row["score"]) if row["valid"] is not False else "invalid"
    nodes = f"{row['valid_nodes']} valid of {row['nodes']}"
    return [row["status"], nodes, _number(row["search_score"]), test]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
