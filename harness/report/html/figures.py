"""Chooses a report's plots: curves and scores, for each task and each set of conditions.

``harness.report.drawing`` computes the curves and the positions of the marks.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from harness.agents import AGENTS
from harness.base.numbers import counted
from harness.report.baselines import baselines_of_entry
from harness.report.drawing import curves, plots
from harness.report.html.traces import Trace
from harness.report.samples import contenders
from harness.report.stats.intervals import UNBOUNDED, Interval, over_seeds
from harness.store.index import IndexEntry
from tasks.metrics import METRICS

COLOURS = 8
MOST_STRIPS = 30
AXES: tuple[curves.Axis, ...] = ("steps", "time", "tokens", "dollars")


@dataclass(frozen=True, slots=True)
class TaskPlots:
    """All plots of one task under one set of conditions. ``legend``: names and colour numbers."""

    name: str
    better: str
    curves: tuple[plots.Plot, ...]
    strips: plots.DotPlot | None
    legend: tuple[tuple[str, int], ...]
    band: str


def sign_of(entry: IndexEntry) -> float:
    """Return 1 where a higher score is better (or unknown), else -1."""
    return 1.0 if entry.lock is None or entry.lock.maximize else -1.0


def better(sign: float) -> str:
    """Return in words which scores are better, for a ``sign_of`` runs."""
    return f"{'higher' if sign > 0 else 'lower'} is better"


def figures(traces: Sequence[Trace]) -> list[TaskPlots]:
    """Return the plots. Runs under different conditions never share a plot."""
    return [_task(name, group) for name, group in by_conditions(traces)]


def by_conditions(traces: Sequence[Trace]) -> list[tuple[str, list[Trace]]]:
    """Return the runs of each task under each set of conditions, with a heading.

    A replay only repeats another run, so it is left out, unless it is the only run.
    """
    alone = len(traces) == 1
    groups: dict[str, dict[tuple[tuple[str, str], ...], list[Trace]]] = defaultdict(dict)
    for found in traces:
        asked = found.entry.asked
        if asked is not None and (alone or not found.entry.is_replay):
            key = tuple(sorted(found.entry.key.items()))
            groups[f"{asked.task} {asked.profile}"].setdefault(key, []).append(found)
    named = []
    for task, alike in sorted(groups.items()):
        differences = _differences([dict(key) for key in alike])
        for words, group in zip(differences, alike.values(), strict=True):
            named.append((f"{task} ({words})" if words else task, group))
    return named


def _differences(conditions: Sequence[Mapping[str, str]]) -> list[str]:
    """Return, per set of conditions, its values of the conditions that differ; "" if none does."""
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
    graded = next((t.entry for t in group if t.entry.outcome), group[0].entry)
    metric = graded.outcome.metric if graded.outcome else "score"
    idle = sum(not _counts(t) for t in group)
    several = any(len(runs) > 1 for runs in rows.values())
    return TaskPlots(
        name,
        f"{metric.replace('_', ' ')} on the search split, {better(sign)}",
        tuple(_curves({who: rows[who] for who in first}, sign)),
        _strips(order, scores, graded) if len(group) > 1 else None,
        tuple((who, style) for style, who in enumerate(first)),
        ("Lines are medians over seeds, bands the middle half of the runs. " if several else "")
        + ("Dotted on: it has ended, and keeps its best. " if len(rows) > 1 else "")
        + (f"The first {COLOURS} of {len(order)} are drawn. " if len(order) > COLOURS else "")
        + (f"Not in them: {counted(idle, 'run')} without a judged node." if idle else ""),
    )


def _curves(rows: Mapping[str, Sequence[Trace]], sign: float) -> list[plots.Plot]:
    """Return a plot for each axis on which all counted runs of a contender have known values.

    A contender that calls no model spends no tokens and no dollars: its best is a level there.
    """
    drawn = []
    traces = [t for found in rows.values() for t in found]
    known = _known([t.entry for t in traces])
    for axis in AXES:
        lines, levels = [], list(known)
        for style, (who, found) in enumerate(rows.items()):
            curve = _curve(found, axis, sign)
            if curve is not None:
                lines.append((who, style, curve))
            elif axis in ("tokens", "dollars") and _is_free(found):
                curve = _curve(found, "steps", sign)
                if curve is not None and curve.end is not None:
                    name = f"{who}, which calls no model,"
                    levels.append(plots.ReferenceLine(name, curve.end, style))
        if any(curve.end is not None and curve.xs[-1] > 0 for _, _, curve in lines):
            dots = _dots(traces[0], axis) if len(traces) == 1 else []
            plot = plots.curve_plot(axis, lines, maximize=sign > 0, dots=dots, levels=levels)
            drawn.append(plot)
    return drawn


def _curve(found: Sequence[Trace], axis: curves.Axis, sign: float) -> curves.Curve | None:
    """Return the curve of the runs that count; None if there is none, or an x is unknown."""
    runs = [curves.best_so_far(t.points, axis, sign) for t in found if _counts(t)]
    placed = [run for run in runs if run is not None]
    return curves.curve_of_runs(placed, sign) if placed and len(placed) == len(runs) else None


def _counts(found: Trace) -> bool:
    """Return whether a run counts: it has a scored node, or it has ended without a problem."""
    return bool(found.points) or (found.entry.outcome is not None and not found.problem)


def _is_free(found: Sequence[Trace]) -> bool:
    return all(t.entry.asked is not None and t.entry.asked.agent in AGENTS.ours for t in found)


def _known(entries: Sequence[IndexEntry]) -> list[plots.ReferenceLine]:
    """Return the baselines on the search split, as curves show scores on the search split."""
    found = next(filter(None, (baselines_of_entry(e, "search") for e in entries)), {})
    return [plots.ReferenceLine(name, value) for name, value in found.items()]


def _dots(found: Trace, axis: curves.Axis) -> list[tuple[float, float]]:
    placed = [(curves.value(p, axis, i), p.score) for i, p in enumerate(found.points)]
    return [(x, y) for x, y in placed if x is not None and y is not None]


def _scores(found: Sequence[Trace]) -> list[float]:
    """Return one score per seed, the mean of its valid runs: a repeated seed is one sample."""
    by_seed: dict[int, list[float]] = defaultdict(list)
    for t in found:
        asked, outcome = t.entry.asked, t.entry.outcome
        if asked and outcome and outcome.score is not None:
            by_seed[asked.seed].append(outcome.score)
    return [fmean(values) for _, values in sorted(by_seed.items())]


def _strips(
    order: Sequence[str], scores: Mapping[str, list[float]], entry: IndexEntry
) -> plots.DotPlot | None:
    """Return the dot plot of each contender's scores on the hidden test split, with baselines."""
    some = [who for who in order if scores[who]][:MOST_STRIPS]
    if not some:
        return None
    marks = baselines_of_entry(entry)
    bounds = METRICS.find(entry.outcome.metric).bounds if entry.outcome else UNBOUNDED
    rows = []
    for place, who in enumerate(some):
        mine = scores[who]
        found = over_seeds(mine, bounds)
        middle = median(mine) if found is None or found.of == "median" else fmean(mine)
        rows.append(
            plots.DotRow(
                who,
                min(place, COLOURS - 1),
                tuple(mine),
                middle,
                (found.low, found.high) if found else None,
                f"{_summary(mine, middle, found)}; {len(mine)} valid",
            )
        )
    return plots.strips(
        "hidden test split: every seed, the mean or median, and its 95 % interval",
        rows,
        [score for who in some for score in scores[who]],
        marks,
        f"Dashed: what needs no learning ({', '.join(marks)})." if marks else "",
    )


def _summary(scores: Sequence[float], middle: float, found: Interval | None) -> str:
    if found:
        return f"{found.of} {middle:.4f}, 95 % {found.low:.4f} to {found.high:.4f}"
    if len(scores) == 1:
        return f"one seed {middle:.4f}"
    return f"{len(scores)} seeds: {', '.join(f'{v:.4f}' for v in scores)}"
