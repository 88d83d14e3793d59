"""Non-inferiority tests: is a change worse by more than a margin, is it not, or is it undecided?

Let d be the paired difference (better is positive) and m the margin. An interval of d wholly below
-m is a regression, wholly above -m is no regression, otherwise the verdict is "cannot tell". Over
several tasks the alarms are corrected by Holm. "No task regressed" needs every task to pass, and
keeps its level without a correction (an intersection-union test, Berger 1982).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.report.stats import student
from harness.report.stats.paired import Difference, holm

GateVerdict = Literal["regression", "no regression", "cannot tell"]

MOST = 10_000
"""No larger number of further seeds is reported: the difference is then at the margin."""


@dataclass(frozen=True, slots=True)
class GateDecision:
    """The verdict on one difference.

    ``p``: one-sided, corrected; the null hypothesis is no regression. ``power``: the chance that
    this many seeds with this spread pass a change that has no effect. ``further_seeds``: how many
    more would decide if mean and spread stay the same; None if decided, or more than ``MOST``.
    """

    verdict: GateVerdict
    p: float | None
    power: float | None
    further_seeds: int | None


def decide(
    differences: Sequence[Difference | None], margins: Sequence[float], level: float = student.LEVEL
) -> list[GateDecision]:
    """Return the verdict on each difference (None: no pair), corrected for their number.

    Each wrong verdict has at most the probability level / 2, as each side of a 1 - level interval
    has. For wrong alarms this holds over all tasks together.
    """
    side = level / 2
    worse = [_p(d, -m, below=True) for d, m in zip(differences, margins, strict=True)]
    adjusted = holm([1.0 if p is None else p for p in worse])
    calls = []
    for d, margin, raw, p in zip(differences, margins, worse, adjusted, strict=True):
        if d is None or raw is None:
            calls.append(GateDecision("cannot tell", None, None, 2 if d is None else 1))
            continue
        fine = _p(d, -margin, below=False)
        verdict: GateVerdict = "cannot tell"
        if p <= side:
            verdict = "regression"
        elif d.identical or (fine is not None and fine <= side):
            verdict = "no regression"
        further = None
        if verdict == "cannot tell":
            # An alarm on one of several tasks must pass Holm's correction; a pass has none.
            tests = len(margins) if d.mean < -margin else 1
            further = further_seeds(d, margin, side / tests)
        calls.append(GateDecision(verdict, p, power(d.n, d.deviation, margin, level), further))
    return calls


def power(n: int, deviation: float, margin: float, level: float = student.LEVEL) -> float:
    """Return the chance that ``n`` pairs pass if nothing changed."""
    if deviation == 0:
        return 1.0
    shift = margin * math.sqrt(n) / deviation
    return student.shifted_tail(student.quantile(1 - level / 2, n - 1), n - 1, shift)


def _p(d: Difference | None, null: float, *, below: bool) -> float | None:
    """Return the one-sided p; it is small if the mean is clearly ``below`` (or above) ``null``."""
    if d is None or d.n < 2:
        return None
    away = null - d.mean if below else d.mean - null
    if d.deviation == 0:
        return 0.0 if away > 0 else 1.0
    return student.tail(away / d.error, d.df)


def further_seeds(d: Difference, margin: float, side: float) -> int | None:
    """Return how many more seeds would show on which side of -``margin`` the mean is.

    Assumes that mean and spread stay the same. None if ``MOST`` would not be enough. ``side`` is
    the one-sided level.
    """
    if d.n < 2:
        return 2 - d.n
    away = abs(d.mean + margin)

    def settles(n: int) -> bool:
        return student.quantile(1 - side, n - 1) * d.deviation < away * math.sqrt(n)

    low, high = d.n, d.n + MOST
    if not settles(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if settles(middle) else (middle, high)
    return high - d.n
