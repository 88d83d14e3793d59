"""Whether what a journal gave is what runs write.

The chain of a journal shows damage, not intent: whoever knows how it is made can write a journal
that holds any JSON. What is shown, exported or plotted is checked once, here.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter

from harness.base.errors import ConfigError
from harness.core.tree import Node
from harness.store.state import State
from harness.store.tape import Record, Tape

MOST = 1e12
"""No number of a run is larger: not a node, a score, a second or a token."""

_NODE = TypeAdapter(Node)


def sensible(value: object) -> bool:
    """Return whether it is a number that a plot can hold, as no infinite or astronomic one is."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST


def calls_of(run: Path) -> Iterator[Record]:
    """Yield a run's calls. Raises ConfigError where one is damaged, or is no plain file."""
    for file in run.glob("nodes/*/calls/*.json"):
        if not file.is_file():  # a pipe would be waited for without end
            raise ConfigError(f"{file} is no regular file.")
    yield from Tape(run)


def check(state: State) -> None:
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
