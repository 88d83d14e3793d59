"""Run the test suite again and again in random order, on a machine whose cores are all busy.

Tests fail here sooner or later if they depend on the machine's speed, or on modules that are
already compiled, which they are not in a fresh clone. Prints one line per run, with the seed of its
order (``pytest --randomly-seed SEED`` repeats it). The exit code is 1 if any run failed.

    python benchmarks/flaky.py [--runs 10] [pytest arguments]
"""

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

TWO = ["-n", "2", "--dist", "worksteal"]
"""The same options as in ``make test``."""
COMPILED = ("harness", "scorers", "sandboxes", "tasks", "tests")
"""Folders of this checkout whose compiled modules are removed before each run."""
BURN = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(10**6))"
NO_SUCH_OPTION, NO_SUCH_TEST = 4, 5
"""Exit codes of pytest after which every further run would fail in the same way."""


@contextmanager
def busy(cores: int):
    """Keep ``cores`` cores busy; each burner process ends by itself when its parent is gone."""
    with ExitStack() as burning:
        for _ in range(cores):
            argv = [sys.executable, "-c", BURN]  # Ctrl-C does not reach them
            burner = burning.enter_context(subprocess.Popen(argv, start_new_session=True))
            burning.callback(burner.kill)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    chosen, more = parser.parse_known_args()
    cores = os.cpu_count() or 2
    failed = 0
    with busy(cores):
        for number in range(1, chosen.runs + 1):
            for cache in [c for folder in COMPILED for c in Path(folder).rglob("__pycache__")]:
                shutil.rmtree(cache)
            seed = random.randrange(2**32)
            began = time.monotonic()
            argv = [sys.executable, "-m", "pytest", *TWO, "-q", f"--randomly-seed={seed}"]
            run = subprocess.run(
                [*argv, *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            if run.returncode in (NO_SUCH_OPTION, NO_SUCH_TEST):
                print(run.stdout.strip(), file=sys.stderr)
                return 2
            lines = run.stdout.splitlines()
            took = time.monotonic() - began
            print(f"{number}: seed {seed}, {took:.0f} s, {lines[-1].strip('= ')}", flush=True)
            if run.returncode:
                failed += 1
                print("\n".join(line for line in lines if re.match("FAILED|ERROR", line)))
                print(run.stdout[-20_000:], file=sys.stderr, flush=True)
    print(f"{chosen.runs - failed} of {chosen.runs} green, {cores} cores kept busy")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
