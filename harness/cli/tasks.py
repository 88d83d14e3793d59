"""harness tasks"""

from typing import Annotated

import typer

from harness.cli.common import AsJson, TasksDir, guarded, print_json

app = typer.Typer(no_args_is_help=False)


@app.callback(invoke_without_command=True)
def command(context: typer.Context, tasks_dir: TasksDir = None, json: AsJson = False) -> None:
    """List the tasks, and what a guess scores; `harness tasks show NAME` says all of one."""
    if context.invoked_subcommand is None:
        _list(json=json)


@guarded
def _list(*, json: bool) -> int:
    from harness.report.tasks import listing, render
    from tasks.spec import all_tasks

    rows = listing(all_tasks().values())
    if json:
        print_json({"format": 1, "tasks": rows})
    else:
        render(rows)
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
    from harness.report.tasks import describe, render_one
    from tasks.spec import find_task

    task = find_task(name)
    text = None if profile is None else task.description(profile)
    found = describe(task)
    if json:
        print_json({"format": 1, **found, "description": text})
    elif text is not None:
        typer.echo(text)
    else:
        render_one(found)
    return 0
