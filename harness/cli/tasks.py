"""``harness tasks``: lists, shows and tries tasks. ``tasks.spec`` finds them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from harness.base.errors import ConfigError
from harness.cli.common import AsJson, TasksDir, guarded, look_in, print_json
from harness.cli.score_screen import ScoreScreen
from harness.core.asked import Asked
from harness.launch.by_hand import ByHand
from harness.report.tasks import as_json, describe, in_list, render, render_one
from tasks.reading import FORMAT
from tasks.spec import Task, discover, find_task

app = typer.Typer(no_args_is_help=False)


@app.callback(invoke_without_command=True)
def command(context: typer.Context, tasks_dir: TasksDir = None, json: AsJson = False) -> None:
    """List the tasks, and what a guess scores; `harness tasks show NAME` says all of one.

    `harness tasks check DIR` tries one of your own.
    """
    if context.invoked_subcommand is None:
        _list(json=json)


@guarded
def _list(*, json: bool) -> int:
    tasks, broken = discover()
    if json:
        rows = [in_list(task) for task in tasks.values()]
        print_json({"format": 1, "tasks": rows, "broken": [as_json(one) for one in broken]})
    else:
        render(tasks.values(), broken)
    return 0


@app.command("show")
@guarded
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="For example lra/text.")],
    profile: Annotated[
        str | None,
        typer.Option(help="Print what an agent is told at this size: smoke, short, paper, test."),
    ] = None,
    tasks_dir: TasksDir = None,
    json: AsJson = False,
) -> int:
    """Say what one task is: data, chance and shortcuts, published values, limits by profile."""
    task = find_task(name)
    text = None if profile is None else task.description(profile)
    found = describe(task)  # first: it reads all the files, and names what is wrong with them
    if json:
        print_json({"format": 1, **found, "description": text})
    elif text is not None:
        typer.echo(text)
    else:
        render_one(task)
    return 0


@app.command("check")
@guarded
def check(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            exists=True,
            file_okay=False,
            callback=look_in,
            help="A folder with tasks of your own.",
        ),
    ],
    profile: Annotated[
        str | None, typer.Option(help="The size to try (default: test, or the first).")
    ] = None,
    json: AsJson = False,
) -> int:
    """Try the tasks of your own below DIR: their files, their data, and the first design's score.

    Exit 1 if a design has no score.
    """
    place = folder.resolve()
    tasks, broken = discover()
    for one in broken:
        if one.folder.resolve().is_relative_to(place):
            raise one.error
    mine = [task for task in tasks.values() if task.folder.resolve().is_relative_to(place)]
    if not mine:
        raise ConfigError(f"There is no task.toml below {folder}.", remedy=FORMAT)
    folders: dict[Path, Task] = {}
    for task in mine:
        for name in task.definition.profiles:
            task.check(name)
        folders.setdefault(task.folder, task)  # its variants share data, runner and designs
    found = [_try(task, profile) for task in folders.values()]
    if json:
        print_json({"format": 1, "tasks": found})
    for tried in [] if json else found:
        what = f"{tried['task']}, profile {tried['profile']}, design {tried['design']}"
        if tried["valid"]:
            typer.echo(f"{what}: {tried['score']:.4f}")
        else:
            typer.echo(f"{what}: no score, {tried['reason']}: {tried['message']}")
            typer.echo("  that is the task's to mend: in the design, the runner or the settings")
    return 0 if all(tried["valid"] for tried in found) else 1


def _try(task: Task, profile: str | None) -> dict[str, Any]:
    """Prepare a task's data, and score its first design."""
    profiles = task.definition.profiles
    chosen = profile or ("test" if "test" in profiles else next(iter(profiles)))
    design = next(iter(task.designs(chosen)), None)
    if design is None:
        raise ConfigError(f"Task {task.name} has no designs to try.", remedy=FORMAT)
    with (
        ScoreScreen() as screen,
        ByHand(Asked(task=task.name, profile=chosen), screen) as bench,
    ):
        score = bench.score(design.files)
    return {
        "task": task.name,
        "profile": chosen,
        "design": design.name,
        **score.model_dump(mode="json", include={"valid", "score", "reason", "message"}),
    }
