"""What a policy is: a pure function of the tree and a random stream."""

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
    """How many nodes it makes, whatever it is let; None: as many as it is let."""

    def choose(self, tree: Tree, rng: Random) -> Decision | None:
        """Return what to do next, or None if there is nothing to do for now.

        ``tree`` holds the running nodes too (their state is not "scored"). None while some run
        means: ask again when one has finished. ``rng`` derives from the run's seed and the
        number that the next node will have.
        """
        ...
