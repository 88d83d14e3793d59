"""A separate Python process that answers questions: a line of JSON for each line of JSON.

For work on what a stranger wrote, which can crash a parser, hang it or fill its memory.
"""

import contextlib
import json
import os
import resource
import select
import subprocess
import sys
import threading
import time
from typing import Any


class AnsweringProcess:
    """Starts with the first question, and anew after one that it did not survive.

    ``program``: a file, or ``-c`` and a text; it reads stdin and writes stdout, and has the
    standard library only. ``timeout_s``: for one answer. ``most_bytes``: of memory. Thread-safe:
    threads take turns.
    """

    def __init__(self, *program: str, timeout_s: float, most_bytes: int | None = None) -> None:
        self._argv = [sys.executable, "-I", "-S", "-W", "ignore", *program]
        self._timeout_s = timeout_s
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, question: object) -> Any:  # noqa: ANN401 (JSON values)
        """Return the answer. Raises OSError, ValueError if the process died or was too slow."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._end()
                self._process = self._start()
            try:
                return json.loads(self._exchange(self._process, json.dumps(question)))
            except BaseException:
                self._end()
                raise

    def close(self) -> None:
        """End the process; the next question starts another. Idempotent."""
        with self._lock:
            self._end()

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            self._argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C does not reach it; it ends with our pipe
        )
        if self._most_bytes is not None:
            limits = (self._most_bytes, self._most_bytes)
            with contextlib.suppress(OSError, ValueError):  # if refused, the time limit holds
                resource.prlimit(process.pid, resource.RLIMIT_AS, limits)
        return process

    def _exchange(self, process: subprocess.Popen[bytes], line: str) -> bytes:
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        process.stdin.write(line.encode() + b"\n")
        process.stdin.flush()
        answer, deadline = b"", time.monotonic() + self._timeout_s
        while not answer.endswith(b"\n"):
            poll = select.poll()  # select() cannot take descriptors above 1023
            poll.register(process.stdout, select.POLLIN)
            ready = poll.poll(1000 * max(0.0, deadline - time.monotonic()))
            piece = os.read(process.stdout.fileno(), 1 << 16) if ready else b""
            if not piece:
                raise ValueError("no answer")
            answer += piece
        return answer

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # unsent data in the pipe
                    pipe.close()
