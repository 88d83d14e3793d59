"""Builds search trees from short tuples, for the tests of policies."""

from harness.core.tree import Node, Tree


def tree(*nodes: tuple, maximize: bool = True) -> Tree:
    """Build a tree from tuples (operator, parents, score).

    ``parents``: None, a number or a tuple. ``score``: a number, None for buggy, "…" for running.
    """
    built = Tree(maximize=maximize)
    for number, (operator, parent, score) in enumerate(nodes):
        state = "written" if score == "…" else "scored"
        value = None if score == "…" else score
        parents = parent if isinstance(parent, tuple) else () if parent is None else (parent,)
        built.add(
            Node(number, operator, parents, state=state, valid=value is not None, score=value)
        )
    return built
