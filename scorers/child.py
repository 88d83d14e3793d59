"""Starts a process of our own that the judge talks to by its pipes, and reads its last words."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

LAST_WORDS = 2000
"""How many bytes of a process's errors are read at most."""


def start(
    *program: str, env: Mapping[str, str], errors: IO[bytes], pass_fds: Sequence[int] = ()
) -> "subprocess.Popen[bytes]":
    """Start Python with ``program`` (-m, a module of ours, arguments); return the process.

    The module is found as in this process. ``errors``: an open file for its stderr.
    """
    paths = [env.get("PYTHONPATH", ""), str(Path(__file__).parents[1])]
    return subprocess.Popen(
        [sys.executable, "-P", *program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env={**env, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        pass_fds=pass_fds,
        bufsize=0,
        start_new_session=True,  # only the judge handles Ctrl-C
    )


def last_words(errors: IO[bytes]) -> str:
    """Return the end of what a process wrote to its stderr."""
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - LAST_WORDS))
    return errors.read().decode(errors="replace").strip()
