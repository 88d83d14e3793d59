"""A comparison as plain text. comparison.py makes it, and its JSON."""

from collections.abc import Iterator
from statistics import fmean

from harness.base.numbers import counted
from harness.base.text import clean
from harness.report.comparison import Compared, Comparison, bounded, by_seed
from harness.report.stats.intervals import FEWEST
from harness.report.stats.paired import Difference

MOST_POINTS = 10


def text_of(found: Comparison) -> str:
    """Return a comparison as text."""
    return clean("\n".join(_lines(found)), 1 << 20)


def _lines(found: Comparison) -> Iterator[str]:
    yield f"A: {found.a}   B: {found.b}"
    for one in found.tasks:
        yield f"{one.task}, {one.a.metric} ({one.a.direction}): {one.verdict}"
        for name, side in (("A", one.a), ("B", one.b)):
            valid = side.valid
            line = (
                f"  {name} {fmean(side.values.values()):.4f}, valid {len(valid)} of {side.graded}"
            )
            if 0 < len(valid) < side.graded:
                line += f" (those alone {fmean(valid):.4f})"
            yield line
        if one.test is not None:
            yield f"  {_difference(one, one.test)}"
            points = by_seed(one.a, one.b)
            if one.test.paired and len(points) <= MOST_POINTS:
                yield "  by seed: " + " ".join(f"{d:+.4f}" for d in points.values())
        yield from (f"  across {line}" for line in one.across)
    for pairing in found.not_compared:
        yield f"{pairing.task}: not compared, {pairing.reason}"
    if found.tasks:
        yield (
            "Means count an invalid run as the worst score. B - A, better is positive; p is "
            "two-sided, and corrected over the tasks by Holm."
        )


def _difference(one: Compared, test: Difference) -> str:
    how = f"{test.n} pairs" if test.paired else f"unpaired, {test.n} or more a side"
    text, (low, high) = f"B - A {test.mean:+.4f}", bounded(test, one.a.metric)
    if low is None:
        return f"{text}, {how}: no interval, 1 further seed"
    if test.n >= FEWEST:
        text += f" [{low:+.4f}, {high:+.4f}]"
    text += f", {how}, p {test.p:.3g}"
    further = one.further_seeds
    if further:
        text += f"; {counted(further, 'further seed')} would tell, if like these"
    return text
