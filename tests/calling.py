"""Calls ``harness`` commands for tests: ``call`` in this process, ``start`` in another."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

from harness.base.commands import remember_tasks_dir
from harness.cli.app import app
from harness.cli.edge import run_and_report

HARNESS = [sys.executable, "-m", "harness"]

Done = subprocess.CompletedProcess[str]


def call(*arguments: object, cwd: Path = Path(), code: int | None = 0) -> Done:
    """Call a command in this process: faster than ``start``. Then undo its changes to the process.

    ``code``: the exit code that it must have; None allows every exit code.
    """
    argv = [str(argument) for argument in arguments]
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        mock.patch.dict(os.environ),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        found = run_and_report(lambda: app(argv))
    remember_tasks_dir(None)
    return _checked(subprocess.CompletedProcess(argv, found, out.getvalue(), err.getvalue()), code)


def start(*arguments: object, cwd: Path, code: int | None = 0) -> Done:
    """Run a command in a process of its own, as a user's shell does."""
    done = subprocess.run(
        [*HARNESS, *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, timeout=200, check=False,
    )  # fmt: skip
    return _checked(done, code)


def _checked(done: Done, code: int | None) -> Done:
    assert code in (None, done.returncode), done.stderr + done.stdout
    # Only the traceback of a submission may be shown; it begins in the submission's runner.
    assert "most recent call last" not in done.stderr or "/runner/" in done.stderr
    return done
