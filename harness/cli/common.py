"""What every command needs: errors into words and exit codes, results onto stdout."""

import functools
import json
import os
import re
import select
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, TextIO

import typer

from harness import faults
from harness.commands import remember_tasks_dir
from harness.errors import Cancelled, ConfigError, HarnessError, InfrastructureError

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


def look_in(context: typer.Context, folder: Path | None) -> Path | None:
    """Have a folder's tasks known from here on."""
    # By the environment, so that the processes that a sweep starts look there, too.
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
        help="A folder with tasks of your own (docs/tasks-own.md).",
    ),
]


def guarded(command: Callable[P, int | None]) -> Callable[P, None]:
    """Turn a command's exceptions into one message on stderr and the documented exit code."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        raise typer.Exit(settle(lambda: command(*args, **kwargs)))

    return wrapper


def settle(work: Callable[[], int | None]) -> int:
    """Do it and return its exit code: the edge of the program, which no exception crosses."""
    try:
        code = work() or 0
        sys.stdout.flush()
    except HarnessError as error:
        code = complain(error)
    except KeyboardInterrupt:
        _say("\nInterrupted.\n")
        code = INTERRUPTED
    except SystemExit as error:
        # How Typer ends; and it and rich, with a 1, where the reader of a pipe is gone.
        code = 0 if isinstance(error.__context__, BrokenPipeError) else int(error.code or 0)
    except OSError as error:
        code = _refused(error)
    except MemoryError:
        code = complain(InfrastructureError("There is no memory left.", remedy="free some"))
    except UnicodeError as error:
        told = ConfigError("A name or a text that was read is not UTF-8.", cause=str(error))
        code = complain(told, details=True)
    except Exception as error:  # noqa: BLE001 (the edge of the program)
        code = UNFORESEEN
        _say(
            f"error: something unforeseen happened: {type(error).__name__}: {error}\n"
            f"  The details are in {_crash_file()}; please report it.\n"
            "  Nothing that was finished is lost: harness ls, harness resume RUN\n"
        )
    for stream in (sys.stdout, sys.stderr):
        if not _flushed(stream):  # or the interpreter tries again when it ends, and complains
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code


def _refused(error: OSError) -> int:
    if isinstance(error, BrokenPipeError) and _reader_is_gone():
        return 0  # head or less has seen enough
    # One that its number does not explain may be a bug.
    return complain(faults.explain(error), details=not faults.known(error))


def _reader_is_gone() -> bool:
    pipes = select.poll()
    for descriptor in (1, 2):
        pipes.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in pipes.poll(0))


def _flushed(stream: TextIO) -> bool:
    try:
        stream.flush()
    except (OSError, ValueError):
        return False
    return True


def complain(error: HarnessError, *, details: bool = False) -> int:
    """Print what happened, why, and what to do, on stderr; return the exit code."""
    said = f"{'' if isinstance(error, Cancelled) else 'error: '}{error.message}\n"
    if error.cause:
        cause = error.cause.strip().replace("\n", "\n         ")
        said += f"  cause: {cause}\n"
    if error.remedy:
        said += f"  try:   {error.remedy}\n"
    if details:
        said += f"  The details are in {_crash_file()}\n"
    _say(said)
    return error.exit_code


def _say(text: str) -> None:
    with suppress(OSError, ValueError):  # nobody listens: the exit code still tells
        sys.stderr.write(text)
        sys.stderr.flush()


def absolute(path: Path) -> Path:
    """Return the path from the root. Unlike pathlib's own it takes any, and raises nothing."""
    return Path(os.path.realpath(os.path.expanduser(path)))  # noqa: PTH111


def chosen_data(data: str | None, byte_counts: str | None) -> dict[str, str]:
    """Return what the options replace in a profile's data; a folder becomes absolute."""
    chosen = {}
    if data is not None:
        known = data in SOURCES
        chosen["source"] = data if known else str(absolute(Path(data)))
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
    match = re.fullmatch(r"(\d{1,12}(?:\.\d+)?)([smhd]?)", text.strip())
    if not match or float(match[1]) <= 0:
        raise ConfigError(f"{text!r} is not a duration.", remedy="for example 90s, 15m, 24h, 2d")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def show_duration(seconds: float) -> str:
    """Return ``m:ss`` or ``h:mm:ss``."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def _crash_file() -> str:
    try:
        handle, name = tempfile.mkstemp(prefix="harness-crash-", suffix=".txt")
        with os.fdopen(handle, "w", errors="backslashreplace") as file:
            file.write(f"{sys.argv}\n{sys.version}\n\n{traceback.format_exc()}")
    except OSError as error:
        return f"no file, for none could be written: {error}"
    return name
