"""harness leaderboard"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.cli.common import RUNS_DIR, AsJson, guarded, print_json


@guarded
def command(
    places: Annotated[
        list[Path] | None, typer.Argument(help="Runs, or folders of runs (default: runs).")
    ] = None,
    format: Annotated[  # noqa: A002 (the option's name)
        Literal["table", "md", "csv", "json", "latex", "html"], typer.Option(help="How to print.")
    ] = "table",
    metric: Annotated[
        Literal["score", "normalized", "vsr", "elo", "cost"],
        typer.Option(help="What cells show and rows are ordered by: docs/statistics.md."),
    ] = "score",
    by: Annotated[
        Literal["agent", "model", "policy", "task"],
        typer.Option(help="What a row is: agent x policy, either alone, or a task."),
    ] = "agent",
    json: AsJson = False,
) -> int:
    """Compare finished runs; different conditions never share a table."""
    from harness.report import board_text, leaderboard
    from harness.runs.index import cache_file, entries

    found = entries(places or [RUNS_DIR], cache=cache_file())
    board = leaderboard.build(found, metric=metric, by=by)
    if json or format == "json":
        print_json(board)
    else:
        board_text.show(board, format)
    return 0
