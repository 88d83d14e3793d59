"""Student's t without scipy, which would be twice as large as the rest of the installation.

The tail is a regularised incomplete beta function (NIST DLMF 8.17), evaluated by its continued
fraction; quantiles are found by Newton's method. Tested against scipy.
"""

import math
from functools import cache, lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

TINY = 1e-300
NODES = 200
"""Points of the quadrature for power: the integrand is smooth; it agrees with scipy to 1e-9."""


def tail(t: float, df: float) -> float:
    """Return P(T > t) for Student's t with ``df`` degrees of freedom, to 1e-12 relative."""
    if t < 0:
        return 1.0 - tail(-t, df)
    if math.isinf(t):
        return 0.0
    return 0.5 * _beta(df / (df + t * t), t * t / (df + t * t), df / 2, 0.5)


@lru_cache(maxsize=65536)
def quantile(p: float, df: float) -> float:
    """Return the t that is exceeded with probability 1 - ``p``."""
    if p < 0.5:
        return -quantile(1.0 - p, df)
    low, high = 0.0, 1.0
    while tail(high, df) > 1.0 - p:
        low, high = high, high * 2
    t = min(high, max(low, NormalDist().inv_cdf(p)))
    for _ in range(100):
        over = tail(t, df) - (1.0 - p)
        low, high = (t, high) if over > 0 else (low, t)
        # Newton's step where it stays within the bracket, else half of the bracket.
        step = over / _density(t, df)
        before, t = t, t + step if low < t + step < high else (low + high) / 2
        if abs(t - before) <= 1e-14 * t:
            break
    return t


def _density(t: float, df: float) -> float:
    log = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
    return math.exp(log - (df + 1) / 2 * math.log1p(t * t / df))


def shifted_tail(t: float, df: float, shift: float) -> float:
    """Return P(T > t) for the noncentral t: the power of a test if its null hypothesis is false.

    T is (Z + shift) / S; the integral runs over S, whose square is a chi-square over df.
    """
    spread = 10 / math.sqrt(2 * df)
    low, high = max(0.0, 1 - spread), 1 + spread
    x, weight = _legendre()
    s = low + (high - low) * (x + 1) / 2
    log_density = (
        math.log(2)
        + df / 2 * math.log(df / 2)
        - math.lgamma(df / 2)
        + (df - 1) * np.log(np.maximum(s, TINY))
        - df * s * s / 2
    )
    above = np.array([math.erfc((t * v - shift) / math.sqrt(2)) / 2 for v in s.tolist()])
    found = float(np.sum(weight * above * np.exp(log_density)) * (high - low) / 2)
    return min(1.0, max(0.0, found))


@cache
def _legendre() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    return np.polynomial.legendre.leggauss(NODES)


def _beta(x: float, complement: float, a: float, b: float) -> float:
    """Return I_x(a, b). ``complement`` is 1 - x, a separate argument because it may be tiny."""
    if x <= 0 or complement <= 0:
        return 0.0 if x <= 0 else 1.0
    front = math.exp(
        math.lgamma(a + b)
        - math.lgamma(a)
        - math.lgamma(b)
        + a * math.log(x)
        + b * math.log(complement)
    )
    # The fraction converges fast on this side of the mean; the other side uses the symmetry.
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(x, a, b) / a
    return 1.0 - front * _fraction(complement, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    """Evaluate DLMF 8.17.22 from the front (Lentz's method)."""
    c, d = 1.0, 1.0 / _apart(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / _apart(1 + term * d)
            c = _apart(1 + term / c)
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def _apart(value: float) -> float:
    return value if abs(value) > TINY else TINY
