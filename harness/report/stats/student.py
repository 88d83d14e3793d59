"""Student's t distribution, from scipy, which is loaded when it is first used: that takes 0.3 s."""

LEVEL = 0.05
"""Significance level of two-sided tests; intervals cover 1 - ``LEVEL``."""
LARGEST_SHIFT = 1e6
"""Beyond it the tail is 1 to the last digit, and scipy returns NaN from about 1e10 on."""


def tail(t: float, df: float) -> float:
    """Return P(T > t) for Student's t with ``df`` degrees of freedom."""
    from scipy.special import stdtr

    return float(stdtr(df, -t))


def quantile(p: float, df: float) -> float:
    """Return the t that is exceeded with probability 1 - ``p``."""
    from scipy.special import stdtrit

    return float(stdtrit(df, p))


def shifted_tail(t: float, df: float, shift: float) -> float:
    """Return P(T > t) for the noncentral t: the power of a test if its null hypothesis is false."""
    from scipy.special import nctdtr

    return 1.0 - float(nctdtr(df, min(shift, LARGEST_SHIFT), t))
