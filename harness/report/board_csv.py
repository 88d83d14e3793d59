"""A leaderboard as CSV: a line for each contender on each task, numbers as they are."""

from collections.abc import Sequence
from typing import Any

from harness.report.grid import as_csv, check_columns

CSV = (
    "table", "profile", "isolation", "hardware", "scorer", "torch", "task", "task_hash",
    "data_hash", "metric", "direction", "agent", "policy", "setup", "planned",
    "graded", "valid", "median", "mean", "best", "low", "high", "interval_of", "normalized",
    "elo_all_tasks", "input_tokens", "output_tokens", "dollars", "gpu_hours", "scores_by_seed",
)  # fmt: skip


COSTS = ("input_tokens", "output_tokens", "dollars", "gpu_hours")


def csv_of(board: dict[str, Any], columns: Sequence[str] = ()) -> str:
    """Return all tables as one; of ``columns``, where there are some. Raises ConfigError."""
    check_columns(columns, CSV)
    rows = []
    for place, table in enumerate(board["tables"], start=1):
        shared = [table["conditions"].get(k, "") for k in CSV[1:6]]
        for task in table["tasks"]:
            about = [task[k] for k in CSV[6:11]]
            for row in table["rows"]:
                cell = row["cells"].get(task["task"])
                if cell is None:
                    continue
                interval = cell["interval"] or {"low": None, "high": None, "of": None}
                points = "; ".join(
                    f"{seed}:{'invalid' if s is None else s}"
                    for seed, runs in cell["scores"].items()
                    for s in runs
                )
                rows.append(
                    [
                        place, *shared, *about, row["agent"], row["policy"], row["setup"],
                        cell["planned"], cell["graded"], cell["valid"], cell["median"],
                        cell["mean"], cell["best"], interval["low"], interval["high"],
                        interval["of"], cell["normalized"],
                        row["elo"]["elo"] if row["elo"] else None,
                        *(cell["cost"][n] for n in COSTS), points,
                    ]
                )  # fmt: skip
    kept = [CSV.index(name.casefold()) for name in columns] or range(len(CSV))
    return as_csv([CSV[i] for i in kept], [[row[i] for i in kept] for row in rows])
