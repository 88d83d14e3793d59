"""What changes were worth: a row a category and a row a feature, as values, words and a plot."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from harness.report.drawing.plots import Strip, Strips, Tick, fenced, near, strip_scale, strips
from harness.report.features.rules import CODE
from harness.report.features.steps import Step, Steps, steps_of
from harness.report.stats.intervals import FEW, Interval, over_seeds

MOST_BARS, MOST_DOTS = 14, 400


def build(runs: Iterable[Path]) -> dict[str, Any]:
    """Return a table a task and profile, as JSON values: gains in two metrics never mix."""
    found, skipped = steps_of(runs)
    return {"format": 1, "tables": [table(steps) for steps in found], "skipped": skipped}


def table(found: Steps) -> dict[str, Any]:
    """Return what the steps of one task say."""
    by_category: dict[str, list[tuple[Step, bool]]] = defaultdict(list)
    by_feature: dict[str, list[tuple[Step, bool]]] = defaultdict(list)
    for step in found.steps:
        categories = {_category(name) for name in step.features}
        for category in categories:
            by_category[category].append((step, len(categories) == 1))
        for name in step.features - {CODE}:
            by_feature[name].append((step, len(step.features) == 1))
    rows = [_row(name, steps, "category") for name, steps in by_category.items()]
    single = [_row(name, steps, "feature") for name, steps in by_feature.items()]
    counted = [s for s in found.steps if s.kind == "step"]
    lone = sum(len({_category(name) for name in s.features}) == 1 for s in counted)
    return {
        "task": found.task,
        "steps": len(counted),
        "lone": lone,
        "invalid": sum(s.kind == "invalid" for s in found.steps),
        "recoveries": sum(s.kind == "recovery" for s in found.steps),
        "apart": dict(found.apart),
        "rows": sorted(rows, key=_order),
        "features": sorted(single, key=_order),
        "words": _words(len(counted), lone, found),
    }


def _category(name: str) -> str:
    return name.partition(":")[0]


def _order(row: dict[str, Any]) -> tuple[int, str]:
    return -row["steps"], row["feature"]


def _row(name: str, steps: Sequence[tuple[Step, bool]], level: str) -> dict[str, Any]:
    gains = [s.gain for s, _ in steps if s.kind == "step" and s.gain is not None]
    alone = [s.gain for s, lone in steps if lone and s.kind == "step" and s.gain is not None]
    interval = over_seeds(gains)
    return {
        "feature": name,
        "level": level,
        "steps": len(gains),
        "gains": gains,
        "median": median(gains) if gains else None,
        "mean": fmean(gains) if gains else None,
        "interval": None if interval is None else _as_json(interval),
        "best": max(gains) if gains else None,
        "alone": len(alone),
        "median_alone": median(alone) if alone else None,
        "invalid": sum(s.kind == "invalid" for s, _ in steps),
        "recoveries": sum(s.kind == "recovery" for s, _ in steps),
        "gain_words": signed(median(gains) if gains else None),
        "alone_words": signed(median(alone) if alone else None),
        "best_words": signed(max(gains) if gains else None),
        "interval_words": _interval_words(interval),
    }


def _as_json(found: Interval) -> dict[str, Any]:
    return {"low": found.low, "high": found.high, "of": found.of, "method": found.method}


def signed(value: float | None) -> str:
    """Return a gain with its sign."""
    return "–" if value is None else f"{value:+.4f}"


def _interval_words(found: Interval | None) -> str:
    if found is None:
        return ""
    return f"{signed(found.low)}…{signed(found.high)}{' *' if found.of == 'mean' else ''}"


def _words(counted: int, lone: int, found: Steps) -> str:
    recoveries = sum(s.kind == "recovery" for s in found.steps)
    invalid = sum(s.kind == "invalid" for s in found.steps)
    apart = ", ".join(f"{count} {why}" for why, count in sorted(found.apart.items()))
    return (
        f"{counted} steps from a valid parent to a valid child, {lone} of them in one kind of "
        f"change alone; {invalid} more children became invalid. {recoveries} recoveries from poor "
        "starts stand in no median. A gain of a compound change counts for each of its kinds. "
        f"* Below {FEW} steps the interval is of the mean. Steps of one run are not independent, "
        "and none was repeated: a hint where to look, no proof."
        + (f" Not counted: {apart}." if apart else "")
    )


def plot(built: dict[str, Any]) -> Strips | None:
    """Return the plot of the categories; None without a step."""
    rows = [row for row in built["rows"] if row["gains"]][:MOST_BARS]
    if not rows:
        return None
    intervals = [row["interval"] for row in rows if row["interval"]]
    gains = fenced([gain for row in rows for gain in row["gains"]])
    ends = [interval[side] for interval in intervals for side in ("low", "high")]
    x = strip_scale([*near(gains, ends), 0.0])
    drawn = [
        Strip(
            row["feature"],
            0 if row["median"] > 0 else 1,
            tuple(x(v) for v in row["gains"][:MOST_DOTS]),
            x(row["median"]),
            x(row["interval"]["low"]) if row["interval"] else None,
            x(row["interval"]["high"]) if row["interval"] else None,
            f"{row['gain_words']}, {row['steps']} steps, {row['alone']} alone",
        )
        for row in rows
    ]
    title = "gains of steps in which it changed: each, the median, and the 95 % interval"
    return strips(title, drawn, x, [Tick(x(0.0), "no gain")])
