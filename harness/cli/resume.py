"""``harness resume``: continues a run. ``harness.launch.run`` does the work."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import AsJson, TasksDir, guarded, run_path
from harness.cli.run import report
from harness.cli.screen import Screen
from harness.launch.run import resume


@guarded
def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    tasks_dir: TasksDir = None,
    json: AsJson = False,
) -> int:
    """Take an interrupted run to its end; nothing that was finished is done again."""
    with Screen() as screen:
        result = resume(run_path(run), progress=screen.progress, observe=screen.observe)
    return report(result, as_json=json)
