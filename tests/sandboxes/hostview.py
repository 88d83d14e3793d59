"""Helpers that look from the host: usable backends, processes by a word in their command line."""

import os
import textwrap
import threading
import time
from pathlib import Path

import pytest

from sandboxes.registry import BACKENDS

PATIENCE_S = 60.0
"""Seconds to wait for what takes a moment on an idle machine. Only a hang takes so long."""


def usable(name):
    """Return the backend of this name; if it does not work here, skip the test and say why."""
    found = BACKENDS.find(name)
    probe = found.probe()
    if not probe.available:
        pytest.skip(f"{name}: {probe.detail}. Try: {probe.remedy}")
    return found


def living(marker):
    """Return the pids of all processes with ``marker`` in their command line, except our own."""
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
    """Wait until ``true()`` is true or the time is up; return its last value."""
    deadline = time.monotonic() + seconds
    while not (found := true()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def gone(marker, seconds=PATIENCE_S):
    """Wait until no process has ``marker`` in its command line; return False if the time is up."""
    return until(lambda: not living(marker), seconds)


def python(box, source, *args):
    """Return the command that runs Python source in a sandbox."""
    return [box.python, "-I", "-c", textwrap.dedent(source), *args]


def speaking(box, argv, lines=1, hear=lambda chunk: None):
    """Start a command; return its process once it has written ``lines`` lines."""
    said, enough = bytearray(), threading.Event()

    def listen(_stream, chunk):
        said.extend(chunk)
        hear(chunk)
        if said.count(b"\n") >= lines:
            enough.set()

    process = box.start(argv, on_output=listen)
    assert enough.wait(PATIENCE_S), f"it said {bytes(said)!r}"
    return process
