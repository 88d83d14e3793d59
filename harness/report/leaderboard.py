"""Leaderboards: a row an agent with its policy, a column a task, one table for equal conditions.

Numbers are the hidden test split's. Invalid runs count against the valid submission rate, have a
normalised score of 0 and lose every match; medians are of valid runs. A run that our side or a
provider broke is counted as planned and never graded. Replays do not rank.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

from harness.base.errors import ConfigError
from harness.core.budget import TOKENS_IN
from harness.report.baselines import baselines
from harness.report.samples import By, Contender, Sample, contenders, samples
from harness.report.sheets import Sheet, sheets
from harness.report.stats.elo import Player, ratings
from harness.report.stats.intervals import over_seeds, wilson
from harness.report.stats.nines import BOUNDS, Marks, marks_of, normalized
from harness.report.stats.paired import holm, paired
from harness.store.index import Entry, Spent
from harness.store.rundir import Run
from tasks.spec import find_task

Metric = Literal["score", "normalized", "vsr", "elo", "cost"]

HUMAN = "human (published)"
LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Row:
    """One contender's runs in one table."""

    who: Contender
    runs: tuple[Entry, ...]
    cells: Mapping[str, Sample]

    @property
    def graded(self) -> int:
        return sum(sample.graded for sample in self.cells.values())

    @property
    def valid(self) -> int:
        return sum(len(sample.valid) for sample in self.cells.values())


def build(
    entries: Iterable[Entry], *, metric: Metric = "score", by: By = "agent"
) -> dict[str, Any]:
    """Return the tables as JSON values, with what was left out of them and why."""
    found = sorted(entries, key=lambda e: e.path)  # so that their order changes no digit
    ranking = [e for e in found if e.asked is not None and not e.is_replay]
    return {
        "format": 2,
        "metric": metric,
        "by": by,
        "tables": [_table(sheet, metric, by) for sheet in sheets(ranking) if _has_result(sheet)],
        "not_graded": [
            {"run": e.path, "state": e.state, "message": e.problem}
            for e in ranking
            if e.outcome is None
        ],
        "replays": [
            {"run": e.path, "agent": e.asked.agent} for e in found if e.asked and e.is_replay
        ],
        "skipped": {e.path: e.problem for e in found if e.asked is None},
    }


def _has_result(sheet: Sheet) -> bool:
    return any(entry.outcome is not None for entry in sheet.runs)


def _table(sheet: Sheet, metric: Metric, by: By) -> dict[str, Any]:
    owner = contenders(sheet.runs, by)
    rows = _rows(sheet, owner)
    tasks = {task: _task(sheet, task) for task in sheet.tasks if any(task in r.cells for r in rows)}
    marks = {task: marks_of(task, sheet.shared.get("profile", "")) for task in tasks}
    rated = _rated(rows, tasks, marks)
    worth = {row.who: _worth(row, tasks, marks) for row in rows}
    built = {row.who: _row(row, marks, worth[row.who], rated.get(str(row.who))) for row in rows}
    for values in built.values():
        values["value"] = _value(values, metric)
    order = sorted(rows, key=lambda row: _place(built[row.who]))
    if metric in ("score", "normalized", "elo"):
        told = _told(order, worth)
        for row in order:
            built[row.who]["against_leader"] = told[row.who]
    return {
        "conditions": sheet.shared,
        "reason": sheet.reason,
        "ranked": all(
            e.outcome.conditions.ranked for e in sheet.runs if e.outcome and e.outcome.conditions
        ),
        "tasks": [tasks[task] for task in sorted(tasks)],
        "rows": [built[row.who] for row in order],
        "human": _elo_json(rated.get(HUMAN)),
    }


def _rows(sheet: Sheet, owner: Mapping[str, Contender]) -> list[Row]:
    cells: dict[Contender, dict[str, Sample]] = defaultdict(dict)
    for sample in samples(sheet.runs, owner):
        cells[sample.contender][sample.task] = sample
    members: dict[Contender, list[Entry]] = defaultdict(list)
    for entry in sheet.runs:
        members[owner[entry.path]].append(entry)
    return [Row(who, tuple(runs), cells[who]) for who, runs in sorted(members.items())]


def _task(sheet: Sheet, task: str) -> dict[str, Any]:
    profile = sheet.shared.get("profile", "")
    entry = next(e for e in sheet.runs if e.asked and e.asked.task == task and e.outcome and e.lock)
    outcome, lock = entry.outcome, entry.lock
    assert outcome is not None  # noqa: S101
    assert lock is not None  # noqa: S101
    marks = marks_of(task, profile)
    try:
        references = find_task(task).definition.references
    except ConfigError:
        references = ()  # a task that is not here: its runs came from elsewhere
    return {
        "task": task,
        "metric": outcome.metric,
        "direction": lock.direction,
        **{f"{name}_hash": value for name, value in sheet.tasks[task].items()},
        "baselines": baselines(Run(Path(entry.path))),
        "references": [r.model_dump() for r in references if r.profile == profile],
        "marks": marks.model_dump() if marks else None,
    }


def _rated(
    rows: list[Row], tasks: Mapping[str, dict[str, Any]], marks: Mapping[str, Marks | None]
) -> dict[str, Player]:
    scores: dict[str, dict[str, list[float | None]]] = {}
    for task in tasks:
        scores[task] = {
            str(row.who): list(row.cells[task].by_seed.values())
            for row in rows
            if task in row.cells
        }
        known = marks[task]
        if known is not None and known.human:
            scores[task][HUMAN] = [known.best]
    return ratings(scores, {name: task["direction"] for name, task in tasks.items()})


def _worth(
    row: Row, tasks: Mapping[str, dict[str, Any]], marks: Mapping[str, Marks | None]
) -> dict[str, dict[int, float]] | None:
    """Return what a row's runs are worth by task and seed, more being better.

    On one task that is the score itself, an invalid run counted as the worst there is; on several
    the normalised score, and None where a task has no constants for one.
    """
    worth: dict[str, dict[int, float]] = {}
    for task, sample in row.cells.items():
        known = marks[task]
        if len(tasks) == 1:
            worth[task] = {seed: sample.sign * value for seed, value in sample.values.items()}
        elif known is None:
            return None
        else:
            worth[task] = _normalized(sample, known)
    return worth


def _normalized(sample: Sample, marks: Marks) -> dict[int, float]:
    return {
        seed: fmean(normalized(s, marks, sample.metric) for s in runs)
        for seed, runs in sample.scores.items()
    }


def _row(
    row: Row,
    marks: Mapping[str, Marks | None],
    worth: dict[str, dict[int, float]] | None,
    player: Player | None,
) -> dict[str, Any]:
    own: dict[str, list[Entry]] = defaultdict(list)
    for entry in row.runs:
        if entry.asked is not None:
            own[entry.asked.task].append(entry)
    cells = {
        task: {
            "planned": len(own[task]),
            **_cell(sample, marks[task]),
            "cost": _cost(own[task]),
        }
        for task, sample in row.cells.items()
    }
    means = [cell["normalized"] for cell in cells.values()]
    return {
        "agent": row.who.agent,
        "policy": row.who.policy,
        "setup": row.who.setup,
        "planned": len(row.runs),
        "graded": row.graded,
        "valid": row.valid,
        "vsr": _share(row.valid, row.graded),
        "cells": cells,
        "worth": fmean(fmean(w.values()) for w in worth.values()) if worth else None,
        "normalized": fmean(means) if means and None not in means else None,
        "elo": _elo_json(player),
        "cost": _cost(row.runs),
        "against_leader": None,
    }


def _cell(sample: Sample, marks: Marks | None) -> dict[str, Any]:
    valid = sample.valid
    seeds = [score for score in sample.by_seed.values() if score is not None]
    interval = over_seeds(seeds, BOUNDS[sample.metric])
    return {
        "graded": sample.graded,
        "valid": len(valid),
        "vsr": _share(len(valid), sample.graded),
        "median": median(seeds) if seeds else None,
        "mean": fmean(seeds) if seeds else None,
        "best": (max if sample.sign > 0 else min)(valid, default=None),
        "interval": asdict(interval) if interval else None,
        "scores": {str(seed): list(runs) for seed, runs in sample.scores.items()},
        "normalized": fmean(_normalized(sample, marks).values()) if marks else None,
    }


def _share(hits: int, n: int) -> dict[str, Any]:
    interval = wilson(hits, n)
    return {"share": hits / n if n else None, "interval": asdict(interval) if interval else None}


def _elo_json(player: Player | None) -> dict[str, Any] | None:
    return asdict(player) if player else None


def _cost(runs: Iterable[Entry]) -> dict[str, Any]:
    """Return what graded runs used in all; None is unknown, never 0."""
    spent = [entry.outcome.spent for entry in runs if entry.outcome is not None]
    known = [s for s in spent if s is not None]
    whole = len(known) == len(spent)
    dollars = [_dollars(s) for s in known]
    return {
        "runs": len(spent),
        "input_tokens": _tokens(known, *TOKENS_IN) if whole else None,
        "output_tokens": _tokens(known, "output_tokens") if whole else None,
        "dollars": sum(d for d in dollars if d is not None)
        if whole and None not in dollars
        else None,
        "dollars_known": sum(s.model.dollars_known + s.lost.dollars_known for s in known),
        "gpu_hours": sum(s.gpu_hours for s in known) if whole else None,
    }


def _dollars(spent: Spent) -> float | None:
    if spent.model.dollars is None or spent.lost.dollars is None:
        return None
    return spent.model.dollars + spent.lost.dollars


def _tokens(spent: Iterable[Spent], *names: str) -> int:
    return sum(getattr(tally, name) for s in spent for tally in (s.model, s.lost) for name in names)


def _value(row: dict[str, Any], metric: Metric) -> float | None:
    """Return what a row is ordered by, more being better; None where it has none."""
    elo: float | None = (row["elo"] or {}).get("elo")
    found: float | None
    match metric:
        case "score":
            found = elo if row["worth"] is None else row["worth"]
        case "normalized":
            found = row["normalized"]
        case "vsr":
            found = row["vsr"]["share"]
        case "elo":
            found = elo
        case "cost":
            dollars = row["cost"]["dollars"]
            found = None if dollars is None else -dollars
    return found


def _place(row: dict[str, Any]) -> tuple[bool, float, str]:
    """Return where a row stands: those without a value last, then by name."""
    value = row["value"]
    return value is None, -(value or 0.0), f"{row['agent']} {row['policy']} {row['setup']}"


def _told(
    order: list[Row], worth: Mapping[Contender, dict[str, dict[int, float]] | None]
) -> dict[Contender, dict[str, Any] | None]:
    """Test each row against the first: paired by seed, corrected over the rows.

    ``same`` is True where they cannot be told apart. None where there is no common scale.
    """
    leader = worth[order[0].who]
    tests = {}
    for row in order[1:]:
        mine = worth[row.who]
        tests[row.who] = None if not mine or not leader else _by_seed(leader, mine)
    known = {who: d for who, d in tests.items() if d is not None}
    p_values = {who: paired(d).p if d else None for who, d in known.items()}
    adjusted = holm([1.0 if p is None else p for p in p_values.values()])
    told: dict[Contender, dict[str, Any] | None] = {row.who: None for row in order}
    for (who, differences), p in zip(known.items(), adjusted, strict=True):
        told[who] = {"same": p > LEVEL, "p": p, "pairs": len(differences)}
    return told


def _by_seed(
    leader: dict[str, dict[int, float]], other: dict[str, dict[int, float]]
) -> list[float]:
    """Return a difference a seed: the mean over the tasks that both ran with it."""
    found: dict[int, list[float]] = defaultdict(list)
    for task in leader.keys() & other.keys():
        for seed in leader[task].keys() & other[task].keys():
            found[seed].append(other[task][seed] - leader[task][seed])
    return [fmean(found[seed]) for seed in sorted(found)]
