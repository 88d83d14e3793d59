"""Best-so-far curves, and what many runs have in common: their median and their middle half.

A run that has no valid node yet counts as worse than any score. The median is drawn from where
more than half of the runs have one; before, it does not exist, and a mean of those that happen to
have one would flatter. What is drawn instead is the best run, as such.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Axis = Literal["steps", "time", "tokens", "dollars"]
GRID = 48
"""Places at which the curves of many runs are compared."""

Steps = list[tuple[float, float]]
"""Where a curve takes which value, until the next one."""


@dataclass(frozen=True, slots=True)
class Point:
    """After a node was scored. ``tokens`` and ``dollars`` are sums so far; None where unknown."""

    node: int
    score: float | None
    elapsed_s: float
    tokens: int | None = None
    dollars: float | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """``low`` and ``high`` are the quartiles over runs; empty for one run. None: nothing yet.

    ``alone`` is the best run where there is no ``middle``; empty for one run.
    """

    xs: tuple[float, ...]
    middle: tuple[float | None, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    alone: tuple[float | None, ...] = ()

    @property
    def end(self) -> float | None:
        """The last value, of the best run where there is no other; None where there is none."""
        return next((v for part in (self.middle, self.alone) for v in part[-1:] if v is not None),
                    None)  # fmt: skip


def value(point: Point, axis: Axis, index: int) -> float | None:
    """Return where a point stands on an axis; ``index`` is its place in the run, from 0."""
    match axis:
        case "steps":
            return index + 1
        case "time":
            return point.elapsed_s
        case "tokens":
            return point.tokens
        case "dollars":
            return point.dollars


def best_so_far(points: Sequence[Point], axis: Axis, sign: float) -> tuple[Steps, float] | None:
    """Return the curve of one run and where it ends; None where the axis is unknown."""
    steps: Steps = []
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


def one(steps: Steps, end: float) -> Curve:
    """Return one run's curve."""
    xs, ys = [x for x, _ in steps], [y for _, y in steps]
    return Curve((*xs, end), (*ys, ys[-1])) if steps else Curve((), ())


def many(runs: Sequence[tuple[Steps, float]], sign: float) -> Curve:
    """Return the median and the quartiles over runs; a run that has ended keeps its best."""
    if len(runs) == 1:
        return one(*runs[0])
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
    """Return a quantile, between two neighbours in proportion; None where one is "nothing yet"."""
    position = (len(order) - 1) * share
    below = int(position)
    rest = position - below
    a = order[below]
    if rest == 0 or a is None:
        return a
    b = order[below + 1]
    return None if b is None else a + (b - a) * rest
