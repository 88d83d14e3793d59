"""The outermost layer of the program: exceptions become messages on stderr and exit codes."""

import os
import select
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TextIO, TypeVar

from harness.base import faults
from harness.base.errors import Cancelled, ConfigError, HarnessError, InfrastructureError

T = TypeVar("T")

INTERRUPTED, UNFORESEEN = 130, 70


def run_and_report(work: Callable[[], int | None]) -> int:
    """Call ``work`` and return the exit code. No exception leaves this function."""
    try:
        code = work() or 0
        sys.stdout.flush()
    except HarnessError as error:
        code = _print_error(error)
    except KeyboardInterrupt:
        _say("\nInterrupted.\n")
        code = INTERRUPTED
    except SystemExit as error:
        # Typer ends so. Typer and rich also raise it, with 1, if the reader of a pipe is gone.
        ended = error.__context__
        code = 0 if isinstance(ended, BrokenPipeError) else int(error.code or 0)
        if ended and isinstance(ended.__cause__, KeyboardInterrupt):  # Ctrl-C outside a command
            _say("\nInterrupted.\n")
    except OSError as error:
        code = _refused(error)
    except MemoryError:
        code = _print_error(InfrastructureError("There is no memory left.", remedy="free some"))
    except Exception as error:  # noqa: BLE001 (the outermost layer)
        clear = _odd_input(error)
        code = _print_error(clear, details=True) if clear else _unforeseen(error)
    for stream in (sys.stdout, sys.stderr):
        if not _flushed(stream):  # else the interpreter flushes at exit and complains
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code


def _refused(error: OSError) -> int:
    if isinstance(error, BrokenPipeError) and _reader_is_gone():
        return 0  # for example, head or less has ended
    # An error that its errno does not explain may be a bug.
    return _print_error(faults.explain(error), details=not faults.known(error))


def _odd_input(error: Exception) -> ConfigError | None:
    """Return what to say if the error means that a text or path that was given cannot be used."""
    if isinstance(error, UnicodeError):
        return ConfigError("A name or a text that was read is not UTF-8.", cause=str(error))
    # Arguments cannot hold a NUL; a path in a file can, and Python refuses it with these words.
    if isinstance(error, ValueError) and str(error).startswith("embedded null"):
        remedy = "look for \\u0000 in the file that was named"
        return ConfigError("A path holds a NUL character.", remedy=remedy)
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # Path.resolve
        return ConfigError("Links lead in a circle.", cause=str(error), remedy="ls -l shows where")
    return None


def _unforeseen(error: Exception) -> int:
    _say(
        f"error: something unforeseen happened: {type(error).__name__}: {error}\n"
        f"  The details are in {_crash_file()}; please report it.\n"
        "  Nothing that was finished is lost: harness ls, harness resume RUN\n"
    )
    return UNFORESEEN


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


def _print_error(error: HarnessError, *, details: bool = False) -> int:
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


def each(paths: Iterable[Path], work: Callable[[Path], T]) -> tuple[dict[Path, T], list[int]]:
    """Return the result of ``work`` for each path, and the exit codes of the failed paths.

    A failure is printed and does not stop the others.
    """
    results: dict[Path, T] = {}
    failures: list[int] = []
    for path in paths:
        try:
            results[path] = work(path)
        except HarnessError as error:
            failures.append(_print_error(error))
        except OSError as error:
            failures.append(_print_error(faults.explain(error)))
    return results, failures


def _say(text: str) -> None:
    with suppress(OSError, ValueError):  # stderr is gone: the exit code remains
        sys.stderr.write(text)
        sys.stderr.flush()


def _crash_file() -> str:
    try:
        handle, name = tempfile.mkstemp(prefix="harness-crash-", suffix=".txt")
        with os.fdopen(handle, "w", errors="backslashreplace") as file:
            file.write(f"{sys.argv}\n{sys.version}\n\n{traceback.format_exc()}")
    except OSError as error:
        return f"no file, for none could be written: {error}"
    return name
