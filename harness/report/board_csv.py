"""A leaderboard as CSV: one line for each contender on each task, with unrounded numbers."""

from collections.abc import Sequence

from harness.report.board import Board, BoardCell, BoardRow, Column, Table
from harness.report.grid import as_csv, check_columns

CSV = (
    "table", "profile", "isolation", "hardware", "scorer", "torch", "task", "task_hash",
    "data_hash", "metric", "direction", "agent", "policy", "setup", "planned",
    "graded", "valid", "median", "mean", "best", "low", "high", "interval_of", "normalized",
    "elo_all_tasks", "input_tokens", "output_tokens", "dollars", "gpu_hours", "scores_by_seed",
)  # fmt: skip


def csv_of(board: Board, columns: Sequence[str]) -> str:
    """Return all tables as one CSV, only with ``columns`` if there are any. Raises ConfigError."""
    check_columns(columns, CSV)
    lines = [
        _line(place, table, task, row, cell)
        for place, table in enumerate(board.tables, start=1)
        for task in table.tasks
        for row in table.rows
        if (cell := row.cells.get(task.task)) is not None
    ]
    kept = [CSV.index(name.casefold()) for name in columns] or range(len(CSV))
    return as_csv([CSV[i] for i in kept], [[line[i] for i in kept] for line in lines])


def _line(place: int, table: Table, task: Column, row: BoardRow, cell: BoardCell) -> list[object]:
    interval, cost = cell.interval, cell.cost
    points = "; ".join(
        f"{seed}:{'invalid' if s is None else s}"
        for seed, runs in cell.scores.items()
        for s in runs
    )
    return [
        place, *(table.conditions.get(name, "") for name in CSV[1:6]), task.task, task.task_hash,
        task.data_hash, task.metric, task.direction, row.agent, row.policy, row.setup,
        cell.planned, cell.graded, cell.valid, cell.median, cell.mean, cell.best,
        *((interval.low, interval.high, interval.of) if interval else (None, None, None)),
        cell.normalized, row.elo.elo if row.elo else None, cost.input_tokens,
        cost.output_tokens, cost.dollars, cost.gpu_hours, points,
    ]  # fmt: skip
