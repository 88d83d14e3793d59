"""Audits of a language model: what makes bits-per-byte believable although inputs hold the targets.

The judge computes every number here on its own copies. The audit functions return an Audit and
most also a text that lets the author reproduce a failure. ``language`` collects their inputs.
docs/concepts/scoring.md explains why each audit is exact, and which cheats none of them detects.
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
"""Standard deviations. The judge draws the coin, so for a causal model this is an exact test of a
sum of at least hundreds of terms: one false alarm in 290,000 if the sum is normal."""

SPREAD_LIMIT = 0.25
"""Largest honest difference (nats, root mean square over the compared tokens) between two
answers at one position. bfloat16 keeps 8 bits: logits around 10 round by 0.03, in each layer.
Smaller differences that mostly have one sign are detected by ``drift``."""

DRIFT_LIMIT = 5.0
"""Standard deviations that the mean of paired differences may lie on the side of a cheat."""

LEAST_DRIFT = 1e-3
"""Nats. A mean difference up to this is always accepted as rounding."""

SURE = 1.645
"""Normal quantile, one-sided 95 %: how probably a gain of the printed resolution is detected."""


@dataclass(frozen=True, slots=True)
class TwinAnswers:
    """Two answers to the same input, as far as a stateless causal model can see it.

    ``again_in``: the request of the second answer. ``spread``: the largest difference at one
    position, ``at``; see SPREAD_LIMIT. ``gain``: how much lower the loss is the second time, nats
    per token; or for twins, by how much the preference leans to the continuation that was shown.
    """

    item: int
    again_in: int
    spread: float
    at: int
    gain: float


def agreement(name: str, pairs: list[TwinAnswers]) -> tuple[Audit, str]:
    """Check that pairs agree up to rounding. ``name``: of the audit, such as ``prefix``."""
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


def drift(name: str, pairs: list[TwinAnswers]) -> tuple[Audit, str]:
    """Check that the small differences of pairs do not lean the way a cheat would push them."""
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


def seen_drift(pairs: list[TwinAnswers]) -> float:
    """Return the smallest mean gain, nats per token, that ``drift`` sees with 95 % probability."""
    limit, error = _drift_limit(np.array([pair.gain for pair in pairs], np.float64))
    return limit + SURE * error


def _drift_limit(gains: Doubles) -> tuple[float, float]:
    n = len(gains)
    error = float(gains.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    return max(LEAST_DRIFT, DRIFT_LIMIT * error), error


@dataclass(frozen=True, slots=True)
class Swapped:
    """Preferences at places, in the order in which the places were first shown.

    ``preference``: log p(own) - log p(other) in nats. ``number``: index of the place in Places.
    """

    number: Ints
    preference: Doubles


def swap(places: Places, shown: Swapped, bytes_per_token: float) -> tuple[Audit, str, float]:
    """Check that the preference between two continuations does not depend on which one is shown.

    Returns the audit, a text that says where it fails most, and the resolution in bits-per-byte:
    the smallest average gain that would be detected with 95 % probability.
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
    # Where the own continuation is shown, a look-ahead that gains g raises the preference by at
    # least g. Where the other is shown, a cheat may notice it and stay honest: hence the 2.
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
    """Check that the loss does not fall while rows are served, beyond what the reference explains.

    ``nats`` and ``reference``: mean loss of each scored row by the model and by the n-gram
    reference, in serving order. Returns the audit, and the smallest average gain, nats per token,
    that would be detected with 95 % probability if the loss falls steadily.
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
    """Return the largest average gain, nats per token, of cheating too rarely to be audited.

    If a model cheats at a share of 3 / ``tried`` of all positions, ``tried`` audited positions meet
    it with 95 % probability. A rare cheat gains most where the loss is highest. So the result is
    the sum of that share of the highest ``nats`` (rows, positions), divided by the number of all.
    """
    taken = int(np.ceil(nats.size * min(1.0, 3 / max(1, tried))))
    dearest = np.partition(nats.ravel(), nats.size - taken)[nats.size - taken :]
    return float(dearest.sum(dtype=np.float64) / nats.size)


def _expected(preference: Doubles, reference: Doubles) -> Doubles:
    """Predict each preference from the reference's, with a slope fitted to earlier preferences.

    Only earlier ones are used: so the prediction, which ``swap`` subtracts, is fixed before the
    coin is drawn, and the test stays exact.
    """
    prior = 50.0  # weight of imagined data from a model equal to the reference
    covered = np.cumsum(preference * reference) - preference * reference + prior
    total = np.cumsum(reference**2) - reference**2 + prior
    return reference * covered / total


def _lean(sign: Doubles, rest: Doubles) -> float:
    spread = float(np.sqrt((rest**2).sum()))
    return float((sign * rest).sum()) / spread if spread > 0 else 0.0
