"""What every command needs: errors into words and exit codes, results onto stdout."""

import functools
import json
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec

import typer

from harness.errors import Cancelled, ConfigError, HarnessError

P = ParamSpec("P")

INTERRUPTED, UNFORESEEN, NO = 130, 70, 1

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
ByteCounts = Annotated[
    Literal["exact", "public"] | None,
    typer.Option(
        help="What a token that is a piece of a character counts for: its bytes, or 3 as in the "
        "public task (default: the profile's)."
    ),
]
Across = Annotated[
    list[str] | None,
    typer.Option(help="A condition that may differ (hardware, torch, scorer …); repeatable."),
]
RUNS_DIR = Path("runs")

SOURCES = ("bundled", "climbmix", "generated", "imdb", "lra", "cifar10", "fashion-mnist")
"""What --data takes by name; a folder that is called so is meant by ./NAME."""


def look_in(folder: Path | None) -> Path | None:
    """Have a folder's tasks known from here on."""
    # By the environment, so that the processes that a sweep starts look there, too.
    if folder is not None:
        os.environ["HARNESS_TASKS_DIR"] = str(folder.expanduser().resolve())
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
        help="A folder with tasks of your own (docs/tasks-own.md).",
    ),
]


def guarded(command: Callable[P, int | None]) -> Callable[P, None]:
    """Turn a command's exceptions into one message on stderr and the documented exit code."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = command(*args, **kwargs) or 0
        except HarnessError as error:
            complain(error)
            code = error.exit_code
        except KeyboardInterrupt:
            sys.stderr.write("\nInterrupted.\n")
            code = INTERRUPTED
        except BrokenPipeError:
            # The reader (head, less) has seen enough; keep the interpreter from saying so.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        except Exception as error:  # noqa: BLE001 (the edge of the program)
            code = UNFORESEEN
            sys.stderr.write(
                f"error: something unforeseen happened: {type(error).__name__}: {error}\n"
                f"  The details are in {_crash_file()}; please report it.\n"
                "  Nothing that was finished is lost: harness ls, harness resume RUN\n"
            )
        raise typer.Exit(code)

    return wrapper


def complain(error: HarnessError) -> None:
    """Print what happened, why, and what to do, on stderr."""
    prefix = "" if isinstance(error, Cancelled) else "error: "
    sys.stderr.write(f"{prefix}{error.message}\n")
    if error.cause:
        cause = error.cause.strip().replace("\n", "\n         ")
        sys.stderr.write(f"  cause: {cause}\n")
    if error.remedy:
        sys.stderr.write(f"  try:   {error.remedy}\n")


def chosen_data(data: str | None, byte_counts: str | None) -> dict[str, str]:
    """Return what the options replace in a profile's data; a folder becomes absolute."""
    chosen = {}
    if data is not None:
        known = data in SOURCES
        chosen["source"] = data if known else str(Path(data).expanduser().resolve())
    if byte_counts is not None:
        chosen["byte_counts"] = byte_counts
    return chosen


def checked_across(names: list[str] | None) -> frozenset[str]:
    """Return the conditions that may differ. Raises ConfigError for one that there is not."""
    from harness.report.comparison import CONDITIONS
    from tasks.spec import did_you_mean

    for name in names or ():
        if name not in CONDITIONS:
            raise ConfigError(
                f"Scores have no condition {name!r}.", remedy=did_you_mean(name, list(CONDITIONS))
            )
    return frozenset(names or ())


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on stdout."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    sys.stdout.flush()


def parse_duration(text: str) -> float:
    """Return seconds of ``90``, ``90s``, ``15m``, ``24h`` or ``2d``. Raises ConfigError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if not match or float(match[1]) <= 0:
        raise ConfigError(f"{text!r} is not a duration.", remedy="for example 90s, 15m, 24h, 2d")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def show_duration(seconds: float) -> str:
    """Return ``m:ss`` or ``h:mm:ss``."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def _crash_file() -> Path:
    handle, name = tempfile.mkstemp(prefix="harness-crash-", suffix=".txt")
    with os.fdopen(handle, "w") as file:
        file.write(f"{sys.argv}\n{sys.version}\n\n{traceback.format_exc()}")
    return Path(name)
