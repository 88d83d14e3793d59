"""Writes many run directories with the real classes, and times the leaderboard over them.

    python benchmarks/many_runs.py DIR [--agents 20] [--tasks 12] [--seeds 10] [--nodes 100]
    python benchmarks/many_runs.py DIR --measure     # only measure what is there

Scores are made up; files are as a real run leaves them, journals included. Nothing is fsynced while
writing: that alone would take most of an hour.
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

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from report.made_runs import make_run  # noqa: E402

from harness.base.seeds import derive  # noqa: E402
from harness.report.stats.normalized import scale_of  # noqa: E402
from tasks.spec import find_task  # noqa: E402


def write_run(folder: Path, agent: int, task: str, seed: int, nodes: int) -> None:
    """Write one finished run; agents with higher numbers score better."""
    rng = random.Random(derive(agent, task, seed))
    marks = scale_of(find_task(task).definition, "paper")
    low, high = (marks.worst, marks.best) if marks else (0.1, 0.9)
    scores = [
        low + (high - low) * rng.betavariate(1 + agent, 30) if rng.random() < 0.34 else None
        for _ in range(nodes)
    ]
    best = max((score for score in scores if score is not None), default=low)
    valid = rng.random() < 0.3 + agent / 30
    make_run(
        folder, seed, best + rng.gauss(0, 0.003) if valid else None, agent=f"agent-{agent:02d}",
        task=task, steps=nodes, nodes=scores, task_hash=f"{derive('task', task):016x}",
        data_hash=f"{derive('data', task):016x}",
    )  # fmt: skip


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
