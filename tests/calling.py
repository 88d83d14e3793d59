"""Calls ``harness`` commands for tests: ``call`` in this process, ``start`` in another."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from harness.base.commands import remember_tasks_dir
from harness.cli.app import app
from harness.cli.edge import run_and_report

HARNESS = [sys.executable, "-m", "harness"]


class Done(subprocess.CompletedProcess[str]):
    """A command that has ended: its exit code, and what it printed."""

    @property
    def said(self) -> str:
        """Both streams, stdout first."""
        return self.stdout + self.stderr

    @property
    def json(self) -> Any:
        """The value of the JSON on stdout."""
        return json.loads(self.stdout)


def call(
    *arguments: object, cwd: Path | None = None, code: int | None = 0, **environ: str | None
) -> Done:
    """Call a command in this process: faster than ``start``. Then undo its changes to the process.

    ``code``: the exit code that it must have; None allows every exit code. ``environ``: variables
    of its environment; None removes one.
    """
    argv = [str(argument) for argument in arguments]
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd or Path()),
        mock.patch.dict(os.environ, {k: v for k, v in environ.items() if v is not None}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        for name in (name for name, value in environ.items() if value is None):
            os.environ.pop(name, None)
        found = run_and_report(lambda: app(argv))
    remember_tasks_dir(None)
    return _checked(Done(argv, found, out.getvalue(), err.getvalue()), code)


def start(
    *arguments: object,
    cwd: Path,
    code: int | None = 0,
    how: Sequence[str] = HARNESS,
    **environ: str,
) -> Done:
    """Run a command in a process of its own, as a user's shell does.

    ``how``: another program that takes the command's arguments.
    """
    done = subprocess.run(
        [*how, *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, env={**os.environ, **environ}, timeout=200,
        check=False,
    )  # fmt: skip
    return _checked(Done(done.args, done.returncode, done.stdout, done.stderr), code)


def _checked(done: Done, code: int | None) -> Done:
    assert code in (None, done.returncode), done.said
    # Only the traceback of a submission may be shown; it begins in the submission's runner.
    assert "most recent call last" not in done.stderr or "/runner/" in done.stderr
    return done
