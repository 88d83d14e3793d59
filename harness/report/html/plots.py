"""Where marks of a plot stand, in the units of its SVG; the templates only draw them."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Literal

from harness.report.html.curves import Axis, Curve

WIDTH, HEIGHT = 380, 236
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 10, 36
Place = Callable[[float], float]
SAMPLES = 24
FENCE = 3.0
"""Interquartile ranges beyond which a value no longer stretches a plot (Tukey's far out)."""


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from ``low`` to ``high`` onto ``start`` to ``end``; those beyond onto the edge."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        share = (inside - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, most: int, unit: str = "") -> tuple[Tick, ...]:
        """Return round values within the scale."""
        step = _nice((self.high - self.low) / most)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        values = [i * step for i in range(first, last + 1)]
        return tuple(Tick(self(v), label(v, step, unit)) for v in values)


@dataclass(frozen=True, slots=True)
class Line:
    """One contender. ``style`` is 0 to 7, which colour."""

    name: str
    style: int
    path: str
    band: str = ""


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot of lines. ``dots``: single nodes, where there is one run."""

    title: str
    x_title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    dots: tuple[tuple[float, float], ...] = ()
    beyond: int = 0
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True, slots=True)
class Strip:
    """One contender's runs on a common scale: raw scores, their middle and its interval."""

    name: str
    style: int
    y: float
    dots: tuple[float, ...]
    middle: float | None = None
    low: float | None = None
    high: float | None = None
    words: str = ""


@dataclass(frozen=True, slots=True)
class Strips:
    """A dot plot. ``marks``: values to compare with, by name."""

    title: str
    strips: tuple[Strip, ...]
    ticks: tuple[Tick, ...]
    marks: tuple[Tick, ...] = ()
    note: str = ""
    width: int = 560
    height: int = 100
    left: int = 12
    right: int = 548


def label(value: float, step: float, unit: str = "") -> str:
    """Return a tick's words: as many decimals as the step needs, thousands in k and M."""
    if unit == "$":
        return f"${value:,.{_decimals(step)}f}"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size and step >= size / 1000:
            return f"{value / size:.{_decimals(step / size)}f}{letter}"
    return f"{value:.{_decimals(step)}f}"


def _decimals(step: float) -> int:
    return max(0, min(8, -math.floor(math.log10(step) + 1e-9)))


def _nice(step: float) -> float:
    size = 10.0 ** math.floor(math.log10(step))
    return next((k * size for k in (1, 2, 5) if k * size >= step * 0.999), 10 * size)


def fenced(
    values: Sequence[float], keep: Literal["low", "high", "both"] = "both"
) -> Sequence[float]:
    """Return the values without those far out, but for the side to ``keep``: the good one."""
    if len(values) < 4:
        return values
    first, _, third = quantiles(values, n=4)
    reach = FENCE * (third - first)
    low = -math.inf if keep == "low" else first - reach
    high = math.inf if keep == "high" else third + reach
    return [v for v in values if low <= v <= high] or values


def spread(values: Iterable[float], start: float, end: float) -> Scale:
    """Return a scale around values, with some room."""
    known = list(values) or [0.0, 1.0]
    low, high = min(known), max(known)
    room = (high - low) * 0.06 or abs(high) * 0.05 or 0.5
    return Scale(low - room, high + room, start, end)


def near(values: Sequence[float], ends: Sequence[float]) -> list[float]:
    """Return values and ends of intervals, these no further off than the values' own range.

    An interval over two seeds may be a hundred times as wide as what was seen.
    """
    low, high = min(values), max(values)
    reach = (high - low) or 0.05 * abs(high) or 1.0
    return [*values, *(min(max(end, low - reach), high + reach) for end in ends)]


UNITS: dict[Axis, str] = {
    "steps": "nodes scored",
    "time": "time",
    "tokens": "tokens in and out",
    "dollars": "dollars",
}


def curve_plot(
    axis: Axis,
    curves: Sequence[tuple[str, int, Curve]],
    *,
    maximize: bool,
    dots: Sequence[tuple[float, float]] = (),
) -> Plot:
    """Return the plot of best-so-far curves of several contenders; ``dots`` are single nodes."""
    most = max((c.xs[-1] for _, _, c in curves if c.xs), default=1.0)
    heights = [v for _, _, c in curves for v in _sampled(c, most)] + [y for _, y in dots]
    kept = fenced(heights, "high" if maximize else "low")
    y = spread(kept, HEIGHT - BOTTOM, TOP)
    divisor, unit = _unit(axis, most)
    x = Scale(0.0, most / divisor, LEFT, WIDTH - RIGHT)

    def place(value: float) -> float:
        return x(value / divisor)

    worst = y.low if maximize else y.high
    lines = tuple(
        Line(name, style, _stairs(curve.xs, curve.middle, place, y), _band(curve, place, y, worst))
        for name, style, curve in curves
    )
    beyond = sum(not y.low <= v <= y.high for _, v in dots)
    return Plot(
        f"against {axis}",
        unit,
        lines,
        x.ticks(5, "$" if axis == "dollars" else ""),
        y.ticks(5),
        tuple((place(a), y(b)) for a, b in dots),
        beyond,
    )


def _sampled(curve: Curve, most: float) -> list[float]:
    """Return a curve's values at even distances: what held for an instant stretches no plot."""
    places = [bisect_right(curve.xs, most * i / SAMPLES) - 1 for i in range(1, SAMPLES + 1)]
    parts = (curve.middle, curve.low, curve.high)
    values = [part[at] for part in parts if part for at in places if at >= 0]
    return [v for v in values if v is not None]


def _unit(axis: Axis, most: float) -> tuple[float, str]:
    if axis != "time":
        return 1.0, UNITS[axis]
    for seconds, name in ((7200.0, "hours"), (120.0, "minutes")):
        if most > seconds:
            return (3600.0 if name == "hours" else 60.0), name
    return 1.0, "seconds"


def _stairs(xs: Sequence[float], ys: Sequence[float | None], x: Place, y: Scale) -> str:
    path, before = "", None
    for a, b in zip(xs, ys, strict=True):
        if b is None:
            continue
        path += f"M{x(a)} {y(b)}" if before is None else f"H{x(a)}" + f"V{y(b)}" * (b != before)
        before = b
    return path


def _band(curve: Curve, x: Place, y: Scale, worst: float) -> str:
    """Return the area between the quartiles; where only the better is known it has no floor."""
    rows = [
        (x(a), y(worst if low is None else low), y(high))
        for a, low, high in zip(curve.xs, curve.low, curve.high, strict=False)
        if high is not None
    ]
    if len(rows) < 2:
        return ""
    there = f"M{rows[0][0]} {rows[0][2]}" + "".join(f"H{a}V{high}" for a, _, high in rows[1:])
    back = f"V{rows[-2][1]}" + "".join(
        f"H{a}V{before[1]}" for (a, _, _), before in zip(rows[-2:0:-1], rows[-3::-1], strict=True)
    )
    return f"{there}{back}H{rows[0][0]}Z"
