"""The search tree, rebuilt from the journal: the only state a policy or an agent sees."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from tasks.definition import Value

Operator = Literal["draft", "debug", "improve", "crossover"]


@dataclass(frozen=True, slots=True)
class Node:
    """One submission. ``score`` is the search split's; None while unscored or when invalid.

    ``state``: chosen (the agent is being asked), written (its files exist), scored; or ungraded:
    the judge failed on it, so it is neither valid nor buggy, and no node builds on it. ``left`` is
    what the limited budgets (``core.budget.BudgetLimits``) had left when it was chosen, by name.
    """

    number: int
    operator: Operator
    parents: tuple[int, ...]
    state: Literal["chosen", "written", "scored", "ungraded"] = "chosen"
    left: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    knobs: dict[str, Value] | None = None
    files: dict[str, str] = field(default_factory=dict)
    valid: bool = False
    score: float | None = None
    reason: str | None = None
    message: str = ""
    seconds: float = 0.0
    analysis: str | None = None
    """What an agent wrote about the outcome; "" if it wrote nothing, None if it was not asked."""

    @property
    def running(self) -> bool:
        """Whether it is still being written or evaluated."""
        return self.state in ("chosen", "written")

    @property
    def buggy(self) -> bool:
        """Whether it is scored and invalid."""
        return self.state == "scored" and not self.valid


class Tree:
    """All nodes of a run by number, from 0. ``maximize`` is the metric's direction."""

    def __init__(self, *, maximize: bool = True) -> None:
        self.maximize = maximize
        self._nodes: dict[int, Node] = {}

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, number: int) -> Node:
        return self._nodes[number]

    def __contains__(self, number: int) -> bool:
        return number in self._nodes

    def add(self, node: Node) -> None:
        """Add a new node."""
        self._nodes[node.number] = node

    def update(self, number: int, **changes: object) -> Node:
        """Replace fields of a node; return the new one."""
        self._nodes[number] = replace(self._nodes[number], **changes)  # type: ignore[arg-type]
        return self._nodes[number]

    def drop(self, number: int) -> None:
        """Remove a node for which the agent gave no submission."""
        del self._nodes[number]

    def copy(self) -> "Tree":
        """Return a copy that later changes of this tree do not affect; nodes are shared."""
        other = Tree(maximize=self.maximize)
        other._nodes = dict(self._nodes)
        return other

    def children(self, number: int) -> list[Node]:
        """Return the nodes that have ``number`` among their parents."""
        return [node for node in self if number in node.parents]

    def scored(self) -> list[Node]:
        """Return the nodes whose evaluation is recorded, in order of their numbers."""
        return [node for node in self if node.state == "scored"]

    def is_running(self) -> bool:
        """Return whether a node is still being written or evaluated."""
        return any(node.running for node in self)

    def ungraded(self) -> list[Node]:
        """Return the nodes that the judge failed on."""
        return [node for node in self if node.state == "ungraded"]

    def better(self, a: float, b: float) -> bool:
        """Return whether score ``a`` is strictly better than ``b``."""
        return a > b if self.maximize else a < b

    def ranked(self, *, before: float) -> list[Node]:
        """Return the valid nodes below a number, best search score first; on a tie the earlier."""
        sign = -1 if self.maximize else 1
        valid = [(sign * n.score, n) for n in self.scored() if n.score is not None]
        ranked = sorted(valid, key=lambda pair: pair[0])
        return [node for _, node in ranked if node.number < before]

    def best(self, *, before: float = math.inf) -> Node | None:
        """Return the first of ``ranked``; None if no node is valid."""
        return next(iter(self.ranked(before=before)), None)

    def debug_depth(self, number: int) -> int:
        """Return how many debug steps in a row lead to this node."""
        depth, node = 0, self[number]
        while node.operator == "debug":
            depth += 1
            node = self[node.parents[0]]
        return depth

    def repairable(self, max_debug_depth: int) -> list[Node]:
        """Return the buggy nodes without children that may have one more debug step.

        A running child counts, too: a node is never debugged twice. No more than
        ``max_debug_depth`` debug steps ever follow each other.
        """
        tried = {parent for node in self for parent in node.parents}
        return [
            node
            for node in self
            if node.buggy
            and node.number not in tried
            and self.debug_depth(node.number) < max_debug_depth
        ]

    def normalised(self) -> dict[int, float]:
        """Return the valid nodes' scores from 0 (worst) to 1 (best); all 0.5 if all are equal."""
        scores = {node.number: node.score for node in self if node.score is not None}
        if not scores:
            return {}
        worst, best = min(scores.values()), max(scores.values())
        if worst == best:
            return dict.fromkeys(scores, 0.5)
        if not self.maximize:
            worst, best = best, worst
        return {number: (score - worst) / (best - worst) for number, score in scores.items()}
