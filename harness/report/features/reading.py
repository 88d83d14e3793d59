"""Reads the features of many sources in a separate process, and tells how two sources differ.

``rules`` defines what a feature is.
"""

import contextlib
import json
import resource
import selectors
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from harness.report.features import rules
from harness.report.features.rules import CODE, Features

TIMEOUT_S = 20.0
"""Limit for one source; parsing a megabyte takes about two seconds."""
MOST_MEMORY = 2 << 30


def features_of(sources: Iterable[str]) -> dict[str, Features | None]:
    """Return each source's features; None where it does not parse, or its reader died or hung."""
    found: dict[str, Features | None] = {}
    reader: subprocess.Popen[str] | None = None
    try:
        for source in sources:
            if source in found:
                continue
            reader = reader or _started()
            answer = _answer(reader, source)
            found[source] = json.loads(answer) if answer else None
            if not answer:
                _end(reader)
                reader = None
    finally:
        if reader:
            _end(reader)
    return found


def _started() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(rules.__file__))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with contextlib.suppress(OSError, ValueError):  # if refused, only the time limit holds
        resource.prlimit(process.pid, resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    return process


def _answer(process: subprocess.Popen[str], source: str) -> str:
    """Return the line that the process answers with; empty if it died, or takes too long."""
    assert process.stdin is not None  # noqa: S101
    assert process.stdout is not None  # noqa: S101
    try:
        process.stdin.write(json.dumps(source) + "\n")
        process.stdin.flush()
    except OSError:
        return ""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        return process.stdout.readline() if selector.select(TIMEOUT_S) else ""


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def changed(before: Features, after: Features) -> frozenset[str]:
    """Return the features that differ between two sources; CODE only if nothing else does."""
    names = (before.keys() | after.keys()) - {CODE}
    known = frozenset(name for name in names if before.get(name) != after.get(name))
    if known or before.get(CODE) == after.get(CODE):
        return known
    return frozenset({CODE})
