"""Repeats work in child processes that a test may kill; its imports are paid for only once.

A driver script does the imports and ends with ``serve(work)``. Each child that it forks to do the
work is a "life". The test begins and kills the lives:

    with Lives("calls_driver.py", …) as lives:
        lives.begin()
        …
        lives.kill()
        assert lives.end() == 0
"""

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Self


def serve(work: Callable[[], None]) -> None:
    """For each line on stdin, fork a child to do the work; print its process id and exit code."""
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            code = 1
            try:
                work()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


class Lives:
    """A running driver script of this folder, and its current child process."""

    def __init__(self, driver: str, *arguments: object) -> None:
        self._driver = subprocess.Popen(
            [sys.executable, Path(__file__).with_name(driver), *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._driver:
            os.killpg(self._driver.pid, signal.SIGKILL)  # a child that still lives, too

    def begin(self) -> None:
        self._driver.stdin.write("\n")
        self._driver.stdin.flush()
        self._life = int(self._driver.stdout.readline())

    def kill(self) -> None:
        os.kill(self._life, signal.SIGKILL)
        assert self.end() == -signal.SIGKILL

    def end(self) -> int:
        """Wait for the child to end; return its exit code."""
        return int(self._driver.stdout.readline())
