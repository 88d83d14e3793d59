"""Which plots a report has: for each task under equal conditions its curves, and its scores."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from harness.report.baselines import baselines
from harness.report.html import curves, plots
from harness.report.html.traces import Trace
from harness.report.samples import conditions_of, contenders
from harness.report.sound import sensible
from harness.report.stats.intervals import over_seeds
from harness.runs.index import Entry
from harness.runs.rundir import Run

COLOURS = 8
MOST_STRIPS = 30
AXES: tuple[curves.Axis, ...] = ("steps", "time", "tokens", "dollars")


@dataclass(frozen=True, slots=True)
class TaskPlots:
    """All that is drawn of one task under one set of conditions. ``legend``: name and colour."""

    name: str
    better: str
    curves: tuple[plots.Plot, ...]
    strips: plots.Strips | None
    legend: tuple[tuple[str, int], ...]
    band: str


def sign_of(entry: Entry) -> float:
    """Return 1 where more is better, else -1."""
    return 1.0 if entry.lock is None or entry.lock.maximize else -1.0


def figures(traces: Sequence[Trace]) -> list[TaskPlots]:
    """Return the plots. Runs under other conditions never share one; a replay repeats, and is none.

    A replay that is reported alone is drawn like any run.
    """
    alone = len(traces) == 1
    groups: dict[str, dict[tuple[tuple[str, str], ...], list[Trace]]] = defaultdict(dict)
    for found in traces:
        asked = found.entry.asked
        if asked is not None and (alone or not found.entry.is_replay):
            key = tuple(sorted(conditions_of(found.entry).items()))
            groups[f"{asked.task} {asked.profile}"].setdefault(key, []).append(found)
    drawn = []
    for task, by_conditions in sorted(groups.items()):
        told = _told_apart([dict(key) for key in by_conditions])
        for words, group in zip(told, by_conditions.values(), strict=True):
            drawn.append(_task(f"{task} ({words})" if words else task, group))
    return drawn


def _told_apart(conditions: Sequence[Mapping[str, str]]) -> list[str]:
    """Return, for each set of conditions, its values of those that differ; empty for one set."""
    names = sorted({name for found in conditions for name in found})
    differing = [n for n in names if len({found.get(n) for found in conditions}) > 1]
    return [", ".join(f"{n} {found.get(n, 'unknown')}" for n in differing) for found in conditions]


def _task(name: str, group: Sequence[Trace]) -> TaskPlots:
    sign = sign_of(group[0].entry)
    owner = contenders([found.entry for found in group])
    rows: dict[str, list[Trace]] = defaultdict(list)
    for found in group:
        rows[str(owner[found.entry.path])].append(found)
    scores = {who: _scores(found) for who, found in rows.items()}
    order = sorted(rows, key=lambda n: (not scores[n], -sign * fmean(scores[n] or [0.0]), n))
    first = order[:COLOURS]
    metric = next((t.entry.outcome.metric for t in group if t.entry.outcome), "score")
    better = "higher" if sign > 0 else "lower"
    several = any(len(runs) > 1 for runs in rows.values())
    return TaskPlots(
        name,
        f"{metric.replace('_', ' ')} on the search split, {better} is better",
        tuple(_curves({who: rows[who] for who in first}, sign)),
        _strips(order, scores, group[0].entry) if len(group) > 1 else None,
        tuple((who, style) for style, who in enumerate(first)),
        ("Lines are medians over seeds, bands the middle half of the runs. " if several else "")
        + (f"The first {COLOURS} of {len(order)} are drawn." if len(order) > COLOURS else ""),
    )


def _curves(rows: Mapping[str, Sequence[Trace]], sign: float) -> list[plots.Plot]:
    """Return a plot for each axis on which all runs of somebody are known."""
    drawn = []
    for axis in AXES:
        lines = []
        for style, (who, found) in enumerate(rows.items()):
            runs = [curves.best_so_far(t.points, axis, sign) for t in found]
            known = [run for run in runs if run is not None]
            if len(known) == len(runs):
                lines.append((who, style, curves.many(known, sign)))
        if any(curve.xs for _, _, curve in lines):
            traces = [t for found in rows.values() for t in found]
            dots = _dots(traces[0], axis) if len(traces) == 1 else []
            drawn.append(plots.curve_plot(axis, lines, maximize=sign > 0, dots=dots))
    return drawn


def _dots(found: Trace, axis: curves.Axis) -> list[tuple[float, float]]:
    placed = [(curves.value(p, axis, i), p.score) for i, p in enumerate(found.points)]
    return [(x, y) for x, y in placed if x is not None and y is not None]


def _scores(found: Sequence[Trace]) -> list[float]:
    """Return one score a seed, the mean of its valid runs: run twice, it is still one draw."""
    by_seed: dict[int, list[float]] = defaultdict(list)
    for t in found:
        asked, outcome = t.entry.asked, t.entry.outcome
        if asked and outcome and outcome.score is not None and sensible(outcome.score):
            by_seed[asked.seed].append(outcome.score)
    return [fmean(values) for _, values in sorted(by_seed.items())]


def _strips(
    order: Sequence[str], scores: Mapping[str, list[float]], entry: Entry
) -> plots.Strips | None:
    """Return the hidden test split's scores of each contender, beside what is known without."""
    some = [who for who in order if scores[who]][:MOST_STRIPS]
    if not some:
        return None
    marks = {name.replace("_", " "): v for name, v in baselines(Run(Path(entry.path))).items()}
    intervals = {who: over_seeds(scores[who]) for who in some}
    ends = [end for found in intervals.values() if found for end in (found.low, found.high)]
    seen = [score for who in some for score in scores[who]]
    x = plots.spread([*plots.near(seen, ends), *marks.values()], 14, 546)
    strips = []
    for place, who in enumerate(some):
        mine, found = scores[who], intervals[who]
        middle = median(mine) if found is None or found.of == "median" else fmean(mine)
        words = f"{found.of if found else 'one seed'} {middle:.4f}"
        if found:
            words += f", 95 % {found.low:.4f} to {found.high:.4f}"
        strips.append(
            plots.Strip(
                who,
                min(place, COLOURS - 1),
                28 + 40 * place,
                tuple(x(v) for v in mine),
                x(middle),
                x(found.low) if found else None,
                x(found.high) if found else None,
                f"{words}; {len(mine)} valid",
            )
        )
    return plots.Strips(
        "hidden test split: every seed, the mean or median, and its 95 % interval",
        tuple(strips),
        x.ticks(6),
        tuple(plots.Tick(x(v), name) for name, v in marks.items()),
        f"Dashed: what needs no learning ({', '.join(marks)})." if marks else "",
        height=40 * len(strips) + 44,
    )
