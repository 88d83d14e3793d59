"""Reads the features of many sources in a separate process, and tells how two sources differ.

``rules`` defines what a feature is.
"""

import contextlib
import json
import queue
import resource
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

from harness.report.features import rules
from harness.report.features.rules import CODE, Features

TIMEOUT_S = 20.0
"""Limit for one source; parsing a megabyte takes about two seconds."""
MOST_MEMORY = 2 << 30


def features_of(sources: Iterable[str]) -> dict[str, Features | None]:
    """Return each source's features; None where it does not parse, or its reader died."""
    found: dict[str, Features | None] = {}
    reader = _Reader()
    try:
        for source in sources:
            if source not in found:
                found[source] = reader.ask(source)
    finally:
        reader.close()
    return found


class _Reader:
    """Asks a reader process for features; starts a new process after one that died or hung."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()

    def ask(self, source: str) -> Features | None:
        process = self._process or self._start()
        assert process.stdin is not None  # noqa: S101
        try:
            process.stdin.write(json.dumps(source) + "\n")
            process.stdin.flush()
            answer = self._lines.get(timeout=TIMEOUT_S)
        except (OSError, queue.Empty):
            answer = ""
        if not answer:
            self.close()
            return None
        value: Features | None = json.loads(answer)
        return value

    def _start(self) -> subprocess.Popen[str]:
        self._lines = queue.Queue()
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(rules.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        with contextlib.suppress(OSError, ValueError):  # if refused, only the time limit holds
            resource.prlimit(process.pid, resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        threading.Thread(target=_pump, args=(process, self._lines), daemon=True).start()
        self._process = process
        return process

    def close(self) -> None:
        """End the process. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        with contextlib.suppress(OSError):
            if process.stdin:
                process.stdin.close()
        process.wait()


def _pump(process: "subprocess.Popen[str]", lines: "queue.Queue[str]") -> None:
    assert process.stdout is not None  # noqa: S101
    with process.stdout as stdout:
        for line in stdout:
            lines.put(line)
    lines.put("")


def changed(before: Features, after: Features) -> frozenset[str]:
    """Return the features that differ between two sources; CODE only if nothing else does."""
    names = (before.keys() | after.keys()) - {CODE}
    known = frozenset(name for name in names if before.get(name) != after.get(name))
    if known or before.get(CODE) == after.get(CODE):
        return known
    return frozenset({CODE})
