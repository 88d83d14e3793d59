"""Ask live runs to end: the best node so far is graded, and ``result.json`` is written.

The request is a file in the run directory. The search (``harness.search.loop``) looks for it before
each choice, and for a request to end now also while steps are running.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.base.commands import command, quote
from harness.base.errors import ConfigError, InfrastructureError
from harness.store.follower import Follower, LiveRun
from harness.store.rundir import STOP, Run

POLL_S = 0.5


def ask(path: Path, *, now: bool) -> dict[str, Any] | None:
    """Ask a run to end; return its result if it has ended already, else None.

    A run that no process works on is asked too: when it is resumed, its best node is graded at
    once. Raises ConfigError for such a run, and where there is no run.
    """
    run = Run.open(path)
    if run.result is None:
        run.refuse_unwritable()
        run.ask_to_stop("now" if now else "step")
        # It may have ended while we asked, so look at the lock first and then at the result.
        if not run.is_held() and run.result is None:
            raise ConfigError(
                f"Nobody works on {path}: it {_end(Follower(path).look())}.",
                remedy=f"{command('resume', path)}: it now ends at once, its best so far graded; "
                f"to search on instead: rm {quote(path / STOP)}",
            )
    return run.result


def await_end(path: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Wait until a run that was asked to end has ended; return its result.

    ``say`` is called with each new line about what is waited for. Raises InfrastructureError if
    the run ends without a result.
    """
    follower, said = Follower(path), ""
    while (live := follower.look()).state == "running":
        words = _words(live)
        if words != said:
            say(f"{path}: {words}")
            said = words
        time.sleep(POLL_S)
    result = Run(path).result
    if result is None:
        raise InfrastructureError(
            f"{path} ended without a result: it {_end(live)}.",
            remedy=command("resume", path),
        )
    return result


def _end(live: LiveRun) -> str:
    words = {"interrupted": "was interrupted", "killed": "was killed", "failed": "failed"}
    return words.get(live.state, f"is {live.state}")


def _words(live: LiveRun) -> str:
    best = live.best_node
    match live.doing:
        case "evaluating" if live.queued:
            return "waiting for the evaluations under way, which wait for a GPU"
        case "evaluating":
            return "waiting for the evaluations under way"
        case "writing":
            return "waiting for the agent"
        case "grading":
            return f"grading node {best} on the hidden test split"
        case _:
            return "starting"
