"""``harness new``: writes a skeleton submission, a copy of the task's first design."""

from pathlib import Path
from typing import Annotated

import typer

from harness.base.commands import command as hint
from harness.base.errors import ConfigError
from harness.base.files import write_whole
from harness.cli.common import TasksDir, guarded
from tasks.spec import find_task


@guarded
def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    task: Annotated[str, typer.Option(help="What it is for, e.g. lra/listops.")],
    profile: Annotated[str, typer.Option(help="Whose numbers the description gives.")] = "smoke",
    tasks_dir: TasksDir = None,
) -> None:
    """Write a working skeleton submission, with the task's description beside it."""
    chosen = find_task(task)
    chosen.profile(profile)
    designs = chosen.designs(profile)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not an empty folder.", remedy="another name")
    if not designs:
        raise ConfigError(f"Task {chosen.name} has no reference design to begin with.")
    design = designs[0]
    for name, text in design.files.items():
        write_whole(folder / name, text)
    write_whole(folder / "TASK.md", chosen.description(profile))
    typer.echo(
        f"{folder}/{', '.join(design.files)}  (a copy of the reference design {design.name})"
    )
    typer.echo(f"{folder}/TASK.md  (what is asked, and the interface)")
    typer.echo("next:")
    typer.echo("  " + hint("score", folder, task=chosen.name, profile=profile))
