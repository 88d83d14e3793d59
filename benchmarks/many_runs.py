"""Writes many run directories with the real classes, and times the leaderboard over them.

    python benchmarks/many_runs.py DIR [--agents 20] [--tasks 12] [--seeds 10] [--nodes 100]
    python benchmarks/many_runs.py DIR --measure     # only measure what is there

Scores are made up; files and their sizes are as a real run leaves them, journals included. Nothing
is fsynced while writing: that alone would take most of an hour.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.base.seeds import derive
from harness.core.asked import Asked, Lockfile
from harness.core.budget import Budget
from harness.launch.result import write_result
from harness.report.stats.normalized import scale_of
from harness.store.journal import Journal
from harness.store.rundir import Run
from harness.store.state import RunState, how_far, rebuild
from scorers.score import Audit, Conditions, Reason, Score
from tasks.spec import find_task

VERSIONS = {"python": "3.11.7", "torch": "2.13.0", "numpy": "2.4.6"}
HARDWARE: dict[str, str | int] = {"cpu": "AMD EPYC", "cores": 16, "gpu": "NVIDIA H200"}
SOURCE = '"""An idea."""\n\n' + "x = 1\n" * 200


def write_run(folder: Path, agent: int, task: str, seed: int, nodes: int) -> Run:
    """Write one finished run; agents with higher numbers score better."""
    rng = random.Random(derive(agent, task, seed))
    asked = Asked(
        task=task,
        profile="paper",
        agent=f"agent-{agent:02d}",
        policy="greedy",
        steps=nodes,
        time_s=86_400.0,
        seed=seed,
        sandbox="auto",
    )
    lock = Lockfile(
        harness="0.1.0",
        task_hash=f"{derive('task', task):016x}",
        data_hash=f"{derive('data', task):016x}",
        data="/nowhere",
        scorer="2+0123456789ab",
        sandbox="bubblewrap",
        policy={"num_drafts": 5},
        versions=VERSIONS,
        hardware=HARDWARE,
        audit_key="0" * 32,
    )
    run = Run.create(folder, asked, lock)
    marks = scale_of(find_task(task).definition, "paper")
    low, high = (marks.worst, marks.best) if marks else (0.1, 0.9)
    journal = Journal(run.path / "events.jsonl")
    journal.append("opened", pid=1, harness="0.1.0", queued_s=0.0)
    best = low
    for number in range(nodes):
        valid = rng.random() < 0.34
        score = low + (high - low) * rng.betavariate(1 + agent, 30) if valid else None
        best = max(best, score or low)
        write_node(run, journal, number, score)
    journal.append("finalizing", node=0, seed=1)
    valid = rng.random() < 0.3 + agent / 30
    final = judged(best + rng.gauss(0, 0.003) if valid else None, task, lock)
    journal.append("final", node=0, valid=valid, score=final.score, reason=None, message="",
                   seconds=100.0)  # fmt: skip
    state: RunState = rebuild(journal.events, run.path / "nodes", maximize=True)
    budget = Budget(asked.limits, gpus=1)
    write_result(
        run,
        state,
        final,
        metric="accuracy",
        elapsed_s=journal.elapsed_s,
        ended=f"{nodes} of {nodes} steps are used",
        spent=budget.to_json(how_far(journal.events, state.tree, journal.elapsed_s)),
        replay=None,
    )
    journal.append("closed", status="finished", message="")
    journal.close()
    return run


def write_node(run: Run, journal: Journal, number: int, score: float | None) -> None:
    """Write a node's submission, and append its events to the journal."""
    folder = run.node_dir(number)
    folder.mkdir()
    (folder / "model.py").write_text(SOURCE)
    parents = [number - 1] if number > 5 else []
    journal.append("chosen", node=number, operator="improve" if parents else "draft",
                   parents=parents, left={"steps": 1, "time_s": 1.0})  # fmt: skip
    journal.append("written", node=number, files={"model.py": _HASH}, note="an idea", knobs=None)
    journal.append("evaluating", node=number)
    journal.append("scored", node=number, valid=score is not None, score=score, seconds=100.0,
                   reason=None if score else "runtime_error", message="")  # fmt: skip


_HASH = __import__("hashlib").sha256(SOURCE.encode()).hexdigest()


def judged(score: float | None, task: str, lock: Lockfile) -> Score:
    """Return a score with all the fields that the judge writes."""
    conditions = Conditions(
        task_hash=lock.task_hash,
        data_hash=lock.data_hash,
        scorer=lock.scorer,
        profile="paper",
        ranked=True,
        split="test",
        sandbox="bubblewrap",
        isolated=True,
        unenforced=(),
        judge_uid=0,
        candidate_uid=10002,
        hardware=HARDWARE,
        versions=VERSIONS,
        training_seed=1,
        audit_seed="0" * 16,
    )
    audits = tuple(
        Audit(name=n, passed=True, value=0.0, threshold=0.02, power="64 repeats: " + "x" * 80)
        for n in ("finiteness", "statelessness", "trend")
    )
    return Score(
        valid=score is not None,
        metric="accuracy",
        score=score,
        standard_error=None if score is None else (score * (1 - score) / 2000) ** 0.5,
        rows=2000,
        reason=None if score is not None else Reason.RUNTIME_ERROR,
        message="",
        audits=audits,
        claim={"parameters": 1_000_000},
        submission="0" * 16,
        conditions=conditions,
        seconds={"train": 90.0, "serve": 5.0, "judge": 1.0, "total": 100.0},
        peak_memory_mb=1000,
    )


def generate(folder: Path, agents: int, tasks: int, seeds: int, nodes: int) -> None:
    """Write all runs."""
    names = [
        f"lra/{name}{variant}"
        for name in ("listops", "text", "retrieval", "image", "pathfinder", "pathx")
        for variant in ("", "-configurable")
    ][:tasks]
    os.fsync = lambda descriptor: None
    for agent in range(agents):
        for task in names:
            for seed in range(seeds):
                write_run(folder, agent, task, seed, nodes)
        print(f"agent {agent + 1} of {agents}", file=sys.stderr)


def measure(folder: Path) -> None:
    """Print seconds and peak memory of ``harness leaderboard``, without an index and with one."""
    with tempfile.TemporaryDirectory() as cache:
        environ = {**os.environ, "HARNESS_DATA": cache}
        for label in ("cold: no index", "second call", "third call"):
            began, before = time.perf_counter(), processor_seconds()
            done = subprocess.run(
                [sys.executable, "-m", "harness", "leaderboard", str(folder), "--format", "json"],
                env=environ, check=True, capture_output=True,
            )  # fmt: skip
            seconds = time.perf_counter() - began
            rows = sum(len(t["rows"]) for t in json.loads(done.stdout)["tables"])
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            used = processor_seconds() - before
            print(
                f"{label}: {seconds:.2f} s ({used:.2f} s of a processor), {rows} rows, "
                f"peak {peak:.0f} MB so far"
            )


def processor_seconds() -> float:
    """Return the CPU seconds of all ended children, a fair measure on a machine that is shared."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--agents", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--measure", action="store_true")
    args = parser.parse_args()
    if not args.measure:
        generate(args.folder, args.agents, args.tasks, args.seeds, args.nodes)
    measure(args.folder)


if __name__ == "__main__":
    main()
