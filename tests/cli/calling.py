"""One command: in this process, from the edge of the program on, or in a process of its own."""

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


def call(*arguments: object, cwd: Path, code: int | None = 0) -> Done:
    """Call a command here, which costs no start; what it changes of this process is put back.

    ``code``: the exit code that it must have; None where that is the test's affair.
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
    """Run a command as a user's shell does."""
    done = subprocess.run(
        [*HARNESS, *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, timeout=200, check=False,
    )  # fmt: skip
    return _checked(done, code)


def _checked(done: Done, code: int | None) -> Done:
    assert code in (None, done.returncode), done.stderr + done.stdout
    # That of a submission is shown, and begins in its runner.
    assert "most recent call last" not in done.stderr or "/runner/" in done.stderr
    return done
