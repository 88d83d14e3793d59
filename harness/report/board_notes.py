"""The notes under a leaderboard: conditions, order, the meaning of its signs, sources."""

from collections.abc import Iterator

from harness.report.board import TESTED, BoardMetric, Table
from harness.report.stats.intervals import FEW, FEWEST
from tasks.metrics import METRICS


def notes_of(table: Table, metric: BoardMetric) -> Iterator[str]:
    """Yield the notes under one table."""
    if table.reason:
        yield f"Apart from the first table: {table.reason}."
    if not table.ranked:
        yield f"Profile {table.conditions['profile']} is for trying out: this is no ranking."
    shared = [f"{k} {v}" for k, v in table.conditions.items() if k != "profile"]
    yield ", ".join(shared)
    for task in table.tasks:
        yield f"{task.task}: task {task.task_hash}, data {task.data_hash}"
    yield f"Ordered by {_order(table, metric)}."
    yield from _marks(table, metric)
    if metric == "score":
        yield (
            f"95 %: from {FEWEST} valid seeds on Student's interval of the mean, from {FEW} on the "
            "bootstrap of the median, cut to the metric's scale; ± is half of it. A best has none "
            "(docs/concepts/statistics.md). Then the scores by seed, – for an invalid run. valid: "
            "of planned runs; VSR: of graded ones. Costs are of all graded runs together."
        )
    if metric == "vsr":
        yield "VSR: valid submission rate of graded runs, with Wilson's 95 % interval."
    if metric in ("score", "elo") and any(row.elo for row in table.rows):
        yield (
            "Elo: Bradley-Terry of who scores better, task by task; 1000 is the players' mean. "
            "95 %: tasks and seeds drawn again."
        )
    if metric == "cost":
        yield "Per task: tokens, dollars, GPU-hours of all graded runs together."
    yield from _constants(table, metric)


def _order(table: Table, metric: BoardMetric) -> str:
    match metric:
        case "normalized":
            return "the mean normalised score, invalid runs counted as 0"
        case "vsr":
            return "the share of graded runs that ended with a valid submission"
        case "elo":
            return "Elo"
        case "cost":
            return "dollars, the cheapest first, unknown last"
    tasks = table.tasks
    if len(tasks) == 1:
        floor = METRICS.find(tasks[0].metric).floor
        return f"the mean over seeds, an invalid run counted as {floor:g}"
    if all(task.marks for task in tasks):
        return "the mean normalised score, invalid runs counted as 0"
    return "Elo, for a task here has no constants to normalise by"


def _marks(table: Table, metric: BoardMetric) -> Iterator[str]:
    if len(table.rows) < 2 or metric not in TESTED:
        return
    if any(row.against_leader for row in table.rows):
        yield (
            "1: the first; ≈1: cannot be told from it (paired t test by seed, 5 %, corrected over "
            "the rows by Holm)."
        )
    else:
        yield "No row is tested against the first: they share no scale or no seed."


def _constants(table: Table, metric: BoardMetric) -> Iterator[str]:
    for task in table.tasks:
        marks = task.marks
        if metric in ("score", "normalized"):
            if marks:
                doubt = f"; disputed: {marks.disputed}" if marks.disputed else ""
                yield (
                    f"normalised {task.task}: 0 at {marks.worst:g}, 1 at {marks.best:g} "
                    f"({marks.source}{doubt})"
                )
            elif metric == "normalized":
                yield f"{task.task} has no constants to normalise by at this profile."
        for reference in task.references if metric == "score" else ():
            mark = "† disputed: " if reference.disputed else ""
            note = f" ({mark}{reference.note})" if reference.note else ""
            yield f"{reference.name} {reference.value:g}: {reference.source}{note}"
