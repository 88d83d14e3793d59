"""evolve: a population of valid nodes; parents are drawn by rank or by fitness.

docs/reference/policies/evolve.md: sources, and differences from the public implementations.
"""

import math
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Literal

from harness.core.policy import Decision
from harness.core.tree import Node, Tree
from harness.policies.base import BasePolicy, parameter


@dataclass(frozen=True)
class Evolve(BasePolicy):
    """Draws one node to improve, or two to cross, from the population of valid nodes."""

    name: ClassVar[str] = "evolve"
    source: ClassVar[str] = (
        "AIRA2 (arXiv 2603.26499) for rank selection, temperature and crossover; "
        "num_drafts, max_debug_depth and population: public AIRA-dojo"
    )
    num_drafts: int = parameter(5, "drafts before anything else", low=1)
    selection: Literal["rank", "fitness"] = parameter("rank", "what a node is drawn by")
    # Below 0.01 the weights of all nodes but the best would underflow to 0.
    temperature: float = parameter(0.2, "lower draws the best more often", low=0.01, high=1e6)
    crossover_prob: float = parameter(0.15, "probability to cross two", low=0, high=1)
    population: int = parameter(500, "the best so many nodes may be parents", low=1)
    max_debug_depth: int = parameter(10, "debug steps in a row, at most", low=0)
    generation_size: int = parameter(
        0, "ideas a generation, whose parents are all older; 0: no generations", low=0
    )

    def choose(self, tree: Tree, rng: Random) -> Decision | None:
        """Debug a broken node, else draft, else cross or improve members of the population."""
        broken = tree.repairable(self.max_debug_depth)
        if broken:
            return Decision("debug", (broken[0].number,))
        if sum(node.operator == "draft" for node in tree) < self.num_drafts:
            return Decision("draft")
        begins = self._generation_begins(tree)
        if begins is None:
            return None
        members = self._members(tree, begins)
        if not members:
            return None if tree.is_running() else Decision("draft")
        weights = self.weights(tree, members)
        first = _draw(members, weights, rng)
        if len(members) == 1 or rng.random() >= self.crossover_prob:
            return Decision("improve", (members[first].number,))
        weights[first] = 0.0
        second = _draw(members, weights, rng)
        return Decision("crossover", (members[first].number, members[second].number))

    def weights(self, tree: Tree, members: list[Node]) -> list[float]:
        """Return each member's weight in the random draw; ``members`` are sorted best first."""
        if self.selection == "rank":
            # (N - rank + 1)^(1/T), ranks from 1, divided by the largest so as not to overflow.
            size = len(members)
            return [((size - place) / size) ** (1 / self.temperature) for place in range(size)]
        worth = tree.normalised()
        return [math.exp((worth[node.number] - 1) / self.temperature) for node in members]

    def _members(self, tree: Tree, begins: int) -> list[Node]:
        """Return the nodes that may be parents, best first, the earlier one first on a tie."""
        # Sort by the raw scores: scaled to 0…1, two close scores can become equal.
        return tree.ranked(before=begins)[: self.population]

    def _generation_begins(self, tree: Tree) -> int | None:
        """Return the number of the current generation's first node, None if it has to wait.

        A new generation waits until no node is running. The drafts are generation 0. Without
        generations each node is a generation of its own.
        """
        if not self.generation_size:
            return len(tree)
        ideas = [node.number for node in tree if node.operator != "debug"][self.num_drafts :]
        complete = len(ideas) - len(ideas) % self.generation_size
        if complete < len(ideas):
            return ideas[complete]
        return None if tree.is_running() else len(tree)


def _draw(members: list[Node], weights: list[float], rng: Random) -> int:
    """Return the index of one member, drawn at random by weight."""
    return rng.choices(range(len(members)), weights)[0]
