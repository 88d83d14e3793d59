"""``harness baseline``: prints a baseline as JSON. ``harness.report.gate`` makes it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness import __version__
from harness.cli.common import guarded
from harness.cli.runs import entries_at
from harness.report import gate


@guarded
def command(
    places: Annotated[list[Path], typer.Argument(metavar="RUNS", help="Runs, or folders of runs.")],
) -> int:
    """Print what `harness check` compares to: the scores of finished runs, as JSON."""
    baseline, said = gate.make_baseline(entries_at(places), __version__)
    sys.stdout.write(gate.baseline_text(baseline))
    for line in said:
        typer.echo(line, err=True)
    return 0
