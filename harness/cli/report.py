"""``harness report``: writes the HTML report. ``harness.report.html`` does the work."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import AsJson, guarded, print_json
from harness.cli.runs import RunPlaces, entries_at
from harness.report.html import page


@guarded
def command(
    places: RunPlaces = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = Path(
        "report.html"
    ),
    json: AsJson = False,
) -> int:
    """Write one HTML file that opens offline: curves, trees, sources, comparison, methods."""
    said = page.write(entries_at(places), out)
    if json:
        print_json(said)
        return 0
    for left in said["left_out"]:
        typer.echo(f"left out: {left['run']}: {left['why']}", err=True)
    for note in said["notes"]:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"{out}: {said['runs']} runs, {said['bytes'] / 1e6:.2f} MB; open it in a browser")
    return 0
