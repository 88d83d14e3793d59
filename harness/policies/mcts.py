"""mcts: UCT over ideas; a broken idea is repaired in place, and counts once it is valid.

docs/reference/policies/mcts.md: the rule in full, sources, and differences from the public
implementation.
Nothing is kept between calls: visits and values are counted anew in the tree each time.
"""

import math
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

from harness.core.policy import Decision
from harness.core.tree import Node, Tree
from harness.policies.base import BasePolicy, parameter


@dataclass(slots=True)
class _Idea:
    """A draft or an improvement together with its repairs: one vertex of the UCT tree.

    ``tip`` is the last of its nodes; the root, whose children are the drafts, has none.
    ``visits`` and ``total`` (of normalised scores) are sums over the idea and all ideas below it;
    so is ``running``, the nodes that become visits if they turn out valid.
    """

    tip: Node | None
    parent: "_Idea | None"
    children: list["_Idea"] = field(default_factory=list)
    visits: int = 0
    total: float = 0.0
    running: int = 0
    is_open: bool = False
    """Whether a new idea may be added as its child or anywhere below it."""


@dataclass(frozen=True)
class Mcts(BasePolicy):
    """Goes down the tree by UCT to an idea that has no children, and improves that idea."""

    name: ClassVar[str] = "mcts"
    source: ClassVar[str] = "public AIRA-dojo (arXiv 2507.02554)"
    num_children: int = parameter(5, "drafts, and improvements of each idea", low=1)
    uct_c: float = parameter(0.25, "weight of exploration", low=0)
    max_debug_depth: int = parameter(20, "debug steps in a row, at most", low=0)

    def choose(self, tree: Tree, rng: Random) -> Decision | None:
        """Debug a broken node, else go on with an expansion under way, else begin another."""
        broken = tree.repairable(self.max_debug_depth)
        if broken:
            return Decision("debug", (broken[0].number,))
        root, ideas = self._count(tree)
        begun = (i for i in (root, *ideas) if i.is_open and 0 < len(i.children) < self.num_children)
        place = next(begun, None) or self._descend(root)
        if place is not None:
            return Decision("improve", (place.tip.number,)) if place.tip else Decision("draft")
        # No idea can be expanded: those without children stayed broken, or are still running.
        return None if tree.is_running() else Decision("draft")

    def _count(self, tree: Tree) -> tuple[_Idea, list[_Idea]]:
        """Return the root and all ideas, with visits, totals and ``is_open`` filled in."""
        worth = tree.normalised()
        root = _Idea(None, None)
        ideas: list[_Idea] = []
        idea_of: dict[int, _Idea] = {}
        for node in tree:
            above = idea_of[node.parents[0]] if node.parents else root
            if node.operator == "debug":
                idea = above
                idea.tip = node
            else:
                idea = _Idea(node, above)
                above.children.append(idea)
                ideas.append(idea)
            idea_of[node.number] = idea
            idea.running += node.running
            if node.number in worth:
                idea.visits += 1
                idea.total += worth[node.number]
        # Parents come first, so in reverse order each idea is complete when its parent adds it.
        for idea in (*reversed(ideas), root):
            room = len(idea.children) < self.num_children
            valid = idea.tip is None or idea.tip.number in worth
            idea.is_open = valid and (room or any(c.is_open for c in idea.children))
            if idea.parent is not None:
                idea.parent.visits += idea.visits
                idea.parent.total += idea.total
                idea.parent.running += idea.running
        return root, ideas

    def _descend(self, root: _Idea) -> _Idea | None:
        """Return the idea to which UCT leads from the root, None if there is none."""
        here = root
        while len(here.children) >= self.num_children:
            open_ones = [child for child in here.children if child.is_open]
            if not open_ones:
                return None
            parent_visits = here.visits + here.running
            # max takes the first, and thus the oldest, of equals.
            here = max(open_ones, key=lambda c, n=parent_visits: self._uct(c, n))  # type: ignore[misc]
        return here

    def _uct(self, idea: _Idea, parent_visits: int) -> float:
        # A running node counts as a visit without a value, as in WU-UCT (Liu et al., 2020), so
        # that with several workers the next worker goes elsewhere.
        visits = idea.visits + idea.running
        return idea.total / idea.visits + self.uct_c * math.sqrt(math.log(parent_visits) / visits)
