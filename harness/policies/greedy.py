"""greedy: drafts first, then repair what is broken, else improve the best.

Source: AIRA-Design (arXiv 2605.15871, section 2) for five drafts and the choice of parent;
debug probability 1.0 and depth 20 are those of the public AIRA-dojo configuration, which
the paper does not confirm. There the depth test lets chains reach one more than the
parameter says; here ``max_debug_depth`` means at most that many debug steps in a row.
"""

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from harness.errors import ConfigError
from harness.policies.base import Decision, Parameters
from harness.search.tree import Node, Tree


@dataclass(frozen=True)
class Greedy(Parameters):
    """Drafts ``num_drafts`` times, then debugs or improves."""

    name: ClassVar[str] = "greedy"
    num_drafts: int = 5
    debug_prob: float = 1.0
    max_debug_depth: int = 20

    def validate(self) -> None:
        """Raise ConfigError where a parameter is out of its range."""
        if self.num_drafts < 1:
            raise ConfigError("greedy.num_drafts must be at least 1.")
        if not 0 <= self.debug_prob <= 1:
            raise ConfigError("greedy.debug_prob must lie between 0 and 1.")
        if self.max_debug_depth < 0:
            raise ConfigError("greedy.max_debug_depth must not be negative.")

    def choose(self, tree: Tree, rng: Random) -> Decision | None:
        """Draft, debug a random repairable leaf, or improve the best node, in that order."""
        drafts = sum(node.operator == "draft" for node in tree)
        if drafts < self.num_drafts:
            return Decision("draft")
        repairable = [node for node in tree if self._repairable(tree, node)]
        if repairable and rng.random() < self.debug_prob:
            return Decision("debug", (rng.choice(repairable).number,))
        best = tree.best()
        if best is None:
            return Decision("draft")
        return Decision("improve", (best.number,))

    def _repairable(self, tree: Tree, node: Node) -> bool:
        leaf = not tree.children(node.number)
        return node.buggy and leaf and tree.debug_depth(node.number) < self.max_debug_depth
