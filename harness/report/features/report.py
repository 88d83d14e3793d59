"""Reports the gains of changes: a row per category and per feature, as values, a plot or text."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

from rich import box
from rich.table import Table
from rich.text import Text

from harness.base.text import clean
from harness.report.drawing.plots import DotPlot, DotRow, strips, without_outliers
from harness.report.features.rules import CODE
from harness.report.features.steps import SearchStep, StepKind, TaskSteps, steps_of
from harness.report.stats.intervals import FEW, Interval, over_seeds
from harness.report.terminal import draw, stdout

MOST_BARS, MOST_DOTS = 14, 400
MOST_ROWS = 40
HEADER = ("what changed", "steps", "gain", "95 %", "alone", "bad")
"""``gain`` is the median; ``alone``: steps in which nothing else changed; ``bad``: children that
became invalid."""

FeatureLevel = Literal["category", "feature"]


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """The gains of the steps in which this category or feature changed.

    ``steps``, ``gains`` and the statistics of them leave out recoveries and invalid children.
    ``alone`` counts steps in which nothing else changed. ``*_words``: the values as text.
    """

    feature: str
    level: FeatureLevel
    steps: int
    gains: tuple[float, ...]
    median: float | None
    mean: float | None
    interval: Interval | None
    best: float | None
    alone: int
    median_alone: float | None
    invalid: int
    recoveries: int
    gain_words: str
    alone_words: str
    best_words: str
    interval_words: str


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """The steps of one task and profile: a row per category, and a row per feature.

    ``lone``: steps in which only one category changed. ``apart``: nodes not counted, by reason.
    """

    task: str
    steps: int
    lone: int
    invalid: int
    recoveries: int
    apart: Mapping[str, int]
    rows: tuple[FeatureRow, ...]
    features: tuple[FeatureRow, ...]
    words: str


def build(runs: Iterable[Path]) -> tuple[list[FeatureTable], dict[str, str]]:
    """Return a table per task and profile, as metrics never mix, and the skipped runs with why."""
    found, skipped = steps_of(runs)
    return [table(steps) for steps in found], skipped


def as_json(tables: Iterable[FeatureTable], skipped: Mapping[str, str]) -> dict[str, Any]:
    """Return the tables as JSON values."""
    return {"format": 1, "tables": [asdict(one) for one in tables], "skipped": skipped}


def table(found: TaskSteps) -> FeatureTable:
    """Return the table of the steps of one task."""
    by_category: dict[str, list[tuple[SearchStep, bool]]] = defaultdict(list)
    by_feature: dict[str, list[tuple[SearchStep, bool]]] = defaultdict(list)
    for step in found.steps:
        categories = {_category(name) for name in step.features}
        for category in categories:
            by_category[category].append((step, len(categories) == 1))
        for name in step.features - {CODE}:
            by_feature[name].append((step, len(step.features) == 1))
    rows = [_row(name, steps, "category") for name, steps in by_category.items()]
    single = [_row(name, steps, "feature") for name, steps in by_feature.items()]
    kinds = Counter(s.kind for s in found.steps)
    counted = [s for s in found.steps if s.kind == "step"]
    lone = sum(len({_category(name) for name in s.features}) == 1 for s in counted)
    return FeatureTable(
        task=found.task,
        steps=kinds["step"],
        lone=lone,
        invalid=kinds["invalid"],
        recoveries=kinds["recovery"],
        apart=found.apart,
        rows=tuple(sorted(rows, key=_order)),
        features=tuple(sorted(single, key=_order)),
        words=_words(kinds, lone, found.apart),
    )


def _category(name: str) -> str:
    return name.partition(":")[0]


def _order(row: FeatureRow) -> tuple[int, str]:
    return -row.steps, row.feature


def _row(name: str, steps: Sequence[tuple[SearchStep, bool]], level: FeatureLevel) -> FeatureRow:
    gains = [s.gain for s, _ in steps if s.kind == "step" and s.gain is not None]
    alone = [s.gain for s, lone in steps if lone and s.kind == "step" and s.gain is not None]
    middle, middle_alone = (median(found) if found else None for found in (gains, alone))
    best, interval = max(gains, default=None), over_seeds(gains)
    return FeatureRow(
        feature=name,
        level=level,
        steps=len(gains),
        gains=tuple(gains),
        median=middle,
        mean=fmean(gains) if gains else None,
        interval=interval,
        best=best,
        alone=len(alone),
        median_alone=middle_alone,
        invalid=sum(s.kind == "invalid" for s, _ in steps),
        recoveries=sum(s.kind == "recovery" for s, _ in steps),
        gain_words=signed(middle),
        alone_words=signed(middle_alone),
        best_words=signed(best),
        interval_words=_interval_words(interval),
    )


def signed(value: float | None) -> str:
    """Return a gain as text with its sign."""
    return "–" if value is None else f"{value:+.4f}"


def _interval_words(found: Interval | None) -> str:
    if found is None:
        return ""
    return f"{signed(found.low)}…{signed(found.high)}{' *' if found.of == 'mean' else ''}"


def _words(kinds: Mapping[StepKind, int], lone: int, apart: Mapping[str, int]) -> str:
    others = ", ".join(f"{count} {why}" for why, count in sorted(apart.items()))
    return (
        f"{kinds['step']} steps from a valid parent to a valid child, {lone} of them in one kind "
        f"of change alone; {kinds['invalid']} more children became invalid. {kinds['recovery']} "
        "recoveries from poor starts stand in no median. A gain of a compound change counts for "
        "each of its kinds. "
        f"* Below {FEW} steps the interval is of the mean. Steps of one run are not independent, "
        "and none was repeated: a hint where to look, no proof."
        + (f" Not counted: {others}." if others else "")
    )


def plot(built: FeatureTable) -> DotPlot | None:
    """Return the plot of the categories; None if no category has a step with a gain."""
    rows = [(row, row.median) for row in built.rows if row.median is not None][:MOST_BARS]
    if not rows:
        return None
    gains = without_outliers([gain for row, _ in rows for gain in row.gains])
    drawn = [
        DotRow(
            row.feature,
            0 if middle > 0 else 1,
            row.gains[:MOST_DOTS],
            middle,
            (row.interval.low, row.interval.high) if row.interval else None,
            f"{row.gain_words}, {row.steps} steps, {row.alone} alone",
        )
        for row, middle in rows
    ]
    title = "gains of steps in which it changed: each, the median, and the 95 % interval"
    return strips(title, drawn, gains, {"no gain": 0.0})


def show(tables: Iterable[FeatureTable], skipped: Mapping[str, str], *, each: bool) -> None:
    """Print a table per task: a row per category, or, with ``each``, a row per feature."""
    console = stdout()
    for built in tables:
        rows = built.features if each else built.rows
        drawn = Table(
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            title=Text(clean(built.task)),
            title_justify="left",
        )
        for place, name in enumerate(HEADER):
            drawn.add_column(name, justify="right" if place else "left", no_wrap=True)
        for row in rows[:MOST_ROWS]:
            cells = (
                clean(row.feature, 60, keep="head"), str(row.steps), row.gain_words,
                row.interval_words, str(row.alone), str(row.invalid),
            )  # fmt: skip
            drawn.add_row(*(Text(cell) for cell in cells))
        if rows:
            draw(console, drawn)
        if len(rows) > MOST_ROWS:
            console.print(f"and {len(rows) - MOST_ROWS} more: --json")
        console.print(Text(built.words))
    for path, why in skipped.items():
        console.print(Text(clean(f"skipped: {path}: {why}", 400, keep="head")))
