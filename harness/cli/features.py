"""``harness features``: prints gains by kind of change, from ``harness.report.features``."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import AsJson, guarded, print_json
from harness.cli.runs import RunPlaces, entries_at
from harness.report.features import report


@guarded
def command(
    places: RunPlaces = None,
    each: Annotated[
        bool, typer.Option("--each", help="A row for each constant and call, not each kind.")
    ] = False,
    json: AsJson = False,
) -> int:
    """Tell which kinds of change made scores better, step by step."""
    found = entries_at(places)
    tables, skipped = report.build(Path(e.path) for e in found if e.asked and not e.is_replay)
    skipped |= {e.path: e.problem for e in found if e.asked is None}
    if json:
        print_json(report.as_json(tables, skipped))
    else:
        report.show(tables, skipped, each=each)
    return 0 if any(table.steps for table in tables) else 1
