"""gp: a Gaussian process (scikit-learn) whose kernel knows the order of layers."""

import math
from collections.abc import Sequence
from itertools import product
from random import Random

from harness.agents.space import Space, SpacePoint
from harness.base.errors import ConfigError
from harness.base.seeds import stream
from harness.core.agent import Answer, Ask
from harness.core.tree import Tree
from tasks.definition import Knob, Value

RANDOM_FIRST = 5
WHOLE = 4096
BEST, RANDOM = 10, 2000
LENGTHS = (1.0, 2.0, 4.0, 8.0)
NOISES = (0.01, 0.1)
"""Length scales, and variances of the noise as a part of the scores' variance, to choose from."""

Rows = list[list[float]]


class GaussianProcessAgent:
    """Bayesian optimisation: next is the candidate with the highest expected improvement.

    Candidates are all untried points if they are at most WHOLE, else the untried mutations of the
    BEST best nodes and RANDOM random points. Points are random until RANDOM_FIRST are scored. An
    invalid node counts as the worst valid one.
    """

    name = "gp"
    trusted = True

    def write(self, ask: Ask) -> Answer:
        """Return the best untried candidate. Raises Exhausted if all points were tried.

        While lower nodes have no point yet, they may get the best: then it is the second best, and
        so on.
        """
        try:
            import sklearn.gaussian_process  # noqa: F401 (used below)
        except ImportError as error:
            raise ConfigError(
                "Agent gp needs scikit-learn, which is not installed.",
                remedy="pip install 'aira-harness[gp]'",
            ) from error
        space = Space.of(ask)
        rng = stream(ask.seed, "knobs")
        random = space.draw_untried(space.tried(ask.tree), rng)
        scored = space.scored(ask.tree)
        sign = 1 if ask.tree.maximize else -1
        valid = [sign * node.score for node, _ in scored if node.score is not None]
        if len(scored) < RANDOM_FIRST or not valid:
            return space.answer(random, "at random")
        scores = [min(valid) if n.score is None else sign * n.score for n, _ in scored]
        pool = candidates(space, ask.tree, random, rng)
        rng.shuffle(pool)  # the sort below keeps this order among equals
        blocks = encode(space, [point for _, point in scored] + pool)
        gains = expected_improvement(blocks, scores)
        order = sorted(range(len(pool)), key=lambda i: -gains[i])
        waiting = sum(node.state == "chosen" and node.number < ask.node for node in ask.tree)
        place = order[min(waiting, len(pool) - 1)]
        return space.answer(pool[place], f"expected improvement {gains[place]:.2g}")


def candidates(space: Space, tree: Tree, random: SpacePoint, rng: Random) -> list[SpacePoint]:
    """Return the untried points to choose from; ``random`` is one of them."""
    tried = space.tried(tree)
    if space.size is not None and space.size - len(tried) <= WHOLE:
        return list(space.untried(tried))
    found = [random]
    for _, point in space.ranked(tree)[:BEST]:
        found += [one for kind in space.mutations(point, rng) for one in kind]
    found += [space.draw(rng) for _ in range(RANDOM)]
    return [one for one in dict.fromkeys(found) if one not in tried]


def encode(space: Space, points: list[SpacePoint]) -> list[Rows]:
    """Return blocks of numbers, each with a row for each point.

    The first has 0 or 1 for each choice of a knob, and a range scaled to 0 … 4. For a sequence a
    second counts each substring of two and of three layers.
    """
    knobs = list(space.knobs.values())
    blocks = [[[x for k, v in zip(knobs, p, strict=True) for x in _scaled(k, v)] for p in points]]
    if space.is_sequence:
        words = [word for n in (2, 3) for word in product(knobs[0].choices, repeat=n)]
        at = {word: place for place, word in enumerate(words)}
        counts = [[0.0] * len(words) for _ in points]
        for row, point in zip(counts, points, strict=True):
            for n in (2, 3):
                for begin in range(len(point) - n + 1):
                    row[at[point[begin : begin + n]]] += 1
        blocks.append(counts)
    return blocks


def expected_improvement(blocks: list[Rows], scores: Sequence[float]) -> list[float]:
    """Return by how much each point after the scored ones is expected to raise the best score.

    The first rows of the blocks are the scored points'. The kernel is a product with a factor for
    each block, a squared exponential: positive definite, as each factor is. Its length scales and
    the noise are those of LENGTHS and NOISES with the highest marginal likelihood (Rasmussen and
    Williams, 2006, Section 5.4.1). Expected improvement (Jones et al., 1998, J. Global Optim. 13,
    Section 4.1) is over the highest mean at a scored point, as scores are noisy.
    """
    import numpy as np
    from scipy.stats import norm
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF

    rows = np.hstack(blocks)
    known, new = rows[: len(scores)], rows[len(scores) :]
    fits = []
    for lengths in product(LENGTHS, repeat=len(blocks)):
        # One squared exponential with a length scale for each column is the product.
        scale = [s for s, block in zip(lengths, blocks, strict=True) for _ in block[0]]
        for noise in NOISES:
            model = GaussianProcessRegressor(
                RBF(scale), alpha=noise, optimizer=None, normalize_y=True
            )
            fits.append(model.fit(known, scores))
    best = max(fits, key=lambda fit: fit.log_marginal_likelihood_value_)
    mean, deviation = best.predict(new, return_std=True)
    gain = mean - best.predict(known).max()
    z = gain / np.maximum(deviation, 1e-12)
    improvement = gain * norm.cdf(z) + deviation * norm.pdf(z)
    # The last digits differ between machines; they shall not decide between equals.
    return [float(f"{one:.6g}") for one in improvement]


def _scaled(knob: Knob, value: Value) -> list[float]:
    """Return the columns of one knob."""
    if knob.choices:
        return [float(value == choice) for choice in knob.choices]
    low, high, at = knob.low, knob.high, float(value)
    if knob.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    return [4 * (at - low) / (high - low)]
