"""The interface of a policy: a pure function of the tree and a random stream.

The policies themselves are in ``harness.policies``.
"""

from dataclasses import dataclass
from random import Random
from typing import ClassVar, Protocol

from harness.core.tree import Operator, Tree


@dataclass(frozen=True, slots=True)
class Decision:
    """The next thing to ask an agent for. A crossover has two parents, a draft has none."""

    operator: Operator
    parents: tuple[int, ...] = ()


class Policy(Protocol):
    """Chooses the next node. Its fields are its parameters; it holds no other state."""

    name: ClassVar[str]
    most: ClassVar[int | None]
    """The most nodes that it ever makes; None if only the budgets limit it."""

    def choose(self, tree: Tree, rng: Random) -> Decision | None:
        """Return what to do next, or None if there is nothing to do for now.

        ``tree`` also holds the running nodes (their state is not "scored"). After None the policy
        is called again as soon as a running node has finished a step; if none runs, the search
        ends. ``rng`` derives from the run's seed and the number that the next node will have.
        """
        ...
