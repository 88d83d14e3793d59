"""greedy: drafts first, then repair what is broken, else improve the best.

docs/reference/policies/greedy.md: sources, and differences from the public implementations.
"""

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from harness.core.policy import Decision
from harness.core.tree import Tree
from harness.policies.base import BasePolicy, parameter


@dataclass(frozen=True)
class Greedy(BasePolicy):
    """Drafts, then debugs a broken leaf or improves the best node."""

    name: ClassVar[str] = "greedy"
    source: ClassVar[str] = (
        "AIRA-Design (arXiv 2605.15871), section 2; the debug values are public AIRA-dojo's"
    )
    num_drafts: int = parameter(5, "drafts before anything else", low=1)
    debug_prob: float = parameter(1.0, "probability to repair rather than improve", low=0, high=1)
    max_debug_depth: int = parameter(20, "debug steps in a row, at most", low=0)

    def choose(self, tree: Tree, rng: Random) -> Decision | None:
        """Draft, debug a random broken leaf, or improve the best node, in that order."""
        if sum(node.operator == "draft" for node in tree) < self.num_drafts:
            return Decision("draft")
        broken = tree.repairable(self.max_debug_depth)
        if broken and rng.random() < self.debug_prob:
            return Decision("debug", (rng.choice(broken).number,))
        best = tree.best()
        if best is not None:
            return Decision("improve", (best.number,))
        # Wait for running nodes: if one turns out valid, no other draft is needed.
        return None if tree.is_running() else Decision("draft")
