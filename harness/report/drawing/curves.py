"""Best-so-far curves of one run, and of many runs: their median and their quartiles.

A run without a valid node yet counts as worse than any score. So the median exists only where
more than half of the runs have a valid node. Before that, the best run is drawn and marked as
such, because a mean over only the runs with a valid node would be too good. Numbers only:
``plots`` turns them into SVG.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Axis = Literal["steps", "time", "tokens", "dollars"]
GRID = 48
"""The most x values at which the curves of many runs are compared."""

StepFunction = list[tuple[float, float]]
"""Pairs (x, value): a curve has the value from this x to the next."""


@dataclass(frozen=True, slots=True)
class Point:
    """A run after one node was scored. ``tokens`` and ``dollars``: sums so far; None if unknown."""

    node: int
    score: float | None
    elapsed_s: float
    tokens: int | None = None
    dollars: float | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve over ``xs``: ``middle`` is the median over runs, or the one run's best so far.

    ``low`` (worse) and ``high`` (better) are the quartiles; None where too few runs have a valid
    node. ``alone`` is the best run where ``middle`` is None. All three are empty for one run.
    """

    xs: tuple[float, ...]
    middle: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    alone: tuple[float | None, ...] = ()

    @property
    def end(self) -> float | None:
        """The last value of ``middle``, else of ``alone``; None where neither has one."""
        for part in (self.middle, self.alone):
            if part and part[-1] is not None:
                return part[-1]
        return None


def value(point: Point, axis: Axis, index: int) -> float | None:
    """Return a point's x value; ``index`` is its place in the run, from 0. None if unknown."""
    match axis:
        case "steps":
            return index + 1
        case "time":
            return point.elapsed_s
        case "tokens":
            return point.tokens
        case "dollars":
            return point.dollars


def best_so_far(
    points: Sequence[Point], axis: Axis, sign: float
) -> tuple[StepFunction, float] | None:
    """Return one run's steps and the x of its end; None where an x value is unknown."""
    steps: StepFunction = []
    best, end = None, 0.0
    for index, point in enumerate(points):
        x = value(point, axis, index)
        if x is None:
            return None
        end = max(end, x)
        if point.score is not None and (best is None or sign * (point.score - best) > 0):
            best = point.score
            steps.append((x, best))
    return steps, end


def curve_of_run(steps: StepFunction, end: float) -> Curve:
    """Return the curve of one run."""
    xs, ys = [x for x, _ in steps], [y for _, y in steps]
    return Curve((*xs, end), (*ys, ys[-1])) if steps else Curve((), ())


def curve_of_runs(runs: Sequence[tuple[StepFunction, float]], sign: float) -> Curve:
    """Return the median and quartiles over runs; a run that has ended keeps its best score."""
    if len(runs) == 1:
        return curve_of_run(*runs[0])
    places = sorted({x for steps, _ in runs for x, _ in steps} | {max(end for _, end in runs)})
    if len(places) > GRID:
        first, last = places[0], places[-1]
        places = [first + (last - first) * i / (GRID - 1) for i in range(GRID)]
    known = [([x for x, _ in steps], [y for _, y in steps]) for steps, _ in runs]
    low, middle, high, alone = [], [], [], []
    for place in places:
        now = [_at(xs, ys, place) for xs, ys in known]
        ranked = sorted((v for v in now if v is not None), key=lambda v: sign * v)
        order: list[float | None] = [None] * (len(now) - len(ranked)) + list(ranked)
        low.append(quantile(order, 0.25))
        middle.append(quantile(order, 0.5))
        high.append(quantile(order, 0.75))
        alone.append(order[-1] if middle[-1] is None else None)
    return Curve(tuple(places), tuple(middle), tuple(low), tuple(high), tuple(alone))


def _at(xs: list[float], ys: list[float], place: float) -> float | None:
    index = bisect_right(xs, place) - 1
    return ys[index] if index >= 0 else None


def quantile(order: Sequence[float | None], share: float) -> float | None:
    """Return a quantile, interpolated linearly; None where a value that it needs is None."""
    position = (len(order) - 1) * share
    below = int(position)
    rest = position - below
    a = order[below]
    if rest == 0 or a is None:
        return a
    b = order[below + 1]
    return None if b is None else a + (b - a) * rest
