"""The seam between search and whoever writes code: asked for an operator, answers with files."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from harness.core.model import Model
from harness.core.tree import Node, Operator, Tree
from tasks.definition import Value
from tasks.spec import Task


class Exhausted(Exception):
    """The agent has nothing more to offer: the run ends well with what it has."""


def _no_log(number: int) -> str:  # noqa: ARG001
    return ""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: which operator on which parents, and all that an agent may know.

    ``node`` is the number the answer will have. ``seed`` belongs to this node alone.
    ``tree`` is a copy, as the tree was when this node was chosen, whatever finished since; it
    holds scores of the search split only. ``model`` is None for agents without one. Once
    ``cancel`` is set nobody waits for the answer any more. ``steps`` is how many nodes the run may
    have. ``log`` returns what a node's submission printed while it was evaluated on the search
    split, "" where there is nothing.
    """

    task: Task
    profile: str
    operator: Operator
    node: int
    parents: tuple[Node, ...]
    tree: Tree
    seed: int
    model: Model | None = None
    cancel: threading.Event = field(default_factory=threading.Event)
    steps: int | None = None
    log: Callable[[int], str] = _no_log

    @property
    def left(self) -> Mapping[str, float]:
        """What the limited budgets had left when this node was chosen: steps, time_s, dollars …

        Journalled, so that a resumed or replayed run is told the same.
        """
        return self.tree[self.node].left


@dataclass(frozen=True, slots=True)
class Answer:
    """The files of one submission. ``prompt`` and ``completion`` are kept where there are any.

    An agent that gives up answers with what files there are, or none: the judge then names what
    is missing, without a sandbox. ``analyses`` are of earlier nodes, by their numbers.
    """

    files: Mapping[str, str]
    note: str = ""
    knobs: dict[str, Value] | None = field(default=None)
    prompt: str = ""
    completion: str = ""
    analyses: Mapping[int, str] = field(default_factory=dict)


class Agent(Protocol):
    """Writes submissions. Asked from several threads at once where a run has several slots."""

    name: str
    trusted: bool
    """True where what it submits ships with the harness and may run without isolation. Of an agent
    that a package adds it is not asked: what that writes never may."""

    def write(self, ask: Ask) -> Answer:
        """Answer one request. Raises Exhausted, ProviderError, ConfigError, Cancelled."""
        ...
