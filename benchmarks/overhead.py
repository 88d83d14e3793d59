"""Measures what the harness itself costs: medians, compared with a floor in the same run.

    python benchmarks/overhead.py [--repeats 20]

Rows: ``harness --help`` (floor: a bare interpreter), starting each sandbox that this machine has
(floor: a bare process), a node without its submission's own work (the toy task of the tests: no
torch, no training), importing torch in a candidate for comparison, and the judge's own time per
10,000 rows. Where ``docker`` is usable: also a command in an open sandbox, and twenty sandboxes at
once (floor: ``docker run`` of the same image with the engine's defaults). Machines are noisy: read
medians and differences, not single runs.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parent.parent
TRUE = "/bin/true"
CROWD = 20
Row = tuple[str, float, str, float, str]
"""What is measured, its median in ms, its floor, the floor's ms, the goal."""
os.environ["HARNESS_TASKS_DIR"] = str(ROOT / "tests" / "toys")


def median_ms(work: Callable[[], object], repeats: int) -> float:
    """Return the median milliseconds of ``work`` after one warm-up."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def shell(*argv: str) -> Callable[[], object]:
    return lambda: subprocess.run(argv, check=True, capture_output=True)


def sandbox_rows(repeats: int) -> Iterator[Row]:
    """Yield the row of each usable sandbox, start to end, and of docker a command and a crowd."""
    from sandboxes.base import Backend, Sandbox, SandboxSpec
    from sandboxes.image import recipe
    from sandboxes.registry import BACKENDS

    def command(sandbox: Sandbox) -> None:
        assert sandbox.exec([TRUE], timeout=60).exit_code == 0

    def whole(backend: Backend) -> None:
        with backend.open(SandboxSpec()) as sandbox:
            command(sandbox)

    bare = median_ms(shell(TRUE), repeats)
    for name, backend in BACKENDS.ours.items():
        if not backend.probe().available:
            continue
        started = median_ms(partial(whole, backend), repeats)
        goal = "≤ 30 ms more" if name == "bubblewrap" else ""
        yield f"sandbox {name}, start to end", started, "a bare process", bare, goal
        if name == "docker" and shutil.which("docker"):
            run = shell("docker", "run", "--rm", "--network=none", recipe.name(), TRUE)
            with backend.open(SandboxSpec()) as box:
                first = median_ms(partial(command, box), repeats)
            floor = median_ms(run, repeats)
            yield "sandbox docker, open: a command", first, "docker run", floor, ""
            many = median_ms(crowd(partial(whole, backend)), 1)
            floor = median_ms(crowd(run), 1)
            yield f"{CROWD} of them at once, all of it", many, f"{CROWD} docker run", floor, ""


def crowd(work: Callable[[], object]) -> Callable[[], object]:
    """Return what does ``work`` so many times at once, until the last has ended."""

    def all_of_it() -> None:
        with ThreadPoolExecutor(CROWD) as threads:
            for done in [threads.submit(work) for _ in range(CROWD)]:
                done.result()

    return all_of_it


def node_costs(repeats: int) -> tuple[float, float]:
    """Return ms: the median over nodes, and the candidate's own part of a node.

    The candidate's own part is a bare run of what it does: start Python, import numpy.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HARNESS_DATA"] = folder
        done = subprocess.run(
            [sys.executable, "-m", "harness", "run", "--task", "toy", "--profile", "test",
             "--agent", "random", "--steps", str(repeats), "--runs-dir", folder, "--json",
             "--set", f"greedy.num_drafts={repeats}"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        run = Path(json.loads(done.stdout)["run"])
        events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    at = {(e["event"], e["node"]): e["elapsed_s"] for e in events if "node" in e}
    nodes = [at["scored", n] - at["chosen", n] for n in range(repeats)]
    own = median_ms(shell(sys.executable, "-I", "-B", "-c", "import numpy, json, socket"), repeats)
    return 1000 * statistics.median(nodes), own


def judge_ms(rows: int = 10_000) -> float:
    """Return the judge's milliseconds for planning, auditing and scoring ``rows`` rows."""
    import numpy as np

    from scorers import audits
    from scorers.classification import audit

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, rows).astype(np.uint8)
    logits = rng.standard_normal((rows, 10)).astype(np.float32)

    def work() -> None:
        batches = audits.plan(rows, 64, np.random.default_rng(1))
        answers = [logits[b.rows].copy() for b in batches]
        audit(batches, answers, logits)
        order = np.concatenate([b.rows for b in batches if b.first])
        audits.trend(logits[order].argmax(axis=1) == labels[order])

    return median_ms(work, 10)


def serve_ms_per_10k() -> float:
    """Return ms of serving a model that computes almost nothing: frames, copies, the socket."""
    from sandboxes.registry import BACKENDS
    from scorers.evaluate import evaluate
    from scorers.request import Request
    from tasks.spec import find_task

    with tempfile.TemporaryDirectory() as folder:
        task = find_task("toy")
        path, manifest = task.prepare("test", Path(folder), lambda *_: None, {"rows": 10_000})
        files = {"model.py": task.designs()[2].files["model.py"]}
        request = Request(
            task, "test", "search", files, path, manifest, 0, "a", BACKENDS.ours["bubblewrap"]
        )
        times = [evaluate(request).score.seconds["serve"] for _ in range(5)]
    return 1000 * statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    python = sys.executable
    bare_python = median_ms(shell(python, "-c", "pass"), repeats)
    helped = median_ms(shell(python, "-m", "harness", "--help"), repeats)
    rows: list[Row] = [("harness --help", helped, "a bare interpreter", bare_python, "< 300 ms")]
    rows += sandbox_rows(repeats)
    node, own = node_costs(repeats)
    rows.append(("a node, journalled", node, "its own python + numpy", own, "< 500 ms more"))
    torch = median_ms(shell(python, "-I", "-B", "-c", "import torch"), 3)
    rows.append(("(import torch in a candidate)", torch, "a bare interpreter", bare_python, ""))
    rows.append(("judge's work per 10,000 rows", judge_ms(), "", 0.0, ""))
    rows.append(("serving 10,000 rows of a free model", serve_ms_per_10k(), "", 0.0, ""))
    print(f"{'what':38} {'median ms':>10}   {'floor':24} {'ms':>8} {'difference':>11}   goal")
    for what, value, floor, floor_ms, goal in rows:
        more = f"{value - floor_ms:11.1f}" if floor else " " * 11
        shown = f"{floor_ms:8.1f}" if floor else " " * 8
        print(f"{what:38} {value:10.1f}   {floor:24} {shown} {more}   {goal}")


if __name__ == "__main__":
    main()
