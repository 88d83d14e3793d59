"""Measures what a sandbox costs: /bin/true bare, as a process, in bubblewrap, in a container.

    python benchmarks/sandbox_start.py [ROUNDS]

Medians of 20 rounds; the kinds take turns, so that a busy moment hits all of them. ``start`` is one
exec in an open sandbox; ``fresh`` adds opening and closing it, which an evaluation does once.
``docker run`` is the floor: the command line's own time for a container with the engine's defaults,
of the same image. The last table is the time until the last of twenty, all started at once, has
ended and is cleaned up.
"""

import functools
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sandboxes.base import Backend, SandboxSpec  # noqa: E402
from sandboxes.image import recipe  # noqa: E402
from sandboxes.registry import BACKENDS  # noqa: E402

TRUE = "/bin/true"
CROWD = 20


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    usable = [b for b in BACKENDS.ours.values() if b.probe().available]
    seconds: dict[str, list[float]] = {"bare subprocess": []}
    boxes = {backend.name: backend.open(SandboxSpec(cpus=2.0)) for backend in usable}
    for box in boxes.values():
        box.exec([TRUE], timeout=10)  # the first one imports and fills caches
    floor = ["docker", "run", "--rm", "--network=none", recipe.name(), TRUE]
    with_floor = shutil.which("docker") and "docker" in boxes
    for _ in range(rounds):
        begun = time.perf_counter()
        subprocess.run([TRUE], capture_output=True, check=True)
        seconds["bare subprocess"].append(time.perf_counter() - begun)
        if with_floor:
            begun = time.perf_counter()
            subprocess.run(floor, capture_output=True, check=True)
            seconds.setdefault("docker run", []).append(time.perf_counter() - begun)
        for backend in usable:
            begun = time.perf_counter()
            boxes[backend.name].exec([TRUE], timeout=10)
            seconds.setdefault(f"{backend.name}: start", []).append(time.perf_counter() - begun)
            begun = time.perf_counter()
            _fresh(backend)
            seconds.setdefault(f"{backend.name}: fresh", []).append(time.perf_counter() - begun)
    for box in boxes.values():
        box.close()
    print(f"{'median of ' + str(rounds):<22}{'ms':>8}{'min':>8}{'max':>8}{'over bare':>12}")
    bare = statistics.median(seconds["bare subprocess"])
    for name, values in seconds.items():
        middle = statistics.median(values)
        row = [f"{1000 * value:8.1f}" for value in (middle, min(values), max(values))]
        print(f"{name:<22}{''.join(row)}{1000 * (middle - bare):+12.1f}")
    print(f"\n{f'{CROWD} at once':<22}{'s':>8}")
    if with_floor:
        once = functools.partial(subprocess.run, floor, capture_output=True, check=True)
        print(f"{'docker run':<22}{_crowd(once):8.2f}")
    for backend in usable:
        print(f"{backend.name + ': fresh':<22}{_crowd(functools.partial(_fresh, backend)):8.2f}")


def _fresh(backend: Backend) -> None:
    with backend.open(SandboxSpec(cpus=2.0)) as fresh:
        fresh.exec([TRUE], timeout=60)


def _crowd(once: Callable[[], object]) -> float:
    begun = time.perf_counter()
    with ThreadPoolExecutor(CROWD) as threads:
        for done in [threads.submit(once) for _ in range(CROWD)]:
            done.result()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
