"""Computes where the marks of a plot are, in SVG units. The templates only draw them."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import quantiles
from typing import Literal

from rich.cells import cell_len, set_cell_size

from harness.report.drawing.curves import Axis, Curve

WIDTH, HEIGHT = 380, 236
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 10, 36
STRIP_WIDTH, STRIP_EDGE, STRIP_STEP, STRIP_TOP = 560, 40, 52, 30
"""Sizes of a dot plot. Labels may reach half their width beyond STRIP_EDGE."""
GLYPH = 6.9
"""Upper limit of a label's mean character width: that of DejaVu, the widest usual font."""
ToPixels = Callable[[float], float]
SAMPLES = 24
FENCE = 3.0
"""A value more interquartile ranges than this beyond the quartiles (Tukey's far out) does not
widen a plot."""
FAR, ALWAYS = 20.0, 1.0
"""How far from the rest a curve's end may be and still widen a plot: FAR times the range of the
rest, but at least ALWAYS in units of the score."""


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class AxisScale:
    """Maps ``low`` to ``high`` linearly to ``start`` to ``end``; values beyond go to the edge."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        share = (inside - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def ticks(self, most: int, unit: str = "") -> tuple[Tick, ...]:
        """Return ticks at round values within the scale, about ``most`` of them."""
        step = _nice((self.high - self.low) / most)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        values = [i * step for i in range(first, last + 1)]
        return tuple(Tick(self(v), label(v, step, unit)) for v in values)


@dataclass(frozen=True, slots=True)
class Series:
    """The curve of one contender. ``style`` is the number of its colour, 0 to 7.

    ``path``, ``band`` and ``alone`` are SVG paths: of the median, of the area between the
    quartiles, and of the best run where there is no median. ``end`` is the last point of the
    curve. ``off``: the curve ends beyond the plot, and its mark is on the edge.
    """

    name: str
    style: int
    path: str
    band: str
    alone: str
    end: tuple[float, float] | None
    off: bool


@dataclass(frozen=True, slots=True)
class ReferenceLine:
    """A horizontal line at a value to compare with. ``style`` None: in no contender's colour."""

    name: str
    value: float
    style: int | None = None
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot of lines. ``dots``: the single nodes, if there is only one run.

    ``levels`` have no x values: baselines, and contenders that call no model.
    """

    title: str
    x_title: str
    lines: tuple[Series, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    dots: tuple[tuple[float, float], ...]
    levels: tuple[ReferenceLine, ...]
    notes: tuple[str, ...]
    left: float
    right: float
    width: int = WIDTH
    height: int = HEIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True, slots=True)
class DotRow:
    """One row of a dot plot: values, their mean or median, and its interval if it has one.

    ``strips`` turns the values into places.
    """

    name: str
    style: int
    dots: tuple[float, ...]
    middle: float
    interval: tuple[float, float] | None
    words: str
    y: float = 0.0


@dataclass(frozen=True, slots=True)
class DotPlot:
    """A dot plot. ``marks``: named values to compare with. A name is above its mark."""

    title: str
    strips: tuple[DotRow, ...]
    ticks: tuple[Tick, ...]
    marks: tuple[Tick, ...]
    note: str
    height: int
    width: int = STRIP_WIDTH
    left: int = 12


def label(value: float, step: float, unit: str = "") -> str:
    """Return a tick's label: as many decimals as the step needs; large values in k, M and G."""
    if unit == "$":
        return f"${value:,.{_decimals(step)}f}"
    if step < 1e-12:
        return f"{value:.4g}"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size and step >= size / 1000:
            return f"{value / size:.{_decimals(step / size)}f}{letter}"
    return f"{value:.{_decimals(step)}f}"


def _decimals(step: float) -> int:
    return max(0, min(12, -math.floor(math.log10(step) + 1e-9)))


def _nice(step: float) -> float:
    size = 10.0 ** math.floor(math.log10(step))
    return next((k * size for k in (1, 2, 5) if k * size >= step * 0.999), 10 * size)


def without_outliers(
    values: Sequence[float], keep: Literal["low", "high", "both"] = "both"
) -> Sequence[float]:
    """Return the values without far outliers; none is removed on the side to ``keep``."""
    if len(values) < 4:
        return values
    first, _, third = quantiles(values, n=4)
    reach = FENCE * (third - first)
    low = -math.inf if keep == "low" else first - reach
    high = math.inf if keep == "high" else third + reach
    return [v for v in values if low <= v <= high] or values


def spread(values: Iterable[float], start: float, end: float) -> AxisScale:
    """Return a scale around values, with some margin."""
    known = list(values) or [0.0, 1.0]
    low, high = min(known), max(known)
    room = (high - low) * 0.06
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # equal except for the last digits
        room = abs(high) * 0.05 if abs(high) > 1e-6 else 0.5
    return AxisScale(low - room, high + room, start, end)


def strips(
    title: str,
    rows: Sequence[DotRow],
    shown: Sequence[float],
    marks: Mapping[str, float],
    note: str = "",
) -> DotPlot:
    """Return a dot plot of rows, one below the other.

    Its scale holds the values ``shown`` and the marks, and the intervals as far as they are near:
    an interval over few seeds may be many times as wide as the range of the scores.
    """
    low, high = min(shown), max(shown)
    reach = _range_or_guess(shown)
    ends = [end for row in rows for end in row.interval or ()]
    near = [min(max(end, low - reach), high + reach) for end in ends]
    x = spread([*shown, *near, *marks.values()], STRIP_EDGE, STRIP_WIDTH - STRIP_EDGE)
    placed = tuple(
        DotRow(
            shortened(row.name, STRIP_WIDTH - 24),
            row.style,
            tuple(map(x, row.dots)),
            x(row.middle),
            row.interval and (x(row.interval[0]), x(row.interval[1])),
            shortened(row.words, STRIP_WIDTH - 24),
            STRIP_TOP + STRIP_STEP * place,
        )
        for place, row in enumerate(rows)
    )
    height = STRIP_STEP * len(placed) + 38
    ticks = tuple(Tick(x(value), name) for name, value in marks.items())
    return DotPlot(title, placed, x.ticks(6), ticks, note, height)


def _range_or_guess(values: Sequence[float]) -> float:
    """Return the range of the values, or, if they are all equal, what could be one."""
    return (max(values) - min(values)) or 0.05 * abs(max(values)) or 1.0


def shortened(text: str, room: float) -> str:
    """Return a text, its middle cut out if it is too wide: names often differ at their ends."""
    most = int(room / GLYPH)
    if cell_len(text) <= most:
        return text
    head = set_cell_size(text, most * 2 // 3).rstrip()
    tail = text[::-1]
    return f"{head}…{set_cell_size(tail, most - most * 2 // 3 - 2).rstrip()[::-1]}"


UNITS: dict[Axis, str] = {
    "steps": "nodes scored",
    "tokens": "tokens in and out",
    "dollars": "dollars",
}


def curve_plot(
    axis: Axis,
    curves: Sequence[tuple[str, int, Curve]],
    *,
    maximize: bool,
    dots: Sequence[tuple[float, float]],
    levels: Sequence[ReferenceLine] = (),
) -> Plot:
    """Return the plot of best-so-far curves of several contenders; ``dots`` are single nodes."""
    most = max((c.xs[-1] for _, _, c in curves if c.xs), default=0.0) or 1.0
    y = _heights(curves, most, dots, levels, maximize=maximize)
    y_ticks = y.ticks(5)
    divisor, unit = _unit(axis, most)
    sign = "$" if axis == "dollars" else ""
    x = AxisScale(0.0, most / divisor, LEFT, WIDTH - RIGHT)
    left = max(LEFT, 10 + GLYPH * max((len(t.label) for t in y_ticks), default=0))
    half = GLYPH * max((len(t.label) for t in x.ticks(5, sign)), default=0) / 2
    x = replace(x, start=left, end=WIDTH - max(RIGHT, half))

    def place(value: float) -> float:
        return x(value / divisor)

    worst = y.low if maximize else y.high
    lines = tuple(
        Series(
            name,
            style,
            _stairs(curve.xs, curve.middle, place, y),
            _band(curve, place, y, worst),
            _stairs(curve.xs, curve.alone, place, y) if curve.alone else "",
            None if curve.end is None else (place(curve.xs[-1]), y(curve.end)),
            curve.end is not None and curve.end not in y,
        )
        for name, style, curve in curves
    )
    return Plot(
        f"against {axis}",
        unit,
        lines,
        x.ticks(5, sign),
        y_ticks,
        tuple((place(a), y(b)) for a, b in dots),
        tuple(replace(level, at=y(level.value)) for level in levels if level.value in y),
        tuple(_notes(curves, lines, dots, levels, y)),
        left,
        x.end,
    )


def _heights(
    curves: Sequence[tuple[str, int, Curve]],
    most: float,
    dots: Sequence[tuple[float, float]],
    levels: Sequence[ReferenceLine],
    *,
    maximize: bool,
) -> AxisScale:
    """Return the y scale: for sampled values, and for curve ends and levels not too far away."""
    heights = [v for _, _, c in curves for v in _sampled(c, most)] + [y for _, y in dots]
    kept = list(without_outliers(heights, "high" if maximize else "low"))
    ends = [c.end for _, _, c in curves if c.end is not None]
    kept = kept or ends
    for values, share, least in ((ends, FAR, ALWAYS), ([lv.value for lv in levels], 1.0, 0.0)):
        if kept:
            low, high = min(kept), max(kept)
            reach = max(share * _range_or_guess(kept), least)
            kept += [v for v in values if low - reach <= v <= high + reach]
    return spread(kept, HEIGHT - BOTTOM, TOP)


def _notes(
    curves: Sequence[tuple[str, int, Curve]],
    lines: Sequence[Series],
    dots: Sequence[tuple[float, float]],
    levels: Sequence[ReferenceLine],
    y: AxisScale,
) -> Iterator[str]:
    beyond = sum(value not in y for _, value in dots)
    if beyond:
        yield f"{beyond} node{'s' if beyond > 1 else ''} far worse than the rest: on the edge."
    if any(line.alone for line in lines):
        yield "Thin: the best run, where half of the runs or fewer have a valid node."
    for (name, _, curve), line in zip(curves, lines, strict=True):
        if line.off:
            yield f"Beyond this plot, on its edge (▲): {name}, which ends at {curve.end:.5g}."
    if levels:
        labels = (
            f"{one.name} {one.value:.4f}{'' if one.value in y else ' (beyond this plot)'}"
            for one in levels
        )
        yield f"Dashed: {', '.join(labels)}."


def _sampled(curve: Curve, most: float) -> list[float]:
    """Return a curve's values at evenly spaced x, so that a short-lived value widens no plot."""
    places = [bisect_right(curve.xs, most * i / SAMPLES) - 1 for i in range(1, SAMPLES + 1)]
    parts = (curve.middle, curve.low, curve.high, curve.alone)
    values = [part[at] for part in parts if part for at in places if at >= 0]
    return [v for v in values if v is not None]


def _unit(axis: Axis, most: float) -> tuple[float, str]:
    """Return by what values on the axis are divided, and the unit that they then have."""
    if axis != "time":
        return 1.0, UNITS[axis]
    if most > 7200:
        return 3600.0, "hours"
    return (60.0, "minutes") if most > 120 else (1.0, "seconds")


def _stairs(xs: Sequence[float], ys: Sequence[float | None], x: ToPixels, y: AxisScale) -> str:
    """Return an SVG path. Parts beyond the plot are left out, as the edge is not their value."""
    path, before, drawn = "", None, False
    for a, b in zip(xs, ys, strict=True):
        if drawn:
            path += f"H{x(a)}"
        if b is None or b not in y:
            drawn = False
        elif not drawn:
            path += f"M{x(a)} {y(b)}" if before is None else f"M{x(a)} {y(before)}V{y(b)}"
            drawn = True
        elif b != before:
            path += f"V{y(b)}"
        before = b
    return path


def _band(curve: Curve, x: ToPixels, y: AxisScale, worst: float) -> str:
    """Return the area between the quartiles; where only the better exists, down to the edge."""
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
