"""``harness rescore``: scores a node again. ``harness.launch.rescore`` does the work."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import AsJson, TasksDir, guarded, print_json, run_path
from harness.cli.names import SANDBOXES, one_of
from harness.cli.score_screen import ScoreScreen
from harness.launch.rescore import rescore
from harness.report.summary import describe
from scorers.conditions import differing


@guarded
def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    node: Annotated[
        int | None, typer.Option(help="A node, on the search split (default: the final one, test).")
    ] = None,
    sandbox: Annotated[
        str | None,
        one_of(SANDBOXES, help="Where its code may run (default: where it ran, if that isolates)."),
    ] = None,
    tasks_dir: TasksDir = None,
    json: AsJson = False,
) -> int:
    """Score the same files with the same seed under today's judge, beside the old score."""
    with ScoreScreen() as screen:
        old, new, file = rescore(run_path(run), node, screen, sandbox=sandbox)
    changed = differing(old.conditions.key, new.conditions.key)
    if json:
        print_json(
            {
                "format": 1,
                "run": str(run),
                "node": node,
                "file": str(file),
                "old": old.model_dump(mode="json"),
                "new": new.model_dump(mode="json"),
                "same_conditions": not changed,
            }
        )
    else:
        typer.echo(f"then: {describe(old).splitlines()[0]}")
        typer.echo(f"now:  {describe(new)}")
        if changed:
            typer.echo(f"  the two do not compare: another {', '.join(changed)}")
        typer.echo(f"kept: {file}")
    return 0 if new.valid else 1
