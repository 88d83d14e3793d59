"""Computes how architectures are drawn: a bar of equal cells, and shares by layer. SVG paths.

A cell is 1 wide, a bar as wide as it has layers. Primitives have colours by number, of which each
has a lightness of its own, so that they can be told apart in grey too (``style.css``).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from harness.report.drawing.plots import Tick

COLOURS = 8
"""Primitives beyond these share colours: their names stand in the cells."""
LETTERS = 2
"""Most characters of a name in a cell; the legend has the whole name."""


@dataclass(frozen=True, slots=True)
class Stroke:
    """All cells of one colour, as one path."""

    colour: int
    path: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One architecture. ``words``: its names with spaces. ``cells``: colour and letters of each.

    ``pitch``: how wide a cell with letters is, in pixels.
    """

    words: str
    layers: int
    pitch: int
    strokes: tuple[Stroke, ...]
    cells: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class ShareChart:
    """The share of each primitive by layer among ``count`` architectures; a column is 1 high.

    ``words``: the shares of each layer as text.
    """

    layers: int
    count: int
    strokes: tuple[Stroke, ...]
    ticks: tuple[Tick, ...]
    words: str


def bar(layers: Sequence[str], primitives: Sequence[str]) -> Bar:
    """Return the bar of an architecture: a line along the middle, which dashes cut into cells."""
    paths: dict[int, str] = {}
    at = 0
    for name, same in groupby(layers):
        length = len(list(same))
        colour = colour_of(name, primitives)
        paths[colour] = paths.get(colour, "") + f"M{at} .5h{length}"
        at += length
    return Bar(
        " ".join(layers),
        at,
        15 if max(map(len, primitives)) == 1 else 19,
        tuple(Stroke(colour, path) for colour, path in sorted(paths.items())),
        tuple((colour_of(name, primitives), name[:LETTERS]) for name in layers),
    )


def share_chart(found: Sequence[Sequence[str]], primitives: Sequence[str]) -> ShareChart:
    """Return the shares in architectures of one length, the first primitive lowest."""
    columns = [Counter(column) for column in zip(*found, strict=True)]
    paths: dict[int, str] = {}
    for at, column in enumerate(columns):
        top = 0.0
        for name in primitives:
            if share := column[name] / len(found):
                colour = colour_of(name, primitives)
                low, high = f"{1 - top:.3g}", f"{1 - top - share:.3g}"
                paths[colour] = paths.get(colour, "") + f"M{at + 0.5:g} {low}V{high}"
                top += share
    words = "; ".join(
        f"layer {at + 1}: " + ", ".join(f"{n} {column[n] / len(found):.0%}" for n in used)
        for at, column in enumerate(columns)
        if (used := [name for name in primitives if column[name]])
    )
    step = next(step for step in (1, 2, 4, 8, 16) if len(columns) / step <= 12)
    shown = range(step - 1, len(columns), step)
    return ShareChart(
        len(columns),
        len(found),
        tuple(Stroke(colour, path) for colour, path in sorted(paths.items())),
        tuple(Tick(at + 0.5, str(at + 1)) for at in shown),
        words,
    )


def colour_of(name: str, primitives: Sequence[str]) -> int:
    """Return the number of a primitive's colour."""
    return primitives.index(name) % COLOURS
