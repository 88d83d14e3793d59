"""The interface between search and agents: a request names an operator, an answer holds files.

The agents themselves are in ``harness.agents`` and ``harness.operators``.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from harness.core.model import Model
from harness.core.tree import Node, Operator, Tree
from tasks.definition import Value
from tasks.spec import Task


class Exhausted(Exception):
    """The agent has no further submission: the run ends normally with the nodes it has."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: the operator, its parents, and everything else that an agent may know.

    ``node`` is the number of the node that the answer becomes. ``seed`` belongs to this node alone,
    ``run_seed`` to the run.
    ``tree`` is a copy of the tree from when this node was chosen, without any later result; it
    holds scores of the search split only. ``model`` is None for agents without a model. Once
    ``cancel`` is set nobody waits for the answer any more. ``steps`` is how many nodes the run may
    have. ``log`` returns what a node's submission printed while it was evaluated on the search
    split, or "" if that is not known.
    """

    task: Task
    profile: str
    operator: Operator
    node: int
    parents: tuple[Node, ...]
    tree: Tree
    seed: int
    run_seed: int = 0
    model: Model | None = None
    cancel: threading.Event = field(default_factory=threading.Event)
    steps: int | None = None
    log: Callable[[int], str] = lambda _: ""

    @property
    def left(self) -> Mapping[str, float]:
        """What the limited budgets had left when this node was chosen: steps, time_s, dollars …

        Kept in the journal, so that a resumed or replayed run gives an agent the same values.
        """
        return self.tree[self.node].left


@dataclass(frozen=True, slots=True)
class Answer:
    """The files of one submission. ``prompt`` and ``completion`` are kept unless they are empty.

    An agent that gives up answers with the files that it has, or none: the judge then names the
    missing files, without a sandbox. ``analyses`` are of earlier nodes, by their numbers.
    """

    files: Mapping[str, str]
    note: str = ""
    knobs: dict[str, Value] | None = None
    prompt: str = ""
    completion: str = ""
    analyses: Mapping[int, str] = field(default_factory=dict)


class Agent(Protocol):
    """Writes submissions. Called from several threads at once if a run has several slots."""

    name: str
    trusted: bool
    """True if its submissions ship with the harness and may run without isolation. Ignored for an
    agent that a package adds: its submissions count as untrusted."""

    def write(self, ask: Ask) -> Answer:
        """Answer one request. Raises Exhausted, ProviderError, ConfigError, Cancelled."""
        ...
