"""A whole run, read strictly: what is shown, exported, packed or scored again is checked here.

The chain of a journal shows damage, not intent: whoever knows how it is made can write a journal
that holds any JSON. So its values are checked as well, and submissions by their hashes.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from harness.base.errors import ConfigError
from harness.core.tree import Node
from harness.store.journal import Event, read
from harness.store.rundir import Run
from harness.store.state import State, rebuild

MOST = 1e12
"""No number of a run is larger: not a node, a score, a second or a token."""

_NODE = TypeAdapter(Node)


class Loaded(NamedTuple):
    """A run, what its journal says, and the state after that."""

    run: Run
    events: list[Event]
    state: State


def load(path: Path) -> Loaded:
    """Read a run without touching it. Raises ConfigError where it is damaged."""
    run = Run.open(path)
    events = read(run.path / "events.jsonl")
    run.refuse_other_lock(events)
    try:
        state = rebuild(events, run.path / "nodes", maximize=run.lock.maximize)
        _check(state)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"The journal of {path} holds what no run writes.",
            cause=f"{type(error).__name__}: {str(error)[:300]}",
        ) from error
    return Loaded(run, events, state)


def sensible(value: object) -> bool:
    """Return whether it is a number that a plot can hold, as no infinite or astronomic one is."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST


def _check(state: State) -> None:
    """Raise ValueError, or what else odd values raise, where a state is not one of a run."""
    for node in state.tree:
        _NODE.validate_json(json.dumps(asdict(node)), strict=True)
        if not all(map(sensible, (node.number, node.seconds, node.score or 0.0))):
            raise ValueError(f"node {node.number} has a number that is none")
        if node.number < 0:
            raise ValueError(f"there is no node {node.number}")
        if any(parent not in state.tree or parent >= node.number for parent in node.parents):
            raise ValueError(f"node {node.number} comes before its own parent")
    if state.finalist is not None and state.finalist not in state.tree:
        raise ValueError(f"node {state.finalist!r} was to be final, and there is none")
    if state.final is not None and not sensible(state.final["score"] or 0.0):
        raise ValueError("the final score is no number")
