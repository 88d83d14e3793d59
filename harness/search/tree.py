"""The search tree, rebuilt from the journal: the only state a policy or an agent sees."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from tasks.spec import Value

Operator = Literal["draft", "debug", "improve", "crossover"]


@dataclass(frozen=True, slots=True)
class Node:
    """One submission. ``score`` is the search split's; None while unscored or when invalid.

    ``state``: chosen (the agent is being asked), written (its files exist), scored.
    """

    number: int
    operator: Operator
    parents: tuple[int, ...]
    state: Literal["chosen", "written", "scored"] = "chosen"
    note: str = ""
    knobs: dict[str, Value] | None = None
    files: dict[str, str] = field(default_factory=dict)
    valid: bool = False
    score: float | None = None
    reason: str | None = None
    message: str = ""
    seconds: float = 0.0

    @property
    def buggy(self) -> bool:
        """Scored, and invalid."""
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
        """Remove a node that never came to be."""
        del self._nodes[number]

    def children(self, number: int) -> list[Node]:
        """Return the nodes that have ``number`` among their parents."""
        return [node for node in self if number in node.parents]

    def scored(self) -> list[Node]:
        """Return the nodes whose evaluation is recorded, in order of their numbers."""
        return [node for node in self if node.state == "scored"]

    def better(self, a: float, b: float) -> bool:
        """Return whether score ``a`` is strictly better than ``b``."""
        return a > b if self.maximize else a < b

    def best(self) -> Node | None:
        """Return the valid node with the best search score; the earlier one on a tie."""
        best: Node | None = None
        for node in self.scored():
            if node.score is None:
                continue
            if best is None or best.score is None or self.better(node.score, best.score):
                best = node
        return best

    def debug_depth(self, number: int) -> int:
        """Return how many debug steps in a row lead to this node."""
        depth, node = 0, self[number]
        while node.operator == "debug":
            depth += 1
            node = self[node.parents[0]]
        return depth
