"""harness gc"""

import re
from typing import Annotated

import typer

from harness.cli.common import RUNS_DIR, AsJson, RunsDir, guarded, print_json


@guarded
def command(
    runs_beyond: Annotated[
        str | None, typer.Option(help="Delete the oldest runs beyond this size, e.g. 10GB.")
    ] = None,
    runs_dir: RunsDir = RUNS_DIR,
    yes: Annotated[bool, typer.Option("--yes", help="Delete runs without asking.")] = False,
    json: AsJson = False,
) -> int:
    """Remove what dead processes left: sandboxes, scratch; on request old runs."""
    import shutil

    from harness.runs.garbage import beyond, collect
    from harness.runs.rundir import find_runs

    limit = None if runs_beyond is None else _bytes(runs_beyond)
    removed = collect()
    if limit is not None:
        doomed = beyond(find_runs([runs_dir]), limit)
        for path, size in doomed:
            typer.echo(f"{path}  {size / 1e6:.1f} MB", err=True)
        if doomed and (yes or typer.confirm(f"Delete these {len(doomed)} runs?", err=True)):
            for path, _ in doomed:
                shutil.rmtree(path)
                removed.append(str(path))
    if json:
        print_json({"format": 1, "removed": removed})
    else:
        for line in removed:
            typer.echo(f"removed {line}")
        typer.echo(f"{len(removed)} things removed" if removed else "nothing to remove")
    return 0


def _bytes(text: str) -> int:
    from harness.errors import ConfigError

    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip().upper())
    if not match:
        raise ConfigError(f"{text!r} is not a size.", remedy="for example 500MB, 10GB")
    return int(float(match[1]) * 1000 ** " KMGT".index(match[2] or " "))
