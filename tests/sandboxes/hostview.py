"""The host's side: which backends work on it, and processes by a word in their command line."""

import os
import textwrap
import threading
import time
from pathlib import Path

import pytest

from sandboxes.registry import BACKENDS

PATIENCE_S = 60.0
"""For what takes a moment on a quiet machine: only what hangs ever uses it up."""


def usable(name):
    """Return the backend of this name, or skip and say why it does not work here."""
    found = BACKENDS.find(name)
    probe = found.probe()
    if not probe.available:
        pytest.skip(f"{name}: {probe.detail}. Try: {probe.remedy}")
    return found


def living(marker):
    """Return the host's processes whose command line holds ``marker``, ourselves excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if marker.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def until(true, seconds=PATIENCE_S):
    """Wait until ``true()`` is; say whether it came to that."""
    deadline = time.monotonic() + seconds
    while not (found := true()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def gone(marker, seconds=PATIENCE_S):
    """Wait for the last process with ``marker`` to end; say whether it did."""
    return until(lambda: not living(marker), seconds)


def python(box, source, *args):
    """Return the command that runs Python source in a sandbox."""
    return [box.python, "-I", "-c", textwrap.dedent(source), *args]


def speaking(box, argv, lines=1, hear=lambda chunk: None):
    """Start a command; return its process once it has said that many lines."""
    said, enough = bytearray(), threading.Event()

    def listen(_stream, chunk):
        said.extend(chunk)
        hear(chunk)
        if said.count(b"\n") >= lines:
            enough.set()

    process = box.start(argv, on_output=listen)
    assert enough.wait(PATIENCE_S), f"it said {bytes(said)!r}"
    return process
