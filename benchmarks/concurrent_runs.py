"""Measures the CPU time of the harness itself while many runs wait for their evaluations.

    python benchmarks/concurrent_runs.py [--runs 20] [--window 20] [--sandbox bubblewrap] [--sweep]

Starts ``--runs`` processes ``harness run`` of the toy task, whose submissions sleep, waits until
all of them are training, and reads the CPU time of each process from /proc twice, ``--window``
seconds apart. "ours" counts the harness's processes and what they started around the submission
(bwrap, setpriv), but not the submission's own Python. With ``--sweep`` the runs are children of one
``harness sweep``, which has its own line in the table. The goal is less than 10 % of one core for
all of them together.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
TOY = ROOT / "tests" / "toys" / "toy"
GOAL = 0.10
STEPS = 20
"""Training steps of the toy task; its submissions sleep between two steps."""


def sleepy_task(folder: Path, seconds: float) -> None:
    """Copy the toy task, make its first design sleep for ``seconds``, and raise its time limit."""
    shutil.copytree(TOY, folder / "toy")
    design = folder / "toy" / "designs" / "half.py"
    design.write_text(design.read_text().replace("0.01", str(seconds / STEPS)))
    toml = folder / "toy" / "task.toml"
    toml.write_text(toml.read_text().replace("train_s = 20,", f"train_s = {seconds + 600},"))


def start(folder: Path, runs: int, sandbox: str, *, sweep: bool) -> list[subprocess.Popen[bytes]]:
    """Start the runs, each by its own command or all as one sweep."""
    harness = [sys.executable, "-m", "harness"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if sweep:
        suite = folder / "suite.toml"
        suite.write_text(
            'format = 1\nname = "many"\n[[groups]]\nagents = ["reference"]\ntasks = ["toy"]\n'
            f'profile = "test"\nsteps = 1\nseeds = {runs}\nsandbox = "{sandbox}"\n'
        )
        argv = ["sweep", str(suite), f"--concurrent={runs}", f"--runs-dir={folder}/runs"]
        return [subprocess.Popen([*harness, *argv], **quiet)]
    argv = ["run", "--task=toy", "--profile=test", "--steps=1", f"--sandbox={sandbox}"]
    argv.append(f"--runs-dir={folder}/runs/many")
    return [subprocess.Popen([*harness, *argv, f"--seed={n}"], **quiet) for n in range(runs)]


def kind_of(process: psutil.Process) -> str:
    """Return what a process is: a harness command, the submission, or its program's name."""
    command = process.cmdline()
    if "-m" in command[:2] and "harness" in command[:3]:
        return "harness sweep" if "sweep" in command[3:4] else "harness run"
    if any("/runner" in part and part.endswith("runner.py") for part in command[:8]) and (
        Path(command[0]).name.startswith("python")
    ):
        return "submission"
    return Path(command[0]).name if command else process.name()


def seconds_of(parents: list[subprocess.Popen[bytes]]) -> dict[tuple[int, str], float]:
    """Return (pid, kind) → CPU seconds so far, of ``parents`` and all their descendants."""
    found = {}
    for parent in parents:
        top = psutil.Process(parent.pid)
        for process in (top, *top.children(recursive=True)):
            try:
                times = process.cpu_times()
                found[process.pid, kind_of(process)] = times.user + times.system
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
    return found


def training(parents: list[subprocess.Popen[bytes]]) -> int:
    """Return how many submissions are running."""
    return sum(kind == "submission" for _, kind in seconds_of(parents))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--window", type=float, default=20.0)
    parser.add_argument("--sandbox", default="bubblewrap")
    parser.add_argument("--sweep", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sleepy_task(folder / "tasks", asked.window + 300)
        os.environ |= {"HARNESS_TASKS_DIR": f"{folder}/tasks", "HARNESS_DATA": f"{folder}/data"}
        parents = start(folder, asked.runs, asked.sandbox, sweep=asked.sweep)
        try:
            until = time.monotonic() + 280
            while (here := training(parents)) < asked.runs:
                assert time.monotonic() < until, f"only {here} of {asked.runs} began"
                time.sleep(1.0)
            time.sleep(3.0)
            before, began = seconds_of(parents), time.monotonic()
            time.sleep(asked.window)
            after, took = seconds_of(parents), time.monotonic() - began
        finally:
            for parent in parents:
                parent.terminate()
            for parent in parents:
                parent.wait(60)
    shares: dict[str, list[float]] = defaultdict(list)
    for process, seconds in after.items():
        if process in before:
            shares[process[1]].append((seconds - before[process]) / took)
    print(f"{asked.runs} runs, {took:.0f} s, sandbox {asked.sandbox}")
    print(f"{'process':16} {'how many':>8} {'% of a core, all':>18} {'each':>8}")
    for kind, parts in sorted(shares.items()):
        print(f"{kind:16} {len(parts):>8} {sum(parts):>17.2%} {sum(parts) / len(parts):>8.3%}")
    ours = sum(sum(parts) for kind, parts in shares.items() if kind != "submission")
    verdict = "goal met" if ours < GOAL else "GOAL MISSED"
    print(f"ours: {ours:.2%} of one core, {verdict} (< {GOAL:.0%})")


if __name__ == "__main__":
    main()
