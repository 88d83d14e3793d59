"""A harness process that kills itself: started by ``drive`` in test_kill.py, never imported.

    python kill_driver.py WHERE (new RUNS_DIR | resume RUN) PHASE DELAY_S [SLOTS]

PHASE is writing, training, serving, journal or never. For the first three, SIGKILL comes DELAY_S
seconds after the first node has entered that phase. For journal, DELAY_S is a number n, and SIGKILL
comes just before the n-th fsync of the journal; not every line is fsynced. At the kill, the phase
that it hit is written to the file WHERE, so that the test can count where kills really landed.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from slow_agents import Slow

from harness.agents import AGENTS
from harness.core.asked import Asked
from harness.launch.run import resume, start


def main() -> None:
    where, how, place, phase, delay = sys.argv[1:6]
    slots = int(sys.argv[6]) if len(sys.argv) > 6 else 1
    AGENTS.ours["slow"] = Slow
    now = {"phase": "between"}

    def die() -> None:
        fd = os.open(where, os.O_WRONLY | os.O_CREAT)
        os.write(fd, b"journal" if phase == "journal" else now["phase"].encode())
        os.kill(os.getpid(), signal.SIGKILL)

    def observe(what: str, label: str, details: dict) -> None:
        if what in ("writing", "training", "serving"):
            now["phase"] = what
        elif what in ("scored", "final"):
            now["phase"] = "between"
        if what == phase:
            threading.Timer(float(delay), die).start()

    if phase == "journal":
        _kill_in_fsync(die, int(float(delay)))
    quiet = lambda *_: None  # noqa: E731
    if how == "resume":
        resume(Path(place), progress=quiet, observe=observe)
    else:
        asked = Asked(task="toy", profile="test", steps=4, seed=5)
        if slots > 1:
            more = {"agent": "slow", "policy": "evolve", "steps": 8, "workers": slots}
            asked = asked.model_copy(update=more)
        start(asked, Path(place), progress=quiet, observe=observe)


def _kill_in_fsync(die, line: int) -> None:
    """Let the process die just before the ``line``-th fsync of the journal."""
    fsync, count = os.fsync, {"lines": 0}

    def deadly(fd: int) -> None:
        if Path(f"/proc/self/fd/{fd}").readlink().name == "events.jsonl":
            count["lines"] += 1
            if count["lines"] == line:
                die()
        fsync(fd)

    os.fsync = deadly


main()
