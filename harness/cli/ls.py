"""``harness ls``: lists runs. ``harness.report.listing`` does the work."""

from harness.cli.common import RUNS_DIR, AsJson, guarded, print_json
from harness.cli.runs import RunPlaces
from harness.report.listing import as_json, listing, render
from harness.store.places import find_runs


@guarded
def command(
    places: RunPlaces = None,
    json: AsJson = False,
) -> int:
    """List runs: their state and their scores."""
    here = places or [p for p in (RUNS_DIR,) if p.exists()]
    runs = listing(find_runs(here))
    if json:
        print_json({"format": 1, "runs": [as_json(run) for run in runs]})
    else:
        render(runs)
    return 0
