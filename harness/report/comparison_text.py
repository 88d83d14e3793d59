"""A comparison in words."""

from collections.abc import Iterator
from typing import Any

from harness.base.text import clean
from harness.report.stats.intervals import FEWEST

MOST_POINTS = 10


def told(found: dict[str, Any]) -> str:
    """Return a comparison in words."""
    return clean("\n".join(_lines(found)), 1 << 20)


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"A: {found['a']}   B: {found['b']}"
    for row in found["tasks"]:
        yield f"{row['task']}, {row['metric']} ({row['direction']}): {row['verdict']}"
        for name in ("a", "b"):
            side = row[name]
            line = f"  {name.upper()} {side['mean']:.4f}, valid {side['valid']} of {side['graded']}"
            if 0 < side["valid"] < side["graded"]:
                line += f" (those alone {side['mean_of_valid']:.4f})"
            yield line
        test = row["difference"]
        if test is not None:
            yield f"  {_difference(test)}"
            if test["paired"] and len(test["by_seed"]) <= MOST_POINTS:
                yield "  by seed: " + " ".join(f"{d:+.4f}" for d in test["by_seed"].values())
        yield from (f"  across {line}" for line in row["across"])
    for row in found["not_compared"]:
        yield f"{row['task']}: not compared, {row['reason']}"
    if found["tasks"]:
        yield (
            "Means count an invalid run as the worst score. B - A, better is positive; p is "
            "two-sided, and corrected over the tasks by Holm."
        )


def _difference(test: dict[str, Any]) -> str:
    how = f"{test['n']} pairs" if test["paired"] else f"unpaired, {test['n']} or more a side"
    if test["low"] is None:
        return f"B - A {test['mean']:+.4f}, {how}: no interval, 1 further seed"
    text = f"B - A {test['mean']:+.4f}"
    if test["n"] >= FEWEST:
        text += f" [{test['low']:+.4f}, {test['high']:+.4f}]"
    text += f", {how}, p {test['p']:.3g}"
    if test["further_seeds"]:
        plural = "s" * (test["further_seeds"] > 1)
        text += f"; {test['further_seeds']} further seed{plural} would tell, if like these"
    return text
