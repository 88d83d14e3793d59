"""What makes bits-per-byte believable although a language model's input holds its targets.

Every number here is computed by the judge on its own copy. Each function returns an Audit and,
where it failed, a sentence with which the author can reproduce it. docs/scoring.md says why
each is exact, and what none of them sees.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scorers.audits import TREND_LIMIT, rise
from scorers.score import Audit
from scorers.splice import Places

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

SWAP_LIMIT = 4.5
"""Standard deviations. The coin is the judge's, so for a causal model this is an exact test, of
a sum of at least hundreds of terms: one false alarm in 290,000 for a normal sum."""

SPREAD_LIMIT = 0.25
"""Largest honest difference (nats, root mean square over the compared tokens) between two
answers at one position. bfloat16 keeps 8 bits: logits around 10 round by 0.03, layer by layer.
What is smaller and leans to one side is seen by ``drift``."""

DRIFT_LIMIT = 5.0
"""Standard deviations that paired differences may lean the way that a cheat would push them."""

LEAST_DRIFT = 1e-3
"""Nats. Rounding may lean by less than this without anything to be seen."""

SURE = 1.645
"""One-sided 95 %: a theft of the printed resolution is seen with this probability."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to what a stateless causal model cannot tell apart.

    ``spread``: the largest difference at one position, ``at``; see SPREAD_LIMIT. ``gain``: how
    much less the targets cost the second time, nats a token; or for a twin, by how much the
    preference leans to the continuation that was shown.
    """

    item: int
    again_in: int
    spread: float
    at: int
    gain: float


def agreement(name: str, pairs: list[Pair]) -> tuple[Audit, str]:
    """Say whether pairs agree up to rounding; ``name`` is ``prefix`` or ``statelessness``."""
    worst = max(pairs, key=lambda pair: pair.spread, default=None)
    value = worst.spread if worst else 0.0
    audit = Audit(
        name=name,
        passed=value <= SPREAD_LIMIT,
        value=value,
        threshold=SPREAD_LIMIT,
        power=f"{len(pairs)} pairs, every position; nats",
    )
    where = (
        f"row {worst.item}, position {worst.at}, answered again in request {worst.again_in}: its "
        f"log probabilities moved by {value:.3g} nats, and nothing they may depend on had changed"
        if worst
        else ""
    )
    return audit, where


def drift(name: str, pairs: list[Pair]) -> tuple[Audit, str]:
    """Say whether the small differences of pairs lean the way a cheat would push them."""
    gains = np.array([pair.gain for pair in pairs], np.float64)
    n = len(gains)
    mean = float(gains.mean()) if n else 0.0
    limit, error = _drift_limit(gains)
    audit = Audit(
        name=name,
        passed=mean <= limit,
        value=mean,
        threshold=limit,
        power=f"{n} pairs: a lean of {limit + SURE * error:.2g} nats a token is seen",
    )
    return audit, f"over {n} pairs, by {mean:.3g} nats a token on average"


def seen_drift(pairs: list[Pair]) -> float:
    """Return the smallest lean, nats a token, that ``drift`` sees with 95 % probability."""
    limit, error = _drift_limit(np.array([pair.gain for pair in pairs], np.float64))
    return limit + SURE * error


def _drift_limit(gains: Doubles) -> tuple[float, float]:
    n = len(gains)
    error = float(gains.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    return max(LEAST_DRIFT, DRIFT_LIMIT * error), error


@dataclass(frozen=True, slots=True)
class Swapped:
    """Places in the order in which they were first shown.

    ``preference``: log p(own) - log p(other) in nats. ``number``: which place it is in Places.
    """

    number: Ints
    preference: Doubles


def swap(places: Places, shown: Swapped, bytes_per_token: float) -> tuple[Audit, str, float]:
    """The preference between two continuations cannot depend on which one stands there.

    Returns the audit, where it shows most, and the resolution in bits-per-byte: the smallest
    average gain that would be seen with 95 % probability.
    """
    sign = places.sign[shown.number].astype(np.float64)
    rest = shown.preference - _expected(shown.preference, places.reference[shown.number])
    first = places.after_bos[shown.number]
    sums = {
        "": _lean(sign, rest),
        " (many small gains)": _lean(sign, np.tanh(rest)),
        " (after BOS)": _lean(sign[first], rest[first]),
    }
    which = max(sums, key=lambda name: sums[name])
    n = len(rest)
    noise = float(np.sqrt(np.mean(rest**2) / n)) if n else np.inf
    # When its continuation stands, a look-ahead that gains g raises the preference by g at
    # least. When the other one stands it may know and abstain: hence half, hence the 2.
    nats = 2 * (SWAP_LIMIT + SURE) * noise
    resolution = nats / (np.log(2) * bytes_per_token)
    audit = Audit(
        name="swap",
        passed=sums[which] <= SWAP_LIMIT,
        value=sums[which],
        threshold=SWAP_LIMIT,
        power=(
            f"{n:,} places ({int(first.sum()):,} after BOS): an average gain of "
            f"{resolution:.2g} bits-per-byte by looking ahead is seen with 95 % probability"
        ),
    )
    worst = int(np.argmax(sign * rest)) if n else 0
    where = (
        f"{sums[which]:.1f} standard deviations{which}; most at audited row "
        f"{int(places.row[shown.number[worst]])}, position "
        f"{int(places.position[shown.number[worst]])}"
        if n
        else ""
    )
    return audit, where, float(resolution)


def trend(nats: Doubles, reference: Doubles) -> tuple[Audit, float]:
    """Rows do not become cheaper while serving, beyond what the reference explains.

    ``nats`` and ``reference``: mean loss of each scored row by the model and by the n-gram
    reference, in serving order. Returns the audit, and the smallest average gain, nats a token,
    that would be seen with 95 % probability of a learner whose rows become cheaper steadily.
    """
    n = len(nats)
    left = reference - reference.mean()
    slope = float((left * nats).sum() / max(1e-12, float((left**2).sum())))
    rest = nats - nats.mean() - slope * left
    order = np.arange(n)
    z = max(rise(-rest, order), rise(-rest, np.log1p(order)))
    drop = (TREND_LIMIT + SURE) * float(rest.std()) * np.sqrt(12 / max(1, n))
    audit = Audit(
        name="trend",
        passed=z <= TREND_LIMIT,
        value=z,
        threshold=TREND_LIMIT,
        power=f"{n} rows: a steady fall of {drop:.2g} nats a token from first to last is seen",
    )
    return audit, drop / 2


def rare_gain(nats: Floats, tried: int) -> float:
    """Return the largest average gain, nats a token, of a theft too rare to be met at a place.

    What happens at a share of 3 / ``tried`` of all positions is met in ``tried`` of them with 95 %
    probability. A thief who takes rarely takes the dearest: ``nats`` (rows, positions) are sorted.
    """
    taken = int(np.ceil(nats.size * min(1.0, 3 / max(1, tried))))
    dearest = np.partition(nats.ravel(), nats.size - taken)[nats.size - taken :]
    return float(dearest.sum(dtype=np.float64) / nats.size)


def _expected(preference: Doubles, reference: Doubles) -> Doubles:
    """Predict each preference from the reference's, with a slope learned from earlier ones.

    Earlier ones only: so what is subtracted is fixed before the coin falls, and the test exact.
    """
    prior = 50.0  # as if so much had been seen of a model that agrees with the reference
    covered = np.cumsum(preference * reference) - preference * reference + prior
    total = np.cumsum(reference**2) - reference**2 + prior
    return reference * covered / total


def _lean(sign: Doubles, rest: Doubles) -> float:
    spread = float(np.sqrt((rest**2).sum()))
    return float((sign * rest).sum()) / spread if spread > 0 else 0.0
