"""Intervals over seeds: where a statistic could be if the runs were made again with other seeds.

Below ten seeds the mean gets a t interval. From ten on the median gets a percentile bootstrap,
expanded because a sample is less spread than its population (Hesterberg 2015).
The best of several runs gets no interval: the bootstrap of a maximum is wrong at any sample size
(Bickel and Freedman 1981), and the best of more runs is better by chance alone.

Below three seeds there is no interval: for two values it is 12.7 times as wide as their distance.
Intervals are cut to the metric's scale: no accuracy is above 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from harness.base.seeds import derive
from harness.report.stats import student
from harness.report.stats.normalized import clip

FEW = 10
FEWEST = 3
UNBOUNDED = (-math.inf, math.inf)
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval of the statistic ``of``, computed by ``method``."""

    low: float
    high: float
    of: Literal["mean", "median", "share", "elo"]
    method: Literal["t", "bootstrap", "wilson"]


def over_seeds(values: Sequence[float], within: tuple[float, float] = UNBOUNDED) -> Interval | None:
    """Return a t or bootstrap interval, by the number of seeds, cut to ``within``; None below 3."""
    if len(values) < FEWEST:
        return None
    found = t_interval(values) if len(values) < FEW else bootstrap(values)
    return found and replace(found, low=clip(found.low, within), high=clip(found.high, within))


def t_interval(values: Sequence[float]) -> Interval | None:
    """Return Student's interval of the mean; None for fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = student.quantile(1 - student.LEVEL / 2, n - 1) * deviation / math.sqrt(n)
    return Interval(mean - half, mean + half, "mean", "t")


def bootstrap(values: Sequence[float]) -> Interval:
    """Return the expanded percentile bootstrap of the median, with the same draws every time."""
    n = len(values)
    medians = np.median(np.asarray(values, float)[_draws(n)], axis=1)
    tail = expanded_tail(n)
    low, high = np.quantile(medians, [tail, 1 - tail], method="closest_observation")
    return Interval(float(low), float(high), "median", "bootstrap")


def expanded_tail(n: int) -> float:
    """Return the share of a bootstrap of ``n`` values to cut at each end (Hesterberg 2015)."""
    return NormalDist().cdf(
        -math.sqrt(n / (n - 1)) * student.quantile(1 - student.LEVEL / 2, n - 1)
    )


def wilson(hits: int, n: int) -> Interval | None:
    """Return Wilson's interval (1927) of the share ``hits`` / ``n``; None for ``n`` 0."""
    if n == 0:
        return None
    z = NormalDist().inv_cdf(1 - student.LEVEL / 2)
    share, weight = hits / n, z * z / n
    centre = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / n + weight / (4 * n))
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    high = 1.0 if hits == n else min(1.0, centre + half)
    return Interval(low, high, "share", "wilson")


@lru_cache(maxsize=64)
def _draws(n: int) -> npt.NDArray[np.intp]:
    rng = np.random.default_rng(derive("bootstrap", n))
    return rng.integers(0, n, size=(RESAMPLES, n))
