"""Runs a sweep of fake runs (fake_harness.py) as a process that a test can signal or kill.

python fake_sweep.py SUITE RUNS PLAYS
"""

import sys
from pathlib import Path

from harness.sweeps.agent_info import FREE
from harness.sweeps.plan import held, make_plan
from harness.sweeps.sweep import Sweep, SweepRetries
from harness.sweeps.words import exit_code

if __name__ == "__main__":
    suite, runs, plays = map(Path, sys.argv[1:])
    plan = make_plan(suite, runs, lambda agent: FREE)
    harness = [sys.executable, str(Path(__file__).with_name("fake_harness.py")), str(plays)]
    sweep = Sweep(
        plan, concurrent=2, say=lambda line: print(line, flush=True), command=harness,
        patience=SweepRetries(look_s=0.02),
    )  # fmt: skip
    with held(plan):
        sweep.run()
    sys.exit(exit_code(sweep))
