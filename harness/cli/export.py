"""``harness export``: writes runs for other tools. ``harness.report.export`` does the work."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.base.errors import ConfigError
from harness.cli.common import AsJson, guarded, print_json
from harness.cli.runs import RunPlaces, entries_at
from harness.report.export.inspect_log import as_inspect
from harness.report.export.rows import as_parquet


@guarded
def command(
    places: RunPlaces = None,
    to: Annotated[
        Literal["inspect", "parquet"],
        typer.Option(help="A log a run for Inspect's viewer, or one table, a row a node."),
    ] = "parquet",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A folder (inspect) or a file (default: nodes.parquet)."),
    ] = None,
    json: AsJson = False,
) -> int:
    """Write runs in formats that other tools read."""
    found = entries_at(places)
    paths = [Path(e.path) for e in found if e.asked is not None]
    skipped = {e.path: e.problem for e in found if e.asked is None}
    if not paths:
        raise ConfigError("There is no run to export.", remedy="harness ls")
    if to == "inspect":
        place = out or Path("logs")
        files, damaged = as_inspect(paths, place)
        said = f"{place}: {len(files)} logs; inspect view --log-dir {place}"
    else:
        place = out or Path("nodes.parquet")
        files = [place]
        count, damaged = as_parquet(paths, place)
        said = f"{place}: {count} nodes of {len(paths) - len(damaged)} runs"
    skipped |= damaged
    if json:
        print_json({"format": 1, "to": to, "files": [str(f) for f in files], "skipped": skipped})
        return 0
    for path, why in skipped.items():
        typer.echo(f"skipped: {path}: {why}", err=True)
    typer.echo(said)
    return 0
