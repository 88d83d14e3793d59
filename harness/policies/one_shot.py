"""one_shot: one draft, one solution, no feedback. docs/reference/policies/one_shot.md"""

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from harness.core.policy import Decision
from harness.core.tree import Tree
from harness.policies.base import BasePolicy


@dataclass(frozen=True)
class OneShot(BasePolicy):
    """Drafts once and stops."""

    name: ClassVar[str] = "one_shot"
    source: ClassVar[str] = "AIRA-Design (arXiv 2605.15871), section 2"
    most: ClassVar[int | None] = 1

    def choose(self, tree: Tree, rng: Random) -> Decision | None:
        """Draft if nothing was drafted yet."""
        return Decision("draft") if len(tree) == 0 else None
