"""Tests of the difference between two sets of runs, paired by task and seed or unpaired (Welch).

Pairing removes the variation that both runs of a seed share: the seed decides the order of the
data and the initial weights. The caller forms the pairs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from harness.report.stats import student


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference B - A. ``n`` counts the pairs; if unpaired, the runs of the smaller set.

    ``low``, ``high``: the 95 % interval, None for fewer than two pairs. ``p``: two-sided, the null
    hypothesis is no difference. ``identical``: at least two pairs, and all are exactly equal.
    """

    n: int
    mean: float
    deviation: float
    df: float
    paired: bool
    low: float | None
    high: float | None
    p: float | None
    identical: bool = False

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        return self.deviation / math.sqrt(self.n)


def paired(differences: Sequence[float], *, score_step: float = 0.0) -> Difference:
    """Return the paired t test of one or more differences.

    ``score_step`` is the smallest step of a score (1 / rows for an accuracy). Rounding to it alone
    gives a difference of two scores a deviation of grain / sqrt(6). A few pairs may show a smaller
    deviation by chance; this lower limit is then used. Exactly equal pairs need no estimate.
    """
    n, mean = len(differences), fmean(differences)
    if n > 1 and not any(differences):
        return Difference(n, 0.0, 0.0, n - 1, True, 0.0, 0.0, 1.0, identical=True)
    if n < 2:
        return Difference(n, mean, math.nan, 0, True, None, None, None)
    deviation = max(math.sqrt(variance(differences, mean)), score_step / math.sqrt(6))
    return _judged(n, mean, deviation, n - 1, deviation / math.sqrt(n), is_paired=True)


def unpaired(a: Sequence[float], b: Sequence[float]) -> Difference | None:
    """Return Welch's t test (1947) of B - A; None where one side has fewer than two runs."""
    if min(len(a), len(b)) < 2:
        return None
    mean, n = fmean(b) - fmean(a), min(len(a), len(b))
    parts = [variance(a) / len(a), variance(b) / len(b)]
    error = math.sqrt(sum(parts))
    below = sum(p * p / (len(s) - 1) for p, s in zip(parts, (a, b), strict=True))
    df = error**4 / below if below else len(a) + len(b) - 2
    return _judged(n, mean, error * math.sqrt(n), df, error, is_paired=False)


def _judged(
    n: int, mean: float, deviation: float, df: float, error: float, *, is_paired: bool
) -> Difference:
    half = student.quantile(1 - student.LEVEL / 2, df) * error
    if error == 0:  # the same difference in every pair
        p = 1.0 if mean == 0 else 0.0
    else:
        p = min(1.0, 2 * student.tail(abs(mean) / error, df))
    return Difference(n, mean, deviation, df, is_paired, mean - half, mean + half, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p values adjusted for their number (Holm 1979), in the order given."""
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
