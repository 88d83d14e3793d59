"""harness leaderboard"""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import RUNS_DIR, AsJson, guarded, print_json


@guarded
def command(
    places: Annotated[
        list[Path] | None, typer.Argument(help="Runs, or folders of runs [default: runs].")
    ] = None,
    json: AsJson = False,
) -> int:
    """Compare finished runs; different conditions never share a table."""
    from harness.report import leaderboard
    from harness.runs.rundir import find_runs

    board = leaderboard.build(find_runs(places or [RUNS_DIR]))
    if json:
        print_json(board)
    else:
        leaderboard.render(board)
    return 0
