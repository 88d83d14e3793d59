"""Whether Python files compile: asked of another process.

Deep nesting can overflow the parser's stack (how deep depends on the Python and on the thread),
and its warnings would go through state that threads share; neither may reach the harness. The
process is kept, for to start one takes longer than all the rest of a step; one that dies of a
source, or thinks too long, is replaced.
"""

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping

TIMEOUT_S = 20.0

_ANSWERS = """
import json, sys
for line in sys.stdin:
    found = {}
    for name, source in json.loads(line).items():
        try:
            compile(source, name, "exec", dont_inherit=True)
        except SyntaxError as error:
            found[name] = f"line {error.lineno}: {error.msg}"
        except (RecursionError, MemoryError, ValueError, OverflowError):
            found[name] = "it is nested too deeply to be compiled"
    print(json.dumps(found), flush=True)
"""


class _Compiler:
    """The process. One source at a time; a lock lets threads take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def errors_in(self, sources: Mapping[str, str]) -> dict[str, str]:
        """Return its findings. Raises OSError, ValueError where it died or thought too long."""
        with self._lock:
            process = self._process
            if process is None or process.poll() is not None:
                process = self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-W", "ignore", "-c", _ANSWERS],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is ours alone; the end of our pipe ends it
                )
            try:
                found: dict[str, str] = json.loads(_exchange(process, json.dumps(sources)))
            except BaseException:
                _end(process)
                self._process = None
                raise
            return found

    def close(self) -> None:
        """End the process; the next question starts another."""
        with self._lock:
            if self._process is not None:
                _end(self._process)
                self._process = None


_compiler = _Compiler()
atexit.register(_compiler.close)


def errors_in(files: Mapping[str, str]) -> dict[str, str]:
    """Return what is wrong with those of ``files`` that are Python and do not compile, by name."""
    sources = {name: text for name, text in files.items() if name.endswith(".py")}
    if not sources:
        return {}
    try:
        return _compiler.errors_in(sources)
    except (OSError, ValueError):
        return dict.fromkeys(sources, "it cannot be compiled: Python's parser gave up")


def _exchange(process: subprocess.Popen[bytes], line: str) -> bytes:
    assert process.stdin is not None  # noqa: S101
    assert process.stdout is not None  # noqa: S101
    process.stdin.write(line.encode() + b"\n")
    process.stdin.flush()
    answer, deadline = b"", time.monotonic() + TIMEOUT_S
    while not answer.endswith(b"\n"):
        poll = select.poll()  # select() cannot take descriptors above 1023
        poll.register(process.stdout, select.POLLIN)
        ready = poll.poll(1000 * max(0.0, deadline - time.monotonic()))
        piece = os.read(process.stdout.fileno(), 1 << 16) if ready else b""
        if not piece:
            raise ValueError("no answer")
        answer += piece
    return answer


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what could not be sent to it
                pipe.close()
