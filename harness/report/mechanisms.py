"""What mechanisms cost, for readers: a table, scaling exponents, a plot, one JSON object.

tasks/lra/bench.py measures the costs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any
from xml.sax.saxutils import escape

from harness.base.numbers import short_count
from tasks.lra.bench import BenchCell, Machine

Quantity = Callable[[BenchCell], float | None]

# Seven colours of Okabe and Ito, which colour-blind people can tell apart, and five more.
COLOURS = (
    "#000000", "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c6d1f",
    "#5b3a8e", "#7a7a7a", "#a00030", "#2f6b2f",
)  # fmt: skip
WIDTH, HEIGHT = 980, 440
PLOT, GAP, LEFT, TOP = (290, 330), 180, 60, 50


def exponent(cells: Sequence[BenchCell], value: Quantity) -> float | None:
    """Return p in ``value`` / rows ~ length^p, by least squares over logarithms.

    Fitted over the upper half of the lengths: short rows show the fixed cost of a call. Cells
    without a value are left out. None if fewer than two remain.
    """
    points = [
        (math.log(cell.length), math.log(found / cell.rows))
        for cell in sorted(cells, key=lambda c: c.length)
        if (found := value(cell))
    ]
    points = points[-max(2, math.ceil(len(points) / 2)) :]
    if len(points) < 2:
        return None
    x0 = sum(x for x, _ in points) / len(points)
    spread = sum((x - x0) ** 2 for x, _ in points)
    return sum((x - x0) * y for x, y in points) / spread


def by_mechanism(cells: Sequence[BenchCell]) -> dict[str, list[BenchCell]]:
    """Return the cells of each mechanism, in the order of the cells."""
    groups: dict[str, list[BenchCell]] = {}
    for cell in cells:
        groups.setdefault(cell.mechanism, []).append(cell)
    return groups


def as_json(machine: Machine, cells: Sequence[BenchCell], complete: bool) -> dict[str, Any]:
    """Return the one object that ``--json`` prints."""
    return {
        "format": 1,
        "machine": asdict(machine),
        "complete": complete,
        "cells": [{**asdict(c), "tokens_per_s": c.tokens_per_s} for c in cells],
        "exponents": {name: _exponents(group) for name, group in by_mechanism(cells).items()},
    }


def table(machine: Machine, cells: Sequence[BenchCell]) -> str:
    """Return one line a cell, under 80 columns, with the exponents of time and memory of a row."""
    lines = [
        f"Training passes of one block, {machine.precision}, on {machine.device} ({machine.name}), "
        f"torch {machine.torch}",
        "",
        f"{'mechanism':<17}{'length':>7}{'rows':>5}{'forward':>10}{'backward':>10}"
        f"{'tokens/s':>10}{'peak':>9}  grows as",
        f"{'':29}{'ms':>10}{'ms':>10}{'':10}{'MB':>9}",
    ]
    for name, group in by_mechanism(cells).items():
        for place, cell in enumerate(group):
            line = f"{name if place == 0 else '':<17}{cell.length:>7}{cell.rows:>5}"
            if cell.ms is None:
                lines.append(f"{line}  {cell.failure}")
                continue
            peak = "" if cell.peak_mb is None else f"{cell.peak_mb:.0f}"
            line += f"{cell.forward_ms:>10.2f}{cell.backward_ms:>10.2f}"
            line += f"{short_count(cell.tokens_per_s or 0):>10}{peak:>9}"
            if place == 0:
                line += f"  {_growth(group)}"
            lines.append(line)
    lines += ["", "grows as: exponents of time and memory of a row, over the longer half."]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def plot(machine: Machine, cells: Sequence[BenchCell]) -> str:
    """Return an SVG: time and memory per token by length, both axes logarithmic."""
    panels: tuple[tuple[str, Quantity], ...] = (
        ("nanoseconds a token, both passes", lambda c: None if c.ms is None else c.ms * 1e6),
        ("bytes a token, at the peak", lambda c: None if c.peak_mb is None else c.peak_mb * 1e6),
    )
    drawn = []
    for number, (title, value) in enumerate(panels):
        lines = {
            name: [(c.length, v / (c.rows * c.length)) for c in group if (v := value(c))]
            for name, group in by_mechanism(cells).items()
        }
        left = LEFT + number * (PLOT[0] + GAP + 10)
        drawn.append(f'<g transform="translate({left} {TOP})">{_panel(title, lines)}</g>')
    words = f"{machine.name}, {machine.precision}, one block, torch {machine.torch}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="11" fill="#222">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        f'<text x="{LEFT}" y="20" font-size="13">What mechanisms cost by the length of the row '
        f"({escape(words)})</text>{''.join(drawn)}</svg>\n"
    )


def _panel(title: str, lines: dict[str, list[tuple[int, float]]]) -> str:
    width, height = PLOT
    points = [point for line in lines.values() for point in line]
    if not points:
        return f'<text y="20">{escape(title)}: nothing was measured</text>'
    lengths = sorted({length for length, _ in points})
    low, high = math.log(lengths[0] / 1.1), math.log(lengths[-1] * 1.1)
    values = [value for _, value in points]
    bottom, top = _decade(0.95 * min(values), -1), _decade(1.05 * max(values), 1)

    def at(length: float, value: float) -> tuple[float, float]:
        x = (math.log(length) - low) / (high - low) * width
        y = height - math.log(value / bottom) / math.log(top / bottom) * height
        return round(x, 1), round(y, 1)

    parts = [f'<text y="-10" font-weight="bold">{escape(title)}</text>']
    for length in lengths:
        x, _ = at(length, top)
        parts.append(f'<path d="M{x} 0V{height}" stroke="#eee"/>')
        parts.append(f'<text x="{x}" y="{height + 16}" text-anchor="middle">{length}</text>')
    parts.append(
        f'<text x="{width / 2}" y="{height + 34}" text-anchor="middle">tokens a row</text>'
    )
    tick = bottom
    while tick <= top * 1.001:
        _, y = at(lengths[0], tick)
        parts.append(f'<path d="M0 {y}H{width}" stroke="#ddd"/>')
        parts.append(f'<text x="-6" y="{y + 4}" text-anchor="end">{tick:g}</text>')
        tick = _decade(tick * 1.5, 1)
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(lines)}
    ends = []
    for name, line in lines.items():
        if not line:
            continue
        places = [at(*point) for point in sorted(line)]
        path = "L".join(f"{x} {y}" for x, y in places)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colours[name]}" stroke-width="1.8"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="2.6" fill="{colours[name]}"/>' for x, y in places]
        ends.append((*places[-1], name))
    for (x, y, name), label in zip(sorted(ends, key=lambda e: e[1]), _spread(ends), strict=True):
        colour = colours[name]
        parts.append(
            f'<path d="M{x + 4} {y}L{width + 10} {label}" stroke="{colour}" opacity=".4"/>'
        )
        parts.append(
            f'<text x="{width + 13}" y="{label + 4}" fill="{colour}">{escape(name)}</text>'
        )
    return "".join(parts)


def _spread(ends: list[tuple[float, float, str]], apart: float = 14) -> list[float]:
    """Return y positions for the labels at the line ends, from the top, without overlap."""
    heights = sorted(y for _, y, _ in ends)
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + apart)
    overflow = max(0.0, heights[-1] - PLOT[1]) if heights else 0.0
    if overflow:  # move labels that are below the plot up again
        heights[-1] -= overflow
        for i in reversed(range(len(heights) - 1)):
            heights[i] = min(heights[i], heights[i + 1] - apart)
    return heights


def _decade(value: float, way: int) -> float:
    """Return the next of 1, 2, 5, 10, … at or above ``value``, or at or below if ``way`` < 0."""
    power = 10.0 ** math.floor(math.log10(value))
    steps = [power * step for step in (1, 2, 5, 10)]
    if way > 0:
        return next(step for step in steps if step >= value * 0.999)
    return next(step for step in reversed(steps) if step <= value * 1.001)


def _exponents(group: Sequence[BenchCell]) -> dict[str, float | None]:
    return {
        "time": exponent(group, lambda c: c.ms),
        "memory": exponent(group, lambda c: c.peak_mb),
    }


def _growth(group: Sequence[BenchCell]) -> str:
    return " ".join("-" if p is None else f"{p:.2f}" for p in _exponents(group).values())
