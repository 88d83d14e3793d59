"""What the benchmarks of GPU leases share: fake GPUs, and processes that start together."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sandboxes.gpu_pool import GpuPool
from sandboxes.gpus import Gpu, Listing


def fake_pool(count: int) -> GpuPool:
    """Return a pool of ``count`` fake GPUs on which no stranger computes; its leases are real."""
    fakes = Listing(tuple(Gpu(f"GPU-fake-{i}", i, "Fake") for i in range(count)))
    return GpuPool(lambda: fakes, lambda uuid: ())


def wait_for_start() -> None:
    """Say, in a racer, that it has imported all it needs, and wait for the start."""
    print("ready", flush=True)
    sys.stdin.readline()


def start_together(
    commands: Sequence[Sequence[str]], environ: Mapping[str, str], *, gap_s: float = 0.0
) -> tuple[list[subprocess.Popen[str]], float]:
    """Let all racers go once the last is ready, ``gap_s`` seconds apart; return them and when."""
    racers = [
        subprocess.Popen(
            command, env=environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for command in commands
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    began = time.monotonic()
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
        time.sleep(gap_s)
    return racers, began
