"""Measures the GPU time lost to waiting for leases: the makespan against a list schedule.

    python benchmarks/makespan.py [--repeats 3] [--slots 4] [--total 40]

Twenty processes with one job each ask for one of four fake GPUs, 5 ms apart, through the real
GpuPool and its file locks. A job only sleeps, so two cores are enough. The twenty lengths are
listed below and scaled to ``--total`` seconds in sum. The ideal schedule starts the next job of the
list on the first free slot, with no time lost between jobs.
"""

import argparse
import heapq
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable

from racers import fake_pool, start_together, wait_for_start

GAP_S = 0.005
LENGTHS = (
    0.42, 0.61, 1.73, 0.88, 1.05, 0.97, 2.10, 0.55, 1.31, 0.74,
    0.93, 1.48, 0.39, 1.12, 0.81, 1.86, 0.66, 1.02, 0.58, 0.79,
)  # fmt: skip
"""Fixed, with a long tail as submissions have: half are stopped early, few run to the limit."""


def list_schedule(lengths: Iterable[float], slots: int) -> float:
    """Return when the last job ends if each starts on the first free slot, in this order."""
    ends = [0.0] * slots
    for length in lengths:
        heapq.heapreplace(ends, ends[0] + length)
    return max(ends)


def job(length: float, slots: int) -> None:
    """Wait for the start, lease a GPU, sleep, and print when the lease began and ended."""
    pool = fake_pool(slots)
    wait_for_start()
    with pool.lease(1):
        began = time.monotonic()
        time.sleep(length)
        ended = time.monotonic()
    print(json.dumps([began, ended]), flush=True)


def race(lengths: list[float], slots: int) -> float:
    """Run all jobs; return the makespan in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, "HARNESS_GPU_LOCKS": f"{folder}/locks"}
        argv = [sys.executable, __file__, "--slots", str(slots), "--job"]
        commands = [[*argv, str(length)] for length in lengths]
        racers, began = start_together(commands, environ, gap_s=GAP_S)
        spans = [json.loads(racer.communicate()[0]) for racer in racers]
    return max(end for _, end in spans) - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--total", type=float, default=40.0)
    parser.add_argument("--job", type=float)
    asked = parser.parse_args()
    if asked.job is not None:
        job(asked.job, asked.slots)
        return
    lengths = [length * asked.total / sum(LENGTHS) for length in LENGTHS]
    ideal = list_schedule(lengths, asked.slots)
    print(
        f"{len(lengths)} jobs, {asked.total:g} s of work, {asked.slots} slots, ideal {ideal:.3f} s"
    )
    print(f"{'repeat':>8} {'makespan':>10} {'ideal of it':>12}")
    shares = []
    for repeat in range(1, asked.repeats + 1):
        took = race(lengths, asked.slots)
        shares.append(ideal / took)
        print(f"{repeat:>8} {took:>8.3f} s {shares[-1]:>12.1%}")
    middle = statistics.median(shares)
    word = "met" if middle >= 0.98 else "MISSED"
    print(f"{'median':>8} {'':>10} {middle:>12.1%}  goal 98 %: {word}")


if __name__ == "__main__":
    main()
