"""Measures how busy shared GPUs are if leased per evaluation, against leased per whole run.

    python benchmarks/gpu_sharing.py [--gpus 4] [--runs 8] [--steps 3] [--write 1.0] [--repeats 3]
    python benchmarks/gpu_sharing.py --task lra/listops --profile short --write 30      # real GPUs

Each run is a process that evaluates one node at a time. Its agent takes ``--write`` seconds for a
submission, as a language model would. Without ``--task`` the GPUs are fake: submissions to a toy
task sleep for ``--evaluate`` seconds in the ``process`` sandbox. The judge and the leases are real,
and two cores are enough. "GPUs busy" is the time of all evaluations as a share of the GPUs' time.
"floor" is the least possible makespan: writing the first submissions, and then all evaluations, one
after another on each GPU.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from racers import fake_pool, start_together, wait_for_start

TOY = Path(__file__).parents[1] / "tests" / "toys" / "toy"
SLEEPS = '''"""Sleeps, and is right."""

import time

import numpy as np

time.sleep({seconds})


def predict(tokens):
    return np.eye(4, dtype=np.float32)[tokens[:, 0] - 1]
'''


class Writer:
    """An agent that submits the task's first design after ``seconds`` seconds."""

    name, trusted = "writer", True
    seconds = 0.0

    def write(self, ask):
        """Wait, then return the task's first design."""
        from harness.core.agent import Answer

        ask.cancel.wait(self.seconds)
        return Answer(ask.task.designs()[0].files)


def run(args: argparse.Namespace) -> None:
    """Wait for the start, then do one run; with ``--hold`` lease a GPU for all of it."""
    from harness.agents import AGENTS
    from harness.core.asked import Asked
    from harness.launch.run import start
    from harness.search import host
    from sandboxes import gpu_locks
    from sandboxes.gpu_pool import GpuPool

    AGENTS.ours["writer"], Writer.seconds = Writer, args.write
    make = GpuPool if args.task else lambda: fake_pool(args.gpus)
    host.GpuPool = make  # type: ignore[misc,assignment]
    wait_for_start()
    asked = Asked(
        task=args.task or "toy",
        profile=args.profile,
        agent="writer",
        steps=args.steps,
        seed=args.run,
        sandbox="auto" if args.task else "process",
    )
    with make().lease(1) if args.hold else nullcontext() as lease:
        if lease is not None:  # evaluations see this GPU alone, with their own lock folder
            uuid = lease.uuids[0]
            host.GpuPool = lambda: make().only([uuid])  # type: ignore[misc,assignment]
            os.environ[gpu_locks.ENVIRONMENT] += f"-{uuid}"
        quiet = lambda *_: None  # noqa: E731
        start(asked, Path(args.folder), name=f"r{args.run}", progress=quiet, observe=quiet)


def race(args: argparse.Namespace, folder: Path, *, hold: bool) -> tuple[float, float]:
    """Return the makespan and the summed time of all evaluations, in seconds."""
    runs = folder / ("hold" if hold else "share")
    environ = {**os.environ, "HARNESS_GPU_LOCKS": f"{runs}-locks"}
    environ |= {} if args.task else {"HARNESS_TASKS_DIR": str(folder / "tasks")}
    options = {"--gpus": args.gpus, "--steps": args.steps, "--write": args.write}
    options |= {"--task": args.task, "--profile": args.profile, "--folder": runs}
    argv = [sys.executable, __file__, *(str(word) for pair in options.items() for word in pair)]
    argv += ["--hold"] if hold else []
    commands = [[*argv, "--run", str(number)] for number in range(args.runs)]
    racers, began = start_together(commands, environ)
    for racer in racers:
        racer.communicate()
        assert racer.returncode == 0, "a run failed"
    took = time.monotonic() - began
    scores = [json.loads(file.read_text()) for file in runs.rglob("score.json")]
    assert len(scores) == args.runs * (args.steps + 1)
    evaluated = sum(score["seconds"]["total"] for score in scores)
    shutil.rmtree(runs)
    return took, evaluated


def make_toy(folder: Path, seconds: float) -> None:
    """Make a toy task whose first design sleeps; it runs on a GPU where there is one."""
    toy = folder / "tasks" / "toy"
    shutil.copytree(TOY, toy)
    toml = toy / "task.toml"
    text = toml.read_text().replace('device = "cpu"', 'device = "any"')
    toml.write_text(text.replace('designs = ["half", "constant"', 'designs = ["sleeps"'))
    (toy / "designs" / "sleeps.py").write_text(SLEEPS.format(seconds=seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gpus", type=int, default=4)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--write", type=float, default=1.0)
    parser.add_argument("--evaluate", type=float, default=0.8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--task", default="")
    parser.add_argument("--profile", default="test")
    parser.add_argument("--folder", default="")
    parser.add_argument("--run", type=int)
    parser.add_argument("--hold", action="store_true")
    args = parser.parse_args()
    if args.run is not None:
        run(args)
        return
    print(
        f"{args.runs} runs of {args.steps} nodes and a final one, {args.gpus} GPUs, "
        f"{args.write:g} s to write a node"
    )
    print(f"{'leased for':>14} {'makespan':>10} {'floor':>10} {'GPUs busy':>10}")
    shares: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory() as place:
            if not args.task:
                make_toy(Path(place), args.evaluate)
            for hold in (True, False):
                took, evaluated = race(args, Path(place), hold=hold)
                floor = args.write + evaluated / args.gpus
                shares[hold].append(evaluated / args.gpus / took)
                words = "a run" if hold else "an evaluation"
                print(f"{words:>14} {took:>8.2f} s {floor:>8.2f} s {shares[hold][-1]:>10.1%}")
    held, shared = (statistics.median(shares[hold]) for hold in (True, False))
    print(f"medians: {held:.1%} and {shared:.1%} busy, {shared / held:.2f} times as much")


if __name__ == "__main__":
    main()
