"""Reads a whole run strictly, to show, export, pack, replay or rescore it. Writes nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from harness.store.journal import Event, read
from harness.store.rundir import Run
from harness.store.state import RunState, rebuild


class Loaded(NamedTuple):
    """A run, the events of its journal, and the state after them."""

    run: Run
    events: list[Event]
    state: RunState


def load(path: Path, *, each: Callable[[RunState], object] = lambda state: None) -> Loaded:
    """Read a run without touching it. Raises ConfigError where it is damaged.

    ``each`` is called after every event, with the state after it.
    """
    run = Run.open(path)
    events = read(run.path / "events.jsonl")
    run.refuse_other_lock(events)
    state = rebuild(events, run.path / "nodes", maximize=run.lock.maximize, each=each)
    return Loaded(run, events, state)
