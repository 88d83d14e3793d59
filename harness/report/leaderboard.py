"""Builds leaderboards: a row for each agent with its policy, a column for each task.

Each set of equal conditions has its own table (comparable.py). Scores are those of the hidden test
split. Invalid runs count against the valid submission rate, have a normalised score of 0 and lose
to every valid run; medians are of valid runs. A run that failed because of the harness or a
provider counts as planned, but is never graded. Replays do not rank.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median

from harness.base.errors import ConfigError
from harness.core.budget import TOKENS_IN
from harness.report.baselines import baselines
from harness.report.board import (
    TESTED,
    Against,
    Board,
    BoardCell,
    BoardMetric,
    BoardRow,
    Column,
    Cost,
    NotGraded,
    Replay,
    Share,
    Table,
)
from harness.report.comparable import ComparableRuns, comparable_runs
from harness.report.samples import By, Contender, Sample, contenders, samples
from harness.report.stats.elo import Player, ratings
from harness.report.stats.intervals import over_seeds, wilson
from harness.report.stats.normalized import ScoreScale, normalized, scale_of
from harness.report.stats.paired import holm, paired
from harness.report.stats.student import LEVEL
from harness.store.index import IndexEntry
from harness.store.outcome import Spent
from harness.store.rundir import Run
from tasks.definition import Reference
from tasks.metrics import METRICS
from tasks.spec import find_task

HUMAN = "human (published)"

ScoresBySeed = dict[str, dict[int, float]]
"""A value for each task and seed, more being better: see ``_worth``."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """One contender's runs in one table, and by task the sample of its graded runs."""

    who: Contender
    runs: tuple[IndexEntry, ...]
    samples: Mapping[str, Sample]


def build(
    entries: Iterable[IndexEntry], *, metric: BoardMetric = "score", by: By = "agent"
) -> Board:
    """Return the tables, and the runs left out of them with the reasons."""
    found = sorted(entries, key=lambda e: e.path)  # so that their order changes no digit
    ranking = [e for e in found if e.asked is not None and not e.is_replay]
    return Board(
        metric=metric,
        by=by,
        tables=tuple(
            _table(sheet, metric, by)
            for sheet in comparable_runs(ranking)
            if any(entry.outcome for entry in sheet.runs)
        ),
        not_graded=tuple(
            NotGraded(e.path, e.state, e.problem) for e in ranking if e.outcome is None
        ),
        replays=tuple(Replay(e.path, e.asked.agent) for e in found if e.asked and e.is_replay),
        skipped={e.path: e.problem for e in found if e.asked is None},
    )


def _table(sheet: ComparableRuns, metric: BoardMetric, by: By) -> Table:
    entrants = _entrants(sheet, contenders(sheet.runs, by))
    shown = {task for entrant in entrants for task in entrant.samples}
    tasks = {task: _column(sheet, task) for task in sheet.tasks if task in shown}
    rated = _rated(entrants, tasks)
    found: list[tuple[BoardRow, ScoresBySeed | None]] = []
    for entrant in entrants:
        worth = _worth(entrant, tasks)
        player = rated.get(str(entrant.who))
        found.append((_row(entrant, tasks, worth, player, metric), worth))
    found.sort(key=lambda pair: _place(pair[0]))
    against = (
        _against_leader([worth for _, worth in found]) if metric in TESTED else [None] * len(found)
    )
    return Table(
        conditions=sheet.shared,
        reason=sheet.reason,
        ranked=all(
            e.outcome.conditions.ranked for e in sheet.runs if e.outcome and e.outcome.conditions
        ),
        tasks=tuple(tasks[task] for task in sorted(tasks)),
        rows=tuple(
            replace(row, against_leader=test) for (row, _), test in zip(found, against, strict=True)
        ),
        human=rated.get(HUMAN),
    )


def _entrants(sheet: ComparableRuns, owner: Mapping[str, Contender]) -> list[Entrant]:
    own: dict[Contender, dict[str, Sample]] = defaultdict(dict)
    for sample in samples(sheet.runs, owner):
        own[sample.contender][sample.task] = sample
    members: dict[Contender, list[IndexEntry]] = defaultdict(list)
    for entry in sheet.runs:
        members[owner[entry.path]].append(entry)
    return [Entrant(who, tuple(runs), own[who]) for who, runs in sorted(members.items())]


def _column(sheet: ComparableRuns, task: str) -> Column:
    profile = sheet.shared.get("profile", "")
    path, outcome, lock = next(
        (e.path, e.outcome, e.lock)
        for e in sheet.runs
        if e.asked and e.asked.task == task and e.outcome and e.lock
    )
    references: tuple[Reference, ...] = ()
    marks: ScoreScale | None = None
    with suppress(ConfigError):  # the task is not installed: its runs came from elsewhere
        known = find_task(task).definition
        references, marks = known.references, scale_of(known, profile)
    return Column(
        task=task,
        metric=outcome.metric,
        direction=lock.direction,
        task_hash=sheet.tasks[task]["task"],
        data_hash=sheet.tasks[task]["data"],
        baselines=baselines(Run(Path(path))),
        references=tuple(r for r in references if r.profile == profile),
        marks=marks,
    )


def _rated(entrants: Iterable[Entrant], tasks: Mapping[str, Column]) -> dict[str, Player]:
    scores: dict[str, dict[str, list[float | None]]] = {}
    for task, column in tasks.items():
        scores[task] = {
            str(entrant.who): list(entrant.samples[task].by_seed.values())
            for entrant in entrants
            if task in entrant.samples
        }
        if column.marks is not None and column.marks.human:
            scores[task][HUMAN] = [column.marks.best]
    return ratings(scores, {task: column.direction for task, column in tasks.items()})


def _worth(entrant: Entrant, tasks: Mapping[str, Column]) -> ScoresBySeed | None:
    """Return the values by which an entrant's runs are compared.

    With one task, the score itself (negated if less is better), an invalid run counted as the worst
    score. With several, the normalised score; None if a task has no constants for it.
    """
    worth: ScoresBySeed = {}
    for task, sample in entrant.samples.items():
        marks = tasks[task].marks
        if len(tasks) == 1:
            worth[task] = {seed: sample.sign * value for seed, value in sample.values.items()}
        elif marks is None:
            return None
        else:
            worth[task] = _normalized(sample, marks)
    return worth


def _normalized(sample: Sample, marks: ScoreScale) -> dict[int, float]:
    return {
        seed: fmean(normalized(s, marks, sample.metric) for s in runs)
        for seed, runs in sample.scores.items()
    }


def _row(
    entrant: Entrant,
    tasks: Mapping[str, Column],
    worth: ScoresBySeed | None,
    player: Player | None,
    metric: BoardMetric,
) -> BoardRow:
    cells = {}
    for task, sample in entrant.samples.items():
        runs = [entry for entry in entrant.runs if entry.asked and entry.asked.task == task]
        cells[task] = _cell(sample, tasks[task].marks, runs)
    graded = sum(cell.graded for cell in cells.values())
    valid = sum(cell.valid for cell in cells.values())
    vsr, cost = _share(valid, graded), _cost(entrant.runs)
    mean_worth = fmean(fmean(seeds.values()) for seeds in worth.values()) if worth else None
    known = [cell.normalized for cell in cells.values() if cell.normalized is not None]
    mean_normalized = fmean(known) if known and len(known) == len(cells) else None
    elo = player.elo if player else None
    values: dict[BoardMetric, float | None] = {
        "score": elo if mean_worth is None else mean_worth,
        "normalized": mean_normalized,
        "vsr": vsr.share,
        "elo": elo,
        "cost": None if cost.dollars is None else -cost.dollars,
    }
    return BoardRow(
        agent=entrant.who.agent,
        policy=entrant.who.policy,
        setup=entrant.who.setup,
        planned=len(entrant.runs),
        graded=graded,
        valid=valid,
        vsr=vsr,
        cells=cells,
        worth=mean_worth,
        normalized=mean_normalized,
        elo=player,
        cost=cost,
        against_leader=None,  # set once the rows are in order
        value=values[metric],
    )


def _cell(sample: Sample, marks: ScoreScale | None, runs: Sequence[IndexEntry]) -> BoardCell:
    valid = sample.valid
    seeds = [score for score in sample.by_seed.values() if score is not None]
    return BoardCell(
        planned=len(runs),
        graded=sample.graded,
        valid=len(valid),
        vsr=_share(len(valid), sample.graded),
        median=median(seeds) if seeds else None,
        mean=fmean(seeds) if seeds else None,
        best=(max if sample.sign > 0 else min)(valid, default=None),
        interval=over_seeds(seeds, METRICS.find(sample.metric).bounds),
        scores=sample.scores,
        normalized=fmean(_normalized(sample, marks).values()) if marks else None,
        cost=_cost(runs),
    )


def _share(hits: int, n: int) -> Share:
    return Share(hits / n if n else None, wilson(hits, n))


def _cost(runs: Iterable[IndexEntry]) -> Cost:
    """Return what the graded runs used in total."""
    spent = [entry.outcome.spent for entry in runs if entry.outcome is not None]
    known = [s for s in spent if s is not None]
    whole = len(known) == len(spent)
    dollars = [_dollars(s) for s in known]
    return Cost(
        runs=len(spent),
        input_tokens=_tokens(known, *TOKENS_IN) if whole else None,
        output_tokens=_tokens(known, "output_tokens") if whole else None,
        dollars=sum(d for d in dollars if d is not None) if whole and None not in dollars else None,
        dollars_known=sum(s.model.dollars_known + s.lost.dollars_known for s in known),
        gpu_hours=sum(s.gpu_hours for s in known) if whole else None,
    )


def _dollars(spent: Spent) -> float | None:
    if spent.model.dollars is None or spent.lost.dollars is None:
        return None
    return spent.model.dollars + spent.lost.dollars


def _tokens(spent: Iterable[Spent], *names: str) -> int:
    return sum(getattr(tally, name) for s in spent for tally in (s.model, s.lost) for name in names)


def _place(row: BoardRow) -> tuple[bool, float, str]:
    """Return a sort key: larger values first, rows without a value last, ties by name."""
    return row.value is None, -(row.value or 0.0), f"{row.agent} {row.policy} {row.setup}"


def _against_leader(order: Sequence[ScoresBySeed | None]) -> list[Against | None]:
    """Test each row against the first: paired by seed, corrected for the number of rows.

    None for the first row itself, and for rows without a common scale.
    """
    leader = order[0]
    tests = {
        place: _by_seed(leader, mine)
        for place, mine in enumerate(order)
        if place and leader and mine
    }
    p_values = [paired(d).p if d else None for d in tests.values()]
    adjusted = holm([1.0 if p is None else p for p in p_values])
    against: list[Against | None] = [None] * len(order)
    for (place, differences), p in zip(tests.items(), adjusted, strict=True):
        against[place] = Against(same=p > LEVEL, p=p, pairs=len(differences))
    return against


def _by_seed(leader: ScoresBySeed, other: ScoresBySeed) -> list[float]:
    """Return one difference a seed: the mean over the tasks that both ran with this seed."""
    found: dict[int, list[float]] = defaultdict(list)
    for task in leader.keys() & other.keys():
        for seed in leader[task].keys() & other[task].keys():
            found[seed].append(other[task][seed] - leader[task][seed])
    return [fmean(found[seed]) for seed in sorted(found)]
