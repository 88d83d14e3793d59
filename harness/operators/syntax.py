"""Checks whether Python files compile and what they define and call, in a separate process.

Deep nesting can overflow the parser's stack (how deep depends on the Python and on the thread),
and the parser's warnings use state that threads share; neither may affect the harness. The process
is reused, because starting one takes longer than all the rest of a step. It is replaced if a source
crashes it or takes too long. No source is executed.
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
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from harness.operators.text import one_line

TIMEOUT_S = 20.0

_ANSWERS = """
import ast, json, symtable, sys

def look(source, name):
    try:
        compile(source, name, "exec", dont_inherit=True)
        top = symtable.symtable(source, name, "exec").get_symbols()
        called = (n.func for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call))
        holds = {s.get_name() for s in top if s.is_assigned()}
        holds |= {f"{getattr(f, 'id', getattr(f, 'attr', ''))}()" for f in called}
        return "", sorted(holds)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}", []
    except (RecursionError, MemoryError, ValueError, OverflowError):
        return "it is nested too deeply to be compiled", []

for line in sys.stdin:
    found = {name: look(source, name) for name, source in json.loads(line).items()}
    print(json.dumps(found), flush=True)
"""


@dataclass(frozen=True, slots=True)
class SourceReport:
    """Why a Python source does not compile ("" if it does), and which names it holds.

    It holds the names that it defines at its top level by class, def or assignment (an import
    does not count), and ``NAME()`` for each name that it calls anywhere.
    """

    error: str
    holds: frozenset[str] = frozenset()


class _Compiler:
    """The separate process. One request at a time; a lock lets threads take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def check_sources(self, sources: Mapping[str, str]) -> dict[str, SourceReport]:
        """Return a SourceReport for each. Raises OSError, ValueError if it died or was too slow."""
        with self._lock:
            process = self._process
            if process is None or process.poll() is not None:
                process = self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-W", "ignore", "-c", _ANSWERS],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C does not reach it; it ends with our pipe
                )
            try:
                found = json.loads(_exchange(process, json.dumps(sources)))
            except BaseException:
                _end(process)
                self._process = None
                raise
            return {
                name: SourceReport(error, frozenset(holds))
                for name, (error, holds) in found.items()
            }

    def close(self) -> None:
        """End the process; the next request starts another."""
        with self._lock:
            if self._process is not None:
                _end(self._process)
                self._process = None


_compiler = _Compiler()
atexit.register(_compiler.close)


def check_sources(sources: Mapping[str, str]) -> dict[str, SourceReport]:
    """Return a SourceReport for each Python source, by the same keys."""
    if not sources:
        return {}
    try:
        return _compiler.check_sources(sources)
    except (OSError, ValueError):
        return dict.fromkeys(
            sources, SourceReport("it cannot be compiled: Python's parser gave up")
        )


def find_problems(
    files: Mapping[str, str], written: Collection[str], holds: Sequence[str]
) -> list[str]:
    """Return sentences on what is wrong with files: those just ``written``, and all together.

    ``holds``: the files must hold at least one of these names (``Definition.holds``).
    """
    found = check_sources({name: text for name, text in files.items() if name.endswith(".py")})
    wrong = {name: look.error for name, look in found.items() if look.error}
    problems = [f"{n} does not compile: {one_line(wrong[n], 200)}." for n in written if n in wrong]
    if (
        holds
        and found
        and not wrong
        and not any(look.holds & set(holds) for look in found.values())
    ):
        verb = "calls" if holds[0].endswith("()") else "defines"
        names = " or ".join(f"`{name}`" for name in holds)
        problems.append(f"{', '.join(found)} {verb} no {names}, and the task asks for it.")
    return problems


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
            with contextlib.suppress(OSError):  # unsent data in the pipe
                pipe.close()
