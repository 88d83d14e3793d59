"""``harness verify``: checks a bundle. ``harness.report.bundle.verify`` does the work."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from harness.cli.common import AsJson, TasksDir, guarded, print_json
from harness.cli.names import one_of
from harness.cli.score_screen import ScoreScreen
from harness.launch.rescore import rescore as score_again
from harness.report.bundle.verify import as_json, describe, verify
from sandboxes.registry import AUTO, BACKENDS
from scorers.score import Score

ISOLATING = [AUTO, *(name for name, backend in BACKENDS.usable().items() if backend.isolates)]
CODES = {"agrees": 0, "not scored again": 0, "differs": 1, "cannot tell": 5}


@guarded
def command(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="A bundle that anybody made.")],
    rescore: Annotated[
        bool, typer.Option(help="Train and score the final node again on this machine.")
    ] = True,
    sandbox: Annotated[str, one_of(ISOLATING, help="Where its code may run.")] = "auto",
    tolerance: Annotated[
        float | None,
        typer.Option(min=0.0, help="Largest difference that agrees (default: 1.96 of its errors)."),
    ] = None,
    tasks_dir: TasksDir = None,
    json: AsJson = False,
) -> int:
    """Check every hash of a bundle, and whether its score can be had again."""
    # The result is printed even if the folder cannot be removed.
    with TemporaryDirectory(prefix="harness-verify-", ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        if rescore:
            with ScoreScreen() as screen:

                def again(run: Path) -> tuple[Score, Score]:
                    old, new, _ = score_again(run, None, screen, sandbox=sandbox)
                    return old, new

                check = verify(archive, place, rescore=again, tolerance=tolerance)
        else:
            check = verify(archive, place, rescore=None)
    if json:
        print_json(as_json(check))
    else:
        typer.echo(describe(check))
    return CODES[check.verdict]
