"""``harness report``: writes the HTML report. ``harness.report.html`` does the work."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import RUNS_DIR, AsJson, guarded, print_json, run_path
from harness.report.html import page
from harness.store.index import cache_file, entries


@guarded
def command(
    places: Annotated[
        list[Path] | None, typer.Argument(help="Runs, or folders of runs (default: runs).")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = Path(
        "report.html"
    ),
    json: AsJson = False,
) -> int:
    """Write one HTML file that opens offline: curves, trees, sources, comparison, methods."""
    wanted = [run_path(place) for place in places or [RUNS_DIR]]
    said = page.write(entries(wanted, cache=cache_file()), out)
    if json:
        print_json(said)
        return 0
    for left in said["left_out"]:
        typer.echo(f"left out: {left['run']}: {left['why']}", err=True)
    for note in said["notes"]:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"{out}: {said['runs']} runs, {said['bytes'] / 1e6:.2f} MB; open it in a browser")
    return 0
