"""``harness compare``: compares two sides. ``harness.report.comparison`` does the tests."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import RUNS_DIR, AsJson, guarded, print_json
from harness.cli.runs import Across, checked_across
from harness.report import comparison, comparison_text
from harness.store.index import cache_file

CANNOT_TELL = 5


@guarded
def command(
    a: Annotated[
        str, typer.Argument(metavar="A", help="A folder of runs, an agent, a policy, AGENT/POLICY.")
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The same for the other side.")],
    runs: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUNS", help="Where names are looked up (default: runs)."),
    ] = None,
    across: Across = None,
    json: AsJson = False,
) -> int:
    """Compare two agents, policies or sets of runs: paired where seeds and tasks match."""
    allowed = checked_across(across)
    places = runs or [p for p in (RUNS_DIR,) if p.exists()]
    sides = [comparison.chosen(text, places, cache_file()) for text in (a, b)]
    found = comparison.compare(sides[0], sides[1], (a, b), allowed)
    if json:
        print_json(comparison.as_json(found))
    else:
        typer.echo(comparison_text.text_of(found))
    return 0 if found.tasks else CANNOT_TELL
