"""evolution and local: they mutate points that scored well.

Both choose their parents themselves, from the whole tree; those that a policy chose are ignored.
"""

from harness.agents.space import Space, SpacePoint
from harness.base.seeds import stream
from harness.core.agent import Answer, Ask
from harness.core.tree import Node

POPULATION = 20
TOURNAMENT = 5


class EvolutionAgent:
    """Regularised evolution (Real et al., arXiv 1802.01548, Algorithm 1).

    The population is the youngest scored nodes: a node dies of age, however good. There are
    POPULATION of them, or a quarter of the run's steps if that is less, but not fewer than
    TOURNAMENT. The best of TOURNAMENT of them, drawn without replacement, is mutated once; an
    invalid node is worse than any valid one. Until the population is full, points are drawn at
    random. As in the paper, a point may be tried again.
    """

    name = "evolution"
    trusted = True

    def write(self, ask: Ask) -> Answer:
        """Return a mutation of the tournament's winner, or at first a random point."""
        space = Space.of(ask)
        rng = stream(ask.seed, "knobs")
        scored = space.scored(ask.tree)
        quarter = POPULATION if ask.steps is None else ask.steps // 4
        population = max(TOURNAMENT, min(POPULATION, quarter))
        if len(scored) < population:
            return space.answer(space.draw(rng), "at random")
        sign = 1 if ask.tree.maximize else -1

        def worth(entrant: tuple[Node, SpacePoint]) -> float:
            score = entrant[0].score
            return float("-inf") if score is None else sign * score

        parent, point = max(rng.sample(scored[-population:], TOURNAMENT), key=worth)
        kinds = space.mutations(point, rng)
        child = rng.choice(rng.choice(kinds)) if kinds else point
        return space.answer(child, space.step(parent, child))


class LocalAgent:
    """Local search: an untried mutation of the best node that still has one.

    On neural architecture search benchmarks it is as good as far more complex methods (White et
    al., arXiv 2005.02960). The first point is random, and so is the next when nothing is valid
    or all mutations of all nodes were tried.
    """

    name = "local"
    trusted = True

    def write(self, ask: Ask) -> Answer:
        """Return a mutation not tried before. Raises Exhausted if all points were tried."""
        space = Space.of(ask)
        rng = stream(ask.seed, "knobs")
        tried = space.tried(ask.tree)
        for parent, point in space.ranked(ask.tree):
            kinds = [
                untried
                for kind in space.mutations(point, rng)
                if (untried := [one for one in kind if one not in tried])
            ]
            if kinds:
                child = rng.choice(rng.choice(kinds))
                return space.answer(child, space.step(parent, child))
        return space.answer(space.draw_untried(tried, rng), "at random")
