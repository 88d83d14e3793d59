"""harness ls"""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import RUNS_DIR, AsJson, guarded, print_json
from harness.report.listing import listing, render
from harness.store.rundir import find_runs


@guarded
def command(
    places: Annotated[
        list[Path] | None, typer.Argument(help="Runs, or folders of runs (default: runs).")
    ] = None,
    json: AsJson = False,
) -> int:
    """List runs: their state and their scores."""
    here = places or [p for p in (RUNS_DIR,) if p.exists()]
    rows = listing(find_runs(here))
    if json:
        print_json({"format": 1, "runs": rows})
    else:
        render(rows)
    return 0
