"""prior: sequences of layers as a textbook would write them, without a look at any score."""

from collections.abc import Set
from fractions import Fraction
from random import Random

from harness.agents.space import Space, SpacePoint
from harness.base.errors import ConfigError
from harness.base.seeds import stream
from harness.core.agent import Answer, Ask, Exhausted
from tasks.definition import Sequence, Value

TURN = Fraction(17, 20)
"""Probability that a mixer is followed by an MLP, or an MLP by a mixer. Each layer of the
Transformer (arXiv 1706.03762, Section 3.1) is one of each in turn."""

CHEAPEST = Fraction(7, 8)
"""Probability that a mixer is the cheapest if there are several. Jamba (arXiv 2403.19887,
Section 3.1) has seven layers of Mamba for each layer of attention."""


class PriorAgent:
    """Draws sequences from a Markov chain over the primitives, each sequence only once.

    The first layer is a mixer. A mixer is followed by another primitive than a mixer with
    probability TURN, and such a one by a mixer with the same probability. The last mixer that the
    task names counts as the cheapest and is drawn with probability CHEAPEST; the other mixers are
    equally likely among themselves, and so are the primitives that do not mix.
    """

    name = "prior"
    trusted = True

    def write(self, ask: Ask) -> Answer:
        """Return the alternating sequence as node 0, then draws without replacement.

        Raises Exhausted if all sequences of the chain were tried, and ConfigError if the task's
        submissions are not sequences of mixers and other primitives.
        """
        space, sequence = Space.of(ask), ask.task.definition.sequence
        if sequence is None or not 0 < len(sequence.mixers) < len(sequence.primitives):
            raise ConfigError(
                f"Agent prior writes mixers and other layers; {ask.task.name} has no such layers.",
                remedy="--agent random, tpe, evolution, local or gp",
            )
        layers = len(space.knobs)
        if ask.node == 0:
            turn = (sequence.mixers[-1], _others(sequence)[0])
            return space.answer((turn * layers)[:layers], "mixers and others in turn")
        tried, rng = space.tried(ask.tree), stream(ask.seed, "prior")
        return space.answer(draw_sequence(sequence, layers, tried, rng), "from the prior")


def follow(sequence: Sequence, before: Value | None) -> dict[Value, Fraction]:
    """Return the probability of each primitive after ``before``; None: at the beginning."""
    mixers, others = sequence.mixers, _others(sequence)
    mixes = Fraction(1) if before is None else 1 - TURN if before in mixers else TURN
    cheapest = CHEAPEST if len(mixers) > 1 else Fraction(1)
    odds: dict[Value, Fraction] = {one: (1 - mixes) / len(others) for one in others}
    for one in mixers[:-1]:
        odds[one] = mixes * (1 - cheapest) / (len(mixers) - 1)
    odds[mixers[-1]] = mixes * cheapest
    return odds


def draw_sequence(
    sequence: Sequence, layers: int, tried: Set[SpacePoint], rng: Random
) -> SpacePoint:
    """Draw a sequence of the chain that is not in ``tried``. Raises Exhausted if none is left.

    Each layer is drawn by the probability of its untried sequences: of all that begin like this,
    less the tried ones. Fractions are exact, so what was tried whole has the probability 0.
    """
    values: tuple[Value | None, ...] = (None, *sequence.primitives)
    after = {before: follow(sequence, before) for before in values}
    known = dict.fromkeys(tried, Fraction(1))
    for point in tried:
        for before, one in zip((None, *point), point, strict=False):
            known[point] *= after[before][one]
    drawn: SpacePoint = ()
    begins = Fraction(1)
    for place in range(layers):
        odds = {one: begins * p for one, p in after[(None, *drawn)[-1]].items()}
        left = dict(odds)
        for point, probability in known.items():
            left[point[place]] -= probability
        total = sum(left.values())
        if not total:
            raise Exhausted("All sequences of the prior have been tried.")
        (one,) = rng.choices(list(left), [float(weight / total) for weight in left.values()])
        drawn, begins = (*drawn, one), odds[one]
        known = {point: p for point, p in known.items() if point[place] == one}
    return drawn


def _others(sequence: Sequence) -> list[str]:
    return [one for one in sequence.primitives if one not in sequence.mixers]
