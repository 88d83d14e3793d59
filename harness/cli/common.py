"""What several commands share: options, paths, and JSON results on stdout."""

import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer

from harness.base.commands import remember_tasks_dir
from harness.cli.edge import run_and_report
from tasks.spec import Task

P = ParamSpec("P")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
RunsDir = Annotated[Path, typer.Option(help="Where run directories are kept.")]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="SOURCE|DIR",
        help="Where the data come from: a source that the task knows, or a folder with a copy "
        "(default: the profile's).",
    ),
]
ByteCountsOption = Annotated[
    str | None,
    typer.Option(
        metavar="exact|public",
        help="What a token that is a piece of a character counts for: its bytes, or 3 as in the "
        "public task (default: the profile's).",
    ),
]
AgentsFile = Annotated[
    Path | None,
    typer.Option(
        "--agents-file",
        envvar="HARNESS_AGENTS",
        help="A table of your own models and prices, over ours.",
    ),
]
RUNS_DIR = Path("runs")


def look_in(context: typer.Context, folder: Path | None) -> Path | None:
    """Make the tasks of a folder known to this process and to its children."""
    # Through the environment, so that the processes that a sweep starts look there, too.
    if folder is not None:
        typed = context.get_parameter_source("tasks_dir")
        if typed is not None and typed.name == "COMMANDLINE":
            remember_tasks_dir(folder)
        os.environ["HARNESS_TASKS_DIR"] = str(absolute(folder))
    return folder


TasksDir = Annotated[
    Path | None,
    typer.Option(
        "--tasks-dir",
        metavar="DIR",
        envvar="HARNESS_TASKS_DIR",
        exists=True,
        file_okay=False,
        callback=look_in,
        help="A folder with tasks of your own (docs/guides/tasks-own.md).",
    ),
]


def guarded(command: Callable[P, int | None]) -> Callable[P, None]:
    """Turn a command's exceptions into one message on stderr and the documented exit code."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        raise typer.Exit(run_and_report(lambda: command(*args, **kwargs)))

    return wrapper


def absolute(path: Path) -> Path:
    """Return the absolute path without links. No error for link loops or an unknown ~user."""
    return Path(os.path.realpath(os.path.expanduser(path)))  # noqa: PTH111


def run_path(text: Path) -> Path:
    """Return the path of a run that is given by its path or by its bare name under runs/."""
    return text if text.exists() or len(text.parts) > 1 else RUNS_DIR / text


def chosen_data(
    task: Task, data: str | None, byte_counts: str | None, *, beside: Path = Path()
) -> dict[str, str]:
    """Return the values that override a profile's data settings; a folder becomes absolute.

    ``beside`` is the folder that a relative path starts from. Write ./NAME for a folder whose name
    is also a source of the task.
    """
    chosen = {}
    if data is not None:
        chosen["source"] = data if data in task.sources else str(absolute(beside / data))
    if byte_counts is not None:
        chosen["byte_counts"] = byte_counts
    return chosen


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on stdout."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    sys.stdout.flush()
