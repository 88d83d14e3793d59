"""``harness leaderboard``: compares finished runs. ``harness.report.leaderboard`` does the work."""

from typing import Annotated, Literal

import typer

from harness.base.errors import ConfigError
from harness.cli.common import AsJson, guarded, print_json
from harness.cli.runs import RunPlaces, entries_at
from harness.report import board_text, leaderboard
from harness.report.board import BoardMetric
from harness.report.samples import By


@guarded
def command(
    places: RunPlaces = None,
    format: Annotated[
        Literal["table", "md", "csv", "json", "latex", "html"], typer.Option(help="How to print.")
    ] = "table",
    metric: Annotated[
        BoardMetric,
        typer.Option(help="What cells show and rows are ordered by: docs/concepts/statistics.md."),
    ] = "score",
    by: Annotated[
        By,
        typer.Option(help="What a row is: agent x policy, either alone, or a task."),
    ] = "agent",
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="Which columns, in this order: agent,valid,median (csv: its own).",
        ),
    ] = None,
    json: AsJson = False,
) -> int:
    """Compare finished runs; different conditions never share a table."""
    found = entries_at(places)
    board = leaderboard.build(found, metric=metric, by=by)
    chosen = [name.strip() for name in (columns or "").split(",") if name.strip()]
    if json or format == "json":
        if columns is not None:
            raise ConfigError("--columns chooses of a table: JSON has all.", remedy="--format csv")
        print_json(board.as_json())
    else:
        board_text.show(board, format, chosen)
    return 0
